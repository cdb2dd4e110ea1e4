"""Similarity of inputs from the perspective of a trained neural network."""

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
    "register_rule",
]
