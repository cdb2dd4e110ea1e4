"""Losses that make a network treat samples as similar or dissimilar."""

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
