"""Displays: plots of neighbours, densities, similarities and labels, in scikit-learn's style.

Each display has ``from_estimator``, which computes the data, ``from_predictions``, which takes
computed data, and ``plot``, which draws them and sets ``ax_`` and ``figure_``. matplotlib is
imported when a display is drawn.
"""

from __future__ import annotations

from ._contributions import ContributionsDisplay
from ._denoising import DenoisingDisplay
from ._density import DensityDisplay
from ._influence import InfluenceDisplay
from ._learning_curve import LearningCurveDisplay
from ._neighbors import NeighborsDisplay
from ._similarity_matrix import SimilarityMatrixDisplay

__all__ = [
    "ContributionsDisplay",
    "DenoisingDisplay",
    "DensityDisplay",
    "InfluenceDisplay",
    "LearningCurveDisplay",
    "NeighborsDisplay",
    "SimilarityMatrixDisplay",
]
