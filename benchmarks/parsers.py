"""Which bad answers each parser refuses: python -m benchmarks.parsers"""

from __future__ import annotations

import h11

from outgrow.answer import AnswerError, AnswerParser

ANSWERS = {
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a length beside chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n"
    ),
    "NUL in a header": b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "version 9.9": b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "bytes after the end": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokXX",
    "no status": b"garbage\r\n\r\n",
    "status 2xx": b"HTTP/1.1 2xx OK\r\n\r\n",
    "a space in a header's name": b"HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n\r\n",
    "a blank line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


def ours(answer: bytes) -> str:
    try:
        AnswerParser("PUT").feed(answer)
    except AnswerError:
        return "refused"
    return "taken"


def theirs(answer: bytes) -> str:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="PUT", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(answer)
        while not isinstance(connection.next_event(), (h11.EndOfMessage, type(h11.NEED_DATA))):
            pass
    except h11.ProtocolError:
        return "refused"
    return "taken"


if __name__ == "__main__":
    for name, answer in ANSWERS.items():
        print(f"{name:27} httptools (ours): {ours(answer):8} h11: {theirs(answer)}")
