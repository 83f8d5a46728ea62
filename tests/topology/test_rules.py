"""What texts of a topology file are refused."""

from __future__ import annotations

import pytest

from outgrow.topology import rules


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (rules.name, ["a", "app1", "1.a-b"], ["", "A", "-a", ".a", "a_b", "a/b", "a\n", "a" * 64]),
        (rules.module, ["a", "a.b_c", "é.x"], ["", "a.", ".a", "1a", "a-b", "a b", "a\n"]),
        (rules.wsgi, ["a.b:c", "a:b"], ["", "a.b", "a.b:", ":c", "a.b:c.d", "a b:c", "a:b:c"]),
        (
            rules.domain,
            ["example.org", ".example.org", "10.0.0.1", "[::1]", "localhost"],
            ["", "*", "http://x", "x:80", "x/", "..x", "a b", "-a.org", "a..b", "x" * 64, "a\n"],
        ),
        (
            rules.address,
            ["10.0.0.1", "::1", "app1", "app1.example.org", "1a.example"],
            ["", "0.0.0.0", "::", "10.0.0.256", "10.0.0", "a:80", "a_b", "a.", "http://a", "a\n"],
        ),
        (rules.path, ["a", "/a b"], ["", "a\nb", "a\0"]),
        (
            rules.media_url,
            ["/", "/media/", "https://x.org/", "http://x.org/m/"],
            [
                "",
                "media/",
                "/media",
                "//x.org/",
                "ftp://x/",
                "https:///",
                "https://x.org",
                "http://[x/",
            ],
        ),
    ],
)
def test_a_rule_is_silent_about_the_good_and_says_what_is_bad(
    rule: rules.Rule, good: list[str], bad: list[str]
) -> None:
    assert {value: rule(value) for value in good} == dict.fromkeys(good, "")
    assert [value for value in bad if not rule(value).endswith(".")] == []


def test_a_port_in_an_address_is_told_where_it_goes() -> None:
    assert rules.address("10.0.0.1:8000").endswith("a port goes into ports = { app = 8000 }.")
    assert "ports" not in rules.address("bad_name")
