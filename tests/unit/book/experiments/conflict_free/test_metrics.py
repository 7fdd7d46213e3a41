import pandas as pd
import pytest

from passgrad import UserError
from passgrad.ascent.directions import AdamMetric, Euclidean, FisherMetric
from passgrad.interference import conflict
from passgrad.worlds.bandit import TwoPointBandit
from passgrad_book.experiments import two_conventions
from passgrad_book.experiments.conflict_free.metrics import prices
from passgrad_book.experiments.conflict_free.stored import metrics_language

WORLD, THETA = TwoPointBandit(), (-2.0, -2.0)
METRICS = {"plain": Euclidean(), "Adam": AdamMetric(), "natural": FisherMetric(0.1, relative=True)}


def table(methods, metrics=METRICS, gain=1e-6):
    return prices(WORLD, THETA, methods, metrics, k=10, gain=gain).set_index(["metric", "method"])


def test_a_price_is_the_product_over_the_squared_norm():
    plain = table(["pass@k"]).loc["plain", "pass@k"]
    curve = conflict(WORLD, THETA, [1, 10])
    cosine = float(curve.cosine[1])
    assert plain["cosine"] == pytest.approx(cosine)
    ratio = float(curve.inner_product[1] / curve.norm[1] ** 2)
    assert plain["predicted_1"] / plain["predicted_k"] == pytest.approx(ratio)


def test_steps_are_as_long_as_the_gain_asks_and_do_what_they_promise():
    found = table(["pass@k", "pcgrad", "constrained"])
    assert found["predicted_k"].tolist() == pytest.approx([1e-6] * 9)
    assert found["realised_k"].tolist() == pytest.approx([1e-6] * 9, rel=1e-3)
    assert found["realised_1"].tolist() == pytest.approx(
        found["predicted_1"].tolist(), abs=1e-9, rel=1e-3
    )
    held = found.xs("constrained", level="method")["predicted_1"]
    assert (held > -1e-12).all()


def test_a_large_damping_is_the_plain_metric():
    metrics = {"plain": Euclidean(), "damped": FisherMetric(1e6, relative=True)}
    found = table(["pass@k"], metrics)
    assert found["cosine"].iloc[1] == pytest.approx(found["cosine"].iloc[0], rel=1e-4)
    small = table(["pass@k"], {"natural": FisherMetric(1e-6, relative=True)})
    assert small["cosine"].iloc[0] > found["cosine"].iloc[0] + 0.1


def test_what_has_no_price():
    with pytest.raises(UserError, match="annealed is a schedule"):
        table(["annealed"])
    with pytest.raises(UserError, match="J_k does not gain along pass@1 in the metric plain"):
        table(["pass@1"])


def test_the_two_conventions(tiny_model, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(two_conventions, "load_model", lambda _: (tiny_model(), tiny_tokenizer))
    given = {
        "model": "tiny", "seed": 1, "num_prompts": 2, "num_examples": 1, "hard_fraction": 0.25,
        "warmup_steps": 1, "warmup_step_size": 0.1, "warmup_cosine": -1.0,
        "methods": ["pass@k", "constrained"], "k": 4, "gain": 1e-4, "dampings": [0.1],
    }  # fmt: skip
    found = metrics_language(**given)["prices"]
    assert found["metric"].tolist() == ["plain"] * 2 + ["Adam"] * 2 + ["natural, 0.1"] * 2
    assert found["predicted_k"].tolist() == pytest.approx([1e-4] * 6)
    pd.testing.assert_frame_equal(found, metrics_language(**given)["prices"])
