"""The only room that knows skorch: from an estimator to its module, criterion and training."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetClassifier
from torch import Tensor, nn

from ..exceptions import UnsupportedNetworkError
from .batches import Inputs
from .default_network import train_default_network
from .isolation import has_device, working_dtype
from .samples import Samples, is_on_disk, make_label_tensor


def format_names(names: Iterable[str]) -> str:
    """The first of some names, as they stand in a message."""
    return ", ".join(repr(name) for name in list(names)[:20])


FEATURES = "features"

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


@dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes
    ----------
    module : Module
        The guest.
    criterion : Module or None
        skorch's criterion, where there is one.
    classifier : bool
        Whether the network predicts classes.
    prepare : callable
        What a Pipeline does to X before the network.
    spread_tuples : bool
        Whether a tuple of inputs becomes several arguments (skorch hands it over as one).
    """

    module: nn.Module
    criterion: nn.Module | None
    classifier: bool
    prepare: Callable[[Samples], Samples]
    spread_tuples: bool

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What floating-point inputs are cast to."""
        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return working_dtype(next(floating, torch.get_default_dtype()))

    @property
    def takes_logarithm(self) -> bool:
        """Whether the outputs are probabilities whose logarithm the criterion takes (skorch)."""
        return self.classifier and isinstance(self.criterion, nn.NLLLoss)

    @property
    def takes_logit(self) -> bool:
        """Whether the output is the probability of a class that the criterion takes as such."""
        return self.classifier and isinstance(self.criterion, nn.BCELoss)

    def with_input_shape(self, input_shape: Sequence[int] | None) -> Network:
        """The network for flat rows of what has a shape of its own."""
        if input_shape is None:
            return self
        return replace(self, prepare=lambda samples: self.prepare(samples).reshape(input_shape))

    def call(self, module: Callable[..., Any], inputs: Inputs) -> Any:
        """The raw outputs of a working copy of the module, or of a function in its place."""
        if isinstance(inputs, dict):
            return module(**inputs)
        if isinstance(inputs, tuple) and self.spread_tuples:
            return module(*inputs)
        return module(inputs)


def resolve_network(estimator: Any) -> Network:
    """The network of a trained skorch net, FrozenEstimator, Pipeline or module."""
    net, steps = _unwrapped(estimator)

    def prepare(samples: Samples) -> Samples:
        if not steps:
            return samples
        return Samples(functools.reduce(lambda X, step: step.transform(X), steps, samples.data))

    if isinstance(net, nn.Module):
        return Network(_checked(net), None, False, prepare, spread_tuples=True)
    if not is_trained(net):
        raise NotFittedError(
            f"estimator is {_describe(net)}, which is not trained; allowed are trained networks:"
            " call its fit first, or hand y to fit."
        )
    criterion = getattr(net, "criterion_", None)
    return Network(_checked(net.module_), criterion, is_classifier(net), prepare, False)


def _describe(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, str) else repr(value)


def _unwrapped(estimator: Any) -> tuple[Any, list[Any]]:
    """What is below FrozenEstimator and Pipeline, and the steps before it."""
    steps: list[Any] = []
    while True:
        if isinstance(estimator, Pipeline):
            steps += [estimator[:-1]] * (len(estimator) > 1)
            estimator = estimator[-1]
        elif type(estimator).__name__ == "FrozenEstimator":
            estimator = estimator.estimator
        else:
            return estimator, steps


def _innermost(estimator: Any) -> Any:
    return _unwrapped(estimator)[0]


def _checked(module: nn.Module) -> nn.Module:
    """The module without its wrappers, refused where its gradients cannot be per sample."""
    while (attribute := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, attribute)
    if type(module).__name__ == "FullyShardedDataParallel":
        raise UnsupportedNetworkError(
            "estimator is a FullyShardedDataParallel module, whose parameters are elsewhere;"
            " allowed are whole modules: gather its state_dict into a plain one."
        )
    for name, part in module.named_modules():
        for refused, cure in _refusals(part):
            raise UnsupportedNetworkError(
                f"estimator has a {type(part).__name__} {name!r} with {refused}: {cure}"
            )
    return module


def _refusals(part: nn.Module) -> list[tuple[str, str]]:
    """What makes a layer unfit, and the cure."""
    found = []
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        if part.max_norm is not None:
            found.append(
                (
                    "max_norm, which alters the weights in the forward pass",
                    "renormalise them once and set max_norm=None.",
                )
            )
        if part.scale_grad_by_freq:
            found.append(
                (
                    "scale_grad_by_freq, which mixes the samples of a batch",
                    "set scale_grad_by_freq=False.",
                )
            )
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
        found.append(
            (
                "no running statistics, so that its outputs depend on the batch",
                "train it with track_running_stats=True, or use GroupNorm.",
            )
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in part._parameters.values()):
        found.append(("uninitialised parameters", "run it once on a batch."))
    return found


def is_trained(estimator: Any) -> bool:
    """Whether there is a trained network to keep: ``initialized_`` of skorch, or a module."""
    net = _innermost(estimator)
    return isinstance(net, nn.Module) or bool(getattr(net, "initialized_", False))


def get_net_attributes(value: Any) -> dict[str, Any] | None:
    """All that a skorch net consists of, networks included; None for anything else.

    A net hands its networks over as bytes that plain pickle made, which know classes by name only.
    """
    if isinstance(value, NeuralNet) and type(value).__getstate__ is NeuralNet.__getstate__:
        return vars(value)
    return None


def restore_net(net: Any, attributes: dict[str, Any]) -> None:
    """Fill an empty skorch net; one of a device that is not here works on the CPU."""
    vars(net).update(attributes)
    if net.device is not None and not has_device(net.device):
        net.device = "cpu"


def make_classifier(net: Any, criterion: Any) -> Any:
    """A trained skorch net's own module, as one that predicts classes by another criterion."""
    params = net.get_params(deep=False).items()
    named = {name: value for name, value in params if name.startswith("criterion__")}
    settings = {"criterion": criterion, "device": net.device, "verbose": 0, **named}
    return NeuralNetClassifier(net.module_, **settings).initialize()


def fit_network(
    estimator: Any, X: Any, y: Any, random_state: Any, input_shape: Sequence[int] | None
) -> Any:
    """What ``estimator_`` becomes: the trained estimator itself, or a trained clone."""
    if is_trained(estimator) or (isinstance(estimator, str) and estimator == FEATURES):
        return estimator
    if input_shape is not None and (estimator is None or estimator is not _innermost(estimator)):
        raise ValueError(
            f"input_shape is {tuple(input_shape)} and estimator is {_describe(estimator)} that is"
            " to be trained; allowed with input_shape are trained networks and skorch nets: train"
            " the pipeline first."
        )
    X = np.asarray(X) if is_on_disk(X) else X
    if estimator is None:
        return train_default_network(_matrix(X), y, random_state)
    net = _innermost(estimator)
    if not hasattr(net, "initialize") or not hasattr(net, "get_params"):
        raise TypeError(
            f"estimator is {_describe(estimator)}; allowed are a skorch net, a FrozenEstimator or"
            f" Pipeline that ends in one, a torch.nn.Module, {FEATURES!r} and None."
        )
    if y is None:
        raise ValueError(
            f"estimator is an untrained {type(net).__name__} and y is None; pass a trained net, or"
            " y so that it can be trained."
        )
    make_label_tensor(y)
    return _train(estimator, X if input_shape is None else Samples(X).reshape(input_shape).data, y)


def _matrix(X: Any) -> np.ndarray:
    array = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    if array.ndim != 2:
        raise ValueError(
            f"X has {array.ndim} dimensions; estimator=None takes 2 (samples, features): pass a"
            " trained network for other inputs."
        )
    return array


def _train(estimator: Any, X: Any, y: Any) -> Any:
    if isinstance(estimator, Pipeline) or estimator is not _innermost(estimator):
        return clone(estimator).fit(X, y)
    net = clone(estimator).initialize()
    dtype = next(net.module_.parameters()).dtype
    return net.partial_fit(_cast(X, dtype), _cast(y, dtype))


def _cast(values: Any, dtype: torch.dtype) -> Any:
    """Arrays of floating numbers in the network's dtype, which skorch leaves as they are."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return torch.tensor(values).to(dtype).numpy()
    return values


def match_names(names: Iterable[str], patterns: Any) -> set[str]:
    """Those that a name or pattern, or one of several, matches; none where one matches nothing."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list | tuple | set) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        return set()
    found = [fnmatch.filter(names, pattern) for pattern in patterns]
    return {name for some in found for name in some} if all(found) else set()
