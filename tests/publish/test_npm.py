"""Real front ends from npm, published and opened in Chromium: a Vite build, monaco-editor, TinyMCE.

`make npm` runs these. Versions and digests are those of npm/package-lock.json; where packages
come from is npm's own setting. Nothing that they bring is run at their installation.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.chromium import Page, running_chromium
from tests.live.engines import Engine
from tests.publish.test_fronts import Front, answers, nginx, swift

# npm and Vite take a minute or two on a machine that has much else to do.
pytestmark = [pytest.mark.npm, pytest.mark.timeout(900)]

HERE = Path(__file__).parent / "npm"

#: As engines.node of Vite in the lock has it.
NEEDED = "Node 20.19, or 22.12 or later"

#: A real browser loads neither a picture nor a page by these.
INLINE = ("data:", "blob:")


def demand_node() -> None:
    """Skip where it is missing or too old: a distribution's own is, as often as not."""
    found = ""
    if shutil.which("npm") and shutil.which("node"):
        found = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    version = tuple(map(int, re.findall(r"\d+", found)))
    if (20, 19) <= version < (21,) or version >= (22, 12):
        return
    pytest.skip(f"NOT PROVEN: front ends from npm need {NEEDED}; here is {found or 'none'}.")


def done(words: list[str], folder: Path, **environment: str) -> str:
    """What a command prints. It has to succeed."""
    ended = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, f"{words}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder: what `vite build` has made of the app, and two editors as they come."""
    demand_node()
    folder = tmp_path_factory.mktemp("npm")
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    done(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    done(["node", "node_modules/vite/bin/vite.js", "build", "app"], folder)
    made = folder / "app/dist"
    shutil.copytree(folder / "node_modules/monaco-editor/min/vs", made / "monaco/vs")
    shutil.copytree(folder / "node_modules/tinymce", made / "tinymce")
    shutil.copytree(folder / "pages", made, dirs_exist_ok=True)
    return made


#: The table of `outgrow.toml`, but for the targets.
KEYS = {
    "root": "dist",
    "url": "/",
    # Vite's names have a hash.
    "immutable": ["assets/**"],
    # Those of the editors' own loaders have none, and are put together.
    "keep": ["monaco/**", "tinymce/**"],
    # monaco-editor names the module of a worker in a way that makes Vite copy it as it is, with
    # an import of what is not there; it is not run.
    "may_miss": ["assets/editorWebWorkerMain-*.js"],
}


@pytest.fixture(scope="module", params=["nginx", "swift"])
def front(
    request: pytest.FixtureRequest, engine_named: Callable[[str], Engine], site: Path
) -> Iterator[Front]:
    """Where `outgrow publish` has put the site."""
    with nginx() if request.param == "nginx" else swift(engine_named("swift")) as found:
        said = published(site, found.target)
        worker, source_map = sorted(said["warnings"])
        assert "editorWebWorker.js, which is not there" in worker
        assert source_map.startswith("monaco/vs/loader.js:")
        yield found


def published(site: Path, to: dict[str, Any] | str, *words: str, **more: Any) -> dict[str, Any]:
    """Run `outgrow publish` above the site, as its author would."""
    # nginx is told gzip_static, and no more.
    target = {"url": to, "siblings": ["gzip"]} if isinstance(to, str) else dict(to)
    secret = target.pop("secret_key", "")
    if secret:
        target["secret_env"] = "ASSETS_SECRET"
    tables = [("[publish]", KEYS | more), ("[[publish.to]]", target)]
    (site.parent / "outgrow.toml").write_text(
        "\n".join(
            "\n".join([head, *(f"{key} = {json.dumps(value)}" for key, value in table.items())])
            for head, table in tables
        )
    )
    command = [sys.executable, "-m", "outgrow", "publish", "--json", *words]
    cache = str(site.parent / "cache")
    return dict(json.loads(done(command, site.parent, XDG_CACHE_HOME=cache, ASSETS_SECRET=secret)))


@contextmanager
def opened(url: str, height: int = 600) -> Iterator[Page]:
    """A page in a browser. Nothing has gone wrong in it, nor in its workers."""
    with running_chromium() as browser:
        page = browser.page(1200, height)
        page.listen()
        page.go(url)
        yield page
        assert page.troubles() == []


def loaded(page: Page, front: Front) -> set[str]:
    """The names of what a page and its workers have loaded; all of it is there."""
    found = {url: status for url, status in page.requested().items() if not url.startswith(INLINE)}
    assert set(found.values()) <= {200, 304}, found
    assert all(url.startswith(front.url) for url in found), found
    return {url.removeprefix(front.url) for url in found}


def test_a_vite_build(front: Front, site: Path) -> None:
    with opened(f"{front.url}index.html") as page:
        page.wait("document.querySelector('#said').textContent !== 'nothing'")
        assert page.text("#said") == "hello page, hello worker"
        page.wait("document.querySelector('#picture').naturalWidth === 40")
        assert page.run("getComputedStyle(document.body).color") == "rgb(1, 2, 3)"
        page.click("#later")
        page.wait("document.querySelector('#late') !== null")
        assert page.text("#late") == "hello later"
        assert page.run("getComputedStyle(document.querySelector('#late')).color") == "rgb(4, 5, 6)"
        names = loaded(page, front)
    # Vite's own names have a hash, and stay: index.html and all else once.
    kinds = sorted(re.sub(r"-[\w-]{8}\.", ".", name) for name in names)
    assert kinds == [
        "assets/index.css",
        "assets/index.js",
        "assets/late.css",
        "assets/late.js",
        "assets/later.js",
        "assets/picture.svg",
        "assets/preload-helper.js",
        "assets/tile.svg",
        "assets/worker.js",
        "index.html",
    ]
    for name in names:
        if name.endswith(".js"):
            content = (site / name).read_text()
            found = re.search(r"//# sourceMappingURL=(\S+)", content)
            assert found is None or answers(f"{front.url}assets/{found[1]}", 200)


#: With a mistake in it, which only the worker finds.
CODE = """// The names of published files hold a hash of what is in them.
export function stamped(name: string, hash: string): string {
  const dot = name.lastIndexOf(".");
  return `${name.slice(0, dot)}.${hash}${name.slice(dot)}`;
}

export const length: number = stamped("base.css", "4f1c9a7e0b2d");
"""


def typed(page: Page) -> None:
    """Type into monaco-editor; its worker for TypeScript reads it."""
    page.wait("window.editor !== undefined")
    page.run("editor.focus()")
    page.type(CODE)
    assert page.run("editor.getValue()") == CODE
    said = json.dumps("Type 'string' is not assignable to type 'number'.")
    page.wait(f"monaco.editor.getModelMarkers({{}}).some((one) => one.message === {said})")
    # Its symbols are of a font of its own.
    page.run("document.fonts.load('16px codicon')")
    assert page.run("document.fonts.check('16px codicon')")


def test_what_vite_s_names_need_is_told(site: Path, tmp_path: Path) -> None:
    said = published(site, str(tmp_path), "--dry-run", immutable=[])["warnings"]
    assert any("index-" in one and "'./late-" in one for one in said), said
    assert all('immutable = ["assets/**"]' in one for one in said if "the text" in one), said
    said = published(site, str(tmp_path), "--dry-run", keep=[])["warnings"]
    assert any('keep = ["monaco/vs/assets/**"]' in one for one in said), said


def test_monaco_bundled_by_vite(front: Front) -> None:
    with opened(f"{front.url}editor.html") as page:
        typed(page)
        names = loaded(page, front)
    assert any(name.startswith("assets/ts.worker-") for name in names), names


def test_monaco_with_its_own_loader(front: Front, tmp_path: Path) -> None:
    with opened(f"{front.url}monaco.html", 280) as page:
        typed(page)
        page.run("editor.setPosition({ lineNumber: 7, column: 16 })")
        page.run("editor.trigger('', 'editor.action.showHover')")
        page.wait("document.querySelector('.monaco-hover').innerText.includes('not assignable')")
        names = loaded(page, front)
        page.picture(tmp_path / "monaco.png")
    assert {"monaco.html", "monaco/vs/loader.js", "monaco/vs/editor/editor.main.css"} <= names
    assert any(name.startswith("monaco/vs/assets/ts.worker-") for name in names), names


def test_tinymce(front: Front, tmp_path: Path) -> None:
    with opened(f"{front.url}tinymce.html") as page:
        page.wait("tinymce.activeEditor?.initialized")
        page.run("tinymce.activeEditor.focus()")
        page.type("Never half visible")
        assert page.run("tinymce.activeEditor.getContent()") == "<p>Never half visible</p>"
        # What is fetched when it is asked for: the emoticons, by a name that is put together.
        page.run("tinymce.activeEditor.execCommand('mceEmoticons')")
        page.wait("document.querySelectorAll('.tox-collection__item').length > 20")
        names = loaded(page, front)
        page.picture(tmp_path / "tinymce.png")
    assert {
        "tinymce/tinymce.min.js",
        "tinymce/models/dom/model.min.js",
        "tinymce/plugins/emoticons/js/emojis.min.js",
        "tinymce/skins/ui/oxide/skin.min.css",
        "tinymce/themes/silver/theme.min.js",
    } <= names
