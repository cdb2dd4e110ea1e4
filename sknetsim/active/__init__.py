"""Active learning: the sampler, and learning curves."""

from .curve import ActiveLearningCurve, active_learning_curve
from .sampler import ActiveLearningSampler

__all__ = ["ActiveLearningCurve", "ActiveLearningSampler", "active_learning_curve"]
