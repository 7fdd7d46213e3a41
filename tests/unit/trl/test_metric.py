"""The diagonal in which an optimiser steps, against the steps that it takes."""

import pytest
import torch

from passgrad.trl.metric import optimiser_metric

OPTIMISERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.9)),
    "amsgrad": lambda p: torch.optim.AdamW(
        p, lr=0.1, betas=(0.0, 0.9), weight_decay=0.0, amsgrad=True
    ),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "two rates": lambda p: torch.optim.Adam(
        [{"params": p[:1], "lr": 0.1}, {"params": p[1:], "lr": 0.4}], betas=(0.0, 0.9)
    ),
}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(n, generator=generator)) for n in (4, 3)]


def step(optimizer, trained, seed, unused=1):
    generator = torch.Generator().manual_seed(seed)
    for one in trained:
        one.grad = torch.randn(one.shape, generator=generator) * 10.0**seed
        one.grad[:unused] = 0.0
    before = torch.cat([one.detach().clone() for one in trained])
    optimizer.step()
    gradient = torch.cat([one.grad for one in trained])
    return gradient, torch.cat([one.detach() for one in trained]) - before


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_diagonal_is_that_of_a_step(name):
    """After a step the moments are those that it was divided by."""
    trained = parameters()
    optimizer = OPTIMISERS[name](trained)
    assert optimiser_metric(optimizer, trained, None)[0] is None
    for seed in range(3):
        gradient, moved = step(optimizer, trained, seed)
        diagonal, said = optimiser_metric(optimizer, trained, None)
        assert said == type(optimizer).__name__
        used = gradient != 0
        ratio = -moved[used] / (gradient * diagonal)[used]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)
        assert not diagonal[~used].any()


def test_products_do_not_depend_on_the_scale_of_gradients():
    lengths = []
    for factor in (1.0, 1e4):
        trained = parameters()
        optimizer = torch.optim.AdamW(trained, eps=1e-12)
        for one in trained:
            one.grad = factor * torch.arange(1.0, 1 + len(one))
        optimizer.step()
        diagonal = optimiser_metric(optimizer, trained, None)[0]
        gradient = torch.cat([one.grad for one in trained])
        lengths.append(float((gradient * diagonal) @ gradient))
    assert lengths == pytest.approx([1.0, 1.0], rel=1e-5)


def test_what_has_no_known_metric():
    trained = parameters()
    plain = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    assert optimiser_metric(plain, trained, None) == (None, "")
    groups = [{"params": trained[:1], "lr": 0.1}, {"params": trained[1:], "lr": 0.2}]
    for optimizer, reason in (
        (torch.optim.SGD(groups), "the metric of SGD is not known"),
        (torch.optim.Adafactor(trained), "the metric of Adafactor is not known"),
        (torch.optim.RMSprop(trained, centered=True), "the metric of RMSprop is not known"),
        (torch.optim.Adam(trained[:1]), "Adam does not hold all trained parameters"),
        (torch.optim.Adam(trained), "Adam has no second moments yet"),
        (None, "there is no optimizer yet"),
    ):
        assert optimiser_metric(optimizer, trained, None) == (None, reason)
