"""A `Front` -> the Caddyfile of a Caddy (2.6 or later) that stands before the site.

Source of what is said of its directives: caddyserver.com/docs/caddyfile/directives/reverse_proxy
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import gcd
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology.front import BROKEN, CONNECT, DOWNTIME, IDLE, Front, Member, Route, Upstream
from outgrow.topology.render import File

#: The name of the file.
CONFIGURATION: Final = "Caddyfile"

#: So often one server may stand in the list of an upstream: Caddy 2.6 has no weights.
_MOST: Final = 20

#: So often a GET is sent again.
_RETRIES: Final = 2

_MAIN: Final = """\
# Written by outgrow. Changes here are lost.
{{
    admin off
    auto_https off
    storage file_system {state}
    servers {{
        timeouts {{
            read_header {timeout}s
            idle 75s
        }}
    }}
}}
{redirect}{scheme}://:{port} {{
    bind {host}
{tls}    request_body {{
        max_size {limit}
    }}
    route {{
        # Here it is 413; what turns out to be too large is 413 or 502.
        @large expression `{{{length}}} != "" && int({{{length}}}) > {limit}`
        respond @large 413
{hidden}{routes}
    }}
}}
"""

_REDIRECT: Final = """\
http://:{plain} {{
    bind {host}
    redir https://{{host}}{port}{{uri}} 301
}}
"""

# A path is compared as it is when it is decoded.
_FILES: Final = """\
        handle {prefix}* {{
            @changes not method GET HEAD
            respond @changes 405
            # Names with a leading dot are nobody's.
            @hidden path_regexp (^|/)\\.
            respond @hidden 404
            uri strip_prefix {stripped}
{proxies}
        }}"""

# As the visitor has written it, before Caddy resolves `..` and looks for the route.
_HIDDEN: Final = """\
        @written{number} vars_regexp {{http.request.orig_uri}} \
(?i)^{pattern}([^?]*(/|%2f))?(\\.|%2e)
        respond @written{number} 404
"""

_APPLICATION: Final = """\
        handle {{
{lengths}{proxy}
        }}"""

# Caddy passes a body on as it comes, and WSGI sees none without a length.
_LENGTHS: Final = """\
            @unknown {
                method POST PUT PATCH
                header !Content-Length
            }
            respond @unknown "Send a Content-Length." 411
"""

_PROXY: Final = """\
reverse_proxy {servers} {{
    lb_policy round_robin
    # Only a GET is sent again once it has been sent.
    lb_retries {retries}
    # What comes in pieces goes on in pieces.
    flush_interval -1
{health}    fail_duration {downtime}s
    max_fails {broken}
    # Whatever of this a visitor has sent is replaced: nobody says for himself who he is.
    # X-Forwarded-For, -Proto and -Host Caddy writes itself, and believes nobody.
    header_up X-Forwarded-Port {port}
    header_up -Forwarded
    header_up -Proxy
    # X_Forwarded_For would become the same variable in CGI and WSGI, SCRIPT_NAME another one's.
    header_up -*_*
{transport}{missing}}}"""

_HTTP: Final = """\
    transport http {{
        dial_timeout {connect}s
        response_header_timeout {timeout}s
        keepalive {idle}s
    }}
"""

_FASTCGI: Final = """\
    transport fastcgi {{
        dial_timeout {connect}s
        read_timeout {timeout}s
        # All of the path is the site's, decoded; there is no script.
        env SCRIPT_NAME ""
        env PATH_INFO {{http.request.uri.path}}
    }}
"""

_HEALTH: Final = """\
    health_uri {health}
    health_interval 1s
    health_timeout {connect}s
    health_headers {{
        Host {domain}
    }}
"""

_MISSING: Final = """\
    # What one server has not yet, the next has.
    @missing status 404
    handle_response @missing {{
{other}
    }}
"""


def render(front: Front, state: PurePath, *, user: str = "") -> Iterator[File]:
    """The Caddyfile for one balancer.

    `state` is for its own files. Caddy runs as whoever starts it, whatever `user` says.
    Raises `ConfigurationError` for a path that Caddy can't be given, and for a server that is
    a last resort, which it does not know.
    """
    del user
    options = front.options
    secure = options.certificate is not None
    content = _MAIN.format(
        state=word(state),
        timeout=options.timeout,
        redirect=_redirect(front) if secure else "",
        scheme="https" if secure else "http",
        port=front.listen.number,
        host=front.listen.host,
        tls=f"    tls {word(options.certificate)} {word(options.certificate_key)}\n"
        if secure
        else "",
        limit=front.max_bytes,
        length="http.request.header.Content-Length",
        hidden="".join(
            _HIDDEN.format(number=number, pattern=re.escape(route.prefix))
            for number, route in enumerate(front.routes)
            if route.files
        ),
        routes="\n".join(_route(front, route) for route in front.routes),
    )
    yield File(CONFIGURATION, content)


def word(path: PurePath | None) -> str:
    """A path as a parameter. In braces there are placeholders, also in quotes."""
    text = str(path)
    if set(text) & set('"`\\{}'):
        raise ConfigurationError(text, "Caddy can't be given this path.", "Rename it.")
    return f'"{text}"'


def _redirect(front: Front) -> str:
    return _REDIRECT.format(plain=front.redirect, host=front.listen.host, port=front.https_port)


def _route(front: Front, route: Route) -> str:
    if not route.files:
        lengths = _LENGTHS if route.upstream.wsgi else ""
        proxy = _proxy(front, route.upstream, route.upstream.shares)
        return _APPLICATION.format(lengths=lengths, proxy=_indented(proxy, 12))
    return _FILES.format(
        prefix=route.prefix,
        stripped=route.prefix.rstrip("/"),
        proxies=_indented(_files(front, route.upstream), 12),
    )


def _files(front: Front, upstream: Upstream) -> str:
    """Any of the servers, and behind it one after the other."""
    other = ""
    if len(upstream.members) > 1:
        for member in upstream.shares:
            other = _proxy(front, upstream, (member,), other)
    return _proxy(front, upstream, upstream.shares, other)


def _proxy(front: Front, upstream: Upstream, members: tuple[Member, ...], other: str = "") -> str:
    limits = {"connect": CONNECT, "timeout": front.options.timeout, "idle": IDLE}
    fastcgi = upstream.protocol == "fastcgi"
    health = _HEALTH.format(health=front.options.health, connect=CONNECT, domain=front.domain)
    return _PROXY.format(
        servers=" ".join(_servers(members)),
        # Of a file server it is not known which file there is.
        health="" if other or upstream.name == "media" or len(members) == 1 else health,
        downtime=DOWNTIME,
        # It counts each of them.
        broken=BROKEN * (_RETRIES + 1),
        retries=_RETRIES,
        port=front.listen.number,
        transport=(_FASTCGI if fastcgi else _HTTP).format(**limits),
        missing=_MISSING.format(other=_indented(other, 8)) if other else "",
    )


def _servers(members: tuple[Member, ...]) -> Iterator[str]:
    """Each as often as is its share of the load, one after the other."""
    for member in members:
        if not member.weight:
            problem = "has the weight 0, and Caddy knows no last resort."
            hint = "Write a weight of 1 or more, or let another program be the balancer."
            raise ConfigurationError(f"servers.{member.name}.weight", problem, hint)
    heaviest = max(member.weight for member in members)
    shares = {m: max(1, m.weight * _MOST // heaviest) for m in members}
    common = gcd(*shares.values())
    for turn in range(_MOST):
        for member, share in shares.items():
            if turn < share // common:
                yield str(member.port)


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else line for line in text.split("\n"))
