"""The pages: they are built without a warning, are complete and whole, need no network."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

import manigeo
import manigeo_extract
from manigeo.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
MISSING = [name for name in ("sphinx", "myst_nb", "furo", "math_core") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(not GUIDE.is_dir(), reason="needs the folder docs/ of a checkout")


class Page(HTMLParser):
    """What a page holds: places that can be linked to, links, what it loads, and its text."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.loads, self.text = path, set(), [], [], ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") not in ("index", "search", "next", "prev"):
            self.loads.append(given["href"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Every page by its name; a process of its own, since Sphinx has settings and warnings of its own."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}: the group docs of pyproject.toml")
    at = tmp_path_factory.mktemp("docs")
    words = ["-q", "-W", "--keep-going", "-b", "html", "-d", at / "doctrees", ROOT / "docs", at / "html"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    built = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, env=environment)
    assert (built.returncode, built.stderr) == (0, "")
    found = sorted((at / "html").rglob("*.html"))
    return {path.relative_to(at / "html").as_posix().removesuffix(".html"): Page(path) for path in found}


def target(page, link):
    """The file that a relative link leads to, and the place in it."""
    parts = urlsplit(link)
    return (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path, unquote(parts.fragment)


def test_every_public_name_is_listed_and_leads_to_its_description(pages):
    listed = pages["api/index"]
    places = {link.rpartition("#")[2].rpartition(".")[2].rpartition("-")[2]: link for link in listed.links}
    public = [f"{package.__name__}.{name}" for package in (manigeo, manigeo_extract) for name in package.__all__]
    assert [name for name in public if name not in listed.text] == []
    assert {name for name in public if name.rpartition(".")[2] not in places} == {"manigeo.KINDS"}  # four words, there


def test_every_command_is_described_with_every_option(pages):
    described = [page for name, page in pages.items() if name.startswith("commands/")]
    for name in COMMANDS:
        (page,) = (page for page in described if f"manigeo-{name}" in page.ids)
        command = cli.get_command(click.Context(cli), name)
        missing = [
            word for option in command.params for word in option.opts if word[0] == "-" and word not in page.text
        ]
        assert missing == [], name


def test_every_notebook_has_a_page_with_its_figures(pages):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        figures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
        assert len([name for name in pages[f"notebooks/{path.stem}"].loads if name.endswith(".png")]) == figures


def test_every_link_leads_to_a_place_that_is_there(pages):
    files = {page.path.resolve(): page for page in pages.values()}
    lost = []
    for name, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            path, place = target(page, link)
            if not path.is_file() or (place and place not in files[path.resolve()].ids | {"top"}):
                lost.append((name, link))
    assert lost == []


def test_nothing_is_loaded_that_is_not_there_or_comes_from_a_network(pages):
    lost = [
        (name, what)
        for name, page in pages.items()
        for what in page.loads
        if not what.startswith("data:") and (urlsplit(what).netloc or not target(page, what)[0].is_file())
    ]
    assert lost == []


def test_no_style_or_script_names_an_address_to_load_from(pages):
    folder = pages["index"].path.parent / "_static"
    loading = re.compile(r"@import|url\(\s*['\"]?(https?:)?//|(import|fetch)\(\s*['\"]https?:")
    assert [path.name for path in folder.rglob("*.[cj]ss*") if loading.search(path.read_text("utf-8"))] == []


def test_equations_are_drawn_by_the_browser(pages):
    written = pages["api/solvers"].path.read_text("utf-8")
    assert "<math" in written
    assert not re.search(r"\\(frac|langle|tfrac|math)", re.sub(r"<pre>.*?</pre>", "", written, flags=re.DOTALL))


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_pages_are_quiet_and_as_wide_as_the_window(pages, width, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    complaints, wide = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        window = {"width": width, "height": 850}
        page = browser.new_context(viewport=window, color_scheme=scheme, offline=True).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        for name, built in pages.items():
            page.goto(built.path.as_uri())
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wide.append(name)
        browser.close()
    assert (complaints, wide) == ([], [])
