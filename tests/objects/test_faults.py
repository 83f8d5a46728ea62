"""What breaks on the way to a store: once it is tried again, for ever it is told.

Whatever happens, a file is there whole or not at all, and is read whole or not at all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from outgrow.errors import ServerError
from outgrow.objects import ObjectStorage
from tests.live import faults
from tests.live.engines import Engine
from tests.live.faults import Fault, FaultyProxy, Hold, refuse
from tests.live.processes import wait_until

ROOT = Path(__file__).parents[2]
#: As small as a part may be: three of them, and a bit.
PART = 5 << 20
LARGE = os.urandom(3 * PART + 1000)
STEPS = ["begin", "part 1", "part 3", "part 4", "complete"]
FOR_EVER = 10**6


@pytest.fixture
def proxy(swift: Engine) -> Iterator[FaultyProxy]:
    with FaultyProxy(swift.endpoint) as proxy:
        yield proxy


@pytest.fixture
def make(swift: Engine, swift_bucket: str, proxy: FaultyProxy) -> Callable[..., ObjectStorage]:
    def make(**options: Any) -> ObjectStorage:
        given = swift.options(swift_bucket) | {"endpoint": proxy.url, "part_size": PART}
        return ObjectStorage(**given | {"names": "keep", "deadline": 20} | options)

    return make


def uploads(swift: Engine, swift_bucket: str) -> list[str]:
    """The uploads that were begun, and neither completed nor given up."""
    found = swift.client().list_multipart_uploads(Bucket=swift_bucket).get("Uploads", [])
    return [one["Key"] for one in found]


ONCE: dict[str, Fault] = {
    "cut before": faults.cut_before,
    "cut behind": faults.cut_behind,
    "500": refuse(500, "InternalError"),
    "503": refuse(503, "SlowDown"),
}


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_at_any_step_of_an_upload_is_got_over(
    make: Callable[..., ObjectStorage],
    proxy: FaultyProxy,
    swift: Engine,
    swift_bucket: str,
    step: str,
    fault: str,
) -> None:
    proxy.break_at(step, ONCE[fault])
    assert make().save("a.bin", ContentFile(LARGE)) == "a.bin"
    assert proxy.steps.count(step) >= 2
    assert swift.held(swift_bucket) == {"a.bin": LARGE}


@pytest.mark.parametrize("fault", ONCE)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_that_stays_is_told_and_leaves_nothing(
    make: Callable[..., ObjectStorage],
    proxy: FaultyProxy,
    swift: Engine,
    swift_bucket: str,
    step: str,
    fault: str,
) -> None:
    proxy.break_at(step, ONCE[fault], times=FOR_EVER)
    with pytest.raises(ServerError) as raised:
        make(deadline=0.5).save("a.bin", ContentFile(LARGE))
    assert swift_bucket in str(raised.value)
    held = swift.held(swift_bucket)
    if (step, fault) == ("complete", "cut behind"):
        assert held in ({}, {"a.bin": LARGE})  # nobody can know
        return
    assert held == {}


def test_a_whole_file_whose_answer_is_lost_for_ever_is_saved(
    make: Callable[..., ObjectStorage], proxy: FaultyProxy, swift: Engine, swift_bucket: str
) -> None:
    """A name that was never used: what is there under it is what was sent."""
    proxy.break_at("complete", faults.cut_behind, times=FOR_EVER)
    name = make(deadline=0.5, names="unique").save("a.bin", ContentFile(LARGE))
    assert swift.held(swift_bucket) == {name: LARGE}


@pytest.mark.parametrize("fault", ONCE)
def test_a_small_file(
    make: Callable[..., ObjectStorage],
    proxy: FaultyProxy,
    swift: Engine,
    swift_bucket: str,
    fault: str,
) -> None:
    proxy.break_at("PUT", ONCE[fault])
    name = make(names="unique").save("a.txt", ContentFile(b"content"))
    assert swift.held(swift_bucket)[name] == b"content"
    assert set(swift.held(swift_bucket).values()) == {b"content"}


def test_a_part_that_is_said_to_be_another(
    make: Callable[..., ObjectStorage], proxy: FaultyProxy, swift: Engine, swift_bucket: str
) -> None:
    proxy.break_at("part 2", faults.wrong_etag)
    with pytest.raises(ServerError):
        make(deadline=0.5).save("a.bin", ContentFile(LARGE))
    assert swift.held(swift_bucket) == {}


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_what_changes_on_its_way_is_not_taken(
    make: Callable[..., ObjectStorage],
    proxy: FaultyProxy,
    swift: Engine,
    swift_bucket: str,
    content: bytes,
) -> None:
    """Each request has the digest of its body under its signature."""
    proxy.break_at("PUT" if len(content) < PART else "part 2", faults.corrupt, times=FOR_EVER)
    with pytest.raises(ServerError):
        make(deadline=0.5).save("a.bin", ContentFile(content))
    assert swift.held(swift_bucket) == {}


@pytest.mark.parametrize("times", [1, 3, FOR_EVER])
def test_an_answer_that_is_cut_is_never_taken_for_the_whole(
    make: Callable[..., ObjectStorage], proxy: FaultyProxy, times: int
) -> None:
    storage = make(deadline=5 if times < FOR_EVER else 0.5)
    storage.save("a.bin", ContentFile(LARGE))
    proxy.break_at("GET", faults.cut_answer, times=times)
    if times == FOR_EVER:
        with pytest.raises(ServerError), storage.open("a.bin") as file:
            file.read()
    else:
        with storage.open("a.bin") as file:
            assert file.read() == LARGE


# --- a process that is killed

KILLED = """
import json, os, sys
import django
from django.conf import settings
settings.configure()
django.setup()
from django.core.files.base import ContentFile
from outgrow.objects import ObjectStorage
storage = ObjectStorage(**json.loads(os.environ["STORAGE"]))
storage.save("a.bin", ContentFile(sys.stdin.buffer.read()))
print("saved", flush=True)
"""


@pytest.mark.parametrize("content", [b"", b"bytes"], ids=["empty", "some"])
def test_a_file_that_comes_while_it_is_asked_for(
    make: Callable[..., ObjectStorage], proxy: FaultyProxy, content: bytes
) -> None:
    """HEAD says that there is none, and the request for the reason finds one."""
    storage = make()
    storage.save("a.bin", ContentFile(content))
    for ask in (storage.exists, storage.size):
        proxy.break_at("HEAD", refuse(404, "NoSuchKey"))
        asked = len(proxy.steps)
        with suppress(FileNotFoundError):
            assert ask("a.bin") is False
        assert proxy.steps[asked:] == ["HEAD", "GET"]


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_is_killed_leaves_nothing_that_is_seen(
    proxy: FaultyProxy, swift: Engine, swift_bucket: str, step: str
) -> None:
    options = swift.options(swift_bucket) | {
        "endpoint": proxy.url,
        "names": "keep",
        "part_size": PART,
        "concurrency": 1,
    }
    hold = Hold()
    proxy.break_at(step, hold)
    environment = os.environ | {"STORAGE": json.dumps(options)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, env=environment, cwd=ROOT
    )
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.write(LARGE)
        process.stdin.close()
    try:
        wait_until(hold.arrived.is_set, "it does not come that far")
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        assert swift.held(swift_bucket) == {}
        assert uploads(swift, swift_bucket) == ([] if step == "begin" else ["a.bin"])
    finally:
        hold.drop()
        process.kill()
        process.wait(20)
