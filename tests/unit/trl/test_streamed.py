import pytest
import torch
from torch import nn

from passgrad import UserError
from passgrad.trl.streamed import Part, part_gradients, streamed_gram


@pytest.fixture
def linear():
    """log pi of row i is theta . x_i, so that its gradient is x_i; a parameter is never used."""
    x = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta = nn.ParameterList([nn.Parameter(torch.ones(5).double()) for _ in range(2)])
    return x, theta, lambda rows: x[rows] @ theta[0]


def parts_of(x, sizes, rounds, seed=1):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(x)).split(sizes)
    return [
        Part(some, torch.randn(2, len(some), dtype=torch.float64, generator=generator), number)
        for some, number in zip(rows, rounds, strict=True)
    ]


def test_all_pairs_of_rounds(linear):
    x, theta, score = linear
    parts = parts_of(x, [3, 3, 4, 2], [0, 1, 1, 2])
    theta[0].grad = torch.full((5,), 7.0).double()
    found = streamed_gram(parts, score, theta, rows_at_once=2)
    u = torch.stack([part.weights @ x[part.rows] for part in parts])
    pairs = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    expected = sum(u[p] @ u[q].T + u[q] @ u[p].T for p, q in pairs) / 2 / len(pairs)
    torch.testing.assert_close(found.gram, expected)
    torch.testing.assert_close(found.agreement[3], u[3, 0] @ u[:3, 0].sum(0) / 3)
    assert found.agreement.isnan().tolist() == [True, False, False, False]
    torch.testing.assert_close(found.gradients[:, :5], u.mean(0))
    assert not found.gradients[:, 5:].any()
    assert torch.equal(theta[0].grad, torch.full((5,), 7.0).double())
    assert theta[1].grad is None


def test_gradients_of_parts(linear):
    x, theta, score = linear
    parts = parts_of(x, [6, 6], [0, 0])
    found = part_gradients(parts, score, theta, rows_at_once=4)
    for q, part in enumerate(parts):
        torch.testing.assert_close(found[:, q, :5], part.weights @ x[part.rows])


def test_parts_on_several_processes(linear):
    """Two processes in turn: each sees its rows, and what ``add_up`` gives it of the other."""
    x, theta, score = linear
    parts = parts_of(x, [3, 3, 4, 2], [0, 0, 1, 1])
    whole = streamed_gram(parts, score, theta)
    mine = [rows % 2 == 0 for rows in (part.rows for part in parts)]
    local = [
        Part(part.rows[here], part.weights[:, here], part.round)
        for part, here in zip(parts, mine, strict=True)
    ]
    other = [
        Part(part.rows[~here], part.weights[:, ~here], part.round)
        for part, here in zip(parts, mine, strict=True)
    ]
    sums = []
    u = torch.stack([part.weights @ x[part.rows] for part in other])
    for number in (0, 1):
        total = torch.zeros(2, 10, dtype=torch.float64)
        for q in (0, 1) if number == 0 else (2, 3):
            total[:, :5] += u[q]
        sums.append(total)
    first = sum(part.weights @ x[part.rows] for part in parts[:2])
    dots = torch.zeros(4, 2, 2, dtype=torch.float64)
    for q in (2, 3):
        dots[q] = u[q] @ first.T
    queue = [*sums, dots[:, None]]
    found = streamed_gram(local, score, theta, add_up=lambda values: values + queue.pop(0))
    torch.testing.assert_close(found.gram, whole.gram)
    torch.testing.assert_close(found.gradients, whole.gradients)


def test_what_is_refused(linear):
    x, theta, score = linear
    with pytest.raises(UserError, match="at least two rounds"):
        streamed_gram(parts_of(x, [6, 6], [0, 0]), score, theta)
    with pytest.raises(UserError, match="not finite"):
        streamed_gram(parts_of(x, [6, 6], [0, 1]), lambda rows: score(rows) * float("inf"), theta)
