"""Notebooks and the README stand outside the pages' folder: the former are brought into it, links of the latter turned.

The copies are in docs/notebooks, which git ignores. A notebook that is new gets its page without being named anywhere.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

# where a link in the README, or in a notebook, leads to in the pages
LINKS = {
    "](notebooks/": "](/notebooks/",
    "](../README.md": "](/guide/numbers.md",
    "](../docs/": "](/",
    "](manigeo/activations/__init__.py)": "](/guide/files.md#activations)",
    "](manigeo/results.py)": "](/guide/files.md#results)",
    "](extract/manigeo_extract/recorder.py)": "](/guide/files.md#runs)",
    "](extract/manigeo_extract/trajectory.py)": "](/api/networks.rst)",
    "](docs/": "](/",
    "](extract)": "](/api/index.rst)",
    "](CITATION.cff)": "](/citation.md)",
}


def bring(app: Sphinx, config: Config) -> None:
    """Copy what has changed; an unchanged notebook keeps its date, and is not read again."""
    target = Path(app.srcdir, "notebooks")
    target.mkdir(exist_ok=True)
    sources = {path.name: path.read_bytes() for path in Path(app.srcdir).parent.glob("notebooks/*.ipynb")}
    for stale in {path.name for path in target.iterdir()} - set(sources):
        (target / stale).unlink()
    for name, content in sources.items():
        copy = target / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.write_bytes(content)


def turn_links(app: Sphinx, *where: object) -> None:
    """Turn the links of a text in Sphinx's hands, a list of one string: the events source-read and include-read."""
    content = where[-1]
    assert isinstance(content, list)
    for before, after in LINKS.items():
        content[0] = content[0].replace(before, after)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", bring)
    app.connect("source-read", turn_links)
    app.connect("include-read", turn_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
