"""What a network predicts.

Index legend: n samples; d outputs; c classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._networks.memory import halve
from .._networks.samples import Samples
from ..exceptions import UnsupportedNetworkError
from .engine import GradientEngine

# As many as skorch hands over at a time, twice.
_CHUNK_ROWS = 256


def predict_outputs(engine: GradientEngine, X: Samples) -> np.ndarray:
    """The outputs themselves, of shape (n, d), float64."""
    found = [engine.outputs.logits(raw).double() for raw in _outputs(engine, X)]
    return torch.cat(found).cpu().numpy()


def predict_probabilities(engine: GradientEngine, X: Samples) -> np.ndarray:
    """Of the classes, of shape (n, c): the softmax of the logits."""
    found = [
        expand_to_classes(_logits(engine, raw)).double().softmax(dim=1)
        for raw in _outputs(engine, X)
    ]
    return torch.cat(found).cpu().numpy()


def _outputs(engine: GradientEngine, X: Samples) -> Iterator[Any]:
    """The network's raw outputs, chunk by chunk."""
    rows, start = engine.network.prepare(X), 0
    step = engine.batch_size or _CHUNK_ROWS
    while start < len(rows):
        batch = engine.batch(rows, None, slice(start, start + step))
        try:
            with batch as (module, inputs, _), torch.no_grad():
                outputs = engine.forward(module, inputs)
        except (RuntimeError, MemoryError) as error:
            step = halve(step, error)
            continue
        if not isinstance(outputs, Tensor):
            raise UnsupportedNetworkError(
                f"estimator returned a {type(outputs).__name__}; allowed where predictions are"
                " looked at is one tensor with a row per sample: wrap the network in a module that"
                " returns that alone."
            )
        yield outputs
        start += step


def _logits(engine: GradientEngine, raw: Any) -> Tensor:
    logits = engine.outputs.logits(raw)
    if raw.ndim > 2:
        raise ValueError(
            f"estimator gives outputs of shape {tuple(raw.shape[1:])} for a sample; allowed where"
            " classes are told apart is one number per class: flatten the network's output, or"
            " choose a strategy or method that does not look at classes."
        )
    return logits


def expand_to_classes(logits: Tensor) -> Tensor:
    """Logits of all classes (n, c); one output is the second class's, against 0 for the first."""
    if logits.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits
