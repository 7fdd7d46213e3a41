"""Products with parameters that FSDP2 spreads over two processes, and with whole ones.

``main`` is called in each process by ``lm/several.py`` and leaves ``FOLDER/sharded-RANK.pt``.
"""

import torch
from torch import nn


def measured(split, processes=1, rank=0):
    """The products, plain and in AdamW's metric after three steps, and the coefficients."""
    from passgrad.ascent.mixing import coefficients
    from passgrad.estimators import get_estimator
    from passgrad.trl.meter import Batch, _add_up, measure_gram
    from passgrad.trl.metric import optimiser_metric

    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(24, 3, generator=generator)
    tokens = torch.randint(0, 5, (24,), generator=generator)
    rewards = (torch.rand(6, 4, generator=generator) < 0.5).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5))
    if processes > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (processes,))
        for module in (model[0], model[2], model):
            fully_shard(module, mesh=mesh)

    def score(rows):
        logs = torch.log_softmax(model(inputs[rows]), -1)
        return logs.gather(1, tokens[rows][:, None])[:, 0]

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        score(torch.arange(24)).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    size = 24 // processes
    first = rank * size
    batch = Batch(
        rewards=rewards, first=first, size=size, score=lambda rows: score(rows + first),
        parameters=list(model.parameters()), rows_at_once=5,
        add_up=_add_up if processes > 1 else None, sharded=processes > 1,
    )  # fmt: skip
    metric, name = optimiser_metric(optimizer, batch.parameters, batch.add_up)
    assert name == "AdamW"
    estimator = get_estimator("pkpo-loo1")
    made = measure_gram(batch, 2, estimator, split, by_prompt=False, metric=metric)
    assert all(one.grad is None for one in model.parameters())
    return torch.stack([made.gram, made.scaled]), coefficients(made.scaled, "mgda")


def main(folder):
    from torch import distributed

    rank, processes = distributed.get_rank(), distributed.get_world_size()
    made = {split: measured(split, processes, rank) for split in ("prompts", "completions")}
    torch.save(made, folder / f"sharded-{rank}.pt")
