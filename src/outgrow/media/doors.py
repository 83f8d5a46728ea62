"""The sockets that the embedded media server listens on, and what may be done at each.

The laws:

1. There is one door for everything, or one for readers and one for writers. At the
   readers' nothing is written or listed, whoever asks.
2. A door where files are written and that other machines can reach needs a token.
3. A writer's door is called by the name that it was given, not by that of the readers'.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace

from outgrow.errors import ConfigurationError
from outgrow.media.protocol import Rules

_INTERNET = {socket.AF_INET, socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen: ``host:port``, or instead `fd`, a listening socket that was inherited.

    `option` is what errors call it. Port 0 chooses one.
    """

    option: str
    bind: str = ""
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """A listening socket, and the rules for those who come in there."""

    listener: socket.socket
    rules: Rules

    @property
    def address(self) -> str:
        """Its URL, or ``unix:`` and a path."""
        return _address(self.listener)


def open_doors(place: Place, writing: Place | None, rules: Rules) -> list[Door]:
    """One door at `place`; or that for readers, and a second one at `writing`.

    Raises ConfigurationError for an address that can't be used, and without a token
    where others could write.
    """
    with ExitStack() as opened:
        doors = []
        if writing is not None:
            listener = opened.enter_context(_listen(place))
            doors.append(Door(listener, replace(rules, reads_only=True)))
            place = writing
        listener = opened.enter_context(_listen(place))
        if rules.token is None and not _is_loopback(listener):
            raise ConfigurationError(
                place.option,
                f"{_address(listener)} can be reached from other machines, and without a token "
                "they could write.",
                "Give a token (--token-file, or OUTGROW_MEDIA_TOKEN), or bind to 127.0.0.1.",
            )
        doors.append(Door(listener, replace(rules, hosts=rules.hosts | _named(place))))
        opened.pop_all()
        return doors


def _named(place: Place) -> set[str]:
    """Whoever gave a door this name may call it by it."""
    return {parse_bind(place.bind, place.option)[0].lower()} if place.bind else set()


def parse_bind(bind: str, option: str = "bind") -> tuple[str, int]:
    """``host:port`` or ``[address]:port`` as host and port. Raises ConfigurationError."""
    host, colon, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            option, f"{bind!r} is not an address.", "Write host:port, as in 127.0.0.1:8080."
        )
    return host, int(port)


def _listen(place: Place) -> socket.socket:
    listener = _create(place) if place.fd is None else _inherit(place.fd, place.option)
    if listener.family in _INTERNET:
        # asyncio sets this only where the socket names its protocol; without it each
        # download waits some 40 ms for a delayed acknowledgement. Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _create(place: Place) -> socket.socket:
    host, port = parse_bind(place.bind, place.option)
    try:
        family, *_rest, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise ConfigurationError(
            place.option, f"can't listen on {host}:{port}: {error.strerror}."
        ) from error


def _inherit(fd: int, option: str) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigurationError(option, f"{fd} is not a socket: {error.strerror}.") from error


def _is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can connect."""
    if listener.family not in _INTERNET:
        return True  # a Unix socket, guarded by its permissions
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{name}"
    return f"http://[{name[0]}]:{name[1]}" if ":" in name[0] else f"http://{name[0]}:{name[1]}"
