"""All answers of a small language model: its law, its samples, and passes over the model itself."""

import dataclasses

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement import ScoreSamples, estimate_conflict
from passgrad.measurement.store import StoredPasses
from passgrad_book.experiments.estimating.answers import language_answers
from passgrad_book.experiments.estimating.comparison import METHODS, compare_methods
from passgrad_book.experiments.estimating.coverage import simulate_conflict_coverage
from passgrad_book.experiments.estimating.naive import biased_conflict
from passgrad_book.experiments.estimating.short_answers import sample_language_world
from passgrad_book.experiments.small_models.small_language import small_language_world

KS = [1, 2, 4]


@pytest.fixture(scope="module")
def world():
    # Hardly trained, so that no prompt is all but solved.
    return small_language_world(base=2, steps=10)


@pytest.fixture(scope="module")
def law(world):
    return language_answers(world, max_new_tokens=2)


def test_the_law_is_that_of_the_exact_world(world, law):
    exact = conflict(world, None, KS)
    found = law.conflict(KS)
    for name in ("inner_product", "norm", "success", "agreement", "weights"):
        torch.testing.assert_close(
            getattr(found, name), getattr(exact, name), rtol=1e-9, atol=1e-12
        )
    assert found.norm_at_1 == pytest.approx(exact.norm_at_1, rel=1e-10)
    # Scores have mean 0 under the policy, whatever the answers are.
    for x in range(len(law.masses)):
        mine = law.prompts == x
        p = law.probabilities[mine]
        assert abs(p @ law.kernel[mine][:, mine] @ p) < 1e-12


def test_passes_over_the_model_and_products_of_scores_agree(world, law):
    drawn = law.sample(12, seed=3)
    passes = CompletionPasses(
        world.model, law.completions(drawn.answers), drawn.rewards, world.masses
    )
    stored = StoredPasses(passes, None)
    for method in ("same-sample", "plug-in"):
        a, b = (biased_conflict(one, KS, method=method) for one in (drawn, stored))
        np.testing.assert_allclose(a, b, rtol=1e-9)
    a, b = (estimate_conflict(one, KS, prompts="fixed") for one in (drawn, stored))
    for name in ("curve", "standard_error", "squared_norm", "band_low", "agreement"):
        one, other = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


def test_samples_do_what_written_scores_do(law):
    """The same answers with scores from a root of the kernel."""
    values, vectors = torch.linalg.eigh(law.kernel)
    root = vectors * values.clamp(min=0).sqrt()
    drawn = law.sample(6, num_prompts=5, replications=3, seed=1)
    written = ScoreSamples(drawn.rewards, root[drawn.answers], drawn.masses)
    c = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    where = torch.rand(3, 5, 6) < 0.7
    along = (one.directional(one.gradients(c), where) for one in (drawn, written))
    torch.testing.assert_close(*along, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(drawn.own(c, where), written.own(c, where), rtol=1e-8, atol=1e-8)


def test_answers_come_as_often_as_the_law_says(law):
    drawn = law.sample(50, replications=200, seed=5)
    size = 200 * 50
    counts = torch.bincount(drawn.answers.flatten(), minlength=len(law.prompts))
    expected = size * law.probabilities
    common = expected > 5
    chi = ((counts - expected).square() / expected)[common].mean()
    assert abs(chi - 1) < 5 * (2 / int(common.sum())) ** 0.5
    assert torch.equal(drawn.rewards, law.rewards[drawn.answers])
    new = law.sample(1, num_prompts=4000, seed=6)
    kinds = torch.bincount(law.prompts[new.answers[:, 0]], minlength=len(law.masses)) / 4000
    assert (kinds - law.masses).abs().max() < 0.04
    torch.testing.assert_close(new.masses, torch.full((4000,), 1 / 4000).double())


def test_completions_of_the_model_follow_the_law(world, law):
    (first, right), (second, _) = sample_language_world(
        world, 800, max_new_tokens=2, replications=2, seed=2
    )
    p = law.success
    deviation = (right.mean(dim=1) - p) / (p * (1 - p) / 800).sqrt()
    assert deviation.abs().max() < 4.5
    numbers = {(y.prefix, y.target): place for place, y in enumerate(law.sequences)}
    places = torch.tensor([numbers[y.prefix, y.target] for y in first.sequences])
    counts = torch.bincount(places[first.places.flatten()], minlength=len(numbers))
    expected = 800 * law.probabilities
    common = expected > 5
    chi = ((counts - expected).square() / expected)[common].mean()
    assert abs(chi - 1) < 5 * (2 / int(common.sum())) ** 0.5
    assert not torch.equal(first.places, second.places)


def test_the_methods_side_by_side_go_on_where_they_were(world, tmp_path, shown):
    options = {"num_samples": 8, "max_new_tokens": 2, "replications": 2, "seed": 4}
    tables = compare_methods(world, [1, 2], folder=tmp_path, progress=shown, **options)
    assert shown.stages == [["replications of the estimates", 2, 2]]
    assert set(tables["estimates"]["method"]) == set(METHODS)
    assert len(tables["estimates"]) == 2 * 3 * 2
    one = tables["estimates"].query("replication == 0 and method == 'cross-fit'")["value"]
    np.testing.assert_allclose(one, tables["intervals"]["inner_product"], rtol=1e-12)
    files = sorted(tmp_path.rglob("*.npy"))
    files[0].unlink()
    again = compare_methods(world, [1, 2], folder=tmp_path, **options)
    for name, table in tables.items():
        assert table.equals(again[name])
    assert sorted(tmp_path.rglob("*.npy")) == files


def test_coverage_of_a_law_of_answers(law):
    frame = simulate_conflict_coverage(
        law, None, 96, [1, 2], prompts="fixed", replications=150, draws=500
    )
    single = frame[frame["target"].str.startswith("k")]
    assert (abs(single["mean"] - single["truth"]) < 4.5 * single["spread"] / 150**0.5).all()
    assert single["coverage"].min() > 0.88
    assert single["error_ratio"].between(0.9, 1.4).all()


def test_refusals(world, law):
    with pytest.raises(UserError, match="max_new_tokens is 1"):
        language_answers(world, max_new_tokens=1)
    with pytest.raises(UserError, match="num_samples must be at least 1"):
        law.sample(0)
    with pytest.raises(UserError, match="replications must be at least 1"):
        sample_language_world(world, 4, max_new_tokens=2, replications=0)
    with pytest.raises(UserError, match="add up to 1"):
        dataclasses.replace(law, probabilities=law.probabilities / 2)
    with pytest.raises(UserError, match="rows and columns"):
        dataclasses.replace(law, kernel=law.kernel[1:])
    with pytest.raises(UserError, match="one entry for each answer"):
        dataclasses.replace(law, rewards=law.rewards[1:])
    with pytest.raises(UserError, match="order of their prompts"):
        dataclasses.replace(law, prompts=law.prompts.flip(0))
