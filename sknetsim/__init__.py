"""Similarity of inputs from the perspective of a trained neural network."""

from .active import ActiveLearningSampler
from .active_curve import ActiveLearningCurve, active_learning_curve
from .density import NetworkDensity
from .exceptions import (
    FewerComponentsWarning,
    LoadedElsewhereWarning,
    OutputTooLargeError,
    SoftmaxOutputWarning,
    UnsupportedNetworkError,
    ZeroGradientWarning,
)
from .featurizer import GradientFeaturizer
from .kernel import NetworkKernel
from .neighbors import NetworkNeighbors
from .rules import register_rule

__all__ = [
    "ActiveLearningCurve",
    "ActiveLearningSampler",
    "FewerComponentsWarning",
    "GradientFeaturizer",
    "LoadedElsewhereWarning",
    "NetworkDensity",
    "NetworkKernel",
    "NetworkNeighbors",
    "OutputTooLargeError",
    "SoftmaxOutputWarning",
    "UnsupportedNetworkError",
    "ZeroGradientWarning",
    "active_learning_curve",
    "register_rule",
]
