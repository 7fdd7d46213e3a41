# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     notebook_metadata_filter: kernelspec,jupytext,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (sec-estimating-conflict)=
# # Estimating conflict from samples
#
# **Result.** The product $\langle \nabla J_k, \nabla J_1 \rangle$ can be estimated from sampled answers without bias, for all $k$ at once, if the two gradients come from different answers.
# If they come from the same answers, noise agrees with itself, and a conflict can vanish from the estimate.
# The intervals hold the exact value about as often as they say where the signal is clear, and more often than they say where it is not.
#
# **What you need.** REINFORCE, {ref}`the unbiased weights of pass@k <sec-estimators>`, and {ref}`the exact conflict of a language model <sec-language-exact>`, which is the truth here.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $M$, $n$ | prompts, and answers to each of them |
# | $s_{xi} = \nabla_\theta \log \pi(y_{xi} \mid x)$ | score of an answer |
# | $u_x(k) = \sum_i A^{(k)}_{xi} s_{xi}$ | estimate of $v_x(k) = w_k(x) \nabla p(x)$ from the answers to $x$ |
# | $G(k) = \sum_x D(x)\, u_x(k)$ | estimate of $g_k = \nabla J_k$ |
# | $G_A, G_B$ | the same from either half of the answers, scaled to stand for all of them |

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from passgrad.estimators import get_estimator
from passgrad.interference import conflict
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement import estimate_conflict, sample_bandit
from passgrad.measurement import influence as terms
from passgrad.measurement.crossfit import cross_fit
from passgrad.measurement.store import StoredPasses
from passgrad.stats.bands import intervals
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.build import figures
from passgrad_book.experiments.estimating.comparison import METHODS
from passgrad_book.experiments.estimating.decisions import SIGN_METHODS, right_signs
from passgrad_book.experiments.estimating.naive import biased_conflict
from passgrad_book.experiments.estimating.short_answers import sample_language_world
from passgrad_book.experiments.estimating.stored import (
    compared_methods,
    coverage_bandit,
    coverage_language,
)
from passgrad_book.experiments.small_models.small_language import small_language_world

# %% [markdown]
# Three policies are measured: the bandit of {ref}`sec-toy`, where a sample costs nothing, a language model of 5,376 weights, and SmolLM2 after the warm-up of {ref}`sec-language-exact`.
# The exact value is known for all three.

# %% tags=["parameters"]
theta: list = [-1.0, 0.0]  # policy of the bandit
num_easy: int = 48  # easy prompts of the bandit
num_hard: int = 16  # hard ones
bias_samples: list = [4, 8, 16, 32, 64]  # answers a prompt at which the bias is looked at
bias_k: int = 2  # order at which the bias is looked at
replications: int = 1000  # samples of the bandit
width_prompts: list = [50, 100, 200, 400]  # prompts at which the width is looked at
base: int = 5  # base of the sums of the small language model
small_samples: int = 64  # answers to each of its prompts on this page
small_ks: list = [1, 2, 4, 8]  # orders with intervals
fixed_samples: list = [16, 64, 128]  # answers a prompt, coverage for fixed prompts
new_prompts: list = [100, 300, 1000]  # prompts, coverage for new ones with 16 answers each
coverage_replications: int = 1000  # samples behind each measured coverage
bandit_replications: int = 4000  # the same in the bandit
sign_base: int = 5  # base of the small language model whose signs are counted
sign_replications: int = 200  # samples of each population behind a share of right signs
verdict_replications: int = 1000  # samples behind an error rate of the verdict
model: str = "smollm2-135m"  # the large language model
seed: int = 0  # choice of the sums, and seed of the samples
num_prompts: int = 12  # prompts of each base
num_examples: int = 8  # worked examples before each question
hard_fraction: float = 0.3  # share of base 9 in the prompt law
warmup_steps: int = 6  # steps up pass@1 before anything is measured
warmup_step_size: float = 0.001  # their size
num_samples: int = 64  # completions of each prompt
ks: list = [1, 2, 4, 8, 16, 32]  # orders of the measurement
model_replications: int = 12  # independent sets of completions
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## The same answers in both gradients
#
# An unbiased estimate of each of two vectors does not give an unbiased estimate of their product.
#
# ```{prf:proposition} Noise agrees with itself
# :label: prop-same-sample-bias
#
# Let $u_x(k)$ be unbiased for $v_x(k)$, and let answers to different prompts be independent. Then, with $G(k) = \sum_x D(x)\, u_x(k)$,
#
# $$
# \mathbb{E} \langle G(k), G(1) \rangle = \langle g_k, g_1 \rangle + \sum_x D(x)^2 \, \mathrm{tr}\, \mathrm{Cov}(u_x(k), u_x(1)).
# $$
#
# For $M$ prompts of equal mass the last term is $1/M$ times the mean of $\mathrm{tr}\, \mathrm{Cov}(u_x(k), u_x(1))$. For $k = 1$ it is never negative.
#
# Checked by {test}`test_same_sample_bias`.
# ```
#
# ```{prf:proof}
# $\mathbb{E}\langle G(k), G(1) \rangle = \langle \mathbb{E}\, G(k), \mathbb{E}\, G(1) \rangle + \mathrm{tr}\, \mathrm{Cov}(G(k), G(1))$, and the covariances of independent prompts add up with the factors $D(x)^2$. At $k = 1$ each is a sum of variances.
# ```
#
# The covariance of one prompt decreases as $1/n$, so that the bias is of order $1/(Mn)$, as the variance is.
# A plug-in, which puts $c/n$ for $p$ into the weight $w_k$, has a bias in each gradient on top.
#
# ## Different answers
#
# ```{prf:proposition} Cross-fitting
# :label: prop-cross-fit
#
# Let $G_A(k)$ and $G_B(k)$ be independent and unbiased for $g_k$, for each $k$. Then
#
# $$
# C_{k} = \tfrac12 \bigl( \langle G_A(k), G_B(1) \rangle + \langle G_B(k), G_A(1) \rangle \bigr), \qquad \mathbb{E}\, C_k = \langle g_k, g_1 \rangle.
# $$
#
# Checked by {test}`test_cross_fit`.
# ```
#
# ```{prf:proof}
# The mean of a product of independent vectors is the product of their means.
# ```
#
# It costs no more than the biased one: $\langle G_A(k), G_B(1) \rangle = \sum_{x,i} D(x) A^{(k)}_{xi} \langle s_{xi}, G_B(1) \rangle$, where the sum is over the answers of half $A$.
# One backward pass gives $G_B(1)$, one directional pass gives the scalars $\langle s_{xi}, G_B(1) \rangle$, and each further $k$ is a sum over these scalars.

# %%
world = GaussianBandit(0.2, 0.2).sample(num_easy, num_hard, seed=7)
exact = conflict(world, theta, [bias_k])
truth = float(exact.inner_product[0])
chosen = get_estimator("pkpo-loo1")


def by_method(n):
    samples = sample_bandit(world, theta, n, replications=replications, seed=seed + n)
    orders = [1, bias_k]
    fit = cross_fit(samples, orders, [1], estimator=chosen, split="completions", seed=seed)
    return {
        "cross-fit": terms.curve(fit, "fixed")[fit.places([bias_k])][0].numpy(),
        "same-sample": biased_conflict(samples, [bias_k])[0],
        "plug-in": biased_conflict(samples, [bias_k], method="plug-in")[0],
    }


# %% [markdown]
# In the bandit the covariance of {prf:ref}`prop-same-sample-bias` has a closed form: given $c$ right answers $u_x(k) = m_k(c)\, \psi_x$ with a number $m_k(c)$, and $c$ is binomial.


# %%
def exact_bias(n):
    c = torch.arange(n + 1).double()
    plus, minus = chosen.tables(n, [1, bias_k])
    p = world.success(theta)[:, None]
    binomial = torch.distributions.Binomial(n, p.squeeze())
    law = torch.stack([binomial.log_prob(one).exp() for one in c], dim=1)
    m1, mk = (plus[j] * c * (1 - p) - minus[j] * (n - c) * p for j in (0, 1))
    covariance = (law * m1 * mk).sum(1) - (law * m1).sum(1) * (law * mk).sum(1)
    lengths = world.features.square().sum(1)
    return float((world.masses.square() * covariance * lengths).sum())


rows = []
for n in bias_samples:
    for method, values in by_method(n).items():
        error = values.std() / replications**0.5
        rows.append((n, method, values.mean() - truth, error, values.std()))
bias = pd.DataFrame(rows, columns=["n", "method", "bias", "error", "spread"])
predicted = pd.Series({n: exact_bias(n) for n in bias_samples})

# %%
table = bias.pivot(index="n", columns="method", values="bias")[list(METHODS)] / truth
table["same-sample, exact"] = predicted / truth
mine = bias[bias["method"] == "cross-fit"].set_index("n")
same = bias[bias["method"] == "same-sample"].set_index("n")
assert (mine["bias"].abs() < 4 * mine["error"]).all()
assert ((same["bias"] - predicted).abs() < 4 * same["error"]).all()
table.round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Bias of three estimates of the product of the gradients in the bandit, as a share of the exact value, with 95 % intervals. Line: the exact bias of the same-sample estimate. The cross-fit has none at any number of answers.", "name": "fig-estimating-bias"}, "image": {"alt": "Relative bias of the cross-fit, same-sample and plug-in estimates against the number of answers."}}
def draw(ax):
    figures.zero(ax)
    figures.curve(
        ax,
        bias_samples,
        predicted / truth,
        of="exact",
        exact=True,
        label="same-sample, exact",
        marker=None,
    )
    for method in METHODS:
        part = bias[bias["method"] == method]
        low, high = (part["bias"] + sign * 1.96 * part["error"] for sign in (-1, 1))
        figures.points(
            ax, part["n"], part["bias"] / truth, of=method, low=low / truth, high=high / truth
        )
    figures.k_axis(ax, bias_samples, label="answers a prompt, n")
    ax.set_ylabel("bias / exact product")
    figures.legend(ax)


alt = f"At n = {bias_samples[0]} the same-sample estimate is off by {table['same-sample'].iloc[0]:+.0%} of the exact product at k = {bias_k}, the plug-in by {table['plug-in'].iloc[0]:+.0%}, the cross-fit by {table['cross-fit'].iloc[0]:+.0%}."
figures.show(draw, alt=alt, data=bias)

# %% tags=["hide-input"]
Markdown(
    f"At $n = {bias_samples[0]}$ the same-sample estimate is off by {table['same-sample'].iloc[0]:+.0%} of the exact product, and at $n = {bias_samples[-1]}$ by {table['same-sample'].iloc[-1]:+.1%}. "
    f"The plug-in is off by {table['plug-in'].iloc[0]:+.0%} and {table['plug-in'].iloc[-1]:+.1%}. "
    f"The price of halves is variance: at $n = {bias_samples[-1]}$ the standard deviation of the cross-fit is {mine['spread'].iloc[-1] / same['spread'].iloc[-1]:.2f} times that of the same-sample estimate."
)

# %% [markdown]
# ## Halves of answers or halves of prompts
#
# There are two questions. "Fixed" asks about these prompts; then halves are halves of the answers to each.
# "New" asks about the law that the prompts were drawn from, and there halves of answers are not enough: both halves have their prompts in common.
#
# ```{prf:proposition} Prompts in common
# :label: prop-shared-prompts
#
# Let $M$ prompts be drawn independently from a law, $D = 1/M$, and let $A$ and $B$ be halves of the answers to each, independent given the prompts. Then
#
# $$
# \mathbb{E}\, C_k = \langle g_k, g_1 \rangle + \tfrac1M \bigl( \mathbb{E} \langle v_x(k), v_x(1) \rangle - \langle g_k, g_1 \rangle \bigr).
# $$
#
# Without the terms $x = x'$, and times $M / (M - 1)$, it is unbiased; with halves of prompts it is unbiased as it stands.
#
# Checked by {test}`test_shared_prompts`.
# ```
#
# ```{prf:proof}
# Of the $M^2$ pairs of prompts $M (M - 1)$ are independent, each with the mean $\langle g_k, g_1 \rangle$, and $M$ are a prompt and itself, with the mean $\mathbb{E}\langle v_x(k), v_x(1) \rangle$, both over $M^2$. Halves of prompts have no pair of the second kind.
# ```
#
# As $\langle v_x(k), v_x(1) \rangle = w_k \|\nabla p(x)\|^2 \ge 0$, a sample of prompts shows less conflict than the law it comes from.
#
# ## The interval
#
# The estimate is a product of two noisy vectors. It moves when one of them moves, and when the other does.
#
# ```{prf:proposition} Two terms, and what is counted twice
# :label: prop-cross-fit-variance
#
# Let $G_h(k) = g_k + \varepsilon_h(k)$, with $\varepsilon_A$ and $\varepsilon_B$ independent and of one law of mean zero. Then $\mathrm{Var}\, C_k = L + Q$ with
#
# $$
# L = \tfrac12 \mathrm{Var} \bigl( \langle \varepsilon_A(k), g_1 \rangle + \langle \varepsilon_A(1), g_k \rangle \bigr), \qquad
# Q = \tfrac14 \mathbb{E} \bigl( \langle \varepsilon_A(k), \varepsilon_B(1) \rangle + \langle \varepsilon_B(k), \varepsilon_A(1) \rangle \bigr)^2.
# $$
#
# Put the gradient of the other half for $g$ in the variance of each half. The mean of what results is $L + 2 Q$: between the variance and twice the variance.
#
# Checked by {test}`test_cross_fit_variance`.
# ```
#
# ```{prf:proof}
# $C_k - \langle g_k, g_1 \rangle$ is half the sum of $\langle \varepsilon_h(k), g_1 \rangle + \langle \varepsilon_h(1), g_k \rangle$ over $h$, and half the sum in $Q$.
# The three parts are uncorrelated, because each $\varepsilon$ has mean zero given the other; that gives $L + Q$.
# Given half $B$, the variance of $\frac12 (\langle \varepsilon_A(k), G_B(1) \rangle + \langle \varepsilon_A(1), G_B(k) \rangle)$ has the mean $L / 2 + Q$ over $B$, and so has the other half.
# ```
#
# Two conclusions.
# Without the second of the two terms in $L$, as in a bootstrap that resamples one gradient and leaves the other as it is, the interval is wrong.
# At $k = 1$ the terms are equal, and it is half as wide as it should be; where they have opposite signs, as they may in a conflict, it can even be too wide.
# With both it is never too short on this account in the mean, and too long by a factor of at most $\sqrt 2$, where noise is all there is.
# `estimate_conflict` needs one more gradient for each $k$ that gets an interval: $\langle \varepsilon(1), g_k \rangle$ asks for derivatives along $G(k)$.

# %%
n = max(bias_samples)
samples = sample_bandit(world, theta, n, replications=replications, seed=seed)
fit = cross_fit(samples, [1, bias_k], [1, bias_k], estimator=chosen, split="completions", seed=seed)
estimates = terms.curve(fit, "fixed")[1].numpy()
both = terms.influences(fit, "fixed", "inner", chosen, seed=seed)[1].numpy()
# One term only: derivatives along G(k) count as zero, so that the gradient of pass@1 is as known.
alone = torch.tensor([1.0, 0.0]).double().view(2, 1, 1, 1)
pairings = [replace(pair, directional=alone * pair.directional) for pair in fit.pairings]
frozen = replace(fit, pairings=tuple(pairings))
one = terms.influences(frozen, "fixed", "inner", chosen, seed=seed)[1].numpy()
held = {}
for name, e in {"both terms": both, "one term": one}.items():
    low, high = intervals(estimates, e, 0.95)
    held[name] = float(((low <= truth) & (truth <= high)).mean())
pd.Series(held, name="coverage").to_frame().round(3)

# %% tags=["hide-input"]
Markdown(
    f"Of {replications} intervals at the level 95 %, {held['both terms']:.1%} hold the exact value, and {held['one term']:.1%} of those that count one gradient as known."
)

# %% [markdown]
# ## A small language model
#
# Sums of two digits modulo a base under two conventions, learned in part: 5,376 weights, trained within seconds.
# Its exact product is that of `LanguageWorld`, its samples are completions, and the gradients are passes over them, all as in a large model.

# %%
small = small_language_world(base=base)
small_exact = conflict(small, None, small_ks)
((completions, rewards),) = sample_language_world(small, small_samples, max_new_tokens=2, seed=seed)
passes = CompletionPasses(small.model, completions, rewards, small.masses)
found = estimate_conflict(StoredPasses(passes, None), small_ks, prompts="fixed", seed=seed)
inside = found.to_frame()[["k", "inner_product", "band_low", "band_high"]]
inside.assign(exact=small_exact.inner_product).round(4)

# %% [markdown]
# Coverage needs thousands of such samples.
# The model is small enough to write down every answer of at most two tokens, with its probability and its score; all that an estimate needs are the products of the scores.
# `language_answers` does so, and the same estimator then runs on draws of numbers of answers.
# On some samples we take both ways and compare.


# %%
in_small = coverage_language.result(
    base=base,
    ks=small_ks,
    fixed_samples=fixed_samples,
    new_prompts=new_prompts,
    replications=coverage_replications,
    seed=seed,
    recompute=recompute,
)
in_bandit = coverage_bandit.result(
    seed=seed,
    theta=theta,
    num_easy=num_easy,
    num_hard=num_hard,
    replications=bandit_replications,
    recompute=recompute,
)
in_small

# %%
in_bandit

# %% tags=["hide-input"]
checks = in_small["checks"].iloc[0]
assert max(checks["two ways"], checks["truth"]) < 1e-9
Markdown(
    f"Passes over the model and products of scores give the same estimates and errors to {checks['two ways']:.0e} of their size, and the exact products agree with those of `LanguageWorld` to {checks['truth']:.0e}."
)

# %%
measured = pd.concat(
    {"bandit": in_bandit["coverage"], "small model": in_small["coverage"]}, names=["world"]
).reset_index(level=0)
kinds = measured["prompts"].where(
    measured["prompts"] == "fixed", "new, halves of " + measured["split"].astype(str)
)
sizes = np.where(
    measured["prompts"] == "fixed",
    "n = " + measured["n"].astype(str),
    "M = " + measured["size"].fillna(0).astype(int).astype(str),
)
measured = measured.assign(kind=kinds, sample=sizes)
measured.pivot_table(
    index=["world", "kind", "sample"], columns="target", values="coverage", sort=False
).round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Measured coverage of intervals of level 95 %, with exact 95 % intervals. Grey lines: 93 % and 97 %. The last of each group is the simultaneous band. Small samples are covered more often than promised; halves of answers for new prompts less often.", "name": "fig-estimating-coverage"}, "image": {"alt": "Coverage of intervals and bands in the bandit and in the small language model."}}
def draw(axes):
    for ax, (where, part) in zip(axes, measured.groupby("world", sort=False), strict=True):
        groups = [
            one
            for _, one in part[part["target"] != "threshold"].groupby(
                ["kind", "sample"], sort=False
            )
        ]
        for place, group in enumerate(groups):
            y = -place - np.linspace(-0.25, 0.25, len(group))
            single = (group["target"] != "band").to_numpy()
            for chosen_rows, look in ((single, "cross-fit"), (~single, "hard")):
                some = group[chosen_rows]
                spread = np.array([some["coverage"] - some["low"], some["high"] - some["coverage"]])
                ax.errorbar(
                    some["coverage"],
                    y[chosen_rows],
                    xerr=spread,
                    fmt=figures.style_of(look).marker,
                    color=figures.COLOURS[look],
                    markersize=4,
                    label={True: "one k", False: "band"}[look == "cross-fit"]
                    if place == 0
                    else None,
                )
        for edge in (0.93, 0.97):
            ax.axvline(edge, color=figures.COLOURS["neutral"], linewidth=1)
        names = [f"{one['kind'].iloc[0]}, {one['sample'].iloc[0]}" for one in groups]
        ax.set_yticks(-np.arange(len(groups)), names)
        ax.set(xlabel="coverage", xlim=(0.88, 1.003))
        figures.panel(ax, where)
    figures.legend(axes[0], loc="lower left")


lines = measured[measured["target"] != "threshold"]
alt = "; ".join(
    f"{where}, {kind}: from {part['coverage'].min():.3f} to {part['coverage'].max():.3f}"
    for (where, kind), part in lines.groupby(["world", "kind"], sort=False)
)
figures.show(draw, alt=alt, data=measured, nrows=2, size=(6.8, 6.6))

# %% tags=["hide-input"]
noisy = measured[measured["error_ratio"] > 1.15]
clear = measured[
    (measured["error_ratio"] <= 1.05) & (measured["kind"] != "new, halves of completions")
]
shared_prompts = measured[measured["kind"] == "new, halves of completions"]
Markdown(
    f"Where the claimed error is at most 1.05 times the spread of the estimates, coverage is {clear['coverage'].min():.1%} to {clear['coverage'].max():.1%} ({len(clear)} cases). "
    f"Where it is more than 1.15 times the spread, coverage is {noisy['coverage'].min():.1%} to {noisy['coverage'].max():.1%} ({len(noisy)} cases): there $Q$ is not small against $L$, and it is counted twice. The largest ratio is {measured['error_ratio'].max():.2f}; with noise alone it would be $\\sqrt 2$. "
    f"Halves of answers for new prompts have their prompts in common, so that estimate and error come out small together, and coverage goes down to {shared_prompts['coverage'].min():.1%}: `estimate_conflict` takes halves of prompts by default."
)

# %% [markdown]
# A threshold is read off the band, so that its interval holds it at least as often as the band holds the curve.
#
# ## How wide
#
# For fixed prompts the error decreases with the number of answers as $1/\sqrt{n}$ where $L$ leads, faster where $Q$ does, and a larger $k$ needs more answers.
# For new prompts more answers stop helping once the prompts themselves are what varies; then only more prompts do.


# %%
def half_width(n, size=None, order=bias_k):
    drawn = GaussianBandit(0.2, 0.2) if size else world
    count = max(2, replications // 10)
    some = sample_bandit(drawn, theta, n, num_prompts=size, replications=count, seed=seed)
    kind, split = ("new", "prompts") if size else ("fixed", "completions")
    pair = cross_fit(some, [1, order], [1, order], estimator=chosen, split=split, seed=seed)
    e = terms.influences(pair, kind, "inner", chosen, seed=seed)[1].numpy()
    low, high = intervals(terms.curve(pair, kind)[1].numpy(), e, 0.95)
    widths = (high - low) / 2 / truth
    return np.quantile(widths, [0.5, 0.1, 0.9])


by_answers = {n: half_width(n) for n in bias_samples}
by_prompts = {(m, n): half_width(n, m) for m in width_prompts for n in (8, 32)}


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Half the width of the 95 % interval as a share of the exact product: median, and from the lowest to the highest tenth. Left: these prompts, more answers. Right: new prompts; more prompts help, four times as many answers help less.", "name": "fig-estimating-width"}, "image": {"alt": "Width of the interval against the number of answers and the number of prompts."}}
def draw(axes):
    middle, low, high = np.array(list(by_answers.values())).T
    figures.curve(
        axes[0], bias_samples, middle, of="cross-fit", low=low, high=high, label="fixed prompts"
    )
    figures.k_axis(axes[0], bias_samples, label="answers a prompt, n")
    for n, look in ((8, "sampled"), (32, "agreement")):
        middle, low, high = np.array([by_prompts[m, n] for m in width_prompts]).T
        figures.curve(axes[1], width_prompts, middle, of=look, low=low, high=high, label=f"n = {n}")
    figures.k_axis(axes[1], width_prompts, label="prompts, M")
    for ax in axes:
        ax.set(yscale="log", ylabel="half width / exact product")
    figures.legend(axes[1])


first, last = (by_answers[n][0] for n in (bias_samples[0], bias_samples[-1]))
alt = f"Fixed prompts: the median half width falls from {first:.2f} to {last:.2f} of the exact product between n = {bias_samples[0]} and {bias_samples[-1]}. New prompts: {by_prompts[width_prompts[0], 8][0]:.2f} at M = {width_prompts[0]}, n = 8, and {by_prompts[width_prompts[-1], 32][0]:.2f} at M = {width_prompts[-1]}, n = 32."
columns = ["prompts", "M", "n", "median", "tenth", "ninetieth"]
rows = [("fixed", num_easy + num_hard, n, *v) for n, v in by_answers.items()]
rows += [("new", m, n, *v) for (m, n), v in by_prompts.items()]
figures.show(draw, alt=alt, data=pd.DataFrame(rows, columns=columns), ncols=2, size=(8, 3.2))

# %% [markdown]
# ## SmolLM2, against the exact curve
#
# The prompts, the masses and the warm-up of {ref}`sec-language-exact`.
# At the weights behind the warm-up we draw completions at temperature 1, several sets of them, and estimate from each set by all three methods.
# The passes take minutes, so the estimates are stored with the book.


# %%
in_large = compared_methods.result(
    model=model,
    num_prompts=num_prompts,
    num_examples=num_examples,
    hard_fraction=hard_fraction,
    warmup_steps=warmup_steps,
    warmup_step_size=warmup_step_size,
    num_samples=num_samples,
    ks=ks,
    replications=model_replications,
    seed=seed,
    recompute=recompute,
)
in_large

# %%
line = in_large["exact"].set_index("k")["inner_product"]
first_set = in_large["intervals"].query("replication == 0").set_index("k")
sets = in_large["estimates"].groupby(["method", "k"])["value"].agg(["mean", "sem", "std"])
inside = (first_set["band_low"] <= line) & (line <= first_set["band_high"])
shown = pd.DataFrame(
    {
        "exact": line,
        "estimate": first_set["inner_product"],
        "band low": first_set["band_low"],
        "band high": first_set["band_high"],
    }
)
for method in METHODS:
    shown[f"bias, {method}"] = sets.loc[method]["mean"] - line
    shown[f"± {method}"] = sets.loc[method]["sem"]
shown.round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "SmolLM2 on the two conventions. Left: one set of completions; the simultaneous band about the cross-fit, and the exact curve. Right: the mean of each method over independent sets less the exact value, with 95 % intervals.", "name": "fig-estimating-language"}, "image": {"alt": "Estimated and exact product of the gradients of pass@k and pass@1 in SmolLM2, and the bias of three methods."}}
def draw(axes):
    figures.zero(axes[0])
    figures.curve(
        axes[0],
        ks,
        first_set["inner_product"],
        of="cross-fit",
        low=first_set["band_low"],
        high=first_set["band_high"],
        label="one estimate, band",
    )
    figures.curve(axes[0], ks, line, of="exact", exact=True, label="exact", marker=None)
    axes[0].set_ylabel("⟨∇J_k, ∇J₁⟩")
    figures.zero(axes[1])
    for place, method in enumerate(METHODS):
        part = sets.loc[method]
        off = part["mean"] - line
        figures.points(
            axes[1],
            np.array(ks) * 1.08 ** (place - 1),
            off,
            of=method,
            low=off - 1.96 * part["sem"],
            high=off + 1.96 * part["sem"],
        )
    axes[1].set_ylabel("mean estimate − exact")
    for ax in axes:
        figures.k_axis(ax, ks)
        figures.legend(ax)


middle = ks[len(ks) // 2]
alt = f"The exact product falls from {line.iloc[0]:.1f} at k = {ks[0]} to {line.iloc[-1]:.1f} at k = {ks[-1]}; the band holds it at {int(inside.sum())} of {len(ks)} orders. At k = {middle} the mean of the cross-fit is off by {shown['bias, cross-fit'][middle]:+.2f}, of the same-sample estimate by {shown['bias, same-sample'][middle]:+.2f}, of the plug-in by {shown['bias, plug-in'][middle]:+.2f}."
figures.show(draw, alt=alt, data=shown.reset_index(), ncols=2, size=(8.6, 3.4))

# %% tags=["hide-input"]
far = {method: (shown[f"bias, {method}"].abs() / shown[f"± {method}"]).max() for method in METHODS}
Markdown(
    f"The band of the first set holds the exact value at {int(inside.sum())} of {len(ks)} orders. "
    f"Over {model_replications} sets the mean of the cross-fit is within {far['cross-fit']:.1f} of its standard errors of the exact curve at every $k$; "
    f"that of the same-sample estimate is up to {far['same-sample']:.1f} of its own away, that of the plug-in up to {far['plug-in']:.1f}. "
    f"At $k = {ks[-1]}$ the exact value is {line.iloc[-1]:.1f}, and the means are {sets.loc['cross-fit']['mean'].iloc[-1]:.1f}, {sets.loc['same-sample']['mean'].iloc[-1]:.1f} and {sets.loc['plug-in']['mean'].iloc[-1]:.1f}."
)

# %% [markdown]
# (sec-estimating-decision)=
# ## Which estimate to act on
#
# "Will it cost pass@1?" asks for a sign, and the estimate without bias need not be the one whose sign is right most often: in SmolLM2 above its error is the largest of the three.
# So the signs are counted.
# In many populations of the bandit and of the small model, each estimate is taken from the same samples; a fourth one, "shrunken", sums the unbiased agreements with the weights $\mathbb{E}[w_k(p) \mid c]$ under the law of success rates that the counts show.
# Errors are in units of $\lVert \nabla J_1 \rVert^2$.

# %%
decided = right_signs.result(
    base=sign_base,
    sign_replications=sign_replications,
    verdict_replications=verdict_replications,
    seed=seed,
    recompute=recompute,
)
decided

# %%
signs = decided["signs"].assign(
    conflict=lambda t: np.where(t["truth"] < 0, "conflict", "none"),
    squared=lambda t: t["error"] ** 2,
)
summary = signs.groupby(["world", "prompts", "conflict", "method"]).agg(
    bias=("bias", "mean"), error=("squared", "mean"), right=("right", "mean")
)
summary["error"] **= 0.5
large = in_large["estimates"].assign(
    world="SmolLM2",
    prompts="fixed",
    truth=lambda t: t["k"].map(line),
)
large = large[large["k"] > 1]
large["away"] = (large["value"] - large["truth"]) / line[1]
large["right"] = (large["value"] < 0) == (large["truth"] < 0)
large["conflict"] = np.where(large["truth"] < 0, "conflict", "none")
by_large = large.groupby(["world", "prompts", "conflict", "method"]).agg(
    bias=("away", "mean"),
    error=("away", lambda values: (values**2).mean() ** 0.5),
    right=("right", "mean"),
)
together = pd.concat([summary, by_large]).unstack("method")
together.reindex(columns=list(SIGN_METHODS), level="method").round(3)

# %% tags=["hide-input"]
right = together["right"]


def share(world, prompts, conflict, method):
    return f"{right.loc[(world, prompts, conflict), method]:.0%}"


small_name = "small language model"
last = large[large["k"] == ks[-1]].groupby("method")["right"].sum()
root = in_large["estimates"].assign(truth=lambda t: t["k"].map(line))
root = ((root["value"] - root["truth"]) ** 2).groupby([root["method"], root["k"]]).mean() ** 0.5
shown_k = ks[-2]
Markdown(
    f"On SmolLM2 at $k = {shown_k}$ the root mean square errors are {root['cross-fit', shown_k]:.1f} for the cross-fit and {root['plug-in', shown_k]:.1f} for the plug-in, and at $k = {ks[-1]}$ the sign is right in {last['cross-fit']} and {last['plug-in']} of {model_replications} sets. "
    f"For **fixed** prompts the estimates that take all answers twice find more of the conflicts in the small model: {share(small_name, 'fixed', 'conflict', 'same-sample')} and {share(small_name, 'fixed', 'conflict', 'plug-in')} against {share(small_name, 'fixed', 'conflict', 'cross-fit')}; in the bandit {share('bandit', 'fixed', 'conflict', 'same-sample')} and {share('bandit', 'fixed', 'conflict', 'plug-in')} against {share('bandit', 'fixed', 'conflict', 'cross-fit')}. "
    f"For **new** prompts, the default, they hide them: of the conflicts of the small model the plug-in finds {share(small_name, 'new', 'conflict', 'plug-in')}, the same-sample estimate {share(small_name, 'new', 'conflict', 'same-sample')} and the cross-fit {share(small_name, 'new', 'conflict', 'cross-fit')}, since both halves have their prompts in common, which adds a term that is never negative. "
    f"Shrunken weights find fewer conflicts than the cross-fit in both worlds and both readings: {share(small_name, 'new', 'conflict', 'shrunken')} here."
)

# %% [markdown]
# How often is a verdict wrong? At an order whose product is exactly 0, since the masses of the prompts were set so, each call is an error; the interval at one $k$ may make 2.5 % of them on either side.

# %%
calls = decided["verdicts"]
errors = calls.assign(
    sample=np.where(
        calls["prompts"] == "fixed",
        "n = " + calls["n"].astype(str),
        "M = " + calls["size"].fillna(0).astype(int).astype(str),
    ),
    shown=[
        f"{100 * rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        for rate, low, high in zip(calls["rate"], calls["low"], calls["high"], strict=True)
    ],
)
errors.pivot(index=["world", "prompts", "k", "sample"], columns=["by", "called"], values="shown")

# %% tags=["hide-input"]
worst = calls.loc[calls.groupby("by")["rate"].idxmax()].set_index("by")
beyond = measured[measured["split"] != "completions"]
beyond = beyond[beyond["target"].str.startswith("k = ")]
side = beyond.loc[beyond["truth_above"].idxmax()]


def rate(name):
    row = worst.loc[name]
    return f"{row['rate']:.1%} ({row['low']:.1%} to {row['high']:.1%}), {row['prompts']} prompts of the {row['world']} at $k = {row['k']}$"


Markdown(
    f"In per cent, with exact 95 % intervals. The interval at one $k$ is wrong on one side in up to {rate('interval')}. The band, from which the verdict is read, in up to {rate('band')}. "
    f"Away from 0 one side of an interval can miss more often: in the table of coverage above the exact value lies above the upper end in {side['truth_above']:.1%} at most ({side['world']}, {side['target']}, {side['sample']}), where product and error come out small together. That does not call a sign."
)

# %% [markdown]
# **The reading that we recommend**, and that `passgrad measure` takes: a conflict, or none, is what the *band* says, and its errors are those of this table.
# Where the band holds 0, the sign of the unbiased estimate is a guess, right as often as its column says; of the four it finds the most conflicts of new prompts in both worlds.
# For fixed prompts, and a decision that must be taken now, the same-sample estimate is the better guess, at the price of one more gradient and the derivatives along it.
# A smaller error is no reason to prefer a bias that points to harmony.
#

# %% [markdown]
# ## Scope
#
# - Unbiased is a statement about the product, not about the cosine: that is a ratio of unbiased estimates, with a bias of the order of its variance. The sign is that of the product.
# - The intervals are right to first order. Where the noise of the gradients is as large as the gradients they are too long, by at most a factor $\sqrt 2$. They never promise more than they keep on that account; halves of answers for new prompts do, and so do samples in which a few prompts have all the variance.
# - Everything was measured on short answers with one accepted string, because the truth is known only there. Nothing in the estimate uses it.
# - A completion must come from the policy whose gradient is taken: temperature 1, nothing truncated, the same weights.
#
# ## Exercises
#
# ```{exercise} A policy at rest
# :label: ex-estimating-rest
#
# Let $\nabla p(x) = 0$ for every prompt. What do the cross-fit and the same-sample estimate of $\|\nabla J_1\|^2$ give on average?
# ```
#
# ````{solution-start} ex-estimating-rest
# :class: dropdown
# ````
#
# The first 0: half of the time it is negative, as an unbiased estimate of 0 must be. The second $\sum_x D(x)^2\, \mathrm{tr}\, \mathrm{Var}(u_x(1)) > 0$, a gradient that is not there.
# A score that is independent of the reward makes such a policy.

# %%
pure = torch.Generator().manual_seed(seed)
noise = torch.randn(20, 16, 3, dtype=torch.float64, generator=pure)
coins = (torch.rand(20, 16, generator=pure) < 0.5).double()
resting = type(samples)(coins, noise, torch.full((20,), 1 / 20).double())
assert biased_conflict(resting, [1])[0] > 0
again = [
    estimate_conflict(resting, [1], prompts="fixed", seed=turn).inner_product[0]
    for turn in range(40)
]
assert min(again) < 0 < max(again)
float(np.mean(again)), float(biased_conflict(resting, [1])[0])

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} The same prompts in both halves
# :label: ex-estimating-shared
#
# A colleague estimates $\|\nabla J_1\|^2$ for a law of prompts from $M = 10$ of them, with halves of answers, and does not take out the terms $x = x'$. The gradients $\nabla p(x)$ have mean 0 and $\mathbb{E}\|\nabla p(x)\|^2 = 1$. What is the mean of the estimate?
# ```
#
# ````{solution-start} ex-estimating-shared
# :class: dropdown
# ````
#
# By {prf:ref}`prop-shared-prompts` it is $0 + \frac1{10} (1 - 0) = 0.1$, although the gradient of the law is 0.

# %%
directions = torch.randn(20_000, 10, 2, dtype=torch.float64, generator=pure) / 2**0.5
average = directions.mean(dim=1).square().sum(-1).mean()
assert abs(average - 0.1) < 0.005
float(average)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} How much too long
# :label: ex-estimating-ratio
#
# The claimed error of a cross-fit is 1.2 times the spread of the estimate. Which share of its variance is of second order?
# ```
#
# ````{solution-start} ex-estimating-ratio
# :class: dropdown
# ````
#
# $(L + 2Q) / (L + Q) = 1.2^2$, so that $Q / (L + Q) = 1.44 - 1 = 0.44$.

# %%
share = 1.2**2 - 1
first_order, second_order = 1 - share, share
assert abs(((first_order + 2 * second_order) ** 0.5) - 1.2) < 1e-12
share

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - a product of two gradients from the same answers is biased by their common noise, a cross-fit is not;
# - halves of answers speak of these prompts, halves of prompts of the law behind them;
# - the error of a product has two terms, and with one of them alone the interval does not keep its level;
# - what is of second order is counted twice: intervals are about right where the signal is clear, and too long where it is not;
# - the band decides; where it does not, the sign of the unbiased estimate is a guess, and one with less error may hide conflicts of new prompts;
# - on SmolLM2 the estimate agrees with the exact curve of $\langle \nabla J_k, \nabla J_1 \rangle$.
