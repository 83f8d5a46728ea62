"""The order of files that depend on each other."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from outgrow.publish.graph import components

NODES = st.sampled_from("abcdefg")
GRAPHS = st.dictionaries(NODES, st.frozensets(NODES))


def test_dependencies_come_first():
    assert components({"a": ["b", "c"], "b": ["c"], "c": []}) == [("c",), ("b",), ("a",)]


def test_circles_are_one_component():
    edges = {"main": ["b"], "a": ["b"], "b": ["c", "lib"], "c": ["a"], "self": ["self"]}
    assert components(edges) == [("lib",), ("a", "b", "c"), ("main",), ("self",)]


def test_chains_may_be_long():
    names = [f"{number:05}" for number in range(20000)]
    chain = {name: [other] for name, other in pairwise(names)}
    assert components(chain) == [(name,) for name in reversed(names)]
    assert components(chain | {names[-1]: [names[0]]}) == [tuple(names)]


@given(GRAPHS, st.randoms())
def test_the_order_of_the_input_does_not_matter(edges, random):
    names = list(edges)
    random.shuffle(names)
    shuffled = {name: random.sample(sorted(edges[name]), len(edges[name])) for name in names}
    assert components(shuffled) == components(edges)


@given(GRAPHS)
def test_components_are_those_that_reach_each_other(edges):
    found = components(edges)
    names = {*edges, *(one for several in edges.values() for one in several)}
    assert sorted(name for one in found for name in one) == sorted(names)
    reached = {name: _reached(edges, name) for name in names}
    place = {name: number for number, one in enumerate(found) for name in one}
    for name in names:
        together = {other for other in reached[name] if name in reached[other]}
        assert set(found[place[name]]) == together
        assert all(place[other] <= place[name] for other in reached[name])


def _reached(edges, start):
    reached, left = {start}, [start]
    while left:
        new = set(edges.get(left.pop(), ())) - reached
        reached |= new
        left += new
    return reached
