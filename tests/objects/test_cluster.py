"""A real store of four nodes and three copies, of which two die while a site works."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.files.base import ContentFile

from outgrow.conf.objects import PART_LEAST
from outgrow.objects import ObjectStorage
from tests.live.swift import engine_of, running_swift

#: Files that each of the threads saves.
EACH = 12


@pytest.mark.drill
def test_two_nodes_of_four_are_killed_and_nothing_fails() -> None:
    with running_swift(4) as nodes:
        engine = engine_of(nodes[0])
        engine.client().create_bucket(Bucket="drill")
        storage = ObjectStorage(**engine.options("drill"), part_size=PART_LEAST)
        saved: dict[str, bytes] = {}
        half = threading.Semaphore(0)

        def work(number: int) -> None:
            for turn in range(EACH):
                # One of them in several parts.
                size = 2 * PART_LEAST if turn == number else 10_000
                content = os.urandom(size)
                name = storage.save(f"{number}.bin", ContentFile(content))
                saved[name] = content
                with storage.open(name) as file:
                    assert file.read() == content
                half.release()

        def kill() -> None:
            for _ in range(EACH):
                assert half.acquire(timeout=120)
            nodes[2].stop()
            for _ in range(EACH):
                assert half.acquire(timeout=120)
            nodes[3].stop()

        with ThreadPoolExecutor(5) as pool:
            futures = [pool.submit(kill), *(pool.submit(work, number) for number in range(4))]
            for future in futures:
                future.result()
        assert len(saved) == 4 * EACH
        for name, content in saved.items():
            with storage.open(name) as file:
                assert file.read() == content
        # Listings are Swift's updaters' work, which don't run here: a name may be late there.
        storage.delete_many(saved)
        assert not any(storage.exists(name) for name in saved)
