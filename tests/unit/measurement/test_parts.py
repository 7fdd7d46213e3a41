"""Products by part: against the estimate of the whole, autograd, the truth, and coverage."""

import dataclasses

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.lm.completions import Completions
from passgrad.lm.groups import HIDDEN_STATE, OUTPUT_USE, Part
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement import ScoreSamples, estimate_conflict
from passgrad.measurement.crossfit import order_advantages, split_halves
from passgrad.measurement.metric import PLAIN, Metric, shrunk
from passgrad.measurement.parts import Folding, ModelParts, Reading, estimate_parts
from passgrad.measurement.parts.sketch import UnitSketch
from passgrad.measurement.parts.terms import directions, part_terms
from passgrad.measurement.store import Kept

from .conftest import MASSES, exact, outcomes, vectors

LOO = get_estimator("pkpo-loo1")
SCALE = torch.tensor([0.5, 3.0, 10.0], dtype=torch.float64)
ADAM = Metric("adam", {str(i): scale for i, scale in enumerate(SCALE)})


def random_samples(num_prompts=10, n=8, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(num_prompts, n, generator=generator) < 0.4).double()
    scores = torch.randn(num_prompts, n, d, dtype=torch.float64, generator=generator)
    masses = torch.rand(num_prompts, generator=generator).double() + 0.5
    return ScoreSamples(rewards, scores, masses / masses.sum())


def close(found, expected, rtol=1e-11, atol=1e-13):
    torch.testing.assert_close(
        torch.as_tensor(found), torch.as_tensor(expected), rtol=rtol, atol=atol
    )


# --- a world with scores --------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", ["fixed", "new"])
def test_the_parts_add_up_to_the_estimate_of_the_whole(prompts):
    samples = random_samples(num_prompts=12, seed=3)
    whole = estimate_conflict(samples, [1, 2, 4], prompts=prompts, seed=4)
    found = estimate_parts(samples, [1, 2, 4], reading=Reading(prompts), folding=Folding(seed=4))
    assert [part.kind for part in found.parts] == ["whole", *["layer"] * 5]
    close(found.inner_product[0, :, 0], whole.inner_product)
    close(found.inner_product[0, :, 1:].sum(-1), whole.inner_product)
    close(found.squared_norm[0, :, 1:].sum(-1), whole.squared_norm)
    assert found.squared_norm_at_1[0, 0] == pytest.approx(whole.squared_norm_at_1, rel=1e-11)


def test_the_influences_of_folds_of_one_prompt_are_those_of_prompts():
    samples = random_samples(num_prompts=12)
    whole = estimate_conflict(samples, [3], prompts="new")
    found = estimate_parts(samples, 3, folding=Folding(100))
    assert found.influence.shape == (1, 1, 6, 12)
    # Masses differ between prompts, and count as drawn with them in both.
    close(found.standard_error[0, 0, 0], whole.standard_error[0])
    close(found.low[0, 0, 0], whole.low[0])


@pytest.mark.parametrize("split", ["completions", "prompts"])
def test_every_part_is_unbiased_in_both_metrics(split):
    kinds = (0, 1) if split == "completions" else (None,) * 4
    size = 4 if split == "completions" else 2
    masses = MASSES if split == "completions" else torch.full((4,), 0.25, dtype=torch.float64)
    samples, chance = outcomes(kinds, size, masses)
    terms = part_terms(samples, [2], LOO, split, metrics=[PLAIN, ADAM], folding=Folding(2))
    one, two = (MASSES @ vectors(k) for k in (1, 2))
    mean = torch.einsum("sjrp,r->sjp", terms.inner, chance)
    norm = torch.einsum("sjrp,r->sjp", terms.norms, chance)
    for row, scale in ((0, torch.ones(3).double()), (1, SCALE)):
        close(mean[row, 1, 1:], one * two * scale)
        close(mean[row, 0, 1:], one * one * scale)
        close(norm[row, 1, 1:], two * two * scale)
        close(mean[row, 1, 0], (one * two * scale).sum())
    assert float(mean[0, 1, 0]) == pytest.approx(exact(2), rel=1e-11)


def test_a_metric_from_samples_kept_apart_is_independent_of_the_rest():
    """The mean over all answers is the product in the mean of the metrics that two answers of the
    six give; with a metric from the rest itself it would not be.
    """
    samples, chance = outcomes((0, 1), 6, MASSES)
    generator = torch.Generator().manual_seed(1)
    keep = torch.multinomial(chance, 60_000, replacement=True, generator=generator)
    some = ScoreSamples(samples.rewards[keep], samples.scores[keep], MASSES)
    terms = part_terms(
        some, [2], LOO, "completions", metrics=["estimated"], folding=Folding(2, batches=2)
    )
    one, two = (MASSES @ vectors(k) for k in (1, 2))
    values = terms.inner[0, 1, :, 1:]
    # E<g_1, P^-1 g_k> = g_1 g_k E[P^-1], exactly, with a minibatch a prompt.
    two_answers, law = outcomes((0, 1), 2, MASSES)
    paid = torch.stack([LOO.advantages(rewards, 1) for rewards in two_answers.rewards])
    squares = torch.einsum("rxi,rxid->rxd", paid, two_answers.scores).square().mean(1)
    inverse = shrunk({str(i): squares[:, i] for i in range(3)}, 2, leading=1).inverse
    mean = torch.stack([inverse[str(i)] @ law for i in range(3)])
    error = values.std(dim=0) / len(values) ** 0.5
    assert ((values.mean(dim=0) - one * two * mean).abs() < 4 * error).all()
    assert (error < 0.1 * (one * two * mean).abs()).all()


def bandit_like(replications, prompts, num_prompts=40, n=16, seed=0):
    """Prompts with features of three coordinates, answers right or wrong, and their truth by
    coordinate at k = 4 (from a large sample of prompts where they are new).
    """
    generator = torch.Generator().manual_seed(seed)
    theta = torch.tensor([0.5, -0.4, 0.3], dtype=torch.float64)

    def features(*shape):
        noise = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
        return noise + torch.tensor([1.0, 0.3, -0.8])

    def slopes(u, k):
        p = torch.sigmoid(u @ theta)[..., None]
        return k * (1 - p) ** (k - 1) * p * (1 - p) * u

    if prompts == "fixed":
        u = features(num_prompts)
        truth = slopes(u, 1).mean(0) * slopes(u, 4).mean(0)
        u = u.expand(replications, -1, -1)
    else:
        many = features(400_000)
        truth = slopes(many, 1).mean(0) * slopes(many, 4).mean(0)
        u = features(replications, num_prompts)
    p = torch.sigmoid(u @ theta)[..., None]
    drawn = torch.rand(*p.shape[:-1], n, generator=generator, dtype=torch.float64)
    rewards = (drawn < p).double()
    scores = (rewards - p)[..., None] * u[..., None, :]
    masses = torch.full((num_prompts,), 1 / num_prompts, dtype=torch.float64)
    return ScoreSamples(rewards, scores, masses), truth


@pytest.mark.parametrize("prompts", ["fixed", "new"])
def test_coverage_of_the_intervals_of_each_part(prompts):
    from passgrad.stats.bands import intervals

    samples, truth = bandit_like(300, prompts, num_prompts=160)
    split = "completions" if prompts == "fixed" else "prompts"
    terms = part_terms(samples, [4], LOO, split, metrics=[PLAIN, ADAM])
    inner = terms.inner[:, 1, :, 1:].numpy()
    error = np.sqrt((terms.influence[:, 1, :, 1:].numpy() ** 2).sum(-1))
    # The mean of the squared errors is the variance, to first order.
    ratio = np.sqrt((error**2).mean(axis=1)) / inner.std(axis=1)
    assert ((ratio > 0.85) & (ratio < 1.2)).all(), ratio
    low, high = intervals(inner, terms.influence[:, 1, :, 1:, :, None].numpy(), 0.95)
    for row, scale in ((0, 1.0), (1, SCALE)):
        target = (truth * scale).numpy()
        held = ((low[row] <= target) & (target <= high[row])).mean(axis=0)
        assert ((held > 0.91) & (held < 0.98)).all(), held


def test_the_bands_hold_all_parts_of_a_kind_and_are_wider():
    found = estimate_parts(random_samples(num_prompts=30), 2)
    assert (found.band_low[0, 0, 1:] < found.low[0, 0, 1:]).all()
    assert (found.band_high[0, 0, 1:] > found.high[0, 0, 1:]).all()
    # The whole is a kind by itself.
    close(found.band_low[0, 0, 0], found.low[0, 0, 0], rtol=0.02, atol=0)


def test_a_table():
    found = estimate_parts(random_samples(d=3), [2, 4], metrics=[PLAIN, ADAM])
    frame = found.to_frame()
    assert list(frame.columns) == [
        "part", "kind", "metric", "k", "inner_product", "standard_error", "low", "high",
        "band_low", "band_high", "cosine", "squared_norm", "squared_norm_at_1",
    ]  # fmt: skip
    assert len(frame) == 2 * 2 * 4
    row = frame[(frame.part == "1") & (frame.metric == "adam") & (frame.k == 4)].iloc[0]
    assert row.inner_product == found.inner_product[1, 1, 2]
    plain = frame[(frame.part == "1") & (frame.metric == "plain") & (frame.k == 4)].iloc[0]
    assert row.inner_product == pytest.approx(3 * plain.inner_product, rel=1e-12)
    assert row.cosine == pytest.approx(plain.cosine, nan_ok=True)
    assert row.squared_norm_at_1 == found.squared_norm_at_1[1, 2]


def test_a_run_that_was_killed_goes_on(tmp_path):
    samples = random_samples()
    expected = estimate_parts(samples, 2, folding=Folding(3)).to_frame()

    class Stop(Exception):
        pass

    class Breaking(ScoreSamples):
        left = 0

        def gradient(self, coefficients):
            Breaking.left -= 1
            if Breaking.left < 0:
                raise Stop
            return super().gradient(coefficients)

    breaking = Breaking(samples.rewards, samples.scores, samples.masses)
    calls, finished = 0, False
    while not finished:
        Breaking.left = 5  # a fold or two, and the totals again
        calls += 1
        assert calls < 10
        try:
            found = estimate_parts(breaking, 2, folding=Folding(3), kept=Kept(tmp_path))
            finished = True
        except Stop:
            pass
    assert calls > 2
    assert found.to_frame().equals(expected)
    Breaking.left = 0
    assert (
        estimate_parts(breaking, 2, folding=Folding(3), kept=Kept(tmp_path))
        .to_frame()
        .equals(expected)
    )
    with pytest.raises(Stop):  # another metric is another number
        estimate_parts(breaking, 2, folding=Folding(3), kept=Kept(tmp_path), metrics=[scaled(2.0)])


def scaled(factor):
    return Metric("adam", {str(i): torch.tensor(factor).double() for i in range(5)})


def test_progress_counts_the_pieces(shown):
    estimate_parts(random_samples(), 2, folding=Folding(3), progress=shown)
    assert shown.stages == [["parts of the model at k = 2", 6, 6]]


@pytest.mark.parametrize("prompts", ["fixed", "new"])
@pytest.mark.parametrize("estimator", ["pkpo-loo1", "pkpo", "centred-l2o"])
def test_every_answer_is_in_one_gradient(prompts, estimator):
    asked = []

    class Counting(ScoreSamples):
        def gradient(self, coefficients):
            asked.append(coefficients != 0)
            return super().gradient(coefficients)

    samples = random_samples(num_prompts=12, n=16)
    counting = Counting(samples.rewards, samples.scores, samples.masses)
    estimate_parts(counting, [2, 4], estimator=estimator, reading=Reading(prompts))
    assert torch.stack(asked).sum(0).max() == 1


def test_directions_make_up_the_coefficients():
    weights = torch.randn(3, 4, 5, dtype=torch.float64).round(decimals=1)
    weights[:, 1] = weights[:, :1, 0] * torch.randn(5)  # one direction
    weights[:, 2] = 0
    found = list(directions(weights))
    close(sum(q[:, None, None] * c for q, c in found), weights)
    assert len(found) <= 1 + 10
    assert (torch.stack([c for _, c in found]) != 0).sum(0).max() == 1
    together = torch.stack([c for _, c in directions(weights, together=False)])
    close(together, weights)


def test_a_folded_unit_has_the_products_of_the_whole_one_on_average():
    generator = torch.Generator().manual_seed(3)
    # A heavy column, a heavy row and a low rank: what a hash that is too simple would pile up.
    a, b = (torch.randn(90, 64, generator=generator, dtype=torch.float64) for _ in "ab")
    heavy = torch.ones(90, 64, dtype=torch.float64)
    heavy[:, 3] = heavy[5] = 30
    a, b = a * heavy, (a + 2 * b) * heavy
    found = []
    for seed in range(300):
        sketch = UnitSketch(["big", "small"], length=97, seed=seed)
        one, other = (
            sketch.fold({"big": v, "small": v[0]}, {"big": None, "small": None}) for v in (a, b)
        )
        found.append(sketch.products(one, other))
    found = torch.stack(found)
    assert one.shape == (97 + 64,)
    close(found[:, 1], (a[0] @ b[0]).expand(300))
    truth, length = (a * b).sum(), a.norm() * b.norm()
    error = found[:, 0].std() / 300**0.5
    assert abs(found[:, 0].mean() - truth) < 4 * error
    assert found[:, 0].std() < 3 * length / 97**0.5


def test_the_error_of_the_folding_is_in_the_interval():
    """Noise in 2,000 directions and 499 numbers for them: far fewer than a model would have."""
    samples = random_samples(num_prompts=60, d=2000, seed=5)
    whole = estimate_parts(One(samples), 2)
    folded = [
        estimate_parts(One(samples), 2, folding=Folding(length=length)) for length in (499, 1999)
    ]
    for made in folded:
        away = np.abs(made.inner_product - whole.inner_product)
        assert (away < 2 * made.standard_error).all()
        assert (made.standard_error > whole.standard_error).all()
    assert (folded[1].standard_error < folded[0].standard_error).all()


class One(ScoreSamples):
    """All coordinates in one unit."""

    def __init__(self, samples):
        super().__init__(samples.rewards, samples.scores, samples.masses)

    units = ("all",)
    parts = (Part("whole", "all parameters", ("all",)),)

    def gradient(self, coefficients):
        return {"all": self.vector(coefficients)}


def test_what_is_refused():
    samples = random_samples()
    with pytest.raises(UserError, match="folds is 1"):
        estimate_parts(samples, 2, folding=Folding(1))
    with pytest.raises(UserError, match="batches is 0"):
        Folding(batches=0)
    with pytest.raises(UserError, match="k = 9 is too large"):
        estimate_parts(samples, 9)
    with pytest.raises(UserError, match="lacks the parameter 3"):
        estimate_parts(samples, 2, metrics=[ADAM])
    with pytest.raises(UserError, match="halves of prompts"):
        estimate_parts(random_samples(num_prompts=4), 2, metrics=["estimated"])
    half = dataclasses.replace(samples, rewards=samples.rewards / 2)
    with pytest.raises(UserError, match="0 or 1"):
        estimate_parts(half, 2)


# --- a language model -----------------------------------------------------------------------------

PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7], [9, 8, 7], [4, 4, 2]]
DRAWN = [
    [[5, 6], [7], [5, 6], [8, 9, 3, 2]],
    [[5, 6], [5, 6], [5, 7], [5, 6]],
    [[1], [2, 2], [3, 3, 3], [2, 2]],
    [[3, 1], [3], [3, 3, 3], [1, 2]],
]
REWARDS = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0], [0, 1, 1, 0]]).double()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def language(request, tiny_model):
    model = tiny_model(tied=request.param)
    passes = CompletionPasses(model, Completions.from_tokens(PROMPTS, DRAWN), REWARDS)
    return model, ModelParts(passes)


def scores(model):
    """(M, n) dictionaries of gradients, with the two at the output from a model whose output
    matrix and hidden state are variables of their own.
    """
    head, body = model.get_output_embeddings(), model.model
    table = []
    for prompt, some in zip(PROMPTS, DRAWN, strict=True):
        row = []
        for target in some:
            shift = torch.zeros(model.config.hidden_size, dtype=torch.float64, requires_grad=True)
            matrix = head.weight.detach().clone().requires_grad_()
            named = dict(model.named_parameters())

            def value(at, matrix, prompt=prompt, target=target):
                hidden = body(input_ids=torch.tensor([prompt + target])).last_hidden_state[0]
                logits = (hidden + at) @ matrix.T
                steps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
                return steps.gather(-1, torch.tensor(target)[:, None]).sum()

            own = torch.autograd.grad(value(shift, matrix), [shift, matrix])
            whole = torch.autograd.grad(value(shift, head.weight), list(named.values()))
            found = dict(zip(named, whole, strict=True))
            row.append({**found, HIDDEN_STATE: own[0], OUTPUT_USE: own[1]})
        table.append(row)
    return table


@pytest.mark.parametrize("prompts", ["fixed", "new"])
def test_against_autograd(language, prompts):
    model, samples = language
    inverse = {
        name: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)).double() + 0.5
        for name, p in model.named_parameters()
    }
    metrics = [PLAIN, Metric("adam", inverse)]
    found = estimate_parts(
        samples, 2, reading=Reading(prompts), metrics=metrics, folding=Folding(2)
    )
    table = scores(model)
    split = "completions" if prompts == "fixed" else "prompts"
    halves = split_halves(4, 4, split, seed=0)
    totals = []
    for half in halves:
        weights = order_advantages(half.take(REWARDS), [1, 2], LOO)
        full = half.put(weights, (4, 4)) / 4 * (4 / len(half.prompts))
        totals.append(
            [
                {
                    unit: sum(
                        float(c[x, i]) * table[x][i][unit] for x in range(4) for i in range(4)
                    )
                    for unit in table[0][0]
                }
                for c in full
            ]
        )
    (a1, a2), (b1, b2) = totals
    tied = model.config.tie_word_embeddings
    assert (OUTPUT_USE in samples.units) == tied
    for p, part in enumerate(found.parts):
        for s, metric in enumerate(metrics):
            expected = 0.0
            for unit in part.units:
                if s == 0:
                    weight = 1.0
                elif unit == HIDDEN_STATE:
                    weight = float("nan")
                else:
                    owner = "model.embed_tokens.weight" if unit == OUTPUT_USE else unit
                    weight = metric.inverse[owner]
                both = (a1[unit] * b2[unit] + b1[unit] * a2[unit]) / 2
                expected += float((both * weight).sum())
            assert found.inner_product[s, 0, p] == pytest.approx(expected, rel=1e-8, nan_ok=True)
    names = {(part.kind, part.name) for part in found.parts}
    assert {("layer", "block 0"), ("layer", "block 1"), ("layer", "final norm")} <= names
    assert {
        ("final", n) for n in ("final norm gain", "final hidden state", "output layer")
    } <= names


def test_layers_and_groups_of_a_model_add_up_to_the_whole(language):
    _, samples = language
    whole = estimate_conflict(Directional(samples.passes), [2], prompts="new")
    found = estimate_parts(samples, 2, folding=Folding(2))
    frame = found.to_frame()
    for kind in ("whole", "layer", "group"):
        total = frame[frame.kind == kind].inner_product.sum()
        assert total == pytest.approx(whole.inner_product[0], rel=1e-6)
    gain = frame[frame.part == "final norm gain"].inner_product.item()
    assert gain == frame[frame.part == "final norm"].inner_product.item()


class Directional:
    """Passes as samples."""

    def __init__(self, passes):
        self.passes, self.rewards, self.masses = passes, passes.rewards, passes.masses

    def gradients(self, coefficients):
        return [self.passes.gradient(row) for row in coefficients]

    def directional(self, gradients, where):
        found = [self.passes.directional(g, "forward", where) for g in gradients]
        return torch.stack(found).nan_to_num(nan=0.0)


def test_a_metric_of_another_model(language):
    model, samples = language
    inverse = {name: torch.ones(p.shape) for name, p in model.named_parameters()}
    name = "model.norm.weight"
    with pytest.raises(UserError, match="another model"):
        estimate_parts(samples, 2, metrics=[Metric("adam", {**inverse, name: torch.ones(3)})])
    del inverse[name]
    with pytest.raises(UserError, match=f"lack the parameter {name}"):
        estimate_parts(samples, 2, metrics=[Metric("adam", inverse)])


def test_the_metric_can_be_estimated_for_a_model(language):
    _, samples = language
    more = Completions.from_tokens(PROMPTS * 2, DRAWN * 2)
    passes = CompletionPasses(samples.passes.model, more, REWARDS.repeat(2, 1))
    found = estimate_parts(ModelParts(passes), 2, metrics=[PLAIN, "estimated"], folding=Folding(2))
    assert found.metrics == ("plain", "adam, estimated")
    hidden = [part.name for part in found.parts].index("final hidden state")
    assert np.isnan(found.inner_product[1, 0, hidden])
    assert np.isfinite(np.delete(found.inner_product, hidden, axis=2)).all()
