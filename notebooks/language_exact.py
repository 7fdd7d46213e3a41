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
# (sec-language-exact)=
# # A real language model, exactly
#
# **Result.** In a language model of 135 million weights, two conventions for the same sums interfere, and the gradients of pass@1 and pass@k come to oppose each other.
# From such a point a few small steps up pass@10 or pass@32 lower pass@1, by little; large steps lower it more.
# How strong this is depends on the choice of sums, and no single choice stands for the model.
# In {ref}`a second model <sec-second-model>`, as it comes and without any warm-up, three of five choices of sums have such a conflict at $k = 10$, and none of three choices of natural arithmetic; a step up pass@10 lowers pass@1 of sums that were held out on four of the five.
# Nothing is sampled here: each prompt has one accepted answer, so its success rate is a product of a few probabilities, and all gradients are over all weights.
#
# **What you need.** {ref}`The toy <sec-toy>`, and that a causal language model gives the probability of each next token.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $p(x) = \pi_\theta(\text{answer} \cdot \text{stop} \mid x)$ | success rate of the prompt $x$: exact |
# | $J_k = \mathbb{E}_x[1 - (1 - p(x))^k]$ | pass@k |
# | $\kappa(x, x') = \langle \nabla p(x), \nabla p(x') \rangle$ | kernel, over all weights |
# | $a(x) = \langle \nabla p(x), \nabla J_1 \rangle$ | agreement of a prompt with pass@1 |
# | $\cos(\nabla J_1, \nabla J_k)$ | negative where a step up pass@k lowers pass@1 |

# %%
import itertools

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.ticker import MaxNLocator

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.stats import success_interval
from passgrad.tasks.arithmetic import arithmetic
from passgrad.worlds.language import LanguageWorld
from passgrad_book.build import figures, results
from passgrad_book.experiments.checks.second import slopes
from passgrad_book.experiments.second_model import ASCENT_SEEDS, SEEDS
from passgrad_book.experiments.two_conventions import (
    compare_ascents,
    two_conventions,
    two_conventions_world,
)

# %% [markdown]
# `model` may be any causal language model of transformers: an embedded name, a local folder or a hub name.
# The values below were found by trying a few: the conflict needs one family that leads and another that is not yet lost.
# They were chosen on the first of the seeds below; the others show how much depends on the choice of sums.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the language model
seed: int = 0  # choice of the sums in the worked example of this page
seeds: list = [0, 1, 2, 3, 4]  # choices of the sums over which the bands are taken
num_prompts: int = 12  # prompts of each base
num_examples: int = 8  # worked examples before each question
hard_fraction: float = 0.3  # share of base 9 in the prompt law
warmup_steps: int = 6  # steps up pass@1 before anything is measured
warmup_step_size: float = 0.001  # their size
ks: list = [1, 2, 3, 5, 10, 20, 32, 100]  # orders at which the gradients are compared
ascent_ks: list = [1, 10, 32]  # objectives that are ascended
ascent_steps: int = 6  # small steps on each of them
ascent_step_size: float = 0.0002  # their size
large_factor: float = 10.0  # how much larger the large steps are
kernel_prompts: int = 8  # prompts of each base in the kernel
family_prompts: int = 6  # prompts of each natural family of arithmetic
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## Two conventions for the same sums
#
# The model sees worked sums under a heading that names the base, and then a question.
# In base 10 the answer is the familiar one; in base 9 the same digits ask for another.
# We only ask sums on which the two bases disagree. The digits run from 2 to 8, so the base 9 answer, written in digits, is always the base 10 answer plus one.
# All prompts of this part are both trained and measured, so it says nothing about new sums; {ref}`the second model <sec-second-model>` has sums that are held out.

# %%
world = two_conventions_world(
    model=model,
    num_prompts=num_prompts,
    num_examples=num_examples,
    hard_fraction=hard_fraction,
    seed=seed,
)
print(world.prompts[0].text + world.prompts[0].answer)
print("\n" + world.prompts[-1].text + world.prompts[-1].answer)

# %% [markdown]
# The success rate of a prompt is the probability that the model writes the answer and then the newline that the examples end with.
# Two things could make it wrong without notice, and `LanguageWorld` refuses both: an answer whose first digit merges with the last token of the question, and a newline that is another token in the examples than after the answer.
#
# Neither convention is easy for the pretrained model: the table shows both near one success in ten.
# We first take a few steps up pass@1, exactly. Base 10 then leads. It has the larger share of the prompts, so the gradient of pass@1 is mostly its own.

# %%
warmup = ascend(world, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps)
theta = warmup.theta
rates = {"pretrained": warmup.success[0], "after warm-up": warmup.success[-1]}
pd.DataFrame(
    {
        name: [
            float(world.masses @ p),
            *(float(p[half].mean()) for half in (slice(num_prompts), slice(num_prompts, None))),
        ]
        for name, p in rates.items()
    },
    index=["pass@1", "base 10", "base 9"],
).round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact success rate of every prompt, before and after the warm-up on pass@1. The base 10 prompts are learned first; the base 9 prompts spread out.", "name": "fig-language-success"}, "image": {"alt": "Success rates of base 10 and base 9 prompts before and after the warm-up."}}
def draw(axes):
    for ax, (name, p) in zip(axes, rates.items(), strict=True):
        for place, group in enumerate(("base 10", "base 9")):
            part = p[place * num_prompts : (place + 1) * num_prompts].sort().values
            figures.points(ax, range(1, num_prompts + 1), part, of=group, exact=True)
        ax.set(xlabel="prompt, in order of success", ylabel="success rate p(x)", ylim=(-0.03, 1.03))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figures.panel(ax, name)
    figures.legend(axes[0], loc="upper left")


first, last = (p[:num_prompts].mean() - p[num_prompts:].mean() for p in rates.values())
alt = f"Exact success rates: base 10 leads base 9 by {first:.2f} on average before and by {last:.2f} after the warm-up."
data = pd.DataFrame({"prompt": [x.id for x in world.prompts], "group": world.groups, **rates})
figures.show(draw, alt=alt, data=data, ncols=2, size=(7, 3))

# %% [markdown]
# ## The kernel: which prompts help which
#
# Every entry is an inner product of two gradients in all weights of the model.
# The gradients of all prompts do not fit in memory together, so the sum over the weights is taken in blocks.

# %%
some = [*range(kernel_prompts), *range(num_prompts, num_prompts + kernel_prompts)]
part = LanguageWorld(world.model, world.tokenizer, [world.prompts[i] for i in some])
kernel = part.kernel(theta)
norms = kernel.diagonal().sqrt()
cosines = kernel / torch.outer(norms, norms)
blocks = {
    (a, b): cosines[
        i * kernel_prompts : (i + 1) * kernel_prompts, j * kernel_prompts : (j + 1) * kernel_prompts
    ]
    for i, a in enumerate(("base 10", "base 9"))
    for j, b in enumerate(("base 10", "base 9"))
}
off = ~torch.eye(kernel_prompts, dtype=torch.bool)
within = {base: float(blocks[base, base][off].mean()) for base in ("base 10", "base 9")}
across = blocks["base 10", "base 9"]


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of the success rates, over all weights. Prompts help and hurt each other within a base and across the bases; across them the average is lower.", "name": "fig-language-kernel"}, "image": {"alt": "Heat map of the cosine kernel of base 10 and base 9 prompts."}}
def draw(ax):
    groups = list(part.groups)
    figures.heatmap(ax, cosines, label="cosine of the gradients", limit=1.0, groups=groups)


alt = f"Cosine kernel: {within['base 10']:.2f} on average within base 10, {within['base 9']:.2f} within base 9, {float(across.mean()):.2f} across, and {float((across < 0).double().mean()):.0%} of the entries across are negative."
names = [prompt.id for prompt in part.prompts]
figures.show(draw, alt=alt, data=pd.DataFrame(cosines, index=names, columns=names), size=(5, 4.2))

# %% [markdown]
# ## The gradients of pass@1 and pass@k
#
# One backward pass gives $\nabla J_1$, one forward-mode pass along it gives the agreement of every prompt, and with it $\langle \nabla J_k, \nabla J_1 \rangle = \mathbb{E}[w_k a]$ for all $k$ at once.
# For the cosine we also need the norm of each $\nabla J_k$: one backward pass for each $k$.

# %%
curve = conflict(world, theta, ks=ks)
identity = (curve.weights * curve.masses * curve.agreement).sum(1)
gap = float(((identity - curve.inner_product).abs() / (curve.norm * curve.norm_at_1)).max())
curve.to_frame().round(4)

# %% tags=["hide-input"]
Markdown(
    f"The two routes to the inner product, forward mode and backward mode, differ by at most {gap:.1e} of the product of the norms: that is the arithmetic of float32. "
    + (
        f"The sign changes at $k = {curve.threshold:.2f}$."
        if np.isfinite(curve.threshold)
        else "The sign does not change at any $k$ here."
    )
)

# %% [markdown]
# Does this depend on the sums that were drawn? We repeat warm-up, measurement and the ascents below for several choices of examples and prompts.

# %%
settings = {
    "model": model,
    "num_prompts": num_prompts,
    "num_examples": num_examples,
    "hard_fraction": hard_fraction,
    "warmup_steps": warmup_steps,
    "warmup_step_size": warmup_step_size,
    "ks": ks,
    "ascent_ks": ascent_ks,
    "ascent_steps": ascent_steps,
    "ascent_step_size": ascent_step_size,
}
objectives = [PassAtK(k) for k in ascent_ks]
studies = {
    choice: two_conventions.result(seed=choice, **settings, recompute=recompute) for choice in seeds
}
studies[seeds[0]]

# %%
curves = pd.concat({choice: one["conflict"] for choice, one in studies.items()}, names=["seed"])
by_k = curves.groupby("k")["cosine"]
middle, low, high = by_k.median(), by_k.min(), by_k.max()
negative = by_k.apply(lambda cosines: int((cosines < 0).sum()))
pd.DataFrame(
    {"median": middle, "lowest": low, "highest": high, "seeds with conflict": negative}
).round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of pass@1 and pass@k against k. Solid: the choice of sums on this page, exact. Band: lowest to highest of all choices, with their median. The cosine falls with k; whether it crosses zero depends on the sums.", "name": "fig-language-cosine"}, "image": {"alt": "Cosine between the gradients of pass@1 and pass@k against k, with a band over choices of sums."}}
def draw(ax):
    figures.zero(ax)
    figures.curve(ax, middle.index, middle, of="pass@k", low=low, high=high, label="all choices")
    figures.curve(ax, curve.ks, curve.cosine, of="exact", exact=True, label="this page")
    figures.k_axis(ax, ks)
    ax.set_ylabel("cos(∇J₁, ∇J_k)")
    figures.legend(ax)


least = int(curve.cosine.argmin())
alt = f"The cosine falls from 1 at k=1 to {float(curve.cosine[least]):.2f} at k={int(curve.ks[least])} on this page; over {len(seeds)} choices it lies between {low.iloc[-3]:.2f} and {high.iloc[-3]:.2f} at k={int(low.index[-3])}."
figures.show(draw, alt=alt, data=curves.reset_index(level=0))


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Agreement of each prompt with pass@1 against its success rate. A prompt below zero is made worse by a step up pass@1; pass@k weighs the prompts on the left.", "name": "fig-language-agreement"}, "image": {"alt": "Agreement against success rate for base 10 and base 9 prompts."}}
def draw(ax):
    figures.zero(ax)
    for place, group in enumerate(("base 10", "base 9")):
        half = slice(place * num_prompts, (place + 1) * num_prompts)
        figures.points(ax, curve.success[half], curve.agreement[half], of=group, exact=True)
    ax.set(xlabel="success rate p(x)", ylabel="agreement a(x)")
    figures.legend(ax)


below = curve.agreement < 0
alt = f"{int(below[num_prompts:].sum())} of {num_prompts} base 9 prompts and {int(below[:num_prompts].sum())} of {num_prompts} base 10 prompts have negative agreement with pass@1."
figures.show(draw, alt=alt, data=curve.prompts_frame())

# %% [markdown]
# ## Small steps up pass@1, pass@10 and pass@32
#
# A cosine is about an infinitely small step. We take small finite ones, on each objective from the same point, and look at exact pass@k after each.

# %%
ascents = compare_ascents(
    world, theta, objectives, ks=ascent_ks, step_size=ascent_step_size, steps=ascent_steps
)
overall = ascents[ascents["group"] == "all"].set_index(["objective", "k", "step"])["pass_at_k"]
change = overall.xs(ascent_steps, level="step") - overall.xs(0, level="step")
change.unstack("k").rename(columns="J_{:g}".format).round(4)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact pass@k along small steps of gradient ascent on different objectives, all from the same weights.", "name": "fig-language-ascents"}, "image": {"alt": "Exact pass@1, pass@10 and pass@32 along ascent on each of them."}}
def draw(axes):
    for ax, k in zip(axes, ascent_ks, strict=True):
        for objective in objectives:
            series = overall[objective.label, k]
            figures.curve(ax, series.index, series, of=objective.label, exact=True)
        ax.set(xlabel="step", ylabel=f"pass@{k}")
    figures.legend(axes[-1], title="ascended", loc="center right")


alt = "; ".join(
    f"ascending {objective.label} changes "
    + ", ".join(f"pass@{k} by {change[objective.label, k]:+.3f}" for k in ascent_ks)
    for objective in objectives
)
figures.show(draw, alt=alt, data=overall.reset_index(), ncols=len(ascent_ks), size=(9, 3))

# %% [markdown]
# The same for every choice of sums: how much each pass@k changes over all the steps.

# %%
every = pd.concat({choice: one["ascents"] for choice, one in studies.items()}, names=["seed"])
every = every[every["group"] == "all"].reset_index(level="seed")
every = every.set_index(["seed", "objective", "k", "step"])["pass_at_k"]
moved = every.xs(ascent_steps, level="step") - every.xs(0, level="step")
moved.unstack("k").rename(columns="change of J_{:g}".format).round(4)

# %% tags=["hide-input"]
top = objectives[-1].label
lost = moved[:, top, 1]
start = curves[curves["k"] == ascent_ks[-1]].droplevel(1)["cosine"]
signs = np.sign(start) == np.sign(lost)
Markdown(
    f"Ascending {top} lowers pass@1 for {int((lost < 0).sum())} of {len(seeds)} choices of sums. "
    f"The sign of the cosine at the start predicts the sign of the change of pass@1 for {int(signs.sum())} of {len(seeds)}."
)

# %% [markdown]
# ## Large steps
#
# The same objectives with steps that are much larger. The path leaves the region in which the gradient at its start says what happens: a quantity that falls with the first step may rise with the next.

# %%
large = compare_ascents(
    world, theta, objectives, ks=ascent_ks, step_size=large_factor * ascent_step_size, steps=3
)
far = large[large["group"] == "all"].set_index(["objective", "step", "k"])["pass_at_k"]
far.unstack("k").rename(columns="J_{:g}".format).round(3)

# %% tags=["hide-input"]
path_of_top = far[top].xs(1, level="k")
Markdown(
    f"Three large steps up {top} take pass@1 from {path_of_top.iloc[0]:.3f} to {path_of_top.iloc[-1]:.3f}, with {path_of_top.min():.3f} as the lowest value on the way. "
    f"The {ascent_steps} small steps on the same sums change it by {change[top, 1]:+.3f}."
)

# %% [markdown]
# ## Where it does not happen: natural families of arithmetic
#
# Sums of one and of two digits, products and remainders, in one notation and behind one context.
# They differ in difficulty, but they do not ask for different answers to the same question.

# %%
natural = arithmetic(num_prompts=family_prompts, seed=seed)
plain = LanguageWorld(world.model, world.tokenizer, natural.prompts, stop=natural.stop)
settled = ascend(plain, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps)
moments = {"pretrained": None, "after warm-up": settled.theta}
natural_curves = {name: conflict(plain, point, ks=ks) for name, point in moments.items()}
table = pd.DataFrame({name: one.cosine.numpy() for name, one in natural_curves.items()}, index=ks)
table.rename_axis("k").round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Natural families of arithmetic: the cosine of the gradients of pass@1 and pass@k falls with k.", "name": "fig-language-natural"}, "image": {"alt": "Cosine against k for natural arithmetic families before and after a warm-up on pass@1."}}
def draw(ax):
    figures.zero(ax)
    for (name, one), look in zip(natural_curves.items(), ("neutral", "exact"), strict=True):
        figures.curve(ax, one.ks, one.cosine, of=look, exact=True, label=name)
    figures.k_axis(ax, ks)
    ax.set_ylabel("cos(∇J₁, ∇J_k)")
    figures.legend(ax)


lowest = {name: float(one.cosine.min()) for name, one in natural_curves.items()}
alt = (
    "Natural families: the lowest cosine is "
    + " and ".join(f"{value:.2f} {name}" for name, value in lowest.items())
    + "."
)
figures.show(draw, alt=alt, data=table.reset_index(names="k"))

# %% tags=["hide-input"]
found = [name for name, value in lowest.items() if value < 0]
Markdown(
    f"The lowest cosine over $k$ is {lowest['pretrained']:.2f} in the pretrained model and {lowest['after warm-up']:.2f} after the warm-up: "
    + (
        "no conflict, although the cosine falls."
        if not found
        else f"a conflict {' and '.join(found)}, without any opposed conventions."
    )
)

# %% [markdown]
# (sec-second-model)=
# ## A second model, as it comes
#
# The conflict above stands behind a warm-up that was tuned until it appeared. Is it there in a model that nobody has prepared?
# And is what the gradients say of the sums that enter them true of sums of the same kind that do not?
#
# Qwen2.5-Coder-0.5B-Instruct {cite}`hui2024qwencoder` has 630 million weights here, and is used as it comes: no warm-up, three worked examples of each base, equal shares of the two bases.
# Of each base 12 sums enter the gradients (*train*) and 12 are *held out*; two orders of one sum are never on both sides.
# The control is natural arithmetic in the same form: four families, six prompts of each on either side.
# Sets, settings and what would count were written down before any set was computed (`passgrad_book.experiments.second_model`); all sets are shown.

# %%
sets = {
    (kind, one): results.load("qwen_conflict", f"{kind}-seed-{one}")
    for kind, choices in SEEDS.items()
    for one in choices
}
sets["conventions", SEEDS["conventions"][0]]

# %%
rates_2 = pd.concat(
    {
        (kind, one, part): found[table][["group", "mass", "success"]]
        for (kind, one), found in sets.items()
        for part, table in (("train", "prompts"), ("held out", "held_out"))
    },
    names=["kind", "set", "part"],
).reset_index(level=[0, 1, 2])


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact success rate of every prompt in Qwen2.5-Coder-0.5B, by set: left of each tick the sums that enter the gradients, right of it (hollow) those held out. Base 10 is nearly solved and most of base 9 nearly lost, without any warm-up; the few base 9 sums in between differ from set to set.", "name": "fig-second-rates"}, "image": {"alt": "Success rates of base 10 and base 9 sums in five sets, train and held out, on a logarithmic axis."}}
def draw(ax):
    for group in ("base 10", "base 9"):
        for part, shift, fill in (("train", -0.13, "full"), ("held out", 0.13, "none")):
            own = rates_2[(rates_2["group"] == group) & (rates_2["part"] == part)]
            label = f"{group}, {part}"
            figures.points(
                ax, own["set"] + shift, own["success"], of=group, exact=True, label=label,
                fillstyle=fill,
            )  # fmt: skip
    ax.set(yscale="log", xlabel="set", ylabel="success rate p(x)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.legend(ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


base_9 = rates_2[(rates_2["group"] == "base 9") & (rates_2["part"] == "train")]
by_set = base_9.groupby("set")["success"].max()
by_family = rates_2.groupby(["kind", "group", "part"])["success"]
away = by_family.median()["conventions"].xs("held out", level="part")
hard, easy = (by_family.get_group(("conventions", base, "train")) for base in ("base 9", "base 10"))
alt = f"Over five sets the median success rate of the sums that enter is {easy.median():.2f} in base 10 and {hard.median():.4f} in base 9, from {hard.min():.4f} to {hard.max():.2f}; of the sums held out {away['base 10']:.2f} and {away['base 9']:.4f}."
figures.show(draw, alt=alt, data=rates_2[rates_2["kind"] == "conventions"], size=(7, 3.8))

# %% [markdown]
# Do the gradients of pass@1 and pass@k oppose each other?

# %%
cosines_2 = pd.concat(
    {key: found["conflict"].set_index("k")["cosine"] for key, found in sets.items()},
    names=["kind", "set"],
).reset_index()
lasts = cosines_2[cosines_2["k"] == max(ks)].set_index(["kind", "set"])["cosine"]


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of pass@1 and pass@k in Qwen2.5-Coder-0.5B, one line a set, exact. On the conventions it falls at once, and in three of five sets it is below zero at k = 10; on natural arithmetic it falls slowly and stays above zero at every k shown.", "name": "fig-second-cosine"}, "image": {"alt": "Cosine against k: five sets of two conventions on the left, three sets of natural arithmetic on the right."}}
def draw(axes):
    for ax, (kind, choices) in zip(axes, SEEDS.items(), strict=True):
        figures.zero(ax)
        place = np.inf
        for one in sorted(choices, key=lambda one: -lasts[kind, one]):
            own = cosines_2[(cosines_2["kind"] == kind) & (cosines_2["set"] == one)]
            figures.curve(ax, own["k"], own["cosine"], of=kind, exact=True, label="")
            place = min(place - 0.09, lasts[kind, one])
            ax.annotate(
                str(one), (own["k"].iloc[-1], place), xytext=(6, 0),
                textcoords="offset points", va="center", color=figures.ink(), fontsize="small",
            )  # fmt: skip
        figures.k_axis(ax, ks)
        figures.panel(ax, {"conventions": "two conventions"}.get(kind, "natural arithmetic"))
    axes[0].set_ylabel("cos(∇J₁, ∇J_k)")


at_10 = cosines_2[cosines_2["k"] == 10].set_index(["kind", "set"])["cosine"]
alt = "; ".join(
    f"{kind}: the cosine at k = 10 is {', '.join(f'{value:+.2f}' for value in at_10[kind])} on sets {min(choices)} to {max(choices)}"
    for kind, choices in SEEDS.items()
)
figures.show(draw, alt=alt, data=cosines_2, ncols=2, size=(8, 3.4), sharey=True)


# %% [markdown]
# What does a step up pass@10 of the train sums do to pass@1, of themselves and of the sums held out?
# One backward pass gives the gradient, one forward-mode pass along it the slope of every prompt held out.
# The columns are changes to first order for one unit of length; the steps below are a thousandth of it.

# %%
slopes_2 = pd.DataFrame(
    {
        (change, part): {key: slopes(found)[change][part] for key, found in sets.items()}
        for change in ("J_1 up J_1", "J_1 up J_10", "J_10 up J_10")
        for part in ("train", "held out")
    }
).rename_axis(["kind", "set"])
slopes_2.round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of pass@1 to first order along one unit of length up pass@10 of the train sums, exact: of the train sums (full) and of the sums held out (hollow). Two conventions: four of five sets lose on held-out sums, set 12 although its own sums gain. Natural arithmetic: all gain on both.", "name": "fig-second-held-out"}, "image": {"alt": "Slope of pass@1 along pass@10, train and held out, in eight sets."}}
def draw(ax):
    figures.zero(ax)
    names = [f"{one}" for _, one in slopes_2.index]
    for kind in SEEDS:
        here = [place for place, key in enumerate(slopes_2.index) if key[0] == kind]
        for part, shift, fill in (("train", -0.12, "full"), ("held out", 0.12, "none")):
            values = slopes_2["J_1 up J_10", part].to_numpy()[here]
            places = [place + shift for place in here]
            label = f"{kind}, {part}"
            figures.points(ax, places, values, of=kind, exact=True, label=label, fillstyle=fill)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="set", ylabel="slope of pass@1 up pass@10")
    figures.legend(ax, loc="center left", bbox_to_anchor=(1, 0.5))


crossed = slopes_2["J_1 up J_10"]
alt = "; ".join(
    f"{kind}, {part}: {', '.join(f'{value:+.1f}' for value in crossed.loc[kind][part])}"
    for kind in SEEDS
    for part in ("train", "held out")
)
figures.show(draw, alt=alt, data=crossed.reset_index(), size=(7.5, 3.4))

# %% tags=["hide-input"]
natural_2, opposed = crossed.loc["arithmetic"], crossed.loc["conventions"]
negative_2 = int((at_10["conventions"] < 0).sum())
low_2, high_2 = success_interval(negative_2, len(opposed))
most = np.floor(100 * by_set[at_10["conventions"] >= 0].min()) / 100
weaker = int((opposed["held out"] < opposed["train"]).sum())
Markdown(
    f"Of the sets of conventions {negative_2} of {len(opposed)} have a conflict at $k = 10$, of those of arithmetic {int((at_10['arithmetic'] < 0).sum())} of {len(natural_2)}. "
    f"By what was written down first that speaks for the contrast; five sets leave the share of conflicts anywhere between {low_2:.2f} and {high_2:.2f}. "
    f"Seen afterwards: the sets without one are those in which some base 9 sum of the train half has a success rate above {most:.2f}.\n\n"
    f"On the sums held out a step up pass@10 lowers pass@1 on {int((opposed['held out'] < 0).sum())} of {len(opposed)} sets of conventions, and on {int((natural_2['held out'] < 0).sum())} of {len(natural_2)} of arithmetic. "
    f"On {weaker} of the {len(opposed)} sets of conventions the slope is lower there than on the sums that enter. "
    r"One reason is that these have the terms $w_k(x)\, \kappa(x, x)$ of each prompt with itself, which are never negative and which a prompt held out has not; among two dozen prompts they weigh."
)

# %% [markdown]
# Which prompts stand against which? The kernel, averaged over the train sums of a family: the inner product of the gradient of a prompt with the mean gradient of each base.

# %%
products = pd.concat(
    {one: sets["conventions", one]["kernel"] for one in SEEDS["conventions"]}, names=["set"]
).reset_index(level=0)
products = products.rename(columns={"group": "change of", "family": "step up"})
kernel_2 = products.groupby(["part", "step up", "change of", "set"], sort=False)["product"].mean()
kernel_2.unstack().round(1)

# %% tags=["hide-input"]
lowered = kernel_2.xs(("base 9", "base 10"), level=("step up", "change of")).unstack() < 0
Markdown(
    f"A step up the mean of base 9 lowers base 10 on {int(lowered.loc['train'].sum())} of {lowered.shape[1]} sets for the sums that enter it, and on {int(lowered.loc['held out'].sum())} for those held out."
)

# %% [markdown]
# ### Steps of one length
#
# A slope is about an infinitely small step. From the same weights we take six of length 0.001 up pass@10, and with the same length up pass@1, their even mixture, and pass@10 constrained not to lower pass@1 of the train sums.

# %%
methods = {
    "pass@1": "pass@1",
    "pass@k": "pass@10",
    "mixture 0.5": "mixture",
    "constrained": "constrained",
}
paths = {}
for one in ASCENT_SEEDS:
    for method in methods:
        name = f"conventions-{method.replace('@', '-at-').replace(' ', '-')}-seed-{one}"
        if f"results/qwen_ascents/cpu/{name}.json" in results.records():
            paths[one, method] = results.load("qwen_ascents", name)["success"]
missing = [
    f"{methods[m]} of set {one}" for one in ASCENT_SEEDS for m in methods if (one, m) not in paths
]
walks = pd.concat(paths, names=["set", "method"]).reset_index(level=[0, 1])
for k in (1, 10):
    walks[f"J_{k}"] = 1 - (1 - walks["success"]) ** k
walked = walks.groupby(["set", "method", "part", "step"], sort=False)[["J_1", "J_10"]].mean()
ends = walked.xs(6, level="step") - walked.xs(0, level="step")
ends.unstack("part").round(3)


# %% tags=["hide-input"]
Markdown(
    f"Not computed yet (`make second`): {', '.join(missing)}." if missing else "All are shown."
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact change of pass@1 (above) and of pass@10 (below) along six steps of one length in Qwen2.5-Coder-0.5B, of the train sums (solid, full) and of the sums held out (dotted, hollow). Up pass@1 of set 11 the sums held out gain less than half of what the train sums gain, and their pass@10 falls first.", "name": "fig-second-ascents"}, "image": {"alt": "Exact change of pass@1 and pass@10 along six steps of one length, train and held out."}}
def draw(axes):
    shown = list(dict.fromkeys(one for one, _ in paths))
    for (row, k), (column, one) in itertools.product(enumerate((1, 10)), enumerate(shown)):
        ax = axes[row, column]
        figures.zero(ax)
        for method, label in methods.items():
            for part, dash, fill in (("train", "-", "full"), ("held out", ":", "none")):
                if (one, method) in paths:
                    own = walked.loc[one, method, part][f"J_{k}"]
                    figures.curve(
                        ax, own.index, own - own.iloc[0], of=label.replace("pass@10", "pass@k"),
                        exact=True, label=f"{label}, {part}", linestyle=dash, fillstyle=fill,
                    )  # fmt: skip
        ax.set(xlabel="step" if row else "", ylabel="" if column else f"change of pass@{k}")
        if not row:
            figures.panel(ax, f"set {one}")
    figures.legend(axes[0, -1], loc="center left", bbox_to_anchor=(1, 0), title="ascended")


shown_sets = len(dict.fromkeys(one for one, _ in paths))
alt = "; ".join(
    f"set {one}, up {methods[method]}: pass@1 changes by {row['J_1']:+.3f} on {part} sums"
    for (one, method, part), row in ends.iterrows()
)
figures.show(
    draw, alt=alt, data=walked.reset_index(), nrows=2, ncols=shown_sets,
    size=(3 + 2.6 * shown_sets, 4.6), sharex=True, sharey="row", squeeze=False,
)  # fmt: skip

# %% [markdown]
# ## Scope
#
# Two small models, one notation, a few dozen prompts, plain gradient ascent: this chapter shows that the mechanism of the paper acts in a real language model and that its prediction for small steps is right where it makes one.
# It does not show how common conflict is in practice. In the first model the settings were chosen so that it appears; in the second nothing was chosen but the kind of prompts.
# Optimisers with momentum or a preconditioner take other directions than the gradient; {ref}`sec-life` compares them.
#
# ## Exercises
#
# ```{exercise} Two ways to the same number
# :label: ex-language-identity
#
# Compute $\mathbb{E}[w_k a]$ for $k = 1$. What must it be equal to, and why can it never be negative?
# ```

# %% [markdown]
# ````{solution-start} ex-language-identity
# :class: dropdown
# ````
# At $k = 1$ every weight is 1, so it is $\mathbb{E}[a] = \|\nabla J_1\|^2$.

# %%
at_one = float(curve.masses @ curve.agreement)
assert abs(at_one - curve.norm_at_1**2) < 1e-3 * curve.norm_at_1**2
round(at_one, 3)

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw: exact success rates of a language model; a kernel with negative entries between two conventions; the cosine of the gradients of pass@1 and pass@k falling with $k$, below zero for some choices of sums; ascents that raise one and lower the other; large steps, on which pass@1 may lose more than on small ones; natural families of arithmetic, for which the picture is another; and in a second model the same contrast without a warm-up, stronger on most sets for the sums that were held out.
