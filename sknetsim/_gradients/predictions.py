"""Predictions of a network: outputs, and probabilities of classes.

Index legend: n samples; d outputs; c classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .._networks.memory import halve
from .._networks.samples import Samples
from ..exceptions import UnsupportedNetworkError
from .engine import GradientEngine

# Samples per forward pass: twice the default of skorch.
_CHUNK_SAMPLES = 256


def predict_outputs(engine: GradientEngine, X: Samples) -> np.ndarray:
    """Return all outputs, before a final softmax or sigmoid, of shape (n, d), float64."""
    outputs = [engine.outputs.logits(raw).double() for raw in _iterate_outputs(engine, X)]
    return torch.cat(outputs).cpu().numpy()


def predict_probabilities(engine: GradientEngine, X: Samples) -> np.ndarray:
    """Return the probabilities of the classes, of shape (n, c), float64: softmax of the logits."""
    probabilities = [
        expand_to_classes(_class_logits(engine, raw)).double().softmax(dim=1)
        for raw in _iterate_outputs(engine, X)
    ]
    return torch.cat(probabilities).cpu().numpy()


def _iterate_outputs(engine: GradientEngine, X: Samples) -> Iterator[Tensor]:
    """Yield the network's raw outputs, chunk by chunk; chunks are halved if memory is exhausted."""
    samples, start = engine.network.prepare(X), 0
    step = engine.batch_size or _CHUNK_SAMPLES
    while start < len(samples):
        batch = engine.batch(samples, None, slice(start, start + step))
        try:
            with batch as (module, inputs, _), torch.no_grad():
                outputs = engine.forward(module, inputs)
        except (RuntimeError, MemoryError) as error:
            step = halve(step, error)
            continue
        if not isinstance(outputs, Tensor):
            raise UnsupportedNetworkError(
                "`estimator` must return one tensor with a row per sample, because predictions are"
                f" needed; got a {type(outputs).__name__}. Wrap the network in a module that"
                " returns only that tensor."
            )
        yield outputs
        start += step


def _class_logits(engine: GradientEngine, raw: Tensor) -> Tensor:
    """Return the logits; raise an error if there are several numbers per class."""
    if raw.ndim > 2:
        raise ValueError(
            "`estimator` must return one number per class for each sample, because classes are"
            f" needed; got outputs of shape {tuple(raw.shape[1:])}. Flatten the network's output,"
            " or choose a strategy or method that uses no classes."
        )
    return engine.outputs.logits(raw)


def expand_to_classes(logits: Tensor) -> Tensor:
    """Return the logits of all classes, of shape (n, c).

    A single output z is the logit of the second of two classes, and the first class gets 0.
    """
    # softmax(0, z) = (1 - s(z), s(z)), where s(z) = 1 / (1 + exp(-z)) is the sigmoid.
    if logits.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits
