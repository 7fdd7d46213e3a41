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
# (sec-training-study)=
# # A study of training
#
# **Result.** A small transformer with exact success rates was trained from samples with AdamW: twenty objectives and remedies, four kinds of prompt sets, a thousand steps. Four of the ten seeds that the protocol asks for are stored, so all of this is provisional.
# On every start with words to be written backwards, which the checkpoint seldom writes, pass@8 training took held-out pass@1 below its start; on no start without them did it. On all sixteen starts it had less pass@1 than pass@1 training, whatever the sign of the product of the gradients. A negative product was always followed by the fall, a positive one sometimes.
# Nothing was shown to beat pass@1 training in pass@1 at step 1,000, in any kind of set, and pass@8 training was not shown to beat it in pass@8. The mixtures and the conflict-free updates are not told from it, nor from each other, but for one or two of many intervals.
#
# **What you need.** The weights of pass@k ({ref}`sec-reweighting`) and the product of the two gradients ({ref}`sec-conflict`). No proof.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $J_1, J_8$ | pass@1 and pass@8 of a set of prompts, exact |
# | start | the checkpoint of a seed, before any training on rewards |
# | price | pass@1 of an arm less that of pass@1 training, at the same step and seed |
#
# The {ref}`protocol <training-protocol>` was written before the first run. It names the arms, the outcomes, and what would count as what.

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from passgrad.errors import UserError
from passgrad_book.build import figures
from passgrad_book.experiments.study import outcomes, plan
from passgrad_book.experiments.study.arms import ARMS
from passgrad_book.experiments.study.in_trl import study_in_trl
from passgrad_book.experiments.study.words import REGIMES

# %% tags=["parameters"]
learning_rate: float = 2e-4  # whose runs are read; the supplement has 7e-5 and 6e-4
arm: str = "pass@8"  # try this: the arm whose fall is looked at, such as "pass@4"
against: str = "mixture 0.5"  # try this: what the remedies are held against
horizons: list = [50, 150, 300, 1000]  # steps at which arms are compared
trl_seeds: list = [0, 1, 2]  # seeds that are also run in TRL
trl_steps: int = 300  # steps of these runs
trl_repeats: int = 5  # runs of the study's own loop beside each
checkpoint_steps: int = 600  # supervised steps of their checkpoints
workers: int = 2  # records at a time, for computing again
recompute: bool = False  # compute the stored results again and replace them (hours)

# %% tags=["hide-input"]
if recompute:
    plan.make(plan.everything(), workers)
readings = outcomes.read_study(learning_rate)
seeds = sorted(readings["seed"].unique())
Markdown(
    f"**{len(seeds)} of the {len(plan.SEEDS)} seeds** of the protocol are stored with all four regimes, {readings.groupby(['regime', 'seed', 'arm']).ngroups} runs. All intervals are 95 % t-intervals over these seeds."
)

# %% [markdown]
# ## What is trained
#
# A small transformer answers words of four letters. Its answers have four tokens, so every success rate is exact, on the prompts that it is trained on and on others that it never sees.
# Most prompts ask for the word itself. In three of the four regimes some ask for the word backwards, which the checkpoint hardly ever writes; an eighth ask for something that no sample will ever show.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The families of a checkpoint lie far apart: common words are mostly solved, words backwards hardly ever, shifted ones never. Mean success rates of held-out prompts by family; every seed is one line.", "name": "fig-study-rates"}, "image": {"alt": "Shares of prompts by family and regime with their mean success rates at the start."}}
families = [f"held_{name}" for name in ("common", "rare", "backwards", "shifted")]
begin = readings[(readings["step"] == 0) & (readings["arm"] == "pass@1")]


def draw(axes):
    for ax, regime in zip(axes, REGIMES, strict=True):
        rows = begin[begin["regime"] == regime]
        for _, row in rows.iterrows():
            figures.curve(
                ax,
                range(4),
                row[families].astype(float),
                of="population",
                exact=True,
                label="",
                alpha=0.5,
            )
        ax.set_xticks(range(4), ["common", "rare", "back", "shifted"], rotation=45)
        figures.panel(ax, regime)
    axes[0].set(ylabel="mean success rate", ylim=(-0.02, 1))


means = begin.groupby("regime")[["held_pass@1", "held_pass@8"]].mean()
alt = "Mean success rates of four families at the start. " + " ".join(
    f"{regime}: pass@1 {means.loc[regime, 'held_pass@1']:.2f}, pass@8 {means.loc[regime, 'held_pass@8']:.2f}."
    for regime in REGIMES
)
figures.show(
    draw, alt=alt, data=begin[["regime", "seed", *families]], ncols=4, size=(8.4, 2.9), sharey=True
)

# %% [markdown]
# ## Does training for pass@8 lower pass@1?
#
# **Before you look:** in which of the four regimes will pass@1 fall, and will it come back within 1,000 steps?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@8 training takes pass@1 below its start in the three regimes with words backwards, for tens of steps to nearly all thousand, and not in the fourth. Pass@1 of held-out prompts, exact; thin lines are seeds, thick ones their means.", "name": "fig-study-runs"}, "image": {"alt": "Pass@1 of held-out prompts along training for four arms in four regimes."}}
shown = {"pass@1": "pass@1", "pass@8": "pass@8", "mixture 0.5": "mixture", "annealed": "annealed"}
curves = readings[readings["arm"].isin(shown)]


def draw(axes):
    for ax, regime in zip(axes.flat, REGIMES, strict=True):
        part = curves[curves["regime"] == regime]
        for name, style in shown.items():
            own = part[part["arm"] == name].pivot(
                index="step", columns="seed", values="held_pass@1"
            )
            for seed in own:
                figures.curve(
                    ax,
                    own.index,
                    own[seed],
                    of=style,
                    exact=True,
                    label="",
                    linewidth=0.5,
                    alpha=0.45,
                )
            figures.curve(
                ax, own.index, own.mean(axis=1), of=style, exact=True, label=name, linewidth=2
            )
        ax.axhline(
            part.loc[part["step"] == 0, "held_pass@1"].mean(),
            color=figures.COLOURS["neutral"],
            linewidth=1,
        )
        figures.panel(ax, regime)
    for ax in axes[:, 0]:
        ax.set(ylabel="pass@1")
    for ax in axes[1]:
        ax.set(xlabel="step")
    figures.legend(axes[0, 0], fontsize=8)


ends = outcomes.intervals(outcomes.differences(readings, 1000, "held_pass@1", "start"))
alt = "Mean change of pass@1 from the start to step 1000, in points: " + "; ".join(
    f"{regime}: "
    + ", ".join(f"{name} {100 * ends.loc[(regime, name), 'mean']:+.1f}" for name in shown)
    for regime in REGIMES
)
figures.show(
    draw,
    alt=alt,
    data=curves[["regime", "seed", "arm", "step", "held_pass@1"]],
    nrows=2,
    ncols=2,
    size=(8.4, 6.0),
    sharex=True,
)

# %% tags=["hide-input"]
path = outcomes.paths_of(readings)
own = path[path["arm"] == arm]
fell = outcomes.dips(readings, arm)
rows = []
for regime in REGIMES:
    part = own[own["regime"] == regime]
    end = ends.loc[(regime, arm)]
    rows.append(
        {
            "regime": regime,
            "seeds that dip": f"{int(fell[regime].sum())} of {len(part)}",
            "lowest, points below": f"{100 * (part['start'] - part['lowest']).min():.0f} to {100 * (part['start'] - part['lowest']).max():.0f}",
            "steps below": f"{part['below'].min():.0f} to {part['below'].max():.0f}",
            "at step 1000, against the start": f"{100 * end['mean']:+.1f} ({100 * end['low']:+.1f} to {100 * end['high']:+.1f})",
            "lasting loss": "yes" if end["high"] < 0 else "no",
        }
    )
Markdown(
    f"**Pass@1 of held-out prompts along {arm} training**, in points; all over the seeds, from the least to the most.\n\n"
    + pd.DataFrame(rows).to_markdown(index=False)
)

# %% [markdown]
# A *dip* is a fall of at least a point within 150 steps; a *lasting loss* is an interval below zero at step 1,000.
#
# ## What does it cost beside pass@1 training?
#
# Whoever asks "will it hurt me" compares with the run that they would have made instead.
# (The protocol names step 150. The runs are read at 140 and 160, so what is shown at 150 is the mean of the two.)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@8 training has less pass@1 than pass@1 training on every start at every one of these steps, with or without a conflict. Held-out pass@1 of pass@8 training less that of pass@1 training; dots are seeds, bars 95 % intervals.", "name": "fig-study-price"}, "image": {"alt": "Differences of pass@1 between pass@8 and pass@1 training at four horizons."}}
prices = {
    step: outcomes.differences(readings, step, "held_pass@1", "pass@1")[arm] for step in horizons
}


def draw(axes):
    for ax, regime in zip(axes, REGIMES, strict=True):
        for place, step in enumerate(horizons):
            values = 100 * prices[step][regime]
            figures.points(
                ax,
                np.full(len(values), place) - 0.15,
                values,
                of=arm,
                exact=True,
                label="",
                markersize=3,
                alpha=0.6,
            )
            whole = outcomes.interval(values)
            figures.points(
                ax,
                [place + 0.15],
                [whole["mean"]],
                of=arm,
                low=[whole["low"]],
                high=[whole["high"]],
                label="",
            )
        figures.zero(ax)
        ax.set_xticks(range(len(horizons)), horizons)
        ax.set(xlabel="step")
        figures.panel(ax, regime)
    axes[0].set(ylabel="points of pass@1")


table = pd.DataFrame(
    [
        {"regime": regime, "step": step, **outcomes.interval(100 * prices[step][regime])}
        for regime in REGIMES
        for step in horizons
    ]
)
alt = "Mean differences in points: " + "; ".join(
    f"{row.regime} at {row.step}: {row.mean:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
    for row in table.itertuples()
)
figures.show(draw, alt=alt, data=table, ncols=4, size=(8.4, 3.2), sharey=True)

# %% tags=["hide-input"]
family = outcomes.kept(readings)
lines = [
    f"- {regime}: "
    + ", ".join(
        f"{name} {family.loc[(regime, name), 'kept']} of {family.loc[(regime, name), 'seeds']}"
        for name in ("pass@1", "GRPO", "pass@4", "pass@8", "mixture 0.5", "annealed")
    )
    for regime in ("negative", "zero")
]
Markdown(
    "Means can hide two kinds of ends: the words that are to be written backwards are learnt, or given up. **Seeds that end with more than half of them right:**\n\n"
    + "\n".join(lines)
)

# %% [markdown]
# ## Does the sign of the product tell?
#
# Every checkpoint and regime is one start, with its cosine of $\nabla J_1$ and $\nabla J_8$ on the training prompts. Nothing was chosen by it.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Every start with a negative cosine dipped; so did some with a positive one, fewer of them when the cosine is read after ten steps. Each point is a start: the cosine against the deepest fall of held-out pass@1 within 150 steps. Exact.", "name": "fig-study-sign"}, "image": {"alt": "Cosine of the gradients against the deepest fall of pass@1, at the start and after ten steps."}}
calls = outcomes.predictions(readings, arm)
early = readings[(readings["arm"] == arm) & (readings["step"] <= outcomes.DIP_STEPS)]
calls["fall"] = (
    outcomes.start_of(readings, "held_pass@1")
    - early.groupby(["regime", "seed"])["held_pass@1"].min()
)
looks = {"negative": "hard", "hidden": "bootstrap", "zero": "sampled", "positive": "easy"}


def draw(axes):
    for ax, name in zip(axes, ("at the start", "after ten steps"), strict=True):
        for regime, look in looks.items():
            part = calls.loc[regime]
            figures.points(ax, part[name], 100 * part["fall"], of=look, exact=True, label=regime)
        ax.axvline(0, color=figures.COLOURS["neutral"], linewidth=1)
        ax.set(xlabel=f"cosine {name}")
    axes[0].set(ylabel="deepest fall of pass@1, points")
    figures.legend(axes[1], fontsize=8)


called = outcomes.right_calls(
    calls[["at the start", "after ten steps", "after ten steps, Adam", "dip"]], "dip"
)
whole = called[called["regime"] == "all"].set_index("predictor")
alt = "Right calls of a dip: " + "; ".join(
    f"{name}: {row.right} of {row.of}, {row.missed} missed, {row.false_alarm} false alarms"
    for name, row in whole.iterrows()
)
figures.show(draw, alt=alt, data=calls.reset_index(), ncols=2, size=(8.0, 3.4), sharey=True)

# %% tags=["hide-input"]
lost = outcomes.right_calls(
    calls[["at the start", "after ten steps", "after ten steps, Adam", "loss"]], "loss"
)
both = called.merge(lost, on=["predictor", "regime"], suffixes=(" dip", " loss"))
both = both[both["regime"] == "all"]
table = pd.DataFrame(
    {
        "predictor": both["predictor"],
        "dip: right": [
            f"{a} of {b}" for a, b in zip(both["right dip"], both["of dip"], strict=True)
        ],
        "missed": both["missed dip"],
        "false alarms": both["false_alarm dip"],
        "less than pass@1 training at step 150: right": [
            f"{a} of {b}" for a, b in zip(both["right loss"], both["of loss"], strict=True)
        ],
    }
)
Markdown(table.to_markdown(index=False))

# %% [markdown]
# The starts are four laws over the same checkpoints and not independent draws. "Always" says that the outcome comes everywhere; a predictor that does not beat it tells nothing. The protocol asks a predictor to be right on nine starts of ten before it is said to tell; differences of two or three starts between predictors are none.
#
# ## What is each remedy worth?
#
# Every arm beside the mixture of halves that nobody tuned.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Beside the mixture of halves, the arms that train pass@k alone lose pass@1; the others are hardly told from it. Held-out pass@1 and pass@8 at step 1,000, less those of the mixture of halves: means with 95 % intervals over seeds.", "name": "fig-study-remedies"}, "image": {"alt": "Differences of each arm to the mixture of halves in pass@1 and pass@8, by regime."}}
beside = {k: outcomes.differences(readings, 1000, f"held_pass@{k}", against) for k in (1, 8)}
listed = [name for name in ARMS if name != against][::-1]


def draw(axes):
    for ax, regime in zip(axes, REGIMES, strict=True):
        for k, shift in ((1, 0.16), (8, -0.16)):
            rows = [outcomes.interval(100 * beside[k].loc[regime, name]) for name in listed]
            middle = np.array([row["mean"] for row in rows])
            reach = np.array([row["high"] - row["mean"] for row in rows])
            look = figures.COLOURS[f"pass@{k}"]
            ax.errorbar(
                middle,
                np.arange(len(listed)) + shift,
                xerr=reach,
                fmt="o" if k == 1 else "s",
                markersize=3.5,
                color=look,
                elinewidth=1,
                label=f"pass@{k}",
            )
        ax.axvline(0, color=figures.COLOURS["neutral"], linewidth=1)
        ax.set(xlabel="points")
        figures.panel(ax, regime)
    axes[0].set_yticks(range(len(listed)), listed)
    figures.legend(axes[-1], fontsize=8, loc="lower left")


verdict = outcomes.verdicts(readings, against)
alt = f"Beside {against}: " + "; ".join(
    f"{name}: pass@1 above in {row['pass@1 above'] or 'none'}, below in {row['pass@1 below'] or 'none'}"
    for name, row in verdict.iterrows()
)
data = pd.concat(
    {k: outcomes.intervals(100 * frame) for k, frame in beside.items()}, names=["k"]
).reset_index()
figures.show(draw, alt=alt, data=data, ncols=4, size=(9.2, 6.2), sharey=True)

# %% tags=["hide-input"]
better = verdict.index[verdict["better"].astype(bool)]
Markdown(
    f"**Better than {against} by the protocol** (above in pass@1 somewhere, below nowhere, in neither order): {', '.join(better) or 'none'}. An arm that is above in one regime alone is a suggestion: of so many arms one gets there by chance.\n\n"
    + verdict.drop(columns="better").replace("", "–").to_markdown()
)

# %% [markdown]
# ## How much of pass@1 should a mixture have?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@8 training alone loses pass@1; the shares from 0.2 to 1 are hardly told from each other. Held-out pass@1 and pass@8 at step 1,000 less those of the mixture of halves, against the share of pass@1, from pass@8 training (0) to pass@1 training (1); 95 % intervals of the differences within seeds.", "name": "fig-study-mixtures"}, "image": {"alt": "Pass@1 and pass@8 at the end against the share of pass@1 in the mixture, by regime."}}
shares = {
    "pass@8": 0.0,
    "mixture 0.2": 0.2,
    "mixture 0.35": 0.35,
    "mixture 0.5": 0.5,
    "mixture 0.65": 0.65,
    "mixture 0.8": 0.8,
    "pass@1": 1.0,
}
apart = {
    k: 100 * outcomes.differences(readings, 1000, f"held_pass@{k}", against)[list(shares)]
    for k in (1, 8)
}


def draw(axes):
    for ax, regime in zip(axes, REGIMES, strict=True):
        for k in (1, 8):
            rows = pd.DataFrame([outcomes.interval(apart[k].loc[regime, name]) for name in shares])
            figures.curve(
                ax,
                list(shares.values()),
                rows["mean"],
                of=f"pass@{k}",
                low=rows["low"],
                high=rows["high"],
            )
        figures.zero(ax)
        ax.set(xlabel="share of pass@1")
        figures.panel(ax, regime)
    axes[0].set(ylabel="points, beside the mixture of halves")
    figures.legend(axes[-1], fontsize=8)


alt = f"Mean pass@1 at the end less that of {against}, in points, by share of pass@1: " + "; ".join(
    f"{regime}: "
    + ", ".join(
        f"{share:g} {apart[1].loc[regime, name].mean():+.1f}" for name, share in shares.items()
    )
    for regime in REGIMES
)
data = pd.concat(
    {k: outcomes.intervals(frame) for k, frame in apart.items()}, names=["k"]
).reset_index()
figures.show(draw, alt=alt, data=data, ncols=4, size=(8.8, 3.1), sharey=True)

# %% [markdown]
# ## What would one train without knowing the regime?
#
# For each arm, how far $(J_1 + J_8)/2$ at step 1,000 falls short of the best arm of the regime, in points; sorted by the largest of the four.

# %% tags=["hide-input"]
short = 100 * outcomes.shortfalls(readings)
Markdown(short.round(1).to_markdown())

# %% [markdown]
# ## Is it seen on the training prompts?
#
# In "hidden" nothing in a prompt tells whether the word is asked for forwards or backwards. On prompts that are trained on, a policy can still learn by heart which is which.

# %% tags=["hide-input"]
gaps = pd.DataFrame(
    {
        "training prompts": outcomes.at(readings, 1000, "train_pass@1").loc["hidden"].mean(),
        "held-out prompts": outcomes.at(readings, 1000, "held_pass@1").loc["hidden"].mean(),
    }
).loc[["pass@1", "mixture 0.5", "annealed", "pass@4", "pass@8"]]
Markdown(
    "**Pass@1 at step 1,000 in the regime hidden**, means over seeds:\n\n"
    + gaps.round(3).to_markdown()
)

# %% [markdown]
# ## How much of this is the length of the way?
#
# Groups without a gradient are silent. Near the end of pass@8 training most are, and its weights move less.

# %% tags=["hide-input"]
some = ["pass@1", "mixture 0.5", "pass@4", "pass@8"]
equal = outcomes.at_equal_path(readings, "held_pass@1", some)
rows = []
for regime in REGIMES:
    part = path[path["regime"] == regime].groupby("arm")
    gap = outcomes.interval(100 * (equal["pass@8"] - equal["pass@1"])[regime])
    rows.append(
        {
            "regime": regime,
            **{
                f"silent, {name}": f"{100 * part['silent'].mean()[name]:.0f} %"
                for name in ("pass@1", "pass@8")
            },
            **{
                f"path, {name}": f"{part['path'].mean()[name]:.1f}" for name in ("pass@1", "pass@8")
            },
            "pass@8 less pass@1 training at equal path, points of pass@1": f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})",
        }
    )
Markdown(pd.DataFrame(rows).to_markdown(index=False))

# %% [markdown]
# ## Does the learning rate decide it?

# %% tags=["hide-input"]
rows = []
for rate in (plan.OTHER_RATES[0], learning_rate, plan.OTHER_RATES[1]):
    try:
        other = outcomes.read_study(rate)
    except UserError:  # a part of the supplement that is not stored yet
        continue
    other = other[other["seed"].isin(plan.OTHER_SEEDS)]
    steps = outcomes.paths_of(other[other["arm"] == "pass@8"])
    price = outcomes.differences(other, 1000, "held_pass@1", "pass@1")
    for regime in REGIMES:
        part = steps[steps["regime"] == regime]
        rows.append(
            {
                "rate": f"{rate:.0e}",
                "regime": regime,
                "seeds": len(part),
                "pass@8: deepest fall, points": f"{100 * (part['start'] - part['lowest']).mean():.1f}",
                "steps below the start": f"{part['below'].mean():.0f}",
                "pass@8 less pass@1 training at the end": f"{100 * price.loc[regime, 'pass@8'].mean():+.1f}",
                "mixture 0.5 less pass@1 training": f"{100 * price.loc[regime, 'mixture 0.5'].mean():+.1f}",
            }
        )
Markdown(
    "Means over the seeds that the supplement has.\n\n"
    + pd.DataFrame(rows).to_markdown(index=False)
)

# %% [markdown]
# ## Is it the same in TRL?
#
# The same checkpoints, prompts and arm in TRL's trainer, beside runs of the study's own loop that differ from each other in their draws alone.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "TRL's trainer follows the runs of the study, and ends among five of them or just below. Pass@1 of held-out prompts along pass@8 training in the regime negative: one panel a checkpoint, exact.", "name": "fig-study-trl"}, "image": {"alt": "Pass@1 along pass@8 training in TRL and in the study's loop, for three checkpoints."}}
trl = [
    study_in_trl.result(
        regime="negative", arm="pass@8", seed=seed, learning_rate=2e-4, steps=trl_steps,
        repeats=trl_repeats, supervised_steps=checkpoint_steps, recompute=recompute,
    )["readings"]
    for seed in trl_seeds
]  # fmt: skip


def draw(axes):
    for ax, runs, seed in zip(np.atleast_1d(axes), trl, trl_seeds, strict=True):
        own = runs[runs["source"] == "study"]
        for _, run in own.groupby("repeat"):
            figures.curve(
                ax,
                run["step"],
                run["held_pass@1"],
                of="neutral",
                exact=True,
                label="",
                linewidth=0.8,
            )
        run = runs[runs["source"] == "TRL"]
        figures.curve(
            ax, run["step"], run["held_pass@1"], of="pass@8", exact=True, label="TRL", linewidth=2
        )
        ax.set(xlabel="step")
        figures.panel(ax, f"seed {seed}")
    np.atleast_1d(axes)[0].set(ylabel="pass@1")


inside = []
for runs in trl:
    wide = runs.pivot(index="step", columns=["source", "repeat"], values="held_pass@1")
    spread = wide["study"].std(axis=1)
    z = (wide["TRL"][0] - wide["study"].mean(axis=1)) / spread.where(spread > 0)
    inside.append(float(z.loc[z.index >= min(50, trl_steps)].abs().mean()))
alt = (
    "Mean distance of TRL's curve from the mean of the study's runs behind step 50, in their standard deviations: "
    + ", ".join(f"{x:.1f}" for x in inside)
)
figures.show(
    draw,
    alt=alt,
    data=pd.concat([runs.assign(seed=s) for runs, s in zip(trl, trl_seeds, strict=True)]),
    ncols=len(trl_seeds),
    size=(8.4, 2.9),
    sharey=True,
)

# %% [markdown]
# ## Scope
#
# One architecture of a hundred thousand weights, one kind of task, one optimiser. The sizes of the effects are those of this world.
# With four seeds the intervals are wide where a family is learnt or given up by a seed: in "negative" a difference of several points between arms would not be seen.
#
# What was not as the protocol says, and what was looked at:
#
# - four of ten seeds are stored, for want of machine time, in the order of their numbers; `make study` makes the others. This text and the claims on it were written while these four came in, so they are descriptions of these seeds; the other six will test them;
# - the runs are read at 140 and 160 and not at 150;
# - beside the runs that the protocol names, two more arms on seed 100, and seven for 60 steps to see that they run, were looked at before it;
# - the updates in the metric of Adam divide each measurement by its own trace; `ConflictFree` of the package now divides by what the second moments expect, which adds no noise.
#
# ## Exercises
#
# ```{exercise-start} Before the run
# :label: ex-study-predict
# ```
# Predict with the formula of the weights: in the regime "positive" most prompts are solved with $p \approx 0.9$. How long is $\nabla J_8$ against $\nabla J_1$, and what does that say of the price at step 150?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-study-predict
# :class: dropdown
# ```
# At $p = 0.9$ the weight is $8 \cdot 0.1^7 = 8 \cdot 10^{-7}$: such prompts do not count. What remains are those of rare letters with middling rates. Nearly all groups are silent, Adam's steps follow the few that are not, and pass@1 rises more slowly than under pass@1 training: a price without any conflict.
# ```{solution-end}
# ```
#
# ```{exercise-start} Another horizon
# :label: ex-study-horizon
# ```
# Run the chapter with `arm="pass@4"`. Is the dip of pass@4 half as deep, and is it shorter? Look at the table before you look at the figure.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-study-horizon
# :class: dropdown
# ```
# The table of the second section has the answer for the chosen arm: compare "lowest" and "steps below" of the two runs of the chapter. The weight of pass@4 at $p = 0.5$ is $4 \cdot 0.5^3 = 0.5$ against $8 \cdot 0.5^7 \approx 0.06$ of pass@8, so that prompts of middling rate still count.
# ```{solution-end}
# ```
#
# ```{exercise-start} A coin
# :label: ex-study-coin
# ```
# Suppose that an outcome comes in 37 of 40 starts. How often is a predictor right that says "yes" on 20 starts at random?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-study-coin
# :class: dropdown
# ```
# It is right on the starts where it says yes and the outcome comes, $20 \cdot 37/40 = 18.5$ on average, and where it says no and it does not, $20 \cdot 3/40 = 1.5$: 20 of 40. Saying "always" is right on 37.
# ```{solution-end}
# ```
