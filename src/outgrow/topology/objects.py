"""The table ``[objects]`` as a value: which bucket holds the uploads, and how it is used.

Where the store is stands with the server that has the role "objects". As with the database,
the secret is never in the file: the file says where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from outgrow.topology import rules
from outgrow.topology.keys import Table

#: What the store is: one that is there already, or a Swift that `outgrow up` starts.
ENGINES: Final = ("external", "swift")

#: Where it listens, unless `ports` says otherwise; HTTPS at 443, else HTTP.
PORTS: Final[Mapping[str, int]] = {"external": 443, "swift": 8080}

#: Who the site is to a Swift on this machine: an account and its user.
LOCAL_KEY: Final = "outgrow:site"

REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class Objects:
    """The bucket of a site. Without an `access_key` the machine's role is asked.

    `secret` is empty in what `load` reads; see `load.current`.
    """

    bucket: str
    prefix: str = ""
    region: str = REGION
    access_key: str = ""
    secret_env: str = ""
    secret_file: PurePath | None = None
    base_url: str = ""
    signed: bool | None = None
    secret: str = field(default="", repr=False)

    @property
    def location(self) -> str:
        """As ObjectStorage has it."""
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"


def parse(table: Table, folder: PurePath) -> Objects:
    """The bucket that a table describes; relative paths in it are relative to `folder`."""
    hint = "Write secret_env or secret_file, which say where it is."
    for key in ("secret", "secret_key"):
        table.refuse(key, "does not belong into this file.", hint)
    bucket = table.text("bucket", rules.bucket)
    variable, file = "", None
    if table.has("secret_env"):
        variable = table.text("secret_env", rules.variable)
    if table.has("secret_file"):
        file = folder / table.text("secret_file", rules.path)
    if variable and file:
        table.wrong("secret_file", "is one too many beside secret_env.", "Choose one.")
    found = Objects(
        bucket,
        table.text("prefix", rules.path, default="").strip("/"),
        table.text("region", default=REGION),
        table.text("access_key", default=""),
        variable,
        file,
        table.text("base_url", rules.media_url, default=""),
        table.flag("signed"),
    )
    if bool(found.access_key) != bool(variable or file):
        hint = "Write both: access_key, and secret_env or secret_file; or none of them."
        table.report("an access key and its secret belong together.", hint)
    table.close()
    return found
