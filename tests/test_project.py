"""The project about itself: what is written twice is the same, and has its reason."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import outgrow

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
SETTINGS = tomllib.loads(PYPROJECT)
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_version_is_the_same_everywhere():
    assert SETTINGS["project"]["version"] == outgrow.__version__


def test_the_two_commands_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text()
    for command in ("make demo", "make test"):
        assert f"$ {command}\n" in readme
        assert re.search(rf"^{command.split()[1]}:.*##", MAKEFILE, re.MULTILINE)


def test_every_target_is_in_the_help():
    targets = re.search(r"\.PHONY: (.*)", MAKEFILE)
    assert targets
    for target in targets[1].split():
        assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE), target


def test_every_ignored_rule_has_a_reason():
    block = PYPROJECT.partition("\nignore = [\n")[2].partition("\n]")[0]
    for line in block.splitlines():
        assert re.match(r'  "[A-Z]+[0-9]*", +# .{10,}', line), line


def test_every_module_and_package_says_what_it_is():
    for folder in ("src", "benchmarks", "tools", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            if "migrations" in path.parts or ".venv" in str(path):
                continue
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_pure_modules_are_those_that_import_linter_holds():
    pure = re.findall(
        r'^    "([a-z_/]+)": ', (ROOT / "tools/pure_coverage.py").read_text(), re.MULTILINE
    )
    contracts = SETTINGS["tool"]["importlinter"]["contracts"]
    held = next(one for one in contracts if one["name"].startswith("Pure modules"))
    named = {module.removeprefix("outgrow.").replace(".", "/") for module in held["source_modules"]}
    assert named <= set(pure)


def test_the_changelog_s_fragments_have_a_known_kind():
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.suffix == ".md"]
    assert fragments
    for path in fragments:
        assert path.name.split(".")[1] in {"added", "changed", "fixed", "removed"}, path


def test_the_tree_of_the_architecture_is_the_tree():
    drawn = (ROOT / "docs/architecture.md").read_text()
    for path in (ROOT / "src/outgrow").rglob("*.py"):
        name = path.name
        if name.startswith("__") or path.parent.name in {"render", "commands", "migrations"}:
            continue
        assert name in drawn, f"{path} is not in docs/architecture.md"


def test_nothing_names_a_path_of_the_machine_it_was_written_on():
    for folder in ("src", "tests", "docs", "benchmarks", "examples", "tools"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".sh", ".toml", ".html"} and "var" not in path.parts:
                assert "/root/" + "." not in path.read_text(), path


def test_a_link_to_a_virtual_environment_cannot_be_committed():
    """One was, once, and no clone could make its own; a name with a slash ignores folders alone."""
    assert ".venv*" in (ROOT / ".gitignore").read_text().splitlines()
    for folder in ("src", "tests", "docs", "benchmarks", "examples", "tools", "changelog.d", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            assert not path.is_symlink() or "var" in path.parts, path
