"""Similarity of inputs according to a trained neural network, as scikit-learn estimators."""

from ._gradients.coverage import ParameterCoverage, RuleCoverage, rule_coverage
from .active import ActiveLearningCurve, ActiveLearningSampler, active_learning_curve
from .attribution import InfluentialSamples, TrainingInfluence
from .displays.explorer import explore
from .estimators import (
    Contributions,
    FeatureStore,
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    NetworkNeighbors,
    PerceptualKernel,
    featurize,
)
from .exceptions import (
    ChangedNetworkError,
    DroppedOutputsWarning,
    FeatureStoreError,
    FewerComponentsWarning,
    LoadedElsewhereWarning,
    NoNeighborsWarning,
    OutputTooLargeError,
    SoftmaxOutputWarning,
    UnsupportedNetworkError,
    UntrainedNetworkWarning,
    ZeroGradientWarning,
)
from .labels import Denoising, FitDiagnostics, LabelDenoiser
from .rules import register_rule

__all__ = [
    "ActiveLearningCurve",
    "ActiveLearningSampler",
    "ChangedNetworkError",
    "Contributions",
    "Denoising",
    "DroppedOutputsWarning",
    "FeatureStore",
    "FeatureStoreError",
    "FewerComponentsWarning",
    "FitDiagnostics",
    "GradientFeaturizer",
    "InfluentialSamples",
    "LabelDenoiser",
    "LoadedElsewhereWarning",
    "NetworkDensity",
    "NetworkKernel",
    "NetworkNeighbors",
    "NoNeighborsWarning",
    "OutputTooLargeError",
    "ParameterCoverage",
    "PerceptualKernel",
    "RuleCoverage",
    "SoftmaxOutputWarning",
    "TrainingInfluence",
    "UnsupportedNetworkError",
    "UntrainedNetworkWarning",
    "ZeroGradientWarning",
    "active_learning_curve",
    "explore",
    "featurize",
    "register_rule",
    "rule_coverage",
]
