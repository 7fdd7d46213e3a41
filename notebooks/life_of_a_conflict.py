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
# (sec-life)=
# # The life of a conflict
#
# **Result.** A transformer of a million weights, made from scratch, is trained up pass@1 on two families of subtractions. It learns the easy family within a few dozen steps.
# From then on every step takes success away from the hard family, and the gradients of pass@1 and pass@8 oppose each other, although they agreed at the start.
# On four of five seeds the conflict ends by itself: the easy family saturates and lets go of the hard one, which is learnt long after. On one seed the hard family is lost as fast as the easy one saturates, and the conflict does not end while we look.
#
# While a conflict lasts, and only then, pass@k falls along the way: what is measured with gradients can be seen in a curve that training runs log.
# Pass@8 ascent from the same start never conflicts with pass@1 at $k = 8$, and stops short of it all the same.
#
# Every success rate here is exact and every step is along the exact gradient: nothing in this chapter is noise.
#
# **What you need.** {ref}`The toy <sec-toy>` for kernel and agreement, and that a causal language model gives the probability of each next token.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $P_e$, $P_h$ | mean success rate of the easy and of the hard prompts |
# | $h$ | share of the hard prompts: $J_1 = (1 - h) P_e + h P_h$ |
# | $\kappa_{eh} = \langle \nabla P_e, \nabla P_h \rangle$, $\kappa_{hh} = \lVert \nabla P_h \rVert^2$ | mean kernel across the families and within the hard one |
# | $a_e = \langle \nabla P_e, \nabla J_1 \rangle$, $a_h = \langle \nabla P_h, \nabla J_1 \rangle$ | mean agreement of either family with pass@1 |
# | $w_k = k (1 - p)^{k-1}$ | weight of a prompt in $\nabla J_k$ |
# | $v_e = P_e (1 - P_e)$, $v_h = P_h (1 - P_h)$ | what saturation leaves of a gradient: $\nabla p = p (1 - p) \nabla \log \frac{p}{1-p}$ |
# | $c$ | coupling of the families, defined below |
# | $k^*$ | threshold: the first $k$ at which $\langle \nabla J_k, \nabla J_1 \rangle$ turns negative |

# %%
import math

import numpy as np
import pandas as pd
from IPython.display import Markdown

from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.interference import conflict
from passgrad_book.build import figures
from passgrad_book.experiments.life.ascent import VANISHING, phases
from passgrad_book.experiments.life.opposite_signs import in_double, opposite_signs_world
from passgrad_book.experiments.life.stored import conflict_life

# %% tags=["parameters"]
world_options: dict = {"hard_fraction": 0.38}  # share of hard prompts in the prompt law
step_size: float = 0.01  # of every step along a gradient
steps: int = 2400  # of each ascent
# fmt: off
measured_at: list = [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 36, 40, 44, 50, 56, 64, 72, 80, 90, 100, 115, 130, 150, 170, 200, 230, 260, 300, 340, 380, 420, 460, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 1000, 1100, 1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900, 2000, 2100, 2200, 2300]  # steps after which the gradients are compared, beside the first and the last
# fmt: on
ks: list = [2, 8, 32]  # orders whose gradients are compared with that of pass@1
k: int = 8  # the order that is ascended, and that is looked at most
seeds: list = [0, 1, 2, 3, 4]  # of the weights and of the differences that are asked
compared_seeds: list = [0, 1, 2]  # seeds for which pass@k is ascended too
combined_seeds: list = [0]  # seeds for which the combination is ascended
aggregator: str = "pcgrad"  # the combination of pass@1 and pass@k
checked_steps: int = 40  # first steps that are taken again on this page
recompute: bool = False  # compute the runs again, and replace the stored results

# %% [markdown]
# ## Two families of subtractions
#
# The model reads seven characters at most, such as `a7-3=`, and answers with a sign, a digit and a line feed.
# Behind `a` the answer to `7-3` is `+4`, behind `b` it is `-4`. The digits are the same in both families: what teaches one of them its digits helps the other.
# The signs are opposite: a model that does not heed the letter can only be right on one family at a time.
# An answer is one string, so its probability is a product of three numbers, exact without sampling.
#
# The model is a llama with random weights. Before the ascent it is trained for a moment to answer with `+` most of the time and with the right digit about a third of the time, whatever the letter.
# The easy family starts close to 0.3, the hard one close to 0.02.

# %%
hard_fraction = world_options["hard_fraction"]
world = opposite_signs_world(seed=seeds[0], **world_options)
start = conflict(in_double(world), world.own_parameters(), ks)
half = world.num_prompts // 2
shown = start.prompts_frame().assign(
    prompt=[x.question for x in world.prompts], answer=[x.answer for x in world.prompts]
)
shown = shown[["prompt", "answer", "group", "success", "agreement"]].round(4)
shown.iloc[[0, 1, 2, half, half + 1, half + 2]]

# %% tags=["hide-input"]
Markdown(
    f"{world.num_parameters:,} weights, {half} differences in each family, and a prompt law that gives the hard family the share $h = {hard_fraction}$. "
    f"At the start the cosine of the gradients of pass@1 and pass@{k} is {float(start.cosine[ks.index(k)]):.2f}, and {int((start.agreement[half:] < 0).sum())} of the {half} hard prompts have a negative agreement with pass@1."
)

# %% [markdown]
# ## When two families conflict
#
# Before we look at a run we say what to look for. Within a family the success rates are nearly the same; we take them to be equal.
#
# ```{prf:proposition} Two families
# :label: prop-two-families
#
# Let the prompts fall into an easy and a hard family, of masses $1 - h$ and $h$ and of the success rates $p_h < p_e < 1$. Then $a_h = (1 - h) \kappa_{eh} + h \kappa_{hh}$, and:
#
# 1. There is a conflict of pass@1 with pass@k at some $k$ if and only if $a_h < 0$, that is, if $\kappa_{eh} < 0$ and
#
#    $$
#    \frac{h}{1 - h} < \frac{-\kappa_{eh}}{\kappa_{hh}} .
#    $$
#
# 2. If $a_h < 0$ there is a conflict at exactly the $k$ beyond
#
#    $$
#    k^* = 1 + \frac{\log\bigl(1 + \lVert \nabla J_1 \rVert^2 / (h \, |a_h|)\bigr)}{\log\bigl((1 - p_h) / (1 - p_e)\bigr)} .
#    $$
#
# 3. As $k \to \infty$ the cosine of $\nabla J_k$ and $\nabla J_1$ tends to that of $\nabla P_h$ and $\nabla J_1$, if neither is zero.
#
# Checked by {test}`test_two_families`.
# ```
#
# ```{prf:proof}
# $\nabla J_1 = (1 - h) \nabla P_e + h \nabla P_h$ gives $a_h$, and dividing $a_h < 0$ by $(1 - h) \kappa_{hh} > 0$ the inequality; $\kappa_{hh} = 0$ would make $a_h = 0$.
# With $w_e$ and $w_h$ the weights of the families, {prf:ref}`prop-conflict-identity` reads $\langle \nabla J_k, \nabla J_1 \rangle = (1 - h) w_e a_e + h w_h a_h$, and $(1 - h) a_e + h a_h = \lVert \nabla J_1 \rVert^2$.
# If $a_h \ge 0$, then, as $w_h \ge w_e$, the product is at least $w_e \lVert \nabla J_1 \rVert^2 \ge 0$.
# If $a_h < 0$, then $(1 - h) a_e = \lVert \nabla J_1 \rVert^2 + h |a_h|$ is positive, and the product is negative if and only if $w_h / w_e = ((1 - p_h) / (1 - p_e))^{k - 1}$ exceeds $(1 - h) a_e / (h |a_h|) = 1 + \lVert \nabla J_1 \rVert^2 / (h |a_h|)$; logarithms give (2).
# The quotient of the weights grows without bound, so that the direction of $\nabla J_k$ tends to that of $\nabla P_h$: (3).
# ```
#
# Both conditions have a meaning along the flow $\dot\theta = \nabla J_1$ of pass@1 ascent. There $\dot P_h = \langle \nabla P_h, \nabla J_1 \rangle = a_h$ and $\dot J_k = \langle \nabla J_k, \nabla J_1 \rangle$:
# the hard family loses while $a_h < 0$, and pass@k falls while its gradient conflicts with that of pass@1, and only then.
# A conflict is born where pass@k is at a maximum along the way, and ends where it is at a minimum.
#
# ## One life
#
# Now the run: exact ascent of pass@1, with the gradients compared on the way. The steps are taken in float32. The comparisons are made in float64, because close to a success rate of 1 float32 has no digits left for what is missing to 1.

# %%
path = {"ks": ks, "step_size": step_size, "steps": steps, "every": measured_at}


def stored(ascended, seed):
    return conflict_life.result(
        ascended=ascended, seed=seed, world=world_options, **path, recompute=recompute
    )


lives = {seed: stored("pass@1", seed) for seed in seeds}
life = lives[seeds[0]]
life


# %%
def at_order(tables, order=k):
    return tables["orders"].query("k == @order").set_index("step")


found = pd.DataFrame(
    {j: phases(*zip(*at_order(life, j)["cosine"].items(), strict=True)) for j in ks}
)
found.T.rename_axis("k").round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of pass@1 and pass@k along pass@1 ascent; the steps are on a logarithmic axis. The gradients agree at the start, oppose each other for a long stretch, and agree again. Dotted: birth, deepest point and end of the conflict at k = 8.", "name": "fig-life-cosine"}, "image": {"alt": "Cosine of the gradients against the step for three k, starting high, below zero in the middle, and above zero at the end."}}
def draw(ax):
    figures.zero(ax)
    for j in ks:
        series = at_order(life, j)["cosine"]
        figures.curve(ax, series.index[1:], series.iloc[1:], of=f"pass@{j}", exact=True)
    for name in ("born", "deepest", "ended"):
        if not math.isnan(found.loc[name, k]):
            ax.axvline(found.loc[name, k], color=figures.COLOURS["conflict"], linestyle=":")
            ax.annotate(name, (found.loc[name, k], 1.0), xytext=(3, 0), textcoords="offset points")
    ax.set(
        xscale="log", xlabel="step", ylabel="cosine with the gradient\nof pass@1", ylim=(-0.5, 1.1)
    )
    figures.legend(ax, loc="lower left")


born, deepest, lowest, ended = found.loc[["born", "deepest", "lowest", "ended"], k]
alt = f"At k = {k} the cosine turns negative at step {born:g}, is lowest, {lowest:.2f}, at step {deepest:g}, and turns positive at step {ended:g}."
figures.show(draw, alt=alt, data=life["orders"])

# %% [markdown]
# ### Two forces
#
# The hard family is moved by two forces, the terms of $a_h = (1 - h) \kappa_{eh} + h \kappa_{hh}$: the easy prompts take $-(1 - h) \kappa_{eh}$ from it, and its own prompts give $h \kappa_{hh}$, which is never negative.
# The agreement is negative where the quotient of the two exceeds 1. We split it into three factors,
#
# $$
# \frac{\text{taken}}{\text{given}} = \frac{-(1 - h) \kappa_{eh}}{h \kappa_{hh}} = \frac{1 - h}{h} \cdot \frac{v_e}{v_h} \cdot c, \qquad c = \frac{-\kappa_{eh} / (v_e v_h)}{\kappa_{hh} / v_h^2} .
# $$
#
# The first does not change. The second compares how far either family is from saturation; a family that is always right or always wrong exerts no force.
# The third is what is left without saturation: for equal rates within the families it is $-\langle \nabla \ell_e, \nabla \ell_h \rangle / \lVert \nabla \ell_h \rVert^2$ with the log-odds $\ell$ of success. With $c = 1$ the hard family would lose what the easy one gains.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Why the conflict is born and why it ends. Left: success rates. Middle: what the easy prompts take from the hard family over what the hard prompts give to it; above 1 the hard family falls. Right: the two factors of that quotient that change. The coupling rises when the digits are learnt, and starts the conflict. The odds of saturation fall, and end it.", "name": "fig-life-forces"}, "image": {"alt": "Three panels over the steps: success rates of both families, the quotient of the two forces on the hard family, and its two factors."}}
def split(path):
    variance = {g: path[f"success_{g}"] * (1 - path[f"success_{g}"]) for g in ("easy", "hard")}
    saturation = variance["easy"] / variance["hard"]
    coupling = -path["kernel_easy_hard"] / path["kernel_hard_hard"] / saturation
    quotient = (1 - hard_fraction) / hard_fraction * saturation * coupling
    return pd.DataFrame({"quotient": quotient, "saturation": saturation, "coupling": coupling})


table = life["path"].set_index("step").iloc[1:]
factors = split(table)


def draw(axes):
    for group in ("easy", "hard"):
        figures.curve(axes[0], table.index, table[f"success_{group}"], of=group, exact=True)
    axes[1].axhline(1, color=figures.COLOURS["neutral"], linewidth=1)
    figures.curve(axes[1], factors.index, factors["quotient"], of="exact", exact=True, label="")
    for name, look, label in (("saturation", "easy", "v_e / v_h"), ("coupling", "agreement", "c")):
        shown = factors[name].where(factors[name] > 0)
        figures.curve(axes[2], factors.index, shown, of=look, exact=True, label=label)
    names = ("success rate", "taken / given", "factors")
    for ax, name in zip(axes, names, strict=True):
        ax.set(xscale="log", xlabel="step")
        figures.panel(ax, name)
    for ax in axes[[0, 2]]:
        ax.set(yscale="log")
        figures.legend(ax, loc="best")


alt = f"Success of the hard family is lowest, {table['success_hard'].min():.4f}, at step {table['success_hard'].idxmin()}. The quotient is largest, {factors['quotient'].max():.2f}, at step {factors['quotient'].idxmax()}; the saturation ratio goes from {factors['saturation'].iloc[0]:.1f} to {factors['saturation'].iloc[-1]:.2f}."
figures.show(draw, alt=alt, data=table.join(factors).reset_index(), ncols=3, size=(10.5, 3.2))

# %%
every = pd.concat({seed: one["path"] for seed, one in lives.items()}, names=["seed"])
terms = (1 - hard_fraction) * every["kernel_easy_hard"] + hard_fraction * every["kernel_hard_hard"]
gap = (terms - every["agreement_hard"]).abs() / every["agreement_hard"].abs().max()
assert gap.max() < 1e-6
f"the two terms add up to the agreement within {gap.max():.0e} of its largest value"

# %% [markdown]
# **Birth.** At the start the coupling is next to nothing. The families share the digits, which help, and the sign, which hurts.
# As the easy family is learnt, so are the digits: an answer has its success from sign and digit, so $P_e$ is a lower bound on the rate of right digits. That help is used up, the sign is left, and the coupling rises, at a time when the easy family is far from saturated and has much more force than the hard one.
#
# **End.** The coupling goes on rising, past the end: the families are bound together more than ever, and it is not because the model heeds the letter that the conflict ends.
# What falls is $v_e / v_h$. The coupling is below 1, since the letter leaves the families some directions of their own, so the easy family saturates faster than it drags the hard one down, and its pull runs out first.
# At the end of the conflict the hard family has its lowest success rate. It is learnt long after, and only then does the coupling come down.

# %% tags=["hide-input"]
text = []
for name, place in (("At the start", table.index[0]), ("at birth", born), ("at the end", ended)):
    if place == place:
        one = factors.loc[place]
        rates = table.loc[place]
        text.append(
            f"{name}, step {place:g}, $c = {one['coupling']:.3f}$ and $v_e / v_h = {one['saturation']:.2f}$ with success rates {rates['success_easy']:.3f} and {rates['success_hard']:.4f}"
        )
Markdown("; ".join(text) + ".")

# %% [markdown]
# ### The weights decide from which k on
#
# A negative $a_h$ makes a conflict at large $k$. At small $k$ the easy prompts must lose their weight first, and they do as they saturate: the share of the hard family in $\mathbb{E}[w_k]$ goes to 1, the sooner the larger $k$, and the threshold $k^*$ comes down.
# The formula of {prf:ref}`prop-two-families` takes the success rates within a family to be equal; with the means in their place it is close to the exact threshold. It is not before birth, where single hard prompts disagree while their mean does not, and conflicts exist at $k$ in the thousands.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: share of the hard family in the weights of pass@k. Right: the threshold; pass@k conflicts with pass@1 for all k above the line, and below k = 1000 for none where there is no line. Dashed: the formula for two families of equal success rates, with the means put in.", "name": "fig-life-threshold"}, "image": {"alt": "Two panels over the steps: the share of the hard family in the weights, and the threshold in k, exact and by the formula for two families."}}
hurt = table[table["agreement_hard"] < 0]
ratio = 1 + hurt["norm_at_1"] ** 2 / (hard_fraction * -hurt["agreement_hard"])
odds = np.log((1 - hurt["success_hard"]) / (1 - hurt["success_easy"]))
formula = 1 + np.log(ratio) / odds
exact = table["threshold"].where(table["threshold"] < 1000)


def draw(axes):
    for j in ks:
        share = at_order(life, j)["weight_hard"].iloc[1:]
        figures.curve(axes[0], share.index, share, of=f"pass@{j}", exact=True)
    figures.curve(axes[1], table.index, exact, of="exact", exact=True, label="exact")
    figures.curve(axes[1], formula.index, formula, of="bound", exact=True, label="formula")
    for ax, name in zip(axes, ("share of the weight", "threshold k*"), strict=True):
        ax.set(xscale="log", xlabel="step", xlim=(1.8, steps))
        figures.panel(ax, name)
        figures.legend(ax)
    axes[1].set(yscale="log" if exact.notna().any() else "linear")


both = pd.DataFrame({"exact": exact, "formula": formula})
alt = f"The exact threshold is lowest, {exact.min():.2f}, at step {exact.idxmin() if exact.notna().any() else 0}; the formula is off by at most {float((both['formula'] / both['exact'] - 1).abs().median()):.0%} at half of the measurements."
figures.show(draw, alt=alt, data=both.reset_index(), ncols=2, size=(9, 3.4))

# %% tags=["hide-input"]
Markdown(
    f"The lowest threshold is $k^* = {exact.min():.2f}$: "
    + (
        "even pass@2 conflicts with pass@1 then."
        if exact.min() < 2
        else "pass@2 never conflicts with pass@1 here."
    )
)

# %% [markdown]
# ### Pass@k falls exactly while it lasts
#
# Along the flow the derivative of $J_k$ is the product of the gradients. The steps are finite, so we look whether $J_k$ moves as the sign says between measurements that agree on the sign, in all runs below; changes at the level of rounding, where $J_k = 1$, are left out.

# %%
checks = []
for seed, one in lives.items():
    for j in ks:
        rows = at_order(one, j)
        before, after = rows["inner_product"].iloc[:-1], rows["inner_product"].iloc[1:]
        clear = np.sign(before.to_numpy()) == np.sign(after.to_numpy())
        change = np.diff(rows["pass_at_k"])
        clear &= np.abs(change) > 1e-12
        rises = change > 0
        checks.append((seed, j, int(clear.sum()), int((rises == (before > 0))[clear].sum())))
checks = pd.DataFrame(checks, columns=["seed", "k", "intervals", "as the sign says"])
checks.groupby("k")[["intervals", "as the sign says"]].sum()

# %% tags=["hide-input"]
values = at_order(life)["pass_at_k"]
top = values.loc[: ended if ended == ended else steps].idxmax()
bottom = values.loc[top:].idxmin()
Markdown(
    f"In the run of this page pass@{k} is {values.loc[top]:.4f} at step {top} and falls to {values.loc[bottom]:.4f} at step {bottom}, while pass@1 never falls; the gradients date birth and end at {born:g} and {ended:g}. "
    "Whoever logs pass@k in a pass@1 run has a meter of the conflict without computing any gradient."
)

# %% [markdown]
# ## Five seeds
#
# A seed decides the weights and which differences are asked. Everything else is the same.

# %%
rows = {}
for seed, one in lives.items():
    last = one["path"].iloc[-1]
    rows[seed] = phases(*zip(*at_order(one)["cosine"].items(), strict=True)) | {
        "least success, hard": one["path"]["success_hard"].min(),
        "last success, hard": last["success_hard"],
    }
summary = pd.DataFrame(rows).T.rename_axis("seed")
summary.round(4)

# %% tags=["hide-input"]
were_born, were_ended = summary["born"].notna(), summary["ended"].notna()
if steps == 2400:  # what the Result says
    assert (were_born.sum(), were_ended.sum()) == (5, 4)
open_ends = [str(seed) for seed in summary.index[were_born & ~were_ended]]
Markdown(
    f"A conflict at k = {k} is born on {int(were_born.sum())} of {len(seeds)} seeds and ends within {steps} steps on {int(were_ended.sum())}. "
    + (
        f"On seed {', '.join(open_ends)} it does not end while we look: $v_e / v_h$ stays where it is, as the hard family is lost at the rate at which the easy one saturates, down to a success rate of {summary['last success, hard'][were_born & ~were_ended].min():.1e}."
        if open_ends
        else "On every seed that has one, it ends."
    )
)

# %% [markdown]
# {prf:ref}`prop-two-families` says what decides. Solved for $h$, the condition is $h < h^*$ with the break-even share
#
# $$
# h^* = \frac{-\kappa_{eh}}{\kappa_{hh} - \kappa_{eh}} :
# $$
#
# with more hard prompts than that in the prompt law, the same weights would show no conflict at any $k$.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Five seeds; the one whose conflict does not end is grey. Left: cosine at k = 8. Middle: the share of hard prompts that would undo the conflict at these weights; where it is above the actual share (horizontal), there is a conflict at large k. Right: the saturation ratio, which falls where a conflict is to end.", "name": "fig-life-seeds"}, "image": {"alt": "Three panels over the steps for five seeds: cosine of the gradients at k = 8, the break-even share of hard prompts, and the saturation ratio."}}
kernel = every[["kernel_easy_hard", "kernel_hard_hard"]]
even = (-kernel["kernel_easy_hard"]).clip(lower=0)
even = (even / (even + kernel["kernel_hard_hard"])).rename("share")
even.index = pd.MultiIndex.from_arrays([every.index.get_level_values(0), every["step"]])
dashes = ["-", "--", "-.", ":", (0, (9, 2.5))]


def draw(axes):
    figures.zero(axes[0])
    axes[1].axhline(hard_fraction, color=figures.COLOURS["neutral"], linewidth=1)
    for seed, dash in zip(seeds, dashes, strict=False):
        series, of_seed = at_order(lives[seed])["cosine"].iloc[1:], even[seed].iloc[1:]
        ink = f"pass@{k}" if were_ended[seed] else "neutral"
        style = {"exact": True, "linestyle": dash, "label": f"seed {seed}"}
        figures.curve(axes[0], series.index, series, of=ink, **style)
        figures.curve(axes[1], of_seed.index, of_seed, of=ink, **style)
        ratio = split(lives[seed]["path"].set_index("step"))["saturation"].iloc[1:]
        figures.curve(axes[2], ratio.index, ratio, of=ink, **style)
    for ax, name in zip(
        axes, (f"cosine at k = {k}", "break-even share h*", "v_e / v_h"), strict=True
    ):
        ax.set(xscale="log", xlabel="step")
        figures.panel(ax, name)
    axes[2].set(yscale="log")
    figures.legend(axes[2], loc="lower left")


alt = f"Conflict at k = {k} is born on {int(were_born.sum())} of {len(seeds)} seeds and ends on {int(were_ended.sum())}; the lowest cosine lies between {summary['lowest'].min():.2f} and {summary['lowest'].max():.2f}. The break-even share rises to at most {even.max():.2f}."
figures.show(draw, alt=alt, data=even.reset_index(), ncols=3, size=(10.5, 3.4))

# %% [markdown]
# ## Other ascents from the same start
#
# The same models are trained up pass@k, and along a combination of the gradients of pass@1 and pass@k that lowers neither to first order ({ref}`sec-conflict-free`).
# Steps have the same size, but gradients do not have the same length: the figure says what happens along the way, not which is faster per unit of anything.

# %%
combined = ConflictFreeDirection(k, aggregator=aggregator)
ascents = {
    "pass@1": {seed: lives[seed] for seed in compared_seeds},
    f"pass@{k}": {seed: stored(f"pass@{k}", seed) for seed in compared_seeds},
    aggregator: {seed: stored(f"{aggregator}@{k}", seed) for seed in combined_seeds},
}
J_1, J_k = "pass@1", f"pass@{k}"
curves = pd.concat(
    {
        (name, seed): pd.DataFrame(
            {J_1: one["path"].set_index("step")["pass_at_1"], J_k: at_order(one)["pass_at_k"]}
        )
        for name, by_seed in ascents.items()
        for seed, one in by_seed.items()
    },
    names=["ascended", "seed", "step"],
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact pass@1 (left) and pass@8 (right) along three ascents from the same models: median over the seeds, band from the lowest to the highest; the combination was run on one seed.", "name": "fig-life-ascents"}, "image": {"alt": "Pass@1 and pass@8 against the step along pass@1 ascent, pass@8 ascent and the combination, with bands over the seeds."}}
def draw(axes):
    for ax, value in zip(axes, (J_1, J_k), strict=True):
        for name in ascents:
            by_step = curves.loc[name][value].groupby("step")
            middle, low, high = (by_step.agg(how).iloc[1:] for how in ("median", "min", "max"))
            figures.curve(ax, middle.index, middle, of=name, low=low, high=high)
        ax.set(xscale="log", xlabel="step", ylim=(None, 1.02))
        figures.panel(ax, value)
    figures.legend(axes[0], title="ascended", loc="lower right")


middle = curves.groupby(["ascended", "step"]).median()
half_way = min(measured_at, key=lambda step: abs(step - steps / 10))
alt = f"Medians at step {half_way}: " + "; ".join(
    f"along {name} pass@1 is {middle.loc[(name, half_way), J_1]:.3f} and pass@{k} {middle.loc[(name, half_way), J_k]:.3f}"
    for name in ascents
)
figures.show(draw, alt=alt, data=curves.reset_index(), ncols=2, size=(9, 3.4))

# %%
rows = []
for name, by_seed in ascents.items():
    for seed, one in by_seed.items():
        here = curves.loc[(name, seed)]
        solved = here.index[here[J_1] > 0.95]
        rows.append(
            {"ascended": name, "seed": seed}
            | phases(*zip(*at_order(one)["cosine"].items(), strict=True))
            | {
                "largest fall of J_1": float((here[J_1].cummax() - here[J_1]).max()),
                "largest fall of J_k": float((here[J_k].cummax() - here[J_k]).max()),
                "J_1 > 0.95 from step": float(solved[0]) if len(solved) else math.nan,
            }
        )
outcome = pd.DataFrame(rows).set_index(["ascended", "seed"])
if steps == 2400:  # what the text below says
    one, other = outcome.loc[("pass@1", 0)], outcome.loc[(aggregator, 0)]
    assert outcome.loc[f"pass@{k}", "born"].isna().all()
    assert other["lowest"] < one["lowest"]
    assert other["ended"] - other["born"] < (one["ended"] - one["born"]) / 10
    assert other["largest fall of J_1"] < 1e-12
outcome.round(4)

# %% tags=["hide-input"]
worst = outcome[["largest fall of J_1", "largest fall of J_k"]].groupby("ascended").max()
reached = outcome["J_1 > 0.95 from step"].groupby("ascended").agg(["count", "max"])
Markdown(
    "\n".join(
        f"- Along **{name}** pass@1 falls by {worst.loc[name, 'largest fall of J_1']:.4f} at most on the way, pass@{k} by {worst.loc[name, 'largest fall of J_k']:.4f}; "
        f"pass@1 exceeds 0.95 on {int(reached.loc[name, 'count'])} of {len(ascents[name])} seeds"
        + (f", by step {reached.loc[name, 'max']:g}." if reached.loc[name, "count"] else ".")
        for name in ascents
    )
)

# %% [markdown]
# Two things here we did not expect.
#
# Pass@k ascent does not conflict with pass@1 at its own $k$ anywhere along its way, on no seed: from the start it gives weight to the hard family, so that neither sign is lost.
# But it stops half way. Once both signs have a good chance, $k$ answers hardly ever all miss, the weights $k (1 - p)^{k-1}$ vanish on every prompt, and with them the reason to heed the letter: the policy hedges between the signs, as the best one would if it could not see the letter ({prf:ref}`prop-hedging`), and pass@1 creeps.
# A cosine says in which direction a gradient points, and nothing of how soon it will be gone.
#
# The combination meets a conflict of its own, deeper than that of pass@1 ascent: with both families half learnt, both gradients are long and the sign is all that is at stake. It is over sooner by an order of magnitude, because neither family was lost before it, and pass@1 never falls on the way.
# A deep cosine is not a long conflict.
#
# ## Where the gradients vanish
#
# A cosine of two vectors that are zero up to rounding is a random number, and late in training gradients do vanish.
# We give no cosine once a norm has fallen below a millionth of what it was at the start: a step along such a gradient does not change float32 weights.

# %%
gone = pd.concat(
    {
        (name, seed): one["orders"].assign(gone=one["orders"]["cosine"].isna())
        for name, by_seed in ascents.items()
        for seed, one in by_seed.items()
    },
    names=["ascended", "seed"],
)
smallest = (
    gone.groupby(["ascended", "k"])["norm"]
    .min()
    .unstack("k")
    .rename(columns="norm, k = {:g}".format)
)
missing = (
    gone.groupby(["ascended", "k"])["gone"]
    .mean()
    .unstack("k")
    .rename(columns="left out, k = {:g}".format)
)
assert VANISHING == 1e-6
pd.concat([smallest.map("{:.1e}".format), missing.map("{:.0%}".format)], axis=1)

# %% [markdown]
# The same first steps, taken again while this page was built, show that the stored runs are those of this code.

# %%
taken_steps = min(checked_steps, steps)
fewer = path | {"steps": taken_steps, "every": [taken_steps]}
again = conflict_life(ascended="pass@1", seed=seeds[0], world=world_options, **fewer)
before = life["orders"].query("step == @taken_steps")["cosine"].to_numpy()
now = again["orders"].query("step == @taken_steps")["cosine"].to_numpy()
assert np.abs(before - now).max() < 1e-3
f"largest difference of a cosine after {taken_steps} steps: {np.abs(before - now).max():.1e}"

# %% [markdown]
# ## Scope
#
# - The settings were chosen so that a conflict occurs: the share of hard prompts, the rates at the start, opposite signs. How often conflicts occur elsewhere is a question of measurement ({ref}`sec-measure-your-model`).
# - One share of hard prompts. By the break-even share a larger one undoes part of each conflict at the same weights; along a run of its own the weights would be others.
# - Ascent is plain: exact gradients, one step size. Adam and the natural gradient measure conflict in another metric; {ref}`sec-conflict-free` says which metrics leave none.
# - "Does not end" means within the steps that we took.
# - The combination was run on one seed, the one of this page.
# - A million weights and twelve differences in each family: a model organism of the mechanism, not of a reasoning model.
#
# ## Exercises
#
# ```{exercise} Dates without gradients
# :label: ex-life-dates
#
# Given only the curve of pass@k along a pass@1 ascent, at which steps was the conflict born, and when did it end? Compare with the gradients for the run of this page.
# ```
#
# ````{solution-start} ex-life-dates
# :class: dropdown
# ````
#
# At the maximum of pass@k and at the minimum that follows it, to the distance of two measurements: $\dot J_k = \langle \nabla J_k, \nabla J_1 \rangle$.

# %%
values = at_order(life)["pass_at_k"]
top = values.loc[:born].idxmax() if born == born else values.index[-1]
bottom = values.loc[top:].idxmin()
stops = list(values.index)
if ended == ended:
    assert abs(stops.index(top) - stops.index(born)) <= 1
    assert abs(stops.index(bottom) - stops.index(ended)) <= 1
top, bottom

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A prompt law without conflict
# :label: ex-life-share
#
# Take the weights of the model at each measurement of the run of this page as they are, and change the prompt law alone. With which share of hard prompts would none of these points show a conflict at any $k$?
# ```
#
# ````{solution-start} ex-life-share
# :class: dropdown
# ````
#
# With a share above the largest $h^*$ of the run: then $a_h \ge 0$ at every point. Below $h^*$ the agreement is negative; the points of the run itself show both.

# %%
needed = even[seeds[0]].max()
negative = (life["path"]["agreement_hard"] < 0).to_numpy()
assert ((hard_fraction < even[seeds[0]]).to_numpy() == negative).all()
at_needed = (1 - needed) * life["path"]["kernel_easy_hard"] + needed * life["path"][
    "kernel_hard_hard"
]
assert at_needed.min() > -1e-6 * life["path"]["kernel_hard_hard"].max()
round(float(needed), 3)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} Half of a large k
# :label: ex-life-limit
#
# By {prf:ref}`prop-two-families` the cosine at large $k$ tends to that of $\nabla P_h$ and $\nabla J_1$. Compute this limit at every measurement from the stored kernel, without any gradient. How far from it is the cosine at the largest $k$ that we have, when the conflict is deepest?
# ```
#
# ````{solution-start} ex-life-limit
# :class: dropdown
# ````
#
# It is $a_h / (\sqrt{\kappa_{hh}} \, \lVert \nabla J_1 \rVert)$. Within the family the success rates differ, and large $k$ prefers the least of them, so the limit is not met exactly.

# %%
points = life["path"].set_index("step")
limit = points["agreement_hard"] / (np.sqrt(points["kernel_hard_hard"]) * points["norm_at_1"])
largest = at_order(life, max(ks))["cosine"]
assert (limit.abs() <= 1 + 1e-9).all()
at_deepest = deepest if deepest == deepest else points.index[-1]
round(float(limit[at_deepest]), 3), round(float(largest[at_deepest]), 3)

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - a conflict born when the easy family leads, growing as the weights of pass@k move to the hard one, and ending, on most seeds, when the model heeds what tells the families apart;
# - that a hard family loses exactly while its agreement with pass@1 is negative, that is while the pull of the easy prompts exceeds its own force, and that this does not depend on $k$;
# - that pass@k falls along pass@1 ascent exactly while their gradients conflict: the curve of pass@k is a meter of the conflict;
# - pass@k ascent that never conflicts at its own $k$ and still stops short of pass@1, because its gradient vanishes;
# - a combination of both that meets a deeper and much shorter conflict, and goes all the way.
