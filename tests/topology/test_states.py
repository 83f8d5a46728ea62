"""Facts -> states; states for people and for machines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outgrow.topology.states import (
    SIGNS,
    Facts,
    State,
    Status,
    as_json,
    from_json,
    shown,
    shown_age,
    shown_memory,
    state_of,
    worst,
)


def status(name: str, state: State, **more: Any) -> Status:
    return Status(name, "app", state, "http://127.0.0.1:1", 7, 1024, 12.5, **more)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (Facts(True), State.READY),
        (Facts(True, was_ready=True), State.READY),
        (Facts(True, problem="refused"), State.STARTING),
        (Facts(True, problem="refused", was_ready=True), State.FAILING),
        (Facts(True, stopped=True), State.FROZEN),
        # Whatever its check found before: nobody asks one that can't answer.
        (Facts(True, stopped=True, problem="refused", was_ready=True), State.FROZEN),
        # One that is held and was started by hand.
        (Facts(True, held=True), State.READY),
        (Facts(False), State.RESTARTING),
        (Facts(False, status=-9), State.RESTARTING),
        (Facts(False, held=True, status=-9), State.KILLED),
        (Facts(False, held=True, status=-15), State.STOPPED),
        (Facts(False, held=True, status=0), State.STOPPED),
        (Facts(False, held=True), State.STOPPED),
    ],
)
def test_the_state_follows_from_the_facts(facts: Facts, state: State) -> None:
    assert state_of(facts) is state


def test_every_state_has_a_sign_so_that_colour_is_not_all() -> None:
    assert set(SIGNS) == set(State)
    assert shown(State.KILLED) == "✕ killed"


def test_json_there_and_back() -> None:
    statuses = (status("app1", State.READY), status("db1", State.FAILING, problem="refused"))
    text = json.dumps(as_json(statuses))
    assert from_json(json.loads(text)) == statuses


@pytest.mark.parametrize("wrong", [{}, {"name": "a"}, {"state": "asleep"}, {"state": "ready"}])
def test_what_is_no_status_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json([wrong])


def test_a_server_is_as_well_as_the_worst_of_its_processes() -> None:
    statuses = [
        status("web:app", State.READY),
        status("web:media", State.FROZEN),
        status("db1", State.READY),
        status("both:a", State.STARTING),
        status("both:b", State.READY),
    ]
    assert worst(statuses) == {
        "web": State.FROZEN,
        "db1": State.READY,
        "both": State.STARTING,
    }


def test_numbers_for_people() -> None:
    assert [shown_memory(one) for one in (None, 0, 44_400_000)] == ["", "0 MB", "44 MB"]
    ages = (-1.0, 59.9, 60.0, 3599.0, 7200.0, 200_000.0)
    assert [shown_age(one) for one in ages] == ["0 s", "59 s", "1 min", "59 min", "2 h", "2 d"]
