"""A page that listens hears what went wrong, in its workers, too; and one without fault nothing."""

from __future__ import annotations

import pytest

from outgrow.testing import free_port
from tests.live.chromium import running_chromium

WORKER = """
const code = `{}; postMessage("done")`;
const worker = new Worker(URL.createObjectURL(new Blob([code])));
new Promise((done) => {{ worker.onmessage = done; worker.onerror = done; }})
"""


@pytest.fixture(scope="module")
def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}/"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("console.log('fine')", ""),
        (WORKER.format("1"), ""),
        ("console.error('alas')", "alas"),
        ("setTimeout(() => missing())", "missing is not defined"),
        ("void Promise.reject(new Error('lost'))", "lost"),
        ("fetch('{nowhere}').catch(() => 1)", "not loaded: net::ERR_CONNECTION_REFUSED"),
        (WORKER.format("console.error('alas')"), "alas"),
        (WORKER.format("missing()"), "missing is not defined"),
        (WORKER.format("fetch('{nowhere}').catch(() => 1)"), "not loaded"),
    ],
)
def test_what_went_wrong_is_heard(script: str, expected: str, nowhere: str) -> None:
    with running_chromium() as browser:
        page = browser.page()
        page.listen()
        page.go("data:text/html,<title>a page</title>")
        page.run(script.replace("{nowhere}", nowhere))
        if expected:
            page.until(lambda: any(expected in one for one in page.troubles()), expected)
        else:
            assert page.troubles() == []


def test_keys() -> None:
    with running_chromium() as browser:
        page = browser.page()
        page.go("data:text/html,<textarea autofocus></textarea>")
        page.run("document.querySelector('textarea').focus()")
        page.type('a "b"\nc')
        assert page.run("document.querySelector('textarea').value") == 'a "b"\nc'
