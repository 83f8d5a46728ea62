"""Where a pair of a balancer and an application server does not do what all others do.

Each row is asserted to be true (tests/fronts/test_requests.py and test_faults.py), and stands in
docs/howto/fronts.md.
"""

from __future__ import annotations

from typing import NamedTuple

#: Stands for every balancer, or every application server.
ANY = "any"

#: What the documentation calls the balancers.
NAMES = {"nginx": "nginx", "haproxy": "HAProxy", "apache": "Apache", "caddy": "Caddy"}


class Exceptional(NamedTuple):
    """One deviation. `case` is what the tests ask for; `said` is the documentation's sentence."""

    front: str
    application: str
    case: str
    said: str
    #: It does not happen each time: allowed, and not asserted.
    rare: bool = False


ROWS: tuple[Exceptional, ...] = (
    Exceptional(
        "nginx",
        "fastcgi",
        "small pieces",
        "What is sent piece by piece waits until a buffer is full, unless the response "
        "has `X-Accel-Buffering: no`",
    ),
    *(
        Exceptional(front, engine, "chunked", "A body of unknown length is refused with 411")
        for front in ("haproxy", "apache", "caddy")
        for engine in ("gunicorn", "granian", "fastcgi")
    ),
    Exceptional(
        "apache",
        ANY,
        "get in flight",
        "A GET under way on a server that dies is answered with 502, and asked of no other",
    ),
    Exceptional(
        "caddy",
        ANY,
        "many times",
        "A GET whose server dies is sent up to six times",
    ),
    Exceptional(
        "caddy",
        ANY,
        "get under load",
        "When a server dies, a few GETs may be answered with 502 until that is noticed",
        rare=True,
    ),
    Exceptional(
        "caddy",
        ANY,
        "one check",
        "One failed check takes a server out until the next, a second later: after a page that "
        "kills workers all may be out, and visitors get 503",
        rare=True,
    ),
    Exceptional(
        "haproxy",
        "fastcgi",
        "head",
        "HEAD is most often answered with 502 (HAProxy 2.6)",
        rare=True,
    ),
    *(
        Exceptional(
            front, engine, "unlimited", "A body of unknown length has the site's own limit alone"
        )
        for front in ("haproxy", "apache")
        for engine in ("uvicorn", "granian (ASGI)")
    ),
    Exceptional(
        "apache",
        ANY,
        "only one has",
        "A file is asked of one file server alone: let them ask each other",
    ),
)


def is_exceptional(front: str, application: str, case: str) -> bool:
    """Whether this pair deviates in this case."""
    return any(
        row.front in {ANY, front} and row.application in {ANY, application} and row.case == case
        for row in ROWS
    )


def table() -> list[str]:
    """The rows as docs/howto/fronts.md shows them."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in ROWS:
        grouped.setdefault((row.front, row.said), []).append(row.application)
    return [
        f"| {NAMES[front]} | {', '.join(applications)} | {said} |"
        for (front, said), applications in grouped.items()
    ]
