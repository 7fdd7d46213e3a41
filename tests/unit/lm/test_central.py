"""Central differences: the derivative, the choice of the step, and the weights put back."""

import math

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.central import START, TOLERANCE, Displacement, central_differences, search


class Landscape:
    """f_i(theta) = sin(bend * <a_i, theta>) / bend + noise, with its derivative along v."""

    def __init__(self, bend=1.0, noise=0.0, dtype=torch.float64, count=12):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.parameters = {"a": draw(3, 4).to(dtype), "b": draw(5).to(dtype)}
        self.directions = {"a": draw(3, 4).to(dtype), "b": draw(5).to(dtype)}
        self.rows, self.bend, self.noise = draw(count, 17), bend, noise
        self.generator, self.calls = generator, []

    def flat(self, named):
        return torch.cat([named[name].flatten() for name in ("a", "b")]).double()

    def evaluate(self, places):
        self.calls.append(list(places))
        inner = self.rows[list(places)] @ self.flat(self.parameters)
        rough = torch.randn(len(places), generator=self.generator, dtype=torch.float64)
        return (self.bend * inner).sin() / self.bend + self.noise * rough

    def slopes(self):
        inner = self.rows @ self.flat(self.parameters)
        return (self.bend * inner).cos() * (self.rows @ self.flat(self.directions))

    def differences(self, **options):
        return central_differences(
            self.evaluate, len(self.rows), self.parameters, self.directions,
            **{"pilot": [1, 5, 7], **options},
        )  # fmt: skip

    def off(self, found):
        exact = self.slopes()
        return float((found.slopes - exact).norm() / exact.norm())


def bits(named):
    return {name: value.clone().view(torch.int64) for name, value in named.items()}


def test_the_derivative_of_a_smooth_function():
    world = Landscape()
    found = world.differences()
    assert world.off(found) < 1e-9
    assert found.error < TOLERANCE
    theta, v = world.flat(world.parameters).norm(), world.flat(world.directions).norm()
    assert found.step == pytest.approx(float(START / 2 * theta / v))


def test_two_evaluations_of_each_and_two_more_of_the_pilot():
    world = Landscape()
    world.differences()
    counts = [sum(i in call for call in world.calls) for i in range(12)]
    assert counts == [4 if i in (1, 5, 7) else 2 for i in range(12)]


def test_a_sharp_bend_takes_a_shorter_step():
    bent = Landscape(bend=3e4)
    found = bent.differences()
    exact = bent.slopes()
    fixed = bent.differences(tolerance=math.inf)
    assert found.step < fixed.step
    assert bent.off(found) < TOLERANCE
    assert float((fixed.slopes - exact).norm() / exact.norm()) > 3 * bent.off(found)


def test_noise_takes_a_longer_step():
    rough = Landscape(noise=1e-7)
    found = rough.differences(pilot=range(12))
    fixed = rough.differences(tolerance=math.inf)
    assert found.step > 4 * fixed.step
    assert rough.off(found) < 0.3 * rough.off(fixed)


def test_where_no_two_steps_agree_it_says_so():
    hopeless = Landscape(bend=3e4, noise=1e-6)
    assert hopeless.differences().error > 1e-2
    before = bits(hopeless.parameters)
    assert hopeless.differences(limit=1e-2) is None
    assert all(torch.equal(before[n], b) for n, b in bits(hopeless.parameters).items())


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ({0: 1e-4}, (0, 1e-4)),
        ({0: 0.4, 1: 0.1, 2: 5e-4}, (2, 5e-4)),
        ({0: 0.4, 1: 0.1, 2: 0.2}, (1, 0.1)),
        ({0: 0.4, 1: 0.9, -1: 0.2, -2: 1e-4}, (-2, 1e-4)),
        ({0: 0.4, 1: 0.9, -1: 0.2, -2: 0.3}, (-1, 0.2)),
        ({0: 0.4, 1: 0.9, -1: 0.5}, (0, 0.4)),
    ],
)
def test_the_search_goes_on_while_it_helps(gaps, expected):
    assert search(gaps.__getitem__, TOLERANCE) == expected


def test_the_search_ends():
    best, _ = search(lambda i: 0.5 * 0.9**i, TOLERANCE)
    assert 0 < best < 20


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("failing", [None, 0, 1, 2, 5])
def test_weights_come_back_bit_for_bit(dtype, failing):
    world = Landscape(dtype=dtype, noise=1e-4)
    awkward = [-0.0, 0.0, 1e-42, 3.14159274, 1e8]  # what subtracting the step would lose
    world.parameters["b"].copy_(torch.tensor(awkward))
    before = {name: value.clone() for name, value in world.parameters.items()}
    pointers = {name: value.data_ptr() for name, value in world.parameters.items()}
    plain = world.evaluate

    def evaluate(places):
        if len(world.calls) == failing:
            raise Interrupted
        return plain(places)

    world.evaluate = evaluate
    if failing is None:
        world.differences()
    else:
        with pytest.raises(Interrupted):
            world.differences()
    as_whole = torch.int64 if dtype == torch.float64 else torch.int32
    for name, value in world.parameters.items():
        assert torch.equal(value.view(as_whole), before[name].view(as_whole))
        assert value.data_ptr() == pointers[name]


def test_a_displacement_moves_what_has_a_direction():
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    with Displacement(weights, {"a": torch.tensor([1.0, -1.0])}) as displaced:
        displaced.to(0.5)
        assert weights["a"].tolist() == [1.5, 1.5]
        displaced.to(-0.5)  # from theta, not from where it was
        assert weights["a"].tolist() == [0.5, 2.5]
        assert weights["b"].tolist() == [3.0]
    assert weights["a"].tolist() == [1.0, 2.0]


def test_entries_below_the_last_place_are_not_lost():
    """Plain rounding would leave every weight where it is, and the derivative at zero."""
    weights = {"a": torch.full((2_000_000,), 0.75)}
    weights["a"][1::2] *= -1
    v = {"a": torch.ones(2_000_000)}
    v["a"][::5] = 0
    before = weights["a"].clone()
    with Displacement(weights, v) as displaced:
        for step in (1e-9, -1e-8, 1e-3):
            assert step > 1e-8 or torch.equal(before + step * v["a"], before)
            displaced.to(step)
            moved = weights["a"].double() - before.double()
            assert float(moved.sum()) == pytest.approx(step * float(v["a"].sum()), rel=0.05)
            assert torch.equal(weights["a"][::5], before[::5])
            assert float((moved - step * v["a"]).abs().max()) < 2**-24
    assert torch.equal(weights["a"], before)


def test_weights_in_bfloat16_move_in_the_mean():
    weights = {"a": torch.full((500_000,), 0.75, dtype=torch.bfloat16)}
    weights["a"][1::2] *= -1
    before = weights["a"].clone()
    v = {"a": torch.ones(500_000)}
    with Displacement(weights, v) as displaced:
        for step in (1e-5, -1e-4, 3e-3):
            displaced.to(step)
            moved = weights["a"].double() - before.double()
            assert float(moved.mean()) == pytest.approx(step, rel=0.15)
            assert float((moved - step).abs().max()) <= 2**-8
    assert torch.equal(weights["a"], before)


def test_weights_in_float16_are_refused():
    weights = {"a": torch.ones(3, dtype=torch.float16)}
    with pytest.raises(UserError, match=r"torch.float16 cannot be moved.*float32 or bfloat16"):
        Displacement(weights, {"a": torch.ones(3)})


def test_weights_of_any_layout_can_be_moved():
    weight = torch.arange(12.0).reshape(3, 4).T
    with Displacement({"a": weight}, {"a": torch.ones(4, 3)}) as displaced:
        displaced.to(0.5)
        assert torch.equal(weight, torch.arange(12.0).reshape(3, 4).T + 0.5)
    assert torch.equal(weight, torch.arange(12.0).reshape(3, 4).T)


def test_parameters_that_record_gradients_can_be_moved():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    with Displacement({"a": weight}, {"a": torch.tensor([1.0, 1.0])}) as displaced:
        displaced.to(1.0)
        assert weight.tolist() == [2.0, 3.0]
    assert weight.requires_grad
    assert weight.grad is None


def test_along_nothing_everything_is_zero():
    world = Landscape()
    for v in world.directions.values():
        v.zero_()
    found = world.differences()
    assert found.slopes.tolist() == [0.0] * 12
    assert world.calls == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_weights_are_refused(dtype):
    world = Landscape()
    world.parameters = {name: value.to(dtype) for name, value in world.parameters.items()}
    with pytest.raises(UserError, match=r"in torch.*float16 are lost .*load the model in float32"):
        world.differences()


def test_refusals():
    world = Landscape()
    with pytest.raises(UserError, match="no pilot"):
        world.differences(pilot=[])
    world.directions["a"][0, 0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        world.differences()


def test_lengths_over_several_processes_set_the_step():
    world = Landscape()
    lengths = {id(world.directions["a"]): 3.0, id(world.parameters["a"]): 12.0}
    found = world.differences(norm=lambda named: lengths[id(named["a"])])
    assert found.step == pytest.approx(START / 2 * 12 / 3)
    assert world.off(found) < 1e-9


def test_what_the_first_process_found_decides():
    world = Landscape()
    own = world.differences()
    numbers, told = [], iter([0.4, 1e-5])

    def agree(value):
        numbers.append(value)
        return value if len(numbers) <= 2 else next(told)

    found = world.differences(agree=agree)
    # The two lengths, and the gaps of two pairs of steps. Its own first gap is small enough.
    assert len(numbers) == 4
    assert numbers[2] == own.error < TOLERANCE
    assert found.step == own.step / 2
    assert found.error == 1e-5
    assert world.differences(agree=lambda value: max(value, 0.1), limit=1e-2) is None
