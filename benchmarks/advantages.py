"""Advantages of many prompts, samples and k at once, against a listing that takes them in turn.

What is measured: the wall time of ``passgrad.estimators.advantages`` on one core, for the sloo-1
estimator of PKPO and for the centred leave-two-out, float64, on the same rewards

- binary: 0 and 1,
- graded: normal, hence sorted;

each into new memory and into a result that is used again (``out``), and the wall time of the
definition in numpy, one prompt and one k after the other with sorted rewards, as in the listing of
Walder and Karkhanis (2025). That is timed on a part of the prompts and scaled up; values of both
are compared first.

Limit: the advantages themselves. Every entry has to be written, so no form can be faster than
filling the result with one number; that is timed too, for new memory (where page faults count) and
for used memory. The share is the time of filling over the time of the estimator.
Runs are interleaved; a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import typer
from _common import Figures, Smoke, interleaved, machine, progress, ratio, report

from passgrad.estimators import advantages
from passgrad.estimators.apply import result

#: seconds on one core for binary rewards, of 4,096 prompts, 256 samples and 16 values of k
EXPECTED_SECONDS = 0.05
#: how many times the speed of the listing
EXPECTED_RATIO = 10.0


def listing(rewards: np.ndarray, k: int) -> np.ndarray:
    """PKPO's sloo-1 of one prompt from its definition, with sorted rewards; k >= 2.

    s_i without the mean over i's groups of the maximum of the others: for ranked rewards, the
    maximum of a group is its last member, and a rank is last in so many groups.
    """
    n = len(rewards)
    order = np.argsort(rewards)
    ranked = rewards[order]

    def last_in(size: int, count: int) -> np.ndarray:
        """C(j - 1, size - 1) / C(count, size) for ranks j = 1..count, by products."""
        share = np.zeros(count)
        share[size - 1 :] = np.cumprod(
            np.concatenate([[1.0], np.arange(size, count) / np.arange(1, count - size + 1)])
        )
        return share / share.sum()

    # Groups of k with i: i is the last of C(i-1, k-1); otherwise rank j > i is, of C(j-2, k-2).
    among = last_in(k - 1, n - 1)
    above = np.cumsum((among * ranked[1:])[::-1])[::-1]
    inside = np.concatenate([[0.0], np.cumsum(among)]) * ranked + np.append(above, 0.0)
    # The other k - 1 alone: rank j is their last, ranks above i count one less.
    below = np.concatenate([[0.0], np.cumsum(among * ranked[:-1])])
    without = below + np.append(above, 0.0)
    advantage = np.empty(n)
    advantage[order] = k / n * (inside - without)
    return advantage


def rewards_of(kind: str, prompts: int, samples: int) -> torch.Tensor:
    """Rewards of one kind: (prompts, samples), float64."""
    generator = torch.Generator().manual_seed(0)
    if kind == "graded":
        return torch.randn(prompts, samples, dtype=torch.float64, generator=generator)
    rates = torch.rand(prompts, 1, dtype=torch.float64, generator=generator) ** 2
    return (torch.rand(prompts, samples, dtype=torch.float64, generator=generator) < rates).double()


def main(
    prompts: int = 4096,
    samples: int = 256,
    orders: Annotated[str, typer.Option(help="values of k, at least 2")] = (
        "2,3,4,6,8,12,16,24,32,48,64,96,128,160,192,224"
    ),
    part: Annotated[int, typer.Option(help="prompts that the listing is timed on")] = 32,
    repeats: int = 7,
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """Advantages for many k at once against the listing that takes them in turn."""
    ks = [int(k) for k in orders.split(",")]
    if smoke:
        prompts, samples, part, repeats, ks = 64, 16, 8, 2, [2, 4, 8]
    torch.set_num_threads(1)
    figures = {
        "machine": machine(),
        "smoke": smoke,
        "setting": {"prompts": prompts, "samples": samples, "k": ks, "listing_prompts": part},
        "result_megabytes": prompts * samples * len(ks) * 8 / 1e6,
        "expected_seconds": EXPECTED_SECONDS,
        "expected_ratio": EXPECTED_RATIO,
    }
    for kind in ("binary", "graded"):
        rewards = rewards_of(kind, prompts, samples)
        array = rewards[:part].numpy()
        out = torch.empty(len(ks), prompts, samples, dtype=torch.float64)

        def listed(array=array):
            return np.stack([[listing(row, k) for row in array] for k in ks])

        progress(f"{kind}: comparing values")
        made = advantages(rewards, ks, estimator="pkpo-loo1")
        off = float(np.abs(made[:, :part].numpy() - listed()).max())
        if off > 1e-11:
            raise SystemExit(f"{kind}: the listing gives other values, by {off:.1e}")
        del made
        forms = {"listing": listed}
        for name in ("pkpo-loo1", "centred-l2o"):
            forms[name] = lambda e=name, r=rewards: advantages(r, ks, estimator=e)
            forms[f"{name}, out"] = lambda e=name, r=rewards, o=out: advantages(
                r, ks, estimator=e, out=o
            )
        forms["fill"] = lambda r=rewards: result(len(ks), r, None).fill_(1.0)
        forms["fill, out"] = lambda o=out: o.fill_(1.0)
        seconds = interleaved(forms, repeats)
        scale = prompts / part
        here = {"seconds": seconds, "largest_difference": off, "listing_scaled_by": scale}
        for name in ("pkpo-loo1", "pkpo-loo1, out", "centred-l2o", "centred-l2o, out"):
            limit = "fill, out" if name.endswith("out") else "fill"
            here[name] = {
                "median_seconds": float(np.median(seconds[name])),
                "listing / this": scale * ratio(seconds, "listing", name),
                "share_of_limit": ratio(seconds, limit, name),
            }
        figures[kind] = here
    report(figures, json)


if __name__ == "__main__":
    typer.run(main)
