"""Similarity of inputs from the perspective of a trained neural network."""

from ._contributions import Contributions
from .active import ActiveLearningSampler
from .active_curve import ActiveLearningCurve, active_learning_curve
from .denoising import Denoising, LabelDenoiser
from .density import NetworkDensity
from .diagnostics import FitDiagnostics
from .exceptions import (
    FeatureStoreError,
    FewerComponentsWarning,
    LoadedElsewhereWarning,
    NoNeighborsWarning,
    OutputTooLargeError,
    SoftmaxOutputWarning,
    UnsupportedNetworkError,
    ZeroGradientWarning,
)
from .explorer import explore
from .featurizer import GradientFeaturizer
from .kernel import NetworkKernel
from .neighbors import NetworkNeighbors
from .perceptual import PerceptualKernel
from .rules import register_rule
from .store import FeatureStore, featurize

__all__ = [
    "ActiveLearningCurve",
    "ActiveLearningSampler",
    "Contributions",
    "Denoising",
    "FeatureStore",
    "FeatureStoreError",
    "FewerComponentsWarning",
    "FitDiagnostics",
    "GradientFeaturizer",
    "LabelDenoiser",
    "LoadedElsewhereWarning",
    "NetworkDensity",
    "NetworkKernel",
    "NetworkNeighbors",
    "NoNeighborsWarning",
    "OutputTooLargeError",
    "PerceptualKernel",
    "SoftmaxOutputWarning",
    "UnsupportedNetworkError",
    "ZeroGradientWarning",
    "active_learning_curve",
    "explore",
    "featurize",
    "register_rule",
]
