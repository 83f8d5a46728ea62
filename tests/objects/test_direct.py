"""What is allowed of an upload straight from a browser: decisions about values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outgrow.errors import UnsafeName
from outgrow.objects.direct import (
    MOST,
    Limits,
    Offer,
    Ticket,
    from_values,
    offer_from_values,
    ticket,
)

FILE = "outgrow-incoming/abcdefghijklm"
LIMITS = Limits(100, least=2, types=("image/",))
GOOD = Ticket("s3://b", FILE, "a.png", 10, "me", 1000.0)


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("a.png", 2, ""),
        ("a.png", 100, ""),
        ("a.png", 1, "at least 2"),
        ("a.png", 101, "at most 100"),
        ("a.png", -1, "at least 2"),
        ("a.html", 10, "text/html"),
        ("a.png.html", 10, "text/html"),
        ("a", 10, "application/octet-stream"),
    ],
)
def test_limits(name, size, reason):
    found = LIMITS.refusal(name, size)
    assert reason in found
    assert bool(found) == bool(reason)


def test_without_types_all_are_taken():
    assert Limits(100).refusal("a.html", 10) == ""


@pytest.mark.parametrize(("least", "most"), [(-1, 5), (6, 5), (0, MOST + 1)])
def test_limits_that_no_store_takes(least, most):
    with pytest.raises(ValueError, match="5 GiB"):
        Limits(most, least)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"until": 999.0}, "expired"),
        ({"until": 999.5}, "expired"),
        ({"owner": "other"}, "somebody else"),
        ({"owner": ""}, "somebody else"),
        ({"place": "s3://other"}, "another place"),
        ({"file": "photos/abcdefghijklm"}, "another place"),
        ({"file": "outgrow-incoming/../photos/a"}, "another place"),
        ({"file": f"{FILE}.taken"}, "another place"),
        ({"file": f"{FILE}\n"}, "another place"),
        ({"size": 101}, "at most 100"),
        ({"name": "a.svgz"}, "octet-stream"),
    ],
)
def test_a_ticket_is_good_for_its_own_form_alone(change, reason):
    found = replace(GOOD, **change).refusal("s3://b", "me", LIMITS, 999.5)
    assert reason in found
    assert bool(found) == bool(reason)


def test_nobody_owns_nothing():
    assert "somebody else" in replace(GOOD, owner="").refusal("s3://b", "", LIMITS, 0.0)


def test_a_new_ticket_has_a_key_that_the_visitor_did_not_choose():
    first, second = (ticket("s3://b", "C:\\x\\../a.png", 10, "me", 9.0) for _ in range(2))
    assert first.file != second.file
    assert first.name == "a.png"
    assert first.mark == f"{first.file}.taken"
    assert first.refusal("s3://b", "me", LIMITS, 8.0) == ""


@pytest.mark.parametrize("name", ["", "a/", "..", ".htaccess", "a\x00.png", "a%2e.png"])
def test_a_name_that_may_not_be_used(name):
    with pytest.raises(UnsafeName):
        ticket("s3://b", name, 10, "me", 9.0)


def test_values_and_back():
    assert from_values(GOOD.values()) == GOOD


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {**GOOD.values(), "more": 1},
        {**GOOD.values(), "size": True},
        {**GOOD.values(), "size": "10"},
        {**GOOD.values(), "until": None},
        {**GOOD.values(), "name": "../a"},
    ],
)
def test_values_of_no_ticket(values):
    assert from_values(values) is None


OFFER = Offer("default", 100, 1, ("image/",), 5, "me")


def test_an_offer_comes_back_as_it_was():
    values = OFFER.values()
    assert values["types"] == ["image/"]
    assert offer_from_values(values) == OFFER
    assert OFFER.limits == Limits(100, 1, ("image/",))


@pytest.mark.parametrize(
    "change",
    [{"most": "100"}, {"types": "image/"}, {"types": [1]}, {"often": True}, {"more": 1}],
)
def test_what_is_no_offer(change):
    assert offer_from_values(OFFER.values() | change) is None


@pytest.mark.parametrize("values", [None, [], "x", {}, GOOD.values()])
def test_what_is_no_offer_at_all(values):
    assert offer_from_values(values) is None
