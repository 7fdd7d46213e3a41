"""The Gram matrix of gradients in blocks of parameters."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.products.gram import _blocks, blockwise_gram

GIB = 2**30


@pytest.fixture
def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (3, 4), "b": (5,), "c": (2, 3), "d": ()}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def scalar(i, parameters):
    """Four functions in which every parameter matters."""
    a, b, c, d = (parameters[name] for name in "abcd")
    return torch.sin((i + 1) * a.sum() + b.square().sum() * d) + (c.exp() * (i - 1.5)).sum()


def plain(parameters):
    rows = []
    for i in range(4):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
        gradients = torch.autograd.grad(scalar(i, leaves), list(leaves.values()))
        rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    return torch.stack(rows) @ torch.stack(rows).T


@pytest.mark.parametrize("size", [1, 5 * 8 * 4, 5 * 8 * 4 * 3, 10**9])
def test_blocks_do_not_change_the_matrix(parameters, size):
    gram = blockwise_gram(scalar, 4, parameters, memory_gib=size / GIB)
    torch.testing.assert_close(gram, plain(parameters), atol=1e-12, rtol=1e-12)
    assert gram.dtype == torch.float64


def test_float32_gradients_are_added_up_in_float64(parameters):
    single = {name: tensor.float() for name, tensor in parameters.items()}
    gram = blockwise_gram(scalar, 4, single, memory_gib=1)
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram, plain(parameters), atol=1e-4, rtol=1e-4)


def test_blocks_hold_what_fits(parameters):
    bytes_each = 8 * 4  # float64, four gradients
    everything = (12 + 5 + 6 + 1) * bytes_each
    assert [list(block) for block in _blocks(parameters, 4, everything)] == [list("abcd")]
    assert len(list(_blocks(parameters, 4, 1))) == 12 + 5 + 6 + 1
    for limit in range(bytes_each, everything, 50):
        blocks = list(_blocks(parameters, 4, limit))
        pieces = [(name, piece) for block in blocks for name, piece in block.items()]
        for name, tensor in parameters.items():
            entries = [i for one, piece in pieces for i in range(10**6)[piece] if one == name]
            assert entries == list(range(tensor.numel()))
        for block in blocks:
            sizes = [(piece.stop - piece.start) * bytes_each for piece in block.values()]
            assert sum(sizes) <= limit


def test_the_parameters_are_left_alone(parameters):
    blockwise_gram(scalar, 4, parameters, memory_gib=1)
    assert not any(
        tensor.requires_grad or tensor.grad is not None for tensor in parameters.values()
    )


@pytest.mark.parametrize("memory_gib", [0, -1, float("nan")])
def test_no_memory_is_refused(parameters, memory_gib):
    with pytest.raises(UserError, match="memory_gib is .*; give a positive number"):
        blockwise_gram(scalar, 4, parameters, memory_gib=memory_gib)
