"""What each of several processes finds, beside what one finds by itself.

torchrun starts it once for all tests: ``python -m torch.distributed.run ... several.py all FOLDER``
leaves ``FOLDER/whole/RANK.json``, ``FOLDER/spread/RANK.json``, ``FOLDER/trl/NAME-RANK.pt`` and
``FOLDER/measure/RANK.txt``. With ``ends`` or ``hangs`` it is started without torchrun and leaves
``FOLDER/RANK.json``.
"""

import hashlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path

SUBJECT, FOLDER = sys.argv[1], Path(sys.argv[2])
KS = [1, 2]


def load(place):
    """A module of the tests, by its place under ``tests/unit``."""
    path = Path(__file__).resolve().parents[1] / place
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(dtype, architecture="llama", **options):
    fixtures = load("conftest.py")
    tokenizer = fixtures.bpe("0123456789+=abcdefghijklmnopqrstuvwxyz :#\n")
    return fixtures.tiny_language_model(tokenizer, architecture, dtype, **options)


def samples():
    """7 prompts of different lengths with 8 completions each, some of them equal."""
    import torch

    from passgrad.lm.completions import Completions

    generator = torch.Generator().manual_seed(3)

    def tokens(low, high):
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(1, 40, (length,), generator=generator).tolist()

    prompts = [tokens(3, 30) for _ in range(7)]
    drawn = [[tokens(1, 9) for _ in range(8)] for _ in prompts]
    drawn[2] = [drawn[2][0]] * 8
    rewards = torch.randint(0, 2, (7, 8), generator=generator)
    return Completions.from_tokens(prompts, drawn), rewards


def estimate(passes, rank):
    """Every number of an estimate, in one vector."""
    import torch

    from passgrad.measurement.estimate import estimate_conflict
    from passgrad.measurement.store import StoredPasses

    stored = StoredPasses(passes, Path(tempfile.mkdtemp(prefix=f"passes-{rank}-", dir=FOLDER)))
    found = estimate_conflict(stored, KS, prompts="fixed", seed=1)
    parts = (found.inner_product, found.band_low, found.band_high, found.curve, found.agreement)
    return torch.cat([torch.as_tensor(part).flatten() for part in parts])


def off(a, b):
    """The difference as a share of the length, over what is not nan; nan in other places is 1."""
    if bool((a.isnan() != b.isnan()).any()):
        return 1.0
    a, b = a.nan_to_num().double(), b.nan_to_num().double()
    return float((a - b).norm() / b.norm())


def digest(*tensors):
    return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in tensors)).hexdigest()


@contextmanager
def counted(size):
    """How many all-reduces of so many numbers there are."""
    import torch.distributed as dist

    plain, count = dist.all_reduce, [0]

    def all_reduce(tensor, *args, **options):
        count[0] += tensor.numel() == size
        return plain(tensor, *args, **options)

    dist.all_reduce = all_reduce
    try:
        yield count
    finally:
        dist.all_reduce = plain


def caught(function):
    try:
        function()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


def random(*shape):
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def shared(group, dtype, **options):
    """Processes with the whole model each."""
    import torch

    from passgrad.lm.distributed_passes import DistributedPasses
    from passgrad.lm.passes import CompletionPasses

    completions, rewards = samples()
    model = tiny(dtype, **options)
    alone = CompletionPasses(model, completions, rewards, token_budget=64)
    ours = DistributedPasses(model, completions, rewards, token_budget=64, group=group)
    where = torch.zeros(7, 8, dtype=torch.bool)
    where[1, 3] = where[2] = True
    with ours._sharing():
        rows = len(ours.rows(completions.chosen()))
    c = random(7, 8)
    one = torch.zeros(7, 8, dtype=torch.float64)
    one[4, 5] = 1.0
    with counted(alone.layout.num_parameters) as count:
        gradient = ours.gradient(c)
    expected = alone.gradient(c)
    v = expected / expected.norm()
    found = {
        "rows": rows,
        "all": len(alone.rows(completions.chosen())),
        "reduced": count[0],
        "logprobs": torch.equal(ours.logprobs(), alone.logprobs()),
        "some": torch.equal(ours.logprobs(where).nan_to_num(), alone.logprobs(where).nan_to_num()),
        "gradient": off(gradient, expected),
        "one": off(ours.gradient(one), alone.gradient(one)),
        "none": float(ours.gradient(0 * c).norm()),
        "forward": off(ours.directional(v, "forward"), alone.directional(v, "forward")),
        "forward where": off(
            ours.directional(v, "forward", where), alone.directional(v, "forward", where)
        ),
        "nowhere": int(ours.directional(v, where=where & False).isnan().sum()),
        "groups": max(
            off(a, b)
            for a, b in zip(
                ours.directional_by_group(v).values(),
                alone.directional_by_group(v).values(),
                strict=True,
            )
        ),
    }
    along = ours.directional(v, "central")
    found |= {
        "central": off(along, alone.directional(v, "central")),
        "central exact": off(along, alone.directional(v, "forward")),
        "central error": ours.last_error,
        "estimate": off(estimate(ours, group.rank), estimate(alone, group.rank)),
        "digest": digest(gradient, along, ours.logprobs()),
    }
    return found


def whole(group):
    """What processes with the whole model find, and how they fail together."""
    import torch

    from passgrad.errors import UserError
    from passgrad.lm import passes as module
    from passgrad.lm.distributed_passes import DistributedPasses

    found = {
        "float64": shared(group, "float64"),
        "float32": shared(group, "float32", tied=False),
    }
    completions, rewards = samples()
    model = tiny("float64")
    single = DistributedPasses(model, completions, rewards, group=group, token_budget=4096)
    with single._sharing():
        found["rows of one"] = len(single.rows(completions.chosen()))
    found["gradient of one"] = float(single.gradient(random(7, 8)).norm())

    ours = DistributedPasses(model, completions, rewards, group=group, token_budget=64)
    # By itself the second process would take a shorter step along its longer vector.
    v = ours.gradient(random(7, 8)) * (1 + group.rank / 2)
    found["agreed"] = digest(ours.directional(v, "central"))

    def fail(error, rank):
        def logprobs(*args, **options):
            if group.rank == rank:
                raise error
            return untouched(*args, **options)

        untouched = module.packed_logprobs
        module.packed_logprobs = logprobs
        try:
            return caught(ours.logprobs)
        finally:
            module.packed_logprobs = untouched

    found["mistake"] = fail(UserError("lower the budget"), 1)
    found["fault"] = fail(ValueError("no\nsuch layer"), 1)
    found["memory"] = fail(RuntimeError("DefaultCPUAllocator: can't allocate memory"), 0)
    found["after"] = bool(ours.logprobs().isfinite().all())

    def write():
        raise OSError("no space")

    found["main"] = caught(lambda: group.from_main(write))
    found["from main"] = group.from_main(lambda: f"said by {group.rank}")
    found["gathered"] = group.gather(group.rank * 10)
    found["blocks"] = group.share(range(5))
    found["sum"] = group.add(torch.ones(3, dtype=torch.int64) * (group.rank + 1)).tolist()
    found["refused"] = caught(
        lambda: DistributedPasses(model, completions, rewards[: 7 - group.rank], group=group)
    )
    return found


def spread(group):
    """What processes with a share of the model each find, and how one failure ends both."""
    import torch
    from torch.distributed.fsdp import fully_shard

    from passgrad.lm import fsdp
    from passgrad.lm.passes import CompletionPasses

    completions, rewards = samples()
    found = {}
    for name, dtype, options in (
        ("float64", "float64", {}),
        ("float32", "float32", {"tied": False}),
        ("gpt2", "float64", {"architecture": "gpt2"}),
        ("bfloat16", "bfloat16", {}),
    ):
        alone = CompletionPasses(tiny(dtype, **options), completions, rewards, token_budget=64)
        model = tiny(dtype, **options)
        if name == "gpt2":
            # As in training: what the outermost unit holds stays whole behind a forward pass.
            for block in model.transformer.h:
                fully_shard(block)
            fully_shard(model)
        else:
            fsdp.shard(model, group)
        before = [fsdp._local(p).clone() for p in model.parameters()]
        ours = fsdp.ShardedPasses(model, completions, rewards, group=group, token_budget=64)
        c = random(7, 8)
        where = torch.zeros(7, 8, dtype=torch.bool)
        where[1, 3] = where[2] = True
        gradient, expected = ours.gradient(c), alone.gradient(c)

        def share(vector, alone=alone):
            """Of each parameter the first half of the rows, or the second."""
            return torch.cat(
                [
                    view.tensor_split([-(-view.shape[0] // 2)])[group.rank].flatten()
                    for view in alone.layout.views(vector).values()
                ]
            )

        def flat(vector):
            return torch.cat([part.flatten() for part in vector.parts.values()])

        # One row: the second process has none of its own.
        one = torch.zeros(7, 8, dtype=torch.float64)
        one[4, 5] = 1.0
        other = ours.gradient(c.abs())
        v = expected / expected.norm()
        scale = 1 / float(expected.norm())
        unit = fsdp.ShardedVector({n: scale * p for n, p in gradient.parts.items()}, group)
        along = ours.directional(unit)
        found[name] = {
            "held": fsdp.parameter_bytes(model)
            / (alone.layout.num_parameters * alone.layout.dtype.itemsize),
            "vector": sum(p.numel() for p in gradient.parts.values()) / len(v),
            "gradient": off(flat(gradient), share(expected)),
            "one": off(flat(ours.gradient(one)), share(alone.gradient(one))),
            "logprobs": off(ours.logprobs(), alone.logprobs()),
            "some": off(ours.logprobs(where), alone.logprobs(where)),
            "inner": gradient.inner(other) / float(expected @ alone.gradient(c.abs())) - 1,
            "central": off(along, alone.directional(v, "forward")),
            "where": off(
                ours.directional(unit, where=where), alone.directional(v, "forward", where)
            ),
            "forward": off(ours.directional(unit, "forward"), alone.directional(v, "forward")),
            "lengths": off(
                torch.tensor(ours.lengths(gradient)), torch.tensor(alone.lengths(expected))
            ),
            "error": ours.last_error,
            "restored": all(
                torch.equal(a, fsdp._local(b))
                for a, b in zip(before, ours._sharded().values(), strict=True)
            ),
            "estimate": off(estimate(ours, group.rank), estimate(alone, group.rank)),
            "kinds": sorted({str(p.dtype) for p in gradient.parts.values()}),
        }
    found["flat"] = caught(lambda: ours.directional(v))
    saved = tiny("float32")
    if group.is_main:
        saved.save_pretrained(FOLDER / "model")
    group.barrier()
    loaded = fsdp.load_sharded(FOLDER / "model", group)
    alone = CompletionPasses(saved, completions, rewards)
    ours = fsdp.ShardedPasses(loaded, completions, rewards, group=group)
    found["loaded"] = off(ours.logprobs(), alone.logprobs())
    found["loaded held"] = fsdp.parameter_bytes(loaded) / (4 * alone.layout.num_parameters)
    write(group.rank, found, "spread")

    # The second block fails in one process while the other waits for its share of the weights.
    def broken(*args):
        raise ValueError("no such layer")

    if group.rank == 1:
        loaded.model.layers[0].mlp.register_forward_hook(broken)
    found["failed"] = caught(ours.logprobs)
    write(group.rank, found, "spread")


def write(rank, found, subject=""):
    (FOLDER / subject).mkdir(exist_ok=True)
    (FOLDER / subject / f"{rank}.json").write_text(json.dumps(found))


def ends(group):
    """How the first process ends when the second raises, and when it is killed."""
    from passgrad.errors import UserError
    from passgrad.lm.distributed import processes

    def work():
        with processes(group.limit) as inner:
            if inner.rank == 1:
                raise ValueError("between two exchanges")
            inner.gather(1)

    found = {"raised": caught(work)}
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    begun = time.perf_counter()
    try:
        group.gather(1)
    except UserError as error:
        found |= {"killed": str(error), "seconds": time.perf_counter() - begun}
    write(group.rank, found)


def hangs(group):
    """How the first process ends when the second does nothing."""
    if group.rank == 1:
        time.sleep(60)
    begun = time.perf_counter()
    found = caught(lambda: group.gather(1))
    write(group.rank, {"hung": found, "seconds": time.perf_counter() - begun})


def measured(rank):
    """``passgrad measure`` with the arguments in the folder, and what it prints: of one measurement
    in ``arguments.json``, and of others, by name, in ``others.json``.
    """
    from passgrad import cli

    place = FOLDER / "measure"
    runs = {"": json.loads((place / "arguments.json").read_text())}
    runs |= json.loads((place / "others.json").read_text())
    for name, arguments in runs.items():
        printed = (place / f"{name}{rank}.txt").open("w")
        errors = printed if name else sys.stderr
        # The tests see from its folder whether it failed.
        with printed, redirect_stdout(printed), redirect_stderr(errors), suppress(SystemExit):
            cli.main(arguments)


def everything(group):
    """All subjects, in this order: the last one ends the group."""
    load("trl/several.py").main(FOLDER / "trl")
    load("trl/sharded.py").main(FOLDER / "trl")
    write(group.rank, whole(group), "whole")
    spread(group)


def main():
    from passgrad.lm.distributed import processes

    if SUBJECT == "all":
        measured(os.environ["RANK"])  # it joins the others by itself, and leaves them
    limit = timedelta(seconds=2 if SUBJECT == "hangs" else 60)
    with processes(limit) as group:
        {"all": everything, "ends": ends, "hangs": hangs}[SUBJECT](group)


if __name__ == "__main__":
    main()
