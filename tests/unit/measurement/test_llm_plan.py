"""The plan of a large measurement: numbers of parameters, memory, hours."""

from dataclasses import replace

import pytest

from passgrad.errors import UserError
from passgrad.measurement.llm_plan import SHAPES, Device, Work, plan, plan_table


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # the published numbers of parameters
        ("DeepSeek-R1-Distill-Llama-8B", 8_030_261_248),
        ("DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512),
        ("SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_numbers_of_parameters(name, parameters):
    assert SHAPES[name].num_parameters == parameters


def test_cache_of_a_token():
    assert SHAPES["DeepSeek-R1-Distill-Llama-8B"].cache_bytes == 131_072
    # 30 layers, 3 heads of 64, keys and values, in two bytes.
    assert SHAPES["SmolLM2-135M-Instruct"].cache_bytes == 2 * 30 * 3 * 64 * 2


def test_hours_by_hand():
    shape = SHAPES["DeepSeek-R1-Distill-Llama-8B"]
    device = Device(bandwidth=1000, bandwidth_share=1, peak=1000, peak_share=1)
    work = Work(10, 4, 100, 1000, batch=4, training_passes=2, forward_passes=1)
    found = plan(shape, work, device)
    steps = 10 * 1000  # batches of all four answers to a prompt
    seconds = steps * (2 * shape.num_parameters + 4 * 600 * 131_072) / 1e12
    prefill = 2 * shape.num_parameters * 1000 / 1e15
    assert found.sampling_hours == pytest.approx((seconds + prefill) / 3600)
    tokens = 40_000 + 1000
    assert found.passes_hours == pytest.approx(14 * shape.num_parameters * tokens / 1e15 / 3600)
    assert found.tokens == 40_000
    assert found.cache == pytest.approx(4 * 1100 * 131_072 / 1e9)
    assert plan(shape, replace(work, training_passes=0, forward_passes=0), device).passes_hours == 0
    assert found.fits
    assert not plan(shape, replace(work, batch=10_000), device).fits


def test_table_and_refusals():
    table = plan_table([f"deepseek-ai/{name}" for name in list(SHAPES)[:2]], Work())
    assert len(table) == 2
    assert (table["total (h)"] > 1).all()
    with pytest.raises(UserError, match="no shape is known for 'x/y'"):
        plan_table(["x/y"], Work())
    with pytest.raises(UserError, match="num_prompts is 0"):
        plan(SHAPES["SmolLM2-135M-Instruct"], Work(num_prompts=0))
