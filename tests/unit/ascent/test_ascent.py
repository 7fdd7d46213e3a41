import math
import weakref

import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.base import AnalyticWorld
from passgrad.worlds.tabular import TabularSoftmax

THETA = (-2.0, -2.0)


def test_it_follows_the_gradient():
    world = TwoPointBandit()
    trace = ascend(world, THETA, PassAtK(3), step_size=0.5, steps=4, record_theta=True)
    theta = torch.tensor(THETA, dtype=torch.float64)
    for t in range(5):
        torch.testing.assert_close(trace.thetas[t], theta)
        torch.testing.assert_close(trace.success[t], world.success(theta))
        theta = theta + 0.5 * world.objective_gradient(theta, PassAtK(3))[1]
    torch.testing.assert_close(trace.theta, trace.thetas[-1])
    assert trace.success.shape == (5, 2)
    assert trace.success.dtype == torch.float64


def test_it_follows_any_direction():
    class Shrinking:
        """Half of the gradient before, and so on: a direction with a state."""

        label, factor = "shrinking", 2.0

        def __call__(self, world, theta):
            self.factor /= 2
            p, gradient = world.objective_gradient(theta, PassAtK(3))
            return p, self.factor * gradient

    world, direction = TwoPointBandit(), Shrinking()
    trace = ascend(world, THETA, direction, step_size=0.5, steps=2, record_theta=True)
    first = torch.tensor(THETA, dtype=torch.float64)
    second = first + 0.5 * world.objective_gradient(first, PassAtK(3))[1]
    third = second + 0.25 * world.objective_gradient(second, PassAtK(3))[1]
    torch.testing.assert_close(trace.thetas, torch.stack([first, second, third]))
    torch.testing.assert_close(trace.success[1], world.success(second))
    assert trace.objective is direction


def test_small_steps_raise_their_own_objective():
    for k in (1, 10):
        rising = ascend(GaussianBandit(), THETA, PassAtK(k), step_size=0.1, steps=30).pass_at_k(k)
        assert (rising.diff() > 0).all()


def test_no_step_at_all():
    trace = ascend(TwoPointBandit(), THETA, steps=0)
    assert trace.success.shape == (1, 2)
    assert trace.theta.tolist() == list(THETA)


def test_the_default_is_one_step_on_pass_at_10():
    assert ascend(TwoPointBandit(), THETA).objective == PassAtK(10)
    assert len(ascend(TwoPointBandit(), THETA).success) == 2


def test_the_theta_of_the_caller_stays_and_keeps_no_graph():
    theta = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    trace = ascend(TwoPointBandit(), theta, steps=3)
    assert theta.tolist() == list(THETA)
    assert trace.thetas is None
    assert not trace.theta.requires_grad
    assert not trace.success.requires_grad


class Counting(AnalyticWorld):
    """A bandit that counts how many of the gradients it has handed out are still alive."""

    num_parameters = 2

    def __init__(self):
        self.bandit = TwoPointBandit()
        self.masses, self.groups = self.bandit.masses, self.bandit.groups
        self.gradients = []

    def success_and_jacobian(self, theta=None):
        return self.bandit.success_and_jacobian(theta)

    def objective_gradient(self, theta, objective):
        assert all(gradient() is None for gradient in self.gradients)
        p, gradient = self.bandit.objective_gradient(theta, objective)
        self.gradients.append(weakref.ref(gradient))
        return p, gradient


def test_no_gradient_outlives_its_step():
    world = Counting()
    ascend(world, THETA, steps=5)
    assert len(world.gradients) == 5


def test_values_of_the_trace():
    world = TwoPointBandit(hard_fraction=0.3)
    trace = ascend(world, THETA, steps=2)
    easy, hard = trace.success.T
    torch.testing.assert_close(trace.pass_at_k(1), 0.7 * easy + 0.3 * hard)
    torch.testing.assert_close(trace.value(PassAtK(4)), trace.pass_at_k(4))
    by_group = trace.group_pass_at_k(4)
    assert list(by_group) == ["easy", "hard"]
    torch.testing.assert_close(by_group["hard"], 1 - (1 - hard) ** 4)


def test_groups_are_weighed_by_the_law_of_their_prompts():
    world = TabularSoftmax(3, masses=[0.1, 0.3, 0.6], groups=["a", "a", "b"])
    trace = ascend(world, torch.arange(6.0), steps=0)
    p = trace.success[0]
    expected = (0.1 * p[0] + 0.3 * p[1]) / 0.4
    torch.testing.assert_close(trace.group_pass_at_k(1)["a"][0], expected)


class Broken(Counting):
    """A world whose success rates are lost once theta has moved by more than one."""

    def success_and_jacobian(self, theta=None):
        p, jacobian = self.bandit.success_and_jacobian(theta)
        moved = (self.parameters(theta) + 2).abs().max() > 1
        return (p * math.nan if moved else p), jacobian

    def objective_gradient(self, theta, objective):
        return AnalyticWorld.objective_gradient(self, theta, objective)


@pytest.mark.parametrize(
    ("world", "steps", "step_size", "message"),
    [
        (TwoPointBandit(), 1, 1e308, None),
        (TwoPointBandit(), 1, math.inf, "step_size must be a finite number, got inf"),
        (TwoPointBandit(), 1, math.nan, "step_size must be a finite number, got nan"),
        (TwoPointBandit(), 1, "5", "step_size must be a finite number, got '5'"),
        (TwoPointBandit(), -1, 1.0, "steps must be a whole number of at least 0, got -1"),
        (TwoPointBandit(), 1.5, 1.0, "steps must be a whole number of at least 0, got 1.5"),
        (Broken(), 1, 9.0, "at step 1: choose a step_size smaller than 9"),
        (Broken(), 4, 9.0, "at step 1: choose a step_size smaller than 9"),
    ],
)
def test_what_goes_wrong_is_named(world, steps, step_size, message):
    if message is None:
        assert torch.isfinite(ascend(world, THETA, step_size=step_size, steps=steps).success).all()
        return
    with pytest.raises(UserError, match=message):
        ascend(world, THETA, step_size=step_size, steps=steps)


def test_parameters_that_overflow_are_named_with_their_step():
    class Steep(TwoPointBandit):
        def objective_gradient(self, theta, objective):
            p, gradient = super().objective_gradient(theta, objective)
            return p, torch.full_like(gradient, 1e308)

    with pytest.raises(UserError, match="left the finite numbers at step 2"):
        ascend(Steep(), THETA, step_size=1.0, steps=5)


def test_progress_is_told_and_changes_nothing(told):
    quiet = ascend(TwoPointBandit(), THETA, steps=3)
    shown = ascend(TwoPointBandit(), THETA, steps=3, progress=told)
    assert torch.equal(quiet.success, shown.success)
    assert (told.stages, told.done) == ([("ascending pass@10", 3)], 3)


def test_every_point_is_observed_before_its_gradient_is_taken():
    world, seen = Counting(), []

    def observe(step, theta):
        assert all(gradient() is None for gradient in world.gradients)
        assert len(world.gradients) == step
        seen.append((step, theta.clone()))

    trace = ascend(world, THETA, steps=3, record_theta=True, observe=observe)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(torch.stack([theta for _, theta in seen]), trace.thetas)
    assert len(world.gradients) == 3


@pytest.mark.parametrize("last", [0, 2, 4])
def test_it_stops_where_it_is_told(last):
    world, asked = Counting(), []

    def stop(step, theta, success):
        assert torch.equal(success, world.success(theta))
        asked.append(step)
        return step == last

    whole = ascend(TwoPointBandit(), THETA, steps=4, record_theta=True)
    trace = ascend(world, THETA, steps=4, record_theta=True, stop=stop)
    assert asked == list(range(last + 1))
    assert torch.equal(trace.success, whole.success[: last + 1])
    assert torch.equal(trace.thetas, whole.thetas[: last + 1])
    assert torch.equal(trace.theta, whole.thetas[last])
    # One for each step, and the one at whose point it was told to stop.
    assert len(world.gradients) == min(last + 1, 4)


def test_the_step_size_may_change_from_step_to_step():
    sizes = [0.5, 2.0]
    trace = ascend(TwoPointBandit(), THETA, step_size=lambda step: sizes[step], steps=2)
    first = ascend(TwoPointBandit(), THETA, step_size=0.5, steps=1)
    second = ascend(TwoPointBandit(), first.theta, step_size=2.0, steps=1)
    assert torch.equal(trace.theta, second.theta)
    with pytest.raises(UserError, match="step_size must be a finite number, got inf"):
        ascend(TwoPointBandit(), THETA, step_size=lambda step: math.inf, steps=1)
    with pytest.raises(UserError, match="at step 1: take shorter steps"):
        ascend(Broken(), THETA, step_size=lambda step: 9.0, steps=1)
