"""A `Front` -> the configuration of an nginx that stands before the site.

Source of what is said of its directives: nginx.org/en/docs/http/ngx_http_proxy_module.html
and ngx_http_upstream_module.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from outgrow.topology.front import (
    BROKEN,
    CONNECT,
    CONNECTIONS,
    DOWNTIME,
    IDLE,
    KEPT,
    Front,
    Route,
    Upstream,
)
from outgrow.topology.render import File
from outgrow.topology.render.nginx import TEMPORARY, quoted

#: The name of the file.
CONFIGURATION: Final = "balancer.conf"

_MAIN: Final = """\
# Written by outgrow. Changes here are lost.
{user}daemon off;
worker_processes auto;
pid {pid};
error_log stderr warn;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    server_tokens off;
{temporary}
    client_max_body_size {limit};
    client_body_timeout {timeout}s;
    keepalive_timeout 75s;
    # A request that asks to be another protocol (WebSocket), and one that does not.
    map $http_upgrade $upgrade {{
        default upgrade;
        "" "";
    }}
{upstreams}
{redirect}    server {{
{listen}
        # Paths are the application's, two slashes in them too.
        merge_slashes off;
{hidden}{locations}
    }}
}}
"""

_UPSTREAM: Final = """\
    upstream {name} {{
        # Its processes count together which server fails.
        zone {name} 64k;
{servers}
        keepalive {kept};
        # Less than what the servers wait, so that it is nginx that closes.
        keepalive_timeout {idle}s;
    }}"""

# Whatever of this a visitor has sent is replaced: nobody says for himself who he is.
_HEADERS: Final = (
    # Not $host, which has no port.
    ("Host", "$http_host"),
    ("X-Forwarded-For", "$remote_addr"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Host", "$http_host"),
    ("X-Forwarded-Port", "$server_port"),
    ("Forwarded", '""'),
    ("Proxy", '""'),
)

_HTTP: Final = """\
        location {path} {{
            # Without a path, so that the request is passed on as it came. Its body is read
            # first, and has a length then.
            proxy_pass http://{name};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $upgrade;
{headers}
{patience}
            # POST and PATCH are not sent again unless they were never sent.
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
        }}"""

# The protocol's names; fastcgi_params of the distribution has a Host without its port.
_PARAMETERS: Final = (
    ("REQUEST_METHOD", "$request_method"),
    ("SCRIPT_NAME", '""'),
    ("PATH_INFO", "$uri"),
    ("QUERY_STRING", "$query_string"),
    ("CONTENT_TYPE", "$content_type"),
    ("CONTENT_LENGTH", "$content_length"),
    ("SERVER_PROTOCOL", "$server_protocol"),
    ("SERVER_NAME", "$server_name"),
    ("SERVER_PORT", "$server_port"),
    ("REMOTE_ADDR", "$remote_addr"),
    ("HTTPS", "$https if_not_empty"),
)

_FASTCGI: Final = """\
        location {path} {{
            fastcgi_pass {name};
{headers}
{patience}
            fastcgi_next_upstream error timeout;
            fastcgi_next_upstream_tries 2;
        }}"""

# As the visitor has written it, before nginx resolves `..` and looks for the route anew; and as
# nginx has read it, for the names that only then begin with the prefix.
_HIDDEN: Final = """\
        # Names with a leading dot are nobody's.
        if ($request_uri ~* "^{pattern}(?:[^?]*(?:/|%2f))?(?:\\.|%2e)") {{
            return 404;
        }}
        location ~ "^{pattern}(?:.*/)?\\." {{
            return 404;
        }}
"""

_FILES: Final = """\
        location {prefix} {{
            limit_except GET {{
                deny all;
            }}
            proxy_pass http://{name}/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
{headers}
{patience}
            # What one server has not yet, the next has.
            proxy_next_upstream error timeout http_404 http_500 http_502 http_503;
        }}"""

_REDIRECT: Final = """\
    server {{
        listen {listen};
        return 301 https://$host{port}$request_uri;
    }}
"""


def render(front: Front, state: PurePath, *, user: str = "") -> Iterator[File]:
    """The configuration for one balancer.

    `state` is for its own files; `user` for an nginx that root starts: "user group".
    Raises `ConfigurationError` for a path that nginx can't be given.
    """
    options = front.options
    content = _MAIN.format(
        user=f"user {user};\n" if user else "",
        pid=quoted(state / "nginx.pid"),
        connections=CONNECTIONS,
        temporary="\n".join(f"    {kind}_temp_path {quoted(state / kind)};" for kind in TEMPORARY),
        limit=front.max_bytes,
        timeout=options.timeout,
        upstreams="\n".join(map(_upstream, front.upstreams)),
        redirect=_redirect(front),
        listen="\n".join(f"        {line}" for line in _listen(front)),
        hidden="".join(
            _HIDDEN.format(pattern=re.escape(route.prefix)) for route in front.routes if route.files
        ),
        locations="\n".join(_locations(front)),
    )
    yield File(CONFIGURATION, content)


def _upstream(upstream: Upstream) -> str:
    alone = len(upstream.members) == 1
    servers = (
        # One that is alone is asked in any case.
        f"        server {member.port}{'' if alone else _conditions(member.weight)};"
        for member in upstream.shares
    )
    return _UPSTREAM.format(name=upstream.name, servers="\n".join(servers), kept=KEPT, idle=IDLE)


def _conditions(weight: int) -> str:
    share = f"weight={weight}" if weight else "backup"
    return f" {share} max_fails={BROKEN} fail_timeout={DOWNTIME}s"


def _redirect(front: Front) -> str:
    if front.options.certificate is None:
        return ""
    return _REDIRECT.format(listen=front.plain, port=front.https_port)


def _listen(front: Front) -> Iterator[str]:
    options = front.options
    if options.certificate is None or options.certificate_key is None:
        yield f"listen {front.listen};"
        return
    yield f"listen {front.listen} ssl http2;"
    yield f"ssl_certificate {quoted(options.certificate)};"
    yield f"ssl_certificate_key {quoted(options.certificate_key)};"
    yield "ssl_protocols TLSv1.2 TLSv1.3;"
    yield "ssl_session_cache shared:outgrow:10m;"


def _locations(front: Front) -> Iterator[str]:
    for route in front.routes:
        if route.files:
            # "/media" is no file: nginx would send who asks for it to "/media/".
            yield _location(front, front.application, f"= {route.prefix.rstrip('/')}")
        yield _location(front, route, route.prefix)


def _location(front: Front, route: Route, path: str) -> str:
    name, patience = route.upstream.name, _patience(front, route)
    if route.upstream.protocol == "fastcgi":
        return _FASTCGI.format(path=path, name=name, headers=_parameters(), patience=patience)
    headers = "\n".join(f"            proxy_set_header {key} {value};" for key, value in _HEADERS)
    if not route.files:
        return _HTTP.format(path=path, name=name, headers=headers, patience=patience)
    return _FILES.format(
        name=name,
        prefix=path,
        headers=headers,
        patience=patience,
    )


def _parameters() -> str:
    headers = ((f"HTTP_{name.upper().replace('-', '_')}", value) for name, value in _HEADERS)
    return "\n".join(f"            fastcgi_param {k} {v};" for k, v in (*_PARAMETERS, *headers))


def _patience(front: Front, route: Route) -> str:
    protocol = "fastcgi" if route.upstream.protocol == "fastcgi" else "proxy"
    limits = (
        ("connect", CONNECT),
        ("send", front.options.timeout),
        ("read", front.options.timeout),
    )
    return "\n".join(f"            {protocol}_{what}_timeout {limit}s;" for what, limit in limits)
