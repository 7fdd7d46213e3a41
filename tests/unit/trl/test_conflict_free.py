import json
import re

import pandas as pd
import pytest
import scipy.stats
import torch

from passgrad import UserError, advantages, pass_at_k
from passgrad.ascent.mixing import RunningGram, coefficients
from passgrad.trl import AdaptiveK, AnnealedK, ConflictCallback, ConflictFree


def two_groups(lab, trainer, step, k, scale=1.0):
    """The Gram matrix of one batch of two prompts, by hand: products of one with the other."""
    for p, value in zip(trainer.model.parameters(), step["theta"], strict=True):
        p.data.copy_(value)
    rewards = step["rewards"][:, 0].double().view(2, 4)
    made = torch.zeros(2, 2, dtype=torch.float64)
    vectors = {}
    for j in (1, k):
        values = advantages(rewards, j)
        for x in range(2):
            some = torch.zeros(2, 4, dtype=torch.float64)
            some[x] = values[x]
            vectors[j, x] = (
                lab.policy_gradient(trainer.model, step["batch"], some.reshape(-1)).double() * scale
            )
    for a, j in enumerate((1, k)):
        for b, m in enumerate((1, k)):
            made[a, b] = (vectors[j, 0] @ vectors[m, 1] + vectors[m, 0] @ vectors[j, 1]) / 2
    return made


@pytest.mark.parametrize(
    ("aggregator", "keep"), [("mgda", 0.0), ("constrained", 0.0), ("constrained", 1.0)]
)
def test_coefficients_come_from_the_batches_before(lab, tiny, tmp_path, aggregator, keep):
    plan = ConflictFree(2, aggregator, every=1, keep=keep, metric="plain")
    watcher = ConflictCallback(every=1, plot=False)
    trainer = lab.make_trainer(
        *tiny, tmp_path, k=plan, max_steps=4, rewards=lab.length_reward, callbacks=[watcher]
    )
    steps = lab.seen_steps(trainer)
    trainer.train()
    grams = [two_groups(lab, trainer, step, 2) for step in steps]
    assert len(watcher.history) == 4
    for row, gram in zip(watcher.history, grams, strict=True):
        assert row["inner_product"] == pytest.approx(float(gram[0, 1]), rel=1e-4)
        assert row["squared_norm_1"] == pytest.approx(float(gram[0, 0]), rel=1e-4)
        assert row["squared_norm_k"] == pytest.approx(float(gram[1, 1]), rel=1e-4)
    decay = 0.5 ** (1 / 8)
    for t, step in enumerate(steps):
        rewards = step["rewards"][:, 0].double().view(2, 4)
        if t < 2:
            # too little is known
            safe = [0.5, 0.5] if aggregator == "mgda" else [1.0, 0.0]
            lambdas = torch.tensor(safe).double()
        else:
            weights = torch.tensor([decay ** (t - 1 - i) for i in range(t)]).double()
            past = torch.stack(grams[:t])
            share = weights / weights.sum()
            mean = torch.einsum("t,tij->ij", share, past)
            spread = torch.einsum("t,tij->ij", share, past**2) - mean**2
            error = (spread.clamp(min=0) / (1 / (share**2).sum() - 1)).sqrt()
            quantile = scipy.stats.t.ppf(0.9, 1 / (share**2).sum() - 1)
            lambdas = coefficients(mean, aggregator, error=error, quantile=quantile, keep=keep)
            assert abs(float(lambdas[0]) - 0.5) > 0.01
        log = trainer.state.log_history[t]
        assert log["conflict/coefficient_1"] == pytest.approx(float(lambdas[0]), abs=1e-4)
        expected = 4 * sum(
            float(c) * advantages(rewards, k) for c, k in zip(lambdas, (1, 2), strict=True)
        )
        got = step["batch"]["advantages"].double().view(2, 4)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_share_of_the_gain_of_pass_at_1():
    """Coefficients under which pass@1 gains the share, to first order, of the gradients seen."""
    gram = torch.tensor([[2.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
    seen = RunningGram()
    for _ in range(3):
        seen.update(gram)
    for keep in (0.0, 0.5, 1.0):
        plan = ConflictFree(4, "constrained", keep=keep)
        assert plan.weights(0) == {1: 1.0, 4: 0.0}
        plan.observe(seen)
        lambdas = torch.tensor(list(plan.weights(0).values())).double()
        assert float((gram @ lambdas)[0] / lambdas[1]) == pytest.approx(2 * keep, abs=1e-6)
        assert (f"keeping {keep:g} of the gain" in plan.describe()) == (keep > 0)


def test_the_passes_leave_gradients_alone(lab, tiny, tmp_path):
    """Measured or not, a step on pass@2 is the same."""
    ends = []
    for callbacks in ([], [ConflictCallback(2, every=1, plot=False)]):
        model, tokenizer = tiny
        start = {name: value.clone() for name, value in model.state_dict().items()}
        trainer = lab.make_trainer(
            model, tokenizer, tmp_path, k=2, max_steps=2, rewards=lab.length_reward,
            callbacks=callbacks,
        )  # fmt: skip
        trainer.train()
        ends.append([p.detach().clone() for p in trainer.model.parameters()])
        model.load_state_dict(start)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_weights_of_prompts(lab, tiny, tmp_path):
    plan = ConflictFree(2, "mgda", per_prompt=True)
    trainer = lab.make_trainer(
        *tiny, tmp_path, "rloo", k=plan, rewards=lab.length_reward, per_device_train_batch_size=12
    )
    steps = lab.seen_steps(trainer)
    trainer.train()
    rewards = steps[0]["rewards"][:, 0].double().view(3, 4)
    got = steps[0]["batch"]["advantages"].double().view(3, 4)
    plain = 4 * advantages(rewards, 2)
    ratio = (got / plain)[plain.abs().argmax(1)[:, None] == torch.arange(4)]
    torch.testing.assert_close(got, ratio[:, None] * plain, rtol=1e-5, atol=1e-6)
    assert float(ratio.sum()) == pytest.approx(3, rel=1e-5)
    log = trainer.state.log_history[0]
    assert log["conflict/smallest_prompt_weight"] == pytest.approx(float(ratio.min()), rel=1e-5)


def test_weights_of_prompts_from_exact_gradients():
    """No prompt falls: three gradients of which two disagree."""
    rows = torch.tensor([[1.0, 0.0, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]).double()
    for name in ("pcgrad", "mgda"):
        weights = ConflictFree(4, name, per_prompt=True).prompt_weights(rows, rows)
        assert float(weights.mean()) == pytest.approx(1)
        assert (rows @ (weights @ rows) > -1e-6).all()
    # A prompt whose length is below its noise keeps the weight 1 before the mean is set.
    noisy = torch.tensor([[0.1, 0.0, 0.0], [0.0, 1.0, 0.0]]).double()
    weights = ConflictFree(4, per_prompt=True).prompt_weights(
        noisy * torch.tensor([[-1.0], [1.0]]), noisy
    )
    assert weights.isfinite().all()


def make(lab, tiny_model, tokenizer, folder, plan, steps, **options):
    return lab.make_trainer(
        tiny_model(dtype="float32", seed=3), tokenizer, folder, k=plan, max_steps=steps,
        rewards=lab.length_reward, optim="adamw_torch", seed=5, save_strategy="steps",
        save_steps=3, learning_rate=3e-3, callbacks=[ConflictCallback(2, every=2, plot=False)],
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_resumed_run_is_the_same_run(lab, tiny_model, tiny, tmp_path, kind):
    plans = {
        "grpo": lambda: ConflictFree(2, "mgda", every=2),
        "rloo": lambda: AdaptiveK(3, ladder=(1, 2, 3), every=2, patience=1, wait=1),
    }
    options = {"kind": kind}
    whole = make(lab, tiny_model, tiny[1], tmp_path / "whole", plans[kind](), 6, **options)
    whole.train()
    first = make(lab, tiny_model, tiny[1], tmp_path / "part", plans[kind](), 6, **options)
    first.train()
    state = json.loads((tmp_path / "part/checkpoint-3/passgrad_state.json").read_text())
    assert state["batches"] == 3
    assert state["plan"] != plans[kind]().state_dict()
    assert state["record"]["estimator"] == "pkpo-loo1"
    again = make(lab, tiny_model, tiny[1], tmp_path / "part", plans[kind](), 6, **options)
    torch.manual_seed(123)  # nothing may hang on where the generators stand
    again.train(resume_from_checkpoint=str(tmp_path / "part/checkpoint-3"))
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert whole.plan.state_dict() == again.plan.state_dict()
    assert torch.equal(whole.conflict.mean, again.conflict.mean)
    names = ("step", "inner_product", "pass@1")
    for one, other in zip(whole._watchers[0].history, again._watchers[0].history, strict=True):
        assert [one[name] for name in names] == [other[name] for name in names]


def test_another_objective_does_not_resume(lab, tiny_model, tiny, tmp_path):
    make(lab, tiny_model, tiny[1], tmp_path, 2, 3).train()
    other = make(lab, tiny_model, tiny[1], tmp_path, 3, 6)
    with pytest.raises(UserError, match="trained pass@2, this run pass@3"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_the_callback(lab, tiny, tmp_path):
    pytest.importorskip("matplotlib")
    watcher = ConflictCallback(every=2)
    trainer = lab.make_trainer(
        *tiny, tmp_path, "rloo", k=AnnealedK(3, 1), max_steps=5, callbacks=[watcher], seed=4,
        per_device_train_batch_size=16,
    )  # fmt: skip
    steps = lab.seen_steps(trainer)
    trainer.train()
    assert watcher.order == 3
    table = pd.read_parquet(tmp_path / "conflict.parquet")
    assert table["step"].tolist() == [0, 2, 4]
    assert (tmp_path / "conflict.png").stat().st_size > 10_000
    logs = [one for one in trainer.state.log_history if "conflict/inner_product" in one]
    assert len(logs) == 3
    before = None
    for (_, row), log in zip(table.iterrows(), logs, strict=True):
        step = steps[int(row["step"])]
        right = step["rewards"][:, 0].view(4, 4).sum(1).numpy()
        assert row["pass@1"] == pytest.approx(pass_at_k(4, right, 1).mean(), abs=1e-9)
        assert row["pass@k"] == pytest.approx(pass_at_k(4, right, 3).mean(), abs=1e-9)
        assert log["conflict/inner_product"] == row["inner_product"]
        assert 0 <= row["negative_agreement"] <= 1
        if before is not None:
            moved = torch.cat(
                [(a - b).reshape(-1) for a, b in zip(step["theta"], before, strict=True)]
            )
            for p, value in zip(trainer.model.parameters(), step["theta"], strict=True):
                p.data.copy_(value)
            values = advantages(step["rewards"][:, 0].double().view(4, 4), 1).reshape(-1) / 4
            gradient = lab.policy_gradient(trainer.model, step["batch"], values)
            assert row["predicted_change"] == pytest.approx(float(gradient @ moved), rel=1e-3)
        before = step["theta"]
    assert table["error_inner_product"].isna().tolist() == [True, False, False]


def test_the_recipe_explains_what_is_logged(lab, tiny, tmp_path, root):
    text = (root / "book" / "recipe.md").read_text()
    explained = set(re.findall(r"`((?:passk|conflict)/[^`]+)`", text))
    watcher = ConflictCallback(every=1, plot=False)
    trainer = lab.make_trainer(
        *tiny, tmp_path, "rloo", k=ConflictFree(2), max_steps=3, callbacks=[watcher], seed=4,
        per_device_train_batch_size=16,
    )  # fmt: skip
    trainer.train()
    logged = {name for log in trainer.state.log_history for name in log}
    ours = {name for name in logged if name.startswith(("passk/", "conflict/"))}
    assert {"passk/k", "conflict/k", "conflict/coefficient_k"} <= ours
    orders = {
        f"passk/{name}@{k}" for name in ("pass", "silent_groups") for k in (2, 4)
    }  # the recipe has those of its example
    assert ours - orders <= explained
    assert {"conflict/cosine", "conflict/smallest_prompt_weight"} <= explained
    cosines = watcher.to_frame()["cosine"]
    assert (cosines.isna() | (cosines.abs() <= 1)).all()


def test_wrong_arguments(lab, tiny, tmp_path):
    for options, match in (
        ({"k": 1}, "no conflict with itself"),
        ({"aggregator": "best"}, "known: pcgrad"),
        ({"every": 0}, "every must be"),
        ({"split": "tokens"}, "split must be"),
        ({"aggregator": "constrained", "per_prompt": True}, "takes two objectives"),
        ({"confidence": 1.5}, "confidence must"),
        ({"keep": 0.5}, "keep belongs to 'constrained'"),
        ({"keep": -1, "aggregator": "constrained"}, "from 0 to 1"),
        ({"keep": 2, "aggregator": "constrained"}, "from 0 to 1"),
        ({"metric": "adam"}, "metric must be"),
    ):
        with pytest.raises(UserError, match=match):
            ConflictFree(**options)
    for plan, rows in (
        (ConflictFree(3, per_prompt=True), 8),
        (ConflictFree(3, split="completions"), 8),
        (ConflictFree(3), 4),
        (AdaptiveK(3), 4),
    ):
        with pytest.raises(UserError, match="does not fit into half of the 4"):
            lab.make_trainer(*tiny, tmp_path, k=plan, per_device_train_batch_size=rows)
    with pytest.raises(UserError, match="no conflict with itself"):
        lab.make_trainer(*tiny, tmp_path, k=1, callbacks=[ConflictCallback()])
    with pytest.raises(UserError, match="trainers of passgrad.trl only"):
        ConflictCallback().order  # noqa: B018


def test_products_in_the_metric_of_adam(lab, tiny, tmp_path):
    """From the moments that the optimiser held at each measurement, by hand."""
    plan = ConflictFree(2, "mgda", every=1)
    trainer = lab.make_trainer(
        *tiny, tmp_path, k=plan, max_steps=4, rewards=lab.length_reward, optim="adamw_torch"
    )
    seen = []
    take = plan.take

    def kept(gram, metric):
        states = trainer.optimizer.state
        scale = length = None
        if metric == "optimizer":
            moments = torch.cat(
                [(states[p]["exp_avg_sq"] / (1 - 0.999 ** float(states[p]["step"]))).flatten()
                 for p in trainer.model.parameters()]
            ).double()  # fmt: skip
            scale = (moments > 0) / (moments.sqrt() + trainer.args.adam_epsilon)
            length = (scale * moments).sum()
        seen.append((gram.clone(), metric, scale, length))
        take(gram, metric)

    plan.take = kept
    steps = lab.seen_steps(trainer)
    trainer.train()
    assert [one[1] for one in seen] == ["plain", *["optimizer"] * 3]
    assert plan.gram.count == 3
    for step, (gram, metric, scale, length) in zip(steps, seen, strict=True):
        if metric == "plain":
            torch.testing.assert_close(gram, two_groups(lab, trainer, step, 2), rtol=1e-4, atol=0)
        else:
            expected = two_groups(lab, trainer, step, 2, scale.sqrt()) / length
            torch.testing.assert_close(gram, expected, rtol=1e-4, atol=1e-6)
    assert [log["conflict/in_metric_of_optimizer"] for log in trainer.state.log_history[:4]] == [
        0, 1, 1, 1
    ]  # fmt: skip
    again = ConflictFree(2, "mgda", every=1)
    again.load_state_dict(json.loads(json.dumps(plan.state_dict())))
    assert torch.equal(again.gram.mean, plan.gram.mean)
    assert again.measured_in == "optimizer"


def test_another_optimiser_is_measured_plainly_and_says_so(lab, tiny, tmp_path):
    plan = ConflictFree(2, every=1)
    trainer = lab.make_trainer(
        *tiny, tmp_path, k=plan, max_steps=2, rewards=lab.length_reward, optim="adafactor"
    )
    with pytest.warns(UserWarning, match="plain metric: the metric of Adafactor is not known"):
        trainer.train()
    assert plan.measured_in == "plain"
    assert plan.gram.count == 2


def test_the_plain_metric_on_request(lab, tiny, tmp_path):
    plan = ConflictFree(2, "constrained", keep=0.5, metric="plain", every=1)
    trainer = lab.make_trainer(*tiny, tmp_path, k=plan, max_steps=2, optim="adamw_torch")
    trainer.train()
    assert plan.measured_in == "plain"
    record = trainer.record()
    assert record["metric"] == "plain"
    assert "0.5 of the gain" in record["objective"]
    assert trainer.state.log_history[0]["conflict/in_metric_of_optimizer"] == 0
