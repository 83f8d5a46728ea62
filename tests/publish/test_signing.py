"""`outgrow sign`, against an engine that verifies."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outgrow.cli import main
from outgrow.objects import ObjectStorage
from tests.live.engines import Engine


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["sign", *words], env=environment)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def url(swift: Engine, swift_bucket: str) -> str:
    from django.core.files.base import ContentFile

    storage = ObjectStorage(**swift.options(swift_bucket), overwrite=True)
    storage.save("a b/ü.txt", ContentFile(b"private"))
    return f"s3://{swift_bucket}/a b/ü.txt"


def fetched(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read(), answer.headers.get("Content-Disposition", "")


def test_keys_of_the_environment(swift: Engine, url: str, here: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": swift.access_key, "AWS_SECRET_ACCESS_KEY": swift.secret_key}
    where = ("--endpoint", swift.endpoint, "--region", swift.region)
    result = run(url, *where, **keys)
    assert result.exit_code == 0, result.output
    assert fetched(result.stdout.strip()) == (b"private", "")
    result = run(url, *where, "--download", 'Ü "1".txt', **keys)
    _, disposition = fetched(result.stdout.strip())
    assert "filename*=UTF-8''%C3%9C%20%221%22.txt" in disposition
    wrong = run(url, *where, **{**keys, "AWS_SECRET_ACCESS_KEY": "wrong"})
    with pytest.raises(urllib.error.HTTPError):
        fetched(wrong.stdout.strip())


def test_keys_of_the_configuration(swift: Engine, url: str, here: Path) -> None:
    bucket = url.split("/")[2]
    options = {**swift.options(bucket), "url": f"s3://{bucket}/site", "secret_env": "SECRET"}
    del options["location"], options["secret_key"]
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    (here / "outgrow.toml").write_text(f"[[publish.to]]\n{lines}\n")
    (here / "below").mkdir()
    result = run(url, "--expires", "10m", SECRET=swift.secret_key)
    assert result.exit_code == 0, result.output
    assert "X-Amz-Expires=600" in result.stdout
    assert fetched(result.stdout.strip())[0] == b"private"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s3://bucket"], "names no file"),
        (["s3://bucket/folder/"], "names no file"),
        (["file:///etc/passwd"], "no server signs"),
        (["bucket/key"], "has no scheme that is known"),
        (["s3://bucket/key", "--expires", "8d"], "7 days at most"),
        (["s3://bucket/key", "--expires", "soon"], "--expires: is 'soon'"),
        (["s3://bucket/key", "--expires", "0h"], "--expires"),
    ],
)
def test_mistakes(here: Path, words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert said in result.output
