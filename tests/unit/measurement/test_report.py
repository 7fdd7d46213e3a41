import base64
import hashlib
import itertools
import json
import math
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from passgrad.errors import UserError
from passgrad.measurement.report import (
    CurveRow,
    LayerRow,
    PromptRow,
    ReportContent,
    charts,
    render_report,
    write_report,
)
from passgrad.measurement.report import render as rendering
from passgrad.measurement.report import text as texts
from passgrad.stats import Interval
from passgrad_book.build import figures

NAN, INF = math.nan, math.inf
KS = (1, 2, 4, 8, 16)

HOSTILE = {
    "script": "</script><script>window.hacked = 1</script>",
    "style": "</style><style>body{display:none}</style>",
    "pre": "</pre></details></td></table></main><iframe src='//example.org'></iframe>",
    "attribute": '" onmouseover="window.hacked = 1" x=\'',
    "title": "</title></svg><img src=x onerror='window.hacked = 1'>",
    "comment": "<!-- <script> <![CDATA[ ]]> -->",
    "template": "{{ 7 * 7 }}{% for x in y %} ${1+1} &lt;b&gt; &#x3c;",
    "address": "javascript:window.hacked=1",
    "control": "nul \x00 bell \x07 escape \x1b[31m delete \x7f next \x85",
    "direction": "right \u202eevil\u202c left \u2066 \u200f mark \ufeff zero\u200bwidth",
    "surrogate": "alone \ud800 and \udfff, \ufffe \U000e0041",
    "breaks": "\none\r\ntwo\rthree\u2028four",
}


def curve_row(k, value, width=0.1, **changes):
    cosine = Interval(changes.pop("cosine", NAN))
    ends = {"low": value - width, "high": value + width}
    band = {"band_low": value - 2 * width, "band_high": value + 2 * width}
    return CurveRow(k, Interval(value, **(ends | band | changes)), cosine)


def layer_row(name, value, kind="layer", cosine=NAN, metric="plain", **ends):
    return LayerRow(name, Interval(value, **ends), kind, cosine, metric)


def prompt_row(place, **changes):
    settings = {
        "id": f"p{place}",
        "prompt": f"What is {place} + 1?",
        "num_samples": 8,
        "num_correct": place % 9,
        "agreement": 0.1 * (place % 5) - 0.15,
        "agreement_error": 0.02,
        "contribution": 0.01 * (place % 5) - 0.015,
        "group": "sums",
        "right": f"It is {place + 1}.",
        "wrong": "It is 0.",
    }
    return PromptRow(**(settings | changes))


def content(**changes):
    settings = {
        "verdict": "A small step along grad J_k lowers pass@1 for k = 8, 16.",
        "curve": [curve_row(k, 1.0 - 0.45 * i, cosine=1 - 0.4 * i) for i, k in enumerate(KS)],
        "prompts": [prompt_row(i) for i in range(12)],
        "chosen_k": 8,
        "threshold": Interval(6.3, low=4, high=8),
        "layers": [layer_row("embedding", 0.3), layer_row("block 0", -0.1), layer_row("out", -0.3)],
        "settings": {"temperature": 1.0, "engine": "vllm"},
        "provenance": {"model": "a/b", "versions": {"torch": "2.9"}, "seed": 0},
        "not_measured": ["Large steps."],
        "warnings": ["The engine is quantised."],
    }
    return ReportContent(**(settings | changes))


def hostile_content(text):
    """``text`` wherever a text can stand."""
    return content(
        verdict=text,
        title=text,
        prompts=[
            prompt_row(i, id=text, prompt=text, group=text, right=text, wrong=text)
            for i in range(12)
        ],
        layers=[
            layer_row(text, v, kind=text, low=-1, high=1, metric=metric)
            for v in (0.3, -0.1, -0.3)
            for metric in ("plain", text)
        ],
        settings={text: text, "nested": {text: [text]}},
        provenance={text: text},
        not_measured=[text],
        warnings=[text],
    )


def parsed(page):
    return BeautifulSoup(page, "html.parser")


def skeleton(page):
    """Elements with the names of their attributes, in order; the words around them left out."""
    return [(tag.name, tuple(tag.attrs)) for tag in parsed(page).find_all(True)]


def words(node):
    return " ".join(node.get_text(" ").split())


# --- what the page says ---------------------------------------------------------------------------


def test_page_has_its_parts_in_order():
    page = parsed(render_report(content()))
    assert page.html["lang"] == "en"
    assert words(page.find(class_="verdict")) == content().verdict
    headings = [words(h) for h in page.find_all("h2")]
    assert headings == [
        "Warnings",
        "The conflict curve",
        "Agreement against success rate",
        "Where in the model",
        "The prompts that pull against pass@1",
        "Sampling and provenance",
        "What was not measured",
    ]
    for name in ("header", "main", "footer", "title"):
        assert len(page.find_all(name)) >= 1
    assert "versions.torch" in words(page)
    assert "Large steps." in words(page)
    assert "The engine is quantised." in words(page)


def test_curve_and_its_table_show_every_k():
    page = parsed(render_report(content()))
    section = page.find(id="h-curve").parent
    rows = section.find("tbody").find_all("tr")
    assert [words(row.th) for row in rows] == [str(k) for k in KS]
    assert words(rows[0].find_all("td")[1]) == "0.9 to 1.1"
    assert words(rows[0].find_all("td")[2]) == "0.8 to 1.2"
    image = section.find("svg")
    assert len(image.find_all("g", class_="node")) == len(KS)
    # Powers of two at equal distances.
    ticks = {words(text): float(text["x"]) for text in image.find_all("text") if text.get("x")}
    steps = [ticks[str(b)] - ticks[str(a)] for a, b in itertools.pairwise(KS)]
    assert max(steps) - min(steps) < 0.3
    assert steps[0] > 20


def test_intervals_lie_within_the_band_and_zero_between_the_signs():
    chart = charts.curve_chart(content())
    band = [tuple(map(float, pair.split())) for pair in re.split("[ML]", chart.band[1:-1])]
    upper, lower = band[: len(KS)], band[len(KS) :][::-1]
    for point, high, low in zip(chart.points, upper, lower, strict=True):
        # Pixels count downwards.
        assert high[1] < point.high < point.y < point.low < low[1]
        assert (point.y > chart.zero) == point.against
    assert chart.x_mark[0] < chart.x_mark[1]


@pytest.mark.parametrize(
    ("bands", "tile"),
    [
        (
            [(0.1, 1), (-2, 0.5)],
            "open up to k = 8; the estimate crosses 0 at 6.3, within its error",
        ),
        ([(0.1, 1), (0.1, 0.5)], "none up to k = 8"),
        ([(-1, 1), (-2, -0.5)], "6.3 interval 4 to 8"),
        ([(-2, -1), (-2, 0.5)], "open up to k = 8;"),  # a squared norm below 0 is no conflict
    ],
)
def test_the_threshold_is_shown_where_the_band_shows_a_conflict(bands, tile):
    curve = [
        curve_row(k, 0.0, band_low=low, band_high=high)
        for k, (low, high) in zip((1, 8), bands, strict=True)
    ]
    page = parsed(render_report(content(curve=curve)))
    assert f"pass@1 starts to fall at k = {tile}" in words(page)


def test_the_page_says_what_to_do_next():
    page = parsed(render_report(content(next_step="Look again.", next_command="passgrad plan x")))
    assert page.find("p", class_="next").get_text() == "Next. Look again."
    assert page.find("pre", class_="next").get_text().strip() == "passgrad plan x"
    assert parsed(render_report(content())).find(class_="next") is None


def test_prompts_are_sorted_by_their_part_and_shares_add_up():
    page = parsed(render_report(content()))
    against, along = page.find_all("table", class_="prompts")
    rows = [row for row in against.find("tbody").find_all("tr") if row.get("id")]
    parts = [float(words(row.find_all("td")[2]).replace("−", "-")) for row in rows]
    assert parts == sorted(parts)
    assert max(parts) < 0
    shares = [float(words(row.find_all("td")[3]).rstrip("%")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares[0] == pytest.approx(100 * 0.015 / (3 * 0.015 + 3 * 0.005), abs=0.06)
    others = [row for row in along.find("tbody").find_all("tr") if row.get("id")]
    assert len(rows) + len(others) == 12


def test_many_prompts_against_are_folded_but_there():
    rows = [prompt_row(i, contribution=-1.0 - i) for i in range(50)]
    page = parsed(render_report(content(prompts=rows)))
    open_table, folded = page.find_all("table", class_="prompts")
    assert len(open_table.find_all("tr", id=True)) == rendering.FIRST_PROMPTS
    assert len(folded.find_all("tr", id=True)) == 50 - rendering.FIRST_PROMPTS
    assert words(folded.find_parent("details").summary).startswith("30 more")
    assert words(open_table.find("tr", id=True).th).startswith("p49")


def test_without_parts_prompts_are_sorted_by_agreement():
    rows = [prompt_row(i, contribution=NAN) for i in range(12)]
    page = parsed(render_report(content(prompts=rows)))
    assert "were not measured" in words(page.find(id="h-prompts").parent)
    first = page.find("table", class_="prompts").find("tbody").tr
    assert words(first.find_all("td")[1]).startswith("−0.15")


def test_every_point_leads_to_the_row_with_its_texts():
    page = parsed(render_report(content()))
    points = page.find(id="cloud").find_all("a")
    assert len(points) == 12
    assert [p["tabindex"] for p in points].count("0") == 1
    for point in points:
        row = page.find(id=point["href"][1:])
        name = words(row.th).split()[0]
        assert point.title.get_text().startswith(f"{name}: success {words(row.td)}")
        assert f"What is {name[1:]} + 1?" in row.find_next_sibling("tr").pre.get_text()


def test_prompt_without_right_answers_is_kept_and_explained():
    rows = [prompt_row(0, right=None, agreement=0.0, agreement_error=0.0), prompt_row(1)]
    page = parsed(render_report(content(prompts=rows)))
    assert "1 of 2 prompts have no right answer" in words(page)
    headings = [words(h) for h in page.find_all("h4")]
    assert headings.count("A right answer") == 1
    # An error of 0 tells nothing, and is not counted as certainty.
    counts = rendering._counts(content(prompts=[prompt_row(0, agreement_error=0.0)]), 1.96)
    assert (counts["against"], counts["beyond"]) == (1, 0)


def test_layers_that_conflict_come_with_their_share():
    page = parsed(render_report(content()))
    table = page.find(id="h-layers").parent.find("table")
    rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in table.tbody("tr")]
    assert rows == [["out", "−0.3", "75.0%"], ["block 0", "−0.1", "25.0%"]]
    assert "negative in 2 of 3" in page.find(id="h-layers").parent.svg["aria-label"]


def measured_layers():
    """Two layers, one reading of the final one and the whole, in two metrics."""
    return [
        layer_row(
            name,
            value * scale,
            kind,
            0.2,
            metric,
            low=value * scale - 1,
            high=value * scale + 1,
            band_low=-9,
            band_high=9,
        )
        for metric, scale in (("plain", 1.0), ("adam", -3.0))
        for kind, name, value in (
            ("whole", "all parameters", -0.25),
            ("layer", "block 0", -0.5),
            ("layer", "block 1", 0.25),
            ("final", "final norm gain", 0.125),
        )
    ]


def test_layers_in_two_metrics_with_their_intervals():
    section = parsed(render_report(content(layers=measured_layers()))).find(id="h-layers").parent
    titles = ["All parameters", "By layer", "What the final layer may be"]
    assert [words(h) for h in section("h3")] == [f"{title}, at k = 8" for title in titles]
    captions = [words(caption) for caption in section("caption")]
    assert [c.split(".")[0] for c in captions] == ["Metric: plain", "Metric: adam"] * 3
    tables = [
        [[words(cell) for cell in row.find_all(["th", "td"])] for row in table.tbody("tr")]
        for table in section("table")
    ]
    assert tables[2] == [
        ["block 0", "−0.5", "−1.5 to 0.5", "−9 to 9", "0.2"],
        ["block 1", "0.25", "−0.75 to 1.25", "−9 to 9", "0.2"],
    ]
    assert tables[3][1][:2] == ["block 1", "−0.75"]
    # A band over one is no band.
    assert tables[0] == [["all parameters", "−0.25", "−1.25 to 0.75", "0.2"]]
    assert tables[4] == [["final norm gain", "0.125", "−0.875 to 1.12", "0.2"]]
    figures = [words(caption) for caption in section("figcaption")]
    # The whole and the readings are no division, and of no scale that a figure could share.
    assert len(figures) == 2
    assert all("add up to the whole" in text for text in figures)
    assert all("interval of each by itself" in text for text in figures)
    assert len(section("path", class_="interval")) == 4
    assert "another" in words(section.p)


def test_the_lowest_of_many_layers():
    rows = [layer_row(f"block {i}", 1.0 * i, low=-1.0, high=9.0) for i in range(14, 0, -1)]
    section = parsed(render_report(content(layers=rows))).find(id="h-layers").parent
    names = [words(row.th) for row in section.table.tbody("tr")]
    assert names == [f"block {i}" for i in range(1, 11)]
    assert words(section.caption) == "The 10 lowest: 0 of 14 are negative"


def test_one_metric_has_no_word_about_metrics():
    some = [row for row in measured_layers() if row.metric == "plain"]
    page = words(parsed(render_report(content(layers=some))).find(id="h-layers").parent)
    assert "metric" not in page.lower()
    assert "the 95% interval of each by itself" in page


def test_intervals_leave_room_for_the_bars():
    rows = [layer_row("a", 1.0, low=-INF, high=INF), layer_row("b", -1.0, low=-500.0, high=2.0)]
    bars = charts.bar_chart(rows, "layer", 2).bars
    assert all(bar.width > 20 for bar in bars)
    assert bars[0].low == bars[1].low < bars[1].x < bars[1].high == bars[0].high
    unknown = charts.bar_chart([layer_row("a", 1.0, low=NAN, high=2.0)], "layer", 2).bars[0]
    assert unknown.low == unknown.high


def test_little_is_enough():
    small = ReportContent("Nothing is known.", [curve_row(2, 0.0, 0.0)], [prompt_row(1)], 2)
    page = parsed(render_report(small))
    assert "did not divide the inner product by layer" in words(page)
    assert page.find("section", class_="warnings") is None


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_unknown_and_open_numbers_reach_no_coordinate(value):
    rows = [curve_row(1, 1.0, band_low=value, band_high=value, low=value, cosine=value)]
    rows.append(CurveRow(8, Interval(*[value] * 6), Interval(*[value] * 6)))
    prompts = [prompt_row(1), prompt_row(2, agreement=value, contribution=value)]
    prompts.append(prompt_row(3, agreement_error=value))
    made = content(
        curve=rows,
        prompts=prompts,
        threshold=Interval(value, low=value, high=value),
        line=[(1, 1.0), (2, value)],
        layers=[
            layer_row("a", value, low=value, high=value, cosine=value),
            layer_row("b", 1.0, low=value, high=2.0, band_low=value),
        ],
    )
    page = parsed(render_report(made))
    for tag in page.find_all(["rect", "line", "path", "circle", "text", "svg"]):
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "d", "width", "height"):
            assert not re.search("nan|inf", str(tag.get(name, "")))
    assert not re.search(r"\b(nan|inf)\b", words(page.body.main))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curve": []}, "at least one k"),
        ({"prompts": []}, "at least one prompt"),
        ({"chosen_k": 3}, "chosen_k = 3 is not in the curve"),
        ({"curve": [curve_row(8, 0.1), curve_row(8, 0.2)]}, "twice"),
        ({"curve": [curve_row(0, 0.1)]}, "at least 1"),
        ({"level": 1.0}, "level"),
        ({"prompts": [prompt_row(1, num_correct=9)]}, "9 right answers out of 8"),
        ({"prompts": [prompt_row(0, num_samples=0)]}, "out of 0"),
    ],
)
def test_content_that_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        content(**changes)


# --- texts from outside ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_adds_no_element_and_no_attribute(name):
    page = render_report(hostile_content(HOSTILE[name]))
    assert skeleton(page) == skeleton(render_report(hostile_content("harmless")))
    page.encode()  # no surrogate is left
    tree = parsed(page)
    assert len(tree.find_all("script")) == len(tree.find_all("style")) == 1
    assert not tree.find_all(["iframe", "img", "object", "embed", "form", "base"])
    shown = {pre.get_text().removeprefix("\n") for pre in tree.find_all("pre")}
    assert shown == {texts.visible(HOSTILE[name])}
    outside_pre = re.sub(r"[\n\t]", "", page)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069]",
                         outside_pre)  # fmt: skip


def test_what_cannot_be_seen_is_spelled_out():
    assert texts.visible("a\u202eb\x00c\ud800") == "a⟨U+202E⟩b⟨U+0000⟩c⟨U+D800⟩"
    assert texts.visible("a\r\nb\rc\td") == "a\nb\nc\td"
    kept = "Ünï ∇ 語 عربى 👩\u200d💻"
    assert texts.visible(kept) == kept
    assert texts.one_line("a \n\t b" + "x" * 100, 10) == "a bxxxxxx…"[:10].rstrip("…") + "…"


def test_texts_share_the_budget_evenly_and_short_ones_are_whole():
    long, short = "<" * 900, "short"
    found = texts.excerpts([long, short, None, long], budget=405)
    assert found[1].text == short
    assert not found[1].cut
    assert found[2] is None
    # 400 bytes are left for two texts at 4 bytes a character.
    assert [found[0].shown, found[3].shown] == [50, 50]
    assert found[0].cut
    assert texts.excerpts(["\x00" * 3], budget=12)[0].text == "⟨U+0000⟩"
    assert texts.excerpts(["ab"], budget=0)[0] == texts.Excerpt("", 2, 0)


def test_a_long_text_is_cut_with_a_note():
    page = parsed(render_report(content(prompts=[prompt_row(1, right="word " * 20_000)])))
    note = "Cut here: the first 4000 of 100000 characters are shown."
    assert [words(p) for p in page.find_all(class_="cut")] == [note]


@pytest.mark.parametrize("text", ["Think. " * 1000, "<&>\"'" * 20_000, "語\u202e" * 5_000])
def test_500_prompts_stay_below_a_megabyte(text):
    rows = [prompt_row(i, id=text, prompt=text, right=text, wrong=text) for i in range(500)]
    assert len(render_report(content(prompts=rows)).encode()) < 1_000_000


def test_of_very_many_prompts_the_weightiest_are_shown(monkeypatch):
    monkeypatch.setattr(rendering, "MAX_PROMPTS", 4)
    rows = [prompt_row(i, contribution=(-1.0) ** i * i, agreement=(-1.0) ** i) for i in range(10)]
    page = parsed(render_report(content(prompts=rows)))
    shown = [words(row.th).split()[0] for row in page.find_all("tr", id=True)]
    assert shown == ["p9", "p7", "p6", "p8"]
    assert len(page.find(id="cloud").find_all("a")) == 4
    assert "6 prompts that weigh least are left out" in words(page)
    # Shares are those of all prompts: 9 + 7 + 5 + 3 + 1 = 25.
    assert "36.0%" in words(page.find("table", class_="prompts"))


def test_numbers():
    assert texts.number(-0.00123) == "−0.00123"
    assert texts.number(1.2e-7) == "1.2·10⁻⁷"
    assert [texts.number(v) for v in (NAN, INF, -INF)] == ["–", "∞", "−∞"]


# --- the file -------------------------------------------------------------------------------------


def test_page_asks_no_host_and_allows_its_own_script_alone():
    page = render_report(content())
    tree = parsed(page)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in page
    for tag in tree.find_all(True):
        assert not tag.has_attr("src")
        assert not tag.has_attr("style")  # the policy would drop it
        assert not any(name.startswith("on") for name in tag.attrs)
        assert tag.get("href", "#").startswith(("#", "data:,"))
    policy = tree.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy
    for part in (tree.script, tree.style):
        digest = hashlib.sha256(part.get_text().encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy


def test_names_for_those_who_do_not_see():
    tree = parsed(render_report(content()))
    for image in tree.find_all("svg"):
        assert len(image["aria-label"]) >= figures.MIN_ALT
    assert content().verdict in tree.find("svg")["aria-label"]
    for table in tree.find_all("table"):
        assert all(th.has_attr("scope") for th in table.find_all("th"))
    known = {tag["id"] for tag in tree.find_all(id=True)}
    assert len(known) == len(tree.find_all(id=True))
    for section in tree.find_all("section"):
        assert section["aria-labelledby"] in known


def test_inks_stand_out_from_both_grounds():
    style = parsed(render_report(content())).style.get_text()
    inks = re.findall(r"--(\w+)\s*:\s*(#[0-9a-f]{6})", style)
    themes = ({}, {})
    for name, ink in inks:
        themes[name in themes[0]][name] = ink
    assert set(themes[0]) == set(themes[1])
    for theme in themes:
        for ground in ("ground", "card"):
            for name in set(theme) - {"ground", "card", "rule"}:
                assert figures.contrast(theme[name], theme[ground]) >= 4.5, (name, ground)


def test_an_interrupted_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert write_report(content(), path) == path
    before = path.read_bytes()
    assert before.decode() == render_report(content())

    def fail(*paths):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(content(verdict="Other."), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture
def visit(browser, tmp_path):
    def open_page(made, theme="light", width=1280):
        path = write_report(made, tmp_path / "report.html")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": theme}]},
        )
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(Path(path).as_uri())
        return browser

    return open_page


def requests(driver):
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] != "Network.requestWillBeSent":
            continue
        # The page that the browser opens by itself may still be loading its pictures.
        if not message["params"]["documentURL"].startswith("chrome://"):
            yield message["params"]["request"]["url"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_text_to_a_browser(visit, name):
    driver = visit(hostile_content(HOSTILE[name]))
    driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert driver.get_log("browser") == []
    asked = list(requests(driver))
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert driver.execute_script("return window.hacked") is None
    counts = driver.execute_script(
        "return ['script', 'style', 'iframe', 'img', 'svg', 'h1', 'main', 'table']"
        ".map(name => document.querySelectorAll(name).length)"
    )
    assert counts == [1, 1, 0, 0, 5, 1, 1, 5]
    shown = driver.execute_script(
        "return [...document.querySelectorAll('table pre, #chosen pre')].map(e => e.textContent)"
    )
    assert set(shown) == {texts.visible(HOSTILE[name])}
    assert len(shown) == 3 * 13


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("words", ["harmless", "W" * 3000])
def test_page_fits_the_screen_and_follows_the_theme(visit, theme, width, words):
    driver = visit(hostile_content(words), theme, width)
    driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    total, screen, ground, size = driver.execute_script(
        "const root = document.documentElement;"
        "const text = document.querySelector('#cloud text');"
        "return [root.scrollWidth, root.clientWidth, getComputedStyle(root).backgroundColor,"
        " text.getBoundingClientRect().height]"
    )
    assert total <= screen
    wanted = figures.GROUNDS[theme].lstrip("#")
    assert ground == "rgb({}, {}, {})".format(*bytes.fromhex(wanted))
    assert size >= 12
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1100])
def test_no_table_is_cut(visit, width):
    wide = {"low": -1.234e-5, "high": 1.234e-5, "band_low": -2.345e-5, "band_high": 2.345e-5}
    rows = [
        layer_row(name, -1.111e-5, kind, cosine=-0.12, **wide)
        for kind in ("whole", "layer", "group", "final")
        for name in ("first", "second part of the model")
    ]
    curve = [
        CurveRow(k, Interval(-1.111e-5, 1e-5, **wide), Interval(0.5, low=-0.98, high=0.98), 0.4)
        for k in (1, 2, 8)
    ]
    driver = visit(content(layers=rows, curve=curve), width=width)
    driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    cut = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')]"
        ".filter(box => box.scrollWidth > box.clientWidth).map(box => box.ariaLabel)"
    )
    assert cut == []


def test_points_are_read_by_pointer_and_by_keyboard(visit):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    rows = [prompt_row(i, num_correct=i, agreement=0.1 * (-1) ** i) for i in range(1, 8)]
    driver = visit(content(prompts=rows))

    def chosen():
        return driver.find_element(By.ID, "chosen").text

    points = driver.find_elements(By.CSS_SELECTOR, "#cloud a")
    ActionChains(driver).scroll_to_element(points[3]).move_to_element(points[3]).perform()
    assert chosen().startswith("p4")
    assert "What is 4 + 1?" in chosen()
    # A click holds it.
    ActionChains(driver).click(points[4]).move_to_element(points[0]).perform()
    assert chosen().startswith("p5")
    ActionChains(driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert chosen().startswith("p6")
    ActionChains(driver).send_keys(Keys.HOME).perform()
    assert chosen().startswith("p1")
    assert driver.execute_script("return document.activeElement.tabIndex") == 0
    row = driver.execute_script("return document.activeElement.getAttribute('href').slice(1)")
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    opened = driver.execute_script(
        "const row = document.getElementById(arguments[0]).nextElementSibling;"
        "return [row.querySelector('details').open, row.querySelector('pre').offsetHeight > 0]",
        row,
    )
    assert opened == [True, True]
    assert driver.get_log("browser") == []
