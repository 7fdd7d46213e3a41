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
# (sec-estimators)=
# # What a trainer really ascends
#
# **Result.** A trainer draws $n$ answers to a prompt and pays each an advantage. If rewards are 0 or 1 and answers are treated alike, all that the choice of advantages can do to the mean gradient of a prompt is multiply it.
# That multiplier is a polynomial in the success rate, the slope of an objective that we give exactly for every estimator in use: some ascend pass@k, some scale it, some ascend another objective than the one they are named after.
#
# **What you need.** The gradient of an expectation by sampling (we start from there), the binomial law, and pass@k {cite}`chen2021codex`.
#
# **Notation.** One prompt, unless we say otherwise.
#
# | symbol | meaning |
# |---|---|
# | $n$, $c$ | answers drawn, and how many of them are right |
# | $r_i$, $s_i$ | reward of answer $i$; its score $\nabla \log \pi(y_i)$ |
# | $A_i$ | advantage: the gradient estimate is $\sum_i A_i s_i$, so that $A$ holds the $1/n$ |
# | $A_+(c)$, $A_-(c)$ | advantage of a right and of a wrong answer when $c$ are right |
# | $f_k(p) = 1 - (1-p)^k$, $w_k = f_k'$ | pass@k of the prompt, and its slope: the weight in $\nabla J_k = \mathbb{E}_x[w_k \nabla p]$ |
# | $S_c = \binom{n-1-c}{k-1} / \binom{n-1}{k-1}$ | chance that $k - 1$ of the other answers, $c$ of them right, are all wrong |
# | $\rho(n, c, k) = 1 - \binom{n-c}{k} / \binom{n}{k}$ | share of the groups of $k$ answers that hold a right one |
# | $e(p)$, $V(c)$ | effective weight and payoff of an estimator, defined below |

# %%
import itertools

import pandas as pd
import torch
from IPython.display import Markdown

from passgrad.errors import UserError
from passgrad.estimators import (
    ESTIMATORS,
    GRPO,
    PassKTraining,
    advantages,
    estimator_table,
    is_group_standardised,
)
from passgrad.objectives import ArcsinSqrt, Log, PassAtK
from passgrad_book.build import figures

# %% [markdown]
# All values here are ours, but for the setting of the paper's measurement.

# %% tags=["parameters"]
num_samples: int = 16  # answers a prompt in the figures
k: int = 4  # order of pass@k in the figures
few_samples: int = 5  # answers a prompt where all outcomes are listed
few_k: int = 3  # order of pass@k where all outcomes are listed
grid_points: int = 199  # success rates in the figures
paper_samples: int = 32  # answers a prompt and k of the paper's measurement
logits: list = [0.3, -1.1, 0.5, 0.05]  # of the small policy; answers 1, 2 are right

# %% [markdown]
# ## REINFORCE from scratch
#
# A policy answers $y$ with probability $\pi(y)$, and its success rate is $p = \sum_y \pi(y) r(y)$.
# Since $\nabla \pi = \pi \nabla \log \pi$,
#
# $$
# \nabla p = \sum_y \pi(y) \, r(y) \, \nabla \log \pi(y) = \mathbb{E}[r s],
# $$
#
# so that $\frac1n \sum_i r_i s_i$ is right on average: that is REINFORCE, with advantages $A_i = r_i / n$.
# With $r = 1$ for all answers the same line says $\mathbb{E}[s] = 0$. Hence anything that does not depend on answer $i$ itself may be subtracted from $r_i$: a baseline changes the noise, not the mean.
#
# For a policy over four answers, two of them right, we can list all outcomes of $n$ draws and take the mean without sampling.

# %%
policy = torch.tensor(logits, dtype=torch.float64).softmax(dim=0)
right = torch.tensor([1, 1, 0, 0], dtype=torch.float64)
scores = torch.eye(4, dtype=torch.float64) - policy  # row y: the gradient of log pi(y)
success = float(policy @ right)
gradient = (policy * right) @ scores
outcomes = torch.tensor(list(itertools.product(range(4), repeat=few_samples)))
chances, rewards = policy[outcomes].prod(dim=1), right[outcomes]


def mean_gradient(made):
    """The mean of sum_i A_i s_i over all outcomes, for (outcomes, n) advantages."""
    return torch.einsum("o,oi,oia->a", chances, made, scores[outcomes])


assert (mean_gradient(rewards / few_samples) - gradient).abs().max() < 1e-15

# %% [markdown]
# Now the advantages that are in use. `advantages` takes the rewards of many prompts, here one row an outcome.
# We compare the mean gradient with $\nabla p$: the angle between them, and the ratio of their lengths. For an estimator of order $k$ an unbiased mean is $w_k \nabla p$, so the last column divides the multiple by $w_k$ and must be 1 where there is no bias.

# %%
rows = []
for name, one in ESTIMATORS.items():
    order = {"k": few_k, "n": few_samples, "none": None}[one.takes]
    mean = mean_gradient(advantages(rewards, order, estimator=name))
    cosine = float(mean @ gradient / (mean.norm() * gradient.norm()))
    multiple = float(mean @ gradient / gradient.square().sum())
    unbiased = (order or 1) * (1 - success) ** ((order or 1) - 1)
    rows.append((name, str(order or "–"), cosine, multiple, multiple / unbiased))
columns = ["estimator", "k", "cosine with grad p", "multiple of grad p", "multiple / w_k"]
means = pd.DataFrame(rows, columns=columns)
assert (means["cosine with grad p"] - 1).abs().max() < 1e-12
means.round(4).set_index("estimator")

# %% [markdown]
# Every cosine is 1: not one of them turns the gradient of the prompt. They differ in the multiple.
#
# ## Alike treatment leaves only a scale
#
# ```{prf:proposition} A scale for each prompt
# :label: prop-exchangeable
#
# Let rewards be 0 or 1, and let the advantage of an answer depend on its reward and on the number $c$ of right answers only.
# Then, with $c' \sim \mathrm{Bin}(n-1, p)$,
#
# $$
# \mathbb{E}\Bigl[\sum_i A_i s_i\Bigr] = e(p) \, \nabla p, \qquad
# e(p) = n \, \mathbb{E}[A_+(c'+1) - A_-(c')].
# $$
#
# The estimator ascends $F(p) = \mathbb{E}[V(c)]$, the mean over $c \sim \mathrm{Bin}(n, p)$ of the payoff $V(c) = \sum_{j<c} (A_+(j+1) - A_-(j))$: that is, $F' = e$.
#
# Checked by {test}`test_estimators_enumerated`.
# ```
#
# ```{prf:proof}
# All answers contribute alike, so the mean is $n \, \mathbb{E}[A_1 s_1]$.
# The number $c'$ of right answers among the others is independent of answer 1. With the mean scores $\mu_1$, $\mu_0$ of right and wrong answers,
#
# $$
# n \, \mathbb{E}[A_1 s_1] = n p \, \mathbb{E}[A_+(c'+1)] \, \mu_1 + n (1-p) \, \mathbb{E}[A_-(c')] \, \mu_0 .
# $$
#
# By $\mathbb{E}[s] = 0$ and $\nabla p = \mathbb{E}[r s]$ we have $p \mu_1 = \nabla p = -(1-p) \mu_0$, which gives $e$.
# For the payoff, $\frac{d}{dp} \mathbb{E}[V(c)] = n \, \mathbb{E}[V(c'+1) - V(c')]$, the derivative of a binomial mean, and $V(c'+1) - V(c') = A_+(c'+1) - A_-(c')$.
# ```
#
# Two consequences decide the rest of this book.
# For one prompt the choice of estimator is, on average, a choice of step size: it scales the mean step and does not turn it. Where $e(p)$ is zero or negative the mean step vanishes or goes the wrong way.
# Over prompts it is a choice of weights: the mean update is $\mathbb{E}_x[e(p(x)) \nabla p(x)]$, and a bias of the estimator is a *distortion of the prompt weights*, which is what interference between prompts feeds on ({ref}`sec-toy`).
#
# With graded rewards the proposition does not hold: max@k then turns the gradient of a single prompt.
#
# ## What n samples can ascend
#
# Read as a polynomial, $e(p) = \sum_c n (A_+(c+1) - A_-(c)) \binom{n-1}{c} p^c (1-p)^{n-1-c}$ is in Bernstein form. That settles what is possible.
#
# ```{prf:theorem} The unbiased family
# :label: thm-unbiased-family
#
# An estimator as in {prf:ref}`prop-exchangeable` has the effective weight $w$ for all $p$ if and only if $w$ is a polynomial of degree at most $n - 1$ and $n (A_+(c+1) - A_-(c))$ are its coefficients in the Bernstein basis of degree $n - 1$.
# For pass@k it exists if and only if $n \ge k$, and the condition is
#
# $$
# A_+(c+1) - A_-(c) = \tfrac{k}{n} S_c, \qquad c = 0, \dots, n-1 .
# $$
#
# What is free is the baseline $A_-(c)$.
#
# Checked by {test}`test_estimator_family`.
# ```
#
# ```{prf:proof}
# The polynomials $\binom{n-1}{c} p^c (1-p)^{n-1-c}$ are a basis of those of degree at most $n - 1$, so $e = w$ means equal coefficients.
# The weight $w_k = k (1-p)^{k-1}$ has degree $k - 1$. For $n \ge k$, multiply it by $(p + 1 - p)^{n-k}$ and expand: the coefficients are $k \binom{n-k}{c} / \binom{n-1}{c}$, which is $k S_c$.
# ```
#
# So `advantages` refuses $k > n$, because no unbiased formula exists.
# Nor is there an unbiased estimator of $\nabla \mathbb{E}[\log p]$, or of $\nabla \mathbb{E}[\arcsin \sqrt p]$, from any number of samples drawn in advance: their slopes are no polynomials.

# %%
try:
    advantages(rewards, few_samples + 1)
except UserError as error:
    refusal = str(error)
Markdown(f"`advantages` says: *{refusal}*.")

# %% [markdown]
# The family of pass@k, by its baselines:
#
# - `reinforce-max` ($n = k$) pays everyone for the success of the group, and `pkpo` {cite}`walder2025pkpo` pays for all groups of $k$ among the $n$ that an answer belongs to;
# - `pkpo-loo` and `pkpo-loo1`, of the same paper, subtract what the other answers would have got; in the second a right answer is paid for the groups that it alone saves, and a wrong answer nothing;
# - `tang-loo` {cite}`tang2025` is the last one at $n = k$: the best reward less the best of the others;
# - `centred-l2o` compares answer $i$ with each $j$ in groups that hold neither, and its advantages sum to zero.
#
# ```{prf:theorem} The centred one
# :label: thm-centred-unique
#
# If the advantages sum to zero whatever the rewards, the effective weight has degree at most $n - 2$.
# Conversely, each polynomial of degree at most $n - 2$ is the weight of exactly one such estimator.
# For pass@k it exists if and only if $n \ge k + 1$, and is
#
# $$
# A_+(c) = \frac{k}{n} \, \frac{n-c}{n-k} \, S_c, \qquad A_-(c) = -\frac{k}{n} \, \frac{c}{n-k} \, S_c .
# $$
#
# Checked by {test}`test_estimator_family`.
# ```
#
# ```{prf:proof}
# A sum of zero, $c A_+(c) + (n-c) A_-(c) = 0$, means $A_+(c) = (n-c) D(c)$ and $A_-(c) = -c D(c)$ for some $D(1), \dots, D(n-1)$, and no payment at $c = 0$ and $c = n$.
# In {prf:ref}`prop-exchangeable`, $n p \, \mathbb{E}[A_+(c'+1)] = \mathbb{E}[c A_+(c)]$ and likewise for the wrong answers, hence
#
# $$
# \begin{aligned}
# e(p) &= \frac{\mathbb{E}[c A_+]}{p} - \frac{\mathbb{E}[(n-c) A_-]}{1-p} = \frac{\mathbb{E}[c (n-c) D(c)]}{p (1-p)} \\
# &= n (n-1) \, \mathbb{E}[D(c''+1)], \qquad c'' \sim \mathrm{Bin}(n-2, p).
# \end{aligned}
# $$
#
# These are the polynomials of degree at most $n - 2$ in Bernstein form, with coefficients $n (n-1) D(c+1)$. Expanding $w_k$ in that basis gives $D(c) = k S_c / (n (n-k))$.
# ```
#
# The same estimator hides behind three names.
#
# ```{prf:corollary} Centring costs one sample
# :label: cor-one-sample
#
# Subtracting the group mean from payments to right answers, $A_+(c)$ and $A_- = 0$, leaves the effective weight of $n - 1$ samples with the same payments. Hence
#
# 1. `tang-loo`, centred, is no estimator of pass@n: it is `centred-l2o` for pass@$(n-1)$;
# 2. `maxrl`, as trainers compute it, is the mixture $\sum_{j=1}^{n-1} \frac1j$ of `centred-l2o` at $k = j$, and ascends $\log p$ to the order $n - 1$ instead of $n$.
#
# The numerator of Pass@k Training is `centred-l2o` times $\frac{n-k}{nk}$.
#
# Checked by {test}`test_estimator_family`.
# ```
#
# ```{prf:proof}
# The group mean is $c A_+(c) / n$, so $D(c) = A_+(c) / n$ in the last proof and $e(p) = (n-1) \, \mathbb{E}[A_+(c''+1)]$: {prf:ref}`prop-exchangeable` for $n - 1$ samples.
# The payment $1\{c = 1\}$ with $n - 1$ samples is that of pass@$(n-1)$, and $1/c$ that of $\sum_{j \le n-1} \frac1j f_j$, by {prf:ref}`thm-unbiased-family`; the centred estimator of either is unique.
# For Pass@k Training $1 - \rho = S_c (n-c)/n$, so $D(c) = S_c / n^2$.
# ```

# %%
l2o = advantages(rewards, list(range(1, few_samples)), estimator="centred-l2o")
assert torch.allclose(advantages(rewards, estimator="tang-centred"), l2o[-1])
numerator = advantages(rewards, few_k, estimator="passk-training-unscaled")
scale = (few_samples - few_k) / (few_samples * few_k)
assert torch.allclose(numerator, scale * l2o[few_k - 1])
harmonic = torch.einsum("j,jon->on", 1 / torch.arange(1, few_samples).double(), l2o)
assert torch.allclose(advantages(rewards, estimator="maxrl"), harmonic)

# %% [markdown]
# ## Which objective each of them ascends
#
# With rewards of 0 and 1 we can give, for every estimator, the weight that it really puts on a prompt.

# %%
p = torch.linspace(0, 1, grid_points + 2, dtype=torch.float64)[1:-1]
shown = {
    "pkpo-loo1": (f"pass@{k}", "pkpo and the like"),
    "rloo": ("pass@1", "rloo"),
    "grpo": ("arcsin", "grpo"),
    "passk-training": ("arcsin pass@k", "passk-training"),
    "maxrl": ("truncated log", "maxrl"),
    "plug-in": ("plug-in", "plug-in"),
}
weights = pd.DataFrame(
    {name: ESTIMATORS[name].effective_weight(p, num_samples, k) for name in shown}
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: what each estimator multiplies the gradient of a prompt by. Right: the same divided by its value at the smallest success rate drawn, to compare shapes. Estimators of pass@k forget a prompt as it is solved; GRPO turns up again on solved prompts, the plug-in weight forgets them too late, and Pass@k Training starts lower and lasts longer than pass@k.", "name": "fig-estimators-weights"}, "image": {"alt": "Effective weight against success rate for six estimators, in absolute terms and relative to hard prompts, on logarithmic scales."}}
def draw(axes):
    for ax, values in zip(axes, (weights, weights / weights.iloc[0]), strict=True):
        for name, (of, label) in shown.items():
            figures.curve(ax, p, values[name], of=of, exact=True, label=label)
        ax.set(xlabel="success rate p", yscale="log")
    axes[0].set(ylabel="effective weight e(p)", ylim=(1e-3, 30))
    axes[1].set(ylabel="relative to the hardest", ylim=(1e-3, 3))
    figures.legend(axes[0], loc="lower left", fontsize=8.5)


middle = weights.iloc[len(weights) // 2]
alt = f"At n = {num_samples}, k = {k} and p = 0.5: " + ", ".join(
    f"{shown[name][1]} {value:.3g}" for name, value in middle.items()
)
figures.show(draw, alt=alt, data=weights.assign(p=p), ncols=2, size=(7.4, 3.6))

# %% [markdown]
# By {prf:ref}`prop-exchangeable` the same is said by a payoff: a trainer raises the mean of a function of the number of right answers.
# It shows at a glance what an estimator wants. RLOO wants right answers, one as much as another; pass@k wants the first few; GRPO wants the first and the last.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The payoff of c right answers, of which each estimator ascends the mean, scaled to 1 at c = n. For pass@k it is the share of groups of k that hold a right answer. GRPO pays most for the first right answer and, as much, for the last.", "name": "fig-estimators-payoff"}, "image": {"alt": "Payoff against the number of right answers for six estimators, each scaled to one when all are right."}}
counts = list(range(num_samples + 1))
payoffs = pd.DataFrame({name: ESTIMATORS[name].payoff(num_samples, k) for name in shown})
payoffs = payoffs / payoffs.iloc[-1]


def draw(ax):
    for name, (of, label) in shown.items():
        figures.curve(ax, counts, payoffs[name], of=of, exact=True, label=label, marker=None)
    ax.set(xlabel=f"right answers c, of n = {num_samples}", ylabel="payoff V(c) / V(n)")
    figures.legend(ax, loc="lower right", fontsize=9)


first = payoffs.iloc[1]
alt = "The first right answer brings, of the whole payoff: " + ", ".join(
    f"{shown[name][1]} {value:.2f}" for name, value in first.items()
)
figures.show(draw, alt=alt, data=payoffs.assign(c=counts))

# %% [markdown]
# ### One by one
#
# **The weights of the paper.** {cite:t}`barakat2026passk` weigh a prompt by $w_k(c/n)$, the plug-in estimate; we infer this from the weights that they print.
# The plug-in weight is too large on average, since $w_k$ is convex. Multiplied by right answers of the same draw it is biased again, and the other way: where an answer is right, its own success lowers the weight of its prompt.

# %%
here = torch.tensor([1 / paper_samples, 0.1], dtype=torch.float64)
c = torch.arange(paper_samples + 1, dtype=torch.float64)
law = torch.distributions.Binomial(paper_samples, here[:, None]).log_prob(c).exp()
objective = PassAtK(paper_samples)
plug_in = (law * objective.weight(c / paper_samples)).sum(dim=1)
factor = ESTIMATORS["plug-in"].bias_factor(here, paper_samples, paper_samples)
pd.DataFrame(
    {
        "p": here,
        "weight": objective.weight(here),
        "mean of the plug-in weight": plug_in,
        "factor on the gradient": factor,
    }
).set_index("p").round(3)

# %% [markdown]
# At $p = 1/n$, the hard prompts of that measurement, the weights are too large and the gradients are too small all the same: a claim about weights is not one about gradients.
#
# Two repairs are common. The weight from the *other* answers (`plug-in-loo`) keeps the convexity bias.
# The unbiased weight from all answers (`u-weight`) is unbiased as a weight, yet its product with right answers is not: the factor is $\frac{n-k+1}{n}$, the same on all prompts, so harmless to their weights.
#
# **Pass@k Training** {cite}`passktraining2025` takes the mean of the group rewards of an answer, less that of all groups, over their deviation.
# Without the deviation it ascends pass@k, scaled by $\frac{n-k}{nk}$, which is 0 at $n = k$. With it, the objective tends to $\frac{2}{k} \arcsin \sqrt{f_k(p)}$; **GRPO** is its case $k = 1$, and ascends $2 \arcsin \sqrt p$ {cite}`davis2025`.
# Both limits are approached from below and slowly where $p$ is small: no group of $n$ can show a rate below $1/n$. {cite:t}`thrampoulidis2025` derive surrogate objectives of shaped advantages.

# %%
rare = torch.tensor([0.02, 0.3, 0.9], dtype=torch.float64)
sizes = [num_samples, 4 * num_samples, 64 * num_samples]
columns = {"p": rare}
for n in sizes:
    columns[f"passk-training, n = {n}"] = PassKTraining().effective_weight(rare, n, k)
columns["its limit"] = ArcsinSqrt(k).weight(rare)
for n in sizes:
    columns[f"grpo, n = {n}"] = GRPO().effective_weight(rare, n)
columns["limit"] = ArcsinSqrt().weight(rare)
pd.DataFrame(columns).set_index("p").round(3).T

# %% [markdown]
# **MaxRL** {cite}`tajwar2026maxrl` divides by the group mean instead of the deviation, to ascend $\log p$ to a finite order in the failure rate: $\sum_{j \le T} (1-p)^{j-1}$ is the weight to the order $T$.
# The quotient $(r_i - \bar r) / \bar r$ is 0 in a group without a success, and so ascends the order $n - 1$ ({prf:ref}`cor-one-sample`). The order $n$ takes a payment of $-1/n$ to every answer of a failed group (`maxrl-full`), which no longer sums to zero.

# %%
ends = torch.tensor([0.0, 0.01, 0.1, 0.5], dtype=torch.float64)
shipped = ESTIMATORS["maxrl"].effective_weight(ends, num_samples)
full = ESTIMATORS["maxrl-full"].effective_weight(ends, num_samples)
assert torch.allclose(shipped, Log(order=num_samples - 1).weight(ends))
assert torch.allclose(full, Log(order=num_samples).weight(ends))
pd.DataFrame({"p": ends, "maxrl": shipped, "maxrl-full": full, "1 / p": 1 / ends}).round(3)

# %% tags=["hide-input"]
scale = float(ESTIMATORS["verl-passk"].bias_factor(0.5, num_samples))
Markdown(
    "**verl's GRPO_PASSK** pays the best answer its lead over the second best, after {cite:t}`tang2025`, "
    "and divides by the group's deviation unless told not to. "
    "With rewards of 0 and 1 a lead exists only where $c = 1$, and there the deviation is always $1 / \\sqrt{n}$: "
    f"the division multiplies every prompt by $\\sqrt{{n}}$ (at $n = {num_samples}$ by {scale:.4f}). "
    "Here the deviation is harmless, which is an accident of that estimator."
)

# %% [markdown]
# ## The noise
#
# Unbiased estimators of one objective differ in their noise alone.
#
# ```{prf:proposition} Variance of the estimate
# :label: prop-gradient-variance
#
# Let $\mu_1$ be the mean score of right answers, and $\Sigma_1$, $\Sigma_0$ the covariances of the scores within right and within wrong answers. With $c \sim \mathrm{Bin}(n, p)$,
#
# $$
# \begin{aligned}
# \mathrm{tr} \, \mathrm{Cov}\Bigl[\sum_i A_i s_i\Bigr] =\;&
# \mathrm{Var}\Bigl[c A_+ - \tfrac{p}{1-p} (n-c) A_-\Bigr] \|\mu_1\|^2 \\
# &+ \mathbb{E}[c A_+^2] \, \mathrm{tr} \, \Sigma_1 + \mathbb{E}[(n-c) A_-^2] \, \mathrm{tr} \, \Sigma_0 .
# \end{aligned}
# $$
#
# Checked by {test}`test_estimators_enumerated`.
# ```
#
# ```{prf:proof}
# Given the rewards, the scores are independent with means $\mu_1$, $\mu_0 = -\frac{p}{1-p} \mu_1$ and covariances $\Sigma_1$, $\Sigma_0$. The conditional mean is $(c A_+ - \frac{p}{1-p} (n-c) A_-) \mu_1$ and the conditional covariance $c A_+^2 \Sigma_1 + (n-c) A_-^2 \Sigma_0$. The variance is the variance of the first plus the mean of the second.
# ```
#
# We draw the standard deviation over the length of the mean, for a logistic policy ($\|\mu_1\| = 1 - p$): once with one score a class, once with a variance of 1 within either class, as when many different answers are right and many wrong.

# %%
family = ["pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o"]
inside = p[(p >= 0.01) & (p <= 0.95)]
deviations = {}
for noise in (0.0, 1.0):
    for name in family:
        deviations[noise, name] = ESTIMATORS[name].relative_deviation(
            inside,
            num_samples,
            k,
            mean_square=(1 - inside) ** 2,
            noise_right=noise,
            noise_wrong=noise,
        )


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Relative standard deviation of the four unbiased estimators of the same gradient. Without a baseline (pkpo) the noise explodes on solved prompts. With one score a class (left) pkpo-loo1 is best except on hard prompts; with noise within the classes (right) the centred leave-two-out has a slight lead over a wide range.", "name": "fig-estimators-noise"}, "image": {"alt": "Relative standard deviation against success rate for four estimators, without and with noise within the classes, on a logarithmic scale."}}
def draw(axes):
    for ax, (noise, text) in zip(
        axes, ((0.0, "one score a class"), (1.0, "noise in each class")), strict=True
    ):
        for name in family:
            figures.curve(ax, inside, deviations[noise, name], of=name, exact=True)
        ax.set(xlabel="success rate p", yscale="log", ylim=(0.1, 300))
        figures.panel(ax, text)
    axes[0].set(ylabel="standard deviation / mean")
    figures.legend(axes[0], loc="upper left")


place = int((inside - 0.3).abs().argmin())
alt = f"At p = {inside[place]:.2f}, without and with noise: " + ", ".join(
    f"{name} {deviations[0.0, name][place]:.2f} and {deviations[1.0, name][place]:.2f}"
    for name in family
)
table = {f"{name}, noise {noise:g}": values for (noise, name), values in deviations.items()}
figures.show(draw, alt=alt, data=pd.DataFrame(table).assign(p=inside), ncols=2, size=(7.2, 3.4))

# %% tags=["hide-input"]
better = {
    noise: deviations[noise, "centred-l2o"] < deviations[noise, "pkpo-loo1"] for noise in (0.0, 1.0)
}
Markdown(
    f"With noise in the classes `centred-l2o` has less noise than `pkpo-loo1` at {better[1.0].double().mean():.0%} of the success rates drawn; "
    f"without, at {better[0.0].double().mean():.0%}, the hard prompts up to p = {inside[better[0.0]].max():.2f}. "
    "It pays right answers less and takes the difference from wrong ones: where scores differ within a class, that averages over more of them."
)

# %% [markdown]
# ## Graded rewards and mixtures
#
# A verifier may return more than 0 and 1. The objective is then max@k, the mean of the best of $k$ rewards, and nothing new has to be derived.
#
# ```{prf:proposition} Level by level
# :label: prop-levels
#
# Let $g_1 \le \dots \le g_n$ be the sorted rewards and $d_l = g_{l+1} - g_l$. The estimators `reinforce-max`, `pkpo`, `pkpo-loo`, `pkpo-loo1`, `tang-loo`, `centred-l2o`, `rloo` and the numerator of Pass@k Training pay the answer of rank $i$
#
# $$
# A_i = g_1 A_+(n) + \sum_{l < i} d_l A_+(n-l) + \sum_{l \ge i} d_l A_-(n-l) .
# $$
#
# Checked by {test}`test_estimator_levels`.
# ```
#
# ```{prf:proof}
# For any set $I$ of ranks, $\max_I g = g_1 + \sum_l d_l \, 1\{\max I > l\}$: a sum of maxima of the binary rewards $1\{i > l\}$, which have $n - l$ right answers.
# Each of these estimators is a linear combination of maxima over sets, so it is the same sum of its binary values, and the constant $g_1$ is paid as if all answers were right.
# ```
#
# A sort and a running sum are the whole computation, for `centred-l2o` too.
# {cite:t}`takashiro2026maxpo` introduce a leave-two-out baseline for max@k; from what we could read we believe that it is this estimator, and their implementation takes quadratic time.

# %%
graded = torch.tensor([[0.1, 0.9, 0.4, 0.4]], dtype=torch.float64)
pd.DataFrame(
    {name: advantages(graded, 2, estimator=name)[0] for name in family}, index=graded[0].tolist()
).rename_axis("reward").round(4)

# %% [markdown]
# An unbiased estimator of $\nabla J_k$ for each $k$ gives one of $\nabla \sum_m c_m J_{k_m}$, with the same coefficients.
# That is not so for estimators with a scale of their own for each order, and `advantages` refuses them.

# %%
mixed = advantages(rewards, [1, few_k], weights=[0.5, 0.5])
weight = torch.tensor(success, dtype=torch.float64)
target = (0.5 + 0.5 * PassAtK(few_k).weight(weight)) * gradient
assert (mean_gradient(mixed) - target).abs().max() < 1e-14
try:
    advantages(rewards, [1, few_k], estimator="passk-training", weights=[0.5, 0.5])
except UserError as error:
    refusal = str(error)
Markdown(f"For `passk-training` it says: *{refusal}*.")

# %% [markdown]
# ## All of them
#
# The tables are made from the classes of `passgrad.estimators`: what is paid to right and to wrong answers, and what follows.
# The tests compare every bias factor with the sum over all outcomes. Bias factors are those for pass@k: $e(p) / w_k(p)$.
# $c' \sim \mathrm{Bin}(n-1, p)$, $c'' \sim \mathrm{Bin}(n-2, p)$, $\sigma_c$ is the deviation of the rewards with the divisor $n - 1$, as trainers compute it, and $\sigma = \sqrt{\rho (1 - \rho)}$; small constants that trainers add to them are left out of the tables, not of the code.


# %% tags=["hide-input"]
def as_markdown(part):
    lines = [part.columns, ["---"] * len(part.columns), *part.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


table = estimator_table()
parts = (
    ["estimator", "right", "wrong"],
    ["estimator", "ascends", "bias factor"],
    ["estimator", "samples", "graded", "sum 0", "source"],
)
Markdown("\n\n".join(as_markdown(table[part]) for part in parts))

# %% [markdown]
# ## The trap of the standard deviation
#
# Pass@k advantages go through a trainer, and trainers standardise: they subtract the group mean and divide by the group deviation.
#
# ```{prf:proposition} What standardising leaves
# :label: prop-standardised
#
# Let rewards be 0 or 1. After any advantages as in {prf:ref}`prop-exchangeable` are standardised within their group, a group has the advantages of GRPO times the sign of $A_+(c) - A_-(c)$, and 0 where that difference is 0.
#
# Checked by {test}`test_estimator_standardised`.
# ```
#
# ```{prf:proof}
# Within a group, $A_i = A_-(c) + (A_+(c) - A_-(c)) \, r_i$ is affine in $r_i$. Centring removes the constant, dividing by the deviation the length of the factor.
# ```
#
# Whatever $k$ was, it is gone, except for the groups that are not paid at all. The run is GRPO with a filter, under the name of pass@k.

# %%
every_count = (torch.arange(num_samples) < torch.arange(num_samples + 1)[:, None]).double()
made = advantages(every_count, k)
deviation = made.std(dim=1, keepdim=True)
paid = deviation[:, 0] > 0
standardised = (made - made.mean(dim=1, keepdim=True))[paid] / deviation[paid]
grpo = num_samples * advantages(every_count, estimator=GRPO(epsilon=0))
assert torch.allclose(standardised, grpo[paid])
assert is_group_standardised(standardised)
assert not is_group_standardised(made)
try:
    advantages(standardised, k)
except UserError as error:
    refusal = str(error)
Markdown(f"Given such values as rewards, `advantages` says: *{refusal}*.")

# %% [markdown]
# ## Scope
#
# - Mean and variance are those of one batch at a fixed policy: no clipping, no importance ratios, no averages over tokens, each of which changes what is ascended.
# - The statements on effective weights are for rewards of 0 and 1. For graded rewards the unbiased estimators stay unbiased for max@k; those with a deviation have no simple objective.
# - The noise is that of the gradient of one prompt. Over many prompts, the choice of prompts adds to it, and may dominate.
# - What we could not confirm: the formula behind the leave-two-out of {cite:t}`takashiro2026maxpo`, the exact centring of {cite:t}`tang2025`, and the text of the theorem of {cite:t}`tajwar2026maxrl`; for the last the quotient is taken from published code.
# - Whether weights of another shape cost pass@1 depends on how prompts interfere: {ref}`sec-toy`.

# %% [markdown]
# ## Exercises
#
# ```{exercise} Pass@k, standardised
# :label: ex-estimators-standardised
#
# A team wants to train pass@8 from 16 samples. They replace the rewards by the advantages of `pkpo` and leave `scale_rewards` on, so that the trainer centres and divides by the group deviation. Which objective do they ascend?
# ```
#
# ````{solution-start} ex-estimators-standardised
# :class: dropdown
# ````
#
# That of GRPO, $2 \arcsin \sqrt p$ for many samples, but for the groups where `pkpo` pays right and wrong answers alike: those with fewer than $k$ wrong answers, where every group of $k$ succeeds in any case. They train nothing on prompts that are nearly solved, and GRPO elsewhere.

# %%
grouped = (torch.arange(16) < torch.arange(17)[:, None]).double()
answers = {}
for order in (2, 8):
    made = advantages(grouped, order, estimator="pkpo")
    spread = made.std(dim=1, keepdim=True)
    moved = spread[:, 0] > 1e-12
    answers[order] = (made - made.mean(dim=1, keepdim=True))[moved] / spread[moved]
    grpo = 16 * advantages(grouped, estimator=GRPO(epsilon=0))
    assert torch.allclose(answers[order], grpo[moved])
    wrong = 16 - grouped.sum(dim=1)
    assert torch.equal(moved, (wrong >= order) & (wrong < 16))
{order: len(groups) for order, groups in answers.items()}

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} At least two
# :label: ex-estimators-two
#
# We want a policy that gives at least two right answers in $m$ draws, so that a check by agreement can find them. Give an unbiased estimator of the gradient from $n = m$ samples that pays wrong answers nothing.
# ```
#
# ````{solution-start} ex-estimators-two
# :class: dropdown
# ````
#
# The payoff is $V(c) = 1\{c \ge 2\}$. By {prf:ref}`prop-exchangeable` the steps $A_+(c+1) - A_-(c) = V(c+1) - V(c)$ are 1 at $c = 1$, else 0. With $A_- = 0$ that is $A_+(2) = 1$: pay the two right answers of a group that has exactly two.

# %%
size = few_samples
two = (rewards.sum(dim=1, keepdim=True) == 2) * rewards
slope = size * (size - 1) * success * (1 - success) ** (size - 2)
assert (mean_gradient(two.double()) - slope * gradient).abs().max() < 1e-14
slope

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A second sample for REINFORCE
# :label: ex-estimators-k2
#
# With $n = 2$ samples, which objectives can be ascended without bias by an estimator whose advantages sum to zero? And with $n = 3$?
# ```
#
# ````{solution-start} ex-estimators-k2
# :class: dropdown
# ````
#
# By {prf:ref}`thm-centred-unique` the weight has degree at most $n - 2$. For $n = 2$ it is constant: pass@1 alone, and RLOO up to a factor. For $n = 3$ it is linear in $p$: mixtures of pass@1 and pass@2, with coefficients of either sign.

# %%
pair = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
assert torch.equal(advantages(pair, 1, estimator="centred-l2o"), advantages(pair, estimator="rloo"))
at = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
for name, order in (("grpo", None), ("maxrl", None), ("passk-training", 2)):
    values = ESTIMATORS[name].effective_weight(at, 3, order)
    assert abs(float(values[0] - 2 * values[1] + values[2])) < 1e-12  # a straight line in p
values

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - with rewards of 0 and 1, advantages that treat answers alike scale the gradient of a prompt and do not turn it; a bias is a distortion of prompt weights;
# - every estimator ascends the mean of a payoff of the number of right answers, and its weight is a polynomial of degree at most $n - 1$; so $n < k$, $\log p$ and $\arcsin \sqrt p$ are out of reach without bias;
# - a sum of zero costs one degree, and determines the estimator: the centred leave-one-out maximum, MaxRL and the numerator of Pass@k Training are all the leave-two-out;
# - plug-in weights and divisions by a deviation change the prompt weights, and a deviation after the fact removes $k$ altogether;
# - among unbiased estimators the noise decides, and it depends on how different the answers of a class are.
