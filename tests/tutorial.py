"""Do what the tutorial says, in order: tests/tutorial.py PAGE, in an empty folder.

The one thing that a page can't say in code is "stop the second server with
Ctrl-C"; it is done before the Python block that follows those words.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from outgrow.testing import free_port

FENCE = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Tutorial:
    def __init__(self, page: str) -> None:
        self.page = page
        self.ports = {number: free_port() for number in ("8081", "8082")}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.names: dict[str, object] = {}
        self.settings = ""

    def run(self) -> None:
        end = 0
        try:
            for match in FENCE.finditer(self.page):
                if "Stop the second media server" in self.page[end : match.start()]:
                    self.stop("8082")
                end = match.end()
                self.block(match[1], self.with_ports(match[2]))
        finally:
            for port in list(self.servers):
                self.stop(port)

    def with_ports(self, text: str) -> str:
        for number, port in self.ports.items():
            text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{port}")
        return text

    def block(self, language: str, text: str) -> None:
        if language == "console":
            for line in text.splitlines():
                self.command(line.removeprefix("$ ").split())
        elif "STORAGES" in text:
            self.use_settings(text)
        else:
            exec(compile(text, "tutorial", "exec"), self.names)

    def use_settings(self, text: str) -> None:
        Path("settings.py").write_text("SECRET_KEY = 'tutorial'\nUSE_TZ = True\n" + text)
        sys.path.insert(0, ".")
        import os

        import django

        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        django.setup()

    def command(self, words: list[str]) -> None:
        print("$", *words, flush=True)
        if words[:2] == ["outgrow", "media-server"]:
            self.start(words)
        elif words[0] == "mkdir":
            for folder in words[1:]:
                Path(folder).mkdir()
        elif words[-1] == "--watch":
            self.watch(words)
        elif words[0] == "python":
            code = subprocess.run(_module(words), timeout=60, check=False).returncode
            assert code == 0, code

    def start(self, words: list[str]) -> None:
        number = next(n for n, port in self.ports.items() if str(port) in words[-1])
        words = [sys.executable, "-m", "outgrow", *words[1:]]
        self.servers[number] = subprocess.Popen(words)
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", self.ports[number])):
            assert time.monotonic() < deadline, "the media server does not answer"
            time.sleep(0.05)

    def watch(self, words: list[str]) -> None:
        watch = subprocess.Popen(_module(words), stdout=subprocess.PIPE)
        assert watch.stdout is not None
        assert b"Watching" in watch.stdout.readline()
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(20) == 0

    def stop(self, number: str) -> None:
        server = self.servers.pop(number)
        server.send_signal(signal.SIGINT)
        server.wait(20)


def _module(words: list[str]) -> list[str]:
    """`python manage.py X` as `python -m django X`."""
    return [sys.executable, "-m", "django", *words[2:]]


if __name__ == "__main__":
    Tutorial(Path(sys.argv[1]).read_text()).run()
