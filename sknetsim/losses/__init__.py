"""Similarities as terms of a loss."""

from ._losses import (
    ContrastiveSimilarityLoss,
    GroupSimilarities,
    GroupSimilarityLoss,
    PairSimilarityLoss,
)

__all__ = [
    "ContrastiveSimilarityLoss",
    "GroupSimilarities",
    "GroupSimilarityLoss",
    "PairSimilarityLoss",
]
