import pytest
import torch

from passgrad.errors import UserError
from passgrad_book.experiments.small_models.small_language import small_language_world


def test_it_is_learned_in_part_and_the_same_each_time():
    world, again = (small_language_world(base=3, steps=15) for _ in range(2))
    assert torch.equal(world.own_parameters(), again.own_parameters())
    other = small_language_world(base=3, steps=15, seed=4)
    assert not torch.equal(world.own_parameters(), other.own_parameters())
    p = world.success()
    assert ((p > 0.01) & (p < 0.99)).all()
    assert world.masses[:9].sum() == pytest.approx(0.7)
    assert {x.id: x.answer for x in world.prompts}["a2+2"] == "1"
    assert {x.id: x.answer for x in world.prompts}["b2+2"] == "2"


def test_forward_and_backward_passes_agree_to_the_rounding_of_float64():
    """Norms in float32 or an embedding with a padding token would not let them."""
    world = small_language_world(base=2, steps=3)
    g = world.vjp(None, world.masses[None])[1][0]
    agreement = world.jvp(None, g[None])[0]
    assert float(world.masses @ agreement) == pytest.approx(float(g @ g), rel=1e-12)


@pytest.mark.parametrize("base", [1, 11])
def test_refusals(base):
    with pytest.raises(UserError, match="base must lie between 2 and 10"):
        small_language_world(base=base)
