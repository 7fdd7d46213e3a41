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
# (sec-math-conflict)=
# # Measuring interference in LLM mathematics
#
# **Result.** The printed measurement of the paper, rebuilt on a small model whose exact gradients are known, has the wrong sign in a large share of samples on one of four such data sets, and on another it often has no prompts left; where success rates lie close together it is right.
# Which layer is read and which prompts are kept can change the sign; the sum in place of a mean and the prompts with $c = 0$ change the size alone.
# Without the filter the sign is right more often, and only unbiased weights with different answers in the two gradients are right on average, at the price of wide intervals.
# The models of the paper were not run, so this says how far the printed numbers can be trusted, and not what the right ones are.
#
# **What you need.** {ref}`Estimating conflict from samples <sec-estimating-conflict>`, and {ref}`the exact conflict of a language model <sec-language-exact>`.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $n$, $c$, $\hat p = c / n$ | answers to a prompt, how many are right, and their share |
# | $w_k = k (1 - p)^{k - 1}$ | weight of a prompt in $\nabla J_k$ |
# | $g_x = \frac1n \sum_i r_i\, \nabla \log \pi(y_i \mid x)$ | gradient of a prompt from its right answers |
# | $\delta_1$, $\delta_2$ | thresholds: only prompts with $\hat p > \delta_1$ or $0 < \hat p < \delta_2$ are kept |
# | $N$ | prompts that are kept |

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from passgrad.errors import UserError
from passgrad.measurement import estimate_conflict
from passgrad.objectives import PassAtK
from passgrad_book.build import figures
from passgrad_book.build.results import DamagedResult
from passgrad_book.experiments.cost.hours import H100, plan_table
from passgrad_book.experiments.cost.operations import Work
from passgrad_book.experiments.mathematics.as_printed import (
    RIGHT_ONLY,
    ablation,
    as_samples,
    exact,
    sign_shares,
    steps,
    weight,
)
from passgrad_book.experiments.mathematics.math_study import rewards_of
from passgrad_book.experiments.mathematics.regime import first_conflict, spread
from passgrad_book.experiments.mathematics.stored import (
    make_task,
    math_chat,
    math_conflict,
    regime_map,
)
from passgrad_book.experiments.mathematics.study_vectors import check_size, read_vectors

# %% [markdown]
# The three profiles run the same cells: `smoke` in seconds, `cpu` with SmolLM2-135M, and `gpu` with the two models of the paper, which was not run here.
# Below are the values of `cpu`.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the language model
datasets: list = [
    "conventions",
    "arithmetic",
    "chain_sum",
    "gcd",
    "gsm_symbolic",
    "gsm8k",
    "math",
]  # what is asked
prompting: str = "few-shot"  # few-shot, or chat: each question as a message, judged by math-verify
engine: str = "shared"  # shared: short answers with nothing computed twice; vllm; transformers
device: str = "cpu"  # where the passes run; vllm takes the first GPU whole, so beside it cuda:1
precision: str = "float32"  # of the weights in the passes, or bfloat16
seed: int = 0  # choice of the prompts, and seed of the engine
num_samples: int = 32  # n, answers a prompt under the printed law; twice as many at temperature 1
k: int = 32  # order of pass@k, not above num_samples
ks: list = [1, 2, 4, 8, 16, 32]  # orders of the corrected measurement
short_prompts: int = 14  # prompts of a data set of arithmetic
word_prompts: int = 8  # prompts of a data set of word problems
gsm8k_path: str = ""  # a JSON-lines file of GSM8K; empty: the hub, by name
math_path: str = ""  # the same for MATH
math_hub: str = "HuggingFaceH4/MATH-500"  # its name on the hub
math_split: str = "test"  # its split there
longest_problem: int = 140  # characters of a problem of MATH beyond which it is left out
easy: float = 0.85  # delta_1
hard: float = 0.10  # delta_2
temperature: float = 0.7  # of the printed sampling law
top_p: float = 0.95  # of the printed sampling law
centred: list = ["conventions", "arithmetic"]  # with gradients of wrong answers
whole: list = ["conventions", "arithmetic", "chain_sum", "gcd"]  # with those of unsolved prompts
sketch_size: int = 16384  # numbers that a gradient over all weights is folded to
products_gb: float = 4.0  # memory that the products of all pairs of vectors may take
warmup_steps: int = 6  # steps up pass@1 before the two families of sums are measured
warmup_step_size: float = 0.001  # their size
replications: int = 2000  # new answers, to see the law of an estimate
chat_prompts: int = 4  # prompts that are asked in chat, for comparison
chat_samples: int = 4  # answers to each
chat_tokens: int = 40  # longest answer in chat
regime_model: str = "smollm2-135m"  # what is fine-tuned, by exact steps
regime_mixes: list = ["conventions", "arithmetic"]  # on which sums
regime_seeds: list = [0]  # choices of the sums along the fine-tuning
regime_steps: int = 6  # steps of it
regime_step_size: float = 0.001  # their size
regime_ks: list = [2, 32]  # orders that are followed
plan_models: list = ["deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]  # fmt: skip
plan_prompts: int = 2000  # problems in the plan of the large run
plan_tokens: int = 3500  # assumed mean length of an answer there
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## What is asked, and how
#
# A small instruct model that is asked in chat at temperature 1 wanders: its answers are long, nearly all different, and often wrong.
# Behind a few worked examples with the bare answer it names a number at once.
# Then success rates spread, a completion is a few tokens, and where one string is accepted the success rate is an exact probability.
#
# The data sets are GSM8K {cite}`cobbe2021gsm8k` and MATH {cite}`hendrycks2021math` with the answer asked for at once, some of reasoning-gym {cite}`stojanovski2025reasoning`, and the natural families of arithmetic and the two conventions of {ref}`sec-language-exact`.
# Before these two the model takes a few exact steps up pass@1, so that easy prompts are easy, as in the models of the paper.

# %%
task_sizes = {
    "short_prompts": short_prompts,
    "word_prompts": word_prompts,
    "seed": seed,
    "longest_problem": longest_problem,
}
example = make_task("chain_sum", **task_sizes).prompts[0]
print(example.text + example.answer)

# %% [markdown]
# One call a data set draws answers under both sampling laws and takes the inner products of the mean scores of right and wrong answers, over all weights and in three readings of "the final hidden layer".
# It takes minutes a data set, so what it found is stored with the book.


# %%
files = {"gsm8k": gsm8k_path, "math": math_path}
common = {
    "model": model,
    "prompting": prompting,
    "engine": engine,
    "device": device,
    "precision": precision,
    "num_samples": num_samples,
    "temperature": temperature,
    "top_p": top_p,
    "sketch_size": sketch_size,
    "warmup_steps": warmup_steps,
    "warmup_step_size": warmup_step_size,
    "chat_tokens": chat_tokens,
    "math_hub": math_hub,
    "math_split": math_split,
    "products_gb": products_gb,
}
found, missing = {}, {}
for name in datasets:
    try:
        found[name] = math_conflict.result(
            dataset=name,
            centred=name in centred,
            whole=name in whole,
            problems_path=files.get(name, ""),
            **common,
            **task_sizes,
            recompute=recompute,
        )
    except DamagedResult:
        raise  # a stored file that was edited must stop the page
    except UserError as error:
        if recompute:
            raise  # what was asked for cannot be done
        missing[name] = str(error)
remarks = [f"{name} is left out: {reason}." for name, reason in missing.items()]
took = sum(one.record["wall_seconds"] for one in found.values()) / 60
Markdown(
    f"{len(found)} of {len(datasets)} data sets are there; drawing and passing took {took:.0f} minutes in all on the machine that made them. "
    + " ".join(remarks)
)


# %%
def rates(name):
    """Success rates at T = 1: exact where one answer is accepted, otherwise shares of 2 n."""
    prompts = found[name]["prompts"]
    exact_there = prompts["success"].notna().all()
    counted = prompts["correct_policy"] / (2 * num_samples)
    return (prompts["success"] if exact_there else counted).to_numpy(), bool(exact_there)


rows = []
for name in found:
    p, known = rates(name)
    prompts = found[name]["prompts"]
    sharp = prompts["correct_printed"] / num_samples
    rows.append({
        "data set": name, "prompts": len(p), "p exact": known, "pass@1": p.mean(),
        "largest p": p.max(), "sd of p": p.std(), "pass@1 at T = 0.7": sharp.mean(),
        "easy": int((sharp > easy).sum()), "hard": int(((sharp < hard) & (sharp > 0)).sum()),
        "c = 0": int((sharp == 0).sum()), "sketch error": found[name]["facts"]["sketch_error"][0],
    })  # fmt: skip
summary = pd.DataFrame(rows).set_index("data set")
summary.round(3)

# %% [markdown]
# "easy" and "hard" are the prompts that the printed filter keeps, from answers at $T = 0.7$; "c = 0" are those that it drops as unsolved.

# %% [markdown]
# ### The same questions in chat
#
# Some of the sums above as messages, without examples, judged by math-verify.


# %%
chat = math_chat.result(
    model=model,
    engine="transformers" if engine == "shared" else engine,
    seed=seed,
    short_prompts=short_prompts,
    num_prompts=chat_prompts,
    num_samples=chat_samples,
    chat_tokens=chat_tokens,
    recompute=recompute,
)["answers"]

# %% tags=["hide-input"]
in_chat_rates = chat.groupby("prompt_id", sort=False)["reward"].mean()
behind = ""
if "chain_sum" in found and prompting == "few-shot":
    same = found["chain_sum"]["prompts"].set_index("prompt_id")["success"]
    behind = f" Behind examples pass@1 on the same {len(in_chat_rates)} sums is {same[in_chat_rates.index].mean():.0%}."
Markdown(
    f"In chat {chat['reward'].mean():.0%} of {len(chat)} answers are right, {chat['completion'].nunique()} are distinct, and {(chat['finish_reason'] == 'length').mean():.0%} run into the limit of {chat_tokens} tokens.{behind} "
    "An answer that is unlike all others has to be passed over by itself, and a success rate is no longer the probability of one text: in chat it can only be counted."
)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Success rates at T = 1 by data set: exact where one answer is accepted, otherwise shares of the answers; last panel: the sums that were asked in chat. Where nearly all mass lies in the first bar a prompt is hardly ever solved.", "name": "fig-math-success"}, "image": {"alt": "Histograms of success rates for each data set and for sums asked in chat."}}
def draw(axes):
    flat = np.ravel(axes)
    for ax, (name, p) in zip(flat, asked_rates.items(), strict=False):
        of = "chain_sum" if name == "chain_sum, chat" else name
        figures.histogram(ax, p, of=of, label="", binrange=(0, 1), bins=20)
        ax.set(xlabel="success rate p(x)", ylabel="prompts", xlim=(0, 1))
        figures.panel(ax, name)
    for ax in flat[len(asked_rates) :]:
        ax.set_axis_off()


asked_rates = {name: rates(name)[0] for name in found} | {
    "chain_sum, chat": in_chat_rates.to_numpy()
}
parts = [f"{name}: mean {p.mean():.2f}, largest {p.max():.2f}" for name, p in asked_rates.items()]
data = pd.concat([pd.DataFrame({"asked": name, "success": p}) for name, p in asked_rates.items()])
alt = f"Histograms of success rates. {'; '.join(parts)}."
figures.show(draw, alt=alt, data=data, nrows=-(-len(asked_rates) // 4), ncols=4, size=(9.5, 4.6))

# %% [markdown]
# ## As printed
#
# The paper {cite}`barakat2026passk` takes $n = 32$ answers of 2,000 problems at $T = 0.7$ and top-p 0.95, keeps prompts with $\hat p > \delta_1$ or $\hat p < \delta_2$, and reports "the inner product" with respect to "the policy parameters in the final hidden layer".
# Where the text is silent, its numbers tell: $k = n = 32$ with the plug-in weight $k (1 - c/n)^{k-1}$ gives the printed weights of about 12, 4 and 1 for $c = 1, 2, 3$, so that prompts with $c = 0$, whose weight would be 32, are not among the hard ones; and the printed products are sums over prompts.

# %%
c = torch.tensor([1, 2, 3, 28, 32])
unbiased = RIGHT_ONLY.tables(32, [32])[0][0]
printed_weights = pd.DataFrame({
    "c": c, "plug-in weight": weight(c, 32, 32).numpy(), "unbiased weight": 32 * unbiased[c].numpy(),
})  # fmt: skip
assert printed_weights["plug-in weight"].round(2).tolist()[:3] == [11.96, 4.33, 1.51]
assert np.isclose(printed_weights["plug-in weight"][3] / 32, (1 / 8) ** 31)
printed_weights

# %% [markdown]
# The last column is $n A_+(c)$ of the unbiased estimator at $k = n$: only prompts that were solved exactly once count, where the plug-in counts all hard ones.
#
# Two of the choices change the size of the number and nothing else.
#
# ```{prf:proposition} Choices of size
# :label: prop-choices-of-size
#
# Let $N$ prompts be kept, $g_x$ and $w_x$ be computed from the answers to $x$, $a(x) = \langle g_x, \frac1N \sum_{x'} g_{x'} \rangle$, and $C = \langle \frac1N \sum_x w_x g_x, \frac1N \sum_x g_x \rangle$.
#
# (a) $\sum_x w_x a(x) = N C$.
# (b) If $g_x = 0$ for unsolved prompts, as it is without a baseline and with one that is zero at $c = 0$, then leaving out $U$ of them multiplies $C$ by $N^2 / (N - U)^2$ and leaves the cosine as it is.
#
# Checked by {test}`test_choices_of_size`.
# ```
#
# ```{prf:proof}
# (a) is linearity. In (b) both sums over prompts stay what they are, and only the two factors $1/N$ change, which a cosine does not see.
# ```
#
# So a printed $-0.613$ on 550 prompts is $-1.1 \cdot 10^{-3}$ as an inner product of gradients, and products of runs with different $N$ cannot be compared before they are divided.
#
# ## As corrected, one choice at a time
#
# From left to right each step changes one choice: first the three readings of "final hidden layer", then all parameters, the mean instead of the sum, no filter, the prompts with $c = 0$ back, answers from the policy itself ($T = 1$), unbiased weights, and different answers in the two gradients.
# The two centred steps stand aside: they subtract the share of right answers, which removes what all scores have in common where $T = 0.7$ samples are differentiated at $T = 1$.


# %%
band = (easy, hard)
order = [step.name for step in steps(band)]
again = {"band": band, "replications": replications, "seed": seed}
vectors = {name: read_vectors(one.tables) for name, one in found.items()}
parts, truths = [], {}
for name, one in found.items():
    rewards = {law: rewards_of(one.tables, law) for law in ("printed", "policy")}
    parts.append(ablation(vectors[name], rewards, num_samples, k, **again).assign(dataset=name))
    p, known = rates(name)
    if known and name in whole:
        both = exact(vectors[name], "all parameters", torch.tensor(p), [k])
        truths[name] = tuple(float(value[0]) for value in both)
steps_taken = pd.concat(parts, ignore_index=True)
cosines = steps_taken.pivot(index="step", columns="dataset", values="cosine")
cosines = cosines.reindex(index=order, columns=list(found))
cosines.loc["exact"] = pd.Series({name: one[1] for name, one in truths.items()})
cosines.round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "From the printed measurement to the corrected one, one choice at a time: the cosine (its sign is that of the product) and the absolute value of the product, with 95 % intervals of new answers; at the right end the exact value, where there is one. A missing point: nothing was left after the filter, or an estimated squared length is not positive.", "name": "fig-math-ablation"}, "image": {"alt": "Cosine and size of the estimated product at each step from the printed to the corrected measurement."}}
def draw(axes):
    figures.zero(axes[0])
    for number, name in enumerate(usable):
        shift = 0.1 * (number - len(usable) / 2)
        if name in truths:
            end, look = [len(order) + shift], {"exact": True, "label": "", "markersize": 9}
            figures.points(axes[0], end, [truths[name][1]], of=name, **look)
            figures.points(axes[1], end, [abs(truths[name][0])], of=name, **look)
        for ax, column in zip(axes, ("cosine", "product"), strict=True):
            part = usable[name].dropna(subset=[column])
            y, reach = part[column], 1.96 * part[f"{column}_error"].fillna(0)
            y = y if ax is axes[0] else y.abs()
            low = (y - reach).clip(lower=-1) if ax is axes[0] else (y - reach).clip(lower=y / 10)
            high = (y + reach).clip(upper=1) if ax is axes[0] else y + reach
            figures.points(ax, part["place"] + shift, y, of=name, low=low, high=high)
    for ax in axes:
        names = [*order, "exact"]
        ax.set_xticks(range(len(names)), names, rotation=55, ha="right", fontsize=8)
        ax.axvline(len(order) - 0.5, color=figures.COLOURS["neutral"], linewidth=0.8)
    axes[0].set(ylabel="cosine", ylim=(-1.05, 1.05))
    axes[1].set(ylabel="|product|", yscale="log")
    figures.legend(axes[0], loc="lower right", fontsize=8, ncols=2)


usable = {
    name: part[part["product"] != 0] for name, part in steps_taken.groupby("dataset", sort=False)
}
usable = {name: part for name, part in usable.items() if len(part)}
flips = {}
for name, part in usable.items():
    path = part[~part["step"].str.startswith("centred")]
    turned = np.sign(path["product"]).diff().fillna(0) != 0
    flips[name] = path["step"][turned].tolist()
alt = (
    "Steps at which the sign of the product changes: "
    + "; ".join(f"{name}: {', '.join(where) or 'none'}" for name, where in flips.items())
    + "."
)
figures.show(draw, alt=alt, data=steps_taken, ncols=2, size=(11, 5))

# %% tags=["hide-input"]
told = [
    f"{name}: " + (f"the sign changes at {', '.join(f'*{one}*' for one in where)}" if where else "no step changes the sign")
    for name, where in flips.items()
]  # fmt: skip
printed_counts = {name: one["prompts"]["correct_printed"] for name, one in found.items()}
alike = [f"*{name}*" for name, c in printed_counts.items() if c[c > 0].nunique() == 1]
Markdown(
    "In this sample, " + "; ".join(told) + ". "
    "The steps *mean, not sum* and *c = 0 back* change sizes only, as {prf:ref}`prop-choices-of-size` says."
    + (f" All prompts that were solved at $T = 0.7$ were solved equally often on {' and '.join(alike)}: then the weights are alike and the printed cosine is 1, whatever the gradients are." if alike else "")
)  # fmt: skip

# %% [markdown]
# One sample may have a sign by chance.
# Where success rates are exact, counts can be drawn as often as we like: the share of samples in which each step has the sign of the exact product, and in brackets that of the wrong sign.
# Where the two do not add up to one, nothing was left to estimate from.

# %%
parts = []
for name in truths:
    prompts = found[name]["prompts"]
    columns = {"printed": "success_printed", "policy": "success"}
    success = {law: torch.tensor(prompts[one].to_numpy()) for law, one in columns.items()}
    parts.append(sign_shares(vectors[name], success, num_samples, k, **again).assign(dataset=name))
signs = pd.concat([pd.DataFrame(columns=["step", "dataset", "right", "wrong"]), *parts])
signs["text"] = [f"{right:.2f} ({wrong:.2f})" for right, wrong in zip(signs["right"], signs["wrong"], strict=True)]  # fmt: skip
last = pd.DataFrame({"step": "exact cosine", "dataset": name, "text": f"{one[1]:.2f}"} for name, one in truths.items())  # fmt: skip
table = pd.concat([signs, last]).pivot(index="step", columns="dataset", values="text")
plain = [name for name in order if not name.startswith("centred")]
table.reindex(index=[*plain, "exact cosine"], columns=list(truths))

# %% tags=["hide-input"]
by_step = signs.set_index(["step", "dataset"])
lines = []
for name in truths:
    first, free, fitted = (
        by_step.loc[step, name] for step in ("all parameters", "no filter", "cross-fitted")
    )
    lines.append(
        f"*{name}* (standard deviation of $p$: {summary.loc[name, 'sd of p']:.2f}): filtered, the sign over all parameters is right in {first['right']:.0%} of samples, wrong in {first['wrong']:.0%} and missing in {first['none']:.0%}; without the filter right in {free['right']:.0%}; cross-fitted in {fitted['right']:.0%}."
    )
Markdown("\n".join(f"- {line}" for line in lines) or "No data set has exact success rates.")

# %% [markdown]
# At $k = n$ the unbiased weights count only prompts that were solved exactly once, so that most answers do not enter and a sign is lost more often than with the plug-in weights, to which all hard prompts contribute.
# What these estimate is another product, though; nothing makes its sign the right one, and no interval around it holds the true value.

# %% [markdown]
# ### The corrected numbers
#
# At all orders up to the size of a half: the product as a mean over prompts, its band for all $k$ at once, and the cosine with its interval, for these prompts; without the unsolved ones the product is larger by the factor of {prf:ref}`prop-choices-of-size`.

# %%
orders = [one for one in ks if one <= num_samples]
rows = []
for name, one in found.items():
    rewards = rewards_of(one.tables, "policy")
    if int(rewards.sum()) == 0:  # never solved: nothing to estimate from
        continue
    samples = as_samples(vectors[name], rewards)
    got = estimate_conflict(samples, orders, estimator=RIGHT_ONLY, prompts="fixed", seed=seed)
    frame = got.to_frame().assign(**{"data set": name})
    solved = float((rewards.sum(1) > 0).double().mean())
    frame["without c = 0"] = frame["inner_product"] / solved**2
    p, known = rates(name)
    frame["exact"] = (
        exact(vectors[name], "all parameters", torch.tensor(p), orders)[0]
        if name in truths
        else np.nan
    )
    rows.append(frame)
if not rows:
    raise UserError("no prompt of any data set was solved: ask more of them, or easier ones")
corrected = pd.concat(rows, ignore_index=True)
shown = ["data set", "k", "inner_product", "band_low", "band_high", "without c = 0", "cosine", "cosine_low", "cosine_high", "exact"]  # fmt: skip
corrected[shown].round(3)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The corrected product against k, with a 95 % band that holds for all k at once for these prompts, divided by its value at k = 1; line: exact. Word problems that are hardly ever solved have bands that say nothing.", "name": "fig-math-corrected"}, "image": {"alt": "Corrected products against k with bands and exact values for each data set."}}
def draw(axes):
    flat = np.ravel(axes)
    for ax, (name, part) in zip(flat, corrected.groupby("data set", sort=False), strict=False):
        scale = abs(part["exact"].iloc[0]) if part["exact"].notna().all() else part["squared_norm"].abs().iloc[0]  # fmt: skip
        figures.zero(ax)
        ends = {"low": part["band_low"] / scale, "high": part["band_high"] / scale}
        figures.curve(
            ax, part["k"], part["inner_product"] / scale, of="cross-fit", label="", **ends
        )
        if part["exact"].notna().all():
            figures.curve(ax, part["k"], part["exact"] / scale, of="exact", exact=True, label="")
        figures.k_axis(ax, orders)
        figures.panel(ax, name)
    for ax in flat[corrected["data set"].nunique() :]:
        ax.set_axis_off()
    flat[0].set_ylabel("product / ‖∇J₁‖²")


last = corrected[corrected["k"] == orders[-1]].set_index("data set")
decided = [name for name, row in last.iterrows() if row["band_high"] < 0 or row["band_low"] > 0]
alt = f"Corrected products for {len(last)} data sets; at k = {orders[-1]} the band has one sign for {', '.join(decided) or 'none'}."
figures.show(draw, alt=alt, data=corrected[shown], nrows=2, ncols=4, size=(10, 4.8))

# %% tags=["hide-input"]
known = corrected.dropna(subset=["exact"])
held = (known["band_low"] <= known["exact"]) & (known["exact"] <= known["band_high"])
missed = known[~held].groupby("data set", sort=False)["k"].agg(list)
lines = []
for name, at in missed.items():
    prompts = found[name]["prompts"]
    p, answers = prompts["success"], 2 * num_samples
    got, mean = prompts["correct_policy"].sum(), answers * p.sum()
    off = (got - mean) / (answers * (p * (1 - p)).sum()) ** 0.5
    orders_lost = ", ".join(f"{order:g}" for order in at)
    lines.append(
        f"*{name}* at $k =$ {orders_lost} ({got} of its answers are right where {mean:.0f} were to be expected, {off:+.1f} standard deviations)"
    )
start = f"The bands hold the exact value at {int(held.sum())} of {len(known)} points"
Markdown(
    (start if len(known) else "There is no exact value to hold the bands against")
    + (f"; they miss it for {' and for '.join(lines)}. Neighbouring orders use the same answers, so that they miss together" if lines else "")
    + f". At $k = {orders[-1]}$, the size of a half, only prompts solved exactly once in a half count: the estimate is unbiased, but a prompt that happened not to be among them is not seen in its error either, so that a band there can be too short."
)  # fmt: skip

# %% [markdown]
# ## From which spread on
#
# Models that have been trained on pass@1 solve a problem nearly always or nearly never.
# How far apart must success rates be for a conflict? For two levels there is an exact answer.
#
# ```{prf:proposition} The spread at which conflict begins
# :label: prop-spread-threshold
#
# Let every prompt have one of two success rates $p_h < p_e < 1$, and let $A_e$ and $A_h$ be the sums of $D(x)\, a(x)$ over either kind, so that $A_e + A_h = \|\nabla J_1\|^2 > 0$. Then $\langle \nabla J_k, \nabla J_1 \rangle < 0$ if and only if $A_h < 0$ and
#
# $$
# (k - 1) \log \frac{1 - p_h}{1 - p_e} > \log \frac{A_e}{-A_h} ,
# $$
#
# and the right side is positive.
#
# Checked by {test}`test_spread_threshold`.
# ```
#
# ```{prf:proof}
# Write $w_e < w_h$ for the weights $k (1 - p)^{k-1}$ of the two kinds, $k > 1$, so that the product is $w_e A_e + w_h A_h$.
# With $A_h \ge 0$ it is at least $w_e (A_e + A_h) > 0$.
# With $A_h < 0$ it is negative if and only if $w_h / w_e > A_e / (-A_h)$, and the logarithm of $w_h / w_e$ is the left side; $A_e > -A_h > 0$ makes the right side positive.
# ```
#
# Spread alone makes no conflict: hard prompts must be pulled down by a step up pass@1.
# If they are, the *logarithms of the failure rates* must lie apart by more than a constant over $k - 1$: what $k$ buys is that less spread suffices.
#
# We follow an exact fine-tuning on pass@1 of SmolLM2 and measure the exact conflict at every step.

# %%
followed = {
    (mix, choice): regime_map.result(
        mix=mix,
        model=regime_model,
        seed=choice,
        num_prompts=short_prompts,
        ks=regime_ks,
        steps=regime_steps,
        step_size=regime_step_size,
        recompute=recompute,
    )
    for mix in regime_mixes
    for choice in regime_seeds
}


# %%
rows = []
for (mix, choice), one in followed.items():
    first = pd.Series(first_conflict(one["prompts"]))
    cosines = one["curve"].pivot(index="step", columns="k", values="cosine")
    cosines.columns = [f"cosine at {order:g}" for order in cosines]
    frame = spread(one["prompts"], easy=easy, hard=hard).set_index("step").join(cosines)
    rows.append(frame.assign(mix=mix, seed=choice, first_k=first).reset_index())
regime = pd.concat(rows, ignore_index=True)
regime[regime["seed"] == regime_seeds[0]].drop(columns="seed").round(2)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Success rates along the fine-tuning on pass@1, before, in the middle and at the end, exact. Easy prompts become easy first, and the rates move to the two ends.", "name": "fig-regime-success"}, "image": {"alt": "Histograms of success rates at three moments of the fine-tuning."}}
def draw(axes):
    for line, mix in zip(axes, regime_mixes, strict=True):
        prompts = followed[mix, regime_seeds[0]]["prompts"]
        for ax, step in zip(line, moments, strict=True):
            part = prompts[prompts["step"] == step]
            figures.histogram(ax, part["success"], of=mix, label="", binrange=(0, 1), bins=20)
            ax.set(xlabel="success rate", ylabel="prompts", xlim=(0, 1))
            figures.panel(ax, f"{mix}, step {step}")


moments = sorted({0, regime_steps // 2, regime_steps})
while len(moments) < 3:
    moments.append(regime_steps)
ends = regime[regime["step"].isin([0, regime_steps]) & (regime["seed"] == regime_seeds[0])]
told = [f"{row.mix}, step {row.step}: standard deviation {row.deviation:.2f}" for row in ends.itertuples()]  # fmt: skip
data = pd.concat(
    {mix: followed[mix, regime_seeds[0]]["prompts"] for mix in regime_mixes}, names=["mix"]
)
figures.show(draw, alt=f"Success rates along the fine-tuning; {'; '.join(told)}.", data=data.reset_index(level=0), nrows=len(regime_mixes), ncols=3, squeeze=False, size=(9, 2.4 * len(regime_mixes)))  # fmt: skip


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The regime map: exact cosine along the fine-tuning on pass@1 (band: lowest to highest of the choices of sums), and in the last panel the cosine at the largest k against the standard deviation of the success rates, a point for each step.", "name": "fig-regime-map"}, "image": {"alt": "Exact cosine along fine-tuning and against the spread of success rates."}}
def draw(axes):
    for ax, mix in zip(axes, regime_mixes, strict=False):
        figures.zero(ax)
        for order in regime_ks:
            by_step = regime[regime["mix"] == mix].groupby("step")[f"cosine at {order:g}"]
            ends = {"low": by_step.min(), "high": by_step.max()}
            middle = by_step.mean()
            figures.curve(
                ax, middle.index, middle, of=f"pass@{order}", label=f"k = {order}", **ends
            )
        ax.set(xlabel="step up pass@1", ylabel="cosine", ylim=(-1, 1.05))
        figures.panel(ax, mix)
    figures.legend(axes[0], loc="lower left", fontsize=8)
    figures.zero(axes[-1])
    for mix, part in regime.groupby("mix", sort=False):
        figures.points(axes[-1], part["deviation"], part[top], of=mix, exact=True)
    axes[-1].set(
        xlabel="standard deviation of p", ylabel=f"cosine at k = {regime_ks[-1]}", ylim=(-1, 1.05)
    )
    figures.legend(axes[-1], loc="lower left", fontsize=8)


top = f"cosine at {regime_ks[-1]:g}"
least = regime.loc[regime[top].idxmin()]
alt = f"The lowest cosine at k = {regime_ks[-1]} is {least[top]:.2f}, in {least['mix']} at step {least['step']}, where the standard deviation of p is {least['deviation']:.2f}."
figures.show(draw, alt=alt, data=regime, ncols=len(regime_mixes) + 1, size=(3.7 * len(regime_mixes) + 3.7, 3.5))  # fmt: skip

# %% tags=["hide-input"]
lines = []
for mix, part in regime.groupby("mix", sort=False):
    against = part[part[top] < 0]
    lines.append(
        f"On *{mix}* the cosine at $k = {regime_ks[-1]}$ is negative at {len(against)} of {len(part)} measured points"
        + (
            f", the first of them at a standard deviation of {against['deviation'].min():.2f}, and it is positive up to {part.loc[part[top] >= 0, 'deviation'].max():.2f} elsewhere. "
            if len(against) and (part[top] >= 0).any()
            else ". "
        )
    )
widest = regime.loc[regime["deviation"].idxmax()]
link = regime[["deviation", top]].corr(method="spearman").iloc[0, 1]
Markdown(
    "".join(lines)
    + f"Over all points the rank correlation of spread and cosine is {link:.2f}. "
    + f"Spread is not all: at the largest one, {widest['deviation']:.2f}, the cosine is {widest[top]:.2f}."
)

# %% [markdown]
# ## What a model of 135 million weights can show, and what not
#
# It can show the arithmetic of the measurement: which choices change a sign, how often, and how far the printed estimate lies from the truth, since here there is a truth.
# It can show where conflict begins along a fine-tuning, on prompts that it can learn.

# %% tags=["hide-input"]
weak = [name for name in ("gsm8k", "math", "gsm_symbolic") if name in found]
words_of = {name: found[name]["prompts"]["correct_policy"] for name in weak}
told = [
    f"{int((c > 0).sum())} of {len(c)} problems of {name} (largest share {c.max() / (2 * num_samples):.0%})"
    for name, c in words_of.items()
]
one_sided = all(c.max() <= easy * 2 * num_samples for c in words_of.values())
Markdown(
    "It cannot say anything about the conflict on word problems. "
    + (f"Solved at least once in {2 * num_samples} answers: {', '.join(told)}. " if told else "")
    + ("No prompt is easy there, so the printed filter has one side only. " if one_sided else "")
    + "The answer is asked for at once, so what is right is a guess of a number rather than a solution; signs on such data are chance. "
    "Whether the printed negative products are right for the 8B models needs those models."
)

# %% [markdown]
# ## The run on a GPU, planned
#
# The profile `gpu` asks 2,000 problems of MATH in chat, $n = 32$ answers at $T = 0.7$ and top-p 0.95 and 64 at $T = 1$, with vLLM, and takes the same vectors.
# **It was not run.** The table is arithmetic: sizes of the models, numbers of tokens, the data sheet of one H100, and the shares of its peaks that we assume ({ref}`sec-scale` has the formulas and holds them against passes on a processor).
# One forward pass $F$ over all answers and four backward passes of $2 F$, for the right and the wrong answers under two laws, are $9 F$.

# %%
work = Work(plan_prompts, 3 * num_samples, prompt_tokens=200, completion_tokens=plan_tokens)
planned = plan_table(plan_models, work, H100, units=9)
planned.set_index("model").T

# %% tags=["hide-input"]
kept_gb = check_size(plan_prompts, single=False, centred=True, most_bytes=products_gb * 1e9) / 1e9
hours = planned["device hours"].sum()
Markdown(
    f"On paper both laws of both models take about {hours:.0f} hours on a machine with two H100, of which one draws for {planned['sampling (h)'].sum():.0f} hours and then the other passes for {planned['passes (h)'].sum():.0f}. "
    + (
        "Weights with the caches, and weights with a gradient in float32, fit one device; activations and a gradient of the output matrix come on top. "
        if planned["fits one device"].all()
        else "They do not fit one device. "
    )
    + f"The products of all pairs of vectors take up to {kept_gb:.1f} GB of memory on the host; the cell that measures refuses a number of prompts beyond `products_gb`. "
    f"Answers of {plan_tokens:,} tokens on average are an assumption, and hours are proportional to them. "
    + "For the second model: `passgrad run math_conflict --profile gpu -p model=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B`."
)

# %% [markdown]
# ## Scope
#
# One small model, tens of prompts, short answers: the data sets were chosen so that success rates spread, and their conflicts say nothing about mathematics in general.
# The printed measurement is rebuilt from what the paper states and what its numbers imply; its prompt template, extraction of answers and longest answer are not known, and neither is the reading of "final hidden layer", so all three are shown.
# Products over all weights come from a sketch with the stated error; the readings of the final norm and the final state do not.
# Intervals here are for these prompts; for new ones they are longer ({ref}`sec-estimating-conflict`).
# How success rates of a 7B model spread on tens of thousands of real problems is in {ref}`sec-real-rates`; in a real GRPO run on mathematics no product with a gradient of pass@k was negative ({ref}`sec-real-run`).
#
# ## Exercises
#
# ```{exercise} One count more
# :label: ex-math-weights
#
# Which weights do prompts with $c = 4$ of $n = 32$ get at $k = 32$, plug-in and unbiased, and by what factor does the plug-in exceed $w_k(p)$ on average at $p = 1/32$?
# ```

# %% [markdown]
# ````{solution-start} ex-math-weights
# :class: dropdown
# ````
# The plug-in is convex in $c$, so its mean is too large; the unbiased weight is zero from $c = 2$ on, and right on average.

# %%
counts = torch.arange(33)
law = torch.distributions.Binomial(32, 1 / 32).log_prob(counts.double()).exp()
mean = float(law @ weight(counts, 32, 32))
true = float(PassAtK(32).weight(torch.tensor(1 / 32).double()))
assert round(mean, 2) == 16.96
assert round(true, 2) == 11.96
assert round(float(weight(torch.tensor(4), 32, 32)), 2) == 0.51
round(mean / true, 2)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise} A product that cannot be compared
# :label: ex-math-size
#
# The paper prints $-0.613$ on 550 and $-0.652$ on 636 prompts of one model. Which of the two has the larger inner product of gradients in absolute value?
# ```

# %% [markdown]
# ````{solution-start} ex-math-size
# :class: dropdown
# ````
# Divided by $N$ the order turns around.

# %%
first, second = 0.613 / 550, 0.652 / 636
assert first > second
round(first * 1e3, 3), round(second * 1e3, 3)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ## Summary
#
# We saw:
#
# - the printed measurement rebuilt, with the choices that its numbers imply, in the three readings of "final hidden layer",
# - one way from it to an unbiased measurement, and which step changes a sign and which only a size,
# - how often each step has the sign of the exact product, where there is one,
# - at which spread of success rates conflict begins, for two levels exactly and along a fine-tuning on pass@1,
# - what a model of this size cannot show, and what the run with the paper's models would take.
