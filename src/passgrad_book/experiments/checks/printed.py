"""Arithmetic on the numbers that Section 5 of the paper prints for its language models.

Nothing here runs a model: it is what the printed weights and products can and cannot be.
"""

from __future__ import annotations

import math

N = K = 32

#: (inner product, prompts, printed weighted mean of the agreement), Llama and Qwen of Figure 6
LLAMA = (-0.613, 550, -1.12e-3)
QWEN = (-181.0, 656, -2.74e-1)


def plug_in_weight(c: int) -> float:
    """The plug-in weight k (1 - c / n)^(k - 1) at k = n = 32."""
    return K * (1 - c / N) ** (K - 1)


def unbiased_weight(c: int) -> float:
    """The U-statistic k C(n - c, k - 1) / C(n, k - 1), whose mean is w_k(p), at k = n = 32."""
    return K * math.comb(N - c, K - 1) / math.comb(N, K - 1)


def weights() -> dict[str, float]:
    """The weights of prompts with c = 1, 2, 3 right answers of 32, and of those with none."""
    plug_in = {f"plug_in_{c}": plug_in_weight(c) for c in range(1, 4)}
    return (
        plug_in
        | {f"unbiased_{c}": unbiased_weight(c) for c in range(3)}
        | {"plug_in_0": plug_in_weight(0), "prompts": 38 + 21 + 27}
    )


def ratio() -> dict[str, float]:
    """Hard over easy weights at the edge of the filter p > .85: c = 28 of 32."""
    easy = plug_in_weight(28)
    return {
        "easy_weight": easy,
        "easy_weight_without_k": easy / K,
        "ratio": plug_in_weight(1) / easy,
        "ratio_at_29": plug_in_weight(1) / plug_in_weight(29),
    }


def sum_or_mean() -> dict[str, float]:
    """Printed product over prompts, and over the printed weighted mean agreement."""
    found = {}
    for name, (product, prompts, mean) in {"llama": LLAMA, "qwen": QWEN}.items():
        found[f"{name}_per_prompt"] = product / prompts
        found[f"{name}_over_printed_mean"] = product / mean / prompts
    return found


def inflation() -> dict[str, float]:
    """E[plug-in weight] over w_k(p) at k = n = 32, at p = 1/32 and at p = 0.1."""

    def mean(p: float) -> float:
        law = [math.comb(N, c) * p**c * (1 - p) ** (N - c) for c in range(N + 1)]
        return sum(chance * plug_in_weight(c) for c, chance in enumerate(law))

    def true(p: float) -> float:
        return K * (1 - p) ** (K - 1)

    return {
        "true": true(1 / 32),
        "plug_in_mean": mean(1 / 32),
        "ratio": mean(1 / 32) / true(1 / 32),
        "ratio_at_tenth": mean(0.1) / true(0.1),
    }
