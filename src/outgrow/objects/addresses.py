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
from outgrow.objects.sign import Credentials, Signer

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
        `base_url`, or `parameters` for a URL that obstore signs.
        """
        options = self._options
        if not options.is_signed:
            return self._plain(name, key, parameters)
        if options.location.scheme == "s3" and (signer := self._own_signer()) is not None:
            seconds = options.querystring_expire if expire is None else expire
            path = quote(name if options.base_url else key, safe="/")
            return signer.url(path, now=self._clock(), expire=seconds, parameters=parameters)
        return self._signed_by_obstore(key, parameters, expire)
