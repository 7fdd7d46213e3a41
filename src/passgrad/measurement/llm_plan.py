r"""What a measurement on a large language model needs, from the shapes of the model and the numbers
of tokens: memory of weights and cache, and hours of sampling and of the passes.

Arithmetic, not a benchmark: the share of the peak that a machine reaches is an assumption. With P
parameters a forward pass costs 2 P operations a token and a training pass 6 P; sampling one token
of each of B sequences reads the weights and the B caches once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from passgrad.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

_BYTES: Final = 2  # bfloat16
_GB: Final = 1e9


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped attention and a gated MLP, as its published configuration gives it."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocabulary: int
    tied: bool = False
    bias: bool = False

    @property
    def num_parameters(self) -> int:
        """Weights, norms and the biases of queries, keys and values."""
        query, key = self.heads * self.head_width, self.kv_heads * self.head_width
        attention = 2 * self.width * query + 2 * self.width * key
        block = attention + 3 * self.width * self.hidden + 2 * self.width
        block += (query + 2 * key) if self.bias else 0
        tables = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * block + tables + self.width

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head_width * _BYTES


#: the two models of the paper's measurement, of the shapes of Llama-3.1-8B and Qwen2.5-7B
SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("DeepSeek-R1-Distill-Llama-8B", 4096, 32, 32, 8, 128, 14336, 128256),
        Shape("DeepSeek-R1-Distill-Qwen-7B", 3584, 28, 28, 4, 128, 18944, 152064, bias=True),
        Shape("SmolLM2-135M-Instruct", 576, 30, 9, 3, 64, 1536, 49152, tied=True),
    )
}


@dataclass(frozen=True)
class Device:
    """Memory in GB, memory bandwidth in GB/s, peak in TFLOP/s, and the shares of both rates that
    are assumed to be reached.
    """

    name: str = "H100 80GB"
    memory: float = 80.0
    bandwidth: float = 3350.0
    peak: float = 989.0
    bandwidth_share: float = 0.5
    peak_share: float = 0.35


@dataclass(frozen=True)
class Work:
    """``num_samples`` answers of ``answer_tokens`` tokens on average to each of ``num_prompts``
    prompts of ``prompt_tokens``, ``batch`` at a time; ``training_passes`` and ``forward_passes``
    over all of them.
    """

    num_prompts: int = 2000
    num_samples: int = 32
    prompt_tokens: int = 200
    answer_tokens: int = 3500
    batch: int = 128
    training_passes: float = 1.0
    forward_passes: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Memory in GB, times in hours of one device."""

    model: str
    parameters: float
    weights: float
    cache: float
    gradient: float
    tokens: float
    sampling_hours: float
    passes_hours: float
    fits: bool

    @property
    def hours(self) -> float:
        """Sampling and passes."""
        return self.sampling_hours + self.passes_hours


def plan(shape: Shape, work: Work, device: Device | None = None) -> Plan:
    """What one sampling law of one model takes on one device.

    :raises UserError: For counts that are not positive.
    """
    device = device or Device()
    for name, value in asdict(work).items():
        if value < 0 or (value == 0 and not name.endswith("passes")):
            raise UserError(f"{name} is {value}; give a positive number")
    answers = work.num_prompts * work.num_samples
    generated = answers * work.answer_tokens
    weights = shape.num_parameters * _BYTES
    # On average a sequence has half of its answer behind it.
    mean_length = work.prompt_tokens + work.answer_tokens / 2
    cache = work.batch * (work.prompt_tokens + work.answer_tokens) * shape.cache_bytes
    step = weights + work.batch * mean_length * shape.cache_bytes
    decode = generated / work.batch * step / (device.bandwidth * _GB * device.bandwidth_share)
    compute = device.peak * 1e12 * device.peak_share
    prefill = 2 * shape.num_parameters * work.num_prompts * work.prompt_tokens / compute
    # Each answer stands behind its prompt, which packed rows read once for all of them.
    read = generated + work.num_prompts * work.prompt_tokens
    operations = shape.num_parameters * (6 * work.training_passes + 2 * work.forward_passes)
    passes = operations * read / compute
    # A gradient in float32 beside the weights.
    gradient = 2 * weights
    return Plan(
        model=shape.name,
        parameters=shape.num_parameters,
        weights=weights / _GB,
        cache=cache / _GB,
        gradient=gradient / _GB,
        tokens=generated,
        sampling_hours=(decode + prefill) / 3600,
        passes_hours=passes / 3600,
        fits=weights + max(cache, gradient) < device.memory * _GB,
    )


def plan_table(models: Sequence[str], work: Work, device: Device | None = None) -> DataFrame:
    """One row a model: GB, billions of parameters and tokens, hours.

    :raises UserError: For a model whose shape is not known here.
    """
    import pandas as pd

    rows = []
    for name in models:
        short = name.rpartition("/")[2]
        if short not in SHAPES:
            raise UserError(f"no shape is known for {name!r}; known are {', '.join(SHAPES)}")
        one = plan(SHAPES[short], work, device)
        rows.append(
            {
                "model": short,
                "parameters (10^9)": one.parameters / _GB,
                "weights (GB)": one.weights,
                "cache (GB)": one.cache,
                "gradient (GB)": one.gradient,
                "tokens (10^6)": one.tokens / 1e6,
                "sampling (h)": one.sampling_hours,
                "passes (h)": one.passes_hours,
                "total (h)": one.hours,
                "fits one device": one.fits,
            }
        )
    return pd.DataFrame(rows)
