"""Query strategies of active learning, one class each."""

from __future__ import annotations

from ._selection import Selection, Setting, select_greedily
from .baselines import Entropy, Margin, Random
from .coverage import Coverage, Typicality
from .distances import KCenter, KMeansPlusPlus, LargestCluster
from .posterior import Bait, FrankWolfe, MaximalDeterminant
from .similar import FewestSimilar, LeastReliable

__all__ = ["STRATEGIES", "Selection", "Setting", "select_greedily"]

#: Strategies by the values of the parameter ``strategy``.
STRATEGIES: dict[str, type[Selection]] = {
    "badge": KMeansPlusPlus,
    "bait": Bait,
    "coverage": Coverage,
    "density": FewestSimilar,
    "entropy": Entropy,
    "frank-wolfe": FrankWolfe,
    "kcenter": KCenter,
    "lcmd": LargestCluster,
    "margin": Margin,
    "maxdet": MaximalDeterminant,
    "random": Random,
    "reliability": LeastReliable,
    "typicality": Typicality,
}
