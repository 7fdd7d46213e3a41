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
# (sec-measure-your-model)=
# # Measure your own model
#
# **Result.** One command takes a model and prompts with answers and says from which $k$ on a step up pass@k lowers pass@1, on which prompts and in which layers, with intervals.
# Here it is run on a checkpoint whose conflict is known exactly, and its band holds the exact curve.
#
# **What you need.** {ref}`Estimating conflict from samples <sec-estimating-conflict>` for what the intervals mean; a file of prompts.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $\langle \nabla J_k, \nabla J_1 \rangle$ | slope of pass@1 along the gradient of pass@k, over all weights |
# | $k^*$ | the first $k$ at which it turns negative |
# | $a(x) = \langle \nabla p(x), \nabla J_1 \rangle$ | agreement of a prompt with pass@1 |

# %%
import json
import shlex
import shutil
import subprocess
import sys
import time

import pandas as pd
from IPython.display import HTML, Markdown

from passgrad.ascent.ascent import ascend
from passgrad.interference import conflict
from passgrad.lm.models import load_model, save_model
from passgrad.objectives import PassAtK
from passgrad.tasks.conventions import conventions
from passgrad.worlds.language import LanguageWorld
from passgrad_book.build import figures, paths

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the language model that the checkpoint is made from
seed: int = 0  # choice of the sums, and of the completions
num_easy: int = 14  # prompts in base 10
num_hard: int = 6  # prompts in base 9
num_examples: int = 8  # worked examples before each question
warmup_steps: int = 6  # steps up pass@1 that make the checkpoint
warmup_step_size: float = 0.001  # their size
num_samples: int = 64  # completions of each prompt
ks: list = [1, 2, 4, 8, 16, 32]  # orders with intervals

# %% [markdown]
# ## A model and a file of prompts
#
# The command needs a folder with a model, or a name, and a file with one JSON object a line.
# For the model we take the two conventions of {ref}`sec-language-exact` once more, as somebody's fine-tuned checkpoint: a few steps up pass@1, and the easy prompts lead.
# The prompts have one accepted answer each, so the exact curve is known too, and we can look how the measurement does.

# %%
network, tokenizer = load_model(model)
task = conventions(num_prompts=(num_easy, num_hard), num_examples=num_examples, seed=seed)
world = LanguageWorld(network, tokenizer, task.prompts, stop=task.stop)
theta = ascend(world, None, PassAtK(1), step_size=warmup_step_size, steps=warmup_steps).theta
exact = conflict(world, theta, ks=ks)
world.layout.load(network, theta)

folder = paths.build() / "measured"
shutil.rmtree(folder, ignore_errors=True)
checkpoint = save_model(network, tokenizer, folder / "checkpoint")
prompts_file = folder / "prompts.jsonl"
columns = ("prompt", "answer", "id", "group")
rows = [(x.text, x.answer, x.id, x.group) for x in task.prompts]
lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
prompts_file.write_text("\n".join(lines) + "\n")
print(lines[-1])

# %% [markdown]
# ## The command


# %%
def passgrad(*arguments):
    """Run the command in the project's folder, as a terminal would; give the seconds it took."""
    print("$ passgrad", shlex.join(arguments))
    begun = time.perf_counter()
    call = [sys.executable, "-m", "passgrad.cli", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, cwd=paths.root())
    print(done.stderr + done.stdout)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begun


where = {x: str(paths.relative(folder / x)) for x in ("checkpoint", "prompts.jsonl", "out")}
arguments = [
    "measure", "--model", where["checkpoint"], "--prompts", where["prompts.jsonl"],
    "--verifier", "exact", "--stop", "\n", "--max-new-tokens", "8", "--reading", "fixed",
    "--samples", str(num_samples), "--ks", ",".join(map(str, ks)), "--out", where["out"],
]  # fmt: skip
seconds = passgrad(*arguments)

# %% [markdown]
# The last lines are the verdict, what a small step would do, and where the report is.
# A run that is stopped, by whatever means, goes on when it is called again with `--resume`: completions and passes that were finished are read.
# Here everything is there, so that only the model is loaded and the tables are written once more.

# %%
again = passgrad(*arguments, "--resume")
Markdown(f"The run took {seconds:.0f} seconds, the second call {again:.0f}.")

# %% [markdown]
# ## The curve
#
# The tables lie beside the report as parquet; {ref}`sec-measure-reference` explains each column.

# %%
tables = {
    name: pd.read_parquet(folder / "out" / f"{name}.parquet")
    for name in ("curve", "prompts", "parts", "step")
}
curve = tables["curve"]
curve.insert(1, "exact", exact.inner_product.numpy())
curve.round(2)

# %% tags=["hide-input"]
held = (curve["band_low"] <= curve["exact"]) & (curve["exact"] <= curve["band_high"])
against, along = curve[curve["band_high"] < 0], curve[curve["band_low"] > 0]
said = f"The band holds the exact curve at {int(held.sum())} of {len(held)} orders. "
said += (
    f"It lies below zero at k = {', '.join(f'{k:g}' for k in against['k'])}: "
    if len(against)
    else "It lies below zero at no k: "
)
said += f"the exact curve turns negative at k = {exact.threshold:.2f}."
Markdown(said)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The product of the gradients of pass@k and pass@1, measured from completions with its simultaneous band, and the exact one. What the samples decide and what they leave open can be read off the band.", "name": "fig-measured-curve"}, "image": {"alt": "Measured inner product against k with a band, and the exact curve beside it."}}
def draw(ax):
    figures.zero(ax)
    band = {"low": curve["band_low"], "high": curve["band_high"]}
    figures.curve(ax, curve["k"], curve["inner_product"], of="cross-fit", label="measured", **band)
    figures.curve(ax, curve["k"], curve["exact"], of="exact", exact=True)
    figures.k_axis(ax, ks)
    ax.set_ylabel("⟨∇J_k, ∇J₁⟩")
    figures.legend(ax)


alt = f"Measured inner product from {curve['inner_product'].iloc[0]:.0f} at k = {ks[0]} to {curve['inner_product'].iloc[-1]:.0f} at k = {ks[-1]}, with its band; the exact curve goes from {curve['exact'].iloc[0]:.0f} to {curve['exact'].iloc[-1]:.0f}."
figures.show(draw, alt=alt, data=curve, size=(5, 3.4))

# %% [markdown]
# ## The prompts behind it
#
# A prompt pulls against pass@1 where its agreement is negative; pass@k weighs it by $k (1 - p)^{k - 1}$.
# The column `contribution_K` is what it adds to the product at $k = K$: the prompts that carry the conflict are those at the top of this list.

# %%
prompts = tables["prompts"]
largest = f"contribution_{ks[-1]}"
shown = ["prompt_id", "group", "num_correct", "agreement", "agreement_error", largest]
prompts.sort_values(largest)[shown].head(6).round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Agreement of each prompt with pass@1 against its success rate, with 95 % intervals given the direction. The prompts of the hard convention lie to the left, where large k puts its weight.", "name": "fig-measured-agreement"}, "image": {"alt": "Agreement against success rate of the prompts of two groups, with intervals."}}
def draw(ax):
    figures.zero(ax)
    for group, part in prompts.groupby("group", sort=False):
        reach = 1.96 * part["agreement_error"]
        ends = {"low": part["agreement"] - reach, "high": part["agreement"] + reach}
        figures.points(ax, part["success"], part["agreement"], of=group, **ends)
    ax.set(xlabel="share of right answers", ylabel="agreement a(x)")
    figures.legend(ax)


negative = prompts[prompts["agreement"] < 0].groupby("group").size()
alt = f"Agreement against success rate: negative for {int(negative.sum())} of {len(prompts)} prompts, {int(negative.get('base 9', 0))} of them in base 9."
figures.show(draw, alt=alt, data=prompts[shown], size=(5, 3.4))

# %% [markdown]
# ## Where in the model
#
# The product is a sum over the weights, so it can be divided: by block, by group of parameters, and by the three readings that the words "final layer" have.
# The parts come from the same halves as the whole and add up to it, up to the error of folding large gradients to a few numbers, which is small beside their own.
# They take one more pass, over the answers to some prompts at a time; the spread over these gives the intervals.

# %%
parts = tables["parts"]
names = ["kind", "part", "inner_product", "low", "high", "cosine"]
parts[parts["kind"] != "layer"][names].round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The product by block of the model, from the embedding to the last norm, with the interval of each by itself.", "name": "fig-measured-layers"}, "image": {"alt": "Inner product by block of the model with intervals, in the order of the blocks."}}
def draw(ax):
    figures.zero(ax)
    places = range(len(layers))
    ends = {"low": layers["low"], "high": layers["high"]}
    figures.points(ax, places, layers["inner_product"], of="conflict", label="part", **ends)
    ax.set(xlabel="part of the model, from the input to the output", ylabel="part of ⟨∇J_k, ∇J₁⟩")


layers = parts[parts["kind"] == "layer"]
lowest = layers.loc[layers["inner_product"].idxmin()]
alt = f"Parts of the product at k = {int(layers['k'].iloc[0])} in {len(layers)} parts of the model; the lowest is {lowest['part']} with {lowest['inner_product']:.1f}."
figures.show(draw, alt=alt, data=layers[names], size=(6, 3.2))

# %% [markdown]
# ## What a step would do
#
# The slope says what an infinitely small step does.
# For a step of a given size the second order can be estimated too, from how log-probabilities bend along the gradient.
#
# ```{prf:proposition} The second order of pass@k, without bias
# :label: prop-second-order
#
# Let $y_1, \dots, y_n$ be independent answers to $x$, $v$ a vector of parameter space that does not depend on them, $s = \langle \nabla \log \pi, v \rangle$ and $h = v^\top \nabla^2 \log \pi \, v$. Then
#
# $$
# D_v^2 J_k = \mathbb{E}_x\bigl[ f_k'(p)\, p'' + f_k''(p)\, p'^2 \bigr], \qquad p' = \mathbb{E}[r s], \quad p'' = \mathbb{E}[r (s^2 + h)].
# $$
#
# (a) If the advantages $A_i$ are exchangeable and $\sum_i A_i s_i$ is unbiased for $f_k'(p)\, p'$, then $\sum_i A_i (s_i^2 + h_i)$ is unbiased for $f_k'(p)\, p''$.
# (b) For $2 \le n$, $k \le n$, with $c'$ the right answers among the $n - 2$ others, any $\beta_{c'}$, and $\gamma_{c'} = -\frac{k (k-1)}{n (n-1)} \binom{n-2-c'}{k-2} / \binom{n-2}{k-2}$,
#
# $$
# \mathbb{E} \sum_{a \ne b} \gamma_{c'} (r_a - \beta_{c'}) (r_b - \beta_{c'})\, s_a s_b = f_k''(p)\, p'^2 .
# $$
#
# Checked by {test}`test_second_order`.
# ```
#
# ```{prf:proof}
# Along $v$ the second derivative of $\pi$ is $\pi (s^2 + h)$, and $\sum_y \pi(y) = 1$ gives $\mathbb{E}[s] = \mathbb{E}[s^2 + h] = 0$; the chain rule gives $D_v^2 J_k$.
# (a) By exchangeability $\mathbb{E} \sum_i A_i q_i = n\, \mathbb{E}_c[A_+(c + 1) - A_-(c)]\, \mathbb{E}[r q]$ for every function $q$ of an answer with mean zero, $c$ binomial from the $n - 1$ others: the factor that $q = s$ gives is the one that $q = s^2 + h$ gets.
# (b) Given the others, the factors of $a$ and $b$ are independent, each with mean $p'$. The ratio of binomials is the chance that $k - 2$ of the others, chosen at random, are all wrong, of mean $(1 - p)^{k - 2}$, and there are $n (n - 1)$ ordered pairs.
# ```
#
# The vector $v$ comes from one half of the completions and the terms from the other.
# By default the step is the one that raises its pass@k by a point to first order; `--verify-step` takes it and draws completions before and after.

# %%
step = tables["step"]
step[["k", "first", "second", "total", "low", "high"]].round(4)

# %% [markdown]
# ## The report
#
# All of this, with the texts of prompts and completions, is one HTML file that asks no other host for anything.
# Point at a prompt in it to read it.

# %% tags=["hide-input"]
page = (folder / "out" / "report.html").read_text(encoding="utf-8")
quoted = page.replace("&", "&amp;").replace('"', "&quot;")
HTML(
    f'<div><iframe srcdoc="{quoted}" title="The report of this measurement" '
    'style="width: 100%; height: 42rem; border: 1px solid #8888"></iframe></div>'
)

# %% [markdown]
# ## How many prompts, how many samples
#
# A small measurement is a pilot: from its errors follows what a larger one would see.
# The effect that is asked for is a share of $\lVert \nabla J_1 \rVert^2$: at 0.1, a step along $\nabla J_k$ costs pass@1 a tenth of what the same step along $\nabla J_1$ would gain.

# %%
planned = passgrad("plan", where["out"], "--ks", str(ks[-1]), "--effect", "0.1")

# %% [markdown]
# ## Samples that exist already
#
# Training logs are samples of the policy too.
# The command reads those of verl, TRL and vLLM and plain tables, and compares their law with the model's before it uses them: completions of another checkpoint, temperature or precision are noticed.

# %%
drawn = pd.read_parquet(folder / "out" / "rollouts.parquet")
kept = ["prompt_id", "prompt", "completion_ids", "reward", "temperature", "top_p", "top_k"]
drawn[kept].rename(columns={"prompt_id": "id"}).to_parquet(folder / "log.parquet")
log = str(paths.relative(folder / "log.parquet"))
target = str(paths.relative(folder / "from-log"))
fixed = ["--reading", "fixed", "--no-parts", "--no-step", "--ks", str(ks[0])]
reused = passgrad(
    "measure", "--model", where["checkpoint"], "--rollouts", log, "--out", target, *fixed
)

# %% [markdown]
# ## Servers, several processes, large models
#
# These are the same command; they were not run for this page.
#
# ```bash
# # completions from a vLLM server, which is compared with the model first
# python -m vllm.entrypoints.openai.api_server --model MODEL --port 8000
# passgrad measure --model MODEL --prompts FILE --engine server --base-url http://127.0.0.1:8000/v1 --out DIR
#
# # prompts and passes shared by eight GPUs
# torchrun --standalone --nproc_per_node 8 -m passgrad.cli measure --model MODEL --prompts FILE --out DIR
#
# # the parameters of an adapter alone
# passgrad measure --model ADAPTER_FOLDER --prompts FILE --out DIR
# ```
#
# A model that does not fit on one device is sharded by `passgrad.lm.fsdp.shard`, with central differences for the derivatives along a gradient.
#
# ## Scope
#
# The measurement is about the weights as they are and a small step of plain gradient ascent.
# With few prompts the intervals are long, and where the gradient of pass@1 is hardly seen they may be too short; the report says so.
# The checkpoint was made for this page so that it has a conflict: the numbers say how the tool works, and nothing about other models.
#
# ## Exercises
#
# ```{exercise} Another reading
# :label: ex-measured-reading
#
# The run above took the prompts as they are (`--reading fixed`).
# What would `--reading new` change, and would the band get longer or shorter?
# Which column tells how much of the error more samples of the same prompts would take away?
# ```

# %% [markdown]
# ````{solution-start} ex-measured-reading
# :class: dropdown
# ````
#
# The completions stay the same, and so do the success rates.
# The halves are then halves of the prompts, and the error is that of prompts and completions together: the band gets longer, much longer with so few prompts.
# The column `answer_error` is the part that more samples would lower; for fixed prompts it is all of the error.

# %%
known = curve.dropna(subset=["answer_error"])
assert len(known) > 0
assert ((known["answer_error"] / known["standard_error"] - 1).abs() < 1e-9).all()
known[["k", "standard_error", "answer_error"]].round(2)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise} What adds up
# :label: ex-measured-contribution
#
# Check that the contributions of the prompts at the largest $k$ add up to the measured product, and so do the parts of the model at their $k$.
# ```

# %% [markdown]
# ````{solution-start} ex-measured-contribution
# :class: dropdown
# ````

# %%
total = float(prompts[largest].sum())
measured = curve.set_index("k")["inner_product"]
assert abs(total - measured.iloc[-1]) < 1e-6 * (1 + abs(total))
by_layer = float(layers["inner_product"].sum())
assert abs(by_layer - measured[layers["k"].iloc[0]]) < 1e-2 * measured.abs().max()
prompts.groupby("group")[largest].sum().round(2)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## Summary
#
# We saw:
#
# - one command from a model and a file of prompts to a verdict with a simultaneous band over $k$,
# - that the band holds the exact curve of a model whose conflict is known,
# - which prompts and which layers the conflict lies in, and what a step would do,
# - how to go on after a stop, how to plan a larger run, and how to use samples that exist already.
