"""A `Front` -> the configuration of an HAProxy that stands before the site.

Source of what is said of its words: docs.haproxy.org/2.6/configuration.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology.front import CONNECT, CONNECTIONS, FAILURES, Front, Member, Route
from outgrow.topology.render import File

#: The name of the file.
CONFIGURATION: Final = "haproxy.cfg"

#: The largest weight that HAProxy knows.
_HEAVIEST: Final = 256

_MAIN: Final = """\
# Written by outgrow. Changes here are lost.
global
    log stderr format raw local0 notice
    maxconn {connections}
defaults
    log global
    mode http
    timeout connect {connect}s
    timeout client {timeout}s
    timeout server {timeout}s
    # Of a body as much as fits into a buffer is read before anything is decided.
    option http-buffer-request
    timeout http-request {timeout}s
    timeout http-keep-alive 75s
    timeout queue {timeout}s
    timeout check {connect}s
    timeout tunnel 1h
    # Sent again once, to another server; what that means for a POST stands below.
    retries 1
    option redispatch 1
    # A connection to a server is one visitor's: where one breaks that others have used before,
    # he would get no answer at all, and not 502.
    http-reuse never
frontend {name}
{bind}
    # Whatever of this a visitor has sent is replaced: nobody says for himself who he is.
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request del-header Forwarded
    http-request del-header Proxy
    # X_Forwarded_For would become the same variable in CGI and WSGI, SCRIPT_NAME another one's.
    http-request del-header _ -m sub
    http-request deny deny_status 413 if {{ req.body_size gt {limit} }}
{choices}
    default_backend {default}
{backends}
"""

_APPLICATION: Final = """\
backend {name}
    balance roundrobin
    # A request without an answer is sent again if that does no harm (RFC 9110 §9.2.2).
    retry-on conn-failure empty-response response-timeout
    http-request disable-l7-retry unless METH_GET or {{ method OPTIONS }}
{lengths}{fastcgi}    option httpchk
    http-check send meth GET uri {health} ver HTTP/1.1 hdr Host {domain}
    http-check expect status 200-399
    default-server check inter 1s fall {failures} rise 1
{servers}"""

# HAProxy passes a body on as it comes, and WSGI sees none without a length. In HTTP/2 only
# the method tells that there may be one (RFC 9110 §8.6: a client should send a length then).
_LENGTHS: Final = """\
    acl has_length req.hdr(Content-Length) -m found
    http-request return status 411 content-type text/plain string "Send a Content-Length." \
if {{ req.hdr(Transfer-Encoding) -m found }} || {{ method POST PUT PATCH }} !has_length
"""

_FASTCGI: Final = """\
fcgi-app fastcgi-{name}
    docroot /
    # All of the path is the site's, decoded; there is no script.
    path-info ^()(/.*)$
"""

_FILES: Final = """\
backend {name}
    balance roundrobin
    http-request return status 405 hdr Allow "GET, HEAD" unless METH_GET
    # Names with a leading dot are nobody's; `..` is one of them.
    http-request return status 404 if {{ path,url_dec -m reg (^|/)\\. }}
    http-request replace-path {prefix}(.*) /\\1
    # What one server has not yet, the next has.
    retry-on conn-failure empty-response response-timeout 404 500 502 503
    retries {retries}
    option httpchk
    http-check send meth GET uri / ver HTTP/1.1 hdr Host {domain}
    http-check expect status 200-499
    default-server check inter 1s fall {failures} rise 1
{servers}"""


def render(front: Front, pem: PurePath | None = None) -> Iterator[File]:
    """haproxy.cfg for one balancer.

    `pem` is the file with certificate and key, one behind the other, as HAProxy wants it,
    for a front with a certificate. Raises `ConfigurationError` for a path that HAProxy
    can't be given.
    """
    options = front.options
    files = [route for route in front.routes if route.files]
    content = _MAIN.format(
        connections=CONNECTIONS,
        connect=CONNECT,
        timeout=options.timeout,
        name="visitors",
        bind="\n".join(f"    {line}" for line in _bind(front, pem)),
        limit=front.max_bytes,
        choices="\n".join(
            f"    use_backend {route.upstream.name} if {{ path_beg {route.prefix} }}"
            for route in files
        ),
        default=front.application.upstream.name,
        backends="\n".join(_backend(front, route) for route in front.routes),
    )
    yield File(CONFIGURATION, content)


def _bind(front: Front, pem: PurePath | None) -> Iterator[str]:
    if pem is None:
        yield f"bind {front.listen}"
        return
    yield f"bind {front.listen} ssl crt {_word(str(pem))} ssl-min-ver TLSv1.2 alpn h2,http/1.1"
    yield f"bind {front.plain}"
    host = "%[req.hdr(Host),regsub(:[0-9]+$,)]"
    place = f"https://{host}{front.https_port}%[pathq]"
    yield f"http-request redirect code 301 location {place} unless {{ ssl_fc }}"


def _backend(front: Front, route: Route) -> str:
    members = route.upstream.shares
    name, fastcgi = route.upstream.name, route.upstream.protocol == "fastcgi"
    values = {
        "name": name,
        "domain": front.domain,
        "failures": FAILURES,
        "servers": "\n".join(_servers(members, " proto fcgi" if fastcgi else "")),
    }
    if route.files:
        prefix, retries = re.escape(route.prefix), len(members) - 1
        return _FILES.format(prefix=prefix, retries=retries, **values)
    backend = _APPLICATION.format(
        lengths=_LENGTHS.format() if route.upstream.wsgi else "",
        fastcgi=f"    use-fcgi-app fastcgi-{name}\n" if fastcgi else "",
        health=front.options.health,
        **values,
    )
    return _FASTCGI.format(name=name) + backend if fastcgi else backend


def _servers(members: tuple[Member, ...], protocol: str) -> Iterator[str]:
    heaviest = max(member.weight for member in members)
    for member in members:
        weight = member.weight if heaviest <= _HEAVIEST else _scaled(member.weight, heaviest)
        share = f"weight {weight}" if weight else "backup"
        yield f"    server {member.name} {member.port} {share}{protocol}"


def _scaled(weight: int, heaviest: int) -> int:
    """A weight in HAProxy's scale; who gets little keeps a little."""
    return max(1, weight * _HEAVIEST // heaviest) if weight else 0


def _word(text: str) -> str:
    if set(text) & set("\"'\\#$ \t\n"):
        raise ConfigurationError(text, "HAProxy can't be given this path.", "Rename it.")
    return text
