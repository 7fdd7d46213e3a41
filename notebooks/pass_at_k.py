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
# (sec-pass-at-k)=
# # pass@k and pass@1
#
# **Result.** pass@k can be estimated from $n \ge k$ samples of each prompt without bias, with a variance that is known exactly and with intervals that hold the truth about as often as they say, for the laws and sizes that this chapter names. Where most prompts are solved their coverage swings, and we show by how much.
# The intervals in common use do not: where nearly every prompt is solved, a bootstrap over prompts that is called a 95 % interval may hold the truth less than one time in ten.
#
# **What you need.** Expectation, variance, the binomial law. Nothing about language models.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $x \sim D$ | a prompt and the law it is drawn from |
# | $p(x)$, $q = 1 - p$ | success rate: the chance that one answer to $x$ is right; failure rate |
# | $f_k(p) = 1 - (1 - p)^k$ | pass@k of one prompt |
# | $J_k = \mathbb{E}_x[f_k(p(x))]$ | pass@k; $J_1$ is pass@1 |
# | $n$, $c$ | answers sampled for a prompt, and how many of them are right |
# | $P$ | number of prompts |

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import binom

from passgrad.metrics import pass_at_k
from passgrad.stats import (
    paired_change,
    pass_at_k_band,
    pass_at_k_interval,
    pass_at_k_variance,
    plug_in_pass_at_k,
    success_interval,
    variance_components,
)
from passgrad_book.build import figures
from passgrad_book.experiments.intervals import (
    SuccessLaw,
    percent_cells,
    simulate_change_coverage,
    simulate_coverage,
)

# %% [markdown]
# The laws of the success rate over prompts are ours, as are all sizes; the sizes are those of evaluations in print: some dozens to hundreds of prompts with 16 to 64 samples each.

# %% tags=["parameters"]
num_prompts: int = 100  # prompts of the examples
num_samples: int = 32  # answers sampled for each of them
ks: list = [1, 2, 4, 8, 16, 32]  # orders of pass@k, none above num_samples
seed: int = 0  # of the prompts, the samples and the simulations
replications: int = 4000  # simulated studies for each coverage
coverage_sizes: list = [[30, 16], [30, 64], [100, 32], [200, 16], [200, 64]]  # their P and n
bootstrap_replications: int = 500  # simulated studies for the bootstrap, which is slow
num_resamples: int = 400  # resamples in each of them
draws: int = 1000  # random numbers for a simultaneous quantile in the simulations

# %% [markdown]
# ## What is asked
#
# A prompt $x$ is a question whose answers a verifier calls right or wrong.
# A policy answers at random, and an answer is right with probability $p(x)$, independently of the others.
#
# ```{prf:definition} pass@k
# :label: def-pass-at-k
#
# pass@k of a prompt is the probability that at least one of $k$ independent answers is right, $f_k(p) = 1 - (1 - p)^k$.
# pass@k of a policy is the mean over prompts, $J_k = \mathbb{E}_x[f_k(p(x))]$.
# ```
#
# pass@1 is the success rate of a user who takes the first answer, pass@k that of a user who can check $k$ of them.
# Both are summaries of one object, the law of $p(x)$ over prompts, and they bound each other.
#
# ```{prf:proposition} pass@k between two functions of pass@1
# :label: prop-pass-at-k-bounds
#
# For all $k \ge 1$, $J_k \le J_{k+1}$ and
#
# $$
# J_1 \le J_k \le f_k(J_1).
# $$
#
# For $k \ge 2$ the left sides are equal only if $p(x) \in \{0, 1\}$ for almost all $x$, the right ones only if $p(x)$ is the same for almost all $x$.
#
# Checked by {test}`test_pass_at_k_bounds`.
# ```
#
# ```{prf:proof}
# One more answer cannot hurt: $f_{k+1}(p) - f_k(p) = p (1 - p)^k \ge 0$, and for $0 < p < 1$ it is positive. This gives the left side and its case of equality.
# The function $f_k$ is concave, $f_k'' = -k (k-1) (1-p)^{k-2} \le 0$, so by Jensen's inequality $\mathbb{E}[f_k(p)] \le f_k(\mathbb{E}[p])$.
# For $k \ge 2$ it is strictly concave on $[0, 1]$, so equality needs a constant $p$.
# ```
#
# The bounds are far apart: policies with the same pass@1 can have any pass@k between them.

# %%
spread = SuccessLaw("spread", ((1, 0.3, 0.6),))
clusters = SuccessLaw("two clusters", ((0.675, 1, 15), (0.325, 13.5, 1.5)))
alike = SuccessLaw("alike", ((1, 1e6, 2e6),))
laws = [alike, spread, clusters]
curves = pd.DataFrame({"k": ks} | {law.name: law.pass_at_k(ks) for law in laws})
same = curves.loc[0, [law.name for law in laws]].astype(float)
assert np.ptp(same) < 0.003
assert np.allclose(curves["alike"], 1 - (1 - same["alike"]) ** curves["k"], atol=1e-5)
curves.round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Three laws of the success rate with the same pass@1. Where all prompts are alike pass@k is as large as pass@1 allows; of the three laws, the one with many prompts near 0 (spread) gains least from more answers at the largest k.", "name": "fig-passk-laws"}, "image": {"alt": "pass@k against k for three laws of the success rate that share pass@1, with the lower and the upper bound."}}
def draw(ax):
    for law in laws:
        figures.curve(ax, ks, curves[law.name], of=law.name, exact=True)
    ax.axhline(same["alike"], color=figures.COLOURS["neutral"], linewidth=1)
    figures.k_axis(ax, ks)
    ax.set(ylabel="pass@k", ylim=(0, 1.03))
    figures.legend(ax)


middle = curves.iloc[len(curves) // 2]
alt = f"At k = {middle['k']:.0f} pass@k is {middle['alike']:.2f} for prompts that are alike, {middle['spread']:.2f} for a spread law and {middle['two clusters']:.2f} for two clusters; pass@1 is {same['alike']:.2f} for all three."
figures.show(draw, alt=alt, data=curves)

# %% [markdown]
# The laws of this chapter are beta laws and mixtures of them: "spread" is Beta(0.3, 0.6), with many prompts near 0 and near 1; "two clusters" has hard prompts near 1/16 and easy ones near 0.9.
#
# ### What a mean hides
#
# Two policies can agree in pass@1 and differ on every prompt.
# Here one policy loses on its easy prompts exactly what it gains on its hard ones. How training on pass@k brings such an exchange about is the subject of {ref}`sec-conflict`.

# %%
easy, hard = np.full(num_prompts // 2, 0.95), np.full(num_prompts - num_prompts // 2, 0.05)
before = np.concatenate([easy, hard])
after = np.concatenate([easy - 0.25, hard + 0.25 * len(easy) / len(hard)])
means = pd.DataFrame(
    {
        "k": ks,
        "before": [(1 - (1 - before) ** k).mean() for k in ks],
        "after": [(1 - (1 - after) ** k).mean() for k in ks],
    }
)
assert abs(means.loc[0, "before"] - means.loc[0, "after"]) < 1e-12
means.round(4)

# %% tags=["hide-input"]
gained = means[means["k"] > 1].eval("after - before")
Markdown(
    f"pass@1 is {means['before'][0]:.3f} before and after, although every prompt changed by about 0.25 and half of them got worse. "
    f"pass@k rises for each $k > 1$, by up to {gained.max():.2f}. "
    "Neither number says that a user of the easy prompts is worse off: report the success rates by prompt, or by group of prompts, beside any mean."
)

# %% [markdown]
# ## An estimate without bias
#
# We sample $n$ answers and count $c$ right ones. For $k \le n$, any $k$ of the answers are a fair trial of pass@k, so we average over all subsets of size $k$ {cite}`chen2021codex`.
#
# ```{prf:proposition} The unbiased estimate
# :label: prop-pass-at-k-unbiased
#
# Let $c \sim \mathrm{Bin}(n, p)$ and $k \le n$. Then $\hat\rho_k = 1 - \binom{n-c}{k} \big/ \binom{n}{k}$ has $\mathbb{E}[\hat\rho_k] = f_k(p)$ for all $p$, and no other function of $c$ has this mean for all $p$.
# For $k > n$ there is none.
#
# Checked by {test}`test_pass_at_k_unbiased`.
# ```
#
# ```{prf:proof}
# $\binom{n-c}{k} / \binom{n}{k}$ is the share of $k$-subsets of the answers with no right one. Each subset has none with probability $q^k$, so the mean of the share is $q^k$.
#
# The mean of $h(c)$ is $\sum_c h(c) \binom{n}{c} p^c q^{n-c}$. The polynomials $p^c q^{n-c}$, $c = 0, \dots, n$, are a basis of the polynomials in $p$ of degree at most $n$, so $h$ is determined by its mean; and a polynomial of degree $k > n$, as $f_k$ is, is not such a mean.
# ```
#
# The ratio of the two binomial coefficients overflows early when it is formed; `pass_at_k` adds up its logarithm instead, and keeps small estimates to all digits for a million samples.

# %%
counts = np.arange(num_samples + 1)
for p in (0.01, 0.2, 0.9):
    law = binom.pmf(counts, num_samples, p)
    for k in ks:
        assert abs(law @ pass_at_k(num_samples, counts, k) - (1 - (1 - p) ** k)) < 1e-12
pass_at_k(10**6, [1, 3, 1000], [[1], [1000], [500_000]])

# %% [markdown]
# ### The plug-in and the bootstrap with replacement
#
# It is tempting to put $\hat p = c / n$ into the formula, or to draw $k$ of the $n$ answers with replacement, many times over, and to average the best. The two are the same, and both are too low.
#
# ```{prf:proposition} The plug-in is biased down
# :label: prop-pass-at-k-plug-in
#
# $f_k(c/n)$ is the probability that a best-of-$k$ drawn with replacement from the $n$ answers is right, and the mean of $\hat\rho_k$ over bootstrap resamples of the $n$ answers. For $k \ge 2$ and $0 < p < 1$,
#
# $$
# -\frac{k (k-1)}{2} \frac{p q}{n} \le \mathbb{E}[f_k(c/n)] - f_k(p) < 0.
# $$
#
# Checked by {test}`test_pass_at_k_plug_in`.
# ```
#
# ```{prf:proof}
# An answer drawn with replacement is right with probability $c/n$, independently of the others; the number of right ones in a resample is $\mathrm{Bin}(n, c/n)$, and by {prf:ref}`prop-pass-at-k-unbiased` the mean of $\hat\rho_k$ is then $f_k(c/n)$.
# As $f_k$ is strictly concave and $c/n$ is not constant, Jensen's inequality is strict: $\mathbb{E}[f_k(c/n)] < f_k(\mathbb{E}[c/n]) = f_k(p)$.
# By Taylor's formula at $p$, the bias is at least $\frac12 \min f_k'' \cdot \mathrm{Var}(c/n)$, and $f_k'' \ge -k(k-1)$.
# ```
#
# With one right answer in 16, best-of-16 is right: the 16 answers are the only subset of that size. Drawn with replacement, 16 answers miss the right one with probability $(15/16)^{16}$.

# %%
again = np.random.default_rng(seed).binomial(16, 1 / 16, size=20_000)
one_of_sixteen = {
    "unbiased": pass_at_k(16, 1, 16),
    "plug-in": plug_in_pass_at_k(16, 1, 16),
    "resampled": float(pass_at_k(16, again, 16).mean()),
}
assert round(one_of_sixteen["plug-in"], 3) == 0.644
assert abs(one_of_sixteen["resampled"] - one_of_sixteen["plug-in"]) < 0.02
one_of_sixteen

# %%
rates = np.linspace(0, 1, 201)
chances = binom.pmf(counts, num_samples, rates[:, None])
wanted = [k for k in ks if k > 1]
bias = pd.DataFrame(
    {
        f"pass@{k}": chances @ plug_in_pass_at_k(num_samples, counts, k) - (1 - (1 - rates) ** k)
        for k in wanted
    }
)
assert (bias < 1e-12).all(axis=None)
bias.min().round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Bias of the plug-in with n samples, against the success rate. It is largest on hard prompts and for k near n, where pass@k is most asked for. The unbiased estimate is the line at zero.", "name": "fig-passk-plug-in"}, "image": {"alt": "Bias of the plug-in estimate of pass@k against the success rate for several k."}}
def draw(ax):
    figures.zero(ax)
    for k, name in zip(wanted, bias, strict=True):
        if k in (2, 4, ks[-1]):
            figures.curve(ax, rates, bias[name], of=name, exact=True)
    ax.set(xlabel="success rate p", ylabel="bias of the plug-in", xlim=(0, 0.6))
    figures.legend(ax, loc="lower right")


worst = bias.iloc[:, -1]
alt = f"With n = {num_samples} the plug-in for pass@{wanted[-1]} is too low by up to {-worst.min():.3f}, at p = {rates[worst.argmin()]:.2f}; for pass@{wanted[0]} by at most {-bias.iloc[:, 0].min():.4f}."
figures.show(draw, alt=alt, data=bias.assign(p=rates))

# %% [markdown]
# ## How much the estimate of one prompt varies
#
# ```{prf:proposition} Exact variance
# :label: prop-pass-at-k-variance
#
# For $j, k \le n$ and estimates from the same $n$ answers,
#
# $$
# \mathrm{Cov}(\hat\rho_j, \hat\rho_k) = \sum_{i \ge 1} h_i \, (q^{j+k-i} - q^{j+k}), \qquad h_i = \binom{j}{i} \binom{n-j}{k-i} \Big/ \binom{n}{k}.
# $$
#
# With $j = k$ this is the variance. It is $pq/n$ for $k = 1$ and $f_k (1 - f_k)$ for $k = n$.
#
# Checked by {test}`test_pass_at_k_variance`.
# ```
#
# ```{prf:proof}
# Write $g_k = 1 - \hat\rho_k$, the share of $k$-subsets without a right answer. Then $g_j g_k$ is the share of pairs of a $j$-subset and a $k$-subset that both have none.
# The union of two subsets with $i$ answers in common has $j + k - i$ answers and holds no right one with probability $q^{j+k-i}$; a share $h_i$ of the pairs has $i$ answers in common. So $\mathbb{E}[g_j g_k] = \sum_{i \ge 0} h_i q^{j+k-i}$, and $\mathbb{E}[g_j] \mathbb{E}[g_k] = q^{j+k} = \sum_{i \ge 0} h_i q^{j+k}$.
# For $k = 1$ the only term is $h_1 = 1/n$; for $k = n$ it is $h_n = 1$.
# ```
#
# This is Hoeffding's variance of a U-statistic {cite}`hoeffding1948` in closed form. All terms are positive, so nothing cancels when it is added up.
#
# ```{prf:corollary} Two bounds
# :label: cor-pass-at-k-variance-bounds
#
# $\displaystyle \frac{(k q^{k-1})^2 \, p q}{n} \le \mathrm{Var}(\hat\rho_k) \le \frac{k}{n} f_k (1 - f_k).$
#
# Checked by {test}`test_pass_at_k_variance`.
# ```
#
# ```{prf:proof}
# Let $\zeta_i = q^{2k} (q^{-i} - 1)$, so that the variance is $\sum_i h_i \zeta_i$. As $i \mapsto q^{-i} - 1$ is convex and 0 at 0, $\zeta_i / i$ grows with $i$, so $i \zeta_1 \le \zeta_i \le i \zeta_k / k$. The mean overlap is $\sum_i h_i i = k^2/n$. Insert $\zeta_1 = q^{2k-1} p$ and $\zeta_k = q^k - q^{2k} = f_k (1 - f_k)$.
# ```
#
# The left side is the delta method: $w_k(p)^2 \, pq/n$ with the weight $w_k = f_k'$. The right side says that averaging over subsets is worth at least as much as $n/k$ independent trials of best-of-$k$.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Standard deviation of one prompt's estimate. It moves to hard prompts as k grows: at k = n pass@k is most uncertain where one answer is right with a probability of about 0.7/k.", "name": "fig-passk-variance"}, "image": {"alt": "Exact standard deviation of the pass@k estimate against the success rate for several k."}}
deviation = pd.DataFrame(
    {f"pass@{k}": np.sqrt(pass_at_k_variance(rates, num_samples, k)) for k in ks}
)


def draw(ax):
    for k, name in zip(ks, deviation, strict=True):
        if k in (1, 4, ks[-1]):
            figures.curve(ax, rates, deviation[name], of=name, exact=True)
    ax.set(xlabel="success rate p", ylabel="standard deviation", ylim=(0, None))
    figures.legend(ax)


alt = f"With n = {num_samples} the standard deviation is at most {deviation['pass@1'].max():.3f} for pass@1 and {deviation.iloc[:, -1].max():.3f} for pass@{ks[-1]}, there at p = {rates[deviation.iloc[:, -1].argmax()]:.3f}."
figures.show(draw, alt=alt, data=deviation.assign(p=rates))

# %% [markdown]
# The variance depends on the unknown $p$. Can it be estimated from the counts?
#
# ```{prf:proposition} When the variance can be estimated
# :label: prop-pass-at-k-variance-estimate
#
# For $j + k \le n$, $g_j g_k - g_{j+k}$ with $g_k = \binom{n-c}{k} \big/ \binom{n}{k}$ is an unbiased estimate of $\mathrm{Cov}(\hat\rho_j, \hat\rho_k)$, and it is not negative. For $j + k > n$ no function of $c$ is an unbiased estimate.
# In particular the variance of pass@k has an unbiased estimate, $g_k^2 - g_{2k}$, exactly if $2k \le n$.
#
# Checked by {test}`test_pass_at_k_variance`.
# ```
#
# ```{prf:proof}
# $\mathrm{Cov}(\hat\rho_j, \hat\rho_k) = \mathbb{E}[g_j g_k] - q^{j+k}$, and for $j + k \le n$, $\mathbb{E}[g_{j+k}] = q^{j+k}$.
# If $g_j > 0$, then $g_{j+k} / g_j$ is the share of $k$-subsets of the $n - j$ answers outside a failed $j$-subset that fail; there $c$ of $n - j$ answers are right, a larger share than $c$ of $n$, so it is at most $g_k$.
# For $j + k > n$: $\mathbb{E}[g_j g_k]$ is the mean of a function of $c$, a polynomial of degree at most $n$ in $p$, so the covariance has degree $j + k > n$ and is no such mean.
# ```
#
# So to know the noise of pass@k from the samples of one prompt, draw at least $2k$ of them. With fewer, something must be assumed, and we come to that below.

# %% [markdown]
# ## One prompt: intervals for the success rate
#
# An interval for $p$ is turned into one for $f_k(p)$ by putting its ends into $f_k$, which is increasing.
# The exact interval {cite}`clopper1934` covers with at least the nominal probability whatever $p$ is. It is conservative by construction: counts are whole numbers, and it never errs downwards.
# Wilson's {cite}`wilson1927` and Jeffreys' intervals cover about nominally on average over $p$, and for some $p$ clearly less {cite}`brown2001interval`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact coverage of three intervals for the success rate of one prompt. Clopper-Pearson is never below 95 % and mostly well above; Wilson and Jeffreys swing about 95 %.", "name": "fig-passk-binomial"}, "image": {"alt": "Coverage of the Clopper-Pearson, Wilson and Jeffreys intervals against the success rate."}}
truths = np.linspace(0.001, 0.999, 999)
chances = binom.pmf(counts, num_samples, truths[:, None])
single = {"p": truths}
for method in ("exact", "wilson", "jeffreys"):
    low, high = success_interval(counts, num_samples, method=method)
    single[method] = (chances * ((low <= truths[:, None]) & (truths[:, None] <= high))).sum(axis=1)
single = pd.DataFrame(single)
assert single["exact"].min() >= 0.95


def draw(axes):
    for ax, method in zip(axes, ("exact", "wilson", "jeffreys"), strict=True):
        figures.curve(ax, truths, single[method], of="exact", exact=True, linewidth=0.9)
        ax.axhline(0.95, color=figures.COLOURS["pass@1"], linewidth=1.2, linestyle="--")
        ax.set(xlabel="success rate p", ylim=(0.84, 1.005))
        figures.panel(ax, {"exact": "Clopper-Pearson"}.get(method, method.capitalize()))
    axes[0].set_ylabel("coverage")


average = single.drop(columns="p").mean()
alt = f"With n = {num_samples}, mean coverage over p is {average['exact']:.3f} for Clopper-Pearson, {average['wilson']:.3f} for Wilson, {average['jeffreys']:.3f} for Jeffreys; the lowest values are {single['exact'].min():.3f}, {single['wilson'].min():.3f} and {single['jeffreys'].min():.3f}."
figures.show(draw, alt=alt, data=single, ncols=3, size=(7.4, 2.9), sharey=True)

# %% [markdown]
# ## Many prompts: two questions
#
# With $P$ prompts the estimate of $J_k$ is the mean of the $\hat\rho_k(x_i)$. How uncertain it is depends on what would be done again.
#
# - **These prompts, new samples.** The prompts are all that we care about, a fixed benchmark; only the answers are random.
# - **New prompts too.** The benchmark is a sample of a law of prompts, and $J_k$ is the mean under this law.
#
# ```{prf:proposition} Two components
# :label: prop-pass-at-k-components
#
# Let the prompts be drawn independently from $D$, with $n$ answers each. Then the variance of the estimate of one prompt is
#
# $$
# \underbrace{\mathrm{Var}(\hat\rho_k)}_{\text{total}} = \underbrace{\mathrm{Var}_x(f_k(p(x)))}_{\text{between}} + \underbrace{\mathbb{E}_x[\mathrm{Var}(\hat\rho_k \mid x)]}_{\text{within}}.
# $$
#
# The mean over $P$ prompts has variance total$/P$ when prompts and samples are new, and the mean of the prompts' variances$/P$ when the prompts are fixed.
# The sample variance of the $P$ estimates is an unbiased estimate of the total and, for $2k \le n$, the mean of $g_k^2 - g_{2k}$ one of the part within; their difference is one of the part between.
#
# Checked by {test}`test_pass_at_k_components`.
# ```
#
# ```{prf:proof}
# The first line is the law of total variance, with $\mathbb{E}[\hat\rho_k \mid x] = f_k(p(x))$. Estimates of different prompts are independent, given the prompts and also without; this gives the variances of the mean.
# The last sentence is {prf:ref}`prop-pass-at-k-variance-estimate` and the sample variance of independent draws.
# ```
#
# A bootstrap over prompts, or the sample variance, therefore answers the second question, samples included; resampling the answers as well would count their noise twice and turn the estimate into the plug-in.

# %%
rng = np.random.default_rng(seed)
success = spread.sample(rng, (num_prompts,))
correct = rng.binomial(num_samples, success)
parts = variance_components(num_samples, correct, ks)
components = pd.DataFrame(
    {
        "k": parts.ks,
        "estimate": parts.estimate,
        "between": parts.between,
        "within": parts.within,
        "error, fixed prompts": parts.error_fixed,
        "error, new prompts": parts.error_new,
        "unbiased": parts.unbiased,
    }
)
components.round(4)

# %% tags=["hide-input"]
ratio = components["error, new prompts"] / components["error, fixed prompts"]
Markdown(
    f"The two standard errors differ by a factor of {ratio.iloc[0]:.1f} at $k = 1$ and of {ratio.iloc[-1]:.1f} at $k = {ks[-1]}$: "
    "more samples act on the part within alone, more prompts on both. "
    "For $2k > n$ the part within has no unbiased estimate; the table has that of a law of the success rate which is fitted to the counts of all prompts."
)

# %% [markdown]
# ### Why the usual intervals fail near 1, and what to do
#
# Suppose that nearly every prompt is solved. Then nearly all estimates are 1, their sample variance is nearly 0, and an interval made from it, normal or bootstrap, is short for no good reason: a prompt that fails was not seen, but there may be some.
# At $k = n$ we know the answer. Each estimate is then 1 or 0, a coin, and an interval for the chance of a coin should be used.
#
# In general the estimates lie in $[0, 1]$, so their variance is $\phi \, \mu (1 - \mu)$ with a factor $\phi \le 1$, $\mu$ being their mean. Wilson's interval for a coin carries over: solve
#
# $$
# (\hat\mu - \mu)^2 = t^2 \, \frac{\phi \, \mu (1 - \mu)}{P}
# $$
#
# for $\mu$, where $t$ is the quantile of Student's law with $P - 1$ degrees. This is Wilson's interval for $P / \phi$ coins.
# We estimate $\phi$ by the sample variance over $\hat\mu (1 - \hat\mu)$, and move it towards 1 when the sample shows little: by the share $\max\{1/(1 + K), 1/(1 + E)^2\}$, where $E$ is the sum over prompts of what the estimates lack to 1 (or the sum of the estimates, if that is less) and $K$ the effective number of prompts that carry this sum.
# The rule is ours and has no proof; the simulation below is what speaks for it.
#
# For fixed prompts the variance within takes the place of the sample variance, unbiased for $2k \le n$ and otherwise of a law on a grid fitted to the counts; to be cautious, it is not taken below that of a beta law fitted to the same counts.

# %%
nearly = np.full(40, 16)
nearly[0] = 1
rows = []
for method in ("bootstrap", "score"):
    rows.append((method, *pass_at_k_interval(16, nearly, 15, method=method, seed=seed)))
pd.DataFrame(rows, columns=["method", "estimate", "low", "high"]).round(4)

# %% [markdown]
# The example has 39 prompts with 16 of 16 right and one with 1 of 16. The bootstrap interval for pass@15 starts above 0.99. It claims that at most one prompt in a hundred is unsolved, which 40 prompts cannot show.
#
# ## Coverage, measured
#
# We draw prompts from a law, answers for each prompt, compute the interval and check whether it contains the true value. We repeat this some thousands of times. "Mostly solved" is the law Beta(2, 0.3), where pass@k is close to 1.

# %%
solved = SuccessLaw("mostly solved", ((1, 2, 0.3),))
studied = [spread, clusters, solved]
tables = []
for law in studied:
    for size, samples in coverage_sizes:
        grid = sorted({1, samples // 4, samples // 2, 3 * samples // 4, samples})
        for reading in ("new", "fixed"):
            run = {"prompts": reading, "replications": replications, "seed": seed, "draws": draws}
            found = simulate_coverage(law, size, samples, grid, methods=("score", "band"), **run)
            tables.append(found.assign(reading=reading))
coverage = pd.concat(tables, ignore_index=True)

# %%
score = coverage[coverage["method"] == "score"].drop(columns=["method", "width"])
share = (score["k"] / score["samples"]).round(2).where(score["k"] > 1, 0)
places = share.map({0: "k = 1", 0.25: "n/4", 0.5: "n/2", 0.75: "3n/4", 1: "n"})
order = pd.Categorical(score["law"], [law.name for law in studied])
shown = score.assign(law=order, k=places, cells=percent_cells(score)).rename(
    columns={"prompts": "P", "samples": "n"}
)
shown = shown.pivot(index=["law", "reading", "P", "n"], columns="k", values="cells")
shown[["k = 1", "n/2", "3n/4", "n"]]

# %% [markdown]
# Coverage in percent; after ± the longer side of the exact 95 % interval of the coverage itself, from the number of simulated studies.
# The column "reading" says whether prompts are new or fixed.
# We name some settings in advance: the laws "spread" and "two clusters", 100 prompts or more, both readings, and $k$ = 1, $n/4$, $n/2$, $3n/4$ and $n$. The table has no column for $n/4$, to save width. The law "mostly solved" is not among them; its coverage is told below.
# There the coverage lies between 93 % and 97 %. With 30 prompts of these laws it may be larger:

# %%
few = score["prompts"] < 100
rest = score[score["law"] == "mostly solved"]
named, small = (score[(score["law"] != "mostly solved") & (few == f)] for f in (False, True))
assert ((named["high"] > 0.93) & (named["low"] < 0.97)).all()
assert ((small["high"] > 0.93) & (small["low"] < 0.98)).all()
assert (rest["high"] > 0.88).all()
outside = small[~small["coverage"].between(0.93, 0.97)]
outside[["law", "reading", "prompts", "samples", "k", "coverage", "low", "high"]].round(3)

# %% tags=["hide-input"]
least = rest.loc[rest["coverage"].idxmin()]
inside = int(named["coverage"].between(0.93, 0.97).sum())
Markdown(
    f"{inside} of the {len(named)} named settings have a coverage between 93 % and 97 %: the lowest is {named['coverage'].min():.3f}, the highest {named['coverage'].max():.3f}. "
    f"With 30 prompts {len(small) - len(outside)} of {len(small)} do; the others, in the table, reach {small['coverage'].max():.3f}. "
    f'Under the law "mostly solved" it lies between {least["coverage"]:.3f} and {rest["coverage"].max():.3f}. '
    "There the number of failures is a small whole number, the coverage of any interval swings with it as in {numref}`fig-passk-binomial`, and it is more often too high than too low. "
    f"The worst of it: {least['prompts']} {'fixed' if least['reading'] == 'fixed' else 'new'} prompts with {least['samples']} samples at $k = {least['k']}$."
)

# %% [markdown]
# The bootstrap over prompts and the normal interval, in the same settings at one size, for new prompts:

# %%
size, samples = coverage_sizes[len(coverage_sizes) // 2]
grid = sorted({1, samples // 4, samples // 2, 3 * samples // 4, samples})
usual = pd.concat(
    simulate_coverage(
        law, size, samples, grid, methods=(method,), seed=seed, num_resamples=num_resamples,
        replications=bootstrap_replications if method == "bootstrap" else replications,
    )
    for law in studied
    for method in ("score", "normal", "bootstrap")
)  # fmt: skip
usual.pivot_table(index=["law", "k"], columns="method", values="coverage").round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Coverage of three 95 % intervals for pass@k over new prompts. For spread success rates all three do well. Where most prompts are solved, the bootstrap and the normal interval lose nearly all of their coverage as k grows; the score interval keeps it.", "name": "fig-passk-coverage"}, "image": {"alt": "Coverage of the score, normal and bootstrap intervals against k for three laws of the success rate."}}
def draw(axes):
    for ax, law in zip(axes, studied, strict=True):
        ax.axhspan(0.93, 0.97, color=figures.COLOURS["neutral"], alpha=0.25, linewidth=0)
        for method in ("bootstrap", "normal", "score"):
            part = usual[(usual["law"] == law.name) & (usual["method"] == method)]
            figures.curve(
                ax, part["k"], part["coverage"], of=method, low=part["low"], high=part["high"]
            )
        figures.k_axis(ax, grid)
        ax.set_ylim(0, 1.03)
        figures.panel(ax, law.name)
    axes[0].set_ylabel("coverage")
    figures.legend(axes[2], loc="lower left")


cover = usual.set_index(["law", "method", "k"])["coverage"]
worst_usual = [cover["mostly solved", m, grid[-1]] for m in ("bootstrap", "normal", "score")]
alt = "At k = n = {} under the law mostly solved, coverage is {:.2f} for the bootstrap, {:.2f} for the normal and {:.2f} for the score interval; under the other laws all are near 0.95.".format(
    grid[-1], *worst_usual
)
figures.show(draw, alt=alt, data=usual, ncols=3, size=(7.4, 3), sharey=True)

# %% [markdown]
# ## All k at once
#
# A curve of pass@k over $k$ is read as a whole: where it rises, where two curves cross. Intervals that hold one at a time do not allow this.
# A simultaneous band takes, in place of the quantile $t$, the quantile of the largest of the studentised deviations over all $k$, $\max_k |T_k|$.
# Its law follows from the correlations of the estimates over prompts, by random multipliers {cite}`chernozhukov2013`. As the estimates at neighbouring $k$ are strongly correlated, the band is not much longer than the intervals.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "pass@k of sampled prompts with the band that holds at all k at once (shaded) and the intervals that hold at one k each (bars); the exact curve of the law is drawn too.", "name": "fig-passk-band"}, "image": {"alt": "Estimated pass@k against k with a simultaneous band, pointwise intervals and the exact curve."}}
band = pass_at_k_band(num_samples, correct, ks, seed=seed)
ends = [pass_at_k_interval(num_samples, correct, k)[1:] for k in ks]
frame = band.to_frame().assign(low_each=[e[0] for e in ends], high_each=[e[1] for e in ends])
frame["exact"] = spread.pass_at_k(ks)


def draw(ax):
    look = {"low": frame["low"], "high": frame["high"], "label": "estimate, band"}
    figures.curve(ax, ks, frame["estimate"], of="sampled", **look)
    bars = {"low": frame["low_each"], "high": frame["high_each"], "label": ""}
    figures.points(ax, ks, frame["estimate"], of="sampled", **bars)
    figures.curve(ax, ks, frame["exact"], of="exact", exact=True, marker=None)
    figures.k_axis(ax, ks)
    ax.set(ylabel="pass@k", ylim=(0, 1.03))
    figures.legend(ax, loc="lower right")


alt = f"pass@k of {num_prompts} prompts rises from {frame['estimate'].iloc[0]:.2f} to {frame['estimate'].iloc[-1]:.2f}; the band takes {band.critical:.2f} standard errors at every k."
figures.show(draw, alt=alt, data=frame)

# %%
bands = coverage[coverage["method"] == "band"]
assert (bands.loc[bands["law"] != "mostly solved", "high"] > 0.93).all()
shown = bands.assign(cells=percent_cells(bands)).rename(columns={"prompts": "P", "samples": "n"})
shown.pivot(index=["law", "reading"], columns=["P", "n"], values="cells")

# %% tags=["hide-input"]
held = bands.groupby(bands["law"] == "mostly solved")["coverage"].agg(["min", "max"])
Markdown(
    f'Under the laws "spread" and "two clusters" the whole curve lies in its band in {held.loc[False, "min"]:.3f} to {held.loc[False, "max"]:.3f} of the studies, '
    f"where most prompts are solved in {held.loc[True, 'min']:.3f} to {held.loc[True, 'max']:.3f}."
)

# %% [markdown]
# ## Changes of pass@1 and pass@k together
#
# Training changes both. "pass@k rose while pass@1 fell" is a statement about two differences, estimated from the same prompts and the same samples.
# Three things are needed: pairing (both checkpoints answer the same prompts, and most of the difference between prompts cancels), one joint statement in place of two, and intervals that keep a length near 1.
# `paired_change` puts the interval of a difference together from the score intervals of its two sides and their correlation {cite}`zou2008`, and takes the quantile of the larger of the two studentised deviations, given their correlation.

# %%
moved = np.where(success > 0.5, success - 0.15, success + 0.03)
correct_after = rng.binomial(num_samples, np.clip(moved, 0, 1))
pair = [1, ks[-2]]
change = paired_change(num_samples, correct, correct_after, pair, seed=seed)
change.to_frame().round(4)

# %% tags=["hide-input"]
alone = [
    np.hypot(
        *(
            np.subtract(*pass_at_k_interval(num_samples, c, k)[:0:-1])
            for c in (correct, correct_after)
        )
    )
    for k in pair
]
gain = alone / (change.high - change.low)
apart = change.high[0] < 0 < change.low[1]
finding = (
    f"The two intervals lie on either side of zero: pass@1 fell and pass@{pair[1]} rose, in one statement with 95 % confidence. "
    if apart
    else "At least one of the two intervals holds zero: no joint statement on the signs can be made. "
)
Markdown(
    f"{finding}The two estimated changes have a correlation of {change.correlation[0, 1]:.2f} and the intervals take {change.critical:.2f} standard errors. "
    f"Without pairing, as for two sets of prompts, the interval for pass@1 would be {gain[0]:.1f} times as long."
)

# %% [markdown]
# The coverage of these intervals, where a prompt keeps its success rate with probability 0.7 and gets a new one from another law otherwise. The column "both" is the joint statement.

# %%
tables = []
for law, law_after in ((spread, clusters), (clusters, spread), (spread, spread)):
    for size, samples in (coverage_sizes[0], coverage_sizes[len(coverage_sizes) // 2]):
        for reading in ("new", "fixed"):
            run = {
                "kept": 0.7,
                "prompts": reading,
                "replications": replications // 2,
                "draws": draws,
            }
            found = simulate_change_coverage(
                law, law_after, size, samples, [1, samples // 2], seed=seed, **run
            )
            tables.append(found.assign(law=f"{law.name} to {law_after.name}", reading=reading))
changes = pd.concat(tables, ignore_index=True)
assert (changes["high"] > 0.92).all()
kinds = changes["k"].clip(upper=2).map({0: "both", 1: "k = 1", 2: "k = n/2"})
shown = changes.assign(k=kinds, cells=percent_cells(changes))
shown = shown.rename(columns={"prompts": "P", "samples": "n"})
shown.pivot(index=["law", "reading", "P", "n"], columns="k", values="cells")

# %% tags=["hide-input"]
joint = changes.loc[changes["k"] == 0, "coverage"]
lone = changes.loc[changes["k"] > 0, "coverage"]
off = changes[~changes["coverage"].between(0.93, 0.97)]
worst_off = "none" if off.empty else f"{off['coverage'].min():.3f} to {off['coverage'].max():.3f}"
Markdown(
    f"The joint statements cover in {joint.min():.3f} to {joint.max():.3f} of the studies, the single ones in {lone.min():.3f} to {lone.max():.3f}. "
    f"{len(off)} of the {len(changes)} rows lie outside 93 % to 97 % ({worst_off}); a coverage above 97 % comes from the cautious variance for fixed prompts."
)

# %% [markdown]
# ## Scope
#
# - Answers are independent and the verifier is a function of the answer. A verifier that errs estimates another $p$.
# - The score interval for new prompts is a rule with measured coverage, not a theorem. Under laws for which nearly all prompts are solved its coverage swings, from below 90 % to nearly 100 %, since it rests on a handful of failures.
# - For fixed prompts and $2k > n$ a law of the success rate is fitted, and the interval is as good as this fit. Draw $n \ge 2k$ samples to be free of it.
# - For $k > n$ nothing here helps: an estimate of pass@k then extrapolates.
# - Prompts that come in groups (several from one source) are not independent draws; the intervals over new prompts are then too short.

# %% [markdown]
# ## Exercises
#
# ```{exercise} A report that cannot be
# :label: ex-passk-bounds
#
# A report states pass@1 = 0.20 and pass@8 = 0.87 on the same prompts. Sampling error aside, what is wrong?
# ```
#
# ````{solution-start} ex-passk-bounds
# :class: dropdown
# ````
#
# By {prf:ref}`prop-pass-at-k-bounds`, pass@8 is at most $f_8(0.2) = 1 - 0.8^8 \approx 0.832$. The two numbers are of different policies, prompts or sampling settings.

# %%
largest = 1 - (1 - 0.20) ** 8
assert largest < 0.87
round(largest, 3)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} Prompts or samples
# :label: ex-passk-budget
#
# You can afford 3,200 answers and want $J_4$ of a law of prompts as precisely as possible. Do you take 100 prompts with 32 samples, 400 with 8, or 800 with 4? The success rates follow the law "spread". And what if the benchmark has 100 prompts that you keep?
# ```
#
# ````{solution-start} ex-passk-budget
# :class: dropdown
# ````
#
# The variance is (between + within$_n$)$/P$. With $nP = 3200$ it is $n \, (\text{between} + \text{within}_n) / 3200$, so compare $n \cdot \text{between} + n \cdot \text{within}_n$.
# The first term grows with $n$, the second falls with $n$ (Hoeffding). Which one decides depends on the law. Under "spread" the prompts differ so much that many prompts are best, $n = k = 4$. Where all prompts are alike there is nothing between them, and few prompts with many samples are best.
# With 800 prompts and $n = k$ no variance within can be estimated without bias, which does not matter for new prompts. For 100 fixed prompts the between part is no error, and all samples go to them.

# %%
plans = ((100, 32), (400, 8), (800, 4))
errors = {}
for law in (spread, alike):
    many = law.sample(np.random.default_rng(seed), (50_000,))
    true = 1 - (1 - many) ** 4
    errors[law.name] = {
        f"{size} prompts, {n} samples": np.sqrt(
            (true.var() + pass_at_k_variance(many, n, 4).mean()) / size
        )
        for size, n in plans
    }
pd.DataFrame(errors).round(4)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} Twice the samples
# :label: ex-passk-negative
#
# At $k = n$ someone estimates the variance of the estimate by $\hat\rho_n (1 - \hat\rho_n)$, the plug-in of $f_n (1 - f_n)$. What do they get, for every prompt and every count?
# ```
#
# ````{solution-start} ex-passk-negative
# :class: dropdown
# ````
#
# Zero: at $k = n$ the estimate is 0 or 1. The variance is $f_n (1 - f_n)$ all the same, and no function of the count estimates it without bias, by {prf:ref}`prop-pass-at-k-variance-estimate`.

# %%
at_n = pass_at_k(num_samples, counts, num_samples)
assert set(at_n * (1 - at_n)) == {0.0}
float(pass_at_k_variance(1 / num_samples, num_samples, num_samples))

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - pass@1 bounds pass@k from both sides, and leaves much between; means over prompts hide what happened to the prompts;
# - the unbiased estimate of pass@k is the only one, and needs $n \ge k$; the plug-in, which is also what a bootstrap with replacement gives, is too low;
# - the variance of the estimate is exact in closed form, and can be estimated without bias exactly if $2k \le n$;
# - an interval is for these prompts or for new ones: two questions with different standard errors;
# - near 1 the bootstrap over prompts and the normal interval fail badly; a score interval keeps its coverage, which we measured;
# - changes of pass@1 and pass@k, and pass@k at all $k$, have joint intervals that are little longer than single ones.
