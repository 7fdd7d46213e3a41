import base64
import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from passgrad.errors import UserError
from passgrad_book.build import figures

ALT = "A line that falls from 1 at k = 1 to 0.2 at k = 64, with a narrow band."
KS = np.array([1, 2, 4, 8, 16, 32, 64])


def simple(ax):
    figures.curve(ax, KS, 1 / KS, of="pass@1", exact=True)
    figures.k_axis(ax, KS)


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_two_images_one_a_theme_with_the_same_alt():
    bundle = figures.show(simple, alt=ALT)
    html = bundle.to_html()
    assert html.count("<img") == 2
    assert re.findall(r'alt="([^"]*)"', html) == [ALT, ALT]
    assert 'class="only-light dark-light' in html
    assert 'class="only-dark dark-light' in html
    for source in re.findall(r"base64,([^\"]*)\"", html):
        ET.fromstring(base64.b64decode(source))
    light, dark = bundle.light.decode(), bundle.dark.decode()
    assert figures.style_of("pass@1").light in light
    assert figures.style_of("pass@1").dark in dark
    assert figures.style_of("pass@1").dark not in light


def test_the_ground_is_transparent():
    root = ET.fromstring(figures.show(simple, alt=ALT).light)
    patch = next(e for e in root.iter() if e.get("id") == "patch_1")
    assert "fill: none" in patch[0].get("style")


def test_bundle_has_every_format():
    bundle = figures.show(simple, alt=ALT)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "application/pdf", "text/plain"}
    assert bundle["text/plain"] == ALT
    assert base64.b64decode(bundle["application/pdf"]).startswith(b"%PDF")


def test_two_drawings_are_the_same_bytes():
    def draw(axes):
        simple(axes[0])
        figures.heatmap(axes[1], np.outer(KS, -KS), label="kernel")

    one, two = (figures.show(draw, alt=ALT, ncols=2) for _ in range(2))
    assert one.light == two.light
    assert one.dark == two.dark
    assert one.pdf == two.pdf


def test_no_date_and_no_version_in_the_image():
    svg = figures.show(simple, alt=ALT).light.decode()
    assert matplotlib.__version__ not in svg
    assert "dc:date" not in svg


def test_data_link_gives_the_numbers_back():
    frame = pd.DataFrame({"k": KS, "cosine": 1 / KS})
    html = figures.show(simple, alt=ALT, data=frame, name="fall").to_html()
    link = re.search(r'download="fall.csv" href="data:text/csv;base64,([^"]*)"', html)
    import io

    back = pd.read_csv(io.BytesIO(base64.b64decode(link.group(1))))
    pd.testing.assert_frame_equal(back, frame, rtol=1e-9)
    assert f"{len(KS)} rows" in html


def test_alt_is_escaped():
    html = figures.show(simple, alt=ALT + ' p < 1 & "q"').to_html()
    assert "p &lt; 1 &amp; &quot;q&quot;" in html


@pytest.mark.parametrize("alt", ["", "cosine against k", " " * 40])
def test_short_alt_is_refused(alt):
    with pytest.raises(UserError, match="alternative text has"):
        figures.show(simple, alt=alt)


@pytest.mark.parametrize("how", ["title", "suptitle"])
def test_titles_are_refused(how):
    def draw(ax):
        simple(ax)
        if how == "title":
            ax.set_title("Fall")
        else:
            ax.figure.suptitle("Fall")

    with pytest.raises(UserError, match="no title"):
        figures.show(draw, alt=ALT)


@pytest.mark.parametrize("function", [figures.curve, figures.points])
def test_a_series_needs_an_interval_or_exact(function, axes):
    with pytest.raises(UserError, match="no interval"):
        function(axes, KS, 1 / KS, of="sampled")
    with pytest.raises(UserError, match="one end"):
        function(axes, KS, 1 / KS, of="sampled", low=0 / KS)
    with pytest.raises(UserError, match="keep one"):
        function(axes, KS, 1 / KS, of="sampled", low=0 / KS, high=KS, exact=True)
    function(axes, KS, 1 / KS, of="sampled", low=0.9 / KS, high=1.1 / KS)


def test_band_has_the_ends_that_were_given(axes):
    figures.curve(axes, KS, 1 / KS, of="sampled", low=0.5 / KS, high=2 / KS)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.5 / 64)
    assert band[:, 1].max() == pytest.approx(2)


def test_shapes_are_checked(axes):
    with pytest.raises(UserError, match="7 places and 6 values"):
        figures.curve(axes, KS, KS[1:], of="exact", exact=True)
    with pytest.raises(UserError, match="shape of its values"):
        figures.curve(axes, KS, KS, of="exact", low=KS[1:], high=KS[1:])


def test_tensors_are_taken(axes):
    ks = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    line = figures.curve(axes, ks, ks, of="exact", exact=True)
    np.testing.assert_array_equal(line.get_ydata(), [1, 2, 4])


def test_unknown_object_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"'pass@one'; known: pass@1, pass@k, easy"):
        figures.style_of("pass@one")


def test_pass_at_any_k_has_a_style():
    styles = [figures.style_of(f"pass@{k}") for k in (1, 2, 5, 10, 32)]
    assert styles[0] == figures.style_of("pass@1")
    assert len({style.dash for style in styles}) == 5
    assert len({style.light for style in styles}) == 5


@pytest.mark.parametrize("name", [*figures.COLOURS, "pass@2", "pass@5", "pass@32"])
def test_text_in_every_ink_can_be_read_on_both_pages(name):
    style = figures.style_of(name)
    assert figures.contrast(style.light, figures.GROUNDS["light"]) >= 4.5
    assert figures.contrast(style.dark, figures.GROUNDS["dark"]) >= 4.5


def test_axes_can_be_read_on_both_pages():
    for theme in ("light", "dark"):
        with figures.theme(theme):
            assert figures.contrast(figures.ink(), figures.ground()) >= 7


def test_contrast_of_black_and_white():
    assert figures.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert figures.contrast("#777777", "#777777") == pytest.approx(1)


# Full dichromacy after Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
DICHROMACY = {
    "normal": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritan": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour, matrix):
    rgb = np.asarray(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(matrix @ linear, 0, 1)
    xyz = XYZ @ linear
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", DICHROMACY)
@pytest.mark.parametrize("pair", [("pass@1", "pass@k"), ("easy", "hard"), ("exact", "sampled")])
def test_pairs_that_share_a_figure_differ_in_every_vision_and_in_a_second_cue(pair, vision):
    one, two = (figures.style_of(name) for name in pair)
    for theme in ("light", "dark"):
        distance = np.linalg.norm(
            lab(getattr(one, theme), DICHROMACY[vision])
            - lab(getattr(two, theme), DICHROMACY[vision])
        )
        assert distance > 15
    assert one.dash != two.dash
    assert one.marker != two.marker


def test_heatmap_is_symmetric_about_zero_and_names_its_groups():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    figures.heatmap(
        axes, [[1, -3], [-3, 1]], label="kernel", groups=["easy", "hard"], colorbar=False
    )
    assert axes.collections[0].get_clim() == (-3, 3)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["easy", "hard"]


def test_heatmap_refuses_what_is_no_matrix(axes):
    with pytest.raises(UserError, match="needs a matrix"):
        figures.heatmap(axes, [1, 2], label="kernel")
    with pytest.raises(UserError, match="2 rows needs as many"):
        figures.heatmap(axes, np.eye(2), label="kernel", groups=["easy"])


def test_k_axis_writes_numbers(axes):
    axes.plot(KS, KS)
    figures.k_axis(axes, KS)
    axes.figure.canvas.draw()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "4", "8", "16", "32", "64"]


def test_every_pair_of_main_objects_has_its_own_look():
    names = ["pass@1", "pass@k", "easy", "hard", "exact", "sampled", "agreement"]
    for one, two in itertools.combinations(names, 2):
        assert figures.style_of(one).light != figures.style_of(two).light


def test_no_global_state_is_left_behind():
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError, match="stop"):
        figures.show(lambda ax: (_ for _ in ()).throw(RuntimeError("stop")), alt=ALT)
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
    assert figures.ink() == "#24292f"
