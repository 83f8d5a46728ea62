"""`outgrow publish`, as it is typed; and what visitors get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outgrow.cli import main
from outgrow.publish.policy import FOREVER
from tests.publish.sites import write

SITE = {
    "css/a.css": b"body { background: url(../img/a.png) }" + b"/* */" * 90,
    "img/a.png": b"\x89PNG",
    "index.html": b'<link rel=stylesheet href="/css/a.css"><a href="about/">about</a>',
    "about/index.html": b'<img src="../img/a.png">',
    "robots.txt": b"User-agent: *\n",
}
TOML = """
[publish]
root = "public"
to = "out"
url = "/"
cache = "cache"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "public").mkdir(parents=True)
    write(folder / "public", SITE)
    (folder / "outgrow.toml").write_text(TOML)
    monkeypatch.chdir(folder)
    return folder


def run(*words: str, text: str = "") -> Result:
    return CliRunner().invoke(main, ["publish", *words], input=text)


def done(*words: str, text: str = "") -> str:
    result = run(*words, text=text)
    assert result.exit_code == 0, result.output
    return result.stdout


def held(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("outgrow-publish/")}


def test_a_folder_of_a_site_generator(project: Path) -> None:
    out = done()
    assert "is served" in out
    page = (project / "out/index.html").read_text()
    [sheet] = [name for name in held(project / "out") if name.endswith(".css")]
    assert page == f'<link rel=stylesheet href="/{sheet}"><a href="about/">about</a>'
    assert (project / "out/robots.txt").read_bytes() == SITE["robots.txt"]
    assert "is there already" in done()


def test_from_any_folder_below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "public/css")
    done()
    assert "index.html" in held(project / "out")


def test_dry_run_lists_every_put_and_delete(project: Path) -> None:
    out = done("--dry-run")
    assert not (project / "out").exists()
    puts = {line.split()[1] for line in out.splitlines() if line.startswith("  put ")}
    done()
    assert {name for name in puts if not name.startswith("outgrow-publish/")} == held(
        project / "out"
    )
    (project / "public/about/index.html").unlink()
    out = done("--dry-run")
    assert "  delete about/index.html" in out
    facts = json.loads(done("--dry-run", "--json"))
    assert facts["targets"][0]["delete"] == ["about/index.html"]
    assert facts["dry_run"] is True
    done()
    assert "about/index.html" not in held(project / "out")
    assert not (project / "out/about").exists()


def test_several_targets(project: Path) -> None:
    done("--to", "one", "--to", "two")
    assert held(project / "one") == held(project / "two") != set()


def test_one_target_may_be_a_table(project: Path) -> None:
    table = 'to = { url = "out", siblings = ["gzip"] }'
    (project / "outgrow.toml").write_text(TOML.replace('to = "out"', table))
    done()
    names = held(project / "out")
    assert any(name.endswith(".css.gz") for name in names)
    assert not any(name.endswith(".css.br") for name in names)


def test_plain_names_and_single_files(project: Path) -> None:
    done("--plain", "public/img/a.png", "--to", "out")
    assert held(project / "out") == {"img/a.png"}
    done("--plain", "public/robots.txt", "--to", "out")
    assert held(project / "out") == {"img/a.png", "robots.txt"}
    # Only what has changed is sent, and what is not among these is left alone.
    (project / "public/img/a.png").write_bytes(b"\x89PNG another")
    out = done("--plain")
    assert "robots.txt" in held(project / "out")
    assert (project / "out/css/a.css").read_bytes() == SITE["css/a.css"]
    assert (project / "out/img/a.png").read_bytes() == b"\x89PNG another"
    (project / "public/robots.txt").unlink()
    assert "is there already" in done("--plain")
    out = done("--plain", "--delete")
    assert "1 pages deleted" in out
    assert "robots.txt" not in held(project / "out")


def test_plain_in_a_sub_folder_means_that_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "public/img")
    done("--plain")
    assert held(project / "out") == {"img/a.png"}


def test_a_list_from_the_standard_input(project: Path) -> None:
    done("--plain", "-", text="public/img/a.png\npublic/robots.txt\n")
    assert held(project / "out") == {"img/a.png", "robots.txt"}
    done("--plain", "-", "--to", "two", text="public/img/a.png\0public/robots.txt\0")
    assert held(project / "two") == {"img/a.png", "robots.txt"}


def test_a_prefix(project: Path) -> None:
    done("--prefix", "v2/", "public/img/a.png")
    [name] = held(project / "out")
    assert name.startswith("v2/img/a.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing"], "missing is not there"),
        (["--to", "ftp://x"], "--to.url: has the scheme 'ftp'"),
        (["--check", "abc"], "has no such release: abc"),
        (["--rollback", "abc"], "has no such release: abc"),
        (["--prune", "--older", "soon"], "--older: is 'soon'. Write a time as 12h, 14d or 2w."),
        (["--prefix", "../x"], "prefix: is '../x'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(project: Path, words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[publish\n", "is no TOML"),
        ("publish = 1", "publish: is not a table"),
        ("[publish]\nrooot = 'x'", "publish.rooot: is not a known key. Did you mean 'root'?"),
        ("[publish]\nroot = 1", "publish.root: is 1"),
        ("[publish]\nto = 1", "publish.to: is 1"),
        ("[publish]\nto = {bucket = 'x'}", "publish.to.url: is missing"),
        ("[publish]\nroot = 'no'\nto = 'out'", "publish.root: is "),
        ("[publish]\nto = 'out'", "publish.root: is missing"),
        ("[publish]\n[[publish.to]]\nbucket = 'x'", "publish.to[0].url: is missing"),
        ("[publish]\n[[publish.to]]\nurl = 's3://x'\nregoin = 'y'", "Did you mean 'region'?"),
        ("[publish]\n[[publish.to]]\nurl = 's3://x'\nnames = 'keep'", "has no meaning here"),
        (
            "[publish]\n[[publish.to]]\nurl = 's3://x'\nsecret_env = 'NOT_SET'",
            "publish.to[0].secret_env: is 'NOT_SET', which is not set",
        ),
        ("[publish]\n[[publish.to]]\nurl = 'out'\nregion = 'x'", "has no meaning for a folder"),
        ("[publish]\n[[publish.to]]\nurl = 'out'\nsiblings = ['zip']", "is 'zip'"),
        ("[publish]\nstamps = 1", "publish.stamps: is 1"),
        ("[publish]\nurl = 'static'", "publish.url: is 'static'"),
    ],
)
def test_mistakes_in_the_file(project: Path, text: str, said: str) -> None:
    (project / "outgrow.toml").write_text(text)
    result = run()
    assert result.exit_code == 1
    assert said in result.output


def test_going_back_and_pruning(project: Path) -> None:
    first = json.loads(done("--json"))["release"]
    old = (project / "out/index.html").read_text()
    (project / "public/img/a.png").write_bytes(b"\x89PNG another")
    done()
    assert first[:12] in done("--releases")
    facts = json.loads(done("--releases", "--json"))
    assert [(one["release"] == first, one["is_served"]) for one in facts] == [
        (False, True),
        (True, False),
    ]
    assert "would serve" in done("--rollback", first[:6], "--dry-run")
    done("--rollback", first[:6])
    assert (project / "out/index.html").read_text() == old
    out = done("--prune", "--older", "0d", "--keep", "1", "--dry-run")
    assert "would be condemned" in out
    assert "condemn img/a." in out
    result = run("--prune", "--older", "0d", "--keep", "1", "--max", "0")
    assert result.exit_code == 1
    assert "the limit is 0" in result.output
    facts = json.loads(done("--prune", "--older", "0d", "--keep", "1", "--json"))
    assert facts[0]["condemned"]
    assert facts[0]["deleted"] == []


def test_caches_are_told_what_has_changed_without_its_name(project: Path) -> None:
    script = "import sys; open('told', 'a').write(sys.stdin.read())"
    line = f"invalidate = {json.dumps([sys.executable, '-c', script])}\n"
    (project / "outgrow.toml").write_text(TOML + line)
    done()
    told = (project / "told").read_text().split()
    assert told == ["about/index.html", "index.html", "robots.txt"]
    (project / "told").unlink()
    done()
    assert not (project / "told").exists()
    (project / "outgrow.toml").write_text(TOML + 'invalidate = ["false"]\n')
    (project / "public/robots.txt").write_bytes(b"changed")
    result = run()
    assert result.exit_code == 1
    assert "Everything is published, but the command of 'invalidate' failed" in result.output


def test_a_script_with_a_mistake_is_a_warning(project: Path) -> None:
    """With its place, for people and for machines; the release is served all the same."""
    (project / "public/bad.js").write_bytes(b"let a = [;\nimport('./b.js'\n")
    for words in (["--dry-run"], [], ["--json"]):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert "warning: bad.js:2:9: what looks like a reference was left" in result.stderr
    [warning] = json.loads(result.stdout)["warnings"]
    assert warning.startswith("bad.js:2:9: ")


def test_progress_goes_to_a_terminal_alone(project: Path) -> None:
    result = run()
    assert result.stderr == ""


def test_it_is_a_command_without_django_s_settings(project: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    words = [sys.executable, "-m", "outgrow", "publish", "--json"]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["files"] == len(SITE)


# --- as visitors see it


TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}


@contextmanager
def served(folder: Path, **headers: str) -> Iterator[str]:
    """A web server that knows little: no compression, and these headers."""

    class Handler(SimpleHTTPRequestHandler):
        extensions_map = TYPES

        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def end_headers(self):
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            super().end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_what_visitors_get_is_looked_at(project: Path) -> None:
    with served(project / "out", Cache_Control="no-cache", Access_Control_Allow_Origin="*") as url:
        result = run("--verify", url)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert any("Cache-Control is 'no-cache'" in line and "/css/a." in line for line in lines)
        assert any("arrives without compression" in line for line in lines)
        assert not any("index.html" in line for line in lines)
        [picture] = [name for name in held(project / "out") if name.endswith(".png")]
        (project / "out" / picture).write_bytes(b"\x89PN6")
        result = run("--verify", url, "--json")
        wrong = json.loads(result.stdout)["wrong"]
        assert any("has another content" in line for line in wrong)
        (project / "out" / picture).unlink()
        (project / "out/outgrow-publish").rename(project / "out/elsewhere")
        (project / "outgrow.toml").write_text(TOML.replace('"out"', '"nowhere"'))
        wrong = json.loads(run("--verify", url, "--json").stdout)["wrong"]
        assert any("answers 404" in line for line in wrong)
        assert any("'Cache-Control: no-store'" in line for line in wrong)
    wrong = json.loads(run("--verify", url, "--json").stdout)["wrong"]
    assert any("can't be fetched" in line for line in wrong)


@pytest.mark.parametrize(
    ("kind", "is_same"),
    [
        ("text/javascript; charset=utf-8", True),
        ("application/javascript; charset=utf-8", True),  # nginx's name of it
        ("Application/X-JavaScript;charset=UTF-8", True),
        ("application/javascript", False),  # browsers would guess the charset
        ("text/plain; charset=utf-8", False),
    ],
)
def test_a_media_type_may_have_an_older_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_same: bool
) -> None:
    write(project / "public", {"a.js": b"let a"})
    monkeypatch.setitem(TYPES, ".js", kind)
    with served(project / "out", Cache_Control=FOREVER, Access_Control_Allow_Origin="*") as url:
        wrong = json.loads(run("--verify", url, "--json").stdout)["wrong"]
    assert any("Content-Type is" in line for line in wrong) is not is_same
    assert len(wrong) == (0 if is_same else 1)
