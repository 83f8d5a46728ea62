"""A media server's service -> the configuration of an nginx that stores and serves.

Needs ngx_http_dav_module, and no privileges. The page of that module is the
source of what is said here of PUT: nginx.org/en/docs/http/ngx_http_dav_module.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError, TopologyError
from outgrow.topology import rules
from outgrow.topology.keys import join
from outgrow.topology.model import Service, Site
from outgrow.topology.render import File

# What has a name for its kind; all else is sent as bytes.
_TYPES: Final = {
    "image/apng": "apng",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/jpeg": "jpg jpeg",
    "image/png": "png",
    "image/tiff": "tif tiff",
    "image/vnd.microsoft.icon": "ico",
    "image/webp": "webp",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "oga ogg opus",
    "audio/vnd.wave": "wav",
    "video/mp4": "mp4 m4v",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "text/plain": "txt",
    "text/css": "css",
    "text/csv": "csv",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/zip": "zip",
    # What a browser would run. A visitor's upload must not become a page of the site, so
    # these are downloads unless the site allows them; an <img> shows SVG all the same.
    "text/html": "html htm",
    "application/xhtml+xml": "xhtml",
    "image/svg+xml": "svg",
    "text/xml": "xml",
    "text/javascript": "js mjs",
}

_HARMLESS: Final = """\
    map $uri $as_download {
        "~*\\.(html?|xhtml|svgz?|xml|m?js)$" attachment;
    }
    map $as_download $harmless {
        attachment "default-src 'none'; sandbox";
    }
"""
_HEADERS: Final = (
    "add_header X-Content-Type-Options nosniff always;",
    "add_header Content-Disposition $as_download always;",
    "add_header Content-Security-Policy $harmless always;",
)

#: Its processes, and what each has at once.
WORKERS: Final = 2
CONNECTIONS: Final = 1024

#: What nginx keeps in folders of its own, each below one `KIND_temp_path`.
TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_CONFIGURATION: Final = """\
# Written by outgrow. Changes here are lost.
{user}daemon off;
worker_processes {workers};
pid {pid};
error_log stderr warn;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    log_not_found off;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    # Longer than the storage keeps a connection, so that it is the one that closes.
    keepalive_timeout 75s;
    keepalive_requests 100000;
{temporary}
    default_type application/octet-stream;
    types {{
{types}
    }}
{harmless}    server {{
        listen {listen};
        root {root};
{headers}
        # Names with a leading dot are nobody's: not to read, not to write.
        location ~ "/\\." {{
            return 404;
        }}
        # What is here, for repair and verify: not for the public.
        location ^~ /.outgrow/list/ {{
            alias {files};
            index .none;
            autoindex on;
            autoindex_format json;
            limit_except GET {{
                deny all;
            }}
{readers}
            deny all;
        }}
        location / {{
            dav_methods PUT DELETE MKCOL;
            create_full_put_path on;
            # Refuses "DELETE /"; a file at the root can still go.
            min_delete_depth 1;
            client_max_body_size 0;
            limit_except GET {{
{writers}
                deny all;
            }}
        }}
    }}
{visitors}}}
"""

# What has come to this server not yet, or not again, a peer has. On the port for Outgrow
# a file that is missing must be missing, or nothing would ever be repaired.
_PEERS: Final = """\
    upstream peers {{
{servers}
    }}
"""
_VISITORS: Final = """\
{upstream}    server {{
        listen {listen};
        root {root};
{headers}
        location ~ "/\\." {{
            return 404;
        }}
        location / {{
            limit_except GET {{
                deny all;
            }}
{fallback}        }}
{location}    }}
"""
_LOCATION: Final = """\
        location @peers {
            proxy_pass http://peers;
            proxy_next_upstream error timeout http_404;
            proxy_connect_timeout 1s;
            # The peer says the same of its files, and once is enough.
            proxy_hide_header X-Content-Type-Options;
            proxy_hide_header Content-Disposition;
            proxy_hide_header Content-Security-Policy;
        }
"""


def render(
    site: Site,
    service: Service,
    root: PurePath,
    state: PurePath,
    *,
    user: str = "",
    visitors: int | None = None,
) -> Iterator[File]:
    """nginx.conf for one media server of `site`.

    `root` is the folder that it serves. `state` is for its own files; it must be on
    the same filesystem, or each upload is copied rather than renamed. `user` is
    for an nginx that root starts: "user group". `visitors` is a port that only reads, and
    where the other media servers are asked for what is missing here.

    Writes are allowed to the site's app servers alone, by IP address; raises
    `TopologyError` where one has a host name, and `ConfigurationError` for a path that
    nginx can't be given.
    """
    folders = (f"    {kind}_temp_path {quoted(state / kind)};" for kind in TEMPORARY)
    kinds = (f"        {kind} {extensions};" for kind, extensions in _TYPES.items())
    allowed = [f"allow {address};" for address in _writers(site)]
    content = _CONFIGURATION.format(
        user=f"user {user};\n" if user else "",
        workers=WORKERS,
        pid=quoted(state / "nginx.pid"),
        connections=CONNECTIONS,
        listen=service.port,
        root=quoted(root),
        temporary=_joined(folders),
        types=_joined(kinds),
        harmless="" if site.active else _HARMLESS,
        headers=_headers(site),
        visitors=_visitors(site, service, root, visitors) if visitors else "",
        files=quoted_folder(root),
        writers=_joined(f"                {line}" for line in allowed),
        readers=_joined(f"            {line}" for line in allowed),
    )
    yield File("nginx.conf", content)


def _headers(site: Site) -> str:
    return _joined(f"        {line}" for line in (_HEADERS[:1] if site.active else _HEADERS))


def _visitors(site: Site, service: Service, root: PurePath, port: int) -> str:
    """The server for visitors, and who is asked for what is missing here."""
    peers = [other.port for other in site.services("media") if other.name != service.name]
    upstream = _PEERS.format(servers=_joined(f"        server {peer};" for peer in peers))
    return _VISITORS.format(
        upstream=upstream if peers else "",
        listen=replace(service.port, number=port),
        root=quoted(root),
        headers=_headers(site),
        fallback="            error_page 404 = @peers;\n" if peers else "",
        location=_LOCATION if peers else "",
    )


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _writers(site: Site) -> Iterator[str]:
    addresses: dict[str, None] = {}
    for host in site.hosts:
        if not any(service.role == "app" for service in host.services):
            continue
        if not rules.is_address(host.address):
            raise TopologyError(
                join(join("servers", host.name), "address"),
                f'"{host.address}" is a host name, and nginx allows writes by IP address.',
                "Write the IP address of this app server.",
            )
        addresses[host.address] = None
    yield from addresses


def quoted_folder(path: PurePath) -> str:
    """A path that ends in a slash, as `alias` wants it."""
    return f'{quoted(path)[:-1].rstrip("/")}/"'


def quoted(path: PurePath) -> str:
    """A path as a parameter. nginx has no way to escape a dollar sign."""
    text = str(path)
    if "$" in text:
        raise ConfigurationError(text, "nginx can't use a path with a dollar sign.", "Rename it.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
