"""A phase diagram in one product against one ``conflict`` call a population.

What is measured: the wall time of <grad J_k, grad J_1> and its cosine on a grid of populations
(separation by share of hard prompts, one start) for many k, in float64 by quadrature.

- batched: ``passgrad_book.experiments.dynamics.phase.phase_diagram``, whole grid.
- loop: ``conflict(GaussianBandit(...), theta, ks)`` for a few populations of the same grid, evenly
  spread, scaled to all of them. Both forms are compared there before timing.
- all starts: the batched form with as many starts as the grid has separations, a grid in four
  dimensions.

Limit: the exponentials (one for each start, separation, label, node and k) and the products with
them, each at the rate that this machine reaches on arrays of that kind alone. The products of the
share of hard prompts with the moments, and all that is linear in the nodes, are left out.
"""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer
from _common import Figures, Smoke, interleaved, machine, progress, ratio, report

from passgrad.interference import conflict
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.dynamics.phase import phase_diagram

THETA = (-2.0, -2.0)
#: seconds that the whole grid may take on two cores
BUDGET = 10.0


def best_rate(function, work: float, seconds: float) -> float:
    """Units of ``work`` a second of ``function``, the best of as many calls as fit."""
    function()
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        function()
        best = max(best, work / (time.perf_counter() - start))
    return best


def main(
    points: Annotated[int, typer.Option(help="points a side of the grid")] = 64,
    num_ks: Annotated[int, typer.Option(help="values of k: 1, 2, ...")] = 64,
    nodes: Annotated[int, typer.Option(help="nodes of quadrature a label")] = 257,
    looped: Annotated[int, typer.Option(help="populations that the loop visits")] = 64,
    repeats: int = 5,
    smoke: Smoke = False,
    json: Figures = None,
) -> None:
    """Batched against looped phase diagrams."""
    if smoke:
        points, num_ks, nodes, looped, repeats = 4, 4, 33, 4, 1
    about = machine()
    ks = list(range(1, num_ks + 1))
    separations = torch.linspace(0, 4, points, dtype=torch.float64)
    fractions = torch.linspace(0.02, 0.98, points, dtype=torch.float64)
    cells = [divmod(i * points**2 // looped, points) for i in range(looped)]

    def batched(biases=(THETA[0],)):
        diagram = phase_diagram(
            ks,
            separations=separations,
            hard_fractions=fractions,
            biases=biases,
            slope=THETA[1],
            num_nodes=nodes,
        )
        return diagram, diagram.cosine

    def loop():
        found = []
        for s, f in cells:
            world = GaussianBandit(float(separations[s]), float(fractions[f]), nodes)
            curve = conflict(world, THETA, ks)
            found.append((curve.inner_product, curve.cosine))
        return found

    progress("comparing inner products and cosines")
    diagram, cosine = batched()
    away = 0.0
    for (s, f), (inner, angle) in zip(cells, loop(), strict=True):
        away = max(away, float((diagram.inner_product[0, s, f] - inner).abs().max()))
        away = max(away, float((cosine[0, s, f] - angle).abs().max()))
    if away > 1e-12:
        raise SystemExit(f"the two forms differ by {away:.1e}")

    seconds = interleaved({"batched": batched, "loop": loop}, repeats)
    scale = points**2 / looped
    progress("all starts")
    begun = time.perf_counter()
    batched(torch.linspace(-4, 4, points, dtype=torch.float64))
    all_starts = time.perf_counter() - begun

    exponentials = points * 2 * nodes * num_ks
    plain = torch.rand(64, 2 * nodes * num_ks, dtype=torch.float64).neg()
    out = torch.empty_like(plain)
    exp_rate = best_rate(lambda: torch.exp(plain, out=out), plain.numel(), 0.1 if smoke else 1.0)
    left = torch.rand(128, num_ks, nodes, dtype=torch.float64)
    right = torch.rand(128, nodes, 3, dtype=torch.float64)
    products = 128 * num_ks * nodes * 3
    product_rate = best_rate(lambda: left @ right, products, 0.1 if smoke else 1.0)
    least = exponentials / exp_rate + 3 * exponentials / product_rate
    best = min(seconds["batched"])
    report(
        {
            "machine": about,
            "smoke": smoke,
            "setting": {
                "grid": [points, points],
                "values of k": num_ks,
                "nodes": 2 * nodes,
                "looped": looped,
                "repeats": repeats,
            },
            "largest_difference": away,
            "seconds": {
                **seconds,
                "loop, scaled to the grid": [s * scale for s in seconds["loop"]],
                "all starts": all_starts,
            },
            "budget": BUDGET,
            "within_budget": best <= BUDGET and all_starts <= BUDGET,
            "ratio": {"loop / batched": ratio(seconds, "loop", "batched") * scale},
            "limit": {
                "seconds": least,
                "exponentials": exponentials,
                "exponentials_per_second": exp_rate,
                "products_per_second": product_rate,
                "batched / limit": best / least,
            },
        },
        json,
    )


if __name__ == "__main__":
    typer.run(main)
