"""Chromium without a window, driven by its DevTools protocol through two pipes.

https://chromedevtools.github.io/devtools-protocol/; with --remote-debugging-pipe messages are
JSON that ends with a zero byte, read from descriptor 3 and written to 4. No other program
and no package is needed.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.live.processes import missing, server_folder

#: Puts both pipes where the browser looks for them, and becomes the browser.
_PUT = """
import os, sys
reads, writes = (os.dup(int(one)) for one in sys.argv[1:3])
while reads < 5 or writes < 5:
    reads, writes = os.dup(reads), os.dup(writes)
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

#: Seconds for one answer of the browser's, on a machine that has much else to do.
PATIENCE = 60


def program() -> str | None:
    """Where Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


#: What tells of errors and requests; and that workers are known before they run.
_LISTENING = ("Runtime.enable", "Log.enable", "Network.enable")
_ATTACHING = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}


def _trouble(event: dict[str, Any]) -> Iterator[str]:
    """What an event tells of something that went wrong."""
    about = event["params"]
    match event["method"]:
        case "Log.entryAdded" if about["entry"]["level"] == "error":
            yield f"log: {about['entry']['text']} {about['entry'].get('url', '')}"
        case "Runtime.consoleAPICalled" if about["type"] in {"error", "assert"}:
            said = [one.get("value", one.get("description")) for one in about["args"]]
            yield f"console: {said}"
        case "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            yield f"thrown: {details.get('exception', {}).get('description', details['text'])}"
        case "Network.responseReceived" if about["response"]["status"] >= 400:
            yield f"status: {about['response']['status']} {about['response']['url']}"
        case "Network.loadingFailed" if not about.get("canceled"):
            yield f"not loaded: {about['errorText']} ({about['type']})"
        case "Inspector.targetCrashed":
            yield "it crashed"


class Page:
    """One tab. Methods raise AssertionError for what the page's scripts throw."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        return self._browser.send(method, parameters, self._session)

    def go(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        answer = self.send("Page.navigate", url=url)
        assert not answer.get("errorText"), answer
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = PATIENCE) -> None:
        """Until an expression is true, also while one page is replaced by another."""
        # Between two pages there is no body, say.
        script = f"(() => {{ try {{ return !!({condition}) }} catch {{ return false }} }})()"
        self.until(lambda: bool(self.run(script)), condition, seconds)

    def until(self, done: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Until it is so, as `wait`."""
        end = time.monotonic() + seconds
        while True:
            with suppress(ProtocolError):  # the page that was asked has just gone
                if done():
                    return
            if time.monotonic() > end:
                shown = self.run("document.documentElement.outerHTML")
                raise AssertionError(f"it did not come true: {what}\n{shown[:3000]}")
            time.sleep(0.05)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a file input, as its dialogue does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, f"nothing is {selector!r}"
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(one) for one in files])

    def click(self, selector: str) -> None:
        """Click what it finds."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector: str = "body") -> str:
        """The text that is shown."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def type(self, text: str) -> None:
        """Press a key for each character, in what has the focus."""
        for one in text:
            key = {"key": one, "text": one}
            if one == "\n":
                key = {"key": "Enter", "text": "\r"}
            code = 13 if one == "\n" else 0
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=code, **key)

    def listen(self) -> None:
        """From now on note what its console tells, and its requests; its workers', too."""
        for method in _LISTENING:
            self.send(method)
        self.send("Target.setAutoAttach", **_ATTACHING)

    def troubles(self) -> list[str]:
        """Errors of the console, and requests that failed, since `listen`."""
        self.run("0")  # reads what has come in the meantime
        return [found for event in self._browser.events for found in _trouble(event)]

    def requested(self) -> dict[str, int]:
        """The addresses that were answered since `listen`, and the status of each."""
        self.run("0")
        answers = [
            event["params"]["response"]
            for event in self._browser.events
            if event["method"] == "Network.responseReceived"
        ]
        return {one["url"]: one["status"] for one in answers}

    def picture(self, path: Path) -> None:
        """Save what is seen, as PNG."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


class ProtocolError(Exception):
    """The browser refused a call."""


class Browser:
    """One running browser."""

    def __init__(self, process: subprocess.Popen[bytes], reads: int, writes: int) -> None:
        self._process = process
        self._reads, self._writes = reads, writes
        self._number = 0
        self._rest = b""
        #: Of pages that listen.
        self.events: list[dict[str, Any]] = []

    def page(self, width: int = 1000, height: int = 700) -> Page:
        """A new tab."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        page.send("Page.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        return page

    def send(
        self, method: str, parameters: dict[str, Any] | None = None, session: str = ""
    ) -> dict[str, Any]:
        """Call a method, and wait for its answer; events in between are kept."""
        number = self._call(method, parameters or {}, session)
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._message(end)
            if "method" in answer:
                self._heard(answer)
            elif answer["id"] == number:
                if "error" in answer:
                    raise ProtocolError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _call(self, method: str, parameters: dict[str, Any], session: str) -> int:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        return self._number

    def _heard(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        # With a session it is the worker of a page that listens, and waits to be let go.
        if event["method"] == "Target.attachedToTarget" and "sessionId" in event:
            session = event["params"]["sessionId"]
            for method in _LISTENING:
                self._call(method, {}, session)  # a worker has no Log
            self._call("Target.setAutoAttach", _ATTACHING, session)
            self._call("Runtime.runIfWaitingForDebugger", {}, session)

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reads], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._reads, 1 << 16)
            if not data:
                raise EOFError(f"Chromium ended: {self._process.poll()}")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(text))


@contextmanager
def running_chromium(*words: str) -> Iterator[Browser]:
    """A browser with a profile of its own, for as long as the block lasts."""
    found = program()
    if found is None:
        missing("Chromium is not installed", "apt-get install chromium")
    with server_folder("outgrow-chromium-") as folder:
        commands, answers = os.pipe(), os.pipe()
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _PUT,
                str(commands[0]),
                str(answers[1]),
                str(found),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-pipe",
                f"--user-data-dir={folder}",
                *words,
            ],
            pass_fds=(commands[0], answers[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Browser(process, answers[0], commands[1])
        finally:
            with suppress(OSError):
                os.write(commands[1], b'{"id": 0, "method": "Browser.close"}\0')
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(10)
            os.close(answers[0])
            os.close(commands[1])
