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
# (sec-training)=
# # Training with pass@k
#
# **Result.** A trainer of TRL ascends pass@k for any $k$ up to its number of completions once its advantages are replaced: one hook, nothing else.
# We train SmolLM2-135M so, from three checkpoints of two tasks, on pass@1, pass@4, pass@8 and GRPO's own objective, and take the exact success rates after every step.
# What such training does over hundreds of steps and many seeds is the subject of {ref}`sec-training-study`. Here eight steps from three starts show the machinery: from the start with a conflict pass@8 training lost pass@1 in one and the same step of each of its three seeds, which is one observation and not three, and at all three starts it ended below pass@1 training.
# The trainer's estimates can be held against the truth, and the change of pass@1 that a step makes against the one that its gradient predicts.
#
# **What you need.** {ref}`sec-estimators` for the advantages, {ref}`sec-language-exact` for exact success rates of a language model.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $n$ | completions of a prompt in a step |
# | $c$ | how many of them are right |
# | $A_i$ | advantage of the $i$-th completion |
# | $J_k = \mathbb{E}_x[1 - (1 - p(x))^k]$ | pass@k, exact here |
# | $\theta_t$ | trained weights after $t$ steps |
# | $\langle \nabla J_1(\theta_t), \theta_{t+1} - \theta_t \rangle$ | predicted change of pass@1 in a step |

# %%
import itertools
import tempfile
import warnings

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.stats import t as student
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from passgrad.errors import UserError
from passgrad.estimators import advantages
from passgrad.lm.models import fetch
from passgrad.trl.settings import find_biases
from passgrad_book.build import figures
from passgrad_book.experiments.training import training_pass_at_k

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
    from trl import GRPOConfig

    from passgrad.trl import (
        ConflictCallback,
        PassKGRPOTrainer,
        end_at_stop,
        task_dataset,
        task_reward,
    )
    from passgrad_book.experiments import training as experiment

# %% [markdown]
# The runs are short: each takes two to three minutes on one core.
# The targets are the success rates that the checkpoint is brought to, for the easy and the hard prompts.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the language model
tasks: list = ["conventions", "reasoning-gym"]  # what it is trained on
objectives: list = ["pass@1", "pass@4", "pass@8", "GRPO"]  # what is ascended
seeds: list = [0, 1, 2]  # of the order of the prompts and of the samples
num_prompts: list = [8, 2]  # easy and hard prompts of each task
targets: list = [0.8, 0.06]  # success rates of the two kinds that the start aims at
later_targets: list = [0.93, 0.05]  # those of a later start of the first task
warmup_steps: int = 36  # exact steps that bring the model there
layers: int = 4  # last layers that have an adapter
steps: int = 8  # training steps of a run
learning_rate: float = 0.15  # of plain SGD, in units of the gradient
batch_prompts: int = 5  # prompts of a step
num_generations: int = 16  # completions of a prompt in a step
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## Where pass@k enters
#
# A step of TRL draws $n$ completions for each of some prompts, rewards them, turns the rewards of each group into advantages, and takes one step along
#
# $$
# \hat g = \frac{1}{P} \sum_x \sum_{i=1}^{n} A_i(x)\, \nabla \log \pi_\theta(y_i \mid x).
# $$
#
# Rewards enter through the advantages alone.
# `PassKGRPOTrainer` computes them with an estimator of {ref}`sec-estimators` and leaves sampling, loss, optimiser, checkpoints and distribution to TRL.
# For rewards of 0 and 1 an advantage depends on $c$ and on whether the completion is right. Of eight completions:

# %%
table = {}
for name, chosen in experiment.OBJECTIVES.items():
    for c in (0, 1, 2, 4, 8):
        rewards = torch.tensor([[1.0] * c + [0.0] * (8 - c)])
        row = advantages(rewards, chosen.get("k"), estimator=chosen.get("estimator", "pkpo-loo1"))
        table[name, "right"] = [*table.get((name, "right"), []), float(row[0, 0]) if c else np.nan]
        table[name, "wrong"] = [
            *table.get((name, "wrong"), []),
            float(row[0, -1]) if c < 8 else np.nan,
        ]
by_count = pd.DataFrame(table, index=pd.Index([0, 1, 2, 4, 8], name="c"))
by_count.round(3)

# %% [markdown]
# Pass@8 of eight completions learns from a group only if exactly one of them is right: all other groups say nothing about it.
# With $n = k$ that is the price of being unbiased; more completions than $k$ buy a lower variance.
#
# ## Settings that change the objective without a word
#
# TRL's defaults are made for GRPO. With pass@k advantages they would train something else.
# The trainer looks at the settings before anything starts, and refuses.

# %%
place = tempfile.mkdtemp()
defaults = GRPOConfig(place, use_cpu=True, bf16=False)
try:
    PassKGRPOTrainer(model, print, defaults, k=8)
except UserError as refusal:
    print(str(refusal).replace("; ", ";\n"))

# %% [markdown]
# What else it refuses, and why:

# %%
options = {
    "beta": 0.04,
    "temperature": 0.7,
    "top_p": 0.95,
    "num_iterations": 2,
    "mask_truncated_completions": True,
    "top_entropy_quantile": 0.2,
}
strange = GRPOConfig(place, use_cpu=True, bf16=False, **options)
found = [(one.setting, str(one.value), one.reason) for one in find_biases(strange, "grpo")]
with pd.option_context("display.max_colwidth", None):
    display(pd.DataFrame(found, columns=["setting", "value", "reason"]).set_index("setting"))

# %% [markdown]
# Division by the deviation of the group undoes pass@k altogether: for rewards of 0 and 1 the advantages of any $k$ are an affine function of the reward within a group, so that standardised they are those of GRPO again.
# Exercise 1 shows it.
# `allow_biased=True` lets such settings through, and the run carries the list of them in its logs and checkpoints.
#
# ## Twenty lines
#
# The whole of a training script. Here it takes two steps with a small network of random weights, so that it runs on this page in a second; `pg.load_model` in its place gives the runs below.

# %%
task = experiment.make_task("conventions", num_prompts)
folder = fetch("smollm2-135m")
small = {"hidden_size": 36, "intermediate_size": 64, "num_hidden_layers": 2}
heads = {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 12}
config = AutoConfig.from_pretrained(folder, **small, **heads)
torch.manual_seed(0)
network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
end_at_stop(network, tokenizer, task)

# %%
args = GRPOConfig(
    place, loss_type="dr_grpo", scale_rewards="none", max_grad_norm=1e9,
    num_generations=8, per_device_train_batch_size=32, max_completion_length=4,
    learning_rate=0.05, lr_scheduler_type="constant", optim="sgd", max_steps=2,
    gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none",
    logging_strategy="no", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
)  # fmt: skip

# %%
trainer = PassKGRPOTrainer(
    network, task_reward(task), args, task_dataset(task), processing_class=tokenizer,
    k=8, scale="gradient", callbacks=[ConflictCallback(every=1, plot=False)],
)  # fmt: skip
trainer.remove_callback(PrinterCallback)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    trainer.train()
trainer.record()

# %% [markdown]
# `scale="gradient"` makes the learning rate that of plain ascent on $J_k$: TRL's `dr_grpo` loss divides by the longest completion that is allowed, and this takes the factor out.
#
# ## Two tasks, three starts
#
# *Conventions* are the sums of {ref}`sec-language-exact` without worked examples, in base 10 (easy) and base 9 (hard): the same digits ask for two answers.
# *Reasoning-gym* are sums of two one-digit terms (easy) and of three (hard) from its `chain_sum`, with its answers.
# A prompt has one accepted answer, ended by a newline, so that $p(x)$ is exact.
# We train a LoRA adapter in the last layers, which makes a step cheap; all gradients are in its weights.
#
# All runs from a start begin at one checkpoint.
# It is made by exact steps that bring the easy prompts and the hard ones to given success rates (`targets`).
# The first task has a second start, later in its life: the easy prompts are nearly solved and the hard ones are not (`later_targets`).
# So the rates at the start are designed, and reached as far as the adapter gets in so many steps. What the gradients do to each other is the model's own.
# Each run is stored on its own.

# %%
settings = {
    "model": model, "num_prompts": num_prompts, "layers": layers, "warmup_steps": warmup_steps,
    "steps": steps, "learning_rate": learning_rate, "batch_prompts": batch_prompts,
    "num_generations": num_generations,
}  # fmt: skip
starts = {task: (task, targets) for task in tasks}
starts[f"{tasks[0]}, later"] = (tasks[0], later_targets)
runs = {}
for name, (task, aims) in starts.items():
    for objective, seed in itertools.product(objectives, seeds):
        runs[name, objective, seed] = training_pass_at_k.result(
            task=task,
            objective=objective,
            seed=seed,
            start=name,
            targets=aims,
            **settings,
            recompute=recompute,
        )
runs[tasks[0], objectives[0], seeds[0]]

# %%
names = ["start", "objective", "seed"]
path = pd.concat({key: one["steps"] for key, one in runs.items()}, names=names)
path = path.reset_index(names).reset_index(drop=True).astype({"step": int})
prompts = pd.concat({key: one["prompts"] for key, one in runs.items()}, names=names)
prompts = prompts.reset_index(names).reset_index(drop=True)
measured = pd.concat({key: one["conflict"] for key, one in runs.items()}, names=names)
measured = measured.reset_index(names).reset_index(drop=True).astype({"step": int})
first = path[path["step"] == 0].groupby("start", sort=False)
assert (first[["pass@1", "pass@8"]].agg(np.ptp) == 0).all(axis=None), "one checkpoint a start"
columns = ["pass@1", "pass@4", "pass@8", "cosine pass@4", "cosine pass@8", "negative agreement"]
begin = first[columns].first()
begin.round(3)

# %% tags=["hide-input"]
Markdown(
    "\n".join(
        f"- *{start}*: the cosine of the gradients of pass@1 and pass@8 is {row['cosine pass@8']:+.2f} at the start, that of pass@1 and pass@4 {row['cosine pass@4']:+.2f}: "
        + ("a conflict." if row["cosine pass@8"] < 0 else "no conflict.")
        for start, row in begin.iterrows()
    )
)

# %% [markdown]
# ## The runs
#
# Exact pass@1 and pass@8 after every step.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Exact pass@1 (left) and pass@8 (right) over training on four objectives, from one checkpoint for each start. Lines are means over the seeds, bands run from the lowest seed to the highest.", "name": "fig-training-runs"}, "image": {"alt": "Exact pass@1 and pass@8 over the training steps for four objectives from three starts."}}
def draw(axes):
    for row, start in zip(np.reshape(axes, (-1, 2)), starts, strict=True):
        for ax, k in zip(row, (1, 8), strict=True):
            for objective in objectives:
                some = path[(path["start"] == start) & (path["objective"] == objective)]
                by = some.groupby("step")[f"pass@{k}"]
                look = {"GRPO": "arcsin"}.get(objective, objective)
                band = {"low": by.min(), "high": by.max(), "label": objective}
                figures.curve(ax, by.mean().index, by.mean(), of=look, marker=None, **band)
            ax.set(xlabel="step", ylabel=f"exact pass@{k}")
            figures.panel(ax, start)
    beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)}
    figures.legend(np.ravel(axes)[1], title="ascended", **beside)


ends = path[path["step"] == steps].groupby(["start", "objective"], sort=False)[["pass@1", "pass@8"]]
alt = "; ".join(
    f"{start}, {objective}: pass@1 {row['pass@1']:.3f}, pass@8 {row['pass@8']:.3f} after {steps} steps on average"
    for (start, objective), row in ends.mean().iterrows()
)
figures.show(draw, alt=alt, data=path, ncols=2, nrows=len(starts), size=(9, 2.8 * len(starts)))

# %% [markdown]
# The changes over the whole run, in points, as the mean over the seeds with its 90 % interval (Student's $t$).

# %%
wide = path.pivot_table(
    index=["start", "seed", "objective"], columns="step", values=["pass@1", "pass@8"]
)
change = pd.DataFrame({k: 100 * (wide[k][steps] - wide[k][0]) for k in ("pass@1", "pass@8")})
grouped = change.groupby(["start", "objective"])
half = student.ppf(0.95, len(seeds) - 1) * grouped.std() / np.sqrt(len(seeds))
summary = pd.concat(
    {"mean": grouped.mean(), "low": grouped.mean() - half, "high": grouped.mean() + half}, axis=1
)
summary = summary.swaplevel(axis=1)[["pass@1", "pass@8"]]
summary = summary.reindex(pd.MultiIndex.from_product([starts, objectives], names=names[:2]))
summary.round(1)


# %% tags=["hide-input"]
def reading(start):
    lines = []
    for objective in objectives:
        row = summary.loc[start, objective]
        for k in ("pass@1", "pass@8"):
            low, high = row[k, "low"], row[k, "high"]
            word = "rose" if low > 0 else "fell" if high < 0 else "did not move beyond the seeds"
            lines.append(f"{k} {word} ({row[k, 'mean']:+.1f} points, {low:+.1f} to {high:+.1f})")
        lines[-2:] = [f"up {objective} {lines[-2]} and {lines[-1]}"]
    return f"- *{start}*: " + "; ".join(lines) + "."


Markdown("\n".join(map(reading, starts)))

# %% [markdown]
# ## What the trainer sees
#
# The trainer knows pass@1 and pass@8 from the groups of its batch. Both estimates are unbiased, so that their errors average out over steps and runs.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The trainer's own pass@1 and pass@8 of each batch (points, all runs) against the exact values at the same weights. A batch holds few of the prompts, and the scatter is that of a batch; the diagonal is the truth.", "name": "fig-training-estimates"}, "image": {"alt": "Batch estimates of pass@1 and pass@8 scattered around their exact values."}}
def draw(axes):
    for ax, k in zip(axes, (1, 8), strict=True):
        x, y = sampled[f"pass@{k}"], sampled[f"batch pass@{k}"]
        figures.points(ax, x, y, of="sampled", exact=True, label="a batch", alpha=0.4)
        ends = [path[f"pass@{k}"].min(), path[f"pass@{k}"].max()]
        figures.curve(ax, ends, ends, of="exact", exact=True, marker=None, label="the truth")
        ax.set(xlabel=f"exact pass@{k}", ylabel=f"pass@{k} of the batch")
    figures.legend(axes[0])


sampled = path[path["step"] < steps]
errors = pd.DataFrame({k: sampled[f"batch {k}"] - sampled[k] for k in ("pass@1", "pass@8")})
mean, spread = errors.mean(), errors.std()
alt = f"Errors of the batch estimates: pass@1 {mean['pass@1']:+.3f} on average with deviation {spread['pass@1']:.3f}, pass@8 {mean['pass@8']:+.3f} with {spread['pass@8']:.3f}."
figures.show(draw, alt=alt, data=sampled, ncols=2, size=(7, 3.2))

# %% tags=["hide-input"]
z = mean / (spread / np.sqrt(len(errors)))
Markdown(
    f"Over {len(errors)} batches the mean error is {mean['pass@1']:+.4f} for pass@1 and {mean['pass@8']:+.4f} for pass@8, "
    f"{z['pass@1']:+.1f} and {z['pass@8']:+.1f} standard errors. "
    f"One batch is off by {spread['pass@1']:.2f} and {spread['pass@8']:.2f}: the change of a whole run drowns in it."
)

# %% [markdown]
# ## Predicted and realised change
#
# To first order a step changes pass@1 by $\langle \nabla J_1(\theta_t), \theta_{t+1} - \theta_t \rangle$, whatever was ascended.
# We hold it against what the step did, both exact.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Realised against predicted change of pass@1 in every step of every run, both exact. On the diagonal the first order is all there is.", "name": "fig-training-predicted"}, "image": {"alt": "Realised against predicted change of pass@1 a step, by start and objective."}}
def draw(axes):
    for ax, start in zip(np.ravel(axes), starts, strict=True):
        figures.zero(ax)
        for objective in objectives:
            some = path[(path["start"] == start) & (path["objective"] == objective)].dropna(
                subset="length"
            )
            look = {"GRPO": "arcsin"}.get(objective, objective)
            x, y = some["predicted pass@1"], some["realised pass@1"]
            figures.points(ax, x, y, of=look, exact=True, label=objective, alpha=0.7)
        ends = [moved["predicted pass@1"].min(), moved["predicted pass@1"].max()]
        figures.curve(ax, ends, ends, of="exact", exact=True, marker=None, label="")
        ax.set(xlabel="predicted change of pass@1", ylabel="realised change")
        figures.panel(ax, start)
    figures.legend(np.ravel(axes)[0])


def r_squared(real, predicted):
    return 1 - ((real - predicted) ** 2).sum() / ((real - real.mean()) ** 2).sum()


moved = path.dropna(subset="length")
fit = {
    (start, k): r_squared(some[f"realised {k}"], some[f"predicted {k}"])
    for start, some in moved.groupby("start", sort=False)
    for k in ("pass@1", "pass@8")
}
alt = "R^2 of the first-order prediction: " + ", ".join(
    f"{value:.2f} for {k} on {start}" for (start, k), value in fit.items()
)
figures.show(draw, alt=alt, data=moved, ncols=len(starts), size=(9.5, 3.3))

# %% [markdown]
# `ConflictCallback` predicts the same from samples, since the last measurement: with the gradient of a new batch, which does not know the steps before it.
# We compare it with the exact change over the same steps.

# %%
exact = path.set_index([*names, "step"])["pass@1"]
told = measured.copy()
told["from"] = told.groupby(names)["step"].shift()
told = told.dropna(subset=["from", "predicted_change"]).astype({"from": int})
told["realised"] = [
    exact[*row[names], row["step"]] - exact[*row[names], row["from"]] for _, row in told.iterrows()
]
sampled_fit = {
    start: r_squared(some["realised"], some["predicted_change"])
    for start, some in told.groupby("start", sort=False)
}
table = pd.DataFrame(fit, index=["exact gradient"]).T.unstack()
table.columns = ["R², pass@1", "R², pass@8"]
by_start = moved.groupby("start")
both = by_start[["predicted pass@1", "realised pass@1"]]
table["correlation, pass@1"] = both.corr().iloc[::2, 1].droplevel(1)
table["realised / predicted"] = (
    by_start["realised pass@1"].sum() / by_start["predicted pass@1"].sum()
)
table["R², pass@1, from samples"] = pd.Series(sampled_fit)
table = table.loc[list(starts)]
table.round(2)

# %% tags=["hide-input"]
Markdown(
    "The prediction orders the steps and overstates them: "
    + "; ".join(
        f"*{start}* correlation {row['correlation, pass@1']:.2f}, of the predicted change {row['realised / predicted']:.0%} came"
        for start, row in table.iterrows()
    )
    + ". A step of this size is long for first order where success rates are steep in the weights; then $R^2$, which forgives no factor, is small or negative. "
    f"From samples $R^2$ is {table['R², pass@1, from samples'].max():.0f} at best: the gradient of one batch of {batch_prompts} prompts says nothing about a single step, and the callback's numbers are for averages."
)

# %% [markdown]
# ## Whom a step up pass@1 hurts
#
# A prompt with negative agreement loses by a step up pass@1, and pass@k weighs it more.
# The callback estimates the share of such prompts from the few prompts of a batch; the exact share stands beside it.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of prompts with negative agreement with pass@1: exact (mean over all runs of a start, band from lowest to highest run) and as the callback estimates it in a batch (mean over the runs with twice its standard error).", "name": "fig-training-agreement"}, "image": {"alt": "Share of prompts with negative agreement over the steps, exact and estimated, by start."}}
def draw(axes):
    for ax, start in zip(np.ravel(axes), starts, strict=True):
        by = path[path["start"] == start].groupby("step")["negative agreement"]
        band = {"low": by.min(), "high": by.max(), "label": "exact"}
        figures.curve(ax, by.mean().index, by.mean(), of="exact", marker=None, **band)
        by = measured[measured["start"] == start].groupby("step")["negative_agreement"]
        middle, error = by.mean(), 2 * by.sem()
        band = {"low": middle - error, "high": middle + error, "label": "estimated"}
        figures.points(ax, middle.index, middle, of="sampled", **band)
        ax.set(xlabel="step", ylabel="share of prompts", ylim=(-0.05, 1.05))
        figures.panel(ax, start)
    figures.legend(np.ravel(axes)[0])


share = path.groupby("start", sort=False)["negative agreement"].mean()
told_share = measured.groupby("start", sort=False)["negative_agreement"].mean()
alt = "; ".join(
    f"{start}: exact share {share[start]:.2f} on average, estimated {told_share[start]:.2f}"
    for start in starts
)
figures.show(draw, alt=alt, data=measured, ncols=len(starts), size=(9.5, 3))

# %% tags=["hide-input"]
Markdown(
    "\n".join(
        f"- *{start}*: {share[start]:.0%} of the prompts have negative agreement exactly, and {told_share[start]:.0%} by the callback."
        for start in starts
    )
    + "\n\nTwo things are wrong with the estimate. Single products are noisy, which draws the share towards a half; and a prompt whose completions are all right or all wrong has no product in that batch and counts as not negative, which draws it down where prompts are solved. Read its changes, not its level."
)

# %% [markdown]
# ## What came out, and what did not
#
# Theory says to first order: where the gradients of pass@1 and pass@k conflict, a step up pass@k costs pass@1; where they agree, it does not.
# The sentences below are made from the numbers of the runs.

# %% tags=["hide-input"]
lost = change.groupby(["start", "objective"])["pass@1"].mean()
lines = []
for start in starts:
    sign = "a conflict" if begin.loc[start, "cosine pass@8"] < 0 else "no conflict"
    worst, best = lost[start].idxmin(), lost[start].idxmax()
    lines.append(
        f"- *{start}* starts with {sign} at $k = 8$. Of the four objectives {best} left pass@1 highest ({lost[start, best]:+.1f} points on average) and {worst} lowest ({lost[start, worst]:+.1f})."
    )
    for k in objectives[1:]:
        apart = change.xs(start, level="start")["pass@1"].unstack("objective")
        apart = apart[k] - apart["pass@1"]
        error = student.ppf(0.95, len(seeds) - 1) * apart.std() / np.sqrt(len(seeds))
        told = "beyond the seeds" if abs(apart.mean()) > error else "not beyond the seeds"
        lines.append(
            f"  - {k} against pass@1, seed by seed: {apart.mean():+.1f} ± {error:.1f} points of pass@1, {told}."
        )
Markdown("\n".join(lines))

# %%
mean = change.groupby(["start", "objective"]).mean()
if len(seeds) > 2:  # what the text says of the runs that are stored
    assert (mean.loc[tasks] > 0).all(axis=None)
    assert (mean.loc[list(starts)[-1]].loc["pass@8"] * [-1, 1] > 0).all()
    assert (mean.loc[list(starts)[-1]].loc["pass@1"] * [1, -1] > 0).all()

# %% [markdown]
# From the two starts without a conflict all four objectives raise both numbers on average over the seeds; some single runs do not.
# From the start with one, ascending pass@8 lowers pass@1 on average and ascending pass@1 lowers pass@8. The fall under pass@8 is one step of one length, the same in each seed, at the first success on one hard sum; behind it pass@1 rises again. The 90 % interval of the three seeds holds zero.
# Beside pass@1 training, pass@8 training ends with less pass@1 at all three starts, with a conflict or without: the sign of the cosine does not tell that.
#
# Three things limit what these runs can show.
#
# - *Few samples.* A run sees a few hundred completions. Pass@8 learns nothing from a group without a success, nor from one with fewer than seven failures; most groups of easy prompts are of the second kind.
# - *Three seeds.* A 90 % interval of three values is 1.7 times their standard deviation wide to either side.
# - *Designed starts.* What the gradients do to each other depends on where training starts; the starts were designed for their rates. At the later one the easy prompts have little left to gain, so that pass@1 moves little whatever is ascended.

# %%
still = moved[moved["length"] == 0].groupby(["start", "objective"], sort=False).size()
share_still = still / moved.groupby(["start", "objective"], sort=False).size()
share_still.fillna(0).unstack("start").reindex(objectives).round(2)

# %% [markdown]
# The table has the share of steps whose advantages were all zero.
#
# ## Scope
#
# - The model is SmolLM2-135M with an adapter in its last layers; ten prompts a task, trained on and measured on. Nothing is said about unseen prompts.
# - Success is exact for prompts with one accepted answer and a stop. With other tasks only the trainer's own estimates exist.
# - Steps are plain SGD, with one learning rate for pass@1, pass@4 and pass@8, and 0.4 of it for GRPO, whose weight is 2.5 where an easy prompt starts. Their gradients have different lengths, so that equal steps are not equal ways; Adam would hide this.
# - GRPO is its standardised advantages alone, as TRL computes them. Its other defaults (losses by tokens) are left out here, which changes its objective less than its scale.
# - Larger models, GPUs and vLLM are configuration ({ref}`sec-scale`), not run here.
#
# ## Exercises
#
# ```{exercise} Standardised pass@k
# :label: ex-training-standard
#
# Show that standardising the pass@k rewards of a group gives the advantages of GRPO again, for any $k$, unless all rewards of the group become equal.
# ```
#
# ````{solution-start} ex-training-standard
# :class: dropdown
# ````
#
# The pass@k reward of a completion depends on $c$ and on whether it is right: $s_i = a_c + d_c r_i$ with $d_c \ge 0$.
# Subtracting the mean removes $a_c$, dividing by the deviation removes $d_c$.

# %%
for c in range(1, 5):
    rewards = torch.tensor([[1.0] * c + [0.0] * (8 - c)], dtype=torch.float64)
    ours = advantages(rewards, 4)
    standard = (ours - ours.mean()) / ours.std()
    assert torch.allclose(standard, 8 * advantages(rewards, estimator="grpo"), atol=1e-4)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise} Groups that teach nothing
# :label: ex-training-silent
#
# A group has $n$ completions of a prompt with success rate $p$. How likely is it that pass@$n$ learns anything from it, and for which $p$ is that largest?
# ```
#
# ````{solution-start} ex-training-silent
# :class: dropdown
# ````
#
# Only $c = 1$ counts: $n p (1-p)^{n-1}$, largest at $p = 1/n$, where it is near $1/e$.

# %%
grid = np.linspace(0, 1, 8001)
chance = 8 * grid * (1 - grid) ** 7
assert abs(grid[chance.argmax()] - 1 / 8) < 1e-3
assert 0.37 < chance.max() < 0.40

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise} Prompts of a batch
# :label: ex-training-batch
#
# The trainer's pass@1 of a batch is unbiased although the prompts of a batch are drawn without replacement. Why, and what does it do to the variance?
# ```
#
# ````{solution-start} ex-training-batch
# :class: dropdown
# ````
#
# Each prompt is equally likely to stand at each place of a batch, so the mean over the batch has the mean over all prompts as its expectation.
# Without replacement the variance between prompts shrinks by $(N - P)/(N - 1)$ for $P$ of $N$ prompts.

# %%
rates = np.array([0.9] * 8 + [0.1] * 2)
rng = np.random.default_rng(0)
means = np.array([rng.choice(rates, 4, replace=False).mean() for _ in range(20_000)])
assert abs(means.mean() - rates.mean()) < 0.005
assert abs(means.var() / (rates.var() / 4) - (10 - 4) / (10 - 1)) < 0.03

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## Summary
#
# We saw:
#
# - pass@k enters a trainer of TRL through the advantages alone, and TRL's defaults would train something else without a word: the trainer refuses them;
# - the trainer's own pass@1 and pass@k are unbiased, and a single batch says little;
# - the first-order prediction of the change of pass@1 can be checked step by step where success rates are exact;
# - from two starts without a conflict every objective raised pass@1 and pass@8 on average; from a start with one, pass@8 training lost pass@1 in a single step that three seeds share;
# - at all three starts pass@8 training ended below pass@1 training in pass@1: a price that needs no conflict ({ref}`sec-training-study`);
# - a few hundred completions resolve only differences of some points.
