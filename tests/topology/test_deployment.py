"""Which steps a new version of a site takes, and in which order."""

from __future__ import annotations

import pytest

from outgrow.topology.deployment import Deployment, deployment
from outgrow.topology.states import State, Status


def status(name: str, role: str, state: State = State.READY) -> Status:
    return Status(name, role, state, "127.0.0.1:1", 1, 1, 0.0)


EVERY = (
    status("front", "balancer"),
    status("repair", "repair"),
    status("work1", "worker"),
    status("app1", "app"),
    status("db1", "primary"),
    status("app2", "app"),
)


def test_application_servers_come_before_those_that_take_their_tasks() -> None:
    assert deployment(EVERY, migrate=True) == Deployment(
        ("check", "migrate"), ("app1", "app2", "work1", "repair")
    )


def test_without_the_tables() -> None:
    assert deployment(EVERY, migrate=False).steps == ("check",)


@pytest.mark.parametrize("state", list(State))
def test_who_does_not_run_is_left_alone(state: State) -> None:
    found = deployment((status("app1", "app", state), status("app2", "app")), migrate=False)
    away = state in {State.KILLED, State.STOPPED, State.FROZEN}
    assert found.away == (("app1",) if away else ())
    assert found.told == (("app2",) if away else ("app1", "app2"))


def test_who_still_has_the_old_code() -> None:
    found = deployment(EVERY, migrate=False)
    assert found.left(1) == "app2, work1, repair"
    assert found.left(4) == ""
