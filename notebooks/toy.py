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
# (sec-toy)=
# # Prompt interference: easy against hard prompts in a contextual bandit
#
# **Result.** A policy with two parameters answers easy and hard prompts. A step up pass@k lowers pass@1, because pass@k weighs the hard prompts and their gradient opposes that of the easy ones.
# Nothing in this chapter is sampled: closed forms and quadrature give every number.
#
# This is the example of {cite:t}`barakat2026passk`, sections 3 and 4.
#
# **What you need.** Gradients, the logistic function, and what pass@k is {cite}`chen2021codex`: the chance that at least one of $k$ independent answers is right.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $x \sim D$ | a prompt and the law it is drawn from |
# | $p(x)$ | success rate: the chance that one answer to $x$ is right |
# | $J_k = \mathbb{E}_x[1 - (1 - p(x))^k]$ | pass@k; $J_1$ is pass@1 |
# | $w_k(x) = k (1 - p(x))^{k-1}$ | weight of a prompt in $\nabla J_k = \mathbb{E}_x[w_k(x) \nabla p(x)]$ |
# | $\kappa(x, x') = \langle \nabla p(x), \nabla p(x') \rangle$ | kernel: what a step for $x'$ does to $x$ |
# | $a(x) = \langle \nabla p(x), \nabla J_1 \rangle = \mathbb{E}_{x'}[\kappa(x, x')]$ | agreement of a prompt with pass@1 |

# %%
import math

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from scipy.integrate import solve_ivp

from passgrad.ascent.ascent import ascend
from passgrad.bounds import proven_step_size, sufficient_k
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.tabular import TabularSoftmax
from passgrad_book.build import figures

# %% [markdown]
# The paper prints the separation, $k$ and the step of its two-prompt example.
# It does not print $\theta$: the value here follows from the weights that it prints, and reproduces all its other numbers.
# For its population figures it prints neither $\theta$, nor the share of hard prompts, nor the steps: those values are assumptions of ours.

# %% tags=["parameters"]
separation: float = 0.2  # distance between the mean features of hard and easy prompts (paper)
theta_bias: float = -2.0  # first parameter of the policy (from the printed weights)
theta_slope: float = -2.0  # second parameter of the policy (from the printed weights)
k: int = 10  # order of the one-step example (paper)
step_size: float = 5.0  # step of the one-step example (paper)
small_steps: int = 500  # number of small steps that make up the same way (ours)
ks: list = [1, 2, 3, 5, 10, 20, 50, 100]  # orders at which the gradients are compared (ours)
hard_fraction: float = 0.4  # share of hard prompts in the population (assumed)
population_k: int = 5  # order of the population figures (paper)
population_steps: int = 100  # unit steps of ascent in the population (assumed)
grid_points: int = 41  # points a side of the grid in the parameter plane (ours)
num_easy_shown: int = 120  # easy prompts in the kernel heat map (paper)
num_hard_shown: int = 80  # hard prompts in the kernel heat map (paper)
seed: int = 0  # of the features in the kernel heat map

# %% [markdown]
# ## Two prompts that share two parameters
#
# The policy sees the features $\psi = (1, s)$ of a prompt and answers 1 with probability $\sigma(\theta \cdot \psi)$, else 0.
# On the easy prompt, at $s = -\delta/2$, the right answer is 0; on the hard one, at $s = +\delta/2$, it is 1.
# A policy that leans to 0 solves the easy prompt and fails the hard one.
# With $z = \sigma (1 - \sigma)$ the gradients of the success rates are $-z \psi$ (easy) and $+z \psi$ (hard):
# as the features are nearly the same, the gradients are nearly opposite.
#
# ```{prf:definition} Kernel and interference
# :label: def-kernel
#
# The *kernel* of two prompts is $\kappa(x, x') = \langle \nabla p(x), \nabla p(x') \rangle$.
# Two prompts *interfere positively* if $\kappa(x, x') > 0$, *negatively* if $\kappa(x, x') < 0$. Definition 3.1 of {cite:t}`barakat2026passk`, which leaves $\kappa = 0$ without a name.
# ```
#
# A small step $\eta \nabla p(x')$ changes $p(x)$ by $\eta\, \kappa(x, x')$, up to terms of order $\eta^2$: negative interference means that learning one prompt unlearns another.

# %%
world = TwoPointBandit(separation=separation)
theta = (theta_bias, theta_slope)
curve = conflict(world, theta, ks=ks)
at_k = conflict(world, theta, ks=[k])
at_k.prompts_frame()

# %% [markdown]
# ## The weights
#
# Differentiating $1 - (1 - p)^k$ gives the weight $w_k(p) = k (1 - p)^{k-1}$.
# It is 1 for every prompt when $k = 1$. As $k$ grows it rises to $k$ where $p = 0$ and vanishes wherever $p$ is well above $1/k$: pass@k forgets the prompts that one answer solves.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The weight of a prompt in the pass@k gradient. Pass@1 weighs all prompts alike; the larger k, the more of the weight goes to prompts of low success rate. The marks are the two prompts of the example.", "name": "fig-toy-weights"}, "image": {"alt": "Weight k(1-p)^(k-1) against success rate p for several k, on a logarithmic scale, with the easy and the hard prompt marked."}}
rates = torch.linspace(0, 1, 201, dtype=torch.float64)
shown = sorted({1, 2, population_k, k})
weights = pd.DataFrame({f"pass@{j}": PassAtK(j).weight(rates) for j in shown})


def draw(ax):
    for name in weights:
        figures.curve(ax, rates, weights[name], of=name, exact=True)
    for group, p, w in zip(world.groups, at_k.success, at_k.weights[0], strict=True):
        figures.points(ax, [p], [w], of=group, exact=True, markersize=9, zorder=3)
    ax.set(xlabel="success rate p", ylabel="weight", yscale="log", ylim=(1e-8, 30))
    figures.legend(ax, loc="lower left")


alt = f"Weights of pass@k for k in {shown}; at k = {k} the hard prompt weighs {at_k.weights[0, 1]:.3g}, the easy one {at_k.weights[0, 0]:.3g}."
figures.show(draw, alt=alt, data=weights.assign(p=rates))

# %% [markdown]
# ## The conflict at each k
#
# For each prompt alone, $\nabla J_k(x) = w_k(x) \nabla J_1(x)$: the two objectives pull the same way.
# Only the mean over prompts can turn them against each other (Proposition 4.1 of the paper; {ref}`sec-conflict` proves it):
#
# $$
# \langle \nabla J_k, \nabla J_1 \rangle = \mathbb{E}[w_k a] = \mathbb{E}[w_k] \, \|\nabla J_1\|^2 + \mathrm{cov}(w_k, a).
# $$
#
# The three forms are computed independently: from the gradients, from weights and agreements, and from their covariance.

# %%
mean_of_products = [curve.inner_product_at(j) for j in ks]
forms = pd.DataFrame(
    {
        "k": ks,
        "gradients": curve.inner_product,
        "mean of w a": mean_of_products,
        "covariance form": curve.covariance_form(),
        "cosine": curve.cosine,
    }
)
assert (forms["gradients"] - forms["mean of w a"]).abs().max() < 1e-12
assert (forms["gradients"] - forms["covariance form"]).abs().max() < 1e-12
forms

# %% [markdown]
# ```{prf:proposition} The mean agreement
# :label: prop-mean-agreement
#
# $\mathbb{E}[a] = \|\nabla J_1\|^2 \ge 0$, whatever the prompts and the policy.
#
# Checked by {test}`test_mean_agreement`.
# ```
#
# ```{prf:proof}
# $\mathbb{E}[a] = \mathbb{E}_x \langle \nabla p(x), \nabla J_1 \rangle = \langle \mathbb{E}_x \nabla p(x), \nabla J_1 \rangle$, and $\mathbb{E}_x \nabla p(x) = \nabla J_1$.
# ```
#
# So a positive mean says nothing; what counts is whether the prompts with large weights are those with negative agreement. The theorems on when that is so are in {ref}`sec-conflict`.
# As $\mathbb{E}[w_k a]$ is defined for every real $k \ge 1$, the conflict starts at a definite $k$, its *threshold*.
# Proposition 4.5 of the paper gives a $k$ from which there is certainly a conflict.

# %% tags=["hide-input"]
# For a logistic policy E||grad log pi||^2 and E||Hess log pi|| are at most ||psi||^2 / 4.
bound = float((world.features**2).sum(dim=1).max()) / 4
bounds = {"margin": -float(curve.agreement.min()), "score_bound": bound}
proven = sufficient_k(curve, **bounds)
Markdown(
    f"Here the conflict starts at $k = {curve.threshold:.3f}$, so that pass@2 "
    f"{'already conflicts' if curve.inner_product_at(2) < 0 else 'does not conflict yet'} with pass@1. "
    f"Proposition 4.5 proves it from $k = {proven:.3f}$ on: sufficient, not tight."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The pass@k gradient turns against the pass@1 gradient almost at once, and soon only the hard prompt is left in it. Dotted: the exact threshold and the k from which Proposition 4.5 proves a conflict.", "name": "fig-toy-cosine"}, "image": {"alt": "Cosine of the pass@k and pass@1 gradients against k, falling from one to a negative plateau."}}
fine = conflict(world, theta, ks=torch.logspace(0, math.log10(max(ks)), 200).tolist())


def draw(ax):
    figures.zero(ax)
    figures.curve(ax, fine.ks, fine.cosine, of="pass@k", exact=True, label="")
    for place, name in ((curve.threshold, "threshold"), (proven, "proven")):
        ax.axvline(place, color=figures.COLOURS["conflict"], linestyle=":")
        ax.annotate(name, (place, 0.9), xytext=(4, 0), textcoords="offset points")
    figures.k_axis(ax, ks)
    ax.set(ylabel="cosine of the gradients of\npass@k and pass@1", ylim=(-1, 1.05))


alt = f"Cosine against k: 1 at k = 1, zero at {curve.threshold:.2f}, {fine.cosine[-1]:.3f} at k = {max(ks)}."
figures.show(draw, alt=alt, data=fine.to_frame())

# %% [markdown]
# ## One large step
#
# The paper takes one step of $\nabla J_{10}$ and reports pass@1 and pass@10 before and after. The table holds every number it prints for this example.

# %%
step = ascend(world, theta, PassAtK(k), step_size=step_size)
one, many = step.pass_at_k(1), step.pass_at_k(k)
kernel = world.kernel(theta)
easy, hard = world.features
printed = {
    "success rate, easy": ("0.86", at_k.success[0]),
    "success rate, hard": ("0.10", at_k.success[1]),
    "weight, easy": ("2.33e-07", at_k.weights[0, 0]),
    "weight, hard": ("3.88", at_k.weights[0, 1]),
    "cosine of the features": ("0.98", easy @ hard / (easy.norm() * hard.norm())),
    "kernel of easy and hard": ("-0.01", kernel[0, 1]),
    "cosine of the success gradients": ("-0.98", kernel[0, 1] / kernel.diagonal().prod().sqrt()),
    "cosine of the gradients of J_1 and J_k": ("-0.77", at_k.cosine[0]),
    "J_1 before": ("0.48", one[0]),
    "J_1 after": ("0.46", one[1]),
    "J_k before": ("0.83", many[0]),
    "J_k after": ("0.95", many[1]),
}

# %%
table = pd.DataFrame(
    [(name, paper, f"{float(here):.5g}") for name, (paper, here) in printed.items()],
    columns=["quantity", "paper", "here"],
)
table

# %% [markdown]
# Proposition 4.6 of the paper says that a step along $\nabla J_k$ lowers $J_1$ and raises $J_k$ if it is small enough, and how small.
# The step of its own example is not.

# %% tags=["hide-input"]
largest = proven_step_size(at_k, k, **bounds, curvature_bound=bound)
Markdown(
    f"The largest step that Proposition 4.6 covers is {largest:.3g}. "
    f"The step of the example, {step_size:g}, is **{step_size / largest:,.0f} times larger** than that. "
    "Pass@1 falls in the example all the same, but not because the proposition says so."
)

# %% [markdown]
# ## Many small steps
#
# A long step can do what the gradient does not say: it leaves the region that the gradient describes.
# We take small steps of the same total step size, and also prolong the one long step. The total step size is the time of the ascent; the distance covered is another number, as gradients shrink and turn.

# %%
flow = ascend(world, theta, PassAtK(k), step_size=8 * step_size / small_steps, steps=small_steps)
lengths = torch.linspace(0, 8 * step_size, small_steps + 1, dtype=torch.float64)
rays = [ascend(world, theta, PassAtK(k), step_size=float(eta)) for eta in lengths]
ways = pd.DataFrame({"length": lengths})
for j in (1, k):
    ways[f"pass@{j}, small steps"] = flow.pass_at_k(j)
    ways[f"pass@{j}, one step"] = torch.stack([ray.pass_at_k(j)[1] for ray in rays])
ways.iloc[:: small_steps // 4].round(4)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@k ascent by small steps (solid) and by one step of the same total step size (dotted). Both lower pass@1 at first. One very long step jumps over to the mirror image, where the hard prompt is solved and the easy one is not: pass@1 comes back and pass@k is lost. The vertical line is the paper's step.", "name": "fig-toy-steps"}, "image": {"alt": "Two panels: pass@1 and pass@k against the total step size, for small steps and for one step."}}


def draw(axes):
    for ax, j in zip(axes, (1, k), strict=True):
        for kind, dash in (("small steps", "-"), ("one step", ":")):
            values = ways[f"pass@{j}, {kind}"]
            figures.curve(
                ax, lengths, values, of=f"pass@{j}", exact=True, label=kind, linestyle=dash
            )
        ax.axvline(step_size, color=figures.COLOURS["neutral"], linewidth=1)
        ax.set(xlabel="total step size", ylabel=f"pass@{j}")
    figures.legend(axes[1], loc=(0.17, 0.08))


last = ways.iloc[-1]
alt = f"After a total step size of {lengths[-1]:g}, small steps: pass@1 {last['pass@1, small steps']:.3f}, pass@{k} {last[f'pass@{k}, small steps']:.3f}; one step: {last['pass@1, one step']:.3f} and {last[f'pass@{k}, one step']:.3f}."
figures.show(draw, alt=alt, data=ways, ncols=2, size=(7, 3))

# %% [markdown]
# ### The long horizon
#
# The last figure stops where pass@1 looks settled. It is not: the features of the two prompts differ, so a steep enough slope solves both.
# We follow the ascent with steps that go to zero, by a solver of differential equations, over a much longer time.

# %%
times = np.logspace(0, 4, 161)
path = solve_ivp(
    lambda _, at: world.objective_gradient(at.tolist(), PassAtK(k))[1].numpy(),
    (0, times[-1]),
    np.array(theta),
    method="LSODA",
    t_eval=times,
    rtol=1e-8,
    atol=1e-10,
)
long_run = pd.DataFrame({"time": times})
for j in (1, k):
    long_run[f"pass@{j}"] = [
        float(world.masses @ PassAtK(j).value(world.success(at.tolist()))) for at in path.y.T
    ]


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@k ascent on the two prompts over a long time (logarithmic axis). The thin line is pass@1 at the start. Pass@1 falls early, and comes back much later.", "name": "fig-toy-long"}, "image": {"alt": "Pass@1 and pass@k along pass@k ascent against time on a logarithmic axis."}}
def draw(ax):
    for j in (1, k):
        figures.curve(ax, times, long_run[f"pass@{j}"], of=f"pass@{j}", exact=True)
    ax.axhline(float(flow.pass_at_k(1)[0]), color=figures.COLOURS["neutral"], linewidth=1)
    ax.set(xscale="log", xlabel="total step size", ylabel="value")
    figures.legend(ax)


early = long_run["pass@1"].min()
alt = f"Pass@1 starts at {float(flow.pass_at_k(1)[0]):.3f}, falls to {early:.3f} and is {long_run['pass@1'].iloc[-1]:.3f} at the end, a total step size of {times[-1]:,.0f}."
figures.show(draw, alt=alt, data=long_run, size=(6, 3.2))

# %% tags=["hide-input"]
again = long_run[(long_run["pass@1"] >= float(flow.pass_at_k(1)[0])) & (times > 40)]
Markdown(
    f"Pass@1 is {float(flow.pass_at_k(1)[0]):.3f} at the start, {early:.3f} at its lowest, and {long_run['pass@1'].iloc[-1]:.3f} after a total step size of {times[-1]:,.0f}. "
    + (f"It is back at its start after about {again['time'].iloc[0]:,.0f}. " if len(again) else "")
    + "The loss is real and lasts long, but it is not the end. {ref}`sec-dynamics` says when a loss stays."
)

# %% [markdown]
# ## A population of prompts
#
# Now the features are spread out: $s \sim N(-\delta/2, 1)$ on easy prompts, $s \sim N(+\delta/2, 1)$ on hard ones.
# With $\delta$ small against 1 the two kinds overlap, and no policy of this form can tell them apart.
# `GaussianBandit` takes the means over prompts by quadrature; its "prompts" are the nodes.
# The kernel below is that of prompts drawn from the population, for the eye only.

# %%
population = GaussianBandit(separation, hard_fraction)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine kernel of sampled prompts, sorted by kind and feature. Prompts of one kind mostly help each other (blue), prompts of different kinds mostly harm each other (orange).", "name": "fig-toy-kernel"}, "image": {"alt": "Heat map of the cosine kernel: blocks of one kind mostly positive, blocks of different kinds mostly negative."}}
sample = population.sample(num_easy_shown, num_hard_shown, seed=seed)
gram = sample.kernel(theta)
lengths_of_gradients = gram.diagonal().sqrt()
cosines = gram / (lengths_of_gradients[:, None] * lengths_of_gradients)
order = sorted(range(len(cosines)), key=lambda i: (sample.groups[i], float(sample.features[i, 1])))
cosines = cosines[order][:, order]
across = float((cosines[:num_easy_shown, num_easy_shown:] < 0).double().mean())


def draw(ax):
    figures.heatmap(ax, cosines, label="cosine", groups=[sample.groups[i] for i in order], limit=1)


alt = f"Cosine kernel of {num_easy_shown} easy and {num_hard_shown} hard prompts; {across:.0%} of the pairs of different kinds are negative."
figures.show(draw, alt=alt, size=(5.2, 4.4))

# %% [markdown]
# ### Where in the parameter plane the gradients conflict

# %%
start = conflict(population, theta, ks=[population_k])
trace = ascend(
    population,
    theta,
    PassAtK(population_k),
    step_size=1.0,
    steps=population_steps,
    record_theta=True,
)
axis = torch.linspace(-4, 4, grid_points, dtype=torch.float64)
plane = []
for bias in axis:
    for slope in axis:
        here = conflict(population, (bias, slope), ks=[1, population_k])
        levels = here.to_frame()["pass_at_k"]
        plane.append((bias.item(), slope.item(), *levels, here.inner_product[1].item()))
plane = pd.DataFrame(plane, columns=["bias", "slope", "pass@1", "pass@k", "inner product"])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@1 (left) and pass@k (right) over the two parameters of the policy. Grey: the gradients of the two conflict. Pass@k ascent (line, from the dot to the cross) lowers pass@1 to a policy near the origin, which hedges: it answers either way with a probability of about one half.", "name": "fig-toy-plane"}, "image": {"alt": "Two contour maps over the parameter plane with the conflict region shaded and the path of ascent."}}
grids = {
    name: plane.pivot(index="slope", columns="bias", values=name) for name in plane.columns[2:]
}


def draw(axes):
    for ax, name in zip(axes, ("pass@1", "pass@k"), strict=True):
        conflicts = grids["inner product"].to_numpy()
        ax.contourf(
            axis, axis, conflicts, levels=[-1, 0], colors=[figures.COLOURS["neutral"]], alpha=0.3
        )
        lines = ax.contour(
            axis, axis, grids[name], levels=10, colors=[figures.COLOURS[name]], linewidths=1
        )
        ax.clabel(lines, fontsize=8, fmt="%.2f")
        ax.plot(*trace.thetas.T, color=figures.ink(), linewidth=2)
        ax.plot(*trace.thetas[0], "o", *trace.thetas[-1], "x", color=figures.ink())
        ax.set(xlabel="bias", ylabel="slope", aspect="equal")
        figures.panel(ax, name)


share = float((plane["inner product"] < 0).mean())
alt = f"Contours of pass@1 and pass@{population_k}; the gradients conflict in {share:.0%} of the square, ascent goes from {theta} to ({trace.theta[0]:.2f}, {trace.theta[1]:.2f})."
figures.show(draw, alt=alt, data=plane, ncols=2, size=(7.4, 3.9))

# %% [markdown]
# ### The agreement, before and after
#
# The prompts that pass@k weighs most are those with negative agreement, and ascending pass@k does not heal that.

# %%
end = conflict(population, trace.theta, ks=[population_k])
moments = {"before": start, "after": end}
agreement = pd.DataFrame({name: moment.agreement for name, moment in moments.items()})
agreement = agreement.assign(group=population.groups, mass=population.masses)
agreement.describe().loc[["min", "max"], list(moments)]


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Law of the agreement over prompts before (left) and after (right) pass@k ascent. The hard prompts hold the negative values, and these become more negative.", "name": "fig-toy-agreement"}, "image": {"alt": "Histograms of the agreement of easy and hard prompts before and after ascent."}}
def draw(axes):
    for ax, name in zip(axes, moments, strict=True):
        for group, rows in agreement.groupby("group"):
            style = {"weights": rows["mass"].to_numpy(), "bins": 40, "binrange": (-0.04, 0.04)}
            figures.histogram(ax, rows[name], of=group, **style)
        ax.axvline(0, color=figures.COLOURS["neutral"], linewidth=1)
        ax.set(xlabel="agreement a(x)", ylabel="mass of prompts")
        figures.panel(ax, name)
    figures.legend(axes[0])


alt = (
    f"Agreement from {start.agreement.min():.3f} to {start.agreement.max():.3f} before, "
    f"from {end.agreement.min():.3f} to {end.agreement.max():.3f} after."
)
figures.show(draw, alt=alt, data=agreement, ncols=2, size=(7, 3), sharey=True)

# %% tags=["hide-input"]
lost = {
    name: float(m.masses @ m.agreement.clamp(max=0))
    for name, m in (("before", start), ("after", end))
}
Markdown(
    f"The negative part of the agreement, $\\mathbb{{E}}[\\min(a, 0)]$, goes from {lost['before']:.5f} to {lost['after']:.5f}, "
    f"while its mean, $\\|\\nabla J_1\\|^2$, stays positive: {start.norm_at_1**2:.5f} before and {end.norm_at_1**2:.5f} after."
)

# %% [markdown]
# ### Pass@k up, pass@1 down

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@k ascent in the population. Pass@k rises and pass@1 falls: what is gained on the hard prompts is less than what is lost on the easy ones, until the policy hedges.", "name": "fig-toy-ascent"}, "image": {"alt": "Pass@1 and pass@k of the population, the easy and the hard prompts against the number of steps."}}
steps = range(population_steps + 1)
series = {(j, "population"): trace.pass_at_k(j) for j in (1, population_k)}
for j in (1, population_k):
    series |= {(j, group): values for group, values in trace.group_pass_at_k(j).items()}


def draw(axes):
    for ax, j in zip(axes, (1, population_k), strict=True):
        for name in ("population", "easy", "hard"):
            figures.curve(ax, steps, series[j, name], of=name, exact=True)
        ax.set(xlabel="step", ylabel=f"pass@{j}")
    figures.legend(axes[0])


overall, group_of_k = trace.pass_at_k(1), trace.pass_at_k(population_k)
alt = f"Pass@{population_k} rises from {group_of_k[0]:.3f} to {group_of_k[-1]:.3f} while pass@1 falls from {overall[0]:.3f} to {overall[-1]:.3f}."
data = pd.DataFrame({f"pass@{j} {name}": values for (j, name), values in series.items()})
figures.show(draw, alt=alt, data=data, ncols=2, size=(7, 3))

# %% [markdown]
# How much is lost, and whether the loss starts with the first step, depends on where we start and on the share of hard prompts, which the paper does not state.
# The table has four choices. Where the cosine at the start is positive, pass@1 rises first, and the conflict comes later.
# In all four the end is the same for the same share of hard prompts: the loss belongs to the optimum of pass@k under these features ({prf:ref}`cor-gaussian-optimum`), not to the way there.

# %%
rows = []
for share in (0.4, 0.3):
    for beginning in ((-2.0, -2.0), (-2.0, 0.0)):
        variant = GaussianBandit(separation, share)
        path = ascend(
            variant, beginning, PassAtK(population_k), step_size=1.0, steps=population_steps
        )
        one = path.pass_at_k(1)
        cosine = float(conflict(variant, beginning, ks=[population_k]).cosine[0])
        rows.append(
            (share, beginning, cosine, *one[[0, -1]].tolist(), one.max().item(), int(one.argmax()))
        )
columns = ["hard", "theta", "cosine at start", "J_1 first", "J_1 last", "J_1 highest", "at step"]
pd.DataFrame(rows, columns=columns).round(4)

# %% [markdown]
# ## Two cases without conflict
#
# ```{prf:proposition} A kernel without negative entries
# :label: prop-positive-kernel
#
# If $\kappa(x, x') \ge 0$ for almost all pairs of prompts, then $\langle \nabla J_k, \nabla J_m \rangle \ge 0$ for all $k, m \ge 1$. Proposition B.1 of {cite:t}`barakat2026passk`.
#
# Checked by {test}`test_positive_kernel`.
# ```
#
# ```{prf:proof}
# With independent prompts $x, x'$ the inner product is $\mathbb{E}_{x, x'}[w_k(x)\, w_m(x')\, \kappa(x, x')]$, and no factor is negative. Only the signs of the weights enter: it holds for any two increasing functions of the success rate in place of pass@k and pass@m.
# ```
#
# ```{prf:proposition} A policy that shares nothing
# :label: prop-tabular
#
# Let there be finitely many prompts, each with parameters of its own. Then $\kappa(x, x') = 0$ for $x \ne x'$, $a(x) = D(x) \|\nabla p(x)\|^2 \ge 0$, and no pass@k conflicts with pass@1.
#
# Checked by {test}`test_tabular_control`.
# ```
#
# ```{prf:proof}
# $\nabla p(x)$ and $\nabla p(x')$ have no nonzero coordinate in common. Of $a(x) = \sum_{x'} D(x')\, \kappa(x, x')$ the term of $x$ remains. The kernel has no negative entry, so {prf:ref}`prop-positive-kernel` applies.
# ```
#
# The second case is our negative control: a table with one vector of logits for each prompt.
# We give the table the success rates and the masses of the population, so that the weights are those of the bandit.

# %%
control = TabularSoftmax(population.num_prompts, masses=population.masses)
rates = population.success(theta)
logits = torch.stack([torch.logit(rates), torch.zeros_like(rates)], dim=1).flatten()
torch.testing.assert_close(control.success(logits), rates)
orders = torch.logspace(0, math.log10(max(ks)), 60).tolist()
bandit, table = conflict(population, theta, orders), conflict(control, logits, orders)
assert (table.inner_product > 0).all()
both = pd.DataFrame({"k": orders, "bandit": bandit.cosine, "table": table.cosine})

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same success rates, masses and weights: the gradients of the bandit conflict over a range of k, those of the table never do. The cosine of the table falls all the same, since pass@k looks at other prompts than pass@1.", "name": "fig-toy-control"}, "image": {"alt": "Cosine of pass@k and pass@1 gradients against k for the bandit and for the table."}}


def draw(ax):
    figures.zero(ax)
    figures.curve(ax, orders, both["bandit"], of="pass@k", exact=True, label="shared parameters")
    figures.curve(ax, orders, both["table"], of="control", exact=True, label="nothing shared")
    figures.k_axis(ax, ks)
    ax.set(ylabel="cosine of the gradients of\npass@k and pass@1", ylim=(-0.5, 1.05))
    figures.legend(ax)


alt = (
    f"The cosine of the bandit is lowest, {both['bandit'].min():.2f}, at k = "
    f"{orders[both['bandit'].argmin()]:.1f}; that of the table stays above {both['table'].min():.2f}."
)
figures.show(draw, alt=alt, data=both)

# %% tags=["hide-input"]
conflicting = both["k"][both["bandit"] < 0]
Markdown(
    f"In this population the conflict starts at $k = {bandit.threshold:.2f}$. "
    f"Among the values drawn, up to $k = {max(ks)}$, the last one with a conflict is "
    f"{conflicting.max():.1f}: with many prompts a larger $k$ need not mean more conflict."
)

# %% [markdown]
# ## Scope
#
# - The example has two parameters. In the population the features cannot separate the two kinds. With features far apart the conflict vanishes (see {ref}`ex-toy-separation`).
# - In the population pass@k ascent ends in a policy that hedges. The two prompts are another case: their features differ, and pass@1 comes back after a long time, as {numref}`fig-toy-long` shows and {prf:ref}`prop-transient` proves.
# - A conflict of the gradients is a statement about small steps. {numref}`fig-toy-steps` shows how long steps differ.
# - Conflict between tasks that share parameters was known before: as ray interference {cite}`schaul2019ray`, and, for language models and in the opposite direction (pass@1 training costs pass@k), by {cite:t}`nguyen2025boundary`.
# - How pass@k is ascended with samples is another subject; see {cite:t}`walder2025pkpo`.

# %% [markdown]
# ## Exercises
#
# ```{exercise} The threshold of two prompts
# :label: ex-toy-threshold
#
# Two prompts have the same mass, success rates $p_e > p_h$ and agreements $a_e > 0 > a_h$. From which $k$ on do the gradients of pass@k and pass@1 conflict?
# ```
#
# ````{solution-start} ex-toy-threshold
# :class: dropdown
# ````
#
# They conflict when $w_k(x_e) a_e + w_k(x_h) a_h < 0$, that is $\left(\frac{1 - p_h}{1 - p_e}\right)^{k-1} > \frac{a_e}{-a_h}$. Hence
#
# $$
# k > 1 + \frac{\log(a_e / (-a_h))}{\log((1 - p_h) / (1 - p_e))}.
# $$

# %%
(a_easy, a_hard), (p_easy, p_hard) = curve.agreement, curve.success
answer = 1 + torch.log(a_easy / -a_hard) / torch.log((1 - p_hard) / (1 - p_easy))
assert abs(answer - curve.threshold) < 1e-9
float(answer)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} Features far apart
# :label: ex-toy-separation
#
# From which separation $\delta$ on can the two prompts not conflict, whatever $\theta$ and $k$?
# ```
#
# ````{solution-start} ex-toy-separation
# :class: dropdown
# ````
#
# The kernel of the two prompts is $-z_e z_h \, \psi_e \cdot \psi_h = -z_e z_h (1 - \delta^2 / 4)$. It is not negative when $\delta \ge 2$, and a kernel that is nowhere negative excludes every conflict ({prf:ref}`prop-positive-kernel`).

# %%
for wide in (2.0, 3.0):
    for bias in range(-4, 5):
        apart = conflict(TwoPointBandit(wide), (bias, -4.0), ks=ks)
        assert (apart.inner_product > -1e-15).all()
near = conflict(TwoPointBandit(1.9), (-2.0, -4.0), ks=ks)
assert near.threshold > 1
near.threshold

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A reassuring mean
# :label: ex-toy-mean
#
# A report says: "the mean agreement of our prompts with the pass@1 gradient is positive, so training pass@k is safe for pass@1". What did they measure, and what should they have measured?
# ```
#
# ````{solution-start} ex-toy-mean
# :class: dropdown
# ````
#
# $\mathbb{E}[a] = \|\nabla J_1\|^2$ is positive for every policy ({prf:ref}`prop-mean-agreement`). They should take the mean under the law $D_k \propto w_k D$: its sign is that of the inner product of the gradients.

# %%
plain_mean = float(at_k.masses @ at_k.agreement)
reweighted_mean = float(at_k.reweighted(k) @ at_k.agreement)
assert abs(plain_mean - at_k.norm_at_1**2) < 1e-15
assert (reweighted_mean < 0) == (at_k.inner_product_at(k) < 0)
plain_mean, reweighted_mean

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - pass@k weighs prompts by $k (1 - p)^{k-1}$: the larger $k$, the more only the hard ones count;
# - the gradients of pass@k and pass@1 conflict when the agreement is negative on average under these weights: with two prompts from a definite $k$ on, in the population over a range of $k$;
# - the printed numbers of the paper's example follow from one $\theta$, and its step is far larger than its theory allows;
# - in the population pass@k ascent raises pass@k and lowers pass@1 until the policy hedges, whether pass@1 rises first or not;
# - without shared parameters there is no conflict.
