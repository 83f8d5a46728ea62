"""A DNS client for tests: one question, by UDP or TCP, and what is answered (RFC 1035 §4)."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from dataclasses import dataclass
from typing import Final

TYPES: Final = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "AAAA": 28, "AXFR": 252}
_NAMES: Final = {number: name for name, number in TYPES.items()}


@dataclass(frozen=True)
class Record:
    """One record; `value` is an address, a name, or the serial of a SOA."""

    name: str
    type: str
    ttl: int
    value: str


@dataclass(frozen=True)
class Answer:
    """`status` is 0 for a name that is there, 3 for one that is not, 5 for a refusal."""

    status: int
    authoritative: bool
    recursive: bool
    records: tuple[Record, ...]

    def values(self, kind: str) -> list[str]:
        return [one.value for one in self.records if one.type == kind]


def ask(port: int, name: str, kind: str = "A", *, tcp: bool = False) -> Answer:
    """The answer of the server at this port of 127.0.0.1. Raises OSError when there is none."""
    number = secrets.randbits(16)
    # The bit RD is set, as a careless client has it: the server is none that recurs.
    head = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0)
    labels = [*name.rstrip(".").encode().split(b"."), b""]
    words = b"".join(bytes([len(label)]) + label for label in labels)
    query = head + words + struct.pack("!2H", TYPES[kind], 1)
    reply = (_by_tcp if tcp else _by_udp)(port, query)
    found, flags, _, count = struct.unpack_from("!4H", reply)
    assert found == number
    _, place = _name(reply, 12)
    place += 4
    records = []
    for _ in range(count):
        record, place = _record(reply, place)
        records.append(record)
    return Answer(flags & 15, bool(flags & 0x0400), bool(flags & 0x0080), tuple(records))


def _by_udp(port: int, query: bytes) -> bytes:
    with socket.socket(type=socket.SOCK_DGRAM) as connection:
        connection.settimeout(2)
        connection.connect(("127.0.0.1", port))
        connection.send(query)
        return connection.recv(65535)


def _by_tcp(port: int, query: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(struct.pack("!H", len(query)) + query)
        with connection.makefile("rb") as stream:
            (length,) = struct.unpack("!H", stream.read(2))
            return stream.read(length)


def _record(reply: bytes, place: int) -> tuple[Record, int]:
    name, place = _name(reply, place)
    number, _, ttl, length = struct.unpack_from("!2HIH", reply, place)
    place += 10
    kind = _NAMES.get(number, str(number))
    data = reply[place : place + length]
    if kind in {"A", "AAAA"}:
        value = str(ipaddress.ip_address(data))
    elif kind in {"NS", "CNAME"}:
        value, _ = _name(reply, place)
    else:
        value = str(struct.unpack_from("!I", data, len(data) - 20)[0]) if kind == "SOA" else ""
    return Record(name, kind, ttl, value), place + length


def _name(reply: bytes, place: int) -> tuple[str, int]:
    """A name and the place behind it; it may go on elsewhere (§4.1.4)."""
    labels = []
    while length := reply[place]:
        if length >= 0xC0:
            rest, _ = _name(reply, struct.unpack_from("!H", reply, place)[0] & 0x3FFF)
            return ".".join([*labels, rest]), place + 2
        labels.append(reply[place + 1 : place + 1 + length].decode())
        place += 1 + length
    return ".".join(labels), place + 1
