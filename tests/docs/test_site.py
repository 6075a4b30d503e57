"""The pages as they are built, in a browser: search, headings under the bar, widths."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.browser import running_browser

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
WIDTHS = 1400, 400
SHOWN = "return document.querySelectorAll('#search-results li').length > 0"
RESULTS = "return [...document.querySelectorAll('#search-results li')].map(row => row.querySelector('a').textContent)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built with warnings as errors, from a folder that may be written into."""
    built = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-d", built / "trees", DOCS, built / "html"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return built / "html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with running_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.mark.parametrize("word", ["LI", "GGO", "MAP", "slab", "HU"])
def test_search_for_a_term_finds_the_glossary(site, browser, word):
    browser.open(site / "search.html", f"?q={word}")
    browser.wait(SHOWN)
    assert "Glossary" in browser.run(RESULTS)[:10]


def test_first_mention_of_a_term_leads_to_its_definition(site, browser):
    browser.open(site / "method.html")
    assert browser.run("return document.querySelector('a[href=\"glossary.html#term-HU\"]') !== null")


def test_page_of_the_notebook_shows_its_tables_and_figures(site, browser):
    browser.open(site / "notebook.html")
    assert browser.run("return document.querySelectorAll('table.dataframe tbody tr').length") == 6
    widths = browser.run("return [...document.querySelectorAll('img[src^=data]')].map((image) => image.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 300
    assert browser.run("return document.querySelectorAll('.rubric').length") == 4


def test_heading_that_a_link_leads_to_is_below_the_bar(site, browser):
    browser.open(site / "store.html", "#one-writer")
    top = "return document.querySelector('#one-writer h2').getBoundingClientRect().top"
    bar = "return document.querySelector('.bd-header').getBoundingClientRect().bottom"
    browser.wait(f"return (() => {{ {top} }})() < innerHeight")
    assert browser.run(top) >= browser.run(bar)


def test_no_page_is_wider_than_the_window(site, browser):
    pages = [path for path in sorted(site.rglob("*.html")) if not {"_static", "_sources"} & set(path.parts)]
    assert len(pages) > 60
    wide = []
    for page in pages[::3]:
        browser.open(page)
        for width in WIDTHS:
            browser.resize(width, 900)
            if browser.run("return document.documentElement.scrollWidth > innerWidth"):
                wide.append((page.name, width))
    assert wide == []


def test_menu_fits_a_window_of_1400_pixels(site, browser):
    browser.open(site / "tutorial.html")
    right = (
        "return Math.max(...[...document.querySelectorAll('.bd-header a')].map(a => a.getBoundingClientRect().right))"
    )
    assert 0 < browser.run(right) <= 1400
    names = "return [...document.querySelectorAll('.bd-header .navbar-nav a')].map(a => a.textContent.trim())"
    assert browser.run(names)[:4] == ["Start", "How-to guides", "Concepts", "Reference"]


def test_home_page_has_a_picture(site, browser):
    browser.open(site / "index.html")
    assert browser.run("return document.querySelector('.bd-article img')?.naturalWidth ?? 0") > 0


@pytest.mark.parametrize("page", ["index", "tutorial", "glossary", "commands/run", "design/index", "howto/cite"])
def test_sidebar_that_takes_room_has_entries(site, browser, page):
    browser.open(site / f"{page}.html")
    sidebar = "document.querySelector('.bd-sidebar-primary')"
    width = browser.run(f"return {sidebar}?.getBoundingClientRect().width ?? 0")
    links = browser.run(f"return {sidebar}?.querySelectorAll('.bd-links a').length ?? 0")
    assert links > 2 or width < 10
    assert width < 300
