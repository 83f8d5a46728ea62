"""What breaks behind a pooler: each mistake, and what is none beside it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from outgrow.checks import check_deployment, check_pooled, check_shared_nothing
from outgrow.pooled import mistakes

POSTGRES = {"ENGINE": "django.db.backends.postgresql", "HOST": "10.0.0.5"}
RIGHT = {**POSTGRES, "DISABLE_SERVER_SIDE_CURSORS": True}


def found(entry: dict[str, Any], mode: str = "") -> list[str]:
    return [one.number for one in mistakes({"default": entry}, {"default": mode} if mode else {})]


@pytest.mark.parametrize(
    ("entry", "mode", "ids"),
    [
        (POSTGRES, "transaction", ["E521"]),
        (RIGHT, "transaction", []),
        (POSTGRES, "session", []),
        (POSTGRES, "", []),
        ({**POSTGRES, "PORT": 6432}, "", ["W522"]),
        ({**POSTGRES, "PORT": "6432"}, "session", []),
        ({**RIGHT, "PORT": "6432"}, "", []),
        ({"ENGINE": "django.db.backends.mysql", "PORT": "6432"}, "", []),
        ({**POSTGRES, "OPTIONS": {"pool": True}, "CONN_MAX_AGE": 60}, "", ["E523"]),
        ({**POSTGRES, "OPTIONS": {"pool": True}, "CONN_MAX_AGE": None}, "", ["E523"]),
        ({**POSTGRES, "OPTIONS": {"pool": True}}, "", []),
        ({**POSTGRES, "CONN_MAX_AGE": 60}, "", []),
        ({**RIGHT, "OPTIONS": {"prepare_threshold": 5}}, "transaction", ["E524"]),
        ({**RIGHT, "OPTIONS": {"prepare_threshold": None}}, "transaction", []),
        ({**RIGHT, "OPTIONS": {"assume_role": "web"}}, "transaction", ["E524"]),
        ({**POSTGRES, "OPTIONS": {"assume_role": "web"}}, "session", []),
    ],
)
def test_mistakes(entry: dict[str, Any], mode: str, ids: list[str]) -> None:
    assert found(entry, mode) == ids


def ids(check: Any, outgrow: object, databases: dict[str, Any]) -> set[str]:
    with override_settings(OUTGROW=outgrow):
        from django.conf import settings

        before = settings.DATABASES
        # Alone: servers of other tests have aliases here, at an address of this machine.
        settings.DATABASES = {"default": databases}
        try:
            return {str(one.id) for one in check()}
        finally:
            settings.DATABASES = before


def test_manage_py_check_tells_them() -> None:
    assert ids(check_pooled, {"POOLED": {"default": "transaction"}}, POSTGRES) == {"outgrow.E521"}
    assert ids(check_pooled, {"POOLED": {"default": "transaction"}}, RIGHT) == set()
    assert ids(check_pooled, {"POOLED": {"default": "statement"}}, RIGHT) == {"outgrow.E520"}
    assert ids(check_pooled, {"POOLED": ["default"]}, RIGHT) == {"outgrow.E520"}


def test_a_pooler_on_the_own_loopback_is_no_database_of_its_own() -> None:
    here = {**RIGHT, "HOST": "127.0.0.1"}
    assert "outgrow.E508" in ids(check_shared_nothing, {"APP_SERVERS": 2}, here)
    pooled = {"APP_SERVERS": 2, "POOLED": {"default": "transaction"}}
    assert "outgrow.E508" not in ids(check_shared_nothing, pooled, here)
    # A name is looked up, whatever listens there.
    named = {**RIGHT, "HOST": "pooler.example.org"}
    assert "outgrow.I515" in ids(check_deployment, pooled, named)
