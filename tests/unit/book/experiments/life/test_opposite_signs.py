import pytest
import torch

from passgrad.errors import UserError
from passgrad_book.experiments.life.opposite_signs import in_double, opposite_signs_world

SMALL = {"hidden_size": 32, "num_layers": 1, "num_prompts": 5}


def make(**options):
    return opposite_signs_world(**{**SMALL, **options})


def test_the_prompts_come_in_pairs_with_opposite_signs():
    world = make(warm_up_steps=0, hard_fraction=0.2)
    assert world.groups == ("easy",) * 5 + ("hard",) * 5
    for easy, hard in zip(world.prompts[:5], world.prompts[5:], strict=True):
        assert easy.question[0] + hard.question[0] == "ab"
        assert easy.question[1:] == hard.question[1:]
        assert int(easy.answer) == -int(hard.answer) == eval(easy.question[1:-1])
    torch.testing.assert_close(
        world.masses, torch.tensor([0.16] * 5 + [0.04] * 5, dtype=torch.float64)
    )


def test_the_warm_up_brings_the_families_to_their_rates():
    world = make(warm_up_steps=300)
    easy, hard = world.success().split(5)
    torch.testing.assert_close(easy.mean(), torch.tensor(0.94 * 0.32).double(), atol=0.04, rtol=0)
    torch.testing.assert_close(hard.mean(), torch.tensor(0.06 * 0.32).double(), atol=0.008, rtol=0)


def test_the_seed_decides():
    before = torch.random.get_rng_state()
    first, again, other = (make(warm_up_steps=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.own_parameters(), again.own_parameters())
    assert first.prompts == again.prompts != other.prompts


def test_the_same_world_in_float64():
    world = make(warm_up_steps=300)
    theta = world.own_parameters()
    double = in_double(world)
    assert (world.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(double.success(theta), world.success(), rtol=1e-5, atol=0)
    rows = torch.ones(1, 10, dtype=torch.float64)
    single, exact = world.vjp(theta, rows)[1][0], double.vjp(theta.double(), rows)[1][0]
    torch.testing.assert_close(exact.float(), single, rtol=1e-3, atol=1e-5)
    # Close to 1 float32 has no success rates but 1 - 6e-8, 1 - 1.2e-7 and so on.
    world.layout.views(theta)["model.norm.weight"].mul_(20)
    assert (world.success(theta)[:5] == 1).any()
    assert (double.success(theta)[:5] < 1).all()


def test_float64_is_float64_throughout():
    """A directional derivative as differences of so short a step that float32 anywhere shows."""
    double = in_double(make(warm_up_steps=20))
    theta = double.own_parameters()
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(theta), generator=generator, dtype=torch.float64)
    values = [double.log_success(theta + step * vector) for step in (1e-6, -1e-6)]
    slopes = double.jvp(theta, vector[None])[0] / double.success(theta)
    torch.testing.assert_close((values[0] - values[1]) / 2e-6, slopes, rtol=1e-6, atol=1e-7)


def test_the_default_has_a_million_weights():
    world = opposite_signs_world(warm_up_steps=0)
    assert 1.0e6 < world.num_parameters < 1.1e6
    assert all(one.grad is None for one in world.model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_prompts": 0}, "num_prompts must lie between 1 and 45, got 0"),
        ({"num_prompts": 46}, "got 46"),
        ({"hard_fraction": 1.0}, "hard_fraction must lie between 0 and 1, got 1.0"),
        ({"digit_rate": 0}, "digit_rate must lie between 0 and 1, got 0"),
        ({"hidden_size": 20}, "hidden_size must be a multiple of 8, got 20"),
    ],
)
def test_what_goes_wrong_is_named(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)
