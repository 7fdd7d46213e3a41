"""Products of the policy gradients of prompts, against the gradient of every completion."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import advantages
from passgrad.lm.completions import Completions
from passgrad.lm.groups import groups_of, layers_of
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.products.prompt_gram import PromptVectors, plan_gram, prompt_gram, spanning

from ..test_passes import DRAWN, PROMPTS, REWARDS, every_gradient

GIB = 2**30


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def case(request, tiny_model):
    model = tiny_model(tied=request.param)
    some = Completions.from_tokens(PROMPTS, DRAWN)
    # So small a budget that the completions of a prompt take several rows.
    return CompletionPasses(model, some, REWARDS, token_budget=8), every_gradient(model)[1]


def expected(gradients, coefficients):
    u = torch.einsum("lxi,xid->lxd", coefficients, gradients)
    return torch.einsum("lxd,myd->lmxy", u, u)


def close(a, b, share=1e-10):
    assert float((a - b).norm()) <= share * float(b.norm())


def largest(passes):
    """Bytes of the gradient of the largest parameter."""
    return max(shape.numel() for shape in passes.layout.shapes.values()) * 8


def test_every_size_of_block_gives_the_products_of_the_gradients(case):
    passes, gradients = case
    assert len(passes.rows(passes.completions.chosen())) > len(PROMPTS)
    coefficients = random(2, 3, 4)
    numbers = []
    for size in (3 * largest(passes), 12 * largest(passes), 10**9):
        found = prompt_gram(passes, coefficients, memory_gib=size / GIB)
        close(found.kernel, expected(gradients, coefficients))
        assert found.kernel.dtype == torch.float64
        numbers.append(len(found.plan.blocks))
    assert numbers[0] > numbers[1] > numbers[2] == 1


def test_the_plan_is_what_happens(case):
    passes, _ = case
    coefficients = random(2, 3, 4)
    coefficients[:, 1] = 0
    calls = []
    hook = passes.model.register_forward_pre_hook(lambda *_: calls.append(1))
    for x in (0, 2):
        passes.gradient(coefficients[0] * (torch.arange(3) == x)[:, None])
    rows = len(calls)
    for memory in (4 * largest(passes), 10**9):
        plan = plan_gram(passes, coefficients, memory_gib=memory / GIB)
        assert plan.num_vectors == 4
        assert plan.peak_bytes <= memory
        pieces = [piece for block in plan.blocks for piece in block]
        sizes = dict.fromkeys(passes.layout.shapes, 0)
        for piece in pieces:
            assert piece.start == sizes[piece.name]  # in order, none twice
            sizes[piece.name] = piece.stop
        assert sizes == {name: shape.numel() for name, shape in passes.layout.shapes.items()}
        calls.clear()
        prompt_gram(passes, coefficients, memory_gib=memory / GIB)
        assert plan.forward_passes == 2 * len(plan.blocks)
        assert plan.backward_passes == 4 * len(plan.blocks)
        # However many vectors, a block takes the forward passes of one gradient.
        assert len(calls) == rows * len(plan.blocks)
        # What is kept of a block and the gradients that autograd makes at once.
        for block in plan.blocks:
            columns = sum(piece.stop - piece.start for piece in block)
            making = sum(passes.layout.shapes[piece.name].numel() for piece in block)
            assert 8 * (4 * columns + making + 4 * plan.chunk) <= plan.peak_bytes
    hook.remove()


def test_any_number_of_orders_takes_two_vectors_a_prompt(case):
    passes, gradients = case
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    orders = advantages(rewards, [1, 2, 3], estimator="pkpo")
    found = prompt_gram(passes, orders, memory_gib=1)
    close(found.kernel, expected(gradients, orders))
    assert found.plan.num_vectors <= 2 * 3
    centred = advantages(rewards, [1, 2, 3], estimator="centred-l2o")
    found = prompt_gram(passes, centred, memory_gib=1)
    close(found.kernel, expected(gradients, centred))
    assert found.plan.num_vectors == 2  # one prompt has right answers only
    assert (found.kernel[:, :, 1] == 0).all()


def test_a_basis_makes_the_coefficients():
    rows = torch.tensor([[1.0, 0, 0, 2], [2, 1, 1, 4], [3, 1, 1, 6]]).double()
    basis, mix = spanning(rows)
    assert len(basis) == 2
    torch.testing.assert_close(mix @ basis, rows, atol=1e-13, rtol=0)
    one, same = spanning(rows[:1])
    assert torch.equal(one, rows[:1])
    assert torch.equal(same, torch.ones(1, 1).double())


def test_parts_add_up(case):
    passes, gradients = case
    coefficients = random(1, 3, 4)
    for parts in (layers_of(passes.layout), groups_of(passes.layout)):
        found = prompt_gram(
            passes, coefficients, memory_gib=12 * largest(passes) / GIB, parts=parts
        )
        close(sum(found.parts.values()), expected(gradients, coefficients))
        assert set(found.parts) == set(parts.values())
        for part, kernel in found.parts.items():
            mask = torch.zeros(passes.layout.num_parameters, dtype=torch.float64)
            for name, view in passes.layout.views(mask).items():
                view.fill_(float(parts[name] == part))
            close(kernel, expected(gradients * mask, coefficients))


def test_it_goes_on_where_it_stopped(case, shown):
    passes, gradients = case
    coefficients = random(1, 3, 4)
    store, made = {}, []

    def keep(name, *made_from, compute):
        key = (name, *(tuple(x.flatten().tolist()) for x in made_from))
        if key not in store:
            if len(made) == 2 and len(shown.stages) == 1:
                raise KeyboardInterrupt
            made.append(key)
            store[key] = compute()
        return store[key]

    options = {"memory_gib": 8 * largest(passes) / GIB, "keep": keep}
    with pytest.raises(KeyboardInterrupt):
        prompt_gram(passes, coefficients, progress=shown, **options)
    found = prompt_gram(passes, coefficients, progress=shown, **options)
    close(found.kernel, expected(gradients, coefficients))
    assert len(made) == len(found.plan.blocks) > 2
    stage, total, advanced = shown.stages[1]
    assert (stage, total) == ("products of the gradients of prompts", found.plan.forward_passes)
    assert advanced == total  # those that were kept count too


def test_float32_is_added_up_in_float64(case, tiny_model):
    _, gradients = case
    some = Completions.from_tokens(PROMPTS, DRAWN)
    model = tiny_model(dtype="float32", tied=True)
    passes = CompletionPasses(model, some, REWARDS)
    found = prompt_gram(passes, random(1, 3, 4), memory_gib=1)
    assert found.kernel.dtype == torch.float64
    if gradients.shape[-1] == passes.layout.num_parameters:
        close(found.kernel, expected(gradients, random(1, 3, 4)), 1e-4)


def test_nothing_to_do(case):
    found = prompt_gram(case[0], torch.zeros(2, 3, 4), memory_gib=1)
    assert found.kernel.shape == (2, 2, 3, 3)
    assert not found.kernel.any()
    assert found.plan.num_vectors == found.plan.forward_passes == 0


def test_clear_errors(case):
    passes, c = case[0], random(1, 3, 4)
    with pytest.raises(UserError, match=r"shape \(3, 4\); give \(L, 3, 4\)"):
        prompt_gram(passes, c[0], memory_gib=1)
    with pytest.raises(UserError, match="not finite"):
        PromptVectors.of(passes, c * torch.nan)
    with pytest.raises(UserError, match="too little for the gradient of model.embed_tokens"):
        plan_gram(passes, c, memory_gib=1e-7)
    with pytest.raises(UserError, match="give a positive number"):
        plan_gram(passes, c, memory_gib=0)
    with pytest.raises(UserError, match="no part is given for the parameter model.embed"):
        prompt_gram(passes, c, memory_gib=1, parts={})


def test_the_limit_that_an_error_names_is_enough(case):
    passes, c = case[0], random(2, 3, 4)
    with pytest.raises(UserError, match="too little for the gradient of") as error:
        plan_gram(passes, c, memory_gib=1e-6)
    # It is printed with two digits.
    least = 1.06 * float(str(error.value).rsplit(" ", 1)[1])
    assert plan_gram(passes, c, memory_gib=least).peak_bytes <= least * GIB


def test_the_weights_are_left_alone(case):
    passes = case[0]
    before = passes.layout.flatten(passes.model)
    prompt_gram(passes, random(1, 3, 4), memory_gib=1)
    assert torch.equal(before, passes.layout.flatten(passes.model))
    assert all(p.grad is None for p in passes.model.parameters())
