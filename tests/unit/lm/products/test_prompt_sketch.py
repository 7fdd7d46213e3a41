"""Sketched products: unbiased over seeds, with an error that is what they say."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.parameters import ParameterLayout
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.products.prompt_gram import prompt_gram
from passgrad.lm.products.prompt_sketch import Sketch, sketch_error, sketched_gram

from ..test_passes import DRAWN, PROMPTS, REWARDS
from .test_prompt_gram import random


@pytest.fixture(scope="module")
def layout():
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 25))
    return ParameterLayout(model)


def fold(layout, vectors, length, repeats, seed):
    """(V, repeats, length)."""
    sketch = Sketch(layout, length, repeats, seed)
    result = []
    for vector in vectors:
        into = sketch.empty()
        for name, piece in layout.views(vector).items():
            sketch.add(name, piece, into)
        result.append(sketch.finish(into))
    return torch.stack(result).double()


def outlying(layout):
    """Two vectors with a product, entries of very different size, and some on a regular grid."""
    v = random(2, layout.num_parameters, seed=3)
    v[:, ::40] *= 6
    v[1] += 0.5 * v[0]
    return v


def test_it_is_unbiased_over_seeds_with_the_variance_of_a_count_sketch(layout):
    v, length = outlying(layout), 64
    products = []
    for seed in range(1000):
        a, b = fold(layout, v, length, 1, seed)[:, 0]
        products.append(float(a @ b))
    found = torch.tensor(products, dtype=torch.float64)
    exact = float(v[0] @ v[1])
    assert abs(found.mean() - exact) < 4 * found.std() / len(found) ** 0.5
    variance = float((v[0] @ v[0]) * (v[1] @ v[1]) + exact**2) / length
    assert 0.75 * variance < float(found.var()) < 1.15 * variance


def test_repetitions_err_apart(layout):
    """One sketch of the same signs says nothing about the error of the next."""
    v = outlying(layout)
    errors = []
    for seed in range(1000):
        a, b = fold(layout, v, 64, 2, seed)
        errors.append((a * b).sum(-1) - float(v[0] @ v[1]))
    correlation = torch.corrcoef(torch.stack(errors).T)[0, 1]
    assert abs(float(correlation)) < 4 / 1000**0.5


def test_no_entry_is_lost_and_none_moves_alone(layout):
    sketch = Sketch(layout, 16, 3, seed=0)
    for name, shape in layout.shapes.items():
        into = sketch.empty()
        one = torch.zeros(shape)
        one.view(-1)[-1] = 2.0
        sketch.add(name, one, into)
        assert (sketch.finish(into).abs().sum(1) == 2).all()


@pytest.fixture(scope="module")
def passes(tiny_model):
    some = Completions.from_tokens(PROMPTS, DRAWN)
    return CompletionPasses(tiny_model(dtype="float32"), some, REWARDS, token_budget=8)


def test_against_the_exact_kernel(passes):
    c = random(2, 3, 4)
    exact = prompt_gram(passes, c, memory_gib=1)
    measured, said = [], []
    for seed in range(12):
        found = sketched_gram(passes, c, size=1024, repeats=8, seed=seed)
        error, own = sketch_error(found, exact)
        measured.append(error**2)
        said.append(own**2)
        assert found.relative_error == pytest.approx(own, rel=0.3)
    ratio = (sum(said) / sum(measured)) ** 0.5
    assert 0.8 < ratio < 1.25
    assert (sum(measured) / 12) ** 0.5 < 1.3 / 1024**0.5
    more = sketched_gram(passes, c, size=2**15, repeats=8)
    assert more.relative_error < 0.4 * found.relative_error


def test_some_prompts_are_enough_to_see_the_error(passes):
    c = random(1, 3, 4)
    some = torch.zeros(1, 3, 4, dtype=torch.float64)
    some[:, [0, 2]] = c[:, [0, 2]]
    full = prompt_gram(passes, some, memory_gib=1)
    sketched = sketched_gram(passes, c, size=512)
    part = type(full)(full.kernel[..., [0, 2], :][..., [0, 2]], {}, full.plan)
    error, _ = sketch_error(sketched, part, [0, 2])
    assert 0 < error < 0.2
    with pytest.raises(UserError, match="name the prompts of the exact one"):
        sketch_error(sketched, part)


def test_one_pass_a_prompt_and_none_for_what_is_kept(passes, shown):
    c, store, calls = random(2, 3, 4), {}, []
    c[:, 1] = 0

    def keep(name, *made_from, compute):
        key = (name, *(tuple(x.flatten().tolist()) for x in made_from))
        if key not in store:
            calls.append(key)
            store[key] = compute()
        return store[key]

    options = {"size": 256, "keep": keep, "progress": shown}
    first = sketched_gram(passes, c, **options)
    assert len(calls) == 2
    again = sketched_gram(passes, c, **options)
    assert len(calls) == 2
    assert torch.equal(first.kernel, again.kernel)
    assert shown.stages == [["sketches of the gradients of prompts", 2, 2]] * 2
    other = sketched_gram(passes, c, seed=1, **options)
    assert len(calls) == 4
    assert not torch.equal(first.kernel, other.kernel)


def test_at_least_two_repeats(passes):
    with pytest.raises(UserError, match="at least 2 repeats"):
        sketched_gram(passes, random(1, 3, 4), repeats=1)
    with pytest.raises(UserError, match="at least as many numbers"):
        sketched_gram(passes, random(1, 3, 4), size=4)
