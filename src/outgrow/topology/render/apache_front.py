"""A `Front` -> the configuration of an Apache (2.4.54 or later) that stands before the site.

Source of what is said of its directives: httpd.apache.org/docs/2.4/mod/mod_proxy.html and
mod_proxy_balancer.html
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology.front import CONNECT, DOWNTIME, IDLE, Front, Route, Upstream
from outgrow.topology.render import File

#: The name of the file.
CONFIGURATION: Final = "apache.conf"

#: Where Debian has the modules.
_MODULES: Final = "/usr/lib/apache2/modules"

#: The largest share of the load that Apache knows.
_HEAVIEST: Final = 100

_NAMES: Final = (
    *("mpm_event", "authz_core", "env", "headers", "setenvif"),
    *("proxy", "proxy_http", "proxy_fcgi", "proxy_balancer"),
    *("lbmethod_byrequests", "slotmem_shm", "rewrite"),
)

_MAIN: Final = """\
# Written by outgrow. Changes here are lost.
ServerRoot {state}
DefaultRuntimeDir {state}
PidFile {pid}
{user}{modules}
ServerName {domain}
ServerTokens Prod
ErrorLog {log}
LogLevel warn
Timeout {timeout}
KeepAlive On
KeepAliveTimeout 75
MaxKeepAliveRequests 0
{listen}
{balancers}
{redirect}<VirtualHost *:{port}>
{tls}    # Paths are the application's, encoded slashes and two slashes in them too.
    AllowEncodedSlashes On
    MergeSlashes Off
    ProxyPreserveHost On
    # LimitRequestBody is not for what is passed on.
    RewriteEngine On
    RewriteCond expr "%{{HTTP:Content-Length}} -gt {limit}"
    RewriteRule ^ - [R=413,L]
{lengths}    # Whatever of this a visitor has sent is replaced: nobody says for himself who he is.
    ProxyAddHeaders Off
    RequestHeader set X-Forwarded-For "expr=%{{REMOTE_ADDR}}"
    RequestHeader set X-Forwarded-Proto {scheme}
    RequestHeader set X-Forwarded-Host "expr=%{{HTTP_HOST}}"
    RequestHeader set X-Forwarded-Port {port}
    RequestHeader unset Forwarded
    RequestHeader unset Proxy
    # What Connection names is dropped: not these (CVE-2022-31813).
    RequestHeader set Connection close "expr=%{{HTTP:Connection}} =~ /x-forwarded/i"
    # What would become the same variables in CGI and WSGI.
{twins}
{locations}
{passes}
</VirtualHost>
"""

_FILES: Final = """\
    <Location "{prefix}">
        <LimitExcept GET>
            Require all denied
        </LimitExcept>
    </Location>
    # Names with a leading dot are nobody's: as the visitor has written it, and as Apache reads it.
    <If "%{{THE_REQUEST}} =~ m#^\\S+ {pattern}([^ ?]*(/|%2f))?(\\.|%2e)#i">
        Require all denied
    </If>
    <LocationMatch "(?i)^{pattern}(.*(/|%2f))?\\.">
        Require all denied
    </LocationMatch>"""

# Apache could read it first, but knows no limit for that (SetEnv proxy-sendcl).
_LENGTHS: Final = """\
    # WSGI sees no body without a length.
    RewriteCond expr "-n %{HTTP:Transfer-Encoding}"
    RewriteRule ^ - [R=411,L]
"""

_REDIRECT: Final = """\
# Visitors keep their sessions themselves (RFC 5077).
SSLSessionCache none
<VirtualHost *:{plain}>
    AllowEncodedSlashes On
    RewriteEngine On
    # As it was asked, not as Apache has decoded it.
    RewriteCond %{{THE_REQUEST}} "^\\S+ (/[^? ]*)"
    RewriteRule ^ "https://%{{SERVER_NAME}}{port}%1" [R=301,L,NE]
</VirtualHost>
"""

#: Whole paths belong to the site; Apache has decoded them.
_FASTCGI: Final = """\
    ProxyFCGISetEnvIf "true" PATH_INFO "%{REQUEST_URI}"
    ProxyFCGISetEnvIf "true" SCRIPT_NAME ""
    # mod_rewrite's, in which two slashes are one. Django would believe it.
    ProxyFCGISetEnvIf "true" !SCRIPT_URL
"""


def render(front: Front, state: PurePath, *, user: str = "") -> Iterator[File]:
    """The configuration for one balancer.

    `state` is for its own files; `user` for an Apache that root starts: "user group".
    Raises `ConfigurationError` for a path that Apache can't be given.
    """
    options = front.options
    secure = options.certificate is not None
    modules = (*_NAMES, *(("ssl",) if secure else ()))
    content = _MAIN.format(
        state=quoted(state),
        pid=quoted(state / "apache.pid"),
        log=quoted(state / "error.log"),
        user="User {}\nGroup {}\n".format(*user.split()) if user else "",
        modules="\n".join(f"LoadModule {m}_module {_MODULES}/mod_{m}.so" for m in modules),
        domain=front.domain,
        timeout=options.timeout,
        limit=front.max_bytes,
        lengths=_LENGTHS if front.application.upstream.wsgi else "",
        listen="\n".join(_listen(front)),
        balancers="\n".join(_balancer(front, upstream) for upstream in front.upstreams),
        redirect=_redirect(front) if secure else "",
        port=front.listen.number,
        tls=_tls(front) if secure else "",
        scheme="https" if secure else "http",
        twins="\n".join(f"    RequestHeader unset {name}" for name in twins()),
        locations="\n".join(_location(route) for route in front.routes if route.files),
        passes="\n".join(_pass(route) for route in front.routes),
    )
    yield File(CONFIGURATION, content)


def twins() -> Iterator[str]:
    """Names of headers that CGI makes the same variables of as of those that fronts write."""
    yield from ("SCRIPT_NAME", "PATH_INFO", "REMOTE_USER", "REMOTE_ADDR")
    for last in ("For", "Proto", "Host", "Port"):
        for first, second in itertools.product("-_", repeat=2):
            if "_" in (first, second):
                yield f"X{first}Forwarded{second}{last}"


def quoted(path: PurePath) -> str:
    """A path as a parameter. Apache replaces variables, also in quotes."""
    text = str(path)
    if set(text) & set('"\\$%'):
        raise ConfigurationError(text, "Apache can't be given this path.", "Rename it.")
    return f'"{text}"'


def _listen(front: Front) -> Iterator[str]:
    yield f"Listen {front.listen}"
    if front.options.certificate is not None:
        yield f"Listen {front.plain}"


def _tls(front: Front) -> str:
    certificate, key = front.options.certificate, front.options.certificate_key
    assert certificate is not None
    assert key is not None
    lines = (
        "SSLEngine On",
        f"SSLCertificateFile {quoted(certificate)}",
        f"SSLCertificateKeyFile {quoted(key)}",
        "SSLProtocol -all +TLSv1.2 +TLSv1.3",
    )
    return "".join(f"    {line}\n" for line in lines)


def _redirect(front: Front) -> str:
    return _REDIRECT.format(plain=front.redirect, port=front.https_port)


def _balancer(front: Front, upstream: Upstream) -> str:
    """One upstream, and how it is looked after."""
    heaviest = max(member.weight for member in upstream.shares)
    fastcgi = upstream.protocol == "fastcgi"
    scheme, flush = ("fcgi", " flushpackets=on") if fastcgi else ("http", "")
    lines = [f'<Proxy "balancer://{upstream.name}">']
    for member in upstream.shares:
        share = f"loadfactor={_share(member.weight, heaviest)}" if member.weight else "status=+H"
        # An idle connection is closed before the server does it.
        limits = f"connectiontimeout={CONNECT} timeout={front.options.timeout} ttl={IDLE}{flush}"
        lines.append(
            f'    BalancerMember "{scheme}://{member.port}" {share} {limits} retry={DOWNTIME}'
        )
    # One that does not answer in time is left alone for a while, too.
    lines += ["    ProxySet lbmethod=byrequests failontimeout=On", "</Proxy>"]
    return "\n".join(lines)


def _share(weight: int, heaviest: int) -> int:
    """A weight in Apache's scale; who gets little keeps a little."""
    return weight if heaviest <= _HEAVIEST else max(1, weight * _HEAVIEST // heaviest)


def _location(route: Route) -> str:
    return _FILES.format(prefix=route.prefix, pattern=re.escape(route.prefix))


def _pass(route: Route) -> str:
    """As it came: without decoding."""
    line = f'    ProxyPass "{route.prefix}" "balancer://{route.upstream.name}/"'
    if route.upstream.protocol == "fastcgi":
        return f"{line}\n{_FASTCGI}"
    return f"{line} nocanon"
