import pytest
import torch

from passgrad import PassAtK, UserError
from passgrad.ascent.mixing import RunningGram
from passgrad.objectives import Log, Mixture
from passgrad.trl.schedules import AdaptiveK, AfterSteps, AnnealedK, FixedK, as_plan


def measured(product, spread=0.0, count=4):
    running = RunningGram()
    for i in range(count):
        value = product + spread * (-1) ** i
        running.update(torch.tensor([[1.0, value], [value, 1.0]]))
    return running


def test_what_k_may_be():
    assert as_plan(8).weights(0.3) == {8: 1.0}
    assert as_plan({1: 0.5, 8: 0.25}).weights(0) == {1: 0.5, 8: 0.25}
    assert as_plan(PassAtK(4)).orders == (4,)
    mixture = Mixture((PassAtK(1), PassAtK(8)), (0.5, 0.5))
    assert as_plan(mixture).weights(1) == {1: 0.5, 8: 0.5}
    plan = AnnealedK()
    assert as_plan(plan) is plan
    assert FixedK(8).describe() == "pass@8"
    assert not FixedK(8).mixed
    for wrong in (0, 2.5, True, "8"):
        with pytest.raises(
            UserError, match=f"k must be a whole number of at least 1, got {wrong!r}"
        ):
            as_plan(wrong)
    for wrong, message in (
        ({}, "the mixture over k is empty"),
        ({1: float("nan")}, "finite coefficients, not all 0; got {1: nan}"),
        ({0: 1.0}, "k must be a whole number of at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            as_plan(wrong)
    with pytest.raises(UserError, match="only pass@k of whole k"):
        as_plan(Mixture((PassAtK(1), Log()), (1, 1)))


@pytest.mark.parametrize("shape", ["geometric", "linear"])
def test_annealing_from_8_to_1(shape):
    plan = AnnealedK(8, 1, shape=shape)
    assert plan.orders == tuple(range(1, 9))
    assert plan.weights(0) == {8: 1.0}
    assert plan.weights(1) == {1: 1.0}
    last = 9.0
    for progress in torch.linspace(0, 1, 41).tolist():
        weights = plan.weights(progress)
        assert sum(weights.values()) == pytest.approx(1)
        assert set(weights) <= set(plan.orders)
        mean = sum(k * c for k, c in weights.items())
        assert mean == pytest.approx(plan.order(progress))
        assert mean < last
        last = mean
    middle = 8**0.5 if shape == "geometric" else 4.5
    assert plan.order(0.5) == pytest.approx(middle)


def test_annealing_by_whole_orders_and_early():
    plan = AnnealedK(8, 1, over=0.5, integers=True)
    assert [plan.weights(t) for t in (0.25, 0.5, 0.9)] == [{3: 1.0}, {1: 1.0}, {1: 1.0}]
    for wrong in ({"start": 0.5}, {"end": float("inf")}, {"over": 0}, {"shape": "steps"}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))} must be"):
            AnnealedK(**wrong)


def test_adapting_goes_down_where_pass_at_1_would_fall():
    plan = AdaptiveK(8, patience=2, wait=3)
    assert plan.ladder == (1, 2, 4, 8)
    seen = []
    for product in (-1, 1, -1, -1, -1, -1):
        plan.observe(measured(product))
        seen.append(plan.k)
    # One against, one along: nothing. Two in a row: one rung.
    assert seen == [8, 8, 8, 4, 4, 2]


def test_adapting_goes_up_again_only_after_a_while_and_when_sure():
    plan = AdaptiveK(4, patience=2, wait=4)
    for _ in range(2):
        plan.observe(measured(-1))
    assert plan.k == 2
    seen = []
    for _ in range(5):
        plan.observe(measured(1.0))
        seen.append(plan.k)
    assert seen == [2, 2, 2, 4, 4]
    unsure = AdaptiveK(4, patience=1, wait=1)
    unsure.observe(measured(-1))
    for _ in range(5):
        unsure.observe(measured(0.1, spread=1.0))
        assert unsure.k == 2  # positive, but not above its error
    assert unsure.measured == 2


def test_the_state_of_adapting():
    one, other = AdaptiveK(8), AdaptiveK(8)
    for product in (-1, -1, 1):
        one.observe(measured(product))
    other.load_state_dict(one.state_dict())
    for product in (1, 1, -1, -1, 1):
        for plan in (one, other):
            plan.observe(measured(product))
        assert one.k == other.k
    assert one.state_dict() == other.state_dict()
    for wrong in ({"k": 0}, {"patience": 0}, {"wait": 1.5}, {"every": 0}, {"confidence": 2}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))} must"):
            AdaptiveK(**wrong)


def test_the_sign_after_some_steps_decides_for_good():
    for sign, expected in ((1, {8: 1.0}), (-1, {1: 0.3, 8: 0.7})):
        plan = AfterSteps(8, steps=3, mixture=0.3)
        gram = RunningGram()
        for step in range(3):
            assert plan.measured == 8
            assert plan.weights(0.0) == {8: 1.0}
            # the first product has the other sign, and the mean decides
            product = -sign * 0.1 if step == 0 else sign * 1.0
            gram.update(torch.tensor([[1.0, product], [product, 1.0]]).double())
            plan.observe(gram)
        assert plan.weights(0.5) == expected
        assert plan.measured is None
        gram.update(torch.tensor([[1.0, -sign * 9.0], [-sign * 9.0, 1.0]]).double())
        plan.observe(gram)
        again = AfterSteps(8, steps=3, mixture=0.3)
        again.load_state_dict(plan.state_dict())
        assert again.weights(0.9) == plan.weights(0.9) == expected


def test_a_run_that_decides(lab, tiny, tmp_path):
    plan = AfterSteps(2, steps=2)
    trainer = lab.make_trainer(*tiny, tmp_path, k=plan, max_steps=4, rewards=lab.length_reward)
    trainer.train()
    logs = trainer.state.log_history[:4]
    assert plan.decision in ("pass@k", "mixture")
    taken = 0.5 if plan.decision == "mixture" else 0.0
    assert [row["passk/share_of_pass@1"] for row in logs] == [0, 0, taken, taken]
    assert ["conflict/inner_product" in row for row in logs] == [True, True, False, False]
    for options, match in (({"k": 1}, "no conflict"), ({"mixture": 0}, "share of pass@1")):
        with pytest.raises(UserError, match=match):
            AfterSteps(**options)
