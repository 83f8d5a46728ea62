"""What is measured. Each function is one comparison; its docstring is the table's title."""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import h11
import urllib3
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.test import override_settings
from django_resto.storage import HybridStorage as RestoStorage

from benchmarks.measure import Result, in_turn
from outgrow import fanout as fan_out
from outgrow.answer import AnswerParser
from outgrow.endpoint import endpoint
from outgrow.http import Pool, Request
from outgrow.media import AsyncStorage, HybridStorage
from outgrow.media.journal import Look, Wanted
from outgrow.media.reading import Reader, ReadTransport
from outgrow.servers import Server
from tests.live.nginx import Nginx, running_nginx

SMALL = os.urandom(16 * 1024)
PUT_DONE = frozenset({200, 201, 204})

ANSWER = (
    b"HTTP/1.1 201 Created\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 22:29:53 GMT\r\n"
    b"Content-Length: 0\r\nLocation: http://127.0.0.1/a.jpg\r\nConnection: keep-alive\r\n\r\n"
)


@contextmanager
def place() -> Iterator[tuple[Path, list[Nginx]]]:
    """A folder on a disk, and three nginx servers."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        servers = [stack.enter_context(running_nginx()) for _ in range(3)]
        yield Path(folder), servers


def ours(folder: Path, servers: list[Nginx], **options: object) -> HybridStorage:
    urls = [server.url for server in servers]
    return HybridStorage(location=folder / "ours", base_url="/media/", servers=urls, **options)


def resto(folder: Path, servers: list[Nginx]) -> RestoStorage:
    hosts = [f"127.0.0.1:{server.port}" for server in servers]
    return RestoStorage(location=str(folder / "resto"), base_url="/media/", hosts=hosts)


def parsers() -> list[Result]:
    """one answer of nginx, parsed"""

    def with_httptools() -> None:
        for _ in range(2000):
            AnswerParser("PUT").feed(ANSWER)

    def with_h11() -> None:
        for _ in range(2000):
            connection = h11.Connection(h11.CLIENT)
            connection.send(h11.Request(method="PUT", target="/a", headers=[("Host", "a")]))
            connection.receive_data(ANSWER)
            connection.next_event()

    return in_turn({"httptools (ours)": with_httptools, "h11": with_h11}, count=2000)


def fanout() -> list[Result]:
    """PUT of 16 KB to 3 nginx servers, without a storage"""
    with place() as (_, nginxes):
        servers = [Server(str(one.port), f"{one.url}/") for one in nginxes]
        pool, sockets = Pool(), [socket.create_connection(("127.0.0.1", n.port)) for n in nginxes]
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def bare() -> None:
            for number in range(300):
                for one, server in zip(sockets, servers, strict=True):
                    head = (
                        f"PUT /bare{number}.jpg HTTP/1.1\r\n"
                        f"Host: {endpoint(server.address).netloc}\r\n"
                        f"Content-Length: {len(SMALL)}\r\n\r\n"
                    )
                    one.sendall(head.encode() + SMALL)
                for one in sockets:
                    answer = b""
                    while b"\r\n\r\n" not in answer:
                        answer += one.recv(65536)

        def with_fanout() -> None:
            for number in range(300):
                request = Request("PUT", f"ours{number}.jpg", PUT_DONE, body=SMALL)
                until = time.monotonic() + 25
                requests = dict.fromkeys(servers, request)
                assert len(fan_out.run(pool, requests, need=3, deadline=until).done) == 3

        try:
            return in_turn({"bare sockets": bare, "fanout.run": with_fanout}, count=300)
        finally:
            pool.close()
            for one in sockets:
                one.close()


def save() -> list[Result]:
    """save() of 16 KB to 3 nginx servers, one thread, no fsync"""
    with place() as (folder, nginxes):
        storages = {
            "outgrow": ours(folder, nginxes),
            "django-resto 1.3": resto(folder, nginxes),
            "FileSystemStorage, no server": FileSystemStorage(str(folder / "plain"), "/media/"),
        }

        def saver(storage: FileSystemStorage) -> object:
            def run() -> None:
                for _ in range(100):
                    storage.save("photo.jpg", ContentFile(SMALL))

            return run

        return in_turn({name: saver(one) for name, one in storages.items()}, count=100)


def later() -> list[Result]:
    """save() of 16 KB by AsyncStorage, up to its return, and by storages without servers"""
    with place() as (folder, nginxes):
        urls = [server.url for server in nginxes]
        given = {"base_url": "/media/", "servers": urls, "backlog": 10_000}
        plain = FileSystemStorage(str(folder / "plain"), "/media/")
        storages = {
            "FileSystemStorage": plain,
            "outgrow, its thread works at the same time": AsyncStorage(
                location=folder / "busy", **given
            ),
            "outgrow, the work is done elsewhere": Elsewhere(location=folder / "else", **given),
            "outgrow, fsync, elsewhere": Elsewhere(location=folder / "sync", fsync=True, **given),
            "one fsync of 16 KB": None,
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in storages}
        for _ in range(8):
            for name, storage in storages.items():
                before, begin = time.process_time(), time.perf_counter()
                for _ in range(100):
                    if storage is None:
                        write_synced(folder / "one")
                    else:
                        storage.save("photo.jpg", ContentFile(SMALL))
                wall, used = time.perf_counter() - begin, time.process_time() - before
                times[name].append((wall * 10, used * 10))
                if isinstance(storage, AsyncStorage):
                    storage.background.drain(60)
        results = []
        for name, seen in times.items():
            wall, processor = (statistics.median(each) for each in zip(*seen[1:], strict=True))
            base = results[0].wall if results else wall
            results.append(Result(name, wall, processor, "", f"{wall / base:.2f} wall"))
        return results


class Elsewhere(AsyncStorage):
    """What a save costs when another process sends the file: the record stays as it is."""

    def _hand_on(self, pending: object) -> None:
        pass


def write_synced(path: Path) -> None:
    with path.open("wb") as file:
        file.write(SMALL)
        file.flush()
        os.fsync(file.fileno())


def large() -> list[Result]:
    """save() of 64 MB from a file to 3 nginx servers"""
    with place() as (folder, nginxes):
        source = folder / "source.bin"
        source.write_bytes(os.urandom(1 << 20) * 64)
        storages = {"outgrow": ours(folder, nginxes), "django-resto 1.3": resto(folder, nginxes)}

        def saver(storage: FileSystemStorage) -> object:
            def run() -> None:
                with source.open("rb") as file:
                    name = storage.save("film.bin", File(file))
                storage.delete(name)

            return run

        return in_turn({name: saver(one) for name, one in storages.items()}, count=1, rounds=5)


def upload() -> list[Result]:
    """save() of a 64 MB upload, which Django holds in a temporary file, to 3 nginx servers"""
    with place() as (folder, nginxes):
        storages = {"outgrow": ours(folder, nginxes), "django-resto 1.3": resto(folder, nginxes)}
        data = os.urandom(1 << 20)

        def saver(storage: FileSystemStorage) -> object:
            def run() -> None:
                with TemporaryUploadedFile("film.bin", "video/mp4", 64 << 20, None) as file:
                    for _ in range(64):
                        file.write(data)
                    file.seek(0)
                    begin = time.process_time(), time.perf_counter()
                    name = storage.save("film.bin", file)
                    taken.append((time.process_time() - begin[0], time.perf_counter() - begin[1]))
                    storage.delete(name)

            return run

        # Writing the upload is Django's work before either storage sees it.
        results = []
        with override_settings(FILE_UPLOAD_TEMP_DIR=str(folder)):
            for name, storage in storages.items():
                taken: list[tuple[float, float]] = []
                for _ in range(6):
                    saver(storage)()
                processor, wall = (
                    statistics.median(each) * 1000 for each in zip(*taken[1:], strict=True)
                )
                results.append(Result(name, wall, processor, ""))
        for result in results:
            base = results[0]
            ratio = (result.wall / base.wall, result.processor / base.processor)
            result.ratio = f"{ratio[0]:.2f} wall, {ratio[1]:.2f} processor"
        return results


MEMORY = """
import resource, sys
from django.conf import settings
settings.configure(MEDIA_URL="/media/")
from django.core.files.base import ContentFile, File
from outgrow.media import HybridStorage
storage = HybridStorage(location=sys.argv[1], servers=sys.argv[3:])
storage.save("warm.bin", ContentFile(b"x" * 3_000_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[2], "rb") as file:
    storage.save("film.bin", File(file))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory() -> list[Result]:
    """growth of the peak memory while 1 GB is saved, in KB (in the column of times)"""
    with place() as (folder, nginxes):
        source = folder / "source.bin"
        with source.open("wb") as file:
            file.truncate(1 << 30)
        urls = [server.url for server in nginxes]
        words = [sys.executable, "-c", MEMORY, str(folder / "m"), str(source), *urls]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        grown = float(done.stdout)
        return [Result("outgrow", grown, grown, f"limit {8 * 1024}")]


def threads() -> list[Result]:
    """save() of 16 KB, by one thread and by eight at once"""
    with place() as (folder, nginxes):
        storage = ours(folder, nginxes)

        def one() -> None:
            for _ in range(160):
                storage.save("photo.jpg", ContentFile(SMALL))

        def eight() -> None:
            def run() -> None:
                for _ in range(20):
                    storage.save("photo.jpg", ContentFile(SMALL))

            several = [threading.Thread(target=run) for _ in range(8)]
            for each in several:
                each.start()
            for each in several:
                each.join()

        return in_turn({"one thread": one, "eight threads": eight}, count=160)


def reading() -> list[Result]:
    """64 MB read from nginx through open(), per file"""
    with place() as (folder, nginxes):
        size = 64 << 20
        name = "large_aaaaaaaaaaaaa.bin"
        content = os.urandom(1 << 20) * 64
        (nginxes[0].root / name).write_bytes(content)
        http = urllib3.PoolManager()
        transport = HybridStorage(
            location=folder / "ours", base_url="/", servers=[nginxes[0].url]
        ).transport
        reader = Reader(cast("ReadTransport", transport), Known(content))

        def with_urllib3() -> None:
            answer = http.request("GET", f"{nginxes[0].url}/{name}", preload_content=False)
            read = sum(map(len, iter(lambda: answer.read(1 << 18), b"")))
            answer.release_conn()
            assert read == size

        def with_ours() -> None:
            with reader.open(name) as file:
                assert sum(map(len, iter(lambda: file.read(1 << 18), b""))) == size

        return in_turn({"urllib3": with_urllib3, "outgrow, open()": with_ours}, count=1)


class Known:
    """A journal that knows one file, of which every server has a copy."""

    def __init__(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._look = Look(Wanted.PRESENT, (digest,), len(content))

    def look(self, _: str) -> Look:
        return self._look

    def debts(self, *_: object) -> list[object]:
        return []

    def is_owed_all(self, _: str) -> bool:
        return False

    def servers(self) -> list[str]:
        return []
