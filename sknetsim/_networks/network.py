"""Network of an estimator: its module and criterion. Only this module imports skorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.dataset import Dataset as SkorchDataset
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..exceptions import UnsupportedNetworkError, describe_value, name_step, show_once
from .batches import Inputs, list_tensors
from .isolation import has_device
from .modules import Arguments, check_module
from .samples import PreparedSamples, RawSamples, Samples
from .samples.arrays import check_texts, convert_column, copy_arrays, is_arrow, is_table
from .samples.items import Batching, is_hugging_face_dataset
from .sharing import working_dtype

# Value of `estimator` for samples that are features already, without a network.
FEATURES = "features"

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
    infer : callable or None
        Function that evaluates the network, if a subclass of a skorch net replaces that of skorch.
    """

    module: nn.Module
    criterion: nn.Module | None
    classifier: bool
    prepare: Callable[[Samples], Samples]
    spread_tuples: bool
    has_steps: bool = False
    infer: Callable[[Any, Inputs], Any] | None = None

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
        if self.infer is not None:
            return self.infer(module, inputs)
        if isinstance(inputs, dict):
            return module(**inputs)
        if isinstance(inputs, tuple) and self.spread_tuples:
            return module(*inputs)
        return module(inputs)


def resolve_network(estimator: Any) -> Network:
    """Return the network of a trained skorch net, FrozenEstimator, Pipeline or module."""
    net, steps = _unwrap(estimator)

    prepare = functools.partial(_prepare, net, steps)
    if isinstance(net, nn.Module):
        return Network(check_module(net), None, False, prepare, True, bool(steps))
    if not is_trained(net):
        raise NotFittedError(
            f"`estimator` must be a trained network; got {describe_value(net)}, which is not"
            " trained. Call its fit first, or pass y to fit."
        )
    _check_evaluation(net)
    criterion = getattr(net, "criterion_", None)
    # torch.compile wraps the criterion, too.
    criterion = getattr(criterion, "_orig_mod", criterion)
    module = check_module(net.module_)
    infer = functools.partial(_infer, net) if _has_own_infer(net) else None
    return Network(module, criterion, is_classifier(net), prepare, False, bool(steps), infer)


def _prepare(net: Any, steps: list[tuple[str, Any]], samples: Samples) -> Samples:
    """Return the samples after the steps before a network."""
    if not steps:
        return samples
    prepared = samples.join_parts([_apply_steps(net, steps, part) for part in samples.parts])
    if not samples.may_be_padded:
        return prepared

    def prepare(indices: Sequence[int]) -> Samples:
        return _prepare(net, steps, samples.select(indices))

    return PreparedSamples(prepared, prepare, samples.has_columns)


def _apply_steps(net: Any, steps: list[tuple[str, Any]], samples: Samples) -> Samples:
    """Return the samples of one form after the steps before a network."""
    # The steps get a copy, because a step may change its input (StandardScaler(copy=False)).
    X = copy_arrays(samples.data)
    for name, step in steps:
        with show_once(), name_step(name, step):
            check_texts(X, step)
            X = step.transform(X)
    prepared = _make_samples(net, X, samples.rows)
    if len(prepared) != len(samples):
        raise UnsupportedNetworkError(
            "`estimator` must have steps that return one row per sample; got"
            f" {len(prepared)} rows for {len(samples)} samples. Apply steps that drop or add"
            " samples to X and y first."
        )
    return prepared


def _check_evaluation(net: Any) -> None:
    """Raise an error if a subclass of a skorch net replaces methods that cannot be followed."""
    for name in ("evaluation_step", "forward_iter"):
        if isinstance(net, NeuralNet) and not getattr(net, name).__module__.startswith("skorch."):
            raise UnsupportedNetworkError(
                f"`estimator` must evaluate its module like skorch; got a {type(net).__name__} with"
                f" a method {name} of its own, which may change inputs or outputs. Override infer"
                " or get_dataset instead, or pass its module_."
            )


def _has_own_infer(net: Any) -> bool:
    """Return whether a skorch net evaluates its module in a way of its own."""
    # The `infer` of a binary classifier of skorch only removes an axis.
    return isinstance(net, NeuralNet) and not net.infer.__module__.startswith("skorch.")


def _infer(net: Any, module: Any, inputs: Inputs) -> Any:
    """Return the outputs by the `infer` of a skorch net, with a copy of its module."""
    copied = object.__new__(type(net))
    vars(copied).update(vars(net), module_=module, device=list_tensors(inputs)[0].device)
    return copied.infer(inputs)


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
    return RawSamples(X) if list_steps(estimator) else _make_samples(get_innermost(estimator), X)


def _make_samples(net: Any, X: Any, rows: Sequence[int] | None = None) -> Samples:
    """Return the samples of X in the form that a network takes."""
    return Samples(split_columns(net, X), rows, get_batching(net))


def get_batching(net: Any) -> Batching | None:
    """Return how a skorch net reads X and forms batches, or None if it does so like torch."""
    if not isinstance(net, NeuralNet):
        return None
    read = iterate = None
    parameters = net.get_params_for("dataset")
    if type(net).get_dataset is not NeuralNet.get_dataset or not callable(net.dataset):
        read = net.get_dataset
    elif net.dataset is not SkorchDataset or parameters:
        read = functools.partial(_get_dataset, net.dataset, parameters)
    parameters = net.get_params_for("iterator_valid")
    if type(net).get_iterator is not NeuralNet.get_iterator:
        iterate = functools.partial(_get_iterator, net)
    elif net.iterator_valid is not DataLoader or "collate_fn" in parameters:
        # The samples of a batch are chosen, and must keep their order.
        ordering = {"shuffle", "sampler", "batch_sampler", "drop_last"}
        kept = {name: value for name, value in parameters.items() if name not in ordering}
        iterate = functools.partial(net.iterator_valid, **kept)
    return Batching(read, iterate) if read or iterate else None


def _get_dataset(make_dataset: Callable[..., Any], parameters: dict[str, Any], X: Any) -> Any:
    """Return the Dataset of X of a skorch net, which takes a Dataset as it is."""
    return X if isinstance(X, Dataset) else make_dataset(X, **parameters)


def _get_iterator(net: Any, dataset: Any, batch_size: int) -> Any:
    """Return the iterator of a skorch net over a Dataset, in batches of its own size."""
    return net.get_iterator(dataset, training=False)


def split_columns(net: Any, X: Any) -> Any:
    """Return the columns of a table as a dict, if the network takes them as keyword arguments.

    skorch passes a table in this form, with columns of shape (n, 1). The keys of a dict, and the
    columns of a Dataset of Hugging Face, are checked to be arguments.
    """
    if sparse.issparse(X):  # Some sparse arrays are dicts.
        return X.tocsr()
    X = X.to_pandas() if is_arrow(X) else X
    arguments = _list_arguments(net)
    is_initialized = hasattr(net, "module_")
    if is_table(X) and arguments.are_columns(list(X.columns), is_initialized):
        arguments.check(list(X.columns))
        return {column: convert_column(X[[column]], column) for column in X.columns}
    if is_hugging_face_dataset(X) and X.format["type"] != "custom":
        arguments.check(X.column_names)
    first = X[0] if isinstance(X, list) and X else X
    if isinstance(first, Mapping):
        arguments.check(list(first))
    return X


def _list_arguments(net: Any) -> Arguments:
    """Return the arguments that a network takes, or any if a skorch net evaluates it on its own."""
    if isinstance(net, nn.Module):
        return Arguments.of(net)
    if _has_own_infer(net):
        return Arguments([], [], True, True)
    return Arguments.of(getattr(net, "module_", getattr(net, "module", net)))


def is_frozen(estimator: Any) -> bool:
    """Return whether the network is inside a FrozenEstimator, which may end a Pipeline."""
    while isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    return type(estimator).__name__ == "FrozenEstimator"


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
