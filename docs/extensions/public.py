"""``public-names``, ``words-of``, ``figure-of``: what is written by the code itself."""

import importlib
import inspect
import pkgutil
from types import ModuleType

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from manigeo.vocabulary import FIGURES


def defined_as(name: str) -> tuple[str, str]:
    """The kind of object, and the full name it has where it is defined, of a public name such as ``manigeo.theory``."""
    found = pkgutil.resolve_name(name)
    if isinstance(found, ModuleType):
        return "mod", found.__name__
    if callable(found):
        return "class" if isinstance(found, type) else "func", f"{found.__module__}.{found.__qualname__}"
    return "data", f"manigeo.kinds.{name.rpartition('.')[2]}"


class PublicNames(SphinxDirective):
    """Public names, ``package.name`` each on a line, with their sentences and links to the rest."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [table([[self.linked(name), self.said(name)] for name in self.content if name.strip()])]

    def linked(self, name: str) -> nodes.Node:
        kind, target = defined_as(name)
        link = addnodes.pending_xref(
            "", nodes.literal("", name), refdomain="py", reftype=kind, reftarget=target, refwarn=True
        )
        return nodes.paragraph("", "", link)

    def said(self, name: str) -> nodes.Node:
        parsed, messages = self.parse_inline(sentence(pkgutil.resolve_name(name)), lineno=self.lineno)
        return nodes.paragraph("", "", *parsed, *messages)


def sentence(found: object) -> str:
    """First sentence of a docstring; the words themselves of a tuple of words."""
    if isinstance(found, tuple):
        return " ".join(map(str, found))
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())


class WordsOf(SphinxDirective):
    """A dictionary of words, ``package.module:NAME``, as a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, name = self.arguments[0].split(":")
        words = getattr(importlib.import_module(module), name)
        rows = [
            [nodes.paragraph("", "", nodes.literal("", key)), nodes.paragraph("", said)] for key, said in words.items()
        ]
        return [table(rows)]


class FigureOf(SphinxDirective):
    """A figure of the gallery by its name, what is seen in it, and how to read it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        words = FIGURES[name]
        image = nodes.image(uri=f"_static/gallery/{name}.png", alt=words.line)
        return [image, nodes.paragraph("", words.seen), nodes.paragraph("", words.read)]


def table(rows: list[list[nodes.Node]]) -> nodes.Node:
    body = nodes.tbody("", *(nodes.row("", *(nodes.entry("", cell) for cell in row)) for row in rows))
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in rows[0]), body, cols=len(rows[0]))
    return nodes.table("", group, classes=["colwidths-auto"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("words-of", WordsOf)
    app.add_directive("figure-of", FigureOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
