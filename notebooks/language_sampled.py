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
# (sec-language-sampled)=
# # A real language model, sampled
#
# **Result.** Success rates estimated from completions agree with the exact ones as often as their intervals promise, and the unbiased estimate of pass@k follows exact pass@k over all $k \le n$.
# On grade-school word problems, where nothing exact is to be had, the same estimate with its interval is what can be said.
#
# **What you need.** {ref}`The exact chapter <sec-language-exact>`; binomial intervals.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $n$, $c$ | completions drawn for a prompt, and how many of them are right |
# | $\hat p = c / n$ | estimated success rate |
# | $1 - \binom{n-c}{k} / \binom{n}{k}$ | unbiased estimate of pass@k for one prompt, $k \le n$ {cite}`chen2021codex` |

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import binom

from passgrad.ascent.ascent import ascend
from passgrad.lm.models import save_model
from passgrad.metrics import pass_at_k
from passgrad.objectives import PassAtK
from passgrad.rollouts.sampling import sample
from passgrad.stats import pass_at_k_band, success_interval
from passgrad.tasks.conventions import conventions
from passgrad_book.build import figures, paths
from passgrad_book.experiments.two_conventions import two_conventions_world
from passgrad_book.experiments.word_problems import word_problems

# %% [markdown]
# Completions are drawn at temperature 1 without truncation, so that the law that is sampled is the one whose gradients the book is about.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the language model
engine: str = "auto"  # vllm, transformers, or auto: vllm where it runs
seed: int = 0  # choice of the sums, and seed of the engine
num_prompts: int = 12  # prompts of each base
num_examples: int = 8  # worked examples before each question
warmup_steps: int = 6  # steps up pass@1 before sampling, as in the exact chapter
warmup_step_size: float = 0.001  # their size
hard_fraction: float = 0.3  # share of base 9 in the prompt law of the warm-up
num_samples: int = 32  # completions of each prompt
ks: list = [1, 2, 4, 8, 16, 32]  # orders of pass@k, none above num_samples
gsm8k_path: str = ""  # a JSON-lines file of GSM8K; empty: the hub, by name
gsm8k_prompts: int = 24  # word problems
gsm8k_samples: int = 16  # completions of each
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## The same prompts, the same weights
#
# We repeat the warm-up of the exact chapter and write the weights where an engine can read them.

# %%
world = two_conventions_world(
    model=model, num_prompts=num_prompts, num_examples=num_examples, hard_fraction=hard_fraction,
    seed=seed,
)  # fmt: skip
counts = (num_prompts, num_prompts)
task = conventions(num_prompts=counts, num_examples=num_examples, seed=seed)
theta = ascend(world, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps).theta
exact = world.success(theta).numpy()
world.layout.load(world.model, theta)
checkpoint = save_model(world.model, world.tokenizer, paths.build() / "models" / f"warm-{seed}")

# %%
rollouts = sample(checkpoint, task, num_samples=num_samples, engine=engine)
drawn = rollouts.table.to_pandas()
rollouts.write(paths.build() / "rollouts" / f"conventions-{seed}.parquet")
Markdown(f"{len(drawn)} completions, drawn by {drawn['engine'].iloc[0]}.")

# %% [markdown]
# Every completion is one row: the prompt, the token ids, the text, the reward, the log-probability, why it ended, and the sampling law.

# %%
columns = ["prompt_id", "completion", "reward", "logprob", "finish_reason"]
drawn.groupby("group", sort=False).head(3)[columns]

# %% [markdown]
# The engine's own log-probability of a right answer is the logarithm of its exact success rate, computed by other code: vLLM's kernels on one side, packed rows in transformers on the other.

# %%
right = drawn[drawn["reward"] == 1].drop_duplicates("prompt_id").set_index("prompt_id")
known = pd.Series(np.log(exact), index=[prompt.id for prompt in world.prompts])
gap = (right["logprob"] - known[right.index]).abs()
print(
    f"{len(gap)} prompts were solved at least once; the log-probabilities differ by at most {gap.max():.1e}"
)
assert gap.max() < 1e-2

# %% [markdown]
# ## Estimated and exact success rates
#
# An exact (Clopper-Pearson) 95 % interval for each prompt should hold the exact success rate for at least 95 % of the prompts.

# %%
correct = rollouts.num_correct
low, high = success_interval(correct, num_samples)
held = (low <= exact) & (exact <= high)
misses = int((~held).sum())
chance = float(binom.sf(misses - 1, len(held), 0.05))
assert chance > 1e-4, "more intervals miss than chance allows: the engine does not sample the model"

# %% tags=["hide-input"]
Markdown(
    f"{int(held.sum())} of {len(held)} intervals hold the exact success rate. "
    f"If each missed with probability 5 %, {misses} or more misses would come up with probability {chance:.2f}; "
    f"{len(np.unique(drawn['completion']))} of the {len(drawn)} completions are distinct."
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Success rates estimated from completions, with exact 95 % intervals, against the exact ones. The points lie about the diagonal as the intervals say.", "name": "fig-sampled-success"}, "image": {"alt": "Estimated against exact success rates with intervals, about the diagonal."}}
def draw(ax):
    ax.plot([0, 1], [0, 1], color=figures.COLOURS["neutral"], linewidth=1)
    for place, group in enumerate(("base 10", "base 9")):
        half = slice(place * num_prompts, (place + 1) * num_prompts)
        share = correct[half] / num_samples
        figures.points(ax, exact[half], share, of=group, low=low[half], high=high[half])
    ax.set(xlabel="exact success rate", ylabel="estimated success rate", aspect="equal")
    figures.legend(ax, loc="upper left")


data = pd.DataFrame(
    {
        "prompt": known.index,
        "group": world.groups,
        "exact": exact,
        "correct": correct,
        "samples": num_samples,
        "low": low,
        "high": high,
    }
)
alt = f"Estimated against exact success rates of {len(exact)} prompts from {num_samples} completions each; {int(held.sum())} of {len(held)} intervals hold the exact value."
figures.show(draw, alt=alt, data=data, size=(4.6, 4.4))

# %% [markdown]
# ## pass@k
#
# The unbiased estimate of pass@k needs no more than the counts ({ref}`sec-pass-at-k`). The exact value is that of these very prompts, so the band takes them as fixed: it says what other completions of them would have given, for all $k$ at once.

# %%
rows = []
for place, group in enumerate(("base 10", "base 9")):
    half = slice(place * num_prompts, (place + 1) * num_prompts)
    band = pass_at_k_band(num_samples, correct[half], ks, prompts="fixed").to_frame()
    truth = [float((1 - (1 - exact[half]) ** k).mean()) for k in ks]
    rows.append(band.assign(group=group, exact=truth))
estimates = pd.concat(rows, ignore_index=True)
estimates.round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "pass@k of each base from completions, with a 95 % band that holds for all k at once, and the exact value (line).", "name": "fig-sampled-passk"}, "image": {"alt": "Estimated and exact pass@k against k for both bases."}}
def draw(axes):
    for ax, (group, part) in zip(axes, estimates.groupby("group", sort=False), strict=True):
        figures.points(
            ax,
            part["k"],
            part["estimate"],
            of=group,
            low=part["low"],
            high=part["high"],
            label="from completions",
        )
        figures.curve(ax, part["k"], part["exact"], of="exact", exact=True, marker=None)
        figures.k_axis(ax, ks)
        ax.set(ylabel="pass@k", ylim=(0, 1.03))
        figures.panel(ax, group)
        figures.legend(ax, loc="lower right")


worst = float((estimates["estimate"] - estimates["exact"]).abs().max())
alt = f"pass@k from {num_samples} completions and exact pass@k for k from {ks[0]} to {ks[-1]}; they differ by at most {worst:.3f}."
figures.show(draw, alt=alt, data=estimates, ncols=2, size=(7.4, 3.2))

# %% tags=["hide-input"]
widest = estimates.loc[(estimates["high"] - estimates["low"]).idxmax()]
covered = (estimates["low"] <= estimates["exact"]) & (estimates["exact"] <= estimates["high"])
Markdown(
    f"The bands hold the exact value at {int(covered.sum())} of the {len(covered)} points. "
    f"They are widest at $k = {int(widest['k'])}$, for {widest['group']}."
)

# %% [markdown]
# ## Word problems
#
# GSM8K {cite}`cobbe2021gsm8k` has questions with a number at the end of a free solution: many texts are right, so there is no exact success rate, and a verifier (math-verify) judges the number.
# These completions are longer and take minutes, so the counts are stored with the book.


# %%
stored = word_problems.result(
    model=model,
    num_prompts=gsm8k_prompts,
    num_samples=gsm8k_samples,
    seed=seed,
    engine=engine,
    gsm8k_path=gsm8k_path,
    recompute=recompute,
)
stored

# %%
problems = stored["counts"]
orders = [k for k in ks if k <= gsm8k_samples]
solved = problems["correct"].astype(int).to_numpy()
words = pass_at_k_band(gsm8k_samples, solved, orders).to_frame()
words.round(4)


# %% tags=["hide-input"]
Markdown(
    f"Of {len(solved)} problems {int((solved > 0).sum())} came out right at least once in {gsm8k_samples} completions, and {problems['answered'].mean():.0%} of the completions name an answer at all. "
    f"So these samples say almost nothing about pass@k of this model: they only bound pass@1 by {words['high'].iloc[0]:.2f}. We draw no curve from them. A measurement on word problems needs a model that solves some of them."
)

# %% [markdown]
# ## Scope
#
# Agreement with the exact success rates was checked for short answers from one model, in float32.
# An engine in lower precision, with quantised weights or with truncated sampling draws from another law; the exact values would then not be the truth to compare with.
# The band of the word problems is over problems drawn from the same file; it does not speak of other tasks.
#
# ## Exercises
#
# ```{exercise} One success in n
# :label: ex-sampled-plugin
#
# A prompt was solved once in $n = 16$ completions. What is the unbiased estimate of pass@16, and what does the plug-in $1 - (1 - c/n)^{16}$ give?
# ```

# %% [markdown]
# ````{solution-start} ex-sampled-plugin
# :class: dropdown
# ````
# With $k = n$ the set of all completions is the only one of its size, and it holds the success: the estimate is 1. The plug-in pretends that the completions were drawn anew from $\hat p$.

# %%
plug_in = 1 - (1 - 1 / 16) ** 16
assert pass_at_k(16, 1, 16) == 1
assert abs(plug_in - 0.644) < 1e-3
round(plug_in, 3)

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw: completions of a real model as one table, whatever the engine; log-probabilities that agree between two implementations; success rates that agree with the exact ones within their intervals; and pass@k with intervals, where the exact value is known and where it is not.
