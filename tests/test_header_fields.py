"""Which names and values of header fields are taken."""

from __future__ import annotations

import pytest

from outgrow.header_fields import NAME, SENT_VALUE, VALUE


@pytest.mark.parametrize("name", ["Host", "x-amz-date", "a!#$%&'*+.^_`|~-0"])
def test_names(name: str) -> None:
    assert NAME.match(name)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "\na", "é", "(a)", "a\x00"])
def test_what_is_no_name(name: str) -> None:
    assert not NAME.match(name)


@pytest.mark.parametrize("value", ["", "a", "a b\tc", '"~!"'])
def test_values(value: str) -> None:
    assert VALUE.match(value)
    assert SENT_VALUE.match(value)


@pytest.mark.parametrize("value", [" a", "a ", "\ta", " "])
def test_spaces_at_the_ends_are_not_sent(value: str) -> None:
    assert VALUE.match(value)
    assert not SENT_VALUE.match(value)


@pytest.mark.parametrize("value", ["a\n", "a\r\nX: y", "\x00", "\x7f", "é"])
def test_what_is_no_value(value: str) -> None:
    assert not VALUE.match(value)
    assert not SENT_VALUE.match(value)
