"""Estimators of policy gradients from n samples a prompt: rewards (P, n) -> advantages (P, n).

:func:`advantages` is what a trainer calls. Each estimator is a class that knows the objective it
really ascends, its exact bias, and its variance; ``ESTIMATORS`` has them by name, and
:func:`estimator_table` lists them.
"""

from passgrad.estimators.base import Estimator
from passgrad.estimators.group import GRPO, RLOO, MaxRL, PassKTraining, VerlPassK
from passgrad.estimators.pass_at_k import (
    PKPO,
    CentredL2O,
    PKPOLeaveOneOut,
    PKPOLooMinusOne,
    ReinforceMax,
    TangLeaveOneOut,
)
from passgrad.estimators.plug_in import (
    PlugIn,
    PlugInCentred,
    PlugInLeaveOneOut,
    TangCentred,
    UWeight,
)
from passgrad.estimators.registry import (
    ESTIMATORS,
    advantages,
    estimator_table,
    get_estimator,
)
from passgrad.estimators.rewards import is_group_standardised

__all__ = [
    "advantages",
    "ESTIMATORS",
    "get_estimator",
    "estimator_table",
    "is_group_standardised",
    "Estimator",
    "ReinforceMax",
    "PKPO",
    "PKPOLeaveOneOut",
    "PKPOLooMinusOne",
    "TangLeaveOneOut",
    "CentredL2O",
    "RLOO",
    "PlugIn",
    "PlugInLeaveOneOut",
    "UWeight",
    "PlugInCentred",
    "TangCentred",
    "PassKTraining",
    "GRPO",
    "MaxRL",
    "VerlPassK",
]
