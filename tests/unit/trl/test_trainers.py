import inspect
import json

import pytest
import torch

from passgrad import PassAtK, UserError, advantages, pass_at_k
from passgrad.objectives import Mixture
from passgrad.trl.groups import max_at_k

KINDS = ("grpo", "rloo")
MIXED = Mixture((PassAtK(1), PassAtK(3)), (0.25, 0.75))


def check_step(lab, trainer, constant, expected):
    """The applied gradient is -constant times that of the expected (P, n) advantages."""
    steps = lab.seen_steps(trainer)
    trainer.train()
    (step,) = steps
    rewards = step["rewards"].double().sum(1).view(-1, trainer.num_generations)
    wanted = expected(rewards).reshape(-1).double() / len(rewards)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    for p, value in zip(trained, step["theta"], strict=True):
        p.data.copy_(value)
    gradient = lab.policy_gradient(trainer.model, step["batch"], wanted)
    assert gradient.norm() > 1e-4
    error = (step["gradient"] + constant * gradient).norm() / (constant * gradient.norm())
    assert error < 1e-6
    return step


def constant_of(lab, kind):
    return 1 / lab.LENGTH if kind == "grpo" else 1.0


@pytest.mark.parametrize("adapter", [False, True], ids=["all weights", "LoRA"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_advantages(lab, tiny, tmp_path, kind, adapter):
    trainer = lab.make_trainer(
        *tiny, tmp_path, kind, k=2, peft_config=lab.lora() if adapter else None
    )
    if adapter:
        assert 0 < sum(p.requires_grad for p in trainer.model.parameters()) < 40
    check_step(lab, trainer, constant_of(lab, kind), lambda r: advantages(r, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_graded_rewards_in_small_batches(lab, tiny, tmp_path, kind):
    trainer = lab.make_trainer(
        *tiny, tmp_path, kind, k=MIXED, rewards=lab.length_reward, estimator="centred-l2o",
        per_device_train_batch_size=3, gradient_accumulation_steps=4, seed=1,
    )  # fmt: skip
    expected = lambda r: advantages(r, MIXED, estimator="centred-l2o")  # noqa: E731
    step = lab.seen_steps(trainer)
    trainer.train()
    rewards = step[0]["rewards"][:, 0].double().view(-1, 4)
    assert len(rewards) == 3
    got = step[0]["batch"]["advantages"].double().view(-1, 4)
    torch.testing.assert_close(got, 4 * expected(rewards), rtol=1e-6, atol=1e-7)


def test_scale_of_the_gradient(lab, tiny, tmp_path):
    trainer = lab.make_trainer(*tiny, tmp_path, scale="gradient", seed=2)
    check_step(lab, trainer, 1.0, lambda r: advantages(r, 2))


def test_a_loss_without_the_factor(lab, tiny, tmp_path):
    trainer = lab.make_trainer(*tiny, tmp_path, loss_type="luspo", seed=2)
    check_step(lab, trainer, 1.0, lambda r: advantages(r, 2))


@pytest.mark.parametrize("name", ["grpo", "tang-loo", "pkpo-loo", "passk-training"])
def test_other_estimators(lab, tiny, tmp_path, name):
    k = None if name in ("grpo", "tang-loo") else 2
    trainer = lab.make_trainer(
        *tiny, tmp_path, "rloo", k=k, estimator=name, seed=2, rewards=lab.length_reward
    )
    check_step(lab, trainer, 1.0, lambda r: advantages(r, k, estimator=name))
    record = json.loads((tmp_path / "passgrad.json").read_text())
    expected = {"grpo": "what grpo ascends", "tang-loo": "pass@4"}
    assert record["objective"] == expected.get(name, "pass@2")


def test_biased_settings_do_what_they_say(lab, tiny, tmp_path):
    with pytest.warns(UserWarning, match="scale_rewards='group'"):
        trainer = lab.make_trainer(
            *tiny, tmp_path, scale_rewards="group", allow_biased=True, seed=2
        )
    step = check_step(
        lab,
        trainer,
        1 / lab.LENGTH,
        lambda r: advantages(r, 2) / (r.std(dim=1, keepdim=True) + 1e-4),
    )
    assert step["batch"]["advantages"].any()
    record = json.loads((tmp_path / "passgrad.json").read_text())
    assert record["objective"] == "pass@2"
    assert "scale_rewards='group'" in record["biased_settings"][0]
    assert trainer.state.log_history[0]["passk/biased_settings"] == 1


def test_normalised_advantages_of_rloo(lab, tiny, tmp_path):
    with pytest.warns(UserWarning, match="normalize_advantages"):
        trainer = lab.make_trainer(
            *tiny, tmp_path, "rloo", normalize_advantages=True, allow_biased=True, seed=2
        )

    def expected(rewards):
        raw = 4 * advantages(rewards, 2)
        return (raw - raw.mean()) / (raw.std() + 1e-4) / 4

    check_step(lab, trainer, 1.0, expected)


def test_rewards_without_a_value(lab, tiny, tmp_path):
    def reward(completions, **rest):
        found = lab.digit_reward(completions)
        return [None, *found[1:4], None, None, None, found[7]]

    trainer = lab.make_trainer(*tiny, tmp_path, "rloo", rewards=reward, seed=2)
    steps = lab.seen_steps(trainer)
    trainer.train()
    rewards = steps[0]["rewards"][:, 0].double()
    got = steps[0]["batch"]["advantages"].double()
    # Three samples are left of the first group; the second has too few for k = 2.
    want = 4 * advantages(rewards[None, 1:4], 2)[0]
    torch.testing.assert_close(got[1:4], want, rtol=1e-6, atol=1e-7)
    assert not got[[0, 4, 5, 6, 7]].any()
    log = trainer.state.log_history[0]
    assert log["passk/dropped_groups"] == 1


def test_the_weights_of_several_rewards(lab, tiny, tmp_path):
    trainer = lab.make_trainer(
        *tiny, tmp_path, rewards=[lab.digit_reward, lab.length_reward], reward_weights=[1.0, 0.5],
        seed=2,
    )  # fmt: skip
    steps = lab.seen_steps(trainer)
    trainer.train()
    rewards = (steps[0]["rewards"].double() @ torch.tensor([1.0, 0.5]).double()).view(-1, 4)
    got = steps[0]["batch"]["advantages"].double().view(-1, 4)
    torch.testing.assert_close(got, 4 * advantages(rewards, 2), rtol=1e-6, atol=1e-7)


def test_what_is_logged(lab, tiny, tmp_path):
    trainer = lab.make_trainer(*tiny, tmp_path, k=3, log_completions=False, seed=2)
    steps = lab.seen_steps(trainer)
    trainer.train()
    rewards = steps[0]["rewards"][:, 0].view(-1, 4)
    log = trainer.state.log_history[0]
    for k in (1, 3, 4):
        value = pass_at_k(4, rewards.sum(1).numpy(), k).mean()
        assert log[f"passk/pass@{k}"] == pytest.approx(value, abs=1e-12)
    assert log["passk/k"] == 3
    assert log["passk/biased_settings"] == 0
    shown = torch.tensor(list(trainer._logs["advantages"]), dtype=torch.float64)
    torch.testing.assert_close(shown.view(-1, 4), 4 * advantages(rewards.double(), 3))


def test_evaluation(lab, tiny, tmp_path):
    trainer = lab.make_trainer(
        *tiny, tmp_path, k=3, eval_dataset=lab.make_dataset(4), num_generations_eval=2,
        per_device_eval_batch_size=4, seed=2,
    )  # fmt: skip
    found = trainer.evaluate()
    # Two samples a prompt: pass@3 has no estimate and is not logged.
    assert {k for k in found if "passk/pass@" in k} == {
        "eval_passk/pass@1",
        "eval_passk/pass@2",
    }
    assert 0 <= found["eval_passk/pass@1"] <= found["eval_passk/pass@2"] <= 1


def test_held_out_prompts_have_pass_at_k_with_intervals(lab, tiny, tmp_path):
    from passgrad.stats import pass_at_k_interval

    trainer = lab.make_trainer(
        *tiny, tmp_path, k=3, eval_dataset=lab.make_dataset(6), num_generations_eval=4,
        per_device_eval_batch_size=8, seed=2, eval_strategy="steps", eval_steps=1,
        metric_for_best_model="eval_pass@3", greater_is_better=True,
    )  # fmt: skip
    seen = []
    inner = trainer._calculate_rewards

    def watched(*positional, **named):
        raw = inner(*positional, **named)
        if not trainer.model.training:
            seen.append(raw[:, 0].double().view(-1, 4))
        return raw

    trainer._calculate_rewards = watched
    trainer.train()
    logged = [row for row in trainer.state.log_history if "eval_pass@1" in row]
    rewards = torch.cat(seen)
    assert rewards.shape == (6, 4)
    for k in (1, 3):
        mean, low, high = pass_at_k_interval(4, rewards.sum(1).numpy(), k)
        row = [logged[0][f"eval_pass@{k}{end}"] for end in ("", "_low", "_high")]
        assert row == pytest.approx([mean, low, high])
    assert trainer.state.best_metric == pytest.approx(logged[0]["eval_pass@3"])


def test_prompts_that_fill_the_last_batch_do_not_count_twice(lab, tiny, tmp_path):
    trainer = lab.make_trainer(
        *tiny, tmp_path, k=2, eval_dataset=lab.make_dataset(6), num_generations_eval=4,
        per_device_eval_batch_size=8, seed=2,
    )  # fmt: skip
    inner, own = trainer._generate_and_score_completions, []

    def filled(inputs):
        """As with two processes, which see prompts again behind the last ones."""
        output = inner(inputs)
        own.append(trainer._held_out[-1])
        if len(own) == 3:
            trainer._held_out.append(torch.ones(2, 4, dtype=torch.float64))
        return output

    trainer._generate_and_score_completions = filled
    found = trainer.evaluate()
    assert found["eval_pass@1"] == pytest.approx(float(torch.cat(own).mean()))
    assert found["eval_pass@1"] < 1


def test_metrics_of_graded_and_missing_rewards():
    from passgrad.trl.evaluation import held_out_metrics

    missing = torch.tensor([[1.0, 0, 1, torch.nan], [0, 0, 0, 0], [1, 1, 1, 1]]).double()
    found = held_out_metrics(missing, [4, 1])
    assert found["pass@1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    # the first group has three rewards and does not count for k = 4
    assert found["pass@4"] == pytest.approx(0.5)
    graded = torch.tensor([[0.1, 0.7], [0.4, 0.2], [0.9, 0.9]]).double()
    found = held_out_metrics(graded, [2])
    best = torch.tensor([0.7, 0.4, 0.9]).double()
    reach = 4.302652729911275 * float(best.std()) / 3**0.5
    assert found["pass@2_high"] - found["pass@2"] == pytest.approx(reach)
    assert held_out_metrics(missing[:1], [1]) == {}


def test_silent_groups_are_counted_by_order(lab, tiny, tmp_path):
    trainer = lab.make_trainer(*tiny, tmp_path, k={1: 0.5, 3: 0.5}, seed=2)
    steps = lab.seen_steps(trainer)
    trainer.train()
    right = steps[0]["rewards"][:, 0].view(-1, 4).sum(1)
    log = trainer.state.log_history[0]
    # pkpo-loo1 of n = 4: pass@1 is silent at 0 and 4 right ones, pass@3 also at 3 and more
    assert log["passk/silent_groups@1"] == pytest.approx(
        float(((right == 0) | (right == 4)).double().mean())
    )
    assert log["passk/silent_groups@3"] == pytest.approx(
        float(((right == 0) | (4 - right < 2)).double().mean())
    )
    assert log["passk/silent_groups"] == log["passk/silent_groups@1"]


def test_the_best_of_k():
    rewards = torch.tensor([[0.1, 0.7, 0.4, torch.nan], [1.0, 0.0, 0.0, 1.0]]).double()
    assert max_at_k(rewards, 2).tolist() == pytest.approx([(0.7 + 0.7 + 0.4) / 3, 5 / 6])
    assert max_at_k(rewards, 4).isnan().tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hook_is_where_it_was(lab, tiny, tmp_path, kind):
    """Fails when another TRL computes advantages elsewhere."""
    from trl import GRPOTrainer, RLOOTrainer

    base = GRPOTrainer if kind == "grpo" else RLOOTrainer
    calculate = inspect.signature(base._calculate_rewards)
    assert list(calculate.parameters) == [
        "self", "inputs", "prompts", "completions", "completion_ids_list",
    ]  # fmt: skip
    assert list(inspect.signature(base._generate_and_score_completions).parameters) == [
        "self", "inputs",
    ]  # fmt: skip
    for name in ("_save_checkpoint", "_load_optimizer_and_scheduler"):
        assert callable(getattr(base, name))
    assert {"self", "model", "input_ids", "attention_mask", "logits_to_keep"} <= set(
        inspect.signature(base._get_per_token_logps_and_entropies).parameters
    )
    source = inspect.getsource(base._generate_and_score_completions)
    assert "self._calculate_rewards(" in source
    assert '"advantages": advantages' in source
    assert 'self._logs["advantages"].extend(' in source
    trainer = lab.make_trainer(*tiny, tmp_path, kind)
    assert trainer.reward_weights.tolist() == [1.0]
    assert set(trainer._metrics) == {"train", "eval"}


def test_settings_are_needed(lab, tiny):
    from passgrad.trl import PassKGRPOTrainer

    with pytest.raises(UserError, match="default settings change the objective"):
        PassKGRPOTrainer(tiny[0], lab.digit_reward, k=2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 5}, "k = 5 exceeds the 4 samples"),
        ({"k": 4, "estimator": "centred-l2o"}, "needs n >= k"),
        ({"k": {1: 0.5, 2: 0.5}, "estimator": "passk-training"}, "cannot be mixed"),
        ({"k": 2, "scale": "loud"}, "scale must be"),
        ({"k": 2, "estimator": "grpo"}, "does not depend on k"),
        ({"k": None}, "k must be a whole number"),
        ({"k": {2: 0.5}, "estimator": "passk-training"}, "cannot be mixed"),
        ({"k": 2, "estimator": "tang-loo"}, "estimates pass@n from n samples"),
    ],
)
def test_orders_that_do_not_fit(lab, tiny, tmp_path, options, match):
    with pytest.raises(UserError, match=match):
        lab.make_trainer(*tiny, tmp_path, **options)


def test_dropout_is_refused(lab, tiny, tmp_path):
    with pytest.raises(UserError, match="drops 0.1 of its inputs"):
        lab.make_trainer(*tiny, tmp_path, peft_config=lab.lora(0.1))
