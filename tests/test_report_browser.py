"""The report in a real browser: headless Chromium, where the machine has one."""

import re
import shutil

import pandas as pd
import pytest

from manigeo.plots import plot_depth
from manigeo.report import collect_sources, render_page, write_page
from manigeo.results import read_results, write_results
from tests.drawn import TABLES
from tests.test_report import NASTY, folder_of_run, geometry, movement, table_of_examples, with_examples

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    at = tmp_path_factory.mktemp("report")
    folder_of_run(
        at, capacity=geometry(layers=12), weights=movement(), nasty=geometry(layer=NASTY, layers=1, run=NASTY)
    )
    write_page(render_page(collect_sources([at])), at / "report.html")
    return at / "report.html"


@pytest.fixture
def open_page(browser, report):
    """Opens the report in a window of one's own; at the end nothing may have been complained of, or asked from a network."""
    complaints, contexts = [], []

    def opened(width=1280, script=True, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 850}, java_script_enabled=script, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url) if request.url[:5] not in ("file:", "data:", "blob:") else None
            ),
        )
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def column(table, name):
    """What a column of numbers sorts by, down the page."""
    return table.evaluate(
        """(table, name) => {
            const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
            return [...table.tBodies[0].rows].map((row) => row.cells[heads.indexOf(name)].dataset.v);
        }""",
        name,
    )


def first_table(page):
    return page.locator("table.sortable").first


def test_it_opens_without_complaint(open_page):
    page = open_page()
    assert page.title().startswith("Memorization in ")
    assert page.locator("main svg").count() >= 2


def test_a_click_on_a_heading_sorts_and_another_turns_the_order_round(open_page):
    page = open_page()
    table = first_table(page)
    heading = table.locator("th", has_text="permuted").last
    for direction in ("ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == direction
        values = [float(text) for text in column(table, "permuted") if text]
        assert len(values) > 10
        assert values == sorted(values, reverse=direction == "descending")
        assert column(table, "permuted")[len(values) :] == [""] * (len(column(table, "permuted")) - len(values))


def test_layers_sort_by_depth_and_not_by_the_alphabet(open_page):
    table = first_table(open_page())
    table.locator("th button", has_text="layer").click()
    depths = [float(text) for text in column(table, "layer")]
    assert depths == sorted(depths)
    assert 11.0 in depths


def test_the_keyboard_sorts_too_and_the_first_stop_skips_to_the_answer(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    table = first_table(page)
    table.locator("th button", has_text="test").focus()
    page.keyboard.press("Enter")
    values = [float(text) for text in column(table, "test") if text]
    assert values == sorted(values)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_download_is_the_table_that_the_report_was_made_from(open_page, report, tmp_path):
    page = open_page(accept_downloads=True)
    with page.expect_download() as waiting:
        page.locator("a.download", has_text="capacity").click()
    assert waiting.value.suggested_filename == "capacity.csv"
    waiting.value.save_as(tmp_path / "capacity.csv")
    assert read_results(tmp_path / "capacity.csv").equals(read_results(report.parent / "capacity.csv"))


def test_without_scripts_all_is_there_and_the_download_is_the_compressed_file(open_page):
    page = open_page(script=False)
    assert page.locator("a.download", has_text="capacity").get_attribute("download") == "capacity.csv.gz"
    assert page.locator(".drawing svg title").count() > 50
    assert not page.locator(".script-only").first.is_visible()


def test_the_pointer_and_the_arrow_keys_tell_the_values_of_points(open_page):
    page = open_page()
    drawing = page.locator(".drawing").first
    drawing.scroll_into_view_if_needed()
    box = drawing.locator(".point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert re.fullmatch(r"h0 · unpermuted · .*\ncapacity 0\.1\d+ ± 0\.010", page.locator("#tip").text_content())
    assert page.locator("#tip").is_visible()
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()
    drawing.focus()
    texts = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        texts.append(page.locator("#tip").text_content())
    assert len(set(texts)) == 3
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_makes_the_page_scroll_sideways(open_page, width):
    page = open_page(width=width)
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_figure_of_seven_layers_fits_a_telephone(browser, tmp_path):
    one, layers = TABLES["depth"], [f"conv{k}" for k in range(7)]
    profile = one[one["metric"] == "profile"].drop_duplicates("method" if "method" in one else "settings")
    seven = pd.concat([profile.assign(layer=name, depth=k, value=1 / 7) for k, name in enumerate(layers)])
    write_results(pd.concat([seven, one[one["metric"] != "profile"]]), tmp_path / "localize.csv")
    write_page(render_page(collect_sources([tmp_path])), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 390, "height": 850})
    page.goto((tmp_path / "report.html").as_uri())
    drawing = page.locator(".drawing").first
    assert drawing.locator("svg").get_attribute("id") == "depth-svg"
    wide, shown = drawing.evaluate("(it) => [it.scrollWidth, it.clientWidth]")
    page.close()
    assert wide <= shown
    assert plot_depth(read_results(tmp_path / "localize.csv")).axes[0].get_xlim() == (0, 7)


def contrast(page, selector):
    """Of the text of an element with the page, as Chromium has computed the colours."""
    from manigeo.report.colors import contrast as of

    colors = page.evaluate(
        """(selector) => [
            getComputedStyle(document.querySelector(selector)).color, getComputedStyle(document.body).backgroundColor
        ]""",
        selector,
    )
    channels = ([int(part) for part in color[4:-1].split(",")[:3]] for color in colors)
    return of(*("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in channels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page, scheme):
    page = open_page(color_scheme=scheme)
    for selector in ("p", "nav a", "figcaption", "small", "thead th", ".pass"):
        assert contrast(page, selector) >= 4.5, selector


def test_in_the_dark_figures_are_dark_too_and_on_paper_they_are_light(open_page):
    page = open_page(color_scheme="dark")
    paper = "getComputedStyle(document.querySelector('.drawing svg path')).fill"
    assert page.evaluate(paper) == "rgb(20, 23, 26)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"


def test_it_prints(open_page, tmp_path):
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("figure").first.is_visible()
    assert page.pdf().startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#provenance dd").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#provenance details[open]").count() == 0


def test_the_table_of_examples_shows_the_rows_with_every_word_typed(browser, tmp_path):
    kinds = ["permuted", "unpermuted", "permuted"]
    page = browser.new_page()
    write_page(
        render_page(collect_sources([with_examples(tmp_path, table_of_examples(3, kind=kinds))])), tmp_path / "a.html"
    )
    page.goto((tmp_path / "a.html").as_uri())
    rows, field = page.locator("table.filtered tbody tr"), page.locator("input[type=search]")
    for typed, left in (("", 3), ("permuted", 2), ("Perm 2", 1), ("nothing", 0)):
        field.fill(typed)
        assert rows.filter(visible=True).count() == left
    assert page.locator("output").inner_text() == "0 of 3"
    page.close()
