"""Which line of a server's configuration mends what `media probe` found.

A table: a check, and a kind of server -> the line. A new kind of server costs a
column. Nothing here is a guess about one server's files: the lines are those of
docs/howto/media-servers.md. Tests put most of them into a server that lacks them, and
probe it again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from outgrow.answer import Response
from outgrow.media.protocol import NoFile


class Kind(enum.StrEnum):
    """Which program a media server is, as far as its answers tell."""

    NGINX = "nginx"
    APACHE = "Apache"
    LIGHTTPD = "lighttpd"
    OWN = "Outgrow's own"
    UNKNOWN = "unknown"


def recognise(missing: Response) -> Kind:
    """Which program gave this answer to a GET of a file that is not there."""
    software = missing.headers.get("server", "").lower()
    for kind in (Kind.NGINX, Kind.APACHE, Kind.LIGHTTPD):
        if software.startswith(kind.lower()):
            return kind
    # Outgrow's own sends no Server header; its refusals are its own sentences.
    if not software and missing.body.decode("latin-1").endswith(f": {NoFile.MISSING.value}\n"):
        return Kind.OWN
    return Kind.UNKNOWN


def remedy(check: str, kind: Kind) -> str:
    """The line for this kind of server; for an unknown one, those of all kinds. May be empty."""
    lines = _LINES.get(check, {})
    if kind is not Kind.UNKNOWN:
        return lines.get(kind, "")
    return "\n".join(f"{one}: {line}" for one, line in lines.items())


_ACTIVE_NAMES: Final = r"\.(html?|xhtml|svgz?|xml|m?js)$"

_WRITING: Final = {
    Kind.NGINX: "dav_methods PUT DELETE MKCOL;",
    Kind.APACHE: "Dav On",
    Kind.LIGHTTPD: 'webdav.activate = "enable"',
    Kind.OWN: "start it with the token that the storage's option 'token' has",
}

_LINES: Final[Mapping[str, Mapping[Kind, str]]] = {
    "missing": {
        Kind.NGINX: "try_files $uri =404;",
        Kind.APACHE: "FallbackResource disabled",
        Kind.LIGHTTPD: "take out url.rewrite-if-not-file and server.error-handler-404",
    },
    "folders": {
        Kind.NGINX: "create_full_put_path on;",
        Kind.APACHE: 'Dav On (and no <Limit MKCOL> that forbids it), in <Directory "...">',
        Kind.LIGHTTPD: 'webdav.activate = "enable", and no rule that forbids MKCOL',
    },
    "put": _WRITING,
    "overwrite": _WRITING,
    "stat": {
        Kind.LIGHTTPD: 'mimetype.assign += ( "" => "application/octet-stream" )',
        Kind.APACHE: "FileETag INode MTime Size",
        Kind.NGINX: "etag on;",
    },
    "listing": {
        Kind.NGINX: (
            "location ^~ /.outgrow/list/ { alias /srv/copies/; index .none; autoindex on; "
            "autoindex_format json; limit_except GET { deny all; } "
            "allow 10.0.0.0/24; deny all; }"
        ),
        Kind.APACHE: "let this machine use PROPFIND: <LimitExcept GET HEAD> Require ip 10.0.0.0/24",
        Kind.LIGHTTPD: "let this machine use PROPFIND",
        Kind.OWN: "start it with the token that the storage's option 'token' has",
    },
    "if-none-match": {
        Kind.NGINX: (
            'set $exists ""; if (-e $document_root$uri) '
            '{ set $exists "$request_method$http_if_none_match"; } '
            'if ($exists = "PUT*") { return 412; }'
        ),
    },
    "range": {
        Kind.NGINX: "take out max_ranges 0;",
        Kind.APACHE: "MaxRanges default",
        Kind.LIGHTTPD: 'server.range-requests = "enable"',
    },
    "browser": {
        Kind.NGINX: (
            # A map, for `add_header` in a block of its own would end those of the block around.
            f'map $uri $as_download {{ "~*{_ACTIVE_NAMES}" attachment; }}  # in http {{}}\n'
            "add_header Content-Disposition $as_download; "
            "add_header X-Content-Type-Options nosniff;  # in location {}"
        ),
        Kind.APACHE: (
            f'<FilesMatch "(?i){_ACTIVE_NAMES}"> Header always set Content-Disposition attachment '
            "</FilesMatch>\nHeader always set X-Content-Type-Options nosniff"
        ),
        Kind.LIGHTTPD: (
            f'$HTTP["url"] =~ "{_ACTIVE_NAMES}" {{ setenv.add-response-header += '
            '( "Content-Disposition" => "attachment" ) }\n'
            'setenv.add-response-header += ( "X-Content-Type-Options" => "nosniff" )'
        ),
        Kind.OWN: "start it without --active",
    },
    "names": {
        Kind.NGINX: "in a proxy in front: proxy_pass without a path, so that names stay encoded",
        Kind.APACHE: "AllowEncodedSlashes NoDecode; in a proxy in front: ProxyPass ... nocanon",
    },
    "dotfiles": {
        Kind.NGINX: r"location ~ /\. { return 403; }",
        Kind.APACHE: r'<LocationMatch "/\."> Require all denied </LocationMatch>',
        Kind.LIGHTTPD: r'$HTTP["url"] =~ "/\." { url.access-deny = ( "" ) }',
    },
    "credentials": {
        Kind.NGINX: (
            'limit_except GET HEAD { auth_basic "media"; '
            "auth_basic_user_file /etc/nginx/media.htpasswd; }"
        ),
        Kind.APACHE: "<LimitExcept GET HEAD> Require valid-user </LimitExcept>",
        Kind.LIGHTTPD: (
            '$HTTP["request-method"] !~ "^(GET|HEAD)$" { auth.require = ( "" => '
            '( "method" => "basic", "realm" => "media", "require" => "valid-user" ) ) }'
        ),
        Kind.OWN: "start it with --token-file FILE",
    },
    "addresses": {
        Kind.NGINX: "limit_except GET HEAD { allow 10.0.0.0/24; deny all; }",
        Kind.APACHE: "<LimitExcept GET HEAD> Require ip 10.0.0.0/24 </LimitExcept>",
        Kind.LIGHTTPD: (
            '$HTTP["request-method"] !~ "^(GET|HEAD)$" { $HTTP["remote-ip"] != "10.0.0.0/24" '
            '{ url.access-deny = ( "" ) } }'
        ),
        Kind.OWN: "let --bind be a private address, or let the firewall decide",
    },
    "delete": _WRITING,
    "delete-missing": _WRITING,
    "body": {
        Kind.NGINX: "client_max_body_size 0;",
        Kind.APACHE: "LimitRequestBody 0",
        Kind.LIGHTTPD: "server.max-request-size = 0",
        Kind.OWN: "start it with a larger --max-body, or without",
    },
}

#: The checks that the table has a line for.
CHECKS: Final = frozenset(_LINES)
