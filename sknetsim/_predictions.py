"""What a classifier predicts.

Index legend: n samples; d outputs; c classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._gradients import GradientEngine


def probabilities(engine: GradientEngine, X: Any) -> np.ndarray:
    """Of the classes, of shape (n, c), from an engine that compares all outputs."""
    found = [_softmax(logits.double()) for logits in engine.predictions(X)]
    return torch.cat(found).cpu().numpy()


def _softmax(logits: Tensor) -> Tensor:
    """Of logits (n, d); one output is the second class's, against 0 for the first."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits.softmax(dim=1)
