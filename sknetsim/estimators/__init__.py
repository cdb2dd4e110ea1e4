"""Kernel, neighbours, density and features as scikit-learn estimators."""

from .contributions import Contributions
from .density import NetworkDensity
from .featurizer import GradientFeaturizer
from .kernel import NetworkKernel
from .neighbors import NetworkNeighbors
from .perceptual import PerceptualKernel
from .store import FeatureStore, featurize

__all__ = [
    "Contributions",
    "FeatureStore",
    "GradientFeaturizer",
    "NetworkDensity",
    "NetworkKernel",
    "NetworkNeighbors",
    "PerceptualKernel",
    "featurize",
]
