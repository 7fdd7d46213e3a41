"""Where in the model the conflict sits: the product split over parts of the parameters."""

from passgrad.measurement.parts.estimate import (
    ModelParts,
    PartsEstimate,
    Reading,
    estimate_parts,
)
from passgrad.measurement.parts.terms import Folding

__all__ = ["Folding", "ModelParts", "PartsEstimate", "Reading", "estimate_parts"]
