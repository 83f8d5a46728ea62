"""`outgrow sign`: a link to a file in a private bucket."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from outgrow.conf.objects import LONGEST_URL, location
from outgrow.errors import ConfigurationError
from outgrow.objects import ObjectStorage, requests, stores
from outgrow.objects.sign import Credentials
from outgrow.publish import configuration
from outgrow.publish.ages import age


def link(url: str, expires: str, given: Mapping[str, str], here: Path, download: str = "") -> str:
    """The signed URL of an object, good for `expires` from now. Sends nothing.

    `given` are options of an ObjectStorage that are not empty; what they leave out comes from the
    target of the nearest outgrow.toml that lies in the same bucket. Raises ConfigurationError.
    """
    place = location(url, "URL")
    if place.scheme in {"file", "memory"}:
        raise ConfigurationError("URL", f"is {url!r}, which no server signs.", "Write s3://...")
    bucket, _, key = url.partition("://")[2].partition("/")
    if not key or key.endswith("/"):
        hint = "Write s3://BUCKET/KEY."
        raise ConfigurationError("URL", f"is {url!r}, which names no file.", hint)
    seconds = age(expires, "--expires").total_seconds()
    if not 0 < seconds <= LONGEST_URL:
        problem = f"is {expires!r}: a link of S3 works for 7 days at most."
        raise ConfigurationError("--expires", problem, "Write a time as 10m, 12h or 7d.")
    options = {**_known(place.scheme, bucket, here), **{k: v for k, v in given.items() if v}}
    options |= {"location": f"{place.scheme}://{bucket}", "querystring_auth": True}
    options.pop("base_url", None)
    parameters = _saved_as(download) if download else None
    try:
        return _signed(ObjectStorage(**options), key, parameters, int(seconds))
    except (ImproperlyConfigured, ValueError) as error:
        raise ConfigurationError("URL", f"can't be signed: {error}") from error


def _signed(
    storage: ObjectStorage, key: str, parameters: Mapping[str, str] | None, seconds: int
) -> str:
    """The URL for exactly that time: a storage's own have some more, for caches' sake."""
    options = storage.options
    keys = Credentials(*stores.credentials(options))
    if options.location.scheme == "s3" and keys.access_key:
        signer = requests.signer(options, keys)
        return signer.url(key, start=int(time.time()), expire=seconds, parameters=parameters)
    return storage.url(key, parameters, seconds)


def _known(scheme: str, bucket: str, here: Path) -> dict[str, Any]:
    """The options of the target in the same bucket; empty where there is none."""
    path = configuration.nearest(here)
    if path is None:
        return {}
    for target in configuration.load(path).targets:
        found = str(target.options.get("location", ""))
        if f"{found}/".startswith(f"{scheme}://{bucket}/"):
            return dict(target.options)
    return {}


def _saved_as(name: str) -> dict[str, str]:
    """RFC 6266, 4.3: the name in ASCII, and the whole one."""
    plain = name.encode("ascii", "replace").decode().replace("\\", "_").replace('"', "_")
    whole = quote(name, safe="")
    text = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}"
    return {"response-content-disposition": text}
