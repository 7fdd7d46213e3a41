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
# (sec-reweighting)=
# # Implicit reweighting
#
# **Result.** Pass@k, GRPO, MaxRL and pass@k training ascend the same gradients of the same prompts. They differ in one function of the success rate: the weight that each prompt gets.
# How that function falls decides which of them conflict with pass@1, and one curve of the population decides it for all concave objectives at once.
# Nothing in this chapter is sampled.
#
# **What you need.** The gradient of a mean, and what pass@k is ({ref}`sec-pass-at-k`). Which estimators ascend which of these objectives is in {ref}`sec-estimators`.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $x \sim D$ | a prompt and the law it is drawn from |
# | $p(x)$ | success rate: the chance that one answer to $x$ is right |
# | $J_f = \mathbb{E}_x[f(p(x))]$ | the objective of an increasing function $f$; $J_k$ is the one of $f_k(p) = 1 - (1 - p)^k$, pass@k |
# | $w_f = f'$ | weight of a prompt in $\nabla J_f$; $w_k(p) = k (1 - p)^{k-1}$ |
# | $\kappa(x, x')$ | $\langle \nabla p(x), \nabla p(x') \rangle$, the kernel |
# | $a_g(x)$ | $\langle \nabla p(x), \nabla J_g \rangle$, agreement of a prompt with an objective; $a$ is the one with pass@1 |
# | $D_f$ | the law with $D_f(\mathrm{d}x) \propto w_f(p(x))\, D(\mathrm{d}x)$ |
# | $C(t)$ | $\mathbb{E}[a\, 1\{p \le t\}]$, the agreement cumulated from the hardest prompts up |

# %%
import math

import pandas as pd
import torch
from IPython.display import Markdown

from passgrad.interference import conflict
from passgrad.objective_map import (
    agreement,
    cumulated_agreement,
    curvature,
    effective_share,
    more_concave,
    objective_map,
)
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad_book.build import figures

# %% [markdown]
# The population is that of {ref}`sec-toy`: easy and hard prompts whose features overlap, and a logistic policy with two parameters.
# A second one, with the features of the two kinds far apart, is the case without conflict.

# %% tags=["parameters"]
separation: float = 0.2  # distance between the mean features of hard and easy prompts
wide_separation: float = 2.0  # the same in the population without conflict
hard_fraction: float = 0.4  # share of hard prompts
theta_bias: float = -2.0  # first parameter of the policy
theta_slope: float = -2.0  # second parameter of the policy
ks: list = [1, 2, 4, 8, 16, 32]  # orders of pass@k on the map
k: int = 8  # order at which the other objectives are compared with pass@k
num_rates: int = 999  # success rates at which the objectives are compared
fine_nodes: int = 40001  # prompts of each kind where a mean over a part of them is taken

# %% [markdown]
# ## Every objective is a weighting of prompts
#
# Let $f$ be increasing and differentiable. The chain rule moves the derivative of $f$ in front of the gradient of the success rate.
#
# ```{prf:proposition} The weighted gradient
# :label: prop-weighted-gradient
#
# $\nabla J_f = \mathbb{E}_x[w_f(p(x))\, \nabla p(x)]$ with $w_f = f'$.
# For pass@k, $w_k(p) = k (1 - p)^{k-1}$: equations (2) and (3) of {cite:t}`barakat2026passk`.
#
# Checked by {test}`test_objective_weighted_gradient` and, for pass@k and in the form of score functions, by {test}`test_weighted_gradient`.
# ```
#
# ```{prf:proof}
# For finitely many prompts the mean is a sum, and $\nabla f(p(x)) = f'(p(x))\, \nabla p(x)$ in each term.
# In general one must differentiate under the mean. That is allowed where $\|w_f(p(x)) \nabla p(x)\|$ has an integrable bound that holds for all parameters near $\theta$. For pass@k such a bound is $k \|\nabla p\|$, and $\nabla p = \mathbb{E}_y[(r - p)\, s]$ is bounded if the scores are. For the logarithm and the arcsine $f'$ is unbounded near $p = 0$; for a logistic policy $w_f \|\nabla p\|$ is at most $\|\psi\|$ all the same, since $\|\nabla p\| = p (1 - p) \|\psi\|$.
# ```
#
# ```{prf:proposition} One prompt never conflicts with itself
# :label: prop-collinear
#
# For each prompt, $\nabla f(p(x)) = w_f(p(x))\, \nabla p(x)$ with $w_f \ge 0$: the gradients of all objectives point the same way. With one prompt no two of them conflict.
#
# Checked by {test}`test_collinearity`.
# ```
#
# ```{prf:proof}
# It is the chain rule again, before the mean is taken. Two multiples $w_f, w_g \ge 0$ of one vector have the inner product $w_f w_g \|\nabla p\|^2 \ge 0$.
# ```
#
# {cite:t}`yu2025` draws attention to this collinearity. It leaves one way to a conflict: the mean over prompts.

# %%
population = GaussianBandit(separation, hard_fraction)
theta = (theta_bias, theta_slope)
success, jacobian = population.success_and_jacobian(theta)
for objective in (PassAtK(k), ArcsinSqrt(), Log()):
    weighted = (population.masses * objective.weight(success)) @ jacobian
    _, gradient = population.objective_gradient(theta, objective)
    torch.testing.assert_close(weighted, gradient)

# %% [markdown]
# ## The weights in use
#
# | objective | $f(p)$ | weight $w_f(p)$ | who ascends it | concave |
# |---|---|---|---|---|
# | pass@k | $1 - (1-p)^k$ | $k(1-p)^{k-1}$ | PKPO {cite}`walder2025pkpo`, leave-one-out {cite}`tang2025`, best-of-N training with a perfect verifier {cite}`chow2025` | yes |
# | arcsin pass@1 | $2 \arcsin \sqrt{p}$ | $1 / \sqrt{p(1-p)}$ | GRPO with its division by the standard deviation, for many samples {cite}`davis2025` | **below $p = \frac12$ only** |
# | arcsin pass@k | $\frac2k \arcsin \sqrt{f_k}$ | $(1-p)^{k/2-1} / \sqrt{f_k}$ | pass@k training {cite}`passktraining2025`, for many samples | for $k \ge 2$ |
# | log | $\log p$ | $1/p$ | rejection sampling {cite}`davis2025`; the limit of MaxRL {cite}`tajwar2026maxrl` | yes |
# | log to order $T$ | $-\sum_{j \le T} (1-p)^j / j$ | $(1 - (1-p)^T) / p$ | MaxRL {cite}`tajwar2026maxrl`; from $n$ answers as trainers compute it, $T = n - 1$ | yes |
# | log pass@k | $\log f_k$ | $k(1-p)^{k-1} / f_k$ | the fine-tuning loss of {cite:t}`chen2025confidence` | yes |
#
# Additive constants of $f$ do not matter. Positive factors change the length of a step and nothing else; ours are such that the weight of GRPO is one over the standard deviation of the reward.
# Four of the weights are infinite at $p = 0$, and that of GRPO at $p = 1$ as well. There the gradient of $p$ vanishes for a softmax policy, so that what counts is the product.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Weights of the objectives against the success rate (left) and against the failure rate (right), so that both ends can be seen. At small success rates the weights of pass@8 and of the logarithm to order 8 level off at 8, the others go on rising. At small failure rates the weight of pass@8 vanishes, that of the logarithm goes to 1, and that of GRPO (arcsin pass@1) rises again.", "name": "fig-reweighting-weights"}, "image": {"alt": "Two panels with logarithmic axes: weight against success rate and against failure rate for six objectives."}}
shown = {
    "pass@1": (PassAtK(1), "pass@1"),
    f"pass@{k}": (PassAtK(k), f"pass@{k}"),
    "arcsin pass@1": (ArcsinSqrt(), "arcsin"),
    f"arcsin pass@{k}": (ArcsinSqrt(k), "arcsin pass@k"),
    "log": (Log(), "log"),
    f"log to order {k}": (Log(order=k), "truncated log"),
}
small = torch.logspace(-4, 0, 201, dtype=torch.float64)[:-1]
curves = {name: (f.weight(small), f.weight(1 - small)) for name, (f, _) in shown.items()}


def draw(axes):
    for side, (ax, xlabel) in enumerate(zip(axes, ("success", "failure"), strict=True)):
        for name, (_, of) in shown.items():
            figures.curve(ax, small, curves[name][side], of=of, exact=True, label=name)
        ax.set(xlabel=f"{xlabel} rate", xscale="log", yscale="log", ylim=(1e-3, 2e3))
    axes[0].set_ylabel("weight")
    figures.legend(axes[0], fontsize=8, loc="lower left")


columns = {
    f"{name} at {end} rate": w
    for name, pair in curves.items()
    for end, w in zip(("success", "failure"), pair, strict=True)
}
alt = f"At a success rate of 1e-4 the weights run from 1 (pass@1) and {k} (pass@{k}) to 1e4 (log); at a failure rate of 1e-4 from {curves[f'pass@{k}'][1][0]:.0e} (pass@{k}) to 100 (arcsin pass@1)."
figures.show(draw, alt=alt, data=pd.DataFrame({"rate": small, **columns}), ncols=2, size=(7.6, 3.8))

# %% [markdown]
# Two things in the picture are easily missed.
# GRPO does not prefer hard prompts to solved ones. Its weight is symmetric: a prompt with $p = 0.999$ counts as much as one with $p = 0.001$, and $2 \arcsin\sqrt{p}$ is convex above one half.
# And MaxRL is a mixture of pass@1 to pass@T, in which pass@1 has the largest coefficient. As trainers compute it from $n$ answers, $T = n - 1$ ({ref}`sec-estimators`).
#
# ```{prf:proposition} The logarithm is a mixture of pass@j
# :label: prop-harmonic-mixture
#
# The objective $\log p$ to order $T$ is $\sum_{j=1}^T \frac1j f_j(p)$ up to a constant, so that its gradient is $\sum_{j \le T} \frac1j \nabla J_j$ {cite}`tajwar2026maxrl`. It conflicts with an objective only if at least one of $J_1, \dots, J_T$ does. The same holds for every mixture with positive coefficients.
#
# Checked by {test}`test_objective_mixture`.
# ```
#
# ```{prf:proof}
# $f_j = 1 - (1-p)^j$, and $\sum_{j \le T} \frac1j$ is a constant. The inner product with a fixed gradient is linear in the mixture, and a sum with a negative value has a negative term.
# ```

# %% [markdown]
# ## Where the weight goes, and where the gradient comes from
#
# ```{prf:proposition} The reweighted law
# :label: prop-reweighted-law
#
# If $\mathbb{E}[w_f] > 0$, then $\nabla J_f = \mathbb{E}[w_f]\; \mathbb{E}_{D_f}[\nabla p]$ and $\langle \nabla J_f, \nabla J_1 \rangle = \mathbb{E}[w_f]\; \mathbb{E}_{D_f}[a]$.
# So $f$ conflicts with pass@1 exactly if the mean agreement under $D_f$ is negative: equation (11) of {cite:t}`barakat2026passk` for pass@k.
#
# Checked by {test}`test_reweighted_law`.
# ```
#
# ```{prf:proof}
# Multiply and divide the integrand of {prf:ref}`prop-weighted-gradient` by $\mathbb{E}[w_f]$, and take the inner product with $\nabla J_1$.
# ```
#
# The law $D_f$ looks at fewer prompts than $D$. Out of $N$ prompts that are drawn from $D$, about $N\, \mathbb{E}[w]^2 / \mathbb{E}[w^2]$ count; for $N$ equally likely prompts this is one over the sum of squares of $D_f$.
# We call the factor of $N$ the *effective share*. If the success rates are uniform on $[0, 1]$, it is $(2k - 1) / k^2$ for pass@k: see {ref}`ex-reweighting-uniform`.

# %%
rows = []
for j in ks:
    plain = PassAtK(j).weight(success)
    weight = population.masses * plain
    contribution = weight * agreement(population, theta, PassAtK(j))
    share = float(effective_share(population.masses, plain[None])[0])
    low = success < 1 / j
    parts = (population.masses, weight, contribution)
    rows.append((j, share, *(float(v[low].sum() / v.sum()) for v in parts)))
columns = ["k", "effective share", "prompts", "weight", "gradient"]
shares = pd.DataFrame(rows, columns=columns)
shares.round(3)

# %% [markdown]
# The last three columns belong to the prompts with $p < 1/k$: their share of all prompts, of the weight, and of the gradient. That last one is their part of $\|\nabla J_k\|^2$, $\mathbb{E}[w_k a_k 1\{p < 1/k\}] / \|\nabla J_k\|^2$ with $a_k$ the agreement with $J_k$ itself. It can lie outside $[0, 1]$, as prompts can work against the mean.

# %% tags=["hide-input"]
last = shares.iloc[-1]
Markdown(
    f"At $k = {ks[-1]}$ pass@k looks at {last['effective share']:.0%} of the prompts. Those with $p < 1/k$ are {last['prompts']:.0%} "
    f"of all and have {last['weight']:.0%} of the weight, but give {last['gradient']:.0%} of the gradient. "
    "Weight is not yet gradient: on a hopeless prompt the weight is largest and $\\nabla p$ vanishes. "
    "For a logistic policy the two together peak at $p = 1 / (k + 1)$, not at zero (see {ref}`ex-reweighting-logistic`)."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The share of the prompts that pass@k still looks at falls with k: as 2/k for uniform success rates, more slowly in this population, which has many prompts of small success rate.", "name": "fig-reweighting-share"}, "image": {"alt": "Effective share of the prompts against k on logarithmic axes, falling from one, for the population and for uniform success rates."}}
orders = torch.logspace(0, math.log2(4 * max(ks)), 80, base=2, dtype=torch.float64)
effective = pd.DataFrame(
    {
        "k": orders,
        "population": torch.cat(
            [
                effective_share(population.masses, PassAtK(float(j)).weight(success)[None])
                for j in orders
            ]
        ),
        "uniform rates": (2 * orders - 1) / orders**2,
    }
)


def draw(ax):
    figures.curve(ax, orders, effective["population"], of="population", exact=True)
    figures.curve(
        ax,
        orders,
        effective["uniform rates"],
        of="neutral",
        exact=True,
        linestyle="--",
        label="uniform success rates",
    )
    figures.k_axis(ax, orders)
    ax.set(ylabel="effective share of the prompts", yscale="log")
    figures.legend(ax)


end = effective.iloc[-1]
alt = f"Effective share at k = {end['k']:.0f}: {end['population']:.3f} in the population, {end['uniform rates']:.3f} for uniform success rates."
figures.show(draw, alt=alt, data=effective, size=(6, 3.4))

# %% [markdown]
# ## More concave, more conflict: for a single crossing
#
# ```{prf:definition} More concave
# :label: def-more-concave
#
# $f$ is *more concave* than $g$ on a set of success rates if $w_f / w_g$ does not increase with $p$ there, where $w_f, w_g > 0$.
# ```
#
# In the theory of choice this is the order of risk aversion {cite}`pratt1964`: for twice differentiable $f$ and $g$ it says that the curvature $-f'' / f'$ is at every $p$ at least that of $g$, or that $f$ is a concave function of $g$. A concave $f$ is one that is more concave than pass@1.
#
# ```{prf:theorem} The order of concavity is an order of conflict
# :label: thm-concave-order
#
# Let the agreement $a_h$ with some objective $h$ *cross once*: for some $t$ with $0 < t < 1$, $a_h(x) \le 0$ where $p(x) < t$ and $a_h(x) \ge 0$ where $p(x) > t$. Let $f$ be more concave than $g$ on a set that holds $t$ *and* the success rates of all prompts. Then
#
# $$
# \langle \nabla J_f, \nabla J_h \rangle \le \rho\, \langle \nabla J_g, \nabla J_h \rangle, \qquad \rho = \frac{w_f(t)}{w_g(t)} > 0 .
# $$
#
# If $g$ conflicts with $h$, then so does $f$. For this last claim $f$ need only be more concave on the success rates of the prompts. It is also enough that the means of $a_h$ over the prompts of equal success rate cross once. Conversely, if $w_f / w_g$ is larger at $p_2$ than at $p_1 < p_2$, and $w_g(p_1) > w_g(p_2)$, then there are two prompts with these success rates, of which the harder one disagrees with pass@1, such that $g$ conflicts with pass@1 and $f$ does not.
#
# Checked by {test}`test_objective_concave_order`.
# ```
#
# ```{prf:proof}
# Let $r = w_f / w_g$. Where $p(x) < t$ we have $r(p(x)) \ge \rho$ and $a_h(x) \le 0$; where $p(x) > t$ both signs turn; where $p(x) = t$ the first factor is zero. In every case $(r(p(x)) - \rho)\, w_g(p(x))\, a_h(x) \le 0$. The mean of this is the claim, as $\langle \nabla J_f, \nabla J_h \rangle = \mathbb{E}[w_f a_h] = \mathbb{E}[r\, w_g a_h]$. The weights depend on $x$ through $p(x)$ only, so that $a_h$ may be replaced by its mean given $p$.
#
# Now let $f$ be more concave on the success rates alone, and let $g$ conflict with $h$. Then $a_h < 0$ on some prompts. If $a_h > 0$ on none, $f$ conflicts as well. Otherwise let $\rho$ be the infimum of $r$ over the prompts with $a_h < 0$. A prompt with $a_h > 0$ has at least the success rate of each of them, so that $0 < r \le \rho$ there. The inequality above holds with this $\rho > 0$, and the conclusion follows in the same way.
#
# For the converse take one parameter, two prompts of equal mass, and $p_1' = -c$, $p_2' = 1$ at the success rates $p_1$ and $p_2$, with $0 < c < 1$. Then $J_1' = (1 - c)/2 > 0$, the agreement is $-c J_1'$ on the harder prompt and $J_1'$ on the other, and $\mathbb{E}[w a] = \frac12 J_1' \, (w(p_2) - c\, w(p_1))$. It is negative for $g$ and positive for $f$ if $w_g(p_2) / w_g(p_1) < c < w_f(p_2) / w_f(p_1)$. As $r(p_1) < r(p_2)$ and $w_g(p_2) < w_g(p_1)$, such a $c < 1$ exists.
# ```
#
# ```{prf:corollary} Conflict in k, for a single crossing
# :label: cor-concave-order-pass-at-k
#
# If the agreement with pass@1 crosses once, then pass@k conflicts with pass@1 either for no $k$, or for all $k$ from a threshold on. For $m \ge k$,
#
# $$
# \langle \nabla J_m, \nabla J_1 \rangle \le \tfrac{m}{k} (1 - t)^{m - k}\, \langle \nabla J_k, \nabla J_1 \rangle .
# $$
#
# Checked by {test}`test_objective_concave_order`.
# ```
#
# ```{prf:proof}
# $w_m / w_k = \frac{m}{k} (1 - p)^{m - k}$ does not increase with $p$.
# ```
#
# The premise is needed. In the population of this chapter the mean agreement at a given success rate changes sign more than once (below {numref}`fig-reweighting-cumulated`), and there a larger $k$ ends the conflict. How many thresholds there can be is a subject of {ref}`sec-conflict`.
#
# With two prompts, the harder of them against, the premise always holds, and all is in one number: the ratio of the two weights.

# %%
pair = TwoPointBandit(separation)
two = conflict(pair, theta)
needed = float(-two.agreement[0] / two.agreement[1])
tried = [PassAtK(1), ArcsinSqrt(), PassAtK(1.2), Log(order=2)]
tried += [PassAtK(2), Log(), ArcsinSqrt(k), PassAtK(k)]
weights = torch.stack([f.weight(two.success) for f in tried])
ratios = weights[:, 1] / weights[:, 0]
conflicts = objective_map(pair, theta, tried).conflicts[0]
assert torch.equal(conflicts, ratios > needed)
labels = [f.label for f in tried]
table = {"objective": labels, "weight, hard : easy": ratios, "conflicts": conflicts}
pd.DataFrame(table)

# %% tags=["hide-input"]
Markdown(
    f"The two prompts of the toy conflict from a ratio of {needed:.3f} on. "
    f"GRPO stays below it, at {ratios[1]:.3f}. The logarithm to order 2, which is pass@1 plus half of pass@2, is already above it."
)

# %% [markdown]
# ### Who is more concave than whom
#
# ```{prf:proposition} The order of the objectives
# :label: prop-order-of-objectives
#
# On $0 < p < 1$:
#
# 1. pass@m is more concave than pass@k for $m \ge k$; likewise arcsin pass@m and arcsin pass@k, log pass@m and log pass@k, and the logarithms to order $T$, in $T$, with $\log p$ above all of them;
# 2. log pass@k is more concave than pass@k, than arcsin pass@k and than $\log p$;
# 3. for $k > 1$, pass@k is more concave than the logarithm to order $T$ exactly if $T \le 2k - 1$, and never less;
# 4. neither of $\log p$ and pass@k is more concave than the other for $k > 1$: $\log p$ is so below $p = 1/k$, pass@k above;
# 5. neither of arcsin pass@k and pass@k is more concave than the other: the order turns where $f_k(p) = \frac12$. In particular arcsin pass@1 is convex for $p > \frac12$.
#
# Checked by {test}`test_objective_order`.
# ```
#
# ```{prf:proof}
# Let $q = 1 - p$; we look for ratios of weights that do not decrease with $q$.
# (1) $w_m / w_k = \frac mk q^{m-k}$. For log pass@k the ratio is $\frac mk \frac{u^k - 1}{u^m - 1}$ with $u = 1/q$, which falls with $u$: the quotient of the derivatives, $\frac km u^{k-m}$, does, and both vanish at $u = 1$. For arcsin pass@k it is the square root of the same quotient. For the logarithms, $\sum_{j < T'} q^j / \sum_{j < T} q^j = 1 + \sum_{T \le j < T'} \big( \sum_{i < T} q^{i-j} \big)^{-1}$ has negative exponents $i - j$ only; $\log p$ is the limit.
# (2) The ratios are $1 / f_k$ and $k \sqrt{(1 - f_k) / f_k}$, and $f_k$ rises with $p$; $\log p$ is log pass@1.
# (3) The ratio of the logarithm to pass@k is $\frac1k \sum_{j < T} q^{j-k+1}$, a convex function of $\log q$. It goes to infinity as $q \to 0$, so the logarithm is never the more concave one. It falls on all of $0 < q < 1$ exactly if its slope at $q = 1$ is not positive, and that is $\frac1k \sum_{j < T} (j - k + 1) = \frac{T (T + 1 - 2k)}{2k}$.
# (4) $w_k / w_{\log} = k p (1 - p)^{k-1}$ rises up to $p = 1/k$ and falls after it.
# (5) The ratio of arcsin pass@k to pass@k is $1 / (k \sqrt{f_k (1 - f_k)})$, which is lowest at $f_k = \frac12$.
# ```

# %%
rates = torch.linspace(0, 1, num_rates + 2, dtype=torch.float64)[1:-1]

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Curvature of the objectives: of two of them, the more concave one on a range of success rates is the one above. The logarithm and pass@k change places at p = 1/k (dotted). GRPO (arcsin pass@1) is convex above one half.", "name": "fig-reweighting-curvature"}, "image": {"alt": "Curvature against success rate for six objectives; the curves of log and pass@k cross at one over k, that of arcsin pass@1 falls below zero at one half."}}
bends = pd.DataFrame({"p": rates} | {name: curvature(f, rates) for name, (f, _) in shown.items()})


def draw(ax):
    figures.zero(ax)
    for name, (_, of) in shown.items():
        figures.curve(ax, rates, bends[name], of=of, exact=True, label=name)
    ax.axvline(1 / k, color=figures.COLOURS["neutral"], linestyle=":", linewidth=1)
    ax.set(xlabel="success rate p", ylabel="curvature $-f''/f'$", ylim=(-6, 22))
    figures.legend(ax, fontsize=8, ncol=2, loc="lower left")


crossing = float(rates[(bends["log"] <= bends[f"pass@{k}"]).to_numpy().argmax()])
alt = f"The curvature of log falls below that of pass@{k} at p = {crossing:.3f}; that of arcsin pass@1 changes sign at one half."
figures.show(draw, alt=alt, data=bends, size=(6.4, 3.9))

# %%
objectives = [PassAtK(j) for j in ks]
objectives += [ArcsinSqrt(), ArcsinSqrt(k), Log(order=k), Log(), LogPassAtK(k)]
names = [f.label for f in objectives]
order = {}
for f in objectives:
    others = [g for g in objectives if g != f]
    below = [g.label for g in others if more_concave(f, g, rates)]
    above = [g.label for g in others if more_concave(g, f, rates)]
    free = [g.label for g in others if g.label not in below + above]
    order[f.label] = {"is more concave than": below, "has no order with": free}
pd.set_option("display.max_colwidth", None)
pd.DataFrame(order).T.map(", ".join)

# %% [markdown]
# ## One curve for all concave objectives
#
# Whether *some* concave objective conflicts with pass@1 does not depend on the list of objectives that one has in mind.
#
# ```{prf:theorem} The cumulated agreement decides
# :label: thm-cumulated-agreement
#
# Let there be finitely many prompts, and $C(t) = \mathbb{E}[a\, 1\{p \le t\}]$. If $C(t) \ge 0$ for all $t$, then no concave increasing objective that is differentiable at the success rates conflicts with pass@1. If $C(t) < 0$ for some $t$, then some concave increasing objective does.
#
# Checked by {test}`test_objective_cumulated_agreement`.
# ```
#
# ```{prf:proof}
# Let $p_1 < \dots < p_M$ be the success rates that occur. Summation by parts gives
#
# $$
# \langle \nabla J_f, \nabla J_1 \rangle = \mathbb{E}[w_f a] = \sum_{i < M} \big( w_f(p_i) - w_f(p_{i+1}) \big)\, C(p_i) + w_f(p_M)\, C(p_M) .
# $$
#
# For a concave increasing $f$ all differences of weights and $w_f(p_M)$ are at least zero, which is the first claim. The last term needs no premise: $C(p_M) = \mathbb{E}[a] = \|\nabla J_1\|^2$.
# For the second let $C(p_i) < 0$; then $i < M$. Take a weight that is $1 + \varepsilon$ up to $p_i$ and falls continuously to $\varepsilon$ at $p_{i+1}$: its integral is concave and increasing, a $\min(p, p_i)$ with the corner rounded off, and $\mathbb{E}[w a] = C(p_i) + \varepsilon\, C(p_M) < 0$ for small $\varepsilon$.
# ```
#
# So one measurement at pass@1 tells whether a small step up some concave objective lowers pass@1. {ref}`sec-conflict` uses the same curve to count the thresholds of pass@k. Two limits: a dip of $C$ need not be a conflict of pass@k for any $k$ ({ref}`ex-reweighting-dip`), since its weights have one shape only; and GRPO, which is not concave, is not covered.

# %%
wide = GaussianBandit(wide_separation, hard_fraction)
cuts = torch.sigmoid(torch.linspace(-9, 9, 361, dtype=torch.float64))
dips = pd.DataFrame({"t": cuts})
for name, gap in (("close", separation), ("far apart", wide_separation)):
    world = GaussianBandit(gap, hard_fraction, num_nodes=fine_nodes)
    fine = conflict(world, theta)
    levels, sums = cumulated_agreement(fine.success, fine.masses, fine.agreement)
    assert abs(sums[-1] - fine.norm_at_1**2) < 1e-12
    place = torch.searchsorted(levels, cuts, right=True) - 1
    dips[name] = sums[place.clamp(min=0)] * (place >= 0) / sums[-1]
signs = dips.drop(columns="t").diff().iloc[1:] > 0

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Agreement cumulated from the hardest prompts up, relative to its end value, the squared norm of the pass@1 gradient. With close features it dips below zero: some concave objective conflicts with pass@1. With features far apart it does not, and none can.", "name": "fig-reweighting-cumulated"}, "image": {"alt": "Cumulated agreement against success rate for two populations; one curve dips below zero before it rises to one, the other is positive throughout."}}


def draw(ax):
    figures.zero(ax)
    for name, of in (("close", "agreement"), ("far apart", "neutral")):
        figures.curve(ax, cuts, dips[name], of=of, exact=True, label=f"features {name}")
    ax.set(xlabel="success rate t", ylabel="$C(t)$ / $\\|\\nabla J_1\\|^2$")
    figures.legend(ax)


lowest = dips.loc[dips["close"].idxmin()]
alt = f"Features close: lowest value {lowest['close']:.3f} at a success rate of {lowest['t']:.2f}; far apart: lowest value {dips['far apart'].min():.3f}."
figures.show(draw, alt=alt, data=dips, size=(6, 3.4))

# %% tags=["hide-input"]
change = (signs["close"] != signs["close"].shift()).iloc[1:].to_numpy()
ends = ["positive" if signs["close"].iloc[i] else "negative" for i in (0, -1)]
turns = cuts[1:-1][torch.from_numpy(change)].tolist()
Markdown(
    f"With features close, $C$ is lowest at $t = {lowest['t']:.2f}$, with {lowest['close']:.3f} of its end value. "
    f"The mean agreement at a given success rate, which is the slope of $C$, changes sign {len(turns)} times, at {', '.join(f'{t:.3f}' for t in turns)}: "
    f"it is {ends[0]} on the very hardest prompts and {ends[1]} on the very easiest. The curves come from so many prompts that their steps are finer than the line. "
    "Our quadrature is exact to rounding for smooth means. This mean has a jump, so it is less exact here."
)

# %% [markdown]
# ## Who conflicts with whom
#
# ```{prf:proposition} The inner product of two objectives
# :label: prop-objective-identity
#
# For any $f$ and $g$,
#
# $$
# \begin{aligned}
# \langle \nabla J_f, \nabla J_g \rangle &= \mathbb{E}_{x, x'}[w_f(x)\, w_g(x')\, \kappa(x, x')] \\
# &= \mathbb{E}[w_f a_g] = \mathbb{E}[w_f]\, \mathbb{E}[a_g] + \mathrm{cov}(w_f, a_g) .
# \end{aligned}
# $$
#
# For $g = f_1$ it is Proposition 4.1 of {cite:t}`barakat2026passk`, for two orders of pass@k the formula of their Appendix B. Only for pass@1 is $\mathbb{E}[a_g]$ a square: in general $\mathbb{E}[a_g] = \langle \nabla J_g, \nabla J_1 \rangle$, of either sign, and it is $\mathbb{E}[w_g a_g]$ that equals $\|\nabla J_g\|^2$.
#
# Checked by {test}`test_objective_identity`.
# ```
#
# ```{prf:proof}
# Put {prf:ref}`prop-weighted-gradient` into both places of the inner product, with independent prompts $x$ and $x'$; the mean over $x'$ first gives $a_g$. The covariance is $\mathbb{E}[w_f a_g] - \mathbb{E}[w_f]\, \mathbb{E}[a_g]$ by definition.
# ```

# %%
close = objective_map(population, theta, objectives)
apart = objective_map(wide, theta, objectives)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosines of the gradients of all pairs of objectives, at the same parameters. Left: features close. Pass@1 and GRPO stand against the higher orders of pass@k, and the logarithm lies between the two groups. Right: features far apart.", "name": "fig-reweighting-map"}, "image": {"alt": "Two heat maps of cosines between the gradients of eleven objectives; the left one has a negative block between pass@1 and GRPO and the higher orders of pass@k, the right one is positive."}}


def draw(axes):
    for ax, found, name in zip(axes, (close, apart), ("close", "far apart"), strict=True):
        first = ax is axes[0]
        style = {"annot": True, "fmt": ".1f", "annot_kws": {"size": 7}, "colorbar": False}
        style |= {"xticklabels": found.labels, "yticklabels": found.labels if first else False}
        figures.heatmap(ax, found.cosines, label="cosine", limit=1, **style)
        ax.tick_params(length=0, labelsize=8)
        figures.panel(ax, f"features {name}")


conflicting = int(close.conflicts.sum()) // 2
alt = f"Cosines of {len(objectives)} objectives: {conflicting} of {len(names) * (len(names) - 1) // 2} pairs conflict with features close, {int(apart.conflicts.sum()) // 2} with features far apart."
data = close.to_frame().reset_index(names="features close")
figures.show(draw, alt=alt, data=data, ncols=2, size=(9.2, 5.2))

# %% tags=["hide-input"]
cosine = close.to_frame()
against = [name for name in names if cosine.loc["pass@1", name] < 0]
against_grpo = [name for name in names if cosine.loc["arcsin pass@1", name] < 0]
Markdown(
    f"In the first population {conflicting} pairs conflict, in the second {int(apart.conflicts.sum()) // 2}. Against pass@1 stand: {', '.join(against)}. "
    f"GRPO is almost pass@1 (cosine {cosine.loc['pass@1', 'arcsin pass@1']:.3f}), and what conflicts with pass@1 conflicts with GRPO a little more: "
    f"pass@{k} has {cosine.loc['pass@1', f'pass@{k}']:.2f} with the one and {cosine.loc['arcsin pass@1', f'pass@{k}']:.2f} with the other. "
    f"The logarithm, whose weight at small $p$ exceeds every pass@k, has {cosine.loc['pass@1', 'log']:+.2f}, and to order {k} {cosine.loc['pass@1', f'log to order {k}']:+.2f}: "
    f"it keeps a weight of 1 on solved prompts, where pass@k has none. "
    f"Pass@k training (arcsin pass@{k}) has {cosine.loc['pass@1', f'arcsin pass@{k}']:+.2f}, less of a conflict than pass@{k}."
)

# %% [markdown]
# ## Who wrote this down before
#
# - That training on binary rewards ascends a monotone function of the success rate is due to {cite:t}`davis2025`, with $\arcsin\sqrt{p}$ for GRPO and $\log p$ for rejection sampling. {cite:t}`thrampoulidis2025` connect shaped advantages with the surrogate rewards that they ascend, pass@k among them.
# - {cite:t}`chow2025` train for best-of-N; with a perfect verifier that is pass@N. {cite:t}`chen2025confidence` find that training with cross-entropy can lower pass@N through overconfidence, and limit it with the loss $-\log(1 - (1-p)^N)$, whose weight is that of log pass@N.
# - {cite:t}`yu2025` has the collinearity for one prompt, notes that the weight of pass@k vanishes as $p \to 1$ and the gradient as $p \to 0$, and concludes that pass@k is a diagnostic rather than an objective.
# - {cite:t}`tajwar2026maxrl` introduce MaxRL and the expansion of $\log p$ in pass@j.
# - The conflict of two such objectives, with its weights and agreements, is the subject of {cite:t}`barakat2026passk`, who treat pass@k and name other concave functions as future work. The order of conflict by concavity, the criterion by the cumulated agreement and the map are additions of this book; the notion of "more concave" is that of {cite:t}`pratt1964`.

# %% [markdown]
# ## Scope
#
# - The objectives are functions of the success rate. SimKO {cite}`peng2025simko` is not on the map, since it is not of the form $\mathbb{E}[f(p)]$: it moves probability between the likeliest tokens at positions of high entropy, by a rule for right answers and another for wrong ones. What it does to a prompt depends on more than $p$. Nor is it an unbiased estimator of the pass@k gradient. Clipping, entropy bonuses and penalties on the distance to a reference are not on it either.
# - The arcsine is what GRPO and pass@k training ascend in the limit of many samples a prompt. With few samples the weights are others, and finite; {ref}`sec-estimators` has them.
# - The theorems are about the gradients at one $\theta$. What ascent does over many steps is the subject of {ref}`sec-dynamics`.
# - The map is that of one population at one $\theta$. Its cosines are no constants of the objectives; the orders of {prf:ref}`prop-order-of-objectives` are.

# %% [markdown]
# ## Exercises
#
# ```{exercise} Uniform success rates
# :label: ex-reweighting-uniform
#
# The success rates are uniform on $[0, 1]$. Which share of the weight of pass@k falls on prompts with $p < t$? On those with $p < 1/k$, for large $k$? What is the effective share?
# ```
#
# ````{solution-start} ex-reweighting-uniform
# :class: dropdown
# ````
#
# $\mathbb{E}[w_k 1\{p < t\}] = \int_0^t f_k'(p)\, \mathrm{d}p = f_k(t)$, and $\mathbb{E}[w_k] = 1$: pass@k itself is the distribution function of $D_k$. For $t = 1/k$ it tends to $1 - 1/e \approx 0.63$.
# With $\mathbb{E}[w_k^2] = k^2 / (2k - 1)$ the effective share is $(2k - 1) / k^2 \approx 2 / k$.

# %%
middles = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
even = torch.full_like(middles, 1 / len(middles))
for j in (2, 8, 64):
    weight = PassAtK(j).weight(middles)
    assert abs(float((even * weight)[middles < 1 / j].sum()) - (1 - (1 - 1 / j) ** j)) < 1e-3
    assert abs(float(effective_share(even, weight[None])[0]) - (2 * j - 1) / j**2) < 1e-6
float(PassAtK(64).value(torch.tensor(1 / 64)))

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} Where a logistic policy looks
# :label: ex-reweighting-logistic
#
# For a logistic policy $\|\nabla p\| = p (1 - p) \|\psi\|$. At which success rate is the contribution $w_k \|\nabla p\|$ of a prompt to $\nabla J_k$ largest, and what does it become there for large $k$? And for $\log p$?
# ```
#
# ````{solution-start} ex-reweighting-logistic
# :class: dropdown
# ````
#
# $k\, p\, (1 - p)^k$ has its maximum at $p = 1 / (k + 1)$. It is $(1 - \frac{1}{k+1})^{k+1}$ there, which tends to $1/e$, so that a larger $k$ moves the peak and does not raise it.
# For $\log p$ the contribution is $(1 - p) \|\psi\|$, largest at $p = 0$: the logarithm does not give up hopeless prompts.

# %%
for j in (1, 4, 32, 300):
    contribution = PassAtK(j).weight(middles) * middles * (1 - middles)
    assert abs(float(middles[contribution.argmax()]) - 1 / (j + 1)) < 1e-5
    assert abs(float(contribution.max()) - (1 - 1 / (j + 1)) ** (j + 1)) < 1e-9
assert (Log().weight(middles) * middles * (1 - middles)).argmax() == 0
float(contribution.max()), math.exp(-1)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} GRPO on two prompts
# :label: ex-reweighting-grpo
#
# Two prompts of a logistic policy have equal masses and features of equal length. Show that GRPO does not conflict with pass@1, whatever the success rates. Does that hold for unequal masses?
# ```
#
# ````{solution-start} ex-reweighting-grpo
# :class: dropdown
# ````
#
# Let $z_i = p_i (1 - p_i) = h_i^2$, and let $-c$ be the cosine of the two gradients, $c \le 1$. Up to a positive factor
#
# $$
# \mathbb{E}[w a] = h_1^3 + h_2^3 - c\, h_1 h_2 (h_1 + h_2) = (h_1 + h_2) \big( (h_1 - h_2)^2 + (1 - c)\, h_1 h_2 \big) \ge 0 .
# $$
#
# Unequal masses break the symmetry. A frequent prompt with $p = 0.01$ and a rare one with $p = 0.5$ are a case in which GRPO conflicts with pass@1.

# %%
both = [PassAtK(1), ArcsinSqrt()]
plane = [(b / 2, s / 2) for b in range(-8, 9) for s in range(-8, 9)]
assert min(objective_map(pair, at, both).inner_products[0, 1] for at in plane) > -1e-15
uneven = TwoPointBandit(0.2, hard_fraction=0.93)
found = objective_map(uneven, (-2.3, -23.0), both)
assert found.conflicts[0, 1]
found.success.tolist(), float(found.cosines[0, 1])

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A dip that pass@k does not see
# :label: ex-reweighting-dip
#
# Three equally likely prompts have the success rates 0.1, 0.5 and 0.55, and agreements in the proportion 0.5 : -1 : 0.6. Show that pass@k conflicts with pass@1 for no $k$, and find a concave objective that does.
# ```
#
# ````{solution-start} ex-reweighting-dip
# :class: dropdown
# ````
#
# $\mathbb{E}[w_k a] \propto 0.5 \cdot 0.9^{k-1} - 0.5^{k-1} + 0.6 \cdot 0.45^{k-1}$ is positive for all $k \ge 1$. Divide it by $0.5^u$, with $u = k - 1$: this leaves $0.5 \cdot 1.8^u - 1 + 0.6 \cdot 0.9^u$. At $u = 0$ it is $0.1$ and its slope is $0.5 \log 1.8 + 0.6 \log 0.9 \approx 0.23$. It is convex in $u$, so it rises from there on.
# The cumulated agreement is $0.5, -0.5, 0.1$: it dips at $p = 0.5$. So $f(p) = \min(p, 0.52)$ conflicts: its weight is 1 on the first two prompts and 0 on the third. It asks for prompts to be solved about half of the time and no more. The corner must lie between two success rates: at $p = 0.5$ itself $\min(p, 0.5)$ has no derivative, and its two one-sided derivatives give different signs.

# %%
three = torch.tensor([0.1, 0.5, 0.55], dtype=torch.float64)
proportions = torch.tensor([0.5, -1.0, 0.6], dtype=torch.float64)
assert all(PassAtK(j).weight(three) @ proportions > 0 for j in torch.logspace(0, 3, 500).tolist())
_, dip = cumulated_agreement(three, torch.ones(3, dtype=torch.float64), proportions)
assert (three < 0.52).double() @ proportions == dip[1] < 0
dip.tolist()

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - an objective $\mathbb{E}[f(p)]$ weighs the gradient of each prompt by $f'(p)$, and that is all that tells such objectives apart;
# - pass@k looks at about $2/k$ of the prompts when success rates are spread evenly, and its gradient comes from success rates around $1/k$ rather than from zero;
# - GRPO weighs solved prompts as much as hopeless ones: it is not concave, and lies next to pass@1 on the map;
# - if the agreement crosses once along the success rates, a more concave objective conflicts wherever a less concave one does, and without that premise it need not;
# - $\log p$ and pass@k are not ordered: the logarithm is more concave below $1/k$ and less above it, and keeps a weight on solved prompts;
# - the cumulated agreement, one curve, says whether any concave objective can conflict with pass@1.
