import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.language import LanguageWorld
from passgrad_book.experiments.life.fixed_length import FixedLengthWorld

PROMPTS = [
    ("", f"{name}{x}+2=", str((x + 2 * i) % 9)) for i, name in enumerate("ab") for x in range(3, 6)
]


@pytest.fixture(scope="module")
def worlds(tiny_model, tiny_tokenizer):
    """The same model and prompts, in one batch and packed."""
    masses = torch.softmax(torch.arange(6.0), 0).double()
    model = tiny_model()
    return [
        kind(model, tiny_tokenizer, PROMPTS, masses=masses)
        for kind in (FixedLengthWorld, LanguageWorld)
    ]


def test_the_numbers_are_those_of_a_language_world(worlds):
    batch, packed = worlds
    theta = batch.own_parameters()
    torch.testing.assert_close(batch.success(), packed.success())
    torch.testing.assert_close(batch.log_success(theta), packed.log_success())
    weights = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(batch.vjp(theta, weights), packed.vjp(theta, weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    for one, other in zip(
        batch.objective_gradient(theta, PassAtK(4)),
        packed.objective_gradient(theta, PassAtK(4)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    directions = batch.vjp(theta, weights[:1])[1]
    torch.testing.assert_close(batch.jvp(theta, directions), packed.jvp(theta, directions))
    for name in ("gradient", "inner_products", "squared_norms"):
        torch.testing.assert_close(
            *(getattr(world.gradient_products(theta, world.masses, weights), name)
              for world in worlds),
            atol=1e-9, rtol=1e-9,
        )  # fmt: skip
    torch.testing.assert_close(batch.kernel(), packed.kernel(), atol=1e-12, rtol=1e-8)


def test_it_serves_the_functions_of_the_package(worlds):
    one, other = (conflict(world, ks=[1, 8]) for world in worlds)
    torch.testing.assert_close(one.cosine, other.cosine)
    torch.testing.assert_close(one.agreement, other.agreement, atol=1e-12, rtol=1e-8)


def test_the_model_stays_as_it_is(worlds):
    before = worlds[0].own_parameters()
    worlds[0].objective_gradient(before + 0.1, PassAtK(2))
    worlds[0].success(before + 0.1)
    assert torch.equal(worlds[0].own_parameters(), before)
    assert all(one.grad is None for one in worlds[0].model.parameters())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (("", "a34+2=", "3"), r"has 6 \+ 2 tokens, the first one 5 \+ 2"),
        (("", "a3+2=", "35"), r"has 5 \+ 3 tokens, the first one 5 \+ 2"),
    ],
)
def test_other_lengths_are_refused(tiny_model, tiny_tokenizer, prompt, message):
    with pytest.raises(UserError, match=message):
        FixedLengthWorld(tiny_model(), tiny_tokenizer, [*PROMPTS, prompt])
