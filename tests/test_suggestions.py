"""What is suggested for a word that is not known."""

from __future__ import annotations

from outgrow.suggestions import closest, suggestion


def test_the_most_similar_word() -> None:
    assert closest("endpiont", ["region", "endpoint", "endpoints"]) == "endpoint"
    assert closest("zzz", ["region", "endpoint"]) == ""
    assert closest("region", []) == ""
    assert closest(7, ["region", "7x"]) == "7x"


def test_how_similar_it_must_be() -> None:
    assert closest("base.scss", ["base.css"]) == "base.css"
    assert closest("base.scss", ["base.css"], cutoff=0.99) == ""


def test_as_a_sentence() -> None:
    assert suggestion("endpiont", ["region", "endpoint"]) == "Did you mean 'endpoint'?"
    assert suggestion("zzz", ["region", "endpoint"]) == "There are: region, endpoint."
