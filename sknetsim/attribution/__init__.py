"""Attribution: the influence of fitted samples on predictions and losses."""

from ._extremes import InfluentialSamples
from .influence import TrainingInfluence

__all__ = ["InfluentialSamples", "TrainingInfluence"]
