"""Predictions of a network: outputs, and probabilities of classes or of independent labels.

Index legend: n samples; d outputs; k labels of a sample; c classes of a label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .._networks.batches import Inputs, list_tensors, take_batch
from .._networks.memory import CHUNK, halve, memory_budget
from .._networks.samples import Samples
from .criterion import check_probabilities, is_single
from .engine import GradientEngine
from .verification import check_outputs, check_same_outputs

# Largest number of samples per forward pass: twice the default of skorch.
_CHUNK_SAMPLES = 256


def predict_outputs(engine: GradientEngine, X: Samples) -> np.ndarray:
    """Return all outputs, before a final softmax or sigmoid, of shape (n, d), float64."""
    outputs = [engine.outputs.logits(raw).double() for raw in iterate_outputs(engine, X)]
    return torch.cat(outputs).cpu().numpy()


def predict_distributions(engine: GradientEngine, X: Samples) -> np.ndarray:
    """Return the probabilities of the classes of each label, of shape (n, k, c), float64.

    They are the softmax of the logits, or for independent labels the sigmoid s(z) of each logit, as
    1 - s(z) and s(z).
    """
    probabilities = [
        _make_class_logits(engine, raw).double().softmax(dim=2)
        for raw in iterate_outputs(engine, X)
    ]
    return torch.cat(probabilities).cpu().numpy()


def predict_probabilities(engine: GradientEngine, X: Samples) -> np.ndarray:
    """Return the probabilities of the classes, of shape (n, c), float64.

    For several independent labels, return the probability of each label, of shape (n, k).
    """
    distributions = predict_distributions(engine, X)
    return distributions[:, 0] if distributions.shape[1] == 1 else distributions[:, :, 1]


def iterate_outputs(engine: GradientEngine, X: Samples) -> Iterator[Tensor]:
    """Yield the network's outputs, chunk by chunk; chunks are halved if memory is exhausted."""
    samples, start = engine.network.prepare(X), 0
    step = engine.batch_size or _count_affordable_samples(engine, samples)
    while start < len(samples):
        try:
            outputs = _compute_outputs(engine, samples, slice(start, start + step))
        except (RuntimeError, MemoryError) as error:
            step = halve(step, error)
            continue
        yield outputs
        start += step


def _compute_outputs(engine: GradientEngine, samples: Samples, chunk: slice) -> Tensor:
    """Return the outputs of a chunk, without their autograd graph.

    They are computed with gradients enabled, like the Jacobians, because torch may compute another
    function without them, and because a network may differentiate something itself. In the first
    chunk, the network is checked not to mix samples.
    """
    with engine.batch(samples, chunk) as (module, inputs, _):
        last = len(list_tensors(inputs)[0]) - 1
        checked = {row: take_batch(inputs, [row]) for row in (0, last) if chunk.start == 0 < last}
        outputs = _forward(engine, module, inputs)
        check_outputs(outputs, inputs)
        check_probabilities(engine.network, outputs)
        for row, alone in checked.items():
            check_same_outputs(_forward(engine, module, alone), outputs, [row])
        return outputs


def _forward(engine: GradientEngine, module: nn.Module, inputs: Inputs) -> Tensor:
    """Return the outputs of a batch, without their autograd graph."""
    raw = engine.forward(module, inputs)
    return engine.outputs.pick(raw, ", because predictions are needed").detach()


def _count_affordable_samples(engine: GradientEngine, samples: Samples) -> int:
    """Return the number of samples whose autograd graph fits in the memory budget of a chunk."""
    size = 0
    # An error of the network is raised again by the first chunk. The graph of a network that uses
    # torch.func cannot be measured; its chunks are halved if memory is exhausted.
    with contextlib.suppress(RuntimeError, ValueError):
        # The tensors that do not depend on the samples, such as the weights, cancel.
        size = _measure_graph(engine, samples, 2) - _measure_graph(engine, samples, 1)
    budget = memory_budget(CHUNK, engine.device)
    return max(1, min(_CHUNK_SAMPLES, budget // max(1, size)))


def _measure_graph(engine: GradientEngine, samples: Samples, count: int) -> int:
    """Return the bytes of the tensors that autograd saves in a forward pass of some samples."""
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        engine.batch(samples, slice(0, count)) as (module, inputs, _),
        saved_tensors_hooks(record, lambda tensor: tensor),
    ):
        engine.forward(module, inputs)
    return sum(saved.values())


def _make_class_logits(engine: GradientEngine, outputs: Tensor) -> Tensor:
    """Return the logits of the classes of each label, of shape (n, k, c)."""
    logits = engine.outputs.logits(outputs)
    if engine.network.has_independent_labels or is_single(outputs):
        return expand_to_classes(logits.reshape(-1, 1)).reshape(*logits.shape, 2)
    if outputs.ndim > 2:
        raise ValueError(
            "`estimator` must return one number per class for each sample, because classes are"
            f" needed; got outputs of shape {tuple(outputs.shape[1:])}. Flatten the network's"
            " output, or choose a strategy or method that uses no classes."
        )
    return logits[:, None]


def expand_to_classes(logits: Tensor) -> Tensor:
    """Return the logits of all classes, of shape (n, c).

    A single output z is the logit of the second of two classes, and the first class gets 0.
    """
    # softmax(0, z) = (1 - s(z), s(z)), where s(z) = 1 / (1 + exp(-z)) is the sigmoid.
    if logits.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits
