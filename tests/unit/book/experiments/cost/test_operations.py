"""The cost model against models that count for themselves."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from passgrad.errors import UserError
from passgrad.lm.passes import CompletionPasses
from passgrad_book.build.notebooks import resolve
from passgrad_book.experiments.cost.hours import (
    H100,
    Machine,
    decode_seconds,
    job_hours,
    largest_batch,
    measurement_hours,
    memory,
    pass_seconds,
    plan_table,
    table,
    training_hours,
)
from passgrad_book.experiments.cost.operations import (
    LLAMA_8B,
    QWEN_7B,
    SHAPES,
    Shape,
    Work,
    cache_bytes,
    forward_operations,
    measurement_units,
    shape_of,
    training_units,
    vectors_bytes,
)
from passgrad_book.experiments.cost.runs import (
    random_completions,
    time_decoding,
    time_passes,
    truncated,
)

SIZE = (3, 4, 7, 5)
MACHINE = Machine("m", 2, 1e9, 0.5, 4e9, 0.25, 1e8, 0.5, 1e9)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request, tiny_model):
    return tiny_model(tied=request.param)


def test_sizes_are_those_of_the_model(model):
    shape = shape_of(model.config, "tiny")
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    layers = [p for n, p in model.named_parameters() if "layers" in n and p.ndim == 2]
    assert shape.matrices == sum(p.numel() for p in layers)
    shorter = truncated(model, 1)
    assert shape_of(shorter.config, "t").parameters == sum(p.numel() for p in shorter.parameters())
    with pytest.raises(UserError, match="x is not a decoder of the Llama family"):
        shape_of(object(), "x")


def test_published_sizes():
    """Llama-3.1-8B has 8,030,261,248 weights; Qwen2.5-7B has biases of the queries, keys and
    values that the shape leaves out.
    """
    assert LLAMA_8B.parameters == 8_030_261_248
    biases = QWEN_7B.layers * QWEN_7B.head_dim * (QWEN_7B.heads + 2 * QWEN_7B.kv_heads)
    assert QWEN_7B.parameters + biases == 7_615_616_512
    assert SHAPES["SmolLM2-135M-Instruct"].parameters == 134_515_008
    assert cache_bytes(SHAPES["SmolLM2-135M-Instruct"], 1, 1) == 2 * 30 * 3 * 64 * 2
    assert cache_bytes(LLAMA_8B, 1, 1) == 131072
    assert vectors_bytes(LLAMA_8B, 1, 2) == 2 * LLAMA_8B.parameters


def test_tokens_are_those_of_packed_rows():
    completions = random_completions(1000, SIZE)
    work = Work(*SIZE)
    assert sum(row.num_tokens for row in completions.rows()) == work.read
    assert sum(len(row.targets) for row in completions.rows()) == work.predicted
    alone = Work(*SIZE, shared=False)
    assert completions.num_tokens() == alone.read
    pairs = sum(int(row.visible().sum()) for row in completions.rows())
    assert pairs == work.pairs
    assert work.half().num_samples == 2


def counted(function):
    with FlopCounterMode(display=False) as counter:
        function()
    total = counter.get_flop_counts()["Global"]
    products = {"aten.mm", "aten.addmm"}
    return sum(n for op, n in total.items() if str(op) in products)


def test_operations_are_those_that_torch_counts(model):
    """Products of matrices, exactly; each kernel of attention counts in its own way."""
    passes = CompletionPasses(model, random_completions(40, SIZE), torch.zeros(3, 4))
    shape, work = shape_of(model.config, "tiny"), Work(*SIZE)
    attention = 4 * shape.layers * shape.heads * shape.head_dim * work.pairs
    expected = forward_operations(shape, work) - attention
    assert counted(passes.logprobs) == expected
    # Not 3: nothing is differentiated by the embeddings that the first layer reads.
    backward = counted(lambda: passes.gradient(torch.ones(3, 4))) / expected
    assert 2.7 < backward <= 3


def test_units():
    assert measurement_units(1) == 6
    assert measurement_units(2) == 11
    assert measurement_units(2, "forward") == 13
    assert training_units() == 3
    assert training_units(2, reference=True) == 7


def test_hours_by_hand():
    shape = Shape("s", 2, 8, 2, 1, 4, 16, 10, True)
    work = Work(4, 2, 10, 6)
    assert pass_seconds(shape, work, 3, MACHINE) == 3 * forward_operations(shape, work) / 1e9
    # Four sequences a device, two at a time: two rounds of six steps, bound by the memory.
    moved = vectors_bytes(shape, 1, 2) + cache_bytes(shape, 2, 13)
    prompts = 2 * shape.matrices * 40 / 2e9
    assert decode_seconds(shape, work, MACHINE, batch=2) == pytest.approx(
        2 * 6 * moved / 5e7 + prompts
    )
    slow = Machine("m", 2, 1e9, 0.5, 4e6, 0.25, 1e12, 0.5, 1e9)
    each = 2 * shape.matrices + 2 * 8 * 10
    assert decode_seconds(shape, work, slow, batch=2) == pytest.approx(
        2 * 6 * 2 * each / 1e6 + 2 * shape.matrices * 40 / 2e6
    )
    made = measurement_hours(shape, work, MACHINE, directions=2)
    assert made["total"] == made["samples"] + made["passes"]
    assert made["units"] == 11
    assert made["tokens"] == 48
    trained = training_hours(shape, work, MACHINE, steps=10)
    assert trained["passes"] == pytest.approx(10 * made["passes"] * 3 / 11)
    assert table([("a", made), ("b", trained)], MACHINE)["device hours"][0] == 2 * made["total"]
    held = memory(shape, work, MACHINE, batch=2)
    assert held.weights == 2 * shape.parameters
    assert held.vectors == 4 * shape.parameters


def test_a_plan_by_published_names():
    """One H100: what the tokens and the data sheet say, by hand."""
    work = Work(2000, 96, 200, 3500)
    rows = plan_table([f"deepseek-ai/{name}" for name in list(SHAPES)[:2]], work, H100, units=9)
    first = rows.iloc[0]
    cache = 3700 * 131_072
    batch = int((0.9 * 80e9 - 2 * 8_030_261_248) / cache)
    assert first["answers at a time"] == batch
    assert first["their caches (GB)"] == pytest.approx(batch * cache / 1e9)
    assert first["weights and gradient (GB)"] == pytest.approx(6 * 8.030261248)
    assert first["tokens (10^6)"] == 672
    moved = 2 * 8_030_261_248 + batch * 1950 * 131_072
    drawing = 192_000 / batch * 3500 * moved / (3.35e12 * 0.6)
    prompts = 2 * LLAMA_8B.matrices * 2000 * 200 / (989e12 * 0.3)
    assert first["sampling (h)"] == pytest.approx((drawing + prompts) / 3600)
    passing = 9 * forward_operations(LLAMA_8B, work) / (989e12 * 0.4)
    assert first["passes (h)"] == pytest.approx(passing / 3600)
    made = job_hours(LLAMA_8B, work, H100, units=9)
    assert first["device hours"] == first["total (h)"] == made["total"]
    assert rows["fits one device"].all()
    eight = Machine(**{**H100.__dict__, "devices": 8})
    spread = plan_table(["DeepSeek-R1-Distill-Llama-8B"], work, eight, units=9).iloc[0]
    assert spread["total (h)"] == pytest.approx(first["total (h)"] / 8)
    assert spread["device hours"] == pytest.approx(first["device hours"])
    small = Machine(**{**H100.__dict__, "memory": 24e9})
    tight = plan_table(["DeepSeek-R1-Distill-Llama-8B"], work, small, units=9).iloc[0]
    assert not tight["fits one device"]
    with pytest.raises(UserError, match="no shape is known for 'x/y'"):
        plan_table(["x/y"], work, H100, units=9)


def test_the_batch_fills_the_memory():
    work = Work(10, 10, 100, 100)
    shape = Shape("s", 2, 8, 2, 1, 4, 16, 10, True)
    room = 0.9 * MACHINE.memory - vectors_bytes(shape, 1, 2)
    assert largest_batch(shape, work, MACHINE) == int(room / (200 * 2 * 2 * 4 * 2))
    tiny = Machine("t", 1, 1, 1, 1, 1, 1, 1, 1e3)
    with pytest.raises(UserError, match="s does not fit into 0 GB with one sequence; spread it"):
        largest_batch(shape, work, tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pass_utilisation": 0.0}, r"a share of a peak lies in \(0, 1\]"),
        ({"bandwidth_share": 1.5}, r"a share of a peak lies in \(0, 1\]"),
        ({"memory": 0.0}, "peaks, bandwidth and memory are positive"),
        ({"devices": 0}, "at least one device"),
    ],
)
def test_bad_machines(change, message):
    with pytest.raises(UserError, match=message):
        Machine(**{**MACHINE.__dict__, **change})


def test_bad_work():
    with pytest.raises(UserError, match="at least one prompt"):
        Work(0, 1, 1, 1)
    with pytest.raises(UserError, match="at least one token"):
        Work(1, 1, 1, 0)


def test_timed_runs(tiny_model):
    model = tiny_model(dtype="float32")
    model.config.vocab_size = 40
    before = torch.get_num_threads()
    made = time_passes(model, [(1, 2, 3, 4), (2, 2, 3, 4)])
    assert made["pass"].tolist() == ["logprobs", "gradient", "central"] * 2
    assert (made["seconds"] > 0).all()
    decoded = time_decoding(model, [1, 2], prompt=3, new=4)
    assert decoded["batch"].tolist() == [1, 2]
    assert torch.get_num_threads() == before


def test_the_chapter_describes_the_same_device():
    """The parameters of chapter 15 are those of :data:`H100`, on which chapter 14 plans."""
    given = resolve("laptop_to_cluster", "cpu")
    assert {
        "pass_peak": given["peak_half"],
        "decode_peak": given["peak_half"],
        "pass_utilisation": given["utilisation"],
        "decode_utilisation": given["decode_utilisation"],
        "bandwidth": given["bandwidth"],
        "bandwidth_share": given["bandwidth_share"],
        "memory": given["device_memory"],
    } == {k: v for k, v in H100.__dict__.items() if k not in ("name", "devices")}
