"""Network of an estimator: its module and criterion. Only this module imports skorch."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from ..exceptions import UnsupportedNetworkError, name_step
from .batches import Inputs, copy_arrays
from .isolation import has_device
from .samples import RawSamples, Samples
from .sharing import working_dtype

# Value of `estimator` for samples that are features already, without a network.
FEATURES = "features"

# Classes that wrap a module, and the attribute that contains the module.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}

# Criteria that compare the sigmoid of each output, or each output itself, with a label of its own.
_INDEPENDENT_CRITERIA = (nn.BCELoss, nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)


@dataclass(frozen=True)
class Network:
    """Trained network of an estimator, with the steps of the Pipeline before it.

    Attributes
    ----------
    module : Module
        The user's module, without wrappers.
    criterion : Module or None
        The criterion of a skorch net; None for a module.
    classifier : bool
        Whether the network predicts classes.
    prepare : callable
        Transformation of X by the steps of a Pipeline before the network.
    spread_tuples : bool
        Whether a tuple of inputs is passed as several arguments (skorch passes it as one).
    has_steps : bool
        Whether there are steps before the network.
    """

    module: nn.Module
    criterion: nn.Module | None
    classifier: bool
    prepare: Callable[[Samples], Samples]
    spread_tuples: bool
    has_steps: bool = False

    @property
    def inputs_name(self) -> str:
        """Name of the inputs of the network, for errors."""
        return "X after the steps of the Pipeline" if self.has_steps else "X"

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype that floating-point inputs are cast to: that of the first parameter's real part."""
        dtypes = (
            p.dtype for p in self.module.parameters() if p.is_floating_point() or p.is_complex()
        )
        return working_dtype(next(dtypes, torch.get_default_dtype()).to_real())

    @property
    def takes_logarithm(self) -> bool:
        """True if the outputs are probabilities whose logarithm skorch passes to the criterion."""
        return self.classifier and isinstance(self.criterion, nn.NLLLoss)

    @property
    def takes_logit(self) -> bool:
        """True if the outputs are probabilities of single labels, as BCELoss takes them."""
        return isinstance(self.criterion, nn.BCELoss)

    @property
    def has_independent_labels(self) -> bool:
        """True if each output is the probability of one label, or its logit.

        One output is a binary classification, and several outputs are several labels.
        """
        return isinstance(self.criterion, _INDEPENDENT_CRITERIA)

    def with_input_shape(self, input_shape: Sequence[int] | None) -> Network:
        """Return a network that reshapes each flat row of X to ``input_shape`` first."""
        if input_shape is None:
            return self
        return replace(self, prepare=lambda samples: self.prepare(samples).reshape(input_shape))

    def call(self, module: Callable[..., Any], inputs: Inputs) -> Any:
        """Return the raw outputs of a copy of the module, or of a function that replaces it."""
        if isinstance(inputs, dict):
            return module(**inputs)
        if isinstance(inputs, tuple) and self.spread_tuples:
            return module(*inputs)
        return module(inputs)


def resolve_network(estimator: Any) -> Network:
    """Return the network of a trained skorch net, FrozenEstimator, Pipeline or module."""
    net, steps = _unwrap(estimator)

    def prepare(samples: Samples) -> Samples:
        if not steps:
            return samples
        # The steps get a copy, because a step may change its input (StandardScaler(copy=False)).
        X = copy_arrays(samples.data)
        for name, step in steps:
            with name_step(name, step):
                X = step.transform(X)
        prepared = Samples(split_columns(net, X), samples.rows)
        if len(prepared) != len(samples):
            raise UnsupportedNetworkError(
                "`estimator` must have steps that return one row per sample; got"
                f" {len(prepared)} rows for {len(samples)} samples. Apply steps that drop or add"
                " samples to X and y first."
            )
        return prepared

    if isinstance(net, nn.Module):
        return Network(_check_module(net), None, False, prepare, True, bool(steps))
    if not is_trained(net):
        raise NotFittedError(
            f"`estimator` must be a trained network; got {describe_value(net)}, which is not"
            " trained. Call its fit first, or pass y to fit."
        )
    criterion = getattr(net, "criterion_", None)
    # torch.compile wraps the criterion, too.
    criterion = getattr(criterion, "_orig_mod", criterion)
    module = _check_module(net.module_)
    return Network(module, criterion, is_classifier(net), prepare, False, bool(steps))


def describe_value(value: Any) -> str:
    """Return a string itself, or else the type of a value, for messages."""
    name = type(value).__name__
    article = "an" if name[:1] in "AEIOaeio" else "a"
    return repr(value) if isinstance(value, str | None) else f"{article} {name}"


def _unwrap(estimator: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Return the estimator inside FrozenEstimators and Pipelines, and the named steps before it."""
    steps: list[tuple[str, Any]] = []
    while True:
        if isinstance(estimator, Pipeline):
            # Single steps: scikit-learn takes a Pipeline that ends in a step without fitted
            # attributes for unfitted. "passthrough" has no transform.
            steps += [pair for pair in estimator.steps[:-1] if hasattr(pair[1], "transform")]
            estimator = estimator[-1]
        elif type(estimator).__name__ == "FrozenEstimator":
            estimator = estimator.estimator
        else:
            return estimator, steps


def get_innermost(estimator: Any) -> Any:
    """Return the net or module inside FrozenEstimators and Pipelines."""
    return _unwrap(estimator)[0]


def list_steps(estimator: Any) -> list[tuple[str, Any]]:
    """Return the steps of Pipelines before the network, with their names."""
    return _unwrap(estimator)[1]


def make_samples(estimator: Any, X: Any) -> Samples:
    """Return the samples of X; X keeps its form if there are steps before the network."""
    if isinstance(X, Samples):
        return X
    if list_steps(estimator):
        return RawSamples(X)
    return Samples(split_columns(get_innermost(estimator), X))


def split_columns(net: Any, X: Any) -> Any:
    """Return the columns of a table as a dict, if the network takes them as keyword arguments.

    skorch passes a table in this form, with columns of shape (n, 1).
    """
    module = getattr(net, "module_", getattr(net, "module", net))
    columns = list(getattr(X, "columns", ()))
    forward = getattr(module, "forward", None)
    if not columns or forward is None or not set(columns) <= set(signature(forward).parameters):
        return X
    return {column: X[[column]].to_numpy() for column in columns}


def is_frozen(estimator: Any) -> bool:
    """Return whether the network is inside a FrozenEstimator, which may end a Pipeline."""
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    return type(estimator).__name__ == "FrozenEstimator"


def _check_module(module: nn.Module) -> nn.Module:
    """Return the module without its wrappers; raise if it cannot have per-sample gradients."""
    while (attribute := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, attribute)
    if type(module).__name__ == "FullyShardedDataParallel":
        raise UnsupportedNetworkError(
            "`estimator` must be a module with all its parameters; got a FullyShardedDataParallel,"
            " whose parameters are distributed. Gather its state_dict into a plain module."
        )
    for name, part in module.named_modules():
        for problem, cure in _list_problems(part):
            raise UnsupportedNetworkError(
                f"`estimator` must have no layer {problem}; got the {type(part).__name__} {name!r}."
                f" {cure}"
            )
    return module


def _list_problems(part: nn.Module) -> list[tuple[str, str]]:
    """Return the properties of a layer that rule out per-sample gradients, each with its cure."""
    problems = []
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        if part.max_norm is not None:
            problems.append(
                (
                    "with max_norm, which changes the weights in the forward pass",
                    "Renormalise the weights once, and set max_norm=None.",
                )
            )
        if part.scale_grad_by_freq:
            problems.append(
                (
                    "with scale_grad_by_freq, which mixes the samples of a batch",
                    "Set scale_grad_by_freq=False.",
                )
            )
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
        problems.append(
            (
                "without running statistics, because its outputs depend on the batch",
                "Train it with track_running_stats=True, or use GroupNorm.",
            )
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in part._parameters.values()):
        problems.append(("with uninitialised parameters", "Run the network once on a batch."))
    tensors = (*part._parameters.values(), *part._buffers.values())
    if any(tensor is not None and tensor.is_meta for tensor in tensors):
        problems.append(
            ("with tensors on the meta device, which have no data", "Load its weights first.")
        )
    return problems


def is_trained(estimator: Any) -> bool:
    """Return whether an estimator is a trained network: an initialised skorch net, or a module."""
    net = get_innermost(estimator)
    return isinstance(net, nn.Module) or bool(getattr(net, "initialized_", False))


def check_is_network(estimator: Any) -> None:
    """Raise an error if an estimator contains no network, trained or not, and is not "features"."""
    net = get_innermost(estimator)
    has_net = (
        not isinstance(net, type) and hasattr(net, "initialize") and hasattr(net, "get_params")
    )
    is_other = estimator is None or (isinstance(estimator, str) and estimator == FEATURES)
    if is_trained(estimator) or has_net or is_other:
        return
    is_class = isinstance(net, type)
    given = f"the class {net.__name__}, not an instance" if is_class else describe_value(net)
    wrapper = "" if net is estimator else f"{describe_value(estimator)} around "
    raise TypeError(
        "`estimator` must be a skorch net, a FrozenEstimator or Pipeline that ends in one, a"
        f" torch.nn.Module, {FEATURES!r} or None; got {wrapper}{given}. Pass a PyTorch network."
    )


def get_net_attributes(value: Any) -> dict[str, Any] | None:
    """Return all attributes of a skorch net, networks included; None for other objects.

    The state that a net itself returns contains its networks as bytes of a plain pickle, which
    refers to classes by name only.
    """
    if isinstance(value, NeuralNet) and type(value).__getstate__ is NeuralNet.__getstate__:
        return vars(value)
    return None


def restore_net(net: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes of an empty skorch net, on the CPU if its device is missing."""
    vars(net).update(attributes)
    if net.device is not None and not has_device(net.device):
        net.device = "cpu"


def make_classifier(net: Any, criterion: Any) -> Any:
    """Return a classifier with the module of a trained skorch net and another criterion."""
    params = net.get_params(deep=False).items()
    named = {name: value for name, value in params if name.startswith("criterion__")}
    settings = {"criterion": criterion, "device": net.device, "verbose": 0, **named}
    made = NeuralNetClassifier(net.module_, **settings).initialize()
    made.history = net.history  # It shows that the module is trained.
    return made


def takes_one_axis_of_labels(net: Any) -> bool:
    """Return whether a skorch net takes labels of shape (n,) only, not of shape (n, 1)."""
    return isinstance(net, NeuralNetBinaryClassifier)


def match_names(names: Iterable[str], patterns: Any) -> set[str]:
    """Return the names that match one of the patterns, if each pattern matches a name.

    Parameters
    ----------
    names : iterable of str
        Names of layers or parameters.
    patterns : object
        A name, a pattern such as "head.*", or a list of these. Other values match no name.

    Returns
    -------
    matches : set of str
        The names; empty if some pattern matches no name.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list | tuple | set) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        return set()
    matches = [fnmatch.filter(names, pattern) for pattern in patterns]
    return set().union(*matches) if all(matches) else set()


def format_names(names: Iterable[str]) -> str:
    """Return the first 20 names, quoted and separated by commas, for messages."""
    return ", ".join(repr(name) for name in list(names)[:20])
