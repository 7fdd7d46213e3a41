import math

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.ascent.conflict_free import ConflictFreeDirection, annealed
from passgrad.ascent.directions import Adam, AdamMetric, FisherMetric
from passgrad.ascent.mixing import coefficients
from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import ArcsinSqrt, Log, Mixture, PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.language import LanguageWorld
from passgrad.worlds.tabular import TabularSoftmax
from passgrad_book.experiments.two_conventions import compare_ascents

THETA = (-2.0, -2.0)


def gradients(world, theta, *objectives):
    return torch.stack([world.objective_gradient(theta, one)[1] for one in objectives])


@pytest.mark.parametrize("aggregator", ["pcgrad", "upgrad", "mgda", "constrained", "sum"])
def test_one_step_is_the_combination_of_the_gradients(aggregator):
    world, theta = TwoPointBandit(), torch.tensor(THETA, dtype=torch.float64)
    direction = ConflictFreeDirection(10, aggregator=aggregator)
    p, vector = direction(world, theta)
    rows = gradients(world, theta, PassAtK(1), PassAtK(10))
    gram = rows @ rows.T
    lambdas = coefficients(gram, aggregator, normalise=False)
    torch.testing.assert_close(vector, lambdas @ rows)
    torch.testing.assert_close(p, world.success(theta))
    (step,) = direction.history
    torch.testing.assert_close(step.gram, gram)
    torch.testing.assert_close(step.lambdas, lambdas)
    torch.testing.assert_close(step.changes, rows @ vector)
    assert step.cosine == pytest.approx(float(conflict(world, theta, [10]).cosine[0]))


def test_normalised_it_is_a_weighted_mean():
    world, theta = TwoPointBandit(), torch.tensor(THETA, dtype=torch.float64)
    plain, normal = ConflictFreeDirection(10), ConflictFreeDirection(10, normalise=True)
    vector, other = plain(world, theta)[1], normal(world, theta)[1]
    total = plain.history[0].lambdas.sum()
    torch.testing.assert_close(vector, total * other)
    assert float(normal.history[0].lambdas.sum()) == pytest.approx(1)


def test_any_two_objectives():
    world, theta = GaussianBandit(num_nodes=21), torch.tensor(THETA, dtype=torch.float64)
    direction = ConflictFreeDirection(ArcsinSqrt(), base=Log(order=3), aggregator="mgda")
    vector = direction(world, theta)[1]
    rows = gradients(world, theta, Log(order=3), ArcsinSqrt())
    torch.testing.assert_close(vector, direction.history[0].lambdas @ rows)
    assert direction.label == "mgda of log to order 3 and arcsin pass@1"


def losses(trace, k):
    return float(trace.pass_at_k(k).diff().min())


def test_it_raises_both_where_ascent_of_pass_at_k_costs_pass_at_1():
    world = TwoPointBandit()
    path = {"step_size": 0.05, "steps": 40}
    plain = ascend(world, THETA, PassAtK(10), **path)
    assert plain.pass_at_k(1)[-1] < plain.pass_at_k(1)[0]
    for aggregator in ("pcgrad", "upgrad", "mgda"):
        trace = ascend(world, THETA, ConflictFreeDirection(10, aggregator=aggregator), **path)
        assert losses(trace, 1) > 0
        assert losses(trace, 10) > 0
    held = ascend(world, THETA, ConflictFreeDirection(10, aggregator="constrained"), **path)
    assert losses(held, 10) > 0
    # To first order nothing is lost; what is left is of the order of the square of a step.
    lost = held.pass_at_k(1)[0] - held.pass_at_k(1)[-1]
    assert lost < 0.01 * (plain.pass_at_k(1)[0] - plain.pass_at_k(1)[-1])


def test_without_shared_parameters_it_is_the_sum():
    world = TabularSoftmax(4, masses=[0.1, 0.2, 0.3, 0.4])
    theta = torch.linspace(-1, 1, 8, dtype=torch.float64)
    mixture = Mixture((PassAtK(1), PassAtK(6)), (1, 1))
    combined = ascend(world, theta, ConflictFreeDirection(6), step_size=0.5, steps=5)
    torch.testing.assert_close(
        combined.theta, ascend(world, theta, mixture, step_size=0.5, steps=5).theta
    )


def test_in_the_natural_metric_of_a_small_damping_the_conflict_is_gone():
    world, theta = TwoPointBandit(), torch.tensor(THETA, dtype=torch.float64)
    cosines = []
    for damping in (1e-8, 1e8):
        direction = ConflictFreeDirection(10, metric=FisherMetric(damping))
        direction(world, theta)
        cosines.append(direction.history[0].cosine)
    assert cosines[0] > 0
    assert cosines[1] == pytest.approx(float(conflict(world, theta, [10]).cosine[0]), abs=1e-6)
    assert cosines[1] < 0
    assert "natural, damping 1e+08" in direction.label


def test_adam_within_and_adam_around():
    world = TwoPointBandit()
    within = ConflictFreeDirection(10, metric=AdamMetric(0.9))
    trace = ascend(world, THETA, within, step_size=0.01, steps=20)
    assert all((step.changes >= 0).all() for step in within.history)
    assert losses(trace, 1) > 0
    around = Adam(ConflictFreeDirection(10))
    again = ascend(world, THETA, around, step_size=0.01, steps=20)
    assert torch.isfinite(again.success).all()
    assert around.label == "Adam, pcgrad of pass@1 and pass@10"
    around.reset()
    assert around.direction.history == []
    within.reset()
    assert (within.history, within.metric.count) == ([], 0)


def test_the_history_as_a_table():
    direction = ConflictFreeDirection(10)
    ascend(TwoPointBandit(), THETA, direction, step_size=0.1, steps=3)
    table = direction.to_frame()
    assert list(table["step"]) == [0, 1, 2]
    first = direction.history[0]
    assert table["inner_product"][0] == float(first.gram[0, 1]) < 0
    assert table["change_base"][0] == pytest.approx(float((first.gram @ first.lambdas)[0]))
    assert table["lambda_objective"][0] == float(first.lambdas[1])


def test_annealing_k():
    direction = annealed(8, 1, steps=4)
    orders = [direction.objective_at(step).k for step in range(6)]
    assert orders == pytest.approx([8, 4, 2, 1, 1, 1])
    assert annealed(1, 1, steps=1).objective_at(0).k == 1
    assert direction.label == "pass@k, k from 8 to 1"


def test_it_stands_beside_objectives_in_a_comparison():
    table = compare_ascents(
        TwoPointBandit(), THETA, [PassAtK(10), ConflictFreeDirection(10), annealed(10, 1, steps=2)],
        ks=[1], step_size=0.1, steps=2,
    )  # fmt: skip
    assert set(table["objective"]) == {
        "pass@10",
        "pcgrad of pass@1 and pass@10",
        "pass@k, k from 10 to 1",
    }


def test_on_a_language_model(tiny_model, tiny_tokenizer):
    prompts = [("", f"{name}{x}+2=", str((x + 2 + i) % 10)) for i, name in enumerate("ab")
               for x in range(3)]  # fmt: skip
    world = LanguageWorld(tiny_model(), tiny_tokenizer, prompts)
    direction = ConflictFreeDirection(4, aggregator="constrained")
    p, vector = direction(world, world.own_parameters())
    rows = gradients(world, None, PassAtK(1), PassAtK(4))
    torch.testing.assert_close(vector, direction.history[0].lambdas @ rows)
    torch.testing.assert_close(p, world.success())
    natural = ConflictFreeDirection(4, metric=FisherMetric(0.1, relative=True))
    step = natural(world, world.own_parameters())[1]
    torch.testing.assert_close(rows @ step, natural.history[0].changes)


def test_what_goes_wrong_is_named():
    with pytest.raises(UserError, match="there is no aggregator 'best'"):
        ConflictFreeDirection(8, aggregator="best")
    with pytest.raises(UserError, match="at least 1"):
        ConflictFreeDirection(0.5)
    lost = TabularSoftmax(1), torch.tensor([-2000.0, 2000.0], dtype=torch.float64)
    with pytest.raises(UserError, match="not finite"):
        ConflictFreeDirection(Log())(*lost)
    assert math.isnan(run_to_the_end().history[0].cosine)


def run_to_the_end():
    direction = ConflictFreeDirection(3)
    solved = torch.tensor([2000.0, -2000.0], dtype=torch.float64)
    assert torch.equal(direction(TabularSoftmax(1), solved)[1], torch.zeros_like(solved))
    return direction


def test_the_history_is_of_plain_numbers():
    """Tensors of a few numbers, kept for thousands of steps, hold the memory around them."""
    world, direction = TwoPointBandit(), ConflictFreeDirection(8)
    ascend(world, (-1.0, 0.5), direction, steps=3)
    assert len(direction.history) == 3
    for surgery in direction.history:
        assert {type(value) for value in vars(surgery).values()} == {float}
        assert surgery.gram.dtype == surgery.lambdas.dtype == torch.float64
        assert torch.equal(surgery.gram, surgery.gram.T)


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_a_share_of_the_gain_is_kept(keep):
    kept = ConflictFreeDirection(10, aggregator="constrained", keep=keep)
    ascend(TwoPointBandit(), (-2, -2), kept, step_size=1, steps=3)
    for one in kept.history:
        assert one.inner_product < 0
        assert float(one.changes[0]) == pytest.approx(keep * one.square_base, abs=1e-12)
    assert ("keeping" in kept.label) == (keep > 0)
    with pytest.raises(UserError, match="keep belongs to 'constrained'"):
        ConflictFreeDirection(10, keep=0.5)
