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
# (sec-scale)=
# # From a laptop to a cluster
#
# **Result.** The code path of a measurement does not change with its size; the engine that draws, the place of the weights and the number of runs do.
# Its cost follows from counts: one number, the rate of a forward pass, predicts the time of gradients on the small model here to within a third; derivatives take longer than counted, the more so the smaller the batch.
# At 8 billion parameters, on paper, the passes of a measurement cost more than the answers it is made from, while in training the two are of the same order; the precision of the passes decides between hours and days.
#
# **What you need.** {ref}`How a conflict is estimated from two halves of the answers <sec-estimating-conflict>`, and {ref}`a measurement by one command <sec-measure-your-model>`.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $M$, $n$ | prompts, and answers to each of them |
# | $P$, $C$ | mean number of tokens of a prompt and of an answer |
# | $F$ | one forward pass over all answers and their prompts: the unit of cost |
# | $N$, $L$, $h$, $V$ | weights in the matrices of the layers, layers, width, vocabulary |
# | $B$ | answers that are drawn at the same time |

# %%
import pandas as pd
from IPython.display import Markdown

from passgrad.lm.models import load_model
from passgrad.measurement.planning import plan
from passgrad.measurement.planning_models import assumed_model, beta_rates
from passgrad_book.build import figures, notebooks, paths
from passgrad_book.build.sweep import open_sweep
from passgrad_book.experiments.cost.hours import (
    Machine,
    decode_seconds,
    largest_batch,
    measurement_hours,
    memory,
    table,
    training_hours,
)
from passgrad_book.experiments.cost.operations import (
    LLAMA_8B,
    QWEN_7B,
    UNITS,
    Work,
    cache_bytes,
    forward_operations,
    measurement_units,
    shape_of,
    training_units,
    vectors_bytes,
)
from passgrad_book.experiments.cost.stored import cost_machine, cost_passes

# %% [markdown]
# The first parameters are of runs on this machine.
# Those from `answers` on describe a measurement on 8 GPUs that was **not run**: the peaks are those of the maker's data sheet of an H100 SXM, and the shares of them that are reached are assumptions.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the model whose passes are timed
layers: list = [10, 20, 30]  # its first layers, as models of three sizes
sizes: list = [[2, 4, 32, 24], [2, 8, 64, 24], [4, 8, 64, 32]]  # M, n, P, C of the timed passes
batches: list = [1, 4, 16]  # answers drawn at the same time
prompt_tokens: int = 32  # of the prompts of the timed drawing
new_tokens: int = 8  # tokens drawn after each
answers: list = [2000, 32, 200, 3500]  # M, n, P, C of the measurement on paper
directions: int = 5  # orders with intervals, 1 among them
training: list = [200, 128, 16]  # steps, prompts and answers a prompt of a training on paper
devices: int = 8  # GPUs
peak_half: float = 989e12  # operations a second of one GPU in bfloat16 (data sheet)
peak_single: float = 67e12  # the same in float32, without tensor cores (data sheet)
utilisation: float = 0.4  # share of the peak that passes reach (assumed)
decode_utilisation: float = 0.3  # share of it that drawing reaches (assumed)
bandwidth: float = 3.35e12  # bytes a second of the memory of one GPU (data sheet)
bandwidth_share: float = 0.6  # share of it that drawing reaches (assumed)
device_memory: float = 80e9  # bytes of one GPU (data sheet)
cosine: float = -0.3  # size of the conflict that is to be seen
recompute: bool = False  # time the passes again and replace the stored times

# %% [markdown]
# ## What changes, and what does not
#
# | | laptop | one GPU | cluster |
# |---|---|---|---|
# | answers come from | transformers, or vLLM on the CPU | vLLM | vLLM in each process, or a server |
# | weights | whole, float32 | whole | whole in each process, or spread by FSDP |
# | prompts | in one process | in one process | shared out to the processes |
# | derivatives | central differences, or forward mode | the same | the same; spread weights: central differences |
# | runs | `passgrad run` | `passgrad sweep`, local | `passgrad sweep`, Slurm |
#
# The estimator, the passes, the intervals and the files do not change.
# A measurement in several processes gives the numbers of one process, and a notebook has the same cells in every profile.
# What a profile changes are values:

# %%
profiles = pd.DataFrame(
    {name: notebooks.resolve("language_sampled", name) for name in ("smoke", "cpu", "gpu")}
)
profiles[profiles.astype(str).nunique(axis=1) > 1]

# %% [markdown]
# ## The unit of cost
#
# The score $\nabla_\theta \log \pi(y \mid x)$ of an answer has as many entries as the model has weights, so no pass keeps one score an answer.
# A measurement takes sums of scores (gradients) and products of scores with a vector (derivatives along it), and these cost a few forward passes:

# %%
pd.DataFrame({"cost in F": UNITS}).rename_axis("pass")

# %% [markdown]
# The cross-fit of {prf:ref}`prop-cross-fit` takes a gradient on either half of the answers and the derivatives of the other half along it.
# Two halves make one whole: for each order with an interval, a measurement costs one gradient and one directional pass over all answers.
# Orders without an interval are sums over scalars that are there already, and cost nothing.
# A step of policy-gradient training on the same answers costs one gradient.

# %%
units = pd.DataFrame(
    [(j, measurement_units(j), measurement_units(j, "forward")) for j in (1, 2, directions)],
    columns=["orders with an interval", "central differences", "forward mode"],
).set_index("orders with an interval")
units["training step"] = training_units()
units

# %% [markdown]
# A forward pass itself is counted in operations: 2 for each weight of a layer and token that is read, 2 for each entry of the matrix of logits and token that is predicted, and 4 a layer for each entry of the heads and each pair of a query and a key that it sees:
#
# $$
# F = 2 N\, T_{\text{read}} + 2 h V\, T_{\text{predicted}} + 4 L\, h_{\text{heads}}\, \#\text{pairs}.
# $$
#
# For matrices this is what torch counts, to the last operation; a test holds the two together.
# Kaplan and others' $6 N$ a token of training is three times the first term {cite}`kaplan2020scaling`.
#
# ## A prompt is read once
#
# The $n$ answers to a prompt share it. Packed rows read it once for all of them, so that $T_{\text{read}} = M (P + n (C - 1))$ instead of $M n (P + C - 1)$.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Tokens that a pass over each answer alone reads, over those of packed rows, for three lengths of the answer at one length of the prompt. Sharing the prompt pays where answers are short; reasoning of thousands of tokens leaves nothing to gain.", "name": "fig-scale-sharing"}, "image": {"alt": "Ratio of tokens read alone and packed against the number of answers, rising for short answers and flat at one for long ones."}}
counts = [1, 2, 4, 8, 16, 32, 64]
saving = pd.DataFrame({"n": counts})
for length in (8, 64, 3500):
    saving[f"C = {length}"] = [
        Work(1, n, 200, length, shared=False).read / Work(1, n, 200, length).read for n in counts
    ]


def draw(ax):
    for name, of in zip(saving.columns[1:], ("exact", "agreement", "neutral"), strict=True):
        figures.curve(ax, counts, saving[name], of=of, exact=True, label=name)
    figures.k_axis(ax, counts, label="answers to a prompt, n")
    ax.set(ylabel="tokens read alone /\ntokens read packed", yscale="log")
    ax.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    ax.minorticks_off()
    figures.legend(ax, loc="upper left")


last = saving.iloc[-1]
alt = f"With a prompt of 200 tokens and {counts[-1]} answers, packed rows read {last.iloc[1]:.1f} times fewer tokens for answers of 8 tokens, and {last.iloc[3]:.2f} times for 3,500."
figures.show(draw, alt=alt, data=saving)

# %% [markdown]
# ## Predicted and measured
#
# We time the passes of the small model on one thread: its first layers are models of different sizes, and each passes over batches of answers of different sizes.
# Random tokens stand for answers, since their number is what costs.
# Times are those of the processor, not of the clock: other programs ran on the machine.


# %%
def timed(depth):
    return cost_passes.result(model=model, layers=depth, sizes=sizes, recompute=recompute)


kept = {depth: timed(depth) for depth in layers}
kept[layers[-1]]

# %%
config = load_model(model)[0].config
rows = []
for depth, result in kept.items():
    config.num_hidden_layers = depth
    shape = shape_of(config, f"{depth} layers")
    for one in result["passes"].itertuples(index=False):
        work = Work(*one[:4])
        operations = UNITS[one[4]] * forward_operations(shape, work)
        rows.append((depth, work.read, *one[4:], operations))
columns = ["layers", "tokens", "pass", "seconds", "wall", "operations"]
times = pd.DataFrame(rows, columns=columns)

# %% [markdown]
# One number is fitted: the rate of the pass for log-probabilities over the largest batch through the whole model.
# Everything else is predicted from it.

# %%
forward = times[times["pass"] == "logprobs"]
reference = forward.loc[forward["operations"].idxmax()]
rate = reference["operations"] / reference["seconds"]
times["predicted"] = times["operations"] / rate
times["measured / predicted"] = times["seconds"] / times["predicted"]
ratios = times.pivot(index=["layers", "tokens"], columns="pass", values="measured / predicted")
ratios[["logprobs", "gradient", "central"]].round(2)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Seconds that the counts predict from one rate, and seconds that the passes took, for three depths and three batches. Line: equal. Bars reach from the time of the processor to that of the clock, which other programs lengthened. Derivatives of small batches take longer than counted: the search for a step of the differences is not in the count.", "name": "fig-scale-predicted"}, "image": {"alt": "Measured against predicted seconds of log-probabilities, gradients and derivatives on logarithmic axes, near the diagonal except for derivatives of small batches."}}
words = {"logprobs": "log-probabilities", "gradient": "gradient", "central": "derivatives"}


def draw(ax):
    ends = [0.8 * times["predicted"].min(), 1.25 * times["predicted"].max()]
    figures.curve(ax, ends, ends, of="neutral", exact=True, label="equal", marker="")
    for name, of in words.items():
        some = times[times["pass"] == name]
        figures.points(
            ax, some["predicted"], some["seconds"], of=of,
            low=some[["seconds", "wall"]].min(axis=1), high=some[["seconds", "wall"]].max(axis=1),
        )  # fmt: skip
    ax.set(xlabel="predicted seconds", ylabel="measured seconds", xscale="log", yscale="log")
    figures.legend(ax, loc="lower right")


middle = times.groupby("pass")["measured / predicted"].median()
alt = "Median of measured over predicted: " + ", ".join(
    f"{of} {middle[name]:.2f}" for name, of in words.items()
)
figures.show(draw, alt=alt, data=times)

# %% tags=["hide-input"]
largest = times[times["tokens"] == times["tokens"].max()]
smallest = times[times["tokens"] == times["tokens"].min()]
spread = {name: part["measured / predicted"] for name, part in times.groupby("pass")}
Markdown(
    f"Log-probabilities take between {spread['logprobs'].min():.2f} and {spread['logprobs'].max():.2f} times the predicted time, gradients between {spread['gradient'].min():.2f} and {spread['gradient'].max():.2f}. "
    f"Derivatives take {largest.loc[largest['pass'] == 'central', 'measured / predicted'].mean():.2f} times the two forward passes of the count in the largest batch, and {smallest.loc[smallest['pass'] == 'central', 'measured / predicted'].mean():.2f} times in the smallest: "
    "the step is chosen on a pilot of at least 128 tokens, which for so few tokens is most of the work. By the count a pilot of at most 512 tokens does not matter to a measurement of millions; that was not timed."
)

# %% [markdown]
# ## Drawing is another trade
#
# A pass reads thousands of tokens at once and is bound by operations.
# To draw one more token, the model reads all of its weights and the keys and values of every answer so far; all that for $B$ tokens. The time of a step is the longer of two:
#
# $$
# t = \max\left(\frac{\text{bytes of weights} + B \cdot \text{bytes of a cache}}{\text{bandwidth}},\ \frac{B (2 N + 2 h V)}{\text{operations a second}}\right).
# $$

# %%
drawn = cost_machine.result(
    model=model,
    batches=batches,
    prompt_tokens=prompt_tokens,
    new_tokens=new_tokens,
    recompute=recompute,
)
drawn

# %%
config.num_hidden_layers = layers[-1]
small = shape_of(config, model)
able = drawn["machine"].iloc[0]
decoding = drawn["decoding"].copy()
each = 2 * small.matrices + 2 * small.width * small.vocabulary
seen = prompt_tokens + new_tokens / 2
caches = [cache_bytes(small, batch, seen, 4) for batch in decoding["batch"]]
decoding["by memory"] = (vectors_bytes(small, 1) + pd.Series(caches)) / able["bytes"]
decoding["by operations"] = decoding["batch"] * each / able["operations"]
floor = decoding[["by memory", "by operations"]].max(axis=1)
decoding["measured / limit"] = decoding["seconds"] / floor
decoding.drop(columns="wall").round(3)

# %% tags=["hide-input"]
one, many = decoding.iloc[0], decoding.iloc[-1]
Markdown(
    f"The limits are those of a plain product of matrices ({able['operations'] / 1e9:.0f} GFLOP/s) and of a plain sum ({able['bytes'] / 1e9:.0f} GB/s) on the same thread. "
    f"Transformers needs {decoding['measured / limit'].min():.1f} to {decoding['measured / limit'].max():.1f} times the limit. "
    f"A step for {many['batch']:.0f} answers takes {many['seconds'] / one['seconds']:.1f} times as long as a step for one: drawing many answers at once is what makes samples cheap. "
    f"The passes reach {rate / able['operations']:.0%} of the product's rate."
)

# %% [markdown]
# ## Eight billion parameters, on paper
#
# None of the numbers from here on was measured.
# The models have the published sizes of the 8B and 7B models of the paper's experiment; the machine is the one in the parameters cell.
# Two routes lead to the derivatives:
#
# - *spread*: weights in float32, spread over the GPUs by FSDP; derivatives by central differences, which need float32. Peak: float32.
# - *whole*: weights in bfloat16, whole on each GPU; derivatives in forward mode. Peak: bfloat16, fifteen times as high, at the price of inner products whose terms have three digits.
#
# Answers are drawn in bfloat16 either way.

# %%
shares = {"pass_utilisation": utilisation, "decode_utilisation": decode_utilisation}
shares |= {"bandwidth": bandwidth, "bandwidth_share": bandwidth_share, "memory": device_memory}
spread_out = Machine("spread", devices, peak_single, decode_peak=peak_half, **shares)
whole = Machine("whole", devices, peak_half, decode_peak=peak_half, **shares)
work = Work(*answers)
routes = {"spread": (spread_out, "central"), "whole": (whole, "forward")}
steps, prompts, samples = training
step = Work(prompts, samples, *answers[2:])
jobs = {}
for shape in (LLAMA_8B, QWEN_7B):
    for route, (machine, method) in routes.items():
        jobs[f"{shape.name}, measurement, {route}"] = measurement_hours(
            shape, work, machine, directions=directions, method=method
        )
    jobs[f"{shape.name}, training"] = training_hours(shape, step, whole, steps=steps)

# %% tags=["hide-input"]
paper = table(list(jobs.items()), whole).set_index("job")
shown = paper.assign(tokens=paper["tokens"] / 1e6, operations=paper["operations"] / 1e18)
names = {"tokens": "million tokens", "units": "passes (F)", "operations": "10^18 operations"}
names |= {part: f"{part} (h)" for part in ("samples", "passes", "total", "device hours")}
shown.rename(columns=names | {"device hours": "GPU hours"}).round(1)

# %% tags=["hide-input"]
spread_row, whole_row = (paper.loc[f"Llama-8B, measurement, {route}"] for route in routes)
batch = largest_batch(LLAMA_8B, work, whole)
held = memory(LLAMA_8B, work, spread_out, batch=batch)
Markdown(
    f"Not run: {answers[0]:,} prompts with {answers[1]} answers of {answers[3]:,} tokens are {work.predicted / 1e6:,.0f} million tokens. On {devices} GPUs Llama-8B draws them in {spread_row['samples']:.1f} hours, {batch} answers at a time on each; the passes take {spread_row['passes']:.0f} hours in float32 and {whole_row['passes']:.1f} in bfloat16. "
    f"Spread over {devices} GPUs, the weights in float32 take {held.weights / 1e9:.1f} GB of each, and the gradient with the copy that central differences keep {held.vectors / 1e9:.1f} GB. Whole in bfloat16, weights and tangent take {vectors_bytes(LLAMA_8B, 2, 2) / 1e9:.0f} GB, and the gradient in float32 {vectors_bytes(LLAMA_8B, 1) / 1e9:.0f} GB more: of {device_memory / 1e9:.0f} GB that leaves little for activations. "
    f"A training of {steps} steps on {prompts} prompts and {samples} answers takes {paper.loc['Llama-8B, training', 'total']:.0f} hours, {paper.loc['Llama-8B, training', 'samples'] / paper.loc['Llama-8B, training', 'total']:.0%} of them drawing."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Hours to draw the answers of the measurement on paper against the number of answers that one GPU draws at a time. Weights are read once a step for all of them, so that hours fall until the caches of long answers are what is read. Dotted: the largest batch that fits. Not run.", "name": "fig-scale-batch"}, "image": {"alt": "Hours of drawing against the batch on logarithmic axes for an 8B and a 7B model, falling and levelling off."}}
steps_of_batch = [2**j for j in range(9)]
by_batch = pd.DataFrame({"batch": steps_of_batch})
for shape in (LLAMA_8B, QWEN_7B):
    by_batch[shape.name] = [
        decode_seconds(shape, work, whole, batch=size) / 3600 for size in steps_of_batch
    ]


def draw(ax):
    for shape, of in ((LLAMA_8B, "decoding"), (QWEN_7B, "sampled")):
        figures.curve(ax, steps_of_batch, by_batch[shape.name], of=of, exact=True, label=shape.name)
        most = largest_batch(shape, work, whole)
        ax.axvline(most, color=figures.COLOURS[of], linestyle=":", linewidth=1)
    figures.k_axis(ax, steps_of_batch, label="answers drawn at a time on each GPU")
    ax.set(ylabel="hours of drawing (not run)", yscale="log")
    figures.legend(ax, loc="lower left")


first, final = by_batch.iloc[0], by_batch.iloc[-1]
alt = f"Llama-8B: {first['Llama-8B']:,.0f} hours one answer at a time, {final['Llama-8B']:.1f} hours {steps_of_batch[-1]} at a time."
figures.show(draw, alt=alt, data=by_batch)

# %% [markdown]
# ## How many prompts, then how many hours
#
# Hours follow from prompts and answers, and these from the size of the conflict that is to be seen: `passgrad plan` says how many, from a pilot.
# Without one we assume the parts of the variance (`passgrad.measurement.planning_models` lists the assumptions): success rates from a Beta law with most prompts near 0 or 1.

# %%
rates = beta_rates(0.5, 0.5)
needed = plan(
    assumed_model(*rates, ks=[2, 8], cosine=cosine),
    num_samples=answers[1],
    tokens_per_completion=answers[3],
    tokens_per_prompt=answers[2],
).to_frame()
for place, row in needed.iterrows():
    size = Work(int(row["num_prompts"]), answers[1], *answers[2:])
    for route, (machine, method) in routes.items():
        made = measurement_hours(LLAMA_8B, size, machine, directions=2, method=method)
        needed.loc[place, f"hours on paper, {route}"] = made["total"]
needed.drop(columns=["effect", "standard_error"]).round(2)

# %% [markdown]
# ## The commands
#
# One measurement in several processes: prompts are shared out, and the numbers are those of one process.
#
# ```bash
# torchrun --standalone --nproc_per_node 8 -m passgrad.cli measure --model MODEL --prompts FILE --out DIR
# ```
#
# One notebook, once, with a value of its own. The folder of the run holds the executed notebook, a page, a record and the tables:
#
# ```bash
# passgrad run math_conflict --profile gpu -p temperature=1.0
# ```
#
# Many runs are a file. This one is `examples/sweep_toy.yml`, and these are its runs:

# %%
sweep = open_sweep(paths.root() / "examples" / "sweep_toy.yml")
sweep.to_frame().drop(columns="state")

# %% [markdown]
# ```bash
# passgrad sweep examples/sweep_toy.yml --dry-run    # lists them
# passgrad sweep examples/sweep_toy.yml --jobs 2     # runs those that are not done
# ```
#
# On the login node of a cluster the same command hands each run to Slurm by submitit; the file says what a run gets.
# Slurm was not run here: a test holds the options against the script that would be submitted.
#
# ```yaml
# runs:
#   - notebook: math_conflict
#     profile: gpu
#     grid:
#       model: [deepseek-ai/DeepSeek-R1-Distill-Llama-8B, deepseek-ai/DeepSeek-R1-Distill-Qwen-7B]
#       seed: [0, 1, 2]
# executor:
#   kind: slurm
#   jobs: 3          # of the array at a time
#   partition: gpu
#   gpus: 8
#   minutes: 1440
# ```
#
# A run is done when its record names the same notebook, code and values; a sweep that was stopped runs the others.
# A run that fails does not stop the rest, and the sweep ends with status 1 and its reason.
# All results go into one table, with the parameters as columns.
#
# ## Scope
#
# The counts leave out what processes say to each other, the search for a step of the differences, the slowest answer of a batch, and activations.
# They were held against one processor and one family of small models; the ratios above are of that machine, which was not idle.
# Utilisation and bandwidth of the GPUs are assumptions: hours scale with them.
# Nothing with a GPU, FSDP on GPUs or Slurm was run here.
#
# ## Exercises
#
# ```{exercise} When sharing a prompt halves the work
# :label: ex-scale-sharing
#
# A prompt has $P$ tokens and each of $n$ answers $c = C - 1$ that are read. From which $n$ on do packed rows read half of what passes over each answer alone read, and when never?
# ```
#
# ````{solution-start} ex-scale-sharing
# :class: dropdown
# ````
#
# $n (P + c) \ge 2 (P + n c)$ exactly when $n (P - c) \ge 2 P$. So $n = 2P / (P - c)$, and never where answers are as long as the prompt.

# %%
P, C = 200, 51
n = 2 * P / (P - (C - 1))
factors = {
    size: Work(1, size, P, C, shared=False).read / Work(1, size, P, C).read for size in (2, 3)
}
assert factors[2] < 2 < factors[3]
assert 2 < n < 3
long = [Work(1, size, 50, 201) for size in range(1, 10_000, 97)]
assert all(one.num_samples * 250 < 2 * one.read for one in long)
n

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} The batch at which drawing is bound by operations
# :label: ex-scale-batch
#
# For which $B$ do the two times of a step meet, and why does no such $B$ exist for long answers?
# ```
#
# ````{solution-start} ex-scale-batch
# :class: dropdown
# ````
#
# With $W$ bytes of weights, $b$ bytes of a cache, bandwidth $\beta$, $f$ operations an answer and $r$ a second they meet at $B = \dfrac{W / \beta}{f / r - b / \beta}$. Where a cache is read more slowly than a token is computed, $b / \beta \ge f / r$, the denominator is not positive: a larger batch never gets there.

# %%
beta, r = bandwidth * bandwidth_share, peak_half * decode_utilisation
f = 2 * LLAMA_8B.matrices + 2 * LLAMA_8B.width * LLAMA_8B.vocabulary


def meets(tokens):
    rest = f / r - cache_bytes(LLAMA_8B, 1, tokens) / beta
    return vectors_bytes(LLAMA_8B, 1, 2) / beta / rest if rest > 0 else float("inf")


tokens = f / r * beta / cache_bytes(LLAMA_8B, 1, 1)
assert meets(100) < float("inf")
assert meets(1.01 * tokens) == float("inf")
round(meets(100)), round(tokens)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A measurement beside a training step
# :label: ex-scale-training
#
# A trainer measures the conflict at two orders, 1 and $k$, on the answers of each step. By what factor do the passes of a step grow, and what is the factor if only one step in ten is measured?
# ```
#
# ````{solution-start} ex-scale-training
# :class: dropdown
# ````
#
# Training costs $3 F$, the measurement $2 (3 + 2) F$ and one $F$ for the log-probabilities: the passes cost $14/3$ of what they did. One step in ten makes it $1 + 11/30$. Drawing is not repeated, so that the whole step grows by less.

# %%
factor = 1 + measurement_units(2) / training_units()
assert abs(factor - 14 / 3) < 1e-12
assert abs(1 + (factor - 1) / 10 - (1 + 11 / 30)) < 1e-12
factor

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - engine, place of the weights and number of runs change with the size; estimator, passes, files and notebooks do not;
# - a measurement costs five forward passes an order with an interval and one more, a training step three, whatever the model;
# - one measured rate predicts the times of log-probabilities and gradients at other depths and batches to within a third, and those of derivatives only where the batch is large against the search for a step;
# - drawing is bound by the memory that is read, not by operations, and for long answers no batch changes that;
# - at 8B, on paper, passes cost more than drawing in a measurement and about as much in training, and their precision decides between hours and days.
