"""Gradients of pass@k: when ascending pass@k costs pass@1, and what to do about it.

The public names below are imported from their modules when they are first used, so that
``import passgrad`` loads neither a plotting nor a language-model library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from passgrad.lazy import lazy_names

__version__ = "0.2.0"

#: public name -> the module that defines it
_HOMES = {
    "pass_at_k": "passgrad.metrics",
    "PassAtK": "passgrad.objectives",
    "advantages": "passgrad.estimators",
    "conflict": "passgrad.interference",
    "ascend": "passgrad.ascent.ascent",
    "Adam": "passgrad.ascent.directions",
    "NaturalGradient": "passgrad.ascent.directions",
    "ConflictFreeDirection": "passgrad.ascent.conflict_free",
    "frontier": "passgrad.ascent.frontier",
    "logs": "passgrad.measurement.logs.run",
    "measure": "passgrad.measurement.run",
    "TwoPointBandit": "passgrad.worlds.bandit",
    "GaussianBandit": "passgrad.worlds.bandit",
    "TabularSoftmax": "passgrad.worlds.tabular",
    "LanguageWorld": "passgrad.worlds.language",
    "load_model": "passgrad.lm.models",
    "UserError": "passgrad.errors",
}

__all__ = [
    "pass_at_k",
    "PassAtK",
    "advantages",
    "conflict",
    "ascend",
    "Adam",
    "NaturalGradient",
    "ConflictFreeDirection",
    "frontier",
    "logs",
    "measure",
    "TwoPointBandit",
    "GaussianBandit",
    "TabularSoftmax",
    "LanguageWorld",
    "load_model",
    "UserError",
    "__version__",
]

if TYPE_CHECKING:
    from passgrad.ascent.ascent import ascend
    from passgrad.ascent.conflict_free import ConflictFreeDirection
    from passgrad.ascent.directions import Adam, NaturalGradient
    from passgrad.ascent.frontier import frontier
    from passgrad.errors import UserError
    from passgrad.estimators import advantages
    from passgrad.interference import conflict
    from passgrad.lm.models import load_model
    from passgrad.measurement.logs.run import logs
    from passgrad.measurement.run import measure
    from passgrad.metrics import pass_at_k
    from passgrad.objectives import PassAtK
    from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
    from passgrad.worlds.language import LanguageWorld
    from passgrad.worlds.tabular import TabularSoftmax

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
