"""The table ``[balancer]`` as a value: what stands between visitors and the site's servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from outgrow.topology import rules
from outgrow.topology.keys import Table

#: What a balancer can run; the first is the default.
ENGINES: Final = ("nginx", "haproxy")

#: Where it listens, unless `ports` says otherwise: without a certificate, and with one.
HTTP: Final = 80
HTTPS: Final = 443

#: Megabytes of one request's body. nginx's own default of 1 refuses most photographs
#: (nginx.org/en/docs/http/ngx_http_core_module.html#client_max_body_size).
MAX_UPLOAD: Final = 100

#: A visitor's request may take so long, in seconds: gunicorn's limit for a silent worker.
TIMEOUT: Final = 60


@dataclass(frozen=True, slots=True)
class Balancer:
    """How all the balancers of a site work.

    `max_upload` is in megabytes (10^6 bytes), `timeout` in seconds. With a `certificate`,
    and its `certificate_key`, they speak HTTPS, and HTTP sends visitors there. `health` is
    the path that says whether an application server is well; HAProxy asks for it.
    """

    max_upload: int = MAX_UPLOAD
    timeout: int = TIMEOUT
    health: str = "/"
    certificate: PurePath | None = None
    certificate_key: PurePath | None = None


def parse(table: Table, folder: PurePath) -> Balancer:
    """The balancers that a table describes; relative paths in it are relative to `folder`."""
    certificate, key = (_file(table, name, folder) for name in ("certificate", "certificate_key"))
    if bool(certificate) != bool(key):
        hint = "Write both: certificate and certificate_key; or none of them."
        table.report("a certificate and its key belong together.", hint)
    found = Balancer(
        table.whole("max_upload", 1, 1_000_000, default=MAX_UPLOAD),
        table.whole("timeout", 1, 86_400, default=TIMEOUT),
        table.text("health", rules.url_path, default="/"),
        certificate,
        key,
    )
    table.close()
    return found


def _file(table: Table, key: str, folder: PurePath) -> PurePath | None:
    # Asked for in any case, so that it is a known key.
    value = table.text(key, default="")
    if not table.has(key):
        return None
    if problem := rules.path(value):
        table.wrong(key, problem)
    return folder / value
