"""Two listings -> what a copy has to do; and that no name is forgotten, by any listings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgrow.moving.plan import UNKNOWN, Action, Found, Verb, plan


def actions(source, target, **options):
    return [one for one in plan(source, target, **options) if one is not None]


def test_what_only_the_source_has_is_copied():
    assert actions([Found("a", 1), Found("b", 2)], [Found("a", 1)]) == [Action(Verb.COPY, "b", 2)]


def test_what_only_the_target_has_is_extra():
    assert actions([Found("b", 1)], [Found("a", 5), Found("b", 1), Found("c", 7)]) == [
        Action(Verb.EXTRA, "a", 5),
        Action(Verb.EXTRA, "c", 7),
    ]


def test_what_both_have_needs_nothing():
    assert list(plan([Found("a", 1)], [Found("a", 1)])) == [None]


def test_it_is_compared_if_that_is_asked_for():
    compared = [Action(Verb.COMPARE, "a", 1)]
    assert actions([Found("a", 1)], [Found("a", 1)], verify=True) == compared


def test_it_is_compared_where_a_listing_has_no_sizes():
    assert actions([Found("a", 1)], [Found("a")]) == [Action(Verb.COMPARE, "a", 1)]
    assert actions([Found("a")], [Found("a", 1)]) == [Action(Verb.COMPARE, "a", UNKNOWN)]


def test_other_bytes_are_looked_at_again():
    assert actions([Found("a", 1)], [Found("a", 2)]) == [Action(Verb.REPLACE, "a", 1)]


def test_a_name_that_a_listing_has_twice_counts_once():
    twice = [Found("a", 1), Found("a", 1), Found("b", 2)]
    assert actions(twice, []) == [Action(Verb.COPY, "a", 1), Action(Verb.COPY, "b", 2)]


LISTINGS = st.dictionaries(st.text("ab/é", min_size=1, max_size=4), st.integers(-1, 2), max_size=8)


@given(LISTINGS, LISTINGS)
def test_each_name_is_decided_once_and_in_order(source, target):
    listings = [[Found(*item) for item in sorted(one.items())] for one in (source, target)]
    decided = list(plan(*listings))
    names = [one.name for one in decided if one is not None]

    assert len(decided) == len(source.keys() | target.keys())
    assert names == sorted(names)
    for one in filter(None, decided):
        assert (one.verb is Verb.COPY) == (one.name not in target)
        assert (one.verb is Verb.EXTRA) == (one.name not in source)
    for name in source.keys() & target.keys() - set(names):
        assert source[name] == target[name] != UNKNOWN
