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
# (sec-updates)=
# # Conflict-free updates
#
# **Result.** Where the gradients of pass@1 and pass@k conflict, a step up pass@k need not cost pass@1: methods of gradient surgery find a direction that raises pass@k and does not lower pass@1 to first order.
# At one step of a given length, all these methods, and all fixed mixtures of the two objectives, stand on one arc: none is better than another, each chooses another price.
# What surgery has beside a fixed mixture is that it finds its place on the arc from the gradients, at each step anew.
# With one step size instead of one length PCGrad keeps the whole gain in pass@k and raises pass@1 as well. It does so by going farther.
# Where there is no conflict PCGrad, UPGrad and the constrained step change nothing; MGDA and CAGrad go on balancing the two.
# The metric of the optimiser decides as well: at the one start that was looked at, the conflict of the language model is less than half as deep in Adam's, and in that of a damped natural gradient there is none.
#
# We follow the methods exactly, without sampling, from the same weights of a language model.
#
# **What you need.** {ref}`A real language model, exactly <sec-language-exact>` for the world, and the page {ref}`sec-conflict-free` for the statements used here.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $J_1$, $J_k$ | pass@1 and pass@k; $g_1$, $g_k$ their gradients |
# | $c = \cos(g_1, g_k)$, $\psi = \arccos c$ | negative $c$ is conflict |
# | $d = \lambda_1 g_1 + \lambda_k g_k$ | the direction of a method; the method is its rule for $\lambda$ |
# | $\varphi$ | angle between $d$ and $g_1$: 0 for pass@1, $\psi$ for pass@k |
# | $\ell$ | length of a step, the same for all methods |

# %%
import importlib.util

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.ticker import MaxNLocator
from scipy.optimize import brentq
from scipy.stats import t as student

from passgrad.ascent.directions import AdamMetric, Euclidean, FisherMetric
from passgrad.ascent.frontier import frontier
from passgrad.ascent.mixing import AGGREGATORS, coefficients
from passgrad.ascent.pairs import CLOSED
from passgrad.worlds.bandit import GaussianBandit
from passgrad.worlds.tabular import TabularSoftmax
from passgrad_book.build import figures
from passgrad_book.experiments.conflict_free.arc import arc, first_order, gram_of
from passgrad_book.experiments.conflict_free.stored import frontier_language, metrics_language
from passgrad_book.experiments.small_models.small_language import small_language_world

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the language model
seeds: list = [0, 1, 2, 3, 4]  # choices of the sums over which the bands are taken
num_prompts: int = 8  # prompts of each base
num_examples: int = 8  # worked examples before each question
hard_fraction: float = 0.3  # share of base 9 in the prompt law
warmup_steps: int = 10  # at most so many steps up pass@1 before the start
warmup_step_size: float = 0.0015  # their size
warmup_cosine: float = -0.1  # the start is where the cosine is first below it
# fmt: off
methods: list = ["pass@1", "mixture 0.5", "pass@k", "annealed", "pcgrad", "mgda", "cagrad", "constrained"]  # what is compared
# fmt: on
k: int = 10  # the order beside 1
steps: int = 4  # steps of each method
length: float = 0.004  # length of each step, over all weights
own_step_size: float = 0.0004  # step size where the methods keep their own lengths
own_seeds: list = [0]  # choices of the sums for which they do
separation: float = 0.2  # between easy and hard features, in the bandit with conflict
wide_separation: float = 3.0  # the same in the bandit without
theta: list = [-2.0, -2.0]  # where the bandits start
bandit_shares: list = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0]  # fixed mixtures in the bandit
bandit_steps: int = 50  # steps in the bandit
bandit_length: float = 0.02  # their length
bandit_nodes: int = 65  # quadrature nodes of each kind of prompt
dampings: list = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0]  # of the natural gradient, relative
metric_seeds: list = [0]  # choices of the sums for which metrics are compared in the model
metric_methods: list = ["pass@k", "pcgrad", "mgda", "constrained"]  # by which steps
metric_gain: float = 0.01  # so long that pass@k gains this much, to first order
metric_dampings: list = [0.01, 0.1, 1.0]  # of the natural gradient in the model, relative
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## One arc for all methods
#
# Every method in use takes a combination $d = \lambda_1 g_1 + \lambda_k g_k$, which is a re-weighting of the prompts by $\lambda_1 + \lambda_k w_k(p)$ ({prf:ref}`prop-gram-combination`).
# To first order it changes $(J_1, J_k)$ by $G \lambda$, with the $2 \times 2$ Gram matrix $G$ of the two gradients.
# The known methods are rules that read $\lambda$ off $G$.
#
# - PCGrad {cite}`yu2020pcgrad` takes out of each gradient its part against the other and adds the two. UPGrad {cite}`quinton2024upgrad` is half of that for two objectives ({prf:ref}`cor-pcgrad-upgrad`): with steps of one length the two are one method, and share a row and a mark below.
# - MGDA {cite}`desideri2012mgda` takes the shortest mean of the two; both objectives then gain alike.
# - CAGrad {cite}`liu2021cagrad` seeks the best worst change in a ball around the mean, Nash-MTL {cite}`navon2022nash` the bisector, and DualProj {cite}`lopezpaz2017gem` projects the mean.
# - The constrained step ascends pass@k and holds pass@1: it is the projection of $g_k$ on the directions that do not lower $J_1$ ({prf:ref}`prop-constrained`).
#
# Which of these is best? The question has no answer as long as their steps have different lengths: a longer step along the same direction gains more.
# With one length $\ell$ for all, a step is $\ell\, d / \|d\|$, and the changes are
#
# $$
# \ell \, \bigl( \|g_1\| \cos \varphi, \ \|g_k\| \cos(\psi - \varphi) \bigr), \qquad 0 \le \varphi \le \psi,
# $$
#
# whatever the method is ({prf:ref}`prop-equal-length`). This is an arc of an ellipse. No step of that length, of any method at all, gains more on both.
# A method is a choice of $\varphi$.

# %%
conflicting = GaussianBandit(separation, num_nodes=bandit_nodes)
separate = GaussianBandit(wide_separation, num_nodes=bandit_nodes)
bandits = {"conflict": conflicting, "no conflict": separate}
one_step = {"k": k, "steps": 1, "length": bandit_length}
grams = {}
for name, world in bandits.items():
    start = frontier(world, theta, ["pass@1"], **one_step)["path"].iloc[0]
    grams[name] = gram_of(start["norm_1"], start["norm_k"], start["cosine"])
titles = {"pcgrad": "pcgrad, upgrad"}  # one direction, so one path where steps have one length
standing = ["pass@1", "pass@k", "mixture 0.5", "pcgrad", "mgda", "cagrad", "constrained"]
places = {name: first_order(gram, standing) for name, gram in grams.items()}
places["conflict"].replace({"method": titles}).round(4)

# %% [markdown]
# The columns: the share of $\lambda_k$ in the sum of the two, $\varphi$ in radians, the length of the step with the method's own coefficients, and the changes of $J_1$ and $J_k$ per unit of length.
#
# The bandit of {ref}`sec-toy`, with easy and hard prompts of similar features (conflict) and of features far apart (none):


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Changes of pass@1 and pass@k to first order per unit of length, in two bandits. The arc holds all combinations of the two gradients; every method is a point of it. Left: with conflict the ends lie beyond the axes, and the constrained step is where the arc meets the vertical one. Right: without, every point of the arc raises both (neither axis starts at 0), PCGrad is the plain sum, and the constrained step is that of pass@k.", "name": "fig-updates-arc"}, "image": {"alt": "The arc of first-order changes of pass@1 and pass@k with the methods as points, in a bandit with and one without conflict."}}
def draw(axes):
    for ax, (name, gram) in zip(axes, grams.items(), strict=True):
        table = arc(gram)
        figures.curve(ax, table["change_1"], table["change_k"], of="neutral", exact=True, label="")
        for row in places[name].itertuples():
            of = {"pass@k": f"pass@{k}", "mixture 0.5": "mixture"}.get(row.method, row.method)
            spot = ([row.change_1], [row.change_k])
            figures.points(
                ax, *spot, of=of, exact=True, label=titles.get(row.method, row.method), markersize=8
            )
        if table["change_1"].min() < 0:
            figures.zero(ax)
            ax.axvline(0.0, color=figures.COLOURS["neutral"], linewidth=1.0, zorder=0)
        ax.set(xlabel="change of pass@1", ylabel=f"change of pass@{k}")
        figures.panel(ax, name)
    figures.legend(axes[1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


held = places["conflict"].set_index("method")
alt = f"With conflict pass@{k} changes pass@1 by {held['change_1']['pass@k']:+.3f} and itself by {held['change_k']['pass@k']:+.3f} per unit of length, the constrained step by {abs(held['change_1']['constrained']):.3f} and {held['change_k']['constrained']:+.3f}."
figures.show(
    draw, alt=alt, data=pd.concat(places, names=["bandit"]).reset_index(0), ncols=2, size=(10, 3.8)
)

# %% [markdown]
# ### The price of not falling
#
# Under conflict the constrained step raises $J_k$ by $\sin \psi = \sqrt{1 - c^2}$ times what the step of pass@k of the same length does ({prf:ref}`cor-price-of-no-fall`).
# A mild conflict costs little of the gain in pass@k; opposite gradients cost all of it.

# %%
cosine = float(grams["conflict"][0, 1] / grams["conflict"].diagonal().prod().sqrt())
ratio = held["change_k"]["constrained"] / held["change_k"]["pass@k"]
assert np.isclose(ratio, np.sqrt(1 - min(cosine, 0) ** 2))
pd.Series({c: np.sqrt(1 - c**2) for c in (-0.1, -0.25, -0.5, -0.75, -0.9, -0.99)}).round(3)

# %% [markdown]
# ## The same start in a language model
#
# The world is that of {ref}`sec-language-exact`: sums in base 10 and in base 9, exact success rates, gradients over all weights of the model.
# For each choice of sums we go up pass@1 until the cosine of the gradients is clearly negative, for the first time, and start all methods there.
# This start is chosen for the conflict that it has; how often conflicts are met is another question ({ref}`sec-measure-your-model`).

# %%
parameters = {
    "model": model, "num_prompts": num_prompts, "num_examples": num_examples,
    "hard_fraction": hard_fraction, "warmup_steps": warmup_steps,
    "warmup_step_size": warmup_step_size, "warmup_cosine": warmup_cosine,
    "methods": methods, "k": k, "steps": steps, "length": length,
}  # fmt: skip


studies = {
    seed: frontier_language.result(seed=seed, **parameters, recompute=recompute) for seed in seeds
}
studies[seeds[0]]

# %%
warmups = pd.concat({seed: one["warmup"] for seed, one in studies.items()}, names=["seed"])
starts = warmups.groupby("seed").tail(1).droplevel(1)
starts.rename(columns={"step": "warm-up steps", "pass_at_1": "J_1", "pass_at_k": f"J_{k}"}).round(3)

# %% [markdown]
# ## The frontier
#
# From each start every method takes the same number of steps of the same length.

# %%
paths = pd.concat({seed: one["path"] for seed, one in studies.items()}, names=["seed"])
paths = paths.reset_index("seed").reset_index(drop=True)
for one in ("1", "k"):
    before = paths.groupby(["seed", "method"])[f"pass_at_{one}"].transform("first")
    paths[f"gain_{one}"] = 100 * (paths[f"pass_at_{one}"] - before)
ends = paths[paths["step"] == steps].set_index(["method", "seed"])[["gain_1", "gain_k"]]
beside = ends - ends.loc["pass@k"].reindex(ends.index, level="seed")
columns = {"J_1": ends["gain_1"], f"J_{k}": ends["gain_k"]}
columns |= {"J_1 more than pass@k": beside["gain_1"], f"J_{k} more than pass@k": beside["gain_k"]}
quantile = student.ppf(0.975, len(seeds) - 1) if len(seeds) > 1 else np.nan
pd.DataFrame(
    {
        name: values.groupby("method").agg(
            lambda part: f"{part.mean():+.1f} ± {quantile * part.sem():.1f}"
        )
        for name, values in columns.items()
    }
).loc[methods].rename(titles)

# %% [markdown]
# Changes in points, mean over the choices of sums, with 95 % t-intervals over these choices; the last two columns are differences from the ascent of pass@k from the same start.
# UPGrad takes the path of PCGrad here, as its steps have the same direction.

# %% tags=["hide-input"]
mean = ends.groupby("method").mean()
falls = (ends["gain_1"] < -1).groupby("method").sum()


def told(name):
    return (
        f"{mean['gain_1'][name]:+.1f} points of pass@1 and {mean['gain_k'][name]:+.1f} of pass@{k}"
    )


Markdown(
    f"On average ascent on pass@{k} ends at {told('pass@k')}, the constrained steps at {told('constrained')}, and PCGrad, which is UPGrad here, at {told('pcgrad')}. "
    f"Of the gain in pass@{k} the constrained steps keep {mean['gain_k']['constrained'] / mean['gain_k']['pass@k']:.0%} and PCGrad {mean['gain_k']['pcgrad'] / mean['gain_k']['pass@k']:.0%}. "
    f"Pass@1 ends more than one point lower for {falls['pass@k']} of {len(seeds)} choices of sums along pass@{k}, and for {falls['constrained']} along the constrained steps."
)

# %% [markdown]
# The conflict is milder than it might be: along pass@10 the gain in pass@10 is a multiple of the loss in pass@1, and for one choice of sums the conflict ends after the first steps and pass@1 rises after all.
# We did not search for starts where it is deeper.

# %%
middle, low, high = (
    paths.groupby(["method", "step"])[["gain_1", "gain_k"]].agg(f) for f in ("mean", "min", "max")
)
shown = [name for name in ("pass@1", "pass@k", "pcgrad", "constrained") if name in methods]
colours = {name: name for name in methods} | {"pass@k": f"pass@{k}", "mixture 0.5": "mixture"}


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact changes of pass@1 and pass@10 in SmolLM2-135M along steps of one length, all from the same weights. Lines: mean path over the choices of sums. Crosses at the ends: lowest to highest of the choices.", "name": "fig-updates-frontier"}, "image": {"alt": "Paths of the methods in the plane of the changes of pass@1 and pass@k."}}
def draw(ax):
    ring = {"cagrad": {"markersize": 12, "fillstyle": "none"}}
    figures.zero(ax)
    ax.axvline(0.0, color=figures.COLOURS["neutral"], linewidth=1.0, zorder=0)
    for name in methods:
        way, least, most = middle.loc[name], low.loc[(name, steps)], high.loc[(name, steps)]
        figures.curve(ax, way["gain_1"], way["gain_k"], of=colours[name], exact=True, label="")
        end = way.loc[steps]
        across = [[end["gain_1"] - least["gain_1"]], [most["gain_1"] - end["gain_1"]]]
        figures.points(
            ax, [end["gain_1"]], [end["gain_k"]], of=colours[name], low=[least["gain_k"]],
            high=[most["gain_k"]], label=titles.get(name, name), xerr=across, **ring.get(name, {"markersize": 7}),
        )  # fmt: skip
    ax.set(xlabel="change of pass@1, points", ylabel=f"change of pass@{k}, points")
    figures.legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))


alt = f"After {steps} steps, in points of pass@1 and pass@{k}: " + "; ".join(
    f"{name} {middle.loc[(name, steps), 'gain_1']:+.1f} and {middle.loc[(name, steps), 'gain_k']:+.1f}"
    for name in methods
)
figures.show(draw, alt=alt, data=paths, size=(7.5, 4.6))


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same steps one by one. Bands: lowest to highest over the choices of sums. On average ascent on pass@10 lowers pass@1 and PCGrad raises both; the constrained steps leave pass@1 about where it was, but for the choice of sums whose conflict ends on the way.", "name": "fig-updates-steps"}, "image": {"alt": "Changes of pass@1 and pass@k against steps for four of the methods, with bands over choices of sums."}}
def draw(axes):
    for ax, one in zip(axes, ("1", "k"), strict=True):
        figures.zero(ax)
        for name in shown:
            of, column = colours[name], f"gain_{one}"
            values = (middle.loc[name, column], low.loc[name, column], high.loc[name, column])
            mean, least, most = values
            figures.curve(ax, mean.index, mean, of=of, low=least, high=most, label=name)
        ax.set(xlabel="step", ylabel=f"change of pass@{1 if one == '1' else k}, points")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.legend(axes[0], loc="upper left", fontsize="small")


alt = f"Over {len(seeds)} choices of sums the change of pass@1 after {steps} steps lies between {low.loc[('pass@k', steps), 'gain_1']:.1f} and {high.loc[('pass@k', steps), 'gain_1']:.1f} points along pass@{k}, and between {low.loc[('constrained', steps), 'gain_1']:.1f} and {high.loc[('constrained', steps), 'gain_1']:.1f} along the constrained steps."
figures.show(draw, alt=alt, data=paths, ncols=2, size=(9, 3.6))

# %% [markdown]
# ## What was promised and what came
#
# The promises are to first order. The next figure holds each step's predicted change, $\ell \, G \lambda / \|d\|$, against the exact one.

# %%
taken = paths[paths["step"] < steps]
fits = {}
for one in ("1", "k"):
    promised, came = 100 * taken[f"predicted_{one}"], 100 * taken[f"realised_{one}"]
    fits[one] = {
        "R^2": 1 - ((came - promised) ** 2).sum() / ((came - came.mean()) ** 2).sum(),
        "mean excess, points": (came - promised).mean(),
        "same sign": (np.sign(promised) == np.sign(came))[promised.abs() > 0.01].mean(),
    }
pd.DataFrame(fits).rename(columns={"1": "J_1", "k": f"J_{k}"}).round(3)

# %% tags=["hide-input"]
missed = (taken["realised_k"] - taken["predicted_k"]) ** 2
by_seed = (missed.groupby(taken["seed"]).sum() / missed.sum()).sort_values()
Markdown(
    f"Of the squared error of the predictions for pass@{k}, {by_seed.iloc[-1]:.0%} is that of one choice of sums, seed {by_seed.index[-1]}: "
    "its gradients turn within a step, and there a step is too long for first order."
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change by one step, predicted to first order and exact, for all methods, steps and choices of sums. On the line the prediction is right.", "name": "fig-updates-predicted"}, "image": {"alt": "Realised against predicted changes of pass@1 and pass@k by single steps."}}
def draw(axes):
    for ax, one in zip(axes, ("1", "k"), strict=True):
        promised = 100 * taken[f"predicted_{one}"]
        ends_of_line = [promised.min(), promised.max()]
        figures.curve(ax, ends_of_line, ends_of_line, of="neutral", exact=True, label="")
        for name in methods:
            rows = taken[taken["method"] == name]
            figures.points(
                ax, 100 * rows[f"predicted_{one}"], 100 * rows[f"realised_{one}"],
                of=colours[name], exact=True, label=titles.get(name, name), alpha=0.8,
            )  # fmt: skip
        ax.set(xlabel="predicted, points", ylabel="exact, points")
        figures.panel(ax, f"pass@{1 if one == '1' else k}")
    figures.legend(axes[1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


alt = f"Predicted and exact changes by single steps: R^2 is {fits['1']['R^2']:.2f} for pass@1 and {fits['k']['R^2']:.2f} for pass@{k}."
figures.show(draw, alt=alt, data=taken, ncols=2, size=(9.5, 3.8))

# %% [markdown]
# ## The conflict on the way
#
# Does a method leave the conflict behind? We follow the cosine of the two gradients along each path.

# %%
along = taken.groupby(["method", "step"])["cosine"].agg(["mean", "min", "max"])
last = along.xs(steps - 1, level="step")
pd.DataFrame(
    {"at the start": along.xs(0, level="step")["mean"], "before the last step": last["mean"]}
).loc[methods].rename(titles).round(3)

# %% tags=["hide-input"]
still = taken[taken["step"] == steps - 1].groupby("method")["cosine"].agg(lambda c: (c < 0).sum())
Markdown(
    f"Before the last step the gradients still oppose each other, of {len(seeds)} choices of sums, for "
    + ", ".join(f"{still[name]} along {name}" for name in methods)
    + ". Surgery takes its step within the conflict, and does not end it."
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of pass@1 and pass@10 along the paths, mean over the choices of sums; bands from lowest to highest. Below zero a step up one lowers the other.", "name": "fig-updates-cosine"}, "image": {"alt": "Cosine of the gradients against steps along the paths of four methods."}}
def draw(axes):
    for ax, name in zip(axes, shown, strict=True):
        figures.zero(ax)
        one = along.loc[name]
        band = {"low": one["min"], "high": one["max"]}
        figures.curve(ax, one.index, one["mean"], of=colours[name], **band)
        ax.set(xlabel="step", ylim=(along["min"].min() - 0.05, along["max"].max() + 0.05))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figures.panel(ax, name)
    axes[0].set_ylabel("cos(∇J₁, ∇J_k)")


alt = "Mean cosine at the start and before the last step: " + "; ".join(
    f"{name} {along.loc[(name, 0), 'mean']:.2f}, {last.loc[name, 'mean']:.2f}" for name in methods
)
figures.show(draw, alt=alt, data=along.reset_index(), ncols=len(shown), size=(9.5, 3.0))

# %% [markdown]
# ## Their own lengths
#
# Left to its own coefficients, each method takes a step of another length.
# With one step size for all, the ranking is that of the lengths as much as that of the directions.
# For the first choice of sums we read all of it off the Gram matrix at the start: where a method stands on the arc, how long its step is beside that of pass@k, and what it changes per unit of the step size.

# %%
first = studies[seeds[0]]["path"].iloc[0]
gram = gram_of(first["norm_1"], first["norm_k"], first["cosine"])
table = first_order(gram, ["pass@1", "mixture 0.5", "pass@k", *AGGREGATORS]).set_index("method")
closed = [*CLOSED, "upgrad", "constrained", "pass@1", "mixture 0.5", "pass@k"]
own = pd.DataFrame(
    {
        "angle, degrees": np.rad2deg(table["angle"]).round(1),
        "length / pass@k's": (table["own_length"] / first["norm_k"]).round(2),
        "J_1 per length": table["change_1"].round(2),
        f"J_{k} per length": table["change_k"].round(2),
        "J_1 per step size": (table["change_1"] * table["own_length"]).round(1),
        f"J_{k} per step size": (table["change_k"] * table["own_length"]).round(1),
        "computed by": ["closed form" if name in closed else "torchjd" for name in table.index],
    }
)
own

# %% tags=["hide-input"]
solvers = {"upgrad": "quadprog", "dualproj": "quadprog", "cagrad": "clarabel", "nashmtl": "ecos"}
missing = [name for name, package in solvers.items() if not importlib.util.find_spec(package)]
Markdown(
    f"PCGrad's own step is {table['own_length']['pcgrad'] / first['norm_k']:.2f} times as long as that of pass@{k}, and UPGrad's half of it. "
    "All aggregators of the table ran. "
    f"{', '.join(sorted(CLOSED))} and upgrad have closed forms for two objectives, which need no solver; for more objectives torchjd's solvers are used, and "
    + ("all of them are installed here." if not missing else f"those of {', '.join(missing)} are not installed here.")
)  # fmt: skip

# %% [markdown]
# ### What one step size hides
#
# With one step size surgery can look as if it cost nothing. To first order PCGrad's own step raises $J_k$ by $1 - c^2$ times what the step of pass@k does, and $J_1$ by $1 - c^2$ times what a step of pass@1 does ({prf:ref}`prop-no-fall`).
# Under a mild conflict it so keeps nearly all of the one and has nearly all of the other. It does that with a longer step; over one length it keeps less:

# %%
rows = {}
for seed, one in paths[paths["step"] == 0].groupby("seed").first().iterrows():
    here = gram_of(one["norm_1"], one["norm_k"], one["cosine"])
    both = first_order(here, ["pass@k", "pcgrad"]).set_index("method")
    longer, kept = (both[of]["pcgrad"] / both[of]["pass@k"] for of in ("own_length", "change_k"))
    rows[seed] = {
        "cosine": one["cosine"],
        "length of PCGrad's step / pass@k's": longer,
        f"J_{k} kept, one length": kept,
        f"J_{k} kept, one step size": kept * longer,
    }
    assert one["cosine"] >= 0 or np.isclose(kept * longer, 1 - one["cosine"] ** 2)
pd.DataFrame(rows).T.rename_axis("seed").round(3)

# %% [markdown]
# Exactly, from the same weights of the language model, with one step size for both:

# %%
of_own_length = parameters | {"methods": ["pass@k", "pcgrad"], "step_size": own_step_size}
del of_own_length["length"]
own_paths = {
    seed: frontier_language.result(seed=seed, **of_own_length, recompute=recompute)["path"]
    for seed in own_seeds
}

# %%
rows = {}
values = ["pass_at_1", "pass_at_k"]
for seed, path in own_paths.items():
    for view, table in (("one length", paths[paths["seed"] == seed]), ("one step size", path)):
        by_method = table[table["method"].isin(["pass@k", "pcgrad"])].groupby("method")
        moved = 100 * (by_method[values].last() - by_method[values].first())
        rows[seed, view] = moved.assign(way=by_method["length"].sum())
own_ends = pd.concat(rows, names=["seed", "steps of"])
if steps == 4:  # what the Result says
    free = own_ends.loc[(own_seeds[0], "one step size")]
    assert free["pass_at_k"]["pcgrad"] > free["pass_at_k"]["pass@k"]
    assert free["pass_at_1"]["pcgrad"] > 0 > free["pass_at_1"]["pass@k"]
    assert free["way"]["pcgrad"] > free["way"]["pass@k"]
own_ends.rename(columns={"pass_at_1": "J_1", "pass_at_k": f"J_{k}"}).round(3)

# %% tags=["hide-input"]
seed = own_seeds[0]
text = []
for view in ("one step size", "one length"):
    one = own_ends.loc[(seed, view)]
    text.append(
        f"With {view} PCGrad changes pass@{k} by {one['pass_at_k']['pcgrad']:+.1f} points where pass@{k} changes it by {one['pass_at_k']['pass@k']:+.1f}, "
        f"and pass@1 by {one['pass_at_1']['pcgrad']:+.1f} where that changes it by {one['pass_at_1']['pass@k']:+.1f}, over a way {one['way']['pcgrad'] / one['way']['pass@k']:.2f} times as long."
    )
Markdown(" ".join(text))

# %% [markdown]
# The same in exact steps, in the bandit with conflict: on the left all steps have one length, on the right one step size, for which the first step of pass@k has that length.

# %%
compared = ["pass@k", "mixture 0.5", "pcgrad", "upgrad", "mgda", "constrained"]
size = bandit_length / float(grams["conflict"][1, 1].sqrt())
views = {"one length": {"length": bandit_length}, "one step size": {"step_size": size}}
ends_of = {}
for name, view in views.items():
    path = frontier(conflicting, theta, compared, k=k, steps=bandit_steps, **view)["path"]
    by_method = path.groupby("method", sort=False)
    moved = 100 * (by_method.last() - by_method.first())[["pass_at_1", "pass_at_k"]]
    ends_of[name] = moved.assign(way=by_method["length"].sum())
pd.concat(ends_of, axis=1).round(2)

# %% tags=["hide-input"]
far, near = (ends_of["one step size"].loc[name] for name in ("pcgrad", "pass@k"))
fair = ends_of["one length"]
Markdown(
    f"With one step size PCGrad goes {far['way'] / near['way']:.2f} times as far as pass@{k} and gains {far['pass_at_k']:.2f} points of pass@{k} where pass@{k} gains {near['pass_at_k']:.2f}. "
    f"Over the same way it gains {fair['pass_at_k']['pcgrad']:.2f} and pass@{k} {fair['pass_at_k']['pass@k']:.2f}. "
    "What it is better at is pass@1."
)

# %% [markdown]
# ## Is it more than a fixed mixture?
#
# At one step, no: the mixture with the same ratio of coefficients makes the same step.
# Over many steps the ratio of a method follows the gradients, while that of a mixture is fixed. Whether that gains anything is seen where steps are cheap: in the bandit, with many mixtures.

# %%
mixtures = [f"mixture {share:g}" for share in bandit_shares]
adaptive = ["annealed", "pcgrad", "mgda", "cagrad", "constrained"]
long_path = {"k": k, "steps": bandit_steps, "length": bandit_length}
tables = {
    name: frontier(world, theta, [*mixtures, *adaptive], **long_path)["path"]
    for name, world in bandits.items()
}
gains = {}
for name, path in tables.items():
    by_method = path.groupby("method", sort=False)[["pass_at_1", "pass_at_k"]]
    gains[name] = 100 * (by_method.last() - by_method.first())
gains["conflict"].round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Where fixed mixtures and the adaptive methods end after many steps of one length. Line: the fixed mixtures, from pass@1 to pass@10. With conflict, surgery ends on this line or just beyond it, without a search for the share; annealing ends short of it. Without conflict PCGrad is the even mixture and the constrained steps are those of pass@10; MGDA and CAGrad still balance, and end short of the line.", "name": "fig-updates-mixtures"}, "image": {"alt": "Ends of paths in two bandits: fixed mixtures as a line, annealing and surgery as points."}}
def draw(axes):
    for ax, (name, table) in zip(axes, gains.items(), strict=True):
        line = table.loc[mixtures]
        look = {"marker": "s", "markersize": 4}
        figures.curve(ax, line["pass_at_1"], line["pass_at_k"], of="mixture", exact=True, **look)
        for one in adaptive:
            spot = ([table["pass_at_1"][one]], [table["pass_at_k"][one]])
            label = titles.get(one, one)
            figures.points(ax, *spot, of=one, exact=True, label=label, markersize=8)
        ax.set(xlabel="change of pass@1, points", ylabel=f"change of pass@{k}, points")
        figures.panel(ax, name)
    figures.legend(axes[0], loc="lower left", fontsize="small")


end = gains["conflict"]
alt = f"With conflict PCGrad ends at {end['pass_at_1']['pcgrad']:+.1f} and {end['pass_at_k']['pcgrad']:+.1f} points, the constrained steps at {end['pass_at_1']['constrained']:+.1f} and {end['pass_at_k']['constrained']:+.1f}; the mixtures run from {end['pass_at_1'][mixtures[0]]:+.1f}, {end['pass_at_k'][mixtures[0]]:+.1f} to {end['pass_at_1'][mixtures[-1]]:+.1f}, {end['pass_at_k'][mixtures[-1]]:+.1f}."
figures.show(
    draw, alt=alt, data=pd.concat(gains, names=["bandit"]).reset_index(), ncols=2, size=(9, 3.8)
)

# %% [markdown]
# How far beyond the mixtures is a method? We seek the share with which a fixed mixture ends at the method's $J_1$, and compare the $J_k$ of the two. (Between the squares of the figure the curve of the mixtures lies above the dashes.)


# %%
def moved_by(world, share):
    path = frontier(world, theta, [f"mixture {share!r}"], **long_path)["path"]
    values = path[["pass_at_1", "pass_at_k"]]
    return 100 * (values.iloc[-1] - values.iloc[0])


def beside_mixture(world, one, least=0.0):
    share = brentq(
        lambda s: moved_by(world, s)["pass_at_1"] - one["pass_at_1"], least, 1, xtol=1e-5
    )
    reached = moved_by(world, share)["pass_at_k"]
    return one.to_dict() | {"share": share, "beyond": one["pass_at_k"] - reached}


rows = {name: beside_mixture(conflicting, end.loc[name]) for name in adaptive}
beyond = pd.DataFrame(rows).T
beyond.round(3)

# %% tags=["hide-input"]
Markdown(
    f"With the right share a fixed mixture ends within {beyond['beyond'].drop('annealed').abs().max():.2f} points of every method of surgery. "
    "What surgery saves here is the search for the share."
)

# %% [markdown]
# ## When it is not needed
#
# If no entry of the kernel is negative, no $k$ has a conflict: PCGrad is the plain sum, and the constrained step is the gradient of pass@k ({prf:ref}`cor-no-surgery`).
# In the bandit with features far apart some prompts interfere, but the gradients never conflict on the way: surgery has nothing to do at any step.

# %%
control = tables["no conflict"].set_index(["method", "step"])
least = control["cosine"].groupby("method").min()
same = {}
for method, plain in (("pcgrad", "mixture 0.5"), ("constrained", "mixture 1")):
    one, other = (control.loc[m, ["pass_at_1", "pass_at_k"]] for m in (method, plain))
    same[f"{method} against {plain}"] = float((one - other).abs().to_numpy().max())
assert least.min() > 0
assert max(same.values()) < 1e-12
same

# %% [markdown]
# This is not so for MGDA and CAGrad. They balance the two changes whether there is a conflict or not, and here they end short of the mixtures:

# %%
balanced = gains["no conflict"].loc[["mgda", "cagrad"]]
# From the share with the most pass@1 on, J_1 falls as the share grows.
top = float(gains["no conflict"].loc[mixtures, "pass_at_1"].idxmax().removeprefix("mixture "))
rows = {name: beside_mixture(separate, one, least=top) for name, one in balanced.iterrows()}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# The same as for PCGrad and the constrained steps is seen in a softmax policy with parameters of its own for each prompt, where every $k$ and every $\theta$ is without conflict.

# %%
table_world = TabularSoftmax(4, masses=[0.1, 0.2, 0.3, 0.4])
point = torch.linspace(-1, 1, table_world.num_parameters, dtype=torch.float64)
names = ["pass@k", "constrained", "mixture 0.5", "pcgrad"]
alone = frontier(table_world, point, names, k=k, steps=10, length=0.1)["path"]
alone = alone.set_index(["method", "step"])[["pass_at_1", "pass_at_k"]]
assert np.allclose(alone.loc["pass@k"], alone.loc["constrained"], rtol=0, atol=1e-12)
assert np.allclose(alone.loc["mixture 0.5"], alone.loc["pcgrad"], rtol=0, atol=1e-12)
(100 * (alone.xs(10, level="step") - alone.xs(0, level="step"))).round(2)

# %% [markdown]
# ## The metric decides too
#
# An optimiser with a metric $M$ steps along $M^{-1} g$, and two objectives conflict for it if $\langle g_1, M^{-1} g_k \rangle < 0$.
# Adam has a diagonal $M$; the natural gradient has the Fisher information of the outcomes, plus a damping.
# Undamped, it knows no conflict as long as the gradients of the prompts are independent ({prf:ref}`prop-natural-no-conflict`); with a large damping it is the plain gradient.
# We take a small language model, trained within seconds, in which the plain gradients conflict.
#
# Lengths in different metrics cannot be compared. What can be is the cosine, and the price $\langle g_1, M^{-1} g_k \rangle / \langle g_k, M^{-1} g_k \rangle$: the points of pass@1 that change for each point of pass@k gained along its own step.

# %%
small = small_language_world()
metrics = {"plain": Euclidean, "Adam": AdamMetric}
metrics |= {f"natural, {d:g}": lambda d=d: FisherMetric(d, relative=True) for d in dampings}
rows = {}
for name, make in metrics.items():
    tiny_step = {"k": k, "steps": 1, "length": 1e-6, "make_metric": make}
    here = frontier(small, None, ["pass@k"], **tiny_step)["path"].iloc[0]
    rows[name] = {
        "cosine": here["cosine"],
        f"J_1 per point of J_{k}": here["predicted_1"] / here["predicted_k"],
        f"gain of J_{k} kept by constrained": np.sqrt(1 - min(here["cosine"], 0) ** 2),
    }
in_metric = pd.DataFrame(rows).T
in_metric.round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of pass@1 and pass@10 of a small language model, in the metric of the natural gradient, against its damping in units of tr F / N, with N prompts. Horizontal lines: plain gradients and Adam's metric at its first step.", "name": "fig-updates-metric"}, "image": {"alt": "Cosine against the damping of the natural gradient, with lines for plain gradients and for Adam."}}
def draw(ax):
    figures.zero(ax)
    natural = in_metric["cosine"].iloc[2:]
    figures.curve(ax, dampings, natural, of="exact", exact=True, label="natural", marker="o")
    for name, of in (("plain", "neutral"), ("Adam", "sampled")):
        level = [in_metric["cosine"][name]] * 2
        ends_of_line = [min(dampings), max(dampings)]
        figures.curve(ax, ends_of_line, level, of=of, exact=True, label=name)
    ax.set(xlabel="damping", ylabel="cosine in the metric", xscale="log")
    figures.legend(ax)


alt = f"The cosine is {in_metric['cosine']['plain']:.2f} for plain gradients, {in_metric['cosine']['Adam']:.2f} in Adam's metric, and goes from {in_metric['cosine'].iloc[2]:.2f} to {in_metric['cosine'].iloc[-1]:.2f} in the natural metric as the damping grows."
figures.show(draw, alt=alt, data=in_metric.reset_index(names="metric"))

# %% tags=["hide-input"]
by_metric = in_metric["cosine"]
undamped = by_metric.iloc[2]
Markdown(
    f"The conflict is {by_metric['plain']:.2f} for plain gradients and {by_metric['Adam']:.2f} for Adam at its first step. "
    f"In the natural metric the cosine is {undamped:+.2f} at the smallest damping: "
    + ("the conflict is gone. " if undamped > 0 else "a conflict is left. ")
    + "A conflict measured with plain gradients says nothing certain about what an Adam step does; measure it in the metric of the optimiser."
)

# %% [markdown]
# ### In the language model
#
# The same over all weights of the language model, at the start of the paths above. A step is so long that $J_k$ gains `metric_gain` to first order; then the changes of $J_1$ can be compared between metrics.

# %%
of_metrics = {name: value for name, value in parameters.items() if name not in ("steps", "length")}
of_metrics |= {"methods": metric_methods, "gain": metric_gain, "dampings": metric_dampings}
in_model = pd.concat(
    metrics_language.result(seed=seed, **of_metrics, recompute=recompute)["prices"].assign(
        seed=seed
    )
    for seed in metric_seeds
)
in_points = in_model.set_index(["seed", "metric", "method"])
changes = ["predicted_1", "realised_1", "predicted_k", "realised_k"]
if len(in_model) > 16:  # what the Result says
    at = in_model[in_model["method"] == "pass@k"].set_index("metric")["cosine"]
    assert at["plain"] < 2 * at["Adam"] < 0 < at.drop(["plain", "Adam"]).min()
in_points.assign(**100 * in_points[changes]).round(2)

# %% tags=["hide-input"]
here = in_points.loc[metric_seeds[0]].xs("pass@k", level="method")
Markdown(
    f"For one point of pass@{k} along its own step, pass@1 is to change by "
    + ", ".join(
        f"{row['predicted_1'] / row['predicted_k']:+.2f} points in the metric *{name}* (cosine {row['cosine']:+.2f})"
        for name, row in here.iterrows()
    )
    + "."
)

# %% [markdown]
# ## What to do with it
#
# 1. Measure first. If the cosine of the gradients is not negative, ascend what you want; PCGrad returns the sum and the constrained step pass@k itself, while MGDA and CAGrad trade all the same.
# 2. If it is negative and pass@1 must not fall, take the constrained step. What it costs is known beforehand: over one length it keeps $\sqrt{1 - c^2}$ of the gain in pass@k.
# 3. If both are to rise, any point of the arc between the constrained step and its mirror image does. MGDA takes the one where both rise alike, PCGrad one between it and the sum; a mixture needs the right share, which depends on the norms of the gradients.
# 4. Compare methods at equal length. With one step size you compare learning rates: PCGrad keeps nearly all of the gain in pass@k then, by going farther.
# 5. Annealing $k$ first pays for pass@k and then for pass@1. It looks at no gradient, and is as good as the schedule happens to be.
#
# In a trainer the Gram matrix is an estimate, and the coefficients with it: `passgrad.trl.ConflictFree` estimates it without bias and holds a margin ({ref}`sec-training`). Here everything is exact.
#
# ## Scope
#
# - One model, two conventions, few steps, starts chosen for their conflict. The intervals are over the choice of sums and nothing else.
# - "Does not lower pass@1" holds to first order. What is left is of the order $\ell^2$ at each step and adds up over long paths; the tables show it.
# - Exact gradients: with sampled ones the place on the arc has an error of its own.
# - In the language model one fixed mixture was run; the comparison with many is from the bandit.
# - Steps of the methods' own lengths were taken there for one choice of sums.
# - The metrics are compared at single steps from one point of each model, Adam at its first step, where its second moment is the mean square of the two gradients there.
#
# ## Exercises
#
# ```{exercise} The mixture that PCGrad takes
# :label: ex-updates-share
#
# Find the share $s$ for which the first step of the fixed mixture $(1 - s) J_1 + s J_k$ is that of PCGrad, at equal length, in the bandit with conflict.
# ```

# %% [markdown]
# ````{solution-start} ex-updates-share
# :class: dropdown
# ````
# The ratio of the coefficients decides: $s = \lambda_k / (\lambda_1 + \lambda_k)$ with $\lambda$ from the Gram matrix.

# %%
lambdas = coefficients(grams["conflict"], "pcgrad", normalise=False)
share = float(lambdas[1] / lambdas.sum())
both = frontier(conflicting, theta, [f"mixture {share!r}", "pcgrad"], **one_step)["path"]
reached = both[both["step"] == 1].set_index("method")[["pass_at_1", "pass_at_k"]]
assert np.allclose(reached.iloc[0], reached.iloc[1], rtol=0, atol=1e-12)
round(share, 3)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} How far PCGrad goes
# :label: ex-updates-length
#
# Let both gradients have length one and cosine $c < 0$. How long is PCGrad's own step? What does that mean for a comparison with pass@k at one step size, as $c \to -1$?
# ```

# %% [markdown]
# ````{solution-start} ex-updates-length
# :class: dropdown
# ````
# $\lambda_1 = \lambda_k = 1 - c$, and $\|g_1 + g_k\|^2 = 2 (1 + c)$, so the length is $(1 - c) \sqrt{2 (1 + c)}$.
# It is $\sqrt 2$ without conflict, rises to its largest value $8 / (3 \sqrt 3) \approx 1.54$ at $c = -1/3$, and goes to zero as $c \to -1$.
# For a mild conflict PCGrad gains from its longer step, for a strong one it hardly moves.

# %%
for c in (0.0, -1 / 3, -0.9, -0.999):
    measured = first_order(gram_of(1.0, 1.0, c), ["pcgrad"])["own_length"].item()
    assert np.isclose(measured, (1 - c) * np.sqrt(2 * (1 + c)))
assert np.isclose((4 / 3) * np.sqrt(4 / 3), 8 / (3 * np.sqrt(3)))

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} MGDA and CAGrad
# :label: ex-updates-cagrad
#
# At the first start in the language model MGDA and CAGrad take the same step. Why? Why not in the bandit?
# ```

# %% [markdown]
# ````{solution-start} ex-updates-cagrad
# :class: dropdown
# ````
# CAGrad maximises the smaller of the two changes in a ball around the mean. If the ball is wide enough, both changes are equal at the best point, and so they are along MGDA's step: in the plane only one direction has equal changes ({prf:ref}`cor-cagrad-mgda`).
# In the bandit $\|g_k\|$ is so much larger than $\|g_1\|$ that the ball does not reach that direction.

# %%
for name, matrix in (("language model", gram), ("bandit", grams["conflict"])):
    two = first_order(matrix, ["mgda", "cagrad"]).set_index("method")
    print(name, two[["change_1", "change_k"]].round(3).to_dict("index"))

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw: one arc on which all two-objective methods lie at equal length; the frontier of the methods in a language model from a point of conflict; the constrained step, which keeps pass@1 to first order and gives up little of pass@k where the conflict is mild; methods that raise both; predictions to first order beside exact changes; lengths as a convention that hides behind step sizes; fixed mixtures that do the same once their share is right; worlds without conflict, where surgery does nothing; and a metric in which the conflict of another is gone.
