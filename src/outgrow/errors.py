"""Every exception of Outgrow.

::

    OutgrowError
    ├── ConfigurationError      a setting, an option or a topology file is wrong
    │   └── TopologyError       ... in topology.toml; names the path of the key
    │       └── TopologyErrors  ... in several places: all of them, in one message
    ├── MissingExtra            a feature needs a package that is not installed
    ├── UnsafeName              a file name that must not reach a disk or a server
    ├── MasterError             the master folder is not what it should be
    │   ├── JournalTooNew       its journal was written by a newer Outgrow
    │   └── SaveInterrupted     the save was given up by a repair pass; save again
    ├── CatalogueUnavailable    the database of a storage without a master is away
    ├── NoCopy                  no server that can be asked gave a whole copy
    ├── NotEnoughServers        fewer than `need` media servers took the file
    ├── NotDeleted              without a catalogue: not every server deleted the file
    ├── WriteRefused            a write where none may be; it was not carried out
    │   ├── WriteOnReplica      ... on a replica, which only its primary may change
    │   └── WriteInReadRequest  ... in a request that was to read
    ├── ReplicaBehind           no replica has what this task is to read yet: try it again
    ├── UploadRefused           a form does not take what a browser sent to the store
    ├── ForkedProcess           this process was forked, and can't use object stores
    ├── CopyUnderWay            another `media copy` of these two storages is at work
    ├── MigrationUnderWay       another process migrates this database
    ├── NoMigrationLock         ... or may do so unseen: its vendor has no lock for it
    ├── MigrationNotAlone       ... or may have done so: the lock was lost meanwhile
    ├── ProcessFailed           a process of `outgrow up` did not start or stop
    ├── ControlFailed           a running `outgrow up` did not do what it was asked
    ├── FastCGIError            `runfcgi` can't listen, or runs already
    ├── PublishError            static files could not be published; what is live was left alone
    │   ├── BadSources          files that can't be published
    │   ├── BadReferences       ... or that refer to others that are not there
    │   ├── SourceChanged       a file changed while it was read
    │   └── AnotherPublication  somebody else published at the same time
    └── ServerError             one server did not do what it was asked
        ├── ConnectFailed       nothing was sent: refused, unreachable, no such host
        │   └── NoAccess        ... a certificate or credentials are missing or not accepted
        ├── NoBucket            an object store has no bucket of this name
        ├── WrongRegion         ... or has it in another region
        ├── ObjectReplaced      while an object was read, another took its name
        ├── TimedOut            no progress within the time allowed
        │   └── OutOfTime       there was progress, but not within the whole time
        ├── ConnectionLost      closed or reset before the answer was whole
        ├── BadAnswer           what came back is not HTTP, or breaks its own promises
        ├── UnexpectedStatus    a whole answer, but not one that means success
        ├── NoListing           it does not say which files it has
        ├── FileCut             the file became shorter, or unreadable, while it was sent
        ├── ServerDown          not asked: it failed a moment ago
        └── ForeignServer       it is not known to be this master's: it lost its id
            └── AnotherMaster   ... it holds another master's id

Each message says what happened, to which server, and what to do. A
`ServerError` is raised where one server was asked, and is a value in an
`Outcome` where several were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class OutgrowError(Exception):
    """The base of everything that Outgrow raises."""


class ConfigurationError(OutgrowError):
    """A setting, an option or a topology file is wrong.

    `path` says where, as a person would write it
    (``STORAGES['default']['OPTIONS']['servers'][1]``); `hint` says what to write
    instead, and may be empty.
    """

    def __init__(self, path: str, problem: str, hint: str = "") -> None:
        super().__init__(path, problem, hint)
        self.path = path
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" + (f" {self.hint}" if self.hint else "")


class TopologyError(ConfigurationError):
    """topology.toml is wrong; `path` is the path of the key, as in ``servers.app1.roles[0]``."""


class TopologyErrors(TopologyError):
    """Everything that is wrong in one topology file: `errors` holds one for each place.

    `path` is the file, as far as it is known.
    """

    def __init__(self, errors: Sequence[TopologyError], source: str = "") -> None:
        super().__init__(source or "topology.toml", self._sentence(errors))
        self.args = (tuple(errors), source)
        self.errors = tuple(errors)

    @staticmethod
    def _sentence(errors: Sequence[TopologyError]) -> str:
        if len(errors) == 1:
            return str(errors[0])
        lines = "".join(f"\n  {error}" for error in errors)
        return f"{len(errors)} problems:{lines}"


class MissingExtra(OutgrowError, ImportError):
    """A feature needs a package that is not installed. The message names the extra."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(feature, package, extra)
        self.extra = extra
        self._text = (
            f"{feature} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'outgrow[{extra}]'"
        )

    def __str__(self) -> str:
        return self._text


class ForkedProcess(OutgrowError):
    """This process was forked after object stores had been used, and can't use them itself.

    `problem` says why it has no copy of their library of its own.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            "This process was forked from one that had loaded obstore, whose threads did not come "
            f"along, and can't load a copy of its own: {self.problem}. Use object stores only "
            "after the fork (not in a master with --preload, nor at import), or start processes "
            "by 'spawn'."
        )


class CopyUnderWay(OutgrowError):
    """Another copy between the same two storages is at work; `folder` holds its lock."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return (
            "Another copy between these two storages is at work on this machine. Wait for its "
            f"end, or stop it. (It holds the lock in {self.folder}.)"
        )


class UnsafeName(OutgrowError, ValueError):
    """A file name that must not reach a disk or a server."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        shown = self.name if len(self.name) <= 80 else self.name[:77] + "..."
        return f"The file name {shown!r} is refused: {self.problem}."


class MasterError(OutgrowError, OSError):
    """The master folder, or the journal beside it, is not what it should be."""


class JournalTooNew(MasterError):
    """The journal was written by a newer Outgrow than the one that reads it."""


class SaveInterrupted(MasterError):
    """A repair pass gave this save up, because it had not moved for ten minutes.

    Or for four times `deadline`, if that is more. Nothing was saved.
    """


class CatalogueUnavailable(OutgrowError, OSError):
    """The database that holds the catalogue can't be reached, or has no tables for it."""


class NoCopy(OutgrowError, OSError):
    """No server that can be asked has given a whole copy of a file that should be there."""


class ServerError(OutgrowError):
    """One server did not do what it was asked.

    `server` is the server's stable name, `reason` a short phrase for a table
    (``refused the connection``).
    """

    #: A word or two that says what to do, shown after the reason.
    advice = ""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(server, reason)
        self.server = server
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.server}: {self.reason}" + (f" ({self.advice})" if self.advice else "")


class ConnectFailed(ServerError):
    """No connection: nothing was sent."""

    advice = "is it running, and is its address right?"


class NoAccess(ConnectFailed):
    """A certificate or credentials are missing, or one side does not accept the other's.

    Whatever was sent was not carried out.
    """

    advice = ""


class NoBucket(ServerError):
    """An object store that was reached has no bucket of this name."""


class WrongRegion(ServerError):
    """The bucket is in another region than the option `region` says."""

    advice = "set the option 'region' to the bucket's, or 'endpoint' to the one of its region"


class ObjectReplaced(ServerError):
    """Another object took the name of the one that was being read; open it again."""

    advice = "open it again; with names='unique' no name is used twice"

    def __init__(self, server: str, name: str) -> None:
        super().__init__(server, f"{name!r} was replaced while it was read")
        self.args = (server, name)
        self.name = name


class TimedOut(ServerError):
    """No progress within the time allowed."""


class OutOfTime(TimedOut):
    """The server made progress, but the time for the whole request was over."""


class ConnectionLost(ServerError):
    """The server closed or reset the connection before its answer was whole."""


class BadAnswer(ServerError):
    """What came back is not HTTP/1.1, or breaks its own promises of length."""

    advice = "is this address a web server's?"


class UnexpectedStatus(ServerError):
    """A whole answer, but not one that means success.

    `status` is its code, `location` where a redirect points. `retry_after` is in seconds:
    how long the server wants to be left alone, if it says so.
    """

    def __init__(
        self,
        server: str,
        status: int,
        reason: str,
        location: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(server, reason)
        self.args = (server, status, reason, location, retry_after)
        self.status = status
        self.location = location
        self.retry_after = retry_after


class NoListing(ServerError):
    """The server does not say which files it has; each name must be asked for."""


class FileCut(ServerError):
    """The file became shorter while it was being sent, or could not be read."""


class ServerDown(ServerError):
    """Not asked: it failed a moment ago and is left alone for a while."""


class ForeignServer(ServerError):
    """The server is not known to be this master's: it lost the id that it held, or worse."""


class AnotherMaster(ForeignServer):
    """The server holds the id of another master: one of the two is not what it should be."""


class NotEnoughServers(OutgrowError, OSError):
    """Fewer than `need` media servers took the file; the save was undone.

    `done` holds the names of the servers that had it, `missed` each other
    server's name with its `ServerError`. The caller's file is still open, so
    the save can be tried again.
    """

    def __init__(
        self, name: str, need: int, done: tuple[str, ...], missed: Mapping[str, ServerError]
    ) -> None:
        super().__init__()
        # OSError would take these for an errno, a text and two file names.
        self.args = (name, need, done, dict(missed))
        self.name = name
        self.need = need
        self.done = done
        self.missed = dict(missed)

    def __str__(self) -> str:
        reasons = "; ".join(str(error) for error in self.missed.values()).rstrip(".")
        text = (
            f"{self.name!r} was not saved: {len(self.done)} of the {self.need} media servers "
            f"that are needed took it, and the save was undone. {reasons}"
        )
        if reasons.endswith("?"):
            return text  # it ends with what to do already
        return f"{text}. Start the servers and save again, or lower the option 'need'."


class NotDeleted(OutgrowError, OSError):
    """A server has not deleted a file, and nothing remembers that it should.

    `missed` holds each such server's name with its `ServerError`. Only storages without a
    catalogue raise it (``journal="none"``); deleting again is always right.
    """

    def __init__(self, name: str, missed: Mapping[str, ServerError]) -> None:
        super().__init__()
        self.name = name
        self.missed = dict(missed)

    def __reduce__(self) -> tuple[type[NotDeleted], tuple[object, ...]]:
        return type(self), (self.name, self.missed)

    def __str__(self) -> str:
        reasons = "; ".join(map(str, self.missed.values()))
        return (
            f"{self.name!r} was not deleted by every server: {reasons}. Delete it again when they "
            "answer; without a catalogue nothing else will."
        )


class WriteRefused(OutgrowError):
    """A write where none may be; it was not carried out.

    `alias` is the database, `query` the beginning of the statement, and `where` the
    line of the site's code, as in ``shop/views.py:12 in pay``, or empty.
    """

    _problem = ""
    _hint = ""

    def __init__(self, alias: str, query: str, where: str = "") -> None:
        super().__init__(alias, query, where)
        self.alias = alias
        self.query = query
        self.where = where

    def __str__(self) -> str:
        shown = self.query if len(self.query) <= 200 else self.query[:197] + "..."
        where = f" It comes from {self.where}." if self.where else ""
        return f"{self._problem.format(alias=self.alias)}{where} {self._hint} The query: {shown}"


class WriteOnReplica(WriteRefused):
    """A write on a replica, which only its primary may change."""

    _problem = "A write was refused: the database {alias!r} is a replica."
    _hint = "Write to its primary: leave using() out, or name the primary's alias there."


class WriteInReadRequest(WriteRefused):
    """A write to a primary in a request that was to read."""

    _problem = "A write to the database {alias!r} was refused: this request was to read only."
    _hint = (
        "Decorate the view with outgrow.databases.using_primary, name it in the option "
        "'views', or use another method than GET."
    )


class ReplicaBehind(OutgrowError):
    """No replica has what a task is to read, and it was not to read the primary.

    Try the task again a little later: the queues that Outgrow knows do so.
    """

    def __init__(self, cluster: str, position: str) -> None:
        super().__init__(cluster, position)
        self.cluster = cluster
        self.position = position

    def __str__(self) -> str:
        return (
            f"No replica of {self.cluster!r} has replayed {self.position} yet. "
            "The task was not begun; try it again a little later."
        )


class UploadRefused(OutgrowError):
    """A form does not take what a browser has uploaded, or wants to upload, to the store.

    `name` is the one that the file has with the visitor, and may be empty.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        what = f"The upload {self.name!r}" if self.name else "The upload"
        return f"{what} was not taken: {self.reason}. Choose the file again."


class ProcessFailed(OutgrowError):
    """A process of `outgrow up` did not start, did not become ready, or did not stop."""


class ControlFailed(OutgrowError):
    """A running `outgrow up` can't be reached, or did or showed not what it was asked.

    The message names the server, or the folder of the run.
    """


class FastCGIError(OutgrowError):
    """`runfcgi` could not begin to serve: nothing can be listened at, or it runs already."""


class MigrationUnderWay(OutgrowError):
    """Another process migrates the database of this alias; `holder` is what is known of it."""

    def __init__(self, alias: str, holder: str, seconds: float) -> None:
        super().__init__(alias, holder, seconds)
        self.alias = alias
        self.holder = holder
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"The database {self.alias!r} is migrated by {self.holder or 'another process'}. It "
            f"was waited for, for {self.seconds:g} s, and nothing was done. Run this again behind "
            "its end, or with a longer --timeout."
        )


class NoMigrationLock(OutgrowError):
    """For a database of this vendor no turn can be taken."""

    def __init__(self, alias: str, vendor: str) -> None:
        super().__init__(alias, vendor)
        self.alias = alias
        self.vendor = vendor

    def __str__(self) -> str:
        return (
            f"The database {self.alias!r} is one of {self.vendor!r}, and Outgrow knows no lock of "
            "it that keeps other migrations out. Nothing was done. Run 'manage.py migrate', and "
            "see to it that nobody else does meanwhile."
        )


class MigrationNotAlone(OutgrowError):
    """The database of this alias has let go of the turn before the migration was over."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.alias = alias

    def __str__(self) -> str:
        return (
            f"The migration of the database {self.alias!r} came to its end, but the connection "
            "that kept others out was lost meanwhile: the server was restarted, or somebody ended "
            "it. If another migration ran at the same time, compare the tables with what "
            "'manage.py showmigrations' says."
        )


class PublishError(OutgrowError):
    """Static files could not be published. What is live was left as it is."""


class BadSources(PublishError):
    """Files that can't be published. `problems` has a line for each."""

    _several = "{} files can't be published"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self._several.format(len(self.problems))}:{lines}"


class BadReferences(BadSources):
    """Files refer to others that are not there. `problems` has a line for each reference."""

    _several = "{} references lead nowhere"

    def __str__(self) -> str:
        hint = 'Files that you can\'t mend may refer to nothing: may_miss = ["vendor/**"].'
        return f"{super().__str__()}\n{hint}"


class SourceChanged(PublishError):
    """A file changed, or went away, while it was being published: begin again."""


class AnotherPublication(PublishError):
    """Somebody else published at the same target meanwhile: look, and publish again."""
