"""The page of guarantees and SECURITY.md: what they name is there."""

import ast
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guarantees.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the folder docs/ of a checkout")


def names_in(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def missing(text: str) -> list[str]:
    """Tests that a text names and that there are not; three dots stand for any letters."""
    files = {path.name: names_in(path) for path in (ROOT / "tests").glob("test_*.py")}
    every = set().union(*files.values())
    named = re.findall(r"`(?:(test_\w+\.py)(?:::)?)?((?:test_|\.\.\._)[\w.]*)?`", text)
    return [
        f"{file}::{name}"
        for file, name in named
        if (file and file not in files)
        or (name and not any(fnmatchcase(test, name.replace("...", "*")) for test in (files[file] if file else every)))
    ]


def test_every_test_that_the_page_names_exists():
    text = PAGE.read_text("utf-8")
    assert len(re.findall(r"`test_", text)) > 40
    assert missing(text) == []


@pytest.mark.parametrize("text", ["`test_nothing.py`", "`test_faults.py::test_nothing`", "`test_is_never_written_...`"])
def test_a_test_that_is_not_there_is_missed(text):
    assert len(missing(text)) == 1


def test_every_promise_of_writing_names_its_test():
    text = PAGE.read_text("utf-8")
    writing = text.partition("## Writing")[2].partition("## Reading")[0]
    promises = re.split(r"^- ", writing, flags=re.MULTILINE)[1:]
    assert len(promises) > 8
    assert [promise[:60] for promise in promises if "`test_" not in promise] == []


def test_no_version_with_a_weakness_named_on_the_page_may_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [
        Requirement(text)
        for texts in (project["dependencies"], *project["optional-dependencies"].values())
        for text in texts
    ]
    ranges = {requirement.name: requirement.specifier for requirement in asked}
    tested = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    mended = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| (?:CVE|GHSA|PYSEC)-", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(mended) > 5
    for name, version in mended:
        assert f">={version}" in map(str, ranges[name])
        if name in tested:
            assert ranges[name].contains(tested[name])


def test_the_page_of_security_is_in_the_package_and_invents_no_address():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    assert "@" not in text
    assert len(text.strip().split("\n\n")) == 4  # a heading and three paragraphs
    for path in re.findall(r"`([a-z]+/[^`]+)`", text):
        assert (ROOT / path).is_file()
    assert '"SECURITY.md"' in (ROOT / "pyproject.toml").read_text("utf-8")
