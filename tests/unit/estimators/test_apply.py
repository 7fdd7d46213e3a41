import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import advantages
from passgrad.estimators.apply import by_counts, by_ranks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("graded", [False, True])
def test_dtype_and_out(dtype, graded):
    rewards = torch.randint(0, 2, (9, 6), generator=torch.Generator().manual_seed(0)).to(dtype)
    if graded:
        rewards = rewards + torch.rand(9, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    made = advantages(rewards, [2, 3])
    assert made.dtype == dtype
    out = torch.full_like(made, 7)
    assert advantages(rewards, [2, 3], out=out) is out
    assert torch.equal(out, made)
    single = torch.empty_like(rewards)
    assert advantages(rewards, 3, out=single) is single
    assert torch.equal(single, made[1])
    full = advantages(rewards.double(), [2, 3])
    torch.testing.assert_close(made.double(), full, rtol=1e-5, atol=1e-6)


def test_every_estimator_can_write_into_out():
    rewards = torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in ("grpo", "rloo", "tang-loo", "verl-passk", "reinforce-max", "tang-centred"):
        out = torch.empty_like(rewards)
        assert advantages(rewards, estimator=name, out=out) is out
        assert torch.equal(out, advantages(rewards, estimator=name))
    out = torch.empty_like(rewards)
    advantages(rewards, 3, estimator="passk-training", out=out)
    assert torch.equal(out, advantages(rewards, 3, estimator="passk-training"))


@pytest.mark.parametrize("out", [torch.empty(4, 6), torch.empty(6, 4).double()])
def test_an_out_that_does_not_fit(out):
    with pytest.raises(UserError, match="out has shape"):
        advantages(torch.zeros(4, 6).double(), 2, out=out)


def test_blocks_of_prompts_do_not_show():
    rewards = torch.rand(700, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ks = list(range(1, 17))
    whole = advantages(rewards, ks, estimator="centred-l2o")
    pieces = [advantages(part, ks, estimator="centred-l2o") for part in rewards.split(37)]
    torch.testing.assert_close(whole, torch.cat(pieces, dim=1), rtol=1e-13, atol=1e-15)


def test_half_precision_counts_exactly():
    rewards = torch.zeros(1, 4099, dtype=torch.float16)
    rewards[0, :4097] = 1  # no float16 number
    made = by_counts(rewards, torch.arange(4100.0)[None], torch.zeros(1, 4100), out=None)
    assert float(made[0, 0, 0]) == float(torch.tensor(4097.0).half())


def test_by_ranks_undoes_the_order():
    plus, minus = torch.zeros(1, 4).double(), torch.zeros(1, 4).double()
    plus[0, 1:] = 1.0  # A_i = 1 for right, 0 for wrong: the rewards themselves, less nothing
    rewards = torch.tensor([[0.3, -2.0, 1.5]]).double()
    torch.testing.assert_close(by_ranks(rewards, plus, minus, out=None)[0], rewards)
