"""Tables hand out values of the right type, whatever the file has."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from outgrow.topology.keys import Problems, Table, join, suggestion


@pytest.fixture
def problems() -> Problems:
    return Problems()


def said(problems: Problems) -> list[str]:
    return [str(problem) for problem in problems.found]


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (True, "true"),
        (False, "false"),
        (4, "the number 4"),
        (4.5, "the number 4.5"),
        ([1], "a list"),
        ([], "an empty list"),
        ({}, "a table"),
        (dt.date(2026, 1, 1), "a date"),
    ],
)
def test_a_value_of_another_type_is_described_as_toml_would(
    problems: Problems, value: object, described: str
) -> None:
    assert Table("t", {"k": value}, problems).text("k") == ""
    assert said(problems) == [f"t.k: must be a string, not {described}."]


@pytest.mark.parametrize("value", [True, "4", [], 4.0])
def test_a_whole_number_is_nothing_else(problems: Problems, value: object) -> None:
    assert Table("t", {"k": value}, problems).whole("k", 1, 9, default=7) == 7
    assert len(problems.found) == 1


@pytest.mark.parametrize("value", [True, "4", 0, -1, math.inf, math.nan])
def test_a_number_is_finite_and_large_enough(problems: Problems, value: object) -> None:
    assert Table("t", {"k": value}, problems).number("k", more_than=0) is None
    assert len(problems.found) == 1


@pytest.mark.parametrize("value", [True, 4.0, -1, "each", [], {}])
def test_a_word_or_a_number_is_nothing_else(problems: Problems, value: object) -> None:
    table = Table("t", {"k": value}, problems)
    assert table.word_or_whole("k", ["all", "none"], 0) is None
    assert said(problems)[0].startswith('t.k: must be a number of at least 0, or "all", "none"; ')


def test_values_that_are_right_are_handed_out(problems: Problems) -> None:
    content = {"text": "a", "list": ["a", "b"], "number": 3, "flag": False, "word": "all", "n": 5}
    table = Table("", content, problems)
    assert table.text("text") == "a"
    assert table.texts("list") == ("a", "b")
    assert table.number("number", more_than=0) == 3.0
    assert table.flag("flag") is False
    assert table.word_or_whole("word", ["all"], 0) == "all"
    assert table.word_or_whole("n", ["all"], 0) == 5
    assert table.whole("n", 0, 9, default=1) == 5
    assert table.choice("text", ["a", "b"], "a letter") == "a"
    table.close()
    assert problems.found == []


def test_values_that_are_not_there_have_defaults(problems: Problems) -> None:
    table = Table("", {}, problems)
    assert table.text("text", default="d") == "d"
    assert table.number("number", more_than=0) is None
    assert table.flag("flag") is None
    assert table.word_or_whole("word", ["all"], 0) is None
    assert table.whole("whole", 0, 9, default=1) == 1
    assert table.choice("choice", ["a"], "a letter") is None
    assert problems.found == []


def test_a_choice_of_another_type_is_one_problem(problems: Problems) -> None:
    assert Table("", {"k": 4}, problems).choice("k", ["a"], "a letter") is None
    assert said(problems) == ["k: must be a string, not the number 4."]


def test_a_missing_list_is_one_problem(problems: Problems) -> None:
    assert Table("", {}, problems).texts("k") == ()
    assert said(problems) == ["k: is missing."]


def test_a_rule_names_the_item(problems: Problems) -> None:
    table = Table("t", {"k": ["a", "b"]}, problems)
    assert table.texts("k", lambda value: "" if value == "a" else "no.") == ("a",)
    assert said(problems) == ["t.k[1]: no."]


def test_an_unknown_key_gets_a_suggestion_or_the_list(problems: Problems) -> None:
    table = Table("", {"colour": 1, "zzz": 1}, problems)
    table.number("color", more_than=0)
    table.close()
    assert said(problems) == [
        'colour: is not a known key; did you mean "color"?',
        'zzz: is not a known key; known: "color".',
    ]


def test_problems_know_what_is_below_a_path(problems: Problems) -> None:
    problems.add("servers.a[0]", "bad.")
    assert problems.below("servers")
    assert problems.below("servers.a")
    assert problems.below("servers.a[0]")
    assert not problems.below("server")
    assert not problems.below("servers.a[0].x")


def test_paths_are_quoted_where_toml_would(problems: Problems) -> None:
    assert join("", "a") == "a"
    assert join("a", "b-c") == "a.b-c"
    assert join("a", "b.c") == 'a."b.c"'
    assert suggestion("x", ["b", "a", "b"]) == 'known: "a", "b".'
