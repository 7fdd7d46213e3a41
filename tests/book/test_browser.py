"""The pages in a real browser, served from this machine: light and dark, wide and narrow."""

import functools
import http.server
import json
import threading

import pytest

PAGES = (
    "book/index.html",
    "book/setup.html",
    "book/notation.html",
    "book/references.html",
    "notebooks/toy.html",
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(book):
    handler = functools.partial(Quiet, directory=str(book.html))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, site):
    """Open a page in a theme and at a width; what earlier pages logged is forgotten."""

    def open_page(page, theme="light", width=1280):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        browser.get(f"{site}/{page}")
        browser.execute_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}');"
        )
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(f"{site}/{page}")
        # formulas are typeset last
        browser.set_script_timeout(60)
        browser.execute_async_script(
            "const done = arguments[0];"
            "if (!window.MathJax || !MathJax.startup) done();"
            "else MathJax.startup.promise.then(() => done());"
        )
        assert browser.execute_script("return document.documentElement.dataset.theme") == theme
        return browser

    return open_page


@pytest.mark.parametrize("page", PAGES)
def test_no_errors_and_no_request_leaves_this_machine(visit, site, page):
    driver = visit(page)
    errors = [
        entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]
    assert errors == []
    outside, own = [], 0
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if url.startswith(site):
                own += 1
            elif not url.startswith(("data:", "blob:", "chrome:", "about:")):
                outside.append(url)
    assert own > 3
    assert outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_theme_shows_its_figures(visit, theme):
    driver = visit("notebooks/toy.html", theme)
    shown = driver.execute_script(
        "return [...document.querySelectorAll('figure .passgrad-bundle')].map(bundle =>"
        " [...bundle.querySelectorAll('img')].map(i =>"
        " [i.classList.contains('only-light') ? 'light' : 'dark', i.offsetWidth, i.naturalWidth]))"
    )
    assert shown
    for images in shown:
        visible = [kind for kind, width, _ in images if width > 200]
        assert visible == [theme]
        assert all(natural > 0 for _, _, natural in images)


def test_dark_figures_have_no_light_card(visit):
    driver = visit("notebooks/toy.html", "dark")
    grounds = driver.execute_script(
        "return [...document.querySelectorAll('figure .passgrad-bundle img.only-dark')].map(i => {"
        " const found = []; for (let e = i; e && e.tagName != 'BODY'; e = e.parentElement) {"
        " const c = getComputedStyle(e).backgroundColor;"
        " if (c != 'rgba(0, 0, 0, 0)') { found.push(c); break; } }"
        " return found[0] || getComputedStyle(document.body).backgroundColor; })"
    )
    assert set(grounds) == {"rgb(20, 24, 30)"}  # figures.GROUNDS["dark"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(visit, page, width):
    driver = visit(page, "light", width)
    total, screen = driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert total <= screen
    wide = driver.execute_script(
        "return [...document.querySelectorAll('.bd-article > section > *, .prev-next-area')]"
        ".filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)"
        ".map(e => e.tagName + '.' + e.className)"
    )
    assert wide == []


def test_formulas_are_typeset(visit):
    driver = visit("book/notation.html")
    count, failed, left = driver.execute_script(
        "return [document.querySelectorAll('mjx-container').length,"
        " document.querySelectorAll('[data-mml-node=merror]').length,"
        " [...document.querySelectorAll('span.math')]"
        ".filter(e => !e.querySelector('mjx-container')).length]"
    )
    assert count > 20
    assert failed == 0
    assert left == 0
