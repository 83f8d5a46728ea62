"""What every media storage has: its options, its parts, and what it says in the log."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import File
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from outgrow import conf
from outgrow.access import Access, NoCredentials
from outgrow.errors import CatalogueUnavailable, ServerError, UnsafeName
from outgrow.exchange import Limits
from outgrow.fanout import Outcome
from outgrow.media import signing
from outgrow.media.journal import ATTEMPT_LIMIT, Journal
from outgrow.media.listing import Entry
from outgrow.media.replication import Replication, Steps, Upload, run
from outgrow.media.transport import HttpTransport, Transport
from outgrow.servers import Health, ServerSet
from outgrow.twins import AsyncTwins

logger = logging.getLogger("outgrow.media")

#: What a storage makes at its first use, and makes anew after a change of settings.
MADE = ("options", "journal", "transport", "replication", "background", "reader")


class Replicated(AsyncTwins):
    """A mixin for Django's storages whose files lie on media servers.

    A storage is made without opening, reading or sending anything; its parts are made at
    their first use. It can be pickled, and used by threads and after a fork.
    """

    #: The options that this kind of storage has.
    option_names: tuple[str, ...] = ()
    _options: dict[str, Any]

    @cached_property
    def journal(self) -> Journal:
        """What each server is owed. Each kind of storage has its own."""
        raise NotImplementedError

    @cached_property
    def replication(self) -> Replication:
        """The protocol over this storage's journal and transport."""
        raise NotImplementedError

    def _take(self, options: dict[str, Any]) -> None:
        """Keep the options. Without servers (in a migration's state, say) it can't be used."""
        self._options = options
        if "servers" in options:
            self._check()

    def _given(self) -> dict[str, Any]:
        """Arguments of the constructor that the check of the options needs, too."""
        return {}

    def _check(self) -> conf.MediaOptions:
        path = f"{type(self).__name__}(...)"
        given = {**self._options, **self._given()}
        checked, problems = conf.media_options(given, path, self.option_names)
        if problems:
            raise ImproperlyConfigured("; ".join(map(str, problems))) from problems[0]
        return checked

    def deconstruct(self) -> tuple[str, tuple[()], dict[str, Any]]:
        """For migrations: the class alone. Servers and tokens are no part of a schema."""
        kind = type(self)
        ours = kind.__module__ in {"outgrow.media.storages", "outgrow.media.distributed"}
        module = "outgrow.media" if ours else kind.__module__
        return f"{module}.{kind.__qualname__}", (), {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process opens connections of its own.
        return {key: value for key, value in self.__dict__.items() if key not in MADE}

    @cached_property
    def options(self) -> conf.MediaOptions:
        """The checked options. Raises ImproperlyConfigured when there are no servers."""
        return self._check()

    @property
    def attempt_limit(self) -> float:
        """Seconds after which a save or delete of a process that can't be asked is given up."""
        # A save may send, and then undo; both get `deadline`.
        return max(ATTEMPT_LIMIT, 4 * self.options.deadline)

    @cached_property
    def transport(self) -> Transport:
        """How the servers are spoken to. Override this, or give the option `transport`."""
        options = self.options
        if options.transport is not None:
            return cast("Transport", options.transport(options.servers, self.journal))
        return HttpTransport(
            options.servers,
            self.journal,
            health=Health(downtime=options.downtime),
            limits=Limits(timeout=options.timeout),
            access=self.access,
            conditional=options.names == "keep",
        )

    @property
    def access(self) -> Access:
        """Whose certificates are believed, and what is said to each server of who we are."""
        options = self.options
        return Access(
            options.ca, options.certificate, options.key, partial(_authorization, options)
        )

    def place(self, name: str, base_url: str) -> str:
        """What stands before a name in its URL: where visitors surely find the file.

        A server with a public address that is up and owed nothing of this file; always the
        same one for a file, so that caches are of use. Without one it is `base_url`.
        """
        public = self.options.public_urls
        if not public:
            return base_url
        health = getattr(self.transport, "health", None) or Health()
        candidates = [one for one in self.options.servers if one.name in public]
        ranked = ServerSet(candidates, health).ranked(
            key=name, where=lambda server: self.journal.holds(server.name, name)
        )
        with contextlib.suppress(CatalogueUnavailable):
            for server in ranked:
                return public[server.name]
        return base_url

    def sign(self, url: str, expire: float | None = None) -> str:
        """The URL, signed if this storage does that; good for `expire` seconds.

        To whole minutes: so the URLs of a page stay the same for a while, and in caches.
        """
        options = self.options
        if not options.querystring_auth:
            return url
        good_for = options.querystring_expire if expire is None else expire
        expires = math.ceil((time.time() + good_for) / 60) * 60 if good_for >= 600 else None
        path = unquote(urlsplit(url).path)
        query = signing.sign(path, expires or math.ceil(time.time() + good_for), options.secret)
        return f"{url}?{query}"

    def entries(
        self, failed: Callable[[str, OSError], None], prefix: str = "", *, everywhere: bool = False
    ) -> Iterator[Entry]:
        """Every file whose name begins so, in order; memory does not depend on their number.

        `failed` is called with what can't be read, and why. With `everywhere`, and where nothing
        mends it, files that one server lacks are left out.
        """
        del everywhere  # what a server lacks is owed to it
        return self.journal.entries(failed, prefix)

    def save_as(self, name: str, content: File[Any], *, replace: bool = False) -> None:
        """Save a file under exactly this name, as a copy of another storage's needs it.

        Raises FileExistsError when the name is taken. `replace` needs ``names="keep"``: elsewhere
        a name has one content for ever, and that is refused with FileExistsError, too. If it
        fails the name can be given again: nothing is deleted on the servers. Where there is a
        master, its file is owed to the servers that miss it, and that is no failure.
        Otherwise as `save`.
        """
        upload = self._upload(name, content)
        may_replace = replace and self.options.names == "keep"
        self._keep(dataclasses.replace(upload, another=_taken, replace=may_replace, copied=True))

    def _upload(self, name: str, content: File[Any]) -> Upload:
        """What is saved. Each kind of storage has its own."""
        raise NotImplementedError

    def _keep(self, upload: Upload) -> str:
        """Save it, on the servers now, and return the name that it got."""
        saved = self.drive(self.replication.save(upload))
        self._log("save", saved.name, saved.outcome)
        return str(saved.name)

    def drive(self, steps: Steps[Any]) -> Any:
        """Take the steps of a save or a delete. Tests break off between two of them."""
        return run(steps)

    # --- logging

    def _log(self, verb: str, name: str, outcome: Outcome) -> None:
        """One line for each server that missed it; it is owed, so this is no failure."""
        level = logging.ERROR if self.options.need == 0 else logging.WARNING
        for error in outcome.missed.values():
            self._log_one(level, verb, name, error)

    def _log_one(self, level: int, verb: str, name: str, error: ServerError) -> None:
        logger.log(
            level,
            "%s of %r is owed to %s",
            verb,
            name,
            error,
            exc_info=error if self.options.show_traceback else None,
        )


def _taken(name: str) -> str:
    """Instead of another name for a file that must have this one."""
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


@contextlib.contextmanager
def suspicious() -> Iterator[None]:
    """Django answers 400 to a SuspiciousFileOperation, not 500."""
    try:
        yield
    except UnsafeName as error:
        raise SuspiciousFileOperation(str(error)) from error


def _authorization(options: conf.MediaOptions, server: str) -> str:
    """The Authorization header for a server: a user with a password, or a token."""
    given = options.credentials
    if isinstance(given, str):
        given = cast("Callable[[str], str]", import_string(given))
    secret = given(server) if callable(given) else given.get(server)
    if not secret:
        return f"Bearer {options.token}" if options.token else ""
    if not conf.is_secret(secret):
        raise NoCredentials(
            "its credentials can't be sent: the option 'credentials' must give "
            "'user:password' or a token, in printable characters"
        )
    if ":" in secret:  # no token has one (RFC 6750 §2.1)
        return f"Basic {base64.b64encode(secret.encode()).decode()}"
    return f"Bearer {secret}"
