"""The report of tables whose names are hostile: they stand there as text, whole, and nothing of them is markup or runs."""

import gzip
import io
import re
from base64 import b64decode

import pandas as pd
import pytest

from manigeo.report import collect_sources, render_page, write_page
from manigeo.results import COLUMNS, read_results, write_results
from tests.test_report import NASTY, Elements, check_nothing_new, geometry, page_of, small
from tests.test_report_browser import CHROMIUM

HOSTILE = {
    "markup": NASTY,
    "end of a script": "</script><script>window.ran = 1</script>",
    "end of a comment": "--><svg onload=window.ran=1>",
    "end of a title": "</title></svg><img src=x onerror=window.ran=1>",
    "end of an attribute": "\" ' ` onmouseover=window.ran=1 x=",
    "address": "javascript:window.ran=1",
    "character data": "]]><script>window.ran=1</script>",
    "formula of TeX": r"$\frac{1}{2}$ $ \ {} \input{/etc/passwd}",
    "formula of a spreadsheet": '=HYPERLINK("http://x","y")',
    "lines": "one\ntwo\r\nthree\ttab",
    "right to left": "\u202egpj.exe\u2066\u200f",
    "long": "<b>" + "x" * 10_000,
    "placeholder": "{{ 7*7 }}{% raw %}${7*7}",
    "references": "&lt;script&gt;&#x3c;",
}
TEXTS = ("run", "checkpoint", "layer", "kind", "manifold", "metric", "flag")


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Elements:
    folder = tmp_path_factory.mktemp("clean")
    write_results(small(), folder / "t.csv")
    return Elements(page_of(folder))


@pytest.mark.parametrize("what", HOSTILE)
def test_no_hostile_name_of_anything_becomes_markup_and_every_one_can_be_read(tmp_path, clean, what):
    name = HOSTILE[what]
    write_results(small(**dict.fromkeys(TEXTS, name)), tmp_path / "t.csv")
    page = page_of(tmp_path)
    found = Elements(page)
    check_nothing_new(clean, found)
    assert "".join(name.split()) in "".join(found.text.split())
    assert not [
        a for _, a in found.found if a.get("href", "#")[:5] not in ("#", "data:") and a.get("href", "#")[0] != "#"
    ]
    assert not re.search(r"\bon\w+=", "".join(re.findall(r"<[a-z][^>\"']*(?=[>\"'])", page)))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_table_of_hostile_names_comes_out_of_the_report_as_it_went_in(tmp_path, what):
    table = small(**dict.fromkeys(TEXTS, HOSTILE[what]))
    write_results(table, tmp_path / "t.csv")
    elements = Elements(page_of(tmp_path))
    (address,) = [a["href"] for a in elements.of("a") if a.get("href", "").startswith("data:application/gzip")]
    found = gzip.decompress(b64decode(address.partition(",")[2]))
    assert found == (tmp_path / "t.csv").read_bytes()
    pd.testing.assert_frame_equal(read_results(tmp_path / "t.csv"), table)
    assert list(pd.read_csv(io.BytesIO(found)).columns) == list(COLUMNS)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_no_hostile_name_runs_in_a_browser(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    for i, name in enumerate(HOSTILE.values()):
        table = geometry(layers=1, layer=name, run=name, flag=name, kind=name if i % 2 else "test")
        one_kind = table.drop_duplicates(["checkpoint", "metric", "manifold"])
        write_results(one_kind, tmp_path / f"{i}.csv")
    write_page(render_page(collect_sources([tmp_path])), tmp_path / "report.html")
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
        page.goto((tmp_path / "report.html").as_uri())
        drawing = page.locator(".drawing").first
        drawing.focus()
        for _ in range(5):  # the texts of points
            page.keyboard.press("ArrowRight")
        assert page.evaluate("window.ran === undefined && document.scripts.length === 1 && document.images.length >= 0")
        assert page.locator("main img[src='x']").count() == 0
        browser.close()
    assert complaints == []
