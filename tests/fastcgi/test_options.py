"""The words of runfcgi, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgrow.errors import ConfigurationError
from outgrow.fastcgi.options import HELP, NAMES, Options, parse


def test_by_default() -> None:
    assert parse([]) == Options()
    assert Options().place == "the web server's own socket"


def test_the_words_of_django_1_8() -> None:
    words = "method=threaded host=127.0.0.1 port=3033 maxchildren=8 daemonize=true umask=007"
    files = "pidfile=/run/a.pid outlog=/var/a errlog=b workdir=/srv"
    found = parse(f"{words} {files}".split())
    assert found == Options(
        method="threaded",
        host="127.0.0.1",
        port=3033,
        most=8,
        daemonize=True,
        umask=0o007,
        pidfile=Path("/run/a.pid"),
        outlog=Path("/var/a"),
        errlog=Path("b").absolute(),
        workdir=Path("/srv"),
    )
    assert found.place == "127.0.0.1:3033"


def test_as_arguments() -> None:
    given = {"socket": Path("/run/a.sock"), "maxrequests": 100, "grace": 1.5, "daemonize": False}
    found = parse(["minspare=1", "maxspare=2"], given)
    assert (found.socket, found.requests, found.grace) == (Path("/run/a.sock"), 100, 1.5)
    assert (found.fewest, found.spare, found.daemonize) == (1, 2, False)
    assert found.place == "/run/a.sock"
    # Words are what was typed last.
    assert parse(["maxrequests=5"], given).requests == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("threaded", "was given 'threaded'. Write NAME=VALUE"),
        ("metod=threaded", "metod: is not an option. Did you mean 'method'?"),
        ("protocol=scgi", "protocol: is not an option. There are: method, host"),
        ("method=fork", "method: is 'fork'. Write one of threaded, prefork"),
        ("host= port=1", "host: is ''. Write an address"),
        ("port=1", "host: is missing. host and port go together"),
        ("host=::1", "port: is missing"),
        ("port=0", "port: is '0'. Write a number, 1 to 65535"),
        ("port=٣", "port: is '٣'"),
        ("port=-1", "port: is '-1'"),
        ("socket=/a host=::1 port=1", "socket: stands beside host and port"),
        ("socket=", "socket: is ''. Write a path"),
        ("umask=8", "umask: is '8'. Write an octal number"),
        ("umask=7777", "umask: is '7777'"),
        ("grace=soon", "grace: is 'soon'. Write seconds"),
        ("grace=-1", "grace: is '-1'"),
        ("grace=nan", "grace: is 'nan'"),
        ("daemonize=maybe", "daemonize: is 'maybe'. Write true or false"),
        ("daemonize=yes", "daemonize: has no place to listen at"),
        ("method=threaded maxrequests=5", "maxrequests: is for method=prefork"),
        ("minspare=9", "minspare: is 9, of 5 spare and 50 in all"),
        ("maxspare=60", "minspare: is 2, of 60 spare and 50 in all"),
    ],
)
def test_mistakes(words: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(words.split(" "))
    assert message in str(raised.value)


def test_the_help_has_every_word() -> None:
    for name in NAMES:
        assert f"{name}=" in HELP
