"""The errors: what they say, and that they survive a pickle (Celery and RQ send them)."""

from __future__ import annotations

import inspect
import pickle

import pytest

from outgrow import errors

DOWN = errors.ServerDown("media2", "was not asked")

EXAMPLES = [
    (errors.ConfigurationError("A['b']", "is wrong.", "Do this."), "A['b']: is wrong. Do this."),
    (errors.ConfigurationError("A", "is wrong."), "A: is wrong."),
    (
        errors.MissingExtra("outgrow up", "gunicorn", "local"),
        (
            "outgrow up needs the package 'gunicorn', which is not installed. "
            "Install it with: pip install 'outgrow[local]'"
        ),
    ),
    (errors.UnsafeName("a/../b", "why"), "The file name 'a/../b' is refused: why."),
    (errors.UnsafeName("x" * 100, "why"), f"The file name '{'x' * 77}...' is refused: why."),
    (
        errors.WriteOnReplica("replica1", "INSERT INTO x", "shop/views.py:12 in pay"),
        (
            "A write was refused: the database 'replica1' is a replica. It comes from "
            "shop/views.py:12 in pay. Write to its primary: leave using() out, or name the "
            "primary's alias there. The query: INSERT INTO x"
        ),
    ),
    (
        errors.WriteInReadRequest("default", "x" * 300),
        (
            "A write to the database 'default' was refused: this request was to read only. "
            "Decorate the view with outgrow.databases.using_primary, name it in the option "
            f"'views', or use another method than GET. The query: {'x' * 197}..."
        ),
    ),
    (
        errors.ReplicaBehind("default", "pg:1:0/1"),
        (
            "No replica of 'default' has replayed pg:1:0/1 yet. The task was not begun; try it "
            "again a little later."
        ),
    ),
    (
        errors.ForkedProcess("the disk is full"),
        (
            "This process was forked from one that had loaded obstore, whose threads did not come "
            "along, and can't load a copy of its own: the disk is full. Use object stores only "
            "after the fork (not in a master with --preload, nor at import), or start processes "
            "by 'spawn'."
        ),
    ),
    (
        errors.MigrationUnderWay("default", "session 7 from 10.0.0.1", 600.0),
        (
            "The database 'default' is migrated by session 7 from 10.0.0.1. It was waited for, for "
            "600 s, and nothing was done. Run this again behind its end, or with a longer "
            "--timeout."
        ),
    ),
    (
        errors.MigrationUnderWay("default", "", 0.5),
        (
            "The database 'default' is migrated by another process. It was waited for, for 0.5 s, "
            "and nothing was done. Run this again behind its end, or with a longer --timeout."
        ),
    ),
    (
        errors.NoMigrationLock("default", "oracle"),
        (
            "The database 'default' is one of 'oracle', and Outgrow knows no lock of it that keeps "
            "other migrations out. Nothing was done. Run 'manage.py migrate', and see to it that "
            "nobody else does meanwhile."
        ),
    ),
    (
        errors.MigrationNotAlone("default"),
        (
            "The migration of the database 'default' came to its end, but the connection that kept "
            "others out was lost meanwhile: the server was restarted, or somebody ended it. If "
            "another migration ran at the same time, compare the tables with what 'manage.py "
            "showmigrations' says."
        ),
    ),
    (
        errors.CopyUnderWay("/state/1"),
        (
            "Another copy between these two storages is at work on this machine. Wait for its "
            "end, or stop it. (It holds the lock in /state/1.)"
        ),
    ),
    (
        errors.WrongRegion("s3://b", "the bucket is in another region"),
        (
            "s3://b: the bucket is in another region (set the option 'region' to the bucket's, or "
            "'endpoint' to the one of its region)"
        ),
    ),
    (
        errors.ObjectReplaced("s3://b", "a.txt"),
        (
            "s3://b: 'a.txt' was replaced while it was read (open it again; with names='unique' no "
            "name is used twice)"
        ),
    ),
    (
        errors.UploadRefused("a.jpg", "it has expired"),
        "The upload 'a.jpg' was not taken: it has expired. Choose the file again.",
    ),
    (
        errors.UploadRefused("", "it has expired"),
        "The upload was not taken: it has expired. Choose the file again.",
    ),
    (errors.BadAnswer("m", "what"), "m: what (is this address a web server's?)"),
    (errors.TimedOut("m", "what"), "m: what"),
    (errors.UnexpectedStatus("m", 507, "its disk is full", None), "m: its disk is full"),
    (
        errors.NotEnoughServers("a.jpg", 2, ("media1",), {"media2": DOWN}),
        (
            "'a.jpg' was not saved: 1 of the 2 media servers that are needed took it, and the save "
            "was undone. media2: was not asked. Start the servers and save again, or lower the "
            "option 'need'."
        ),
    ),
    (
        errors.NotEnoughServers("a.jpg", 1, (), {"m": errors.AnotherMaster("m", "is it mounted?")}),
        (
            "'a.jpg' was not saved: 0 of the 1 media servers that are needed took it, and the save "
            "was undone. m: is it mounted?"
        ),
    ),
    (
        errors.NotDeleted("a.jpg", {"media2": DOWN}),
        (
            "'a.jpg' was not deleted by every server: media2: was not asked. Delete it again when "
            "they answer; without a catalogue nothing else will."
        ),
    ),
    (
        errors.TopologyErrors(
            [errors.TopologyError("a", "is wrong."), errors.TopologyError("b", "is too.")]
        ),
        "topology.toml: 2 problems:\n  a: is wrong.\n  b: is too.",
    ),
    (
        errors.TopologyErrors([errors.TopologyError("a", "is wrong.")], "site.toml"),
        "site.toml: a: is wrong.",
    ),
]


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_says_what_to_do_and_survives_a_pickle(error, text):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert str(error) == text
    for name, value in vars(error).items():
        assert str(getattr(copy, name)) == str(value)


def test_the_drawing_has_every_error():
    drawn = set(errors.__doc__.replace("├", " ").replace("└", " ").split())
    kinds = {name for name, kind in inspect.getmembers(errors, inspect.isclass)}
    ours = {name for name in kinds if getattr(errors, name).__module__ == errors.__name__}
    assert ours <= drawn, ours - drawn


def test_every_error_has_the_base():
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if kind.__module__ == errors.__name__:
            assert issubclass(kind, errors.OutgrowError)


def test_several_problems_stand_in_lines_of_their_own() -> None:
    from outgrow.errors import BadReferences, BadSources

    assert str(BadSources(["a can't be published."])) == "a can't be published."
    text = str(BadReferences(["a:1: x", "b:2: y"]))
    hint = """Files that you can't mend may refer to nothing: may_miss = ["vendor/**"]."""
    assert text == f"2 references lead nowhere:\n  a:1: x\n  b:2: y\n{hint}"
    assert str(BadSources(["a", "b"])).startswith("2 files can't be published:")
    assert BadReferences(["a", "b"]).problems == ("a", "b")
