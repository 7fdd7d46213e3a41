"""The conflict of pass@1 and pass@k along a training run: logged, kept, and drawn at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from passgrad.errors import UserError
from passgrad.trl.schedules import count

if TYPE_CHECKING:
    from pandas import DataFrame

#: in the output folder
TABLE, FIGURE = "conflict.parquet", "conflict.png"


class ConflictCallback(TrainerCallback):  # type: ignore[misc]
    r"""Asks a trainer of :mod:`passgrad.trl` to measure the conflict, on every ``every``-th batch.

    The values go through the trainer's own log, and with it to whatever ``report_to`` names
    (tensorboard, trackio, wandb, ...), under ``conflict/``:

    - ``pass@1``, ``pass@k``: unbiased, of that batch (max@k for graded rewards);
    - ``inner_product``: :math:`\langle \nabla J_k, \nabla J_1 \rangle`, unbiased, with the
      ``squared_norm_1`` and ``squared_norm_k``; ``mean_inner_product`` over the last measurements,
      with its ``error_inner_product``;
    - ``cosine``: the ratio of the means over the last measurements, once both squared norms are
      told from 0 by their spread, in the plain metric; not logged before, nor where the estimates
      contradict each other (a ratio beyond 1);
    - ``optimizer_cosine``: that in the metric of the optimiser, with ``ConflictFree``, and
      ``in_metric_of_optimizer``, 1 where its coefficients are of that metric, 0 where plain;
    - ``negative_agreement``: the share of prompts whose success falls along the gradient of pass@1
      over other prompts; single products are noisy, which draws the share towards a half;
    - ``predicted_change``: of pass@1 since the last measurement, to first order:
      :math:`\langle \hat g_1, \theta - \theta_{\text{last}} \rangle` with the gradient of the new
      batch, which is independent of the steps that were taken. It holds for every optimiser, and
      keeps a copy of the trained parameters (``predict=False`` for none).

    At the end ``conflict.parquet`` and ``conflict.png`` are in the output folder.

    A measurement costs a forward and two backward passes over the batch, and one backward pass
    where rewards are 0 and 1.

    :param k: The order held against pass@1; by default the largest that is trained. A plan that
        measures by itself decides on its own order.
    """

    def __init__(
        self, k: int | None = None, *, every: int = 10, plot: bool = True, predict: bool = True
    ) -> None:
        self._k = None if k is None else count(k)
        self.every, self.plot, self.predict = count(every, "every"), plot, predict
        self.history: list[dict[str, float]] = []

    @property
    def order(self) -> int:
        """The order held against pass@1."""
        if self._k is None:
            raise UserError("ConflictCallback works with the trainers of passgrad.trl only")
        return self._k

    def settle(self, orders: tuple[int, ...]) -> None:
        """Take the largest of the trained orders, if none was given."""
        if self._k is None:
            self._k = max(orders)
        if self._k == 1:
            raise UserError("pass@1 has no conflict with itself: give ConflictCallback k=8, say")

    def record(self, step: int, report: Mapping[str, float]) -> None:
        """Keep one measurement."""
        self.history.append({"step": float(step), **report})

    def to_frame(self) -> DataFrame:
        """One row a measurement."""
        import pandas as pd

        return pd.DataFrame(self.history)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Write the table and the figure."""
        if not state.is_world_process_zero or not self.history:
            return
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_frame().to_parquet(folder / TABLE)
        if self.plot:
            from passgrad.trl.conflict_plot import draw  # matplotlib is needed for this alone

            draw(self.to_frame(), folder / FIGURE)
