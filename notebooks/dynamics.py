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
# (sec-dynamics)=
# # Dynamics and phase diagrams
#
# **Result.** Whether pass@k ascent costs pass@1 in the end depends, in the worlds of this chapter, on how well the policy can tell its prompts apart, measured against $k$.
# Where the log-odds of the right answer are small against $k - 1$, the best pass@k policy hedges, and the loss stays.
# Where the prompts can be told apart, pass@1 falls on the way and recovers. Where pass@1 ascent is stuck on a plateau, pass@k ascent is the way out.
#
# The gradient at the start does not decide it: there are populations that lose pass@1 without a conflict at the start, in one of our diagrams most of them, and populations with a conflict at the start that gain.
#
# **What you need.** The toy of {ref}`sec-toy`: two parameters, easy and hard prompts, and the conflict of two gradients.
#
# **Notation.**
#
# | symbol | meaning |
# |---|---|
# | $p(x)$, $q(x) = 1 - p(x)$ | success and failure rate of a prompt |
# | $J_k = \mathbb{E}_x[1 - q(x)^k]$ | pass@k; $J_1$ is pass@1 |
# | $w_k(x) = k \, q(x)^{k-1}$ | weight of a prompt in $\nabla J_k$ |
# | $\kappa(x, x')$ | kernel, $\langle \nabla p(x), \nabla p(x') \rangle$ |
# | $h$, $\ell = \log \frac{h}{1 - h}$ | share of hard prompts and its log-odds |
# | $\delta$ | separation of the features of easy and hard prompts |
# | $\eta(s)$ | posterior: the chance that a prompt with feature $s$ is hard |

# %%
import itertools
import math

import pandas as pd
import torch
from IPython.display import Markdown

from passgrad.ascent.ascent import ascend
from passgrad.estimators import advantages
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad_book.build import figures
from passgrad_book.experiments.dynamics.optimum import best_pass_at_1, hedged_answer, optimal_theta
from passgrad_book.experiments.dynamics.phase import phase_diagram
from passgrad_book.experiments.dynamics.plateau import PlateauBandit
from passgrad_book.experiments.dynamics.population import ascend_population
from passgrad_book.experiments.dynamics.sampled import ascend_sampled

# %% tags=["parameters"]
separation: float = 0.2  # distance between the mean features of hard and easy prompts (paper)
hard_fraction: float = 0.4  # share of hard prompts (assumed, as in the toy)
theta_bias: float = -2.0  # first parameter at the start: the policy leans to the easy answer
slopes: list = [0.0, -2.0]  # second parameter at the start, for the phase diagrams
k: int = 5  # order of the ascents
map_ks: list = [2, 5, 32]  # orders of the phase diagrams
grid_points: int = 64  # points a side of a phase diagram
num_ks: int = 64  # orders for which the whole diagram is computed: 1, 2, ...
population_steps: int = 200  # unit steps of ascent in the population
near: float = 0.5  # separation of two prompts that can be told apart, with effort
transient_steps: int = 20000  # unit steps of ascent on two prompts
num_seeds: int = 32  # sampled runs side by side
num_samples: int = 16  # answers to each drawn prompt
num_prompts: int = 32  # prompts drawn in each step
plateau_ks: list = [1, 4, 8]  # orders of the ascents from the plateau (PKPO)
plateau_prompts: int = 8  # prompts of the plateau, one of them easy
plateau_mass: float = 0.2  # share of the easy prompt
coupling: float = 0.5  # what the prompts of the plateau share
lean: float = 4.0  # logit with which the hard prompts lean to the easy answer at the start
plateau_step_size: float = 4.0  # step of the ascents from the plateau
plateau_steps: int = 1600  # their number
plateau_seeds: int = 8  # sampled runs side by side, on the plateau
plateau_sampled_steps: int = 200  # their steps
seed: int = 0  # of the sampled runs

# %% [markdown]
# ## Where in the space of populations the gradients conflict
#
# The toy showed one population. How special is it?
# A diagram over the separation $\delta$, the share $h$ and the order $k$ needs no loop, because easy and hard prompts enter the gradient separately.
#
# ```{prf:proposition} Along the share of hard prompts the conflict is a quadratic
# :label: prop-phase-quadratic
#
# Fix $\theta$, the laws of the features within each kind, and $k$.
# Then $\langle \nabla J_k, \nabla J_1 \rangle = c_0 (1 - h)^2 + c_1 h (1 - h) + c_2 h^2$ with numbers $c_0, c_1, c_2$ that do not depend on $h$.
# Hence there are at most two shares $h$ at which a conflict begins or ends, and they are the roots.
#
# Checked by {test}`test_dynamics_phase_boundary`.
# ```
#
# ```{prf:proof}
# With $A_k$ and $B_k$ the means of $w_k \nabla p$ over easy and over hard prompts, $\nabla J_k = (1 - h) A_k + h B_k$, also for $k = 1$.
# The success rates, and with them $w_k$, do not depend on $h$.
# Multiply out: $c_0 = \langle A_k, A_1 \rangle$, $c_1 = \langle A_k, B_1 \rangle + \langle B_k, A_1 \rangle$, $c_2 = \langle B_k, B_1 \rangle$.
# ```

# %%
orders = list(range(1, num_ks + 1))
shares = torch.linspace(0.02, 0.98, grid_points, dtype=torch.float64)
gaps = torch.linspace(0, 2, grid_points, dtype=torch.float64)
diagrams = {
    slope: phase_diagram(
        orders, separations=gaps, hard_fractions=shares, biases=[theta_bias], slope=slope
    )
    for slope in slopes
}
some = diagrams[slopes[-1]]
corner = conflict(
    GaussianBandit(float(gaps[-1]), float(shares[0])), (theta_bias, slopes[-1]), orders
)
assert (some.inner_product[0, -1, 0] - corner.inner_product).abs().max() < 1e-12
some.inner_product.shape

# %% tags=["hide-input"]
parts = {
    (slope, j): float((diagrams[slope].cosine[..., orders.index(j)] < 0).double().mean())
    for slope in slopes
    for j in map_ks
}
table = pd.concat([d.to_frame().assign(slope=slope) for slope, d in diagrams.items()])
table = table[table["k"].isin(map_ks)]


def draw_map(ax, x, y, values, limit=1.0):
    """Signed values (x, y) in diverging colours, with the line of zero where there is one."""
    style = {"cmap": figures.diverging(), "vmin": -limit, "vmax": limit, "rasterized": True}
    mesh = ax.pcolormesh(x, y, values.T, shading="nearest", **style)
    if values.min() < 0 < values.max():
        ax.contour(x, y, values.T, levels=[0], colors=[figures.ink()], linewidths=1.5)
    return mesh


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cosine of the gradients of pass@k and pass@1 at the start, over populations. Orange: conflict; the line is its boundary. Above: a start that ignores the feature. Below: a start that uses it, the wrong way round. A conflict needs features that are near to each other. At this bias it mostly needs fewer hard prompts than easy ones. Above, a conflict remains at large k however rare the hard prompts are.", "name": "fig-dynamics-phase"}, "image": {"alt": "Six maps of the cosine over separation and share of hard prompts, for three orders k and two starts, with the line of zero."}}


def draw(axes):
    for row, slope in zip(axes, slopes, strict=True):
        for ax, j in zip(row, map_ks, strict=True):
            cosine = diagrams[slope].cosine[0, :, :, orders.index(j)]
            mesh = draw_map(ax, gaps, shares, cosine)
            figures.panel(ax, f"slope {slope:g}, k = {j}")
        row[0].set_ylabel("share of hard prompts")
    for ax in axes[-1]:
        ax.set_xlabel("separation")
    axes[0, 0].figure.colorbar(mesh, ax=axes, label="cosine", shrink=0.7)


listed = [f"{part:.1%} at slope {slope:g}, k = {j}" for (slope, j), part in parts.items()]
alt = "Share of the populations with a conflict: " + ", ".join(listed)
layout = {"nrows": 2, "ncols": len(map_ks), "sharex": True, "sharey": True}
figures.show(draw, alt=alt, data=table, size=(7.6, 5), **layout)

# %% tags=["hide-input"]
signs = torch.cat([d.inner_product for d in diagrams.values()]) < 0
left = (signs[..., :-1] & ~signs[..., 1:]).any(-1)
ever = signs.any(-1)
Markdown(
    f"Of the {ever.numel():,} populations in the two rows, {int(ever.sum()):,} have a conflict at some $k$ up to {num_ks}. "
    f"In {int(left.sum()):,} of them the conflict also *ends* as $k$ grows: a larger $k$ need not mean more conflict."
)

# %% [markdown]
# The bias of the start counts as much as the population. The next diagram keeps the separation of the toy and moves the bias.
# At zero separation and zero slope its boundary is known.
#
# ```{prf:proposition} Between hedge and bet
# :label: prop-between
#
# Let all prompts look alike to the policy, which answers 1 with probability $\pi$ on each of them, and let $h \ne 1/2$ and $k > 1$.
# The gradients of $J_k$ and $J_1$ conflict if and only if $\pi$ lies strictly between the *hedge* $\pi_k = \sigma(\ell / (k - 1))$ and the *bet*, which is 0 for $h < 1/2$ and 1 for $h > 1/2$.
#
# Checked by {test}`test_dynamics_phase_boundary`.
# ```
#
# ```{prf:proof}
# $J_k = (1 - h)(1 - \pi^k) + h (1 - (1 - \pi)^k)$ is strictly concave in $\pi$ with its maximum at $\pi_k$ ({prf:ref}`prop-hedging` below), and $J_1$ is linear with slope $2h - 1$.
# Both gradients are multiples of $\nabla \pi$, so that their product has the sign of $J_k'(\pi) (2h - 1)$.
# For $h < 1/2$ it is negative where $J_k' > 0$, that is for $\pi < \pi_k$; for $h > 1/2$ where $\pi > \pi_k$.
# ```

# %%
biases = torch.linspace(-4, 4, grid_points, dtype=torch.float64)
tilted = phase_diagram(
    map_ks, separations=[separation], hard_fractions=shares, biases=biases, slope=0.0
)
tilted_parts = (tilted.cosine < 0).double().mean(dim=(0, 1, 2)).tolist()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same cosine over the bias of the start, at the separation of the toy and slope 0. Dotted: the boundary at zero separation, where the conflict lies between hedge and bet. The more the start leans to the answer of the more frequent kind, the wider the range of populations with a conflict.", "name": "fig-dynamics-bias"}, "image": {"alt": "Three maps of the cosine over bias and share of hard prompts, for three orders k, with the line of zero and the dotted limit."}}


def draw(axes):
    for index, (ax, j) in enumerate(zip(axes, map_ks, strict=True)):
        mesh = draw_map(ax, biases, shares, tilted.cosine[:, 0, :, index])
        for limit in (torch.sigmoid(biases * (j - 1)), torch.full_like(biases, 0.5)):
            ax.plot(biases, limit, ":", color=figures.ink(), linewidth=1.5)
        ax.set(xlabel="bias", ylim=(0.02, 0.98))
        figures.panel(ax, f"k = {j}")
    axes[0].set_ylabel("share of hard prompts")
    axes[0].figure.colorbar(mesh, ax=axes, label="cosine", shrink=0.9)


listed = [f"{part:.0%} at k = {j}" for j, part in zip(map_ks, tilted_parts, strict=True)]
alt = "Share of starts and populations with a conflict: " + ", ".join(listed)
layout = {"ncols": len(map_ks), "sharey": True}
figures.show(draw, alt=alt, data=tilted.to_frame(), size=(7.6, 2.9), **layout)

# %% [markdown]
# ## Aliased features: the optimum of pass@k hedges
#
# A gradient says where a small step goes. Where does the whole ascent end?
# With two actions the answer has a closed form.
#
# ```{prf:proposition} Hedging
# :label: prop-hedging
#
# Given what it sees, a policy with two actions answers 1 with probability $\pi$, and 1 is the right answer with probability $\eta \in (0, 1)$. Let $k > 1$.
#
# 1. The conditional pass@k, $(1 - \eta)(1 - \pi^k) + \eta (1 - (1 - \pi)^k)$, has exactly one maximum, at $\operatorname{logit} \pi_k = \frac{\operatorname{logit} \eta}{k - 1}$, that is $\pi_k = 1 \big/ \bigl(1 + \bigl(\frac{1 - \eta}{\eta}\bigr)^{1/(k-1)}\bigr)$.
# 2. For $\eta \ne 1/2$ its conditional pass@1 is below $\max(\eta, 1 - \eta)$, falls strictly as $k$ grows, and tends to $1/2$.
#
# Checked by {test}`test_dynamics_hedging`.
# ```
#
# ```{prf:proof}
# The second derivative $-k(k-1) [(1 - \eta) \pi^{k-2} + \eta (1 - \pi)^{k-2}]$ is negative on $(0, 1)$, and the first, $k [\eta (1 - \pi)^{k-1} - (1 - \eta) \pi^{k-1}]$, vanishes where $\left(\frac{\pi}{1 - \pi}\right)^{k-1} = \frac{\eta}{1 - \eta}$. Take logarithms.
# The conditional pass@1 is $(1 - \eta)(1 - \pi) + \eta \pi = \frac12 + (2 \eta - 1)(\pi - \frac12)$.
# At $\pi_k$ the two brackets have the same sign, and $|\pi_k - \frac12|$ falls strictly from $\frac12$ to 0 as $k$ grows from 1, since $|\operatorname{logit} \pi_k| = |\operatorname{logit} \eta| / (k - 1)$.
# ```
#
# Pass@k thus asks for the posterior at temperature $k - 1$: its optimum is sharper than the posterior for $k < 2$, the posterior itself for $k = 2$, and flatter for every larger $k$.
# Only pass@1 asks for the better bet.

# %%
posterior = torch.linspace(0, 1, 201, dtype=torch.float64)
apart = torch.linspace(0, 8, 65, dtype=torch.float64)
optimal = {"best": [best_pass_at_1(float(d), hard_fraction) for d in apart]}
for j in map_ks:
    thetas = torch.stack([optimal_theta(j, float(d), hard_fraction) for d in apart])
    there = ascend_population(thetas, j, separation=apart, hard_fraction=hard_fraction, steps=0)
    optimal[f"pass@{j}"] = there.pass_at_k(1)[0]
optimal = pd.DataFrame({"separation": apart, **optimal})
optimal.iloc[::8].round(4)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: the answer that maximises pass@k against the posterior; pass@2 matches probabilities, larger k hedge. Right: pass@1 of the best pass@k policy of the Gaussian population against the separation. The dark line is the best pass@1 of any policy. Features must lie far apart before pass@k costs nothing.", "name": "fig-dynamics-hedge"}, "image": {"alt": "Two panels: optimal answer probability against posterior, and pass@1 at the optimum of pass@k against separation, for several k."}}


def draw(axes):
    figures.curve(axes[0], posterior, hedged_answer(posterior, 1), of="pass@1", exact=True)
    figures.curve(axes[1], apart, optimal["best"], of="exact", exact=True, label="best pass@1")
    for j in map_ks:
        style = {"of": f"pass@{j}", "exact": True}
        figures.curve(axes[0], posterior, hedged_answer(posterior, j), **style)
        figures.curve(axes[1], apart, optimal[f"pass@{j}"], **style, label="")
    axes[0].set(xlabel="posterior of answer 1", ylabel="best probability of answer 1")
    axes[1].set(xlabel="separation", ylabel="pass@1 at the optimum", ylim=(0.45, 1.01))
    figures.legend(axes[0], loc="upper left", fontsize=9)
    figures.legend(axes[1], loc="lower right", fontsize=9)


row = optimal.iloc[16]
listed = [f"{row[f'pass@{j}']:.3f} (k = {j})" for j in map_ks]
alt = f"At separation {row['separation']:g} the best pass@1 is {row['best']:.3f}; the optima of pass@k have {', '.join(listed)}."
figures.show(draw, alt=alt, data=optimal, ncols=2, size=(7.6, 3.3))

# %% [markdown]
# In the Gaussian population the log-odds of the posterior are linear in the feature, so the two parameters of the toy are enough to be the best of all policies.
#
# ```{prf:corollary} The optimum of the Gaussian bandit
# :label: cor-gaussian-optimum
#
# For $s \sim N(\mp \delta / 2, 1)$ on easy and hard prompts and $k > 1$, pass@k is largest, among all functions of $s$, at
#
# $$\theta^*_k = \frac{1}{k - 1} \, (\ell, \delta).$$
#
# Unless $\delta = 0$ and $h = 1/2$, its pass@1 falls strictly in $k$, from the Bayes rate (as $k \to 1$) to $1/2$ (as $k \to \infty$).
#
# Checked by {test}`test_dynamics_hedging`.
# ```
#
# ```{prf:proof}
# The ratio of the two densities is $e^{\delta s}$, so $\operatorname{logit} \eta(s) = \ell + \delta s$. Maximise at each $s$ by {prf:ref}`prop-hedging`: $\operatorname{logit} \pi_k(s) = (\ell + \delta s) / (k - 1) = \theta^*_k \cdot (1, s)$.
# The second part is that of the proposition, averaged over $s$; the limits follow by dominated convergence.
# ```
#
# What counts is therefore not whether features separate the kinds, but whether they do so *at order $k$*: the log-odds must be large against $k - 1$.

# %%
world = GaussianBandit(separation, hard_fraction)
start = (theta_bias, 0.0)

# %% tags=["hide-input"]
theta_star = optimal_theta(k, separation, hard_fraction)
at_end = ascend(world, start, PassAtK(k), step_size=1.0, steps=population_steps)
hedged = world.objective_value(theta_star, PassAtK(1))
wide = GaussianBandit(2.0, hard_fraction).objective_value(
    optimal_theta(k, 2.0, hard_fraction), PassAtK(1)
)
Markdown(
    f"In the population of the toy, $\\theta^*_{{{k}}} = ({theta_star[0]:.4f}, {theta_star[1]:.4f})$ with pass@1 {hedged:.4f}; "
    f"{population_steps} steps of pass@{k} ascent end at {at_end.pass_at_k(1)[-1]:.4f}. "
    f"At $\\delta = 2$, where the toy has no conflict at its start, the optimum of pass@{k} has pass@1 {wide:.3f}, while {best_pass_at_1(2.0, hard_fraction):.3f} is possible."
)

# %% [markdown]
# ## The conflict at the start and the loss at the end
#
# We compare the two over a grid of populations: the sign of the inner product at the start, and the change of pass@1 from the start to the optimum of pass@k.
# The optimum is that of the corollary, so nothing has to be ascended; a few ascents check that they get there.

# %%
gap_grid, share_grid = torch.meshgrid(gaps, shares, indexing="ij")
populations = {"separation": gap_grid, "hard_fraction": share_grid, "num_nodes": 65}
optima = torch.stack([torch.logit(share_grid), gap_grid], dim=-1) / (k - 1)
ends = ascend_population(optima, k, steps=0, **populations).pass_at_k(1)[0]
change, conflicts = {}, {}
for slope in slopes:
    begin = ascend_population((theta_bias, slope), k, steps=0, **populations)
    change[slope] = ends - begin.pass_at_k(1)[0]
    conflicts[slope] = diagrams[slope].inner_product[0, :, :, orders.index(k)] < 0

some = {name: grid[::21, ::21] for name, grid in populations.items() if name != "num_nodes"}
steps = 5 * population_steps
arrived = ascend_population((theta_bias, slope), k, steps=steps, every=steps, **some)
arrival = float((arrived.pass_at_k(1)[-1] - ends[::21, ::21]).abs().max())

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of pass@1 from the start to the optimum of pass@k. Orange: pass@1 ends lower than it began; the solid line bounds these populations. Dotted: the boundary of the conflict at the start. The two regions differ, at slope -2 by most of their area. The colours saturate.", "name": "fig-dynamics-loss"}, "image": {"alt": "Two maps of the change of pass@1 over separation and share of hard prompts, with the boundary of loss and the boundary of conflict at the start."}}


def draw(axes):
    limit = max(0.05, *(-2 * float(values.min()) for values in change.values()))
    for ax, slope in zip(axes, slopes, strict=True):
        mesh = draw_map(ax, gaps, shares, change[slope], limit=limit)
        style = {"levels": [0], "colors": [figures.ink()], "linewidths": 2, "linestyles": ":"}
        if conflicts[slope].any():
            cosine = diagrams[slope].cosine[0, :, :, orders.index(k)]
            ax.contour(gaps, shares, cosine.T, **style)
        ax.set(xlabel="separation")
        figures.panel(ax, f"slope {slope:g}")
    axes[0].set_ylabel("share of hard prompts")
    axes[0].figure.colorbar(mesh, ax=axes, label="change of pass@1")


data = diagrams[slopes[0]].to_frame().query("k == @k")[["separation", "hard_fraction"]]
data = data.assign(**{f"change, slope {slope:g}": change[slope].flatten() for slope in slopes})
listed = [
    f"{float((change[slope] < 0).double().mean()):.1%} at slope {slope:g}" for slope in slopes
]
alt = f"Share of the populations in which pass@1 ends lower: {', '.join(listed)}."
figures.show(draw, alt=alt, data=data, ncols=2, size=(7.4, 3.3), sharey=True)

# %%
rows = []
for slope in slopes:
    falls, starts = change[slope] < 0, conflicts[slope]
    kinds = (falls & starts, falls & ~starts, ~falls & starts, ~falls & ~starts)
    rows.append((slope, *(int(kind.sum()) for kind in kinds)))
columns = ["slope", "conflict, loss", "no conflict, loss", "conflict, gain", "no conflict, gain"]
outcomes = pd.DataFrame(rows, columns=columns).set_index("slope")
outcomes

# %% tags=["hide-input"]
losses = outcomes["conflict, loss"] + outcomes["no conflict, loss"]
missed = (outcomes["no conflict, loss"] / losses.clip(lower=1)).map("{:.0%}".format)
listed = [f"{missed[slope]} at slope {slope:g}" for slope in slopes]
Markdown(
    f"Of the populations that end lower, {' and '.join(listed)} show no conflict at the start; "
    f"{outcomes['conflict, gain'].sum()} populations show one and end higher. "
    "Whether a start in conflict ends with a loss depends on how good the start is: the loss is counted from there. "
    f"(On a subgrid, {steps} steps of ascent end within {arrival:.1e} of the pass@1 of the optimum.)"
)

# %% [markdown]
# ## Separable prompts: the loss is a matter of the way
#
# Two prompts at $s = \mp \delta/2$ can be told apart whenever $\delta \ne 0$: a steep enough slope solves both. Then no loss can stay.
#
# ```{prf:proposition} Transient conflict
# :label: prop-transient
#
# Two prompts have success rates $\sigma(u_e \cdot \theta)$ and $\sigma(u_h \cdot \theta)$ with $u_e = -(1, -\delta/2)$, $u_h = (1, \delta/2)$, $\delta > 0$, and any masses.
#
# 1. For every $k \ge 1$ the slope rises strictly along $\nabla J_k$. So $J_k$ has no stationary point, and its supremum is 1.
# 2. For every $k \ge 1$ the flow $\dot\theta = \nabla J_k$ takes both success rates to 1, from every start. In particular $J_1 \to 1$, whether it fell before or not.
#
# Checked by {test}`test_dynamics_transient`.
# ```
#
# ```{prf:proof}
# Write $L_x = u_x \cdot \theta$, $g_x = D(x) \, k \, p(x) q(x)^k > 0$, $r = 1 + \delta^2/4$ and $c = 1 - \delta^2/4$. Since $\nabla p(x) = p(x) q(x) u_x$,
#
# $$\nabla J_k = g_e u_e + g_h u_h, \qquad \dot L_e = r g_e - c g_h, \qquad \dot L_h = r g_h - c g_e.$$
#
# *1.* The slope component is $\frac{\delta}{2} (g_e + g_h) > 0$. Along $\theta = (0, t)$ with $t \to \infty$ both rates tend to 1.
#
# *2.* The sum $S = L_e + L_h$ rises, as $\dot S = (r - c)(g_e + g_h) > 0$.
#
# *The sum is unbounded.* Both $|\dot L_e|$ and $|\dot L_h|$ are at most $r (g_e + g_h)$, that is, $\frac{r}{r - c} \dot S$. If $S$ were bounded, so would be both log-odds. Then $g_e + g_h$ would stay away from 0, and $S$ would grow without bound.
#
# *No rate goes to 0.* Where $L_h < 0$ we have $g_h \ge C_1 e^{L_h}$. Once $S > 0$ also $g_e \le C_2 e^{-k L_e} = C_2 e^{-k (S - L_h)} \le C_2 e^{L_h} e^{-S}$. So $\dot L_h \ge e^{L_h} (r C_1 - |c|\, C_2 e^{-S})$, which is positive once $S$ is large. From then on $L_h$ rises wherever it is negative, and is bounded below. The same holds for $L_e$.
#
# *Neither stays behind.* Fix a level $K$. As long as $L_h \le K$ it stays in a bounded interval, where $g_h$ is bounded away from 0, while $L_e \ge S - K \to \infty$ makes $g_e \to 0$. Then $\dot L_h \ge \frac{r}{2} g_h > 0$ until $L_h$ passes $K$, and it cannot come back. So $L_h \to \infty$, and in the same way $L_e \to \infty$.
# ```
#
# The limit is the same at $k = 1$, but the way there is not. There winner and loser push with forces of the same order until the sum of the log-odds is large, and the loser can be pushed down very far before it turns. That is the plateau of {ref}`sec-dynamics-plateau`; it shows in the figure below as well, in the ascent of pass@1.

# %%
cases = {"aliased": 0.0, "separable": near}
runs = {
    (name, j): ascend(
        TwoPointBandit(gap, hard_fraction),
        (theta_bias, slopes[-1]),
        PassAtK(j),
        step_size=1.0,
        steps=transient_steps,
    )
    for name, gap in cases.items()
    for j in (1, k)
}
one = {key: run.pass_at_k(1) for key, run in runs.items()}

# %% tags=["hide-input"]
shown = torch.unique(torch.logspace(0, math.log10(transient_steps), 200).long())
hedge = float(hedged_answer(hard_fraction, k))
hedge_level = (1 - hard_fraction) * (1 - hedge) + hard_fraction * hedge
paths = {f"{name}, ascent on pass@{j}": values[shown] for (name, j), values in one.items()}
paths = pd.DataFrame({"step": shown, **paths})

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Pass@1 along the ascent of pass@1 and of pass@k on two prompts. Left: the prompts look alike; pass@k ascent ends at the hedge (dotted) and stays there. Right: they can be told apart; pass@1 falls at first and then rises above its start. Steps on a logarithmic scale.", "name": "fig-dynamics-transient"}, "image": {"alt": "Two panels of pass@1 against steps for ascent on pass@1 and on pass@k: in one the loss stays, in the other it is made good."}}


def draw(axes):
    for ax, (name, gap) in zip(axes, cases.items(), strict=True):
        ax.axhline(float(one[name, 1][0]), color=figures.COLOURS["neutral"], linewidth=1)
        for j in (1, k):
            ascent = f"ascent on pass@{j}"
            style = {"of": f"pass@{j}", "exact": True, "label": ascent}
            figures.curve(ax, shown, paths[f"{name}, {ascent}"], **style)
        ax.set(xscale="log", xlabel="step", ylabel="pass@1")
        figures.panel(ax, f"{name}, separation {gap:g}")
    axes[0].axhline(hedge_level, linestyle=":", color=figures.ink(), linewidth=1.5)
    figures.legend(axes[0], loc="upper left")


stays, heals = one["aliased", k], one["separable", k]
alt = f"Aliased: pass@{k} ascent takes pass@1 from {stays[0]:.3f} to {stays[-1]:.3f}. Separable: from {heals[0]:.3f} down to {heals.min():.3f} and up to {heals[-1]:.3f}; pass@1 ascent ends at {one['separable', 1][-1]:.3f}."
figures.show(draw, alt=alt, data=paths, ncols=2, size=(7.6, 3.2), sharey=True)

# %% [markdown]
# The recovery is slow, and slower the larger $k$: once a prompt is nearly solved, pass@k hardly looks at it.
#
# ```{prf:proposition} Failure falls like the $k$-th root of time
# :label: prop-late-rate
#
# Let a logistic prompt of mass $D$ and features $u$ not interfere with others. Along $\dot\theta = \nabla J_k$ its failure rate satisfies $q(t)^k \sim 1 / (k^2 D \|u\|^2 \, t)$ as $t \to \infty$.
#
# Checked by {test}`test_dynamics_transient`.
# ```
#
# ```{prf:proof}
# $\dot q = -p q \|u\|^2 D k p q^k$, so $\frac{d}{dt} q^{-k} = k^2 D \|u\|^2 p^2$. As $q$ falls strictly and cannot stop, $p \to 1$, and the time average of the right-hand side tends to $k^2 D \|u\|^2$.
# ```

# %% [markdown]
# ## Sampled ascent follows the flow
#
# Nobody ascends with quadrature. We draw prompts and answers, and weigh the scores with unbiased advantages ({ref}`sec-estimators`): `rloo` for pass@1, `pkpo-loo1` {cite}`walder2025pkpo` for pass@k.
# The levels of each sampled policy are exact, so the band is the spread over seeds and nothing else.


# %%
def weigh(rewards, order):
    name = "rloo" if order == 1 else "pkpo-loo1"
    return advantages(rewards, k=None if order == 1 else order, estimator=name)


settings = {"num_samples": num_samples, "num_prompts": num_prompts, "steps": population_steps}
sampled = {
    j: ascend_sampled(world, start, weigh, k=j, num_seeds=num_seeds, seed=seed, **settings)
    for j in (1, k)
}
flows = {j: ascend(world, start, PassAtK(j), step_size=1.0, steps=population_steps) for j in (1, k)}

# %% tags=["hide-input"]
bands = {(j, level): sampled[j].band(level) for j in (1, k) for level in (1, k)}
pieces = []
for (j, level), (mean, low, high) in bands.items():
    exact = flows[j].pass_at_k(level)
    values = {"mean": mean, "low": low, "high": high, "flow": exact}
    pieces.append(
        pd.DataFrame({"ascent on": j, "level": level, "step": range(len(exact)), **values})
    )
bands_frame = pd.concat(pieces)
away = float((bands_frame["mean"] - bands_frame["flow"]).abs().max())

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Sampled ascent on pass@1 and on pass@k from one start: mean over seeds and the central 90 % of them, against the exact flow (dotted). Each objective rises along its own ascent and falls along the other's.", "name": "fig-dynamics-sampled"}, "image": {"alt": "Two panels, pass@1 and pass@k against steps, each for sampled ascent on either objective with bands and the exact flow."}}


def draw(axes):
    for ax, level in zip(axes, (1, k), strict=True):
        for j in (1, k):
            mean, low, high = bands[j, level]
            style = {"of": f"pass@{j}", "label": f"ascent on pass@{j}"}
            figures.curve(ax, range(len(mean)), mean, low=low, high=high, **style)
            flow = {"of": "exact", "exact": True, "linestyle": ":", "linewidth": 1.2, "label": ""}
            figures.curve(ax, range(len(mean)), flows[j].pass_at_k(level), **flow)
        ax.set(xlabel="step", ylabel=f"pass@{level}")
    figures.legend(axes[1], loc="center right")


last = {key: f"{float(mean[-1]):.3f}" for key, (mean, _, _) in bands.items()}
alt = f"After {population_steps} steps, ascent on pass@{k}: pass@1 {last[k, 1]}, pass@{k} {last[k, k]}; ascent on pass@1: {last[1, 1]} and {last[1, k]}. The mean is within {away:.3f} of the flow."
figures.show(draw, alt=alt, data=bands_frame, ncols=2, size=(7.6, 3.2))

# %% [markdown]
# (sec-dynamics-plateau)=
# ## Ray interference: the plateau
#
# {cite:t}`schaul2019ray` describe when ascent on a sum of components stalls: the components interfere negatively, and each learns the slower, the lower it is.
# The component that is learned first pushes the others down to where they hardly learn. Who is pushed, and how long, depends on $k$.
#
# ```{prf:proposition} The hardest prompt is free for large $k$
# :label: prop-ray-threshold
#
# Along $\dot\theta = \nabla J_k$ the success rate of a prompt $y$ moves as $\dot p(y) = \mathbb{E}_x[w_k(x) \kappa(y, x)]$.
#
# 1. If $y$ has mass $D(y) > 0$, $\nabla p(y) \ne 0$ and a success rate strictly below all others (of finitely many), then $\dot p(y) > 0$ for all $k$ large enough.
# 2. Of two prompts, let $p(x_h) < p(x_e) < 1$ and $\kappa(x_h, x_e) < 0$. Then $\dot p(x_h) > 0$ if and only if
#
# $$k > k_{\mathrm{free}} = 1 + \frac{\log\bigl(D(x_e) \, |\kappa(x_h, x_e)|\bigr) - \log\bigl(D(x_h) \, \kappa(x_h, x_h)\bigr)}{\log(q(x_h) / q(x_e))}.$$
#
# So the set of policies at which the winner pushes the loser down shrinks as $k$ grows, and no policy is in it for all $k$.
#
# Checked by {test}`test_ray_suppression` and {test}`test_ray_plateau`.
# ```
#
# ```{prf:proof}
# The chain rule gives the first formula. Divide it by $w_k(y)$: each other prompt enters with the factor $(q(x) / q(y))^{k-1}$, where $q(x) < q(y)$, which tends to 0, and $D(y) \kappa(y, y) > 0$ remains.
# For two prompts the sum is $D(x_h) \kappa(x_h, x_h) - D(x_e) |\kappa(x_h, x_e)| \, (q(x_e) / q(x_h))^{k-1}$, which rises in $k$ and changes sign at $k_{\mathrm{free}}$.
# ```
#
# ```{prf:corollary} The turn of the loser
# :label: cor-ray-turn
#
# On two logistic prompts as in {prf:ref}`prop-transient` with $\delta < 2$, the rate of the loser turns from falling to rising where
#
# $$p(x_e) \, q(x_e)^k = \rho \, p(x_h) \, q(x_h)^k, \qquad \rho = \frac{D(x_h)}{D(x_e)} \cdot \frac{1 + \delta^2 / 4}{1 - \delta^2/4}.$$
#
# With $p(x_e) \ge \frac12$ the failure rate of the winner at that moment lies between $(\rho \, p(x_h) q(x_h)^k)^{1/k}$ and $(2 \rho \, p(x_h) q(x_h)^k)^{1/k}$.
#
# Checked by {test}`test_ray_suppression`.
# ```
#
# ```{prf:proof}
# $\dot L_h = r g_h - c g_e$ vanishes where $c \, D(x_e) \, p(x_e) q(x_e)^k = r \, D(x_h) \, p(x_h) q(x_h)^k$. Solve for $q(x_e)$ with $\frac12 \le p(x_e) \le 1$.
# ```
#
# Under pass@1 the winner must be solved up to failures as rare as the successes of the loser before the loser may rise; under pass@k, only up to their $k$-th root.

# %% [markdown]
# ### A world with a plateau
#
# `PlateauBandit` has a few prompts, each with a right answer of its own, and a softmax policy whose logits are partly shared.
# At the start the easy prompt is answered at random, and all others lean to its answer, which for them is wrong.

# %%
masses = [plateau_mass] + [(1 - plateau_mass) / (plateau_prompts - 1)] * (plateau_prompts - 1)
plateau = PlateauBandit(plateau_prompts, coupling, masses=masses)
low_start = plateau.start(lean)
climbs = {
    j: ascend(plateau, low_start, PassAtK(j), step_size=plateau_step_size, steps=plateau_steps)
    for j in plateau_ks
}

# %% [markdown]
# We go up again with the step divided by $k$, so that no prompt ever weighs more than under pass@1, and once more with drawn prompts and answers.

# %%
short = {
    j: ascend(plateau, low_start, PassAtK(j), step_size=plateau_step_size / j, steps=plateau_steps)
    for j in plateau_ks
}
batch = {"num_samples": num_samples, "num_prompts": num_prompts, "num_seeds": plateau_seeds}
batch |= {"step_size": plateau_step_size, "steps": plateau_sampled_steps, "every": 4}
middle = min(100, plateau_steps)  # a step within the plateau
drawn = {j: ascend_sampled(plateau, low_start, weigh, k=j, seed=seed, **batch) for j in plateau_ks}

# %% tags=["hide-input"]
last_k = plateau_ks[-1]
ticks = torch.unique(torch.logspace(0, math.log10(plateau_steps), 200).long())
ending = {j: climbs[j].pass_at_k(1) for j in plateau_ks}
hardest = {j: climbs[j].success[:, 1:].min(dim=1).values for j in plateau_ks}
levels = {f"pass@1, k = {j}": ending[j][ticks] for j in plateau_ks}
levels |= {f"hardest, k = {j}": hardest[j][ticks] for j in plateau_ks}
levels = pd.DataFrame({"step": ticks, **levels})

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: pass@1 along ascent on pass@k, exact (thin) and sampled (bands: all but the outer tenth of the seeds). Pass@1 ascent solves the easy prompt and stalls; pass@k ascent does not, and soon has the higher pass@1, until the plateau ends. Right: the lowest success rate among the hard prompts. Pass@1 ascent pushes them down first.", "name": "fig-dynamics-plateau"}, "image": {"alt": "Two panels against steps on a logarithmic scale: pass@1, and the lowest success rate of hard prompts, for ascent on pass@1, pass@4 and pass@8."}}


def draw(axes):
    axes[0].axhline(plateau_mass, color=figures.COLOURS["neutral"], linewidth=1)
    for j in plateau_ks:
        mean, low, high = (values[1:] for values in drawn[j].band(1))
        style = {"of": f"pass@{j}", "label": f"ascent on pass@{j}"}
        figures.curve(axes[0], drawn[j].steps[1:], mean, low=low, high=high, **style)
        style = {"of": f"pass@{j}", "exact": True, "label": ""}
        figures.curve(axes[0], ticks, ending[j][ticks], **style, linewidth=1)
        figures.curve(axes[1], ticks, hardest[j][ticks], **style)
    axes[0].set(xscale="log", xlabel="step", ylabel="pass@1")
    axes[1].set(xscale="log", yscale="log", xlabel="step", ylabel="lowest success rate, hard")
    figures.legend(axes[0], loc="upper left", fontsize=9)


listed = [f"{ending[j][middle]:.3f} (ascent on pass@{j})" for j in plateau_ks]
alt = f"Pass@1 starts at {ending[1][0]:.3f}; after {middle} steps it is {', '.join(listed)}."
figures.show(draw, alt=alt, data=levels, ncols=2, size=(7.6, 3.4))

# %%
rows = []
for name, group in (("same step", climbs), ("step / k", short)):
    for j, run in group.items():
        one_here = run.pass_at_k(1)
        out = (one_here > plateau_mass + 0.05).nonzero()
        leaves = int(out[0, 0]) if len(out) else None
        lowest = float(run.success[:, 1:].min())
        rows.append((name, j, leaves, lowest, *one_here[[middle, -1]].tolist()))
columns = [
    "steps are",
    "k",
    "leaves the plateau at",
    "lowest rate, hard",
    f"pass@1 at {middle}",
    "pass@1 at the end",
]
escape = pd.DataFrame(rows, columns=columns).astype({"leaves the plateau at": "Int64"})
escape.round(5)

# %% [markdown]
# Two things could make pass@k faster: its gradient is up to $k$ times as long, and its winner pushes less.
# In the lower half of the table the step is divided by $k$, so that no prompt weighs more than under pass@1, and the hard prompts still get out earlier than under pass@1, though later than with the full step: the push counts, not the length alone.

# %% tags=["hide-input"]
kept = {rate: float(PassAtK(last_k).weight(torch.tensor(rate)) / last_k) for rate in (0.5, 0.02)}
Markdown(
    f"The weight does both jobs at once: under pass@{last_k} a winner at $p(x_e) = 0.5$ keeps {kept[0.5]:.4f} of its push, a loser at $p(x_h) = 0.02$ keeps {kept[0.02]:.2f}."
)

# %% tags=["hide-input"]
ahead = {j: ending[j] > ending[1] for j in plateau_ks[1:]}
ordered = torch.ones(plateau_steps + 1, dtype=torch.bool)
for small, large in itertools.pairwise(plateau_ks):
    ordered &= ending[large] > ending[small] + 0.01
span = ordered.nonzero().flatten()
in_order = f"from step {int(span[0])} to step {int(span[-1])}" if len(span) else "at no step"
leads = {j: f"{int(where.nonzero().max())}" for j, where in ahead.items() if where.any()}
Markdown(
    f"The order of the results depends on the budget. Pass@1 rises with $k$ over $k = {plateau_ks}$ {in_order}. "
    + " ".join(
        f"Ascent on pass@{j} is ahead of ascent on pass@1 for the last time at step {last}."
        for j, last in leads.items()
    )
    + f" At step {plateau_steps} the order is {' < '.join(f'pass@{j}' for j in sorted(plateau_ks, key=lambda j: float(ending[j][-1])))}: "
    "once it has left the plateau, pass@1 ascent overtakes, since pass@k hardly looks at prompts that are nearly solved (failure falls only like the $k$-th root of time)."
)

# %% [markdown]
# ### What this says about ARC-AGI, and what it does not
#
# {cite:t}`walder2025pkpo` report, for Gemma2-9B on the easy set of ARC-AGI-1, a pass@1 of 2.00 after training with $k = 1$, of 22.00 with $k = 4$ and of 26.67 with $k = 8$: training on pass@k *raised* pass@1 where training on pass@1 stalled. On MATH and code their pass@1 falls as $k$ grows.
#
# - We claim that both signs can follow from one mechanism, the reweighting of interfering prompts, and show a world in which pass@1 ascent stalls once it has solved the easy prompt, while ascent on pass@4 and pass@8 goes on, to a higher pass@1 at the same number of steps.
# - We do not claim that this is what happened to that model. That would take the success rates of its prompts along training, which are not published.
# - Steps that are $k$ times as long where $p$ is small, and how often a group of samples has no right answer at all, are other reasons for the same picture. In our world the first is excluded by the table, the second by the exact flow.

# %% [markdown]
# ## Two claims that point opposite ways, in one picture
#
# {cite:t}`nguyen2025boundary` find that training on *pass@1* costs pass@k: the problems that are solved already win, and suppress the others. {cite:t}`barakat2026passk` find that training on *pass@k* costs pass@1.
# They do not contradict each other.
#
# ```{prf:proposition} A conflict is mutual
# :label: prop-mutual
#
# If $\langle \nabla J_k, \nabla J_1 \rangle < 0$ at $\theta$, then every small enough step along $\nabla J_1$ lowers $J_k$, and every small enough step along $\nabla J_k$ lowers $J_1$. If the product is positive, neither does.
#
# Checked by {test}`test_dynamics_mutual`.
# ```
#
# ```{prf:proof}
# The derivative of $J_k$ along $\nabla J_1$ and that of $J_1$ along $\nabla J_k$ are the same number, the inner product.
# ```
#
# The two papers look at the two sides of one angle. They differ in what happens after the first steps.

# %% tags=["hide-input"]
logs = torch.linspace(-2, 3, 60).tolist()
frontier = torch.stack([optimal_theta(1 + 10**e, separation, hard_fraction) for e in logs])
population = {"separation": separation, "hard_fraction": hard_fraction, "num_nodes": 1025}
line = ascend_population(frontier, k, steps=0, ks=(1, k), **population).levels[0]
stop = int((ending[1] <= plateau_mass + 0.005).sum())  # the end of the plateau
plane = {}
for name, runs_of, top in (("aliased", flows, k), ("plateau", climbs, last_k)):
    for j in (1, top):
        until = stop if name == "plateau" else None
        pair = [runs_of[j].pass_at_k(order)[:until] for order in (1, top)]
        plane[name, j] = pd.DataFrame(torch.stack(pair, dim=1), columns=["pass@1", "pass@k"])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Ascent on pass@1 and on pass@k from one start (dot), in the plane of pass@1 and pass@k. Left, aliased prompts: each ascent harms the other objective, and both harms stay; the grey line joins the optima of all orders. Right, up to the end of the plateau of pass@1 ascent: it takes pass@k up, then below the start for a while, and ends a little above it, while pass@k ascent raises both.", "name": "fig-dynamics-plane"}, "image": {"alt": "Two planes of pass@1 against pass@k with two trajectories from one start in each."}}


def draw(axes):
    style = {"of": "neutral", "exact": True, "label": "optima of all orders", "linewidth": 1.5}
    figures.curve(axes[0], line[:, 0], line[:, 1], **style)
    for (name, j), path in plane.items():
        ax = axes[0] if name == "aliased" else axes[1]
        style = {"of": f"pass@{j}", "exact": True, "label": f"ascent on pass@{j}"}
        figures.curve(ax, path["pass@1"], path["pass@k"], **style)
        ax.plot(*path.iloc[-1], marker="x", markersize=8, color=figures.COLOURS[f"pass@{j}"])
        ax.plot(*path.iloc[0], marker="o", markersize=8, color=figures.ink())
    for ax, top, place in zip(axes, (k, last_k), ("lower left", "lower right"), strict=True):
        ax.set(xlabel="pass@1", ylabel=f"pass@{top}")
        figures.legend(ax, loc=place, fontsize=9)


listed = [
    f"{name}, ascent on pass@{j}: from ({x[0]:.3f}, {y[0]:.3f}) to ({x[-1]:.3f}, {y[-1]:.3f})"
    for (name, j), path in plane.items()
    for x, y in [path.to_numpy().T]
]
data = pd.concat(plane, names=["world", "ascent on"]).reset_index(["world", "ascent on"])
figures.show(draw, alt="; ".join(listed), data=data, ncols=2, size=(7.6, 3.6))

# %% [markdown]
# | world | pass@1 ascent | pass@k ascent |
# |---|---|---|
# | aliased at order $k$ | pass@k falls and stays low: the policy bets | pass@1 falls and stays low: the policy hedges |
# | separable | plateau: pass@k stays low for long, then recovers | pass@1 may fall on the way, then recovers |
# | nothing shared (the control of {ref}`sec-toy`) | no harm | no harm |

# %% [markdown]
# ## Scope
#
# - The closed forms are those of two actions and, for the optimum, of Gaussian features of equal variance. With more actions pass@k hedges too ({ref}`ex-dynamics-many`), but the optimum need not lie in a small family.
# - {prf:ref}`prop-transient` is about two prompts that a policy can tell apart. With many prompts and few parameters some stay aliased.
# - The ascents are gradient ascents with a fixed step, exact or sampled. Adam, clipping and group-standardised rewards change the weights, and the last of these changes the objective ({ref}`sec-estimators`).
# - Sampled ascent on the plateau uses the mean score given the reward. It leaves out the spread of the scores among wrong answers: its bands are narrower than those of a trainer.
# - A language model is neither aliased nor separable as a whole. Which part of a measured loss is transient can only be seen by going on.

# %% [markdown]
# ## Exercises
#
# ```{exercise} A calibrated policy
# :label: ex-dynamics-calibrated
#
# A policy is calibrated: it gives each answer the probability that this answer is right. Which pass@k ascent leaves it as it is, and what do the others do?
# ```
#
# ````{solution-start} ex-dynamics-calibrated
# :class: dropdown
# ````
#
# By {prf:ref}`prop-hedging` the optimum of pass@2 is the posterior: pass@2 ascent does nothing. For $k > 2$ ascent flattens the policy, for $k < 2$, pass@1 among them, it sharpens it.

# %%
calibrated = torch.tensor(
    [math.log(hard_fraction / (1 - hard_fraction)), separation], dtype=torch.float64
)
sharper = {
    j: float(world.objective_gradient(calibrated, PassAtK(j))[1] @ calibrated)
    for j in (1, 1.5, 2, 3, k)
}
assert abs(sharper[2]) < 1e-14
assert min(sharper[1], sharper[1.5]) > 0 > max(sharper[3], sharper[k])
sharper

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} Many answers
# :label: ex-dynamics-many
#
# There are $A$ answers, and answer $y$ is right with probability $\eta_y$. Which policy maximises pass@k, as long as it gives every answer a positive probability?
# ```
#
# ````{solution-start} ex-dynamics-many
# :class: dropdown
# ````
#
# Maximise $\sum_y \eta_y (1 - (1 - \pi_y)^k)$ under $\sum_y \pi_y = 1$. The objective is concave, and stationary where $\eta_y (1 - \pi_y)^{k-1}$ is the same for all $y$. Hence $1 - \pi_y \propto \eta_y^{-1/(k-1)}$, with the sum $A - 1$. Where that makes a $\pi_y$ negative, this answer gets 0, and the rest share.

# %%
truth, order = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 4
wrong = truth ** (-1 / (order - 1))
policy = 1 - 2 * wrong / wrong.sum()


def pass_at(policies):
    return (truth * (1 - (1 - policies) ** order)).sum(-1)


draws = torch.Generator().manual_seed(seed)
others = -torch.rand(10_000, 3, dtype=torch.float64, generator=draws).log()
others /= others.sum(1, keepdim=True)  # uniform on the simplex
assert policy.min() > 0
assert abs(policy.sum() - 1) < 1e-12
assert (pass_at(others) <= pass_at(policy)).all()
assert abs(pass_at(others).max() - pass_at(policy)) < 1e-3
policy

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} First the one, then the other
# :label: ex-dynamics-anneal
#
# On the plateau pass@8 is ahead early and pass@1 late. {cite:t}`walder2025pkpo` lower $k$ from 8 to 1 during training. Compare 400 steps of either with 100 steps on pass@8 followed by 300 on pass@1.
# ```
#
# ````{solution-start} ex-dynamics-anneal
# :class: dropdown
# ````
#
# Pass@8 brings all prompts off the floor, where the push of the winner does no harm any more; pass@1 then finishes them. The two-stage ascent beats both.

# %%
exercise_world = PlateauBandit(8, 0.5, masses=[0.2] + [0.8 / 7] * 7)
begin_low = exercise_world.start(4.0)
alone = {
    j: ascend(exercise_world, begin_low, PassAtK(j), step_size=4.0, steps=400).pass_at_k(1)[-1]
    for j in (1, 8)
}
first = ascend(exercise_world, begin_low, PassAtK(8), step_size=4.0, steps=100)
then = ascend(exercise_world, first.theta, PassAtK(1), step_size=4.0, steps=300).pass_at_k(1)[-1]
assert alone[1] < alone[8] < then
assert then > 0.95
{"pass@1 only": float(alone[1]), "pass@8 only": float(alone[8]), "pass@8, then pass@1": float(then)}

# %% [markdown]
# ````{solution-end}
# ````
#
# ## Summary
#
# We saw:
#
# - phase diagrams of the conflict over separation, share of hard prompts, bias and $k$; along the share the boundary is a pair of roots, and at zero separation the conflict lies between hedge and bet;
# - the optimum of pass@k is the posterior at temperature $k - 1$: it hedges, and its pass@1 falls with $k$, unless the log-odds are large against $k - 1$;
# - the gradients at the start do not tell whether pass@1 is lost in the end;
# - where prompts can be told apart, pass@1 recovers, but failure under pass@k ascent falls only like the $k$-th root of time;
# - pass@k frees the hardest prompt: on a plateau it raises pass@1 where pass@1 ascent stalls, and lowering $k$ afterwards beats both;
# - a conflict is mutual, so that harm to pass@1 and harm to pass@k are two sides of one angle.
