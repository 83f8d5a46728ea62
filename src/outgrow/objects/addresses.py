"""Where visitors find an object: a plain URL, or a signed one that expires.

No request is sent, so that a page may have thousands of them. Only where the keys are the
machine's own role, and obstore alone knows them, it signs, and may ask for them first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from outgrow.conf import ObjectOptions
from outgrow.objects import runtime, stores
from outgrow.objects.sign import Credentials, Signer, steady

#: A bucket's name that may stand in a host's, with a certificate for `*.s3.REGION`: no dots
#: (https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html).
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z")


class Addresses:
    """The URLs of the files of one storage. Thread-safe and fork-safe.

    `store` gives obstore's store of this process; `clock` the seconds since the epoch.
    """

    def __init__(
        self,
        options: ObjectOptions,
        store: Callable[[], Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._store = store
        self._clock = clock
        self._keys: bool | None = None
        self._signer: Signer | None = None

    def url(
        self, name: str, key: str, parameters: Mapping[str, str] | None, expire: float | None
    ) -> str:
        """The URL of the file `name`, whose object is `key`.

        Raises ValueError where it can't have one: a store without a server and without
        `base_url`, `parameters` for a URL that obstore signs, or a wrong `expire`.
        """
        options = self._options
        if not options.is_signed:
            return self._plain(name, key, parameters)
        good_for = options.querystring_expire if expire is None else expire
        start, seconds = steady(self._clock(), good_for)
        signer = self._own_signer() if options.location.scheme == "s3" else None
        if signer is None:
            return self._signed_by_obstore(key, parameters, good_for)
        below = name if options.base_url else key
        return signer.url(below, start=start, expire=seconds, parameters=parameters)

    def _plain(self, name: str, key: str, parameters: Mapping[str, str] | None) -> str:
        options = self._options
        if options.base_url:
            url = options.base_url + quote(name, safe="/~")
        elif base := base_of(options):
            url = base + quote(key, safe="/~")
        else:
            raise ValueError(
                f"{name!r} has no URL: {options.location} has no server of its own. Set the option "
                "'base_url' to where it is served."
            )
        return f"{url}?{urlencode(parameters)}" if parameters else url

    def _own_signer(self) -> Signer | None:
        """What signs without asking anybody; None where only the machine's role has keys."""
        if self._keys is None:
            options = self._options
            found = Credentials(*stores.credentials(options))
            if found.access_key:
                self._signer = self._signer_for(found)
            self._keys = bool(found.access_key)
        return self._signer

    def _signer_for(self, keys: Credentials) -> Signer:
        """The host is signed, too: that of the store, or of the domain that leads there.

        A `base_url` that is a path is on the site's own server, which passes it on to the store.
        """
        options, region = self._options, stores.region(self._options)
        base, prefix = base_of(options), options.location.prefix
        if not options.base_url:
            return Signer(base, region, keys)
        inside = quote(f"{prefix}/", safe="/~") if prefix else ""
        seen = f"{base}{inside}" if options.base_url.startswith("/") else ""
        return Signer(options.base_url, region, keys, seen=seen)

    def _signed_by_obstore(
        self, key: str, parameters: Mapping[str, str] | None, expire: float
    ) -> str:
        if parameters:
            raise ValueError(
                "A URL that is signed with the credentials of the machine's role, or for a store "
                "other than S3, takes no parameters. Give 'access_key' and 'secret_key', or store "
                "the header with the file (option 'headers')."
            )
        if self._options.base_url:
            raise ValueError(
                "A URL of 'base_url' can't be signed with the credentials of the machine's role, "
                "nor for a store other than S3. Give 'access_key' and 'secret_key', or leave out "
                "'querystring_auth'."
            )
        signed = runtime.library().sign(self._store(), "GET", key, timedelta(seconds=expire))
        return str(signed)


def base_of(options: ObjectOptions) -> str:
    """What stands before a key in an object's plain URL; empty for a folder, and memory."""
    place, endpoint = options.location, stores.endpoint(options).rstrip("/")
    if place.scheme == "s3":
        return _of_s3(options, endpoint)
    if place.scheme == "gs":
        return f"{endpoint or 'https://storage.googleapis.com'}/{place.bucket}/"
    if place.scheme == "az":
        host = f"https://{options.account}.blob.core.windows.net"
        return f"{endpoint or host}/{place.bucket}/"
    return ""


def _of_s3(options: ObjectOptions, endpoint: str) -> str:
    bucket = options.location.bucket
    addressing = options.addressing
    if not endpoint:
        region = stores.region(options)
        # https://docs.aws.amazon.com/general/latest/gr/s3.html
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        endpoint = f"https://s3.{region}.{domain}"
        addressing = addressing or ("virtual" if _LABEL.match(bucket) else "path")
    if addressing == "virtual":
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{bucket}.{host}/"
    return f"{endpoint}/{bucket}/"
