"""Docstrings and names, read from the source: no module is imported."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"manigeo": ROOT / "manigeo", "manigeo_extract": ROOT / "extract" / "manigeo_extract"}
FRAGMENT = re.compile(r"(Of|What|Where|How|Whether|From|That|Those|Which)\b")
pytestmark = pytest.mark.skipif(not PACKAGES["manigeo"].is_dir(), reason="needs the sources of a checkout")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def documented(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and docstring of every module, class and function."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, Documented) else None
            if text:
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'module')}", text


def definition(package: str, module: str, name: str) -> ast.AST:
    """Module, class, function or constant that ``name`` means in ``module``, which may import it from another."""
    path = PACKAGES[package].joinpath(*module.split(".")[1:])
    if (path / f"{name}.py").is_file():
        return ast.parse((path / f"{name}.py").read_text("utf-8"))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            assert node.module is not None
            return definition(package, node.module, name)
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        if name in {getattr(target, "name", getattr(target, "id", None)) for target in targets}:
            return node
    raise LookupError(f"{module} has no {name}")


def public(package: str) -> dict[str, Documented]:
    """Public names that can have a docstring; a constant has none."""
    stub = ast.parse((PACKAGES[package] / "__init__.pyi").read_text("utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    modules = {alias.name: ".".join(filter(None, [package, node.module])) for node in imports for alias in node.names}
    found = {name: definition(package, module, name) for name, module in modules.items()}
    return {name: node for name, node in found.items() if isinstance(node, Documented)}


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_a_noun_or_a_verb(package):
    texts = list(documented(PACKAGES[package]))
    assert len(texts) > 300
    assert [place for place, text in texts if FRAGMENT.match(text)] == []


@pytest.mark.parametrize(("package", "at_least"), [("manigeo", 25), ("manigeo_extract", 10)])
def test_every_public_name_has_an_example(package, at_least):
    names = public(package)
    assert len(names) >= at_least
    assert [name for name, node in names.items() if ">>>" not in (ast.get_docstring(node) or "")] == []


def test_names_of_tests_are_under_eighty_characters():
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("test_*.py")]
    functions = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names = [name for name in functions if name.startswith("test_")]
    assert len(names) > 500
    assert [name for name in names if len(name) >= 80] == []
