"""Two processes, one start: groups that lie on both of them."""

import importlib.util
from pathlib import Path

import pytest
import torch

from passgrad import advantages

SCRIPT = Path(__file__).with_name("several.py")


@pytest.fixture(scope="module")
def found(several):
    assert (several.folder / "trl" / "prompts-1.pt").is_file(), several.errors
    return several.folder / "trl"


@pytest.fixture(scope="module")
def cases():
    spec = importlib.util.spec_from_file_location("several_cases", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(folder, name):
    return [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1)]


def rebuilt(lab, cases, found, tmp_path, name, ranks):
    """The trainer of one process with the parameters before the step."""
    trainer = cases.make(lab, cases.load(SCRIPT.parent.parent / "conftest.py"), tmp_path, name, 12)
    trainer.model.load_state_dict(ranks[0]["model"])
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    for p, value in zip(trained, ranks[0]["theta"], strict=True):
        p.data.copy_(value)
    return trainer.model


def gradient(lab, model, ranks, values):
    """Over the rows of both processes; the batches are padded to their own lengths."""
    parts = values.reshape(2, -1)
    return sum(
        lab.policy_gradient(model, one["batch"], part)
        for one, part in zip(ranks, parts, strict=True)
    )


@pytest.mark.parametrize("name", ["grpo", "rloo", "lora", "free", "prompts"])
def test_the_gradient_over_both(lab, cases, found, tmp_path, name):
    ranks = read(found, name)
    assert torch.equal(ranks[0]["rewards"], ranks[1]["rewards"])
    rewards = ranks[0]["rewards"][:, 0].double().view(3, 4)
    weights = {"grpo": [0.5, 0.0, 0.5], "rloo": [0, 1.0], "lora": [0, 1.0], "free": [0.5, 0.5]}
    got = torch.cat([one["batch"]["advantages"] for one in ranks]).double()
    if name == "prompts":
        values = got / 4
        plain = advantages(rewards, 2)
        ratio = (values.view(3, 4) * plain).sum(1) / plain.square().sum(1)
        torch.testing.assert_close(values.view(3, 4), ratio[:, None] * plain, rtol=1e-5, atol=1e-6)
    else:
        values = sum(c * advantages(rewards, k) for k, c in enumerate(weights[name], 1) if c)
        torch.testing.assert_close(got.view(3, 4), 4 * values, rtol=1e-6, atol=1e-6)
    model = rebuilt(lab, cases, found, tmp_path, name, ranks)
    wanted = gradient(lab, model, ranks, values.reshape(-1) / 3)
    constant = 1.0 if name in ("rloo", "prompts") else 1 / lab.LENGTH
    for one in ranks:
        error = (one["gradient"] + constant * wanted).norm() / (constant * wanted.norm())
        assert error < 1e-6


def test_the_products_over_both(lab, cases, found, tmp_path):
    ranks = read(found, "free")
    assert torch.equal(ranks[0]["conflict"], ranks[1]["conflict"])
    rewards = ranks[0]["rewards"][:, 0].double().view(3, 4)
    model = rebuilt(lab, cases, found, tmp_path, "free", ranks)
    vectors = []
    for k in (1, 2):
        values = advantages(rewards, k)
        rows = torch.stack(
            [gradient(lab, model, ranks, (values * (torch.arange(3) == x)[:, None]).reshape(-1))
             for x in range(3)]
        ).double()  # fmt: skip
        vectors.append(rows)
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for j in range(2):
        for m in range(2):
            product = vectors[j] @ vectors[m].T
            expected[j, m] = (product.sum() - product.diagonal().sum()) / 6
    torch.testing.assert_close(ranks[0]["conflict"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("split", ["prompts", "completions"])
def test_shares_of_parameters_give_the_products_of_whole_ones(cases, found, split):
    alone = cases.load(SCRIPT.with_name("sharded.py")).measured(split)
    for rank in (0, 1):
        shared = torch.load(found / f"sharded-{rank}.pt")[split]
        for got, wanted in zip(shared, alone, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
