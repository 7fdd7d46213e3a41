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
# (sec-real-run)=
# # Conflict in a real run
#
# **Result.** The counts of right answers that every trainer logs tell whether the steps of a run went along the gradient of pass@k or against it, at every $k$ and without a gradient.
# In a public GRPO run of Qwen2.5-Math-1.5B they went along all of them, from $k = 1$ to $32$, with intervals above zero; hundreds of problems rose and two fell.
# It is one run, of one model on one set of problems. The worlds of the other chapters were built to have net negative interference, and there the same tool finds it.
#
# **What you need.** The weights of pass@k ({ref}`sec-reweighting`), and unbiased estimates from counts ({ref}`sec-pass-at-k`).
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $p(x)$, $p'(x)$ | success rate of a prompt in an earlier and in a later window of steps |
# | $n, c$ and $n', c'$ | answers and right ones in the two windows |
# | $w_k(p) = k (1 - p)^{k-1}$ | weight of a prompt in $\nabla J_k$ |
# | $\theta' - \theta$ | what the parameters moved between the windows |

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

import passgrad as pg
from passgrad.measurement.logs.visits import Visits, Window
from passgrad.objectives import PassAtK
from passgrad_book.build import figures
from passgrad_book.experiments.life.opposite_signs import opposite_signs_world
from passgrad_book.experiments.real.made import made_run, made_tables
from passgrad_book.experiments.real.own_runs import read_own_runs
from passgrad_book.experiments.real.stored import log_coverage, published_runs, real_run

# %% tags=["parameters"]
path: str = ""  # a local copy of the run's counts, for computing again; empty: the public place
ks: list = [1, 2, 4, 8, 16, 32]  # orders of pass@k
windows: int = 4  # windows of the run, of equally many answers
tables_path: str = ""  # a file of published tables, for computing again
pairs: list = [[0, 11, 24, 35]]  # single pairs of windows: first and last step of each
level: float = 0.95  # confidence of the intervals
false_discoveries: float = 0.05  # share of false ones among the prompts that rose or fell
coverage_sizes: list = [[60, 16, 16], [100, 8, 8], [300, 16, 8], [1000, 32, 32]]  # prompts, n, n'
replications: int = 2000  # simulated logs a law and a size
warmup_steps: int = 20  # exact steps up pass@1 in the small language model
warmup_size: float = 0.02  # their length
ascent_steps: int = 6  # exact steps up pass@8 behind them
ascent_size: float = 0.01  # their length
drawn_prompts: int = 400  # prompts of the log that is drawn along these
answers: int = 16  # answers a prompt and step in the log that is drawn from them
own_answers: int = 64  # answers a prompt and step in the logs of our training runs
seed: int = 0  # of simulated logs
made: bool = False  # small made files, to see that the cells run; their numbers mean nothing
recompute: bool = False  # compute the stored results again and replace them

# %% [markdown]
# ## What does a log say about a gradient?
#
# ```{prf:proposition} The step against every objective
# :label: prop-step-from-counts
#
# For success rates $p$ and $p'$ of the same prompts at parameters $\theta$ and $\theta'$,
#
# $$J_k(\theta') - J_k(\theta) = \mathbb{E}[w_k(p)\,(p' - p)] - \tfrac12\, \mathbb{E}\bigl[k (k - 1) (1 - \xi)^{k-2} (p' - p)^2\bigr]$$
#
# with $\xi(x)$ between $p(x)$ and $p'(x)$, and, where $p$ has bounded second derivatives,
#
# $$\mathbb{E}[w_k(p)\,(p' - p)] = \langle \nabla J_k(\theta), \theta' - \theta \rangle + O(\|\theta' - \theta\|^2).$$
#
# Checked by {test}`test_step_from_counts`.
# ```
#
# ```{prf:proof}
# Both are Taylor's theorem with Lagrange's remainder. The first is that of $f_k(p) = 1 - (1 - p)^k$ in each prompt, with $f_k' = w_k$ and $f_k'' = -k (k - 1) (1 - p)^{k-2}$, averaged over prompts. The second is that of $p$ along the segment from $\theta$ to $\theta'$, multiplied by $w_k(p) \le k$ and averaged; $\mathbb{E}[w_k(p) \nabla p] = \nabla J_k$.
# ```
#
# The second term of the first line is never positive: pass@k is concave in each success rate, and a change that moves some prompts up and others down loses by it. It is what curvature explains.
#
# ```{prf:proposition} Without bias
# :label: prop-step-without-bias
#
# Let $c$ of $n \ge k$ answers be right in the first window and $c'$ of $n'$ in the second, all independent. Then
#
# $$k\, \frac{\binom{n - c}{k - 1}}{\binom{n}{k - 1}} \Bigl(\frac{c'}{n'} - \frac{c}{n - k + 1}\Bigr)$$
#
# has the mean $w_k(p)\,(p' - p)$.
#
# Checked by {test}`test_step_from_counts`.
# ```
#
# ```{prf:proof}
# Take any $k - 1$ answers of the first window; the chance that all are wrong is $(1 - p)^{k-1}$, and a further answer of the window is right with chance $p$, independently. The mean over all such choices of the indicator of both is $\binom{n - c}{k - 1} c / [\binom{n}{k - 1} (n - k + 1)]$, so that this has the mean $(1 - p)^{k-1} p$. Without the further answer the mean is $(1 - p)^{k-1}$, and $c'/n'$ is independent of it with mean $p'$.
# ```
#
# An answer never serves for the weight and for the rate at once. The plug-in $k (1 - c/n)^{k-1} (c'/n' - c/n)$ uses the same answers twice: where nothing changes at all, it says that hard prompts rise.

# %% [markdown]
# ## Do its intervals hold?
#
# Thousands of logs are simulated from laws of success rates before and after. In one of them part of the prompts comes behind the first window, as with a curriculum.

# %%
coverage = log_coverage.result(
    ks=[k for k in ks if k <= 16],
    sizes=coverage_sizes,
    replications=replications,
    level=level,
    seed=seed,
    recompute=recompute,
)
coverage

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How often the 95 % intervals hold the truth, for four laws and several sizes of a log. They do nearly everywhere; with few prompts and a large k they are somewhat too short.", "name": "fig-real-run-coverage"}, "image": {"alt": "Coverage of the intervals against k for several sizes of logs."}}
table = coverage["coverage"]
names = ["pass@1", "pass@4", "pass@8", "pass@32"]


def draw(ax):
    for style, ((size, n, n_after), rows) in zip(
        names, table.groupby(["prompts", "answers", "answers_after"]), strict=False
    ):
        worst = rows.groupby("k")["held"].min()
        runs = rows["replications"].iloc[0]
        error = 1.96 * np.sqrt(worst * (1 - worst) / runs)
        figures.curve(
            ax,
            worst.index,
            worst,
            of=style,
            low=worst - error,
            high=worst + error,
            label=f"{size} prompts, {n} and {n_after} answers",
        )
    ax.axhline(level, color=figures.COLOURS["neutral"], linewidth=1)
    figures.k_axis(ax, [1, 16])
    ax.set(ylabel="least coverage of four laws", ylim=(0.86, 1.0))
    figures.legend(ax, fontsize=8)


worst = table.loc[table["held"].idxmin()]
alt = f"The least coverage is {worst['held']:.3f}, at k = {worst['k']} with {worst['prompts']} prompts and {worst['answers']} answers; the largest is {table['held'].max():.3f}."
figures.show(draw, alt=alt, data=table, size=(6.8, 3.4))

# %% tags=["hide-input"]
half = table[table["k"] <= table["answers"] / 2]
band = table.groupby(["law", "prompts"])["band_held"].first()
Markdown(
    f"At orders up to half of the answers the intervals hold the truth in {half['held'].min():.1%} to {half['held'].max():.1%} of the logs; at all orders in {table['held'].min():.1%} to {table['held'].max():.1%}. "
    f"The bands hold it at all orders at once in {band.min():.1%} to {band.max():.1%}. "
    f"The misses are not alike on both sides: the interval lies wholly above the truth in at most {table['interval_above'].max():.1%} of the logs, below it in up to {table['interval_below'].max():.1%}, since a sample that missed the rare hard prompts that rise shows neither their change nor its spread."
)

# %% [markdown]
# ## Does it find a conflict where there is one?
#
# In the small language model of {ref}`sec-life` every success rate and gradient is exact. Some steps up pass@1 bring it to where the gradients of pass@1 and pass@8 are opposed; then it goes up pass@8.
# A log draws prompts from the law and a few answers to each at every step. The tool sees nothing else.

# %%
world = opposite_signs_world(seed=seed, hard_fraction=0.38)


def ascended(theta, k, length):
    """One exact step of this length up pass@k."""
    _, gradient = world.objective_gradient(theta, PassAtK(k))
    return theta + length * gradient / gradient.norm()


theta = world.own_parameters()
for _ in range(warmup_steps):
    theta = ascended(theta, 1, warmup_size)
path_of_run = [theta]
for _ in range(ascent_steps):
    path_of_run.append(ascended(path_of_run[-1], 8, ascent_size))
exact_rates = torch.stack([world.success(theta) for theta in path_of_run]).numpy()

# %%
rng = np.random.default_rng(seed)
chosen = rng.choice(world.num_prompts, size=drawn_prompts, p=world.masses.numpy())
drawn = rng.binomial(answers, exact_rates[:, chosen])
steps = len(path_of_run)
log = Visits.of(
    np.tile(np.arange(drawn_prompts), steps),
    np.repeat(np.arange(steps), drawn_prompts),
    answers,
    drawn.ravel(),
)
own_ks = [1, 2, 4, 8]
ours = pg.logs(log, ks=own_ks, windows=[Window(0, 0), Window(steps - 1, steps - 1)])
print(ours.verdict)

# %% tags=["hide-input"]
masses = world.masses.numpy()
before, after = exact_rates[0], exact_rates[-1]
moved = path_of_run[-1] - path_of_run[0]
rows = []
for place, k in enumerate(own_ks):
    _, gradient = world.objective_gradient(path_of_run[0], PassAtK(k))
    weight = k * (1 - before) ** (k - 1)
    product = ours.whole.product[place]
    rows.append(
        {
            "k": k,
            "⟨∇J_k, θ' − θ⟩, exact": 100 * float(gradient.double() @ moved.double()),
            "E[w_k (p' − p)], exact": 100 * masses @ (weight * (after - before)),
            "from the log": 100 * float(product.value),
            "low": 100 * float(product.low),
            "high": 100 * float(product.high),
            "change of pass@k, exact": 100 * masses @ ((1 - before) ** k - (1 - after) ** k),
        }
    )
own = pd.DataFrame(rows).set_index("k")
assert own["low"].le(own["E[w_k (p' − p)], exact"]).all(), "the intervals hold the exact values"
assert own["high"].ge(own["E[w_k (p' − p)], exact"]).all(), "the intervals hold the exact values"
own.round(2)

# %% [markdown]
# This is one model, of seed 0, and the number of steps up pass@1 was set after looking at the cosine along them: it shows what the tool says where there is a conflict, not how often there is one.
# All in percentage points. The first two columns differ by the bend of the success rates along the way, the second and the last by the curvature of pass@k.
#
# ### In our own runs
#
# The runs of {ref}`sec-training` trained SmolLM2-135M in TRL on ten prompts each, and their success rates are known exactly at every step. Of each run a log is drawn: a few answers a prompt at the first and at the last step. The ten prompts are all that is asked about, so the intervals are those of fixed prompts (`--reading fixed`).

# %%
own_runs = read_own_runs([1, 8], own_answers, seed)
signs = np.select([own_runs["low"] > 0, own_runs["high"] < 0], ["up", "down"], "open")
true_signs = np.where(own_runs["first_order"] > 0, "up", "down")
wrong = (signs != "open") & (signs != true_signs)
held = own_runs["first_order"].between(own_runs["low"], own_runs["high"])
pd.crosstab(
    [own_runs["k"], pd.Series(true_signs, name="true")], pd.Series(signs, name="from the log")
)

# %% tags=["hide-input"]
Markdown(
    f"Of {len(own_runs)} signs (every stored run, k = 1 and 8, {own_answers} answers a prompt and step) {int((signs == true_signs).sum())} are told and right, {int(wrong.sum())} are told and wrong, {int((signs == 'open').sum())} stay open. The intervals hold the exact first order in {held.mean():.0%}. "
    f"The runs that lost pass@1 lost little: at most {-100 * own_runs.query('k == 1')['change'].min():.1f} points."
)

# %% [markdown]
# ## The run
#
# A GRPO run of Qwen2.5-Math-1.5B on 1,209 problems, eight answers at each visit of a problem {cite}`wang2025oneshot`. The counts are public, under Apache-2.0. The sampling law of the run is not stated there.
# Eight windows were looked at before these four: the first-order change had the same sign at every k, but the last of the eight has too few answers for the change of pass@16 and pass@32 itself.

# %%
run = real_run.result(
    ks=ks,
    windows=windows,
    pairs=pairs,
    level=level,
    false_discoveries=false_discoveries,
    path=made_run() if made else path,
    recompute=recompute,
)
run

# %%
changes = run["changes"]
whole = changes[
    (changes["before"].str.startswith("0:")) & (changes["after"] == changes["after"].iloc[0])
]
along = changes.iloc[len(ks) :]
print(run["summary"]["verdict"].iloc[0])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The real run moved up pass@k at every k. From the first to the last window: the first-order change (the step against the gradient of pass@k), and the change of pass@k itself, with 95 % bands over k. Between them lies what curvature takes away.", "name": "fig-real-run-product"}, "image": {"alt": "First-order and realised change of pass@k against k, both above zero."}}


def draw(ax):
    for column, prefix, of, label in (
        ("first_order", "", "agreement", "first order: ⟨∇J_k, θ' − θ⟩"),
        ("realised", "realised_", "exact", "change of pass@k"),
    ):
        figures.curve(
            ax,
            whole["k"],
            100 * whole[column],
            of=of,
            low=100 * whole[f"{prefix}band_low"],
            high=100 * whole[f"{prefix}band_high"],
            label=label,
        )
    figures.zero(ax)
    figures.k_axis(ax, ks)
    ax.set_ylabel("points")
    figures.legend(ax)


last = whole.iloc[-1]
alt = f"From the first to the last window, first order: {100 * whole['first_order'].iloc[0]:.1f} points at k = {ks[0]} and {100 * last['first_order']:.1f} at k = {ks[-1]}; pass@k itself {100 * whole['realised'].iloc[0]:.1f} and {100 * last['realised']:.1f}."
figures.show(draw, alt=alt, data=whole, size=(6.4, 3.4))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "From each window to the next. At small k every pair of windows is above zero; at large k single pairs are open, because few prompts carry the weight.", "name": "fig-real-run-time"}, "image": {"alt": "First-order change of pass@k from window to window at three orders."}}
shown_ks = [ks[0], ks[len(ks) // 2], ks[-1]]


def draw(axes):
    for ax, k in zip(np.atleast_1d(axes), shown_ks, strict=True):
        rows = along[along["k"] == k]
        place = rows["after"].str.split(":").str[0].astype(int)
        figures.points(
            ax,
            place,
            100 * rows["first_order"],
            of=f"pass@{k}",
            low=100 * rows["low"],
            high=100 * rows["high"],
            label="",
        )
        figures.zero(ax)
        figures.panel(ax, f"k = {k}")
        ax.set_xlabel("first visit of the window")
    np.atleast_1d(axes)[0].set_ylabel("points to first order")


positive = {k: int((along[along["k"] == k]["low"] > 0).sum()) for k in shown_ks}
negative = {k: int((along[along["k"] == k]["high"] < 0).sum()) for k in shown_ks}
alt = "Pairs of windows whose interval lies above zero: " + ", ".join(
    f"{count} of {len(along) // len(ks)} at k = {k}" for k, count in positive.items()
)
figures.show(draw, alt=alt, data=along, ncols=len(shown_ks), size=(8.4, 3.0))

# %% tags=["hide-input"]
findings = run["findings"]
whole_run = findings[findings["before"] == findings["before"].iloc[0]].set_index("finding")["count"]
fallen = run["fallen"]
Markdown(
    f"No interval of a pair of neighbouring windows lies below zero at these orders: {sum(negative.values())} of {len(shown_ks) * (len(along) // len(ks))}. "
    f"From the first window to the last, {whole_run.get('rose', 0)} prompts rose and {whole_run.get('fell', 0)} fell, of {run['summary']['prompts'].iloc[0]:,}, at a false discovery rate of {false_discoveries:.0%}; of the other {whole_run.get('open', 0)} nothing is said."
)

# %% [markdown]
# ## Who moved
#
# Half of the answers of the first window sort the prompts by their rate, and the other half is estimated from. With the same answers for both, chance alone would make the hard ones rise.

# %% tags=["hide-input"]
groups = run["groups"]
groups = groups.assign(
    part=[
        f"{100 * row.part:+.2f}"
        + (f" ± {100 * (row.high - row.part):.2f}" if np.isfinite(row.high) else "")
        for row in groups.itertuples()
    ]
)
table = groups.pivot(index="group", columns="k", values="part").loc[groups["group"].unique()]
table.insert(0, "prompts", groups.drop_duplicates("group").set_index("group")["num_prompts"])
table

# %% [markdown]
# The parts of a column add up to the change of pass@k to first order, in points. The prompts in the middle carry it at small k; at larger k those that are seldom solved do. Those that were never solved at first have most of the weight and little of the change.

# %% tags=["hide-input"]
weights = run["weights"].set_index("k")
silent = run["silent"].set_index("k")
table = pd.DataFrame(
    {
        "weight on never solved": weights["never_solved"].map("{:.0%}".format),
        "effective prompts": weights["effective_prompts"].map(
            lambda share: f"{share:.0%}" if np.isfinite(share) else "–"
        ),
        "silent groups": silent["silent"].map(
            lambda share: f"{share:.0%}" if np.isfinite(share) else "–"
        ),
    }
)
table

# %% [markdown]
# A silent group is one of the run's groups of eight answers whose advantages of pass@k are all zero; orders beyond the answers of a group have no estimator.
#
# ## What does that mean for the conflict of pass@k and pass@1?
#
# The run went up pass@1 by the steps of GRPO, and these steps had a positive product with the gradient of every pass@k that was looked at. So on these problems, training for pass@1 did not cost pass@k, up to $k = 32$, over the whole run.
# It is no statement about the gradient of pass@k and that of pass@1 as such: the steps are those of GRPO with AdamW, on the training prompts, and of one model. A step up pass@k may still meet prompts that a step up pass@1 does not move.
#
# ## Published tables
#
# Where runs for pass@k and runs for pass@1 were published side by side {cite}`jiang2025risk,passktraining2025,walder2025pkpo`, which of them had the higher pass@1?

# %%
published = published_runs.result(path=made_tables() if made else tables_path, recompute=recompute)
published

# %% tags=["hide-input"]
counts = published["counts"]
objective = counts[counts["objective"] == "pass@k"]
table = counts.set_index(["objective", "source"])[
    [
        "rows",
        "lower_pass_1",
        "higher_pass_k",
        "median_change_1",
        "least_change_1",
        "largest_change_1",
    ]
]
table

# %% tags=["hide-input"]
Markdown(
    f"Behind training for pass@k, pass@1 was lower than behind training for pass@1 in {objective['lower_pass_1'].sum()} of {objective['rows'].sum()} rows, and pass@k higher in {objective['higher_pass_k'].sum()}. "
    "The rows share baselines and mostly lack seeds: they are not independent, and no error can be given. Changes are in points."
)

# %% [markdown]
# What does the theory say of them? A lower pass@1 than that of *training for pass@1* needs no conflict: a direction that is merely turned away climbs pass@1 more slowly. Conflict is more: that pass@1 falls below where it was before training, which these tables do not show.
# And where success rates start near zero the weights of pass@k are all nearly $k$, so that its gradient is that of pass@1 but for its length: there the theory has no loss to offer, and the one row whose pass@1 rose belongs to the model that started lowest.
# The rows of the risk-sensitive objective {cite}`jiang2025risk` stand apart: its weight of hard prompts is milder, and so is what it costs.
#
# ## On your own log
#
# ```bash
# passgrad logs run/completions --ks 1,2,4,8 --out /tmp/log
# ```
#
# {ref}`sec-measure-reference` has the layouts that are read. Log every group that was drawn, those without a gradient too: with dynamic sampling the groups that are dropped are chosen by their outcome, and the rates of what is left are biased. The command says so when it sees it.
#
# ```{exercise}
# :label: ex-real-run-plug-in
#
# A prompt has $p = p' = \frac12$, and $n = n' = 2$ answers in each window. What is the mean of the plug-in $2 (1 - c/n)(c'/n' - c/n)$?
# ```
#
# ```{solution} ex-real-run-plug-in
# :class: dropdown
#
# With $q = c/2$, $\mathbb{E}[2 (1 - q)(\tfrac12 - q)] = 2\, \mathbb{E}[\tfrac12 - \tfrac32 q + q^2] = 2 (\tfrac12 - \tfrac34 + \tfrac14 + \tfrac18) = \tfrac14$: nothing changed, and it reports a rise of 25 points.
# ```
