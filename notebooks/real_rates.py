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
# (sec-real-rates)=
# # What real success rates look like
#
# **Result.** The success rates of a 7B model on tens of thousands of real problems are U-shaped: about a sixth of the problems is never solved in 128 answers, and a fifth nearly always.
# On this population pass@k puts most of its weight on problems of which a sample shows no gradient: at $k = 32$ nearly three quarters of the weight lie on problems without a single right answer.
# What is left looks at about a quarter of the problems.
#
# **What you need.** What pass@k is and how it is estimated from counts ({ref}`sec-pass-at-k`).
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $p(x)$ | success rate of a prompt: the chance that one answer is right |
# | $n$, $c$ | answers to a prompt, and how many are right |
# | $J_k = \mathbb{E}[1 - (1 - p)^k]$ | pass@k of the population |
# | $w_k(p) = k (1 - p)^{k - 1}$ | the weight of a prompt in $\nabla J_k = \mathbb{E}[w_k(p) \nabla p]$; {ref}`the next chapter <sec-reweighting>` derives it |

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from passgrad.metrics import pass_at_k
from passgrad_book.build import figures
from passgrad_book.experiments.real.made import made_rates
from passgrad_book.experiments.real.stored import real_rates

# %% [markdown]
# The data are public: Qwen2.5-Math-7B answered each prompt of DeepScaleR 128 times, at temperature 0.6 and top-p 0.9, for a curriculum by difficulty {cite}`shi2025adarft`.
# Five overlapping samples of the prompts were published, under Apache-2.0.
# What is shown here is computed from them; the rows themselves stay where they are.

# %% tags=["parameters"]
path: str = ""  # a local copy of the counts, for computing again; empty: the public place
ks: list = [1, 2, 4, 8, 16, 32, 64]  # orders of pass@k
group_sizes: list = [4, 8, 16, 32, 64]  # answers a prompt in a training step
made: bool = False  # a small made table, to see that the cells run; its numbers mean nothing
recompute: bool = False  # compute the stored results again and replace them

# %%
found = real_rates.result(ks=ks, path=made_rates() if made else path, recompute=recompute)
found

# %%
summary = found["summary"].iloc[0]
histogram = found["histogram"]
weights = found["weights"].set_index("k")
cumulated = found["cumulated"]

# %% [markdown]
# ## How are success rates spread?
#
# Two of the five samples are the whole of the two tails: every prompt with at most 3 right answers, and every one with at least 109. The other three are samples, and what lies between the tails was seen only where one of them caught it.
# Two samples that are drawn independently tell the size of a population by how much they overlap.
# In bins of similar success rates (chosen after seeing that the pairs disagree without bins), the three pairs of samples agree on it to about ten percent, and each prompt of the middle stands for as many as that says.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Success rates of Qwen2.5-Math-7B on DeepScaleR. Most problems lie at the two ends: many are never solved in 128 answers, many always. Bars are numbers of problems; in the middle they are estimated from three samples.", "name": "fig-real-rates-histogram"}, "image": {"alt": "Histogram of success rates with a tall bar at zero and a rise towards one."}}
num_answers = int(histogram["num_correct"].max())
rates = histogram["num_correct"] / num_answers


def draw(ax):
    figures.histogram(
        ax, rates, of="pass@1", weights=histogram["prompts"].to_numpy(), bins=32, label=""
    )
    ax.set(xlabel="share of right answers", ylabel="problems")


alt = f"Histogram of the share of right answers of {summary['prompts']:,.0f} problems: {summary['never']:.0%} have none, {summary['hard']:.0%} at most a tenth, {summary['easy']:.0%} at least 85 percent."
figures.show(draw, alt=alt, data=histogram, size=(6.4, 3.2))

# %% tags=["hide-input"]
assert summary["hard"] + summary["easy"] > 0.5
Markdown(
    f"The population has about {summary['prompts']:,.0f} problems ({summary['prompts_least']:,.0f} to {summary['prompts_most']:,.0f} by the single pairs of samples), of which {summary['rows']:,.0f} were seen. "
    f"Pass@1 is {summary['pass_at_1']:.3f}. {summary['never']:.1%} of the problems were never solved, {summary['hard']:.0%} have a success rate of at most a tenth, and {summary['easy']:.0%} one of at least .85. "
    "That is the spread without which pass@k and pass@1 cannot conflict. Whether they do depends on the gradients, which counts do not show."
)

# %% [markdown]
# ## What does pass@k weigh here?
#
# The weight of a problem is estimated without bias from its counts: $k \binom{n - c}{k - 1} / \binom{n}{k - 1}$ has the mean $k (1 - p)^{k - 1}$.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The share of the weight of pass@k on problems up to a success rate. At k = 1 it is the share of the problems themselves; with k it moves to the left end, and at k = 64 all of it lies below a success rate of one tenth.", "name": "fig-real-rates-cumulated"}, "image": {"alt": "Cumulated weight against success rate for several k."}}
shown_ks = [k for k in (1, 2, 8, 32, 64) if k in ks]


def draw(ax):
    for k in shown_ks:
        rows = cumulated[cumulated["k"] == k]
        figures.curve(
            ax,
            rows["num_correct"] / num_answers,
            rows["share"],
            of=f"pass@{k}",
            exact=True,
            label=f"k = {k}",
        )
    ax.set(xlabel="share of right answers", ylabel="share of the weight", ylim=(0, 1.02))
    figures.legend(ax)


at_tenth = {
    k: float(cumulated.query("k == @k and num_correct <= @num_answers / 10")["share"].max())
    for k in shown_ks
}
alt = "Share of the weight on problems with at most a tenth right: " + ", ".join(
    f"{share:.0%} at k = {k}" for k, share in at_tenth.items()
)
figures.show(draw, alt=alt, data=cumulated, size=(6.4, 3.4))

# %% [markdown]
# The left end is where the counts say least. A problem with $c = 0$ of 128 may have $p = 0.01$ or $p = 0$: its estimated weight is $k$ in both cases, and no sample of it has a gradient.

# %% tags=["hide-input"]
table = pd.DataFrame(
    {
        "pass@k": weights["pass_at_k"].map("{:.3f}".format),
        "mean weight": weights["mean_weight"].map("{:.2f}".format),
        "weight on never solved": [
            f"{row.never_solved:.0%} ({row.low:.0%} to {row.high:.0%})"
            for row in weights.itertuples()
        ],
        "effective problems": weights["effective_prompts"].map("{:.0%}".format),
    }
)
table

# %% [markdown]
# The intervals are over problems, at 95 %. The effective number of problems is $(\mathbb{E} w)^2 / \mathbb{E} w^2$, as a share of all.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "With k the weight gathers on problems that were never solved, and fewer problems count. Bands: 95 % intervals over problems (left line); the effective share is a ratio of two unbiased means, and its band is what the unknown size of the middle leaves open.", "name": "fig-real-rates-weight"}, "image": {"alt": "Share of the weight on never solved problems rising with k, and the effective share of problems falling."}}


def draw(ax):
    figures.curve(
        ax,
        weights.index,
        weights["never_solved"],
        of="weight",
        low=weights["low"],
        high=weights["high"],
        label="weight on problems never solved",
    )
    ends = weights[["effective_prompts_least", "effective_prompts_most"]]
    figures.curve(
        ax,
        weights.index,
        weights["effective_prompts"],
        of="agreement",
        low=ends.min(axis=1),
        high=ends.max(axis=1),
        label="effective share of the problems",
    )
    figures.k_axis(ax, ks)
    ax.set(ylabel="share", ylim=(0, 1.02))
    figures.legend(ax)


largest = weights.index.max()
alt = f"From k = 1 to {largest} the weight on problems never solved rises from {weights['never_solved'].iloc[0]:.0%} to {weights['never_solved'].iloc[-1]:.0%}, and the effective share of the problems falls from 100% to {weights['effective_prompts'].iloc[-1]:.0%}."
figures.show(draw, alt=alt, data=weights.reset_index(), size=(6.4, 3.4))

# %% [markdown]
# ## What does that mean for a measurement?
#
# The inner product of the gradients is $\mathbb{E}[w_k(p)\, a]$ with $a = \langle \nabla p, \nabla J_1 \rangle$. On a problem that is never solved in the sample, the estimate of $a$ is zero whatever the true one is.
# So the share above is the part of the question that a sample of this size cannot answer; it is not a part that is known to be zero.
# More answers a problem shrink it slowly, as the next figure shows: the law of $p$ near zero is heavy.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the problems without a right answer among n, estimated without bias from the counts of 128. It falls slowly, like a power of n, because many problems have a small success rate.", "name": "fig-real-rates-tail"}, "image": {"alt": "Share of unsolved problems against the number of answers, both axes logarithmic."}}
sizes = np.unique(np.round(2 ** np.arange(0, 7.01, 0.5)).astype(int))
share = (histogram["prompts"] / histogram["prompts"].sum()).to_numpy()
counts = histogram["num_correct"].to_numpy()
unsolved = np.array(
    [float((1 - np.asarray(pass_at_k(num_answers, counts, int(size)))) @ share) for size in sizes]
)
seen = summary["rows"]
error = 1.96 * np.sqrt(unsolved * (1 - unsolved) / seen)


def draw(ax):
    figures.curve(
        ax, sizes, unsolved, of="hard", low=unsolved - error, high=unsolved + error, label=""
    )
    figures.k_axis(ax, sizes, label="answers n")
    ax.set(yscale="log", ylabel="share without a right answer", ylim=(0.1, 1))
    ax.set_yticks([0.1, 0.2, 0.5, 1.0], ["0.1", "0.2", "0.5", "1"])
    ax.minorticks_off()


late = sizes >= 8
slope = float(np.polyfit(np.log(sizes[late]), np.log(unsolved[late]), 1)[0])
alt = f"The share without a right answer falls from {unsolved[0]:.2f} at n = 1 to {unsolved[-1]:.2f} at n = {sizes[-1]}; from n = 8 on like n to the power {slope:.2f}."
figures.show(
    draw, alt=alt, data=pd.DataFrame({"answers": sizes, "unsolved": unsolved}), size=(6.4, 3.2)
)

# %% tags=["hide-input"]
Markdown(
    f"From $n = 8$ to {sizes[-1]} it falls like $n^{{{slope:.2f}}}$: to halve it takes about {2 ** (-1 / slope):.0f} times as many answers. "
    "A law of $p$ with a density like $p^{b - 1}$ near zero gives $n^{-b}$ {cite}`schaeffer2025monkeys`, so this is the exponent of the lower tail, in the range that 128 answers show."
)

# %% [markdown]
# ## And for training?
#
# A training step draws $n$ answers a problem. A group without a right answer has no gradient at any $k$; one without a wrong answer has none either.
# Dynamic sampling draws such groups again, which is another law of problems: each with the chance that its group is mixed.

# %% tags=["hide-input"]
rows = []
for size in group_sizes:
    solved = np.asarray(pass_at_k(num_answers, counts, size))
    always = 1 - np.asarray(pass_at_k(num_answers, num_answers - counts, size))
    mixed = (solved - always) @ share
    hard = (counts > 0) & (counts <= num_answers / 10)
    rows.append(
        {
            "answers a group": size,
            "none right": f"{1 - solved @ share:.0%}",
            "all right": f"{always @ share:.0%}",
            "with a gradient of pass@1": f"{mixed:.0%}",
            "of these, success rate in (0, 0.1]": f"{((solved - always) * hard) @ share / mixed:.0%}",
        }
    )
pd.DataFrame(rows).set_index("answers a group")

# %% [markdown]
# Read together with the table of weights: with 8 answers a group, the problems that carry the weight of pass@16 and beyond are mostly silent. A large $k$ pays only with groups that are large enough for hard problems to be solved now and then, and the estimators of {ref}`sec-estimators` need $n \ge k$ in any case.
#
# ## What this does not say
#
# One model, one set of problems, one sampling law (temperature 0.6, so that the rates are those of a sharpened policy). Whether hard problems pull against easy ones is a question to the gradients ({ref}`sec-conflict`) or to the log of a run ({ref}`sec-real-run`).
#
# ```{exercise}
# :label: ex-real-rates-mass
#
# Suppose that a share $q$ of the problems has $p = 0$ and the others are uniform on $[0, 1]$. Which share of the weight of pass@k lies on the first kind, and what is the largest $k$ at which it is at most one half?
# ```
#
# ```{solution} ex-real-rates-mass
# :class: dropdown
#
# The mean weight of a uniform success rate is $\int_0^1 k (1 - p)^{k-1} \, dp = 1$, that of $p = 0$ is $k$. The share is $q k / (q k + 1 - q)$, and it is at most one half for $k \le (1 - q) / q$: for $q = 1/6$ up to $k = 5$.
# ```
