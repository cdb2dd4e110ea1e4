"""Training inside `fit`: a clone of an untrained network is trained on X and y.

skorch passes X and y as they are, so that float64 fails in a float32 network, and labels of shape
(n,) are broadcast against outputs of shape (n, 1). Hooks cast both while a clone is trained.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from traceback import walk_tb
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from ..exceptions import UntrainedNetworkWarning, describe_value, name_step, warn
from .default_network import make_matrix, train_default_network
from .network import (
    FEATURES,
    check_is_network,
    get_innermost,
    is_frozen,
    is_trained,
    list_steps,
    make_samples,
    takes_one_axis_of_labels,
)
from .samples import Samples
from .samples.arrays import copy_arrays, is_on_disk
from .samples.labels import make_label_tensor

#: Criteria of torch that compare outputs (n, c, ...) with class numbers (n, ...). Cross-entropy
#: also compares them with probabilities of the shape of the outputs.
CLASS_CRITERIA = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)

# Criteria of torch that compare each output with a number. If shapes differ, they broadcast.
_VALUE_CRITERIA = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.MultiLabelSoftMarginLoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)


def fit_network(
    estimator: Any,
    X: Any,
    y: Any,
    random_state: Any,
    input_shape: Sequence[int] | None,
    sample_weight: np.ndarray | None = None,
) -> Any:
    """Return the estimator itself if it is trained, else a trained clone or default network."""
    if isinstance(estimator, str) and estimator == FEATURES:
        return estimator
    check_is_network(estimator)
    if is_trained(estimator):
        warn_if_without_epochs(estimator)
        return estimator
    if input_shape is not None and (estimator is None or estimator is not get_innermost(estimator)):
        raise ValueError(
            "`estimator` must be a trained network or a skorch net if `input_shape` is given; got"
            f" {describe_value(estimator)}, which is not trained, and"
            f" input_shape={tuple(input_shape)}. Train the network first."
        )
    X = np.asarray(X) if is_on_disk(X) else X
    if estimator is None:
        return train_default_network(make_matrix(X), y, random_state, sample_weight)
    net = get_innermost(estimator)
    if is_frozen(estimator):
        raise NotFittedError(
            f"`estimator` must be a trained network; got a FrozenEstimator of a"
            f" {type(net).__name__}, which is not trained. Call its fit first, or pass it without"
            " FrozenEstimator, and y."
        )
    if y is None:
        raise ValueError(
            f"`y` must be given if `estimator` is an untrained {type(net).__name__}; got None. Pass"
            " y to train it, or a trained net; pass FrozenEstimator(net) to a search, which clones."
        )
    if sample_weight is not None:
        raise ValueError(
            f"`sample_weight` must be None if `estimator` is an untrained {type(net).__name__},"
            " which is trained without weights; got weights. Train the network first."
        )
    X = X if input_shape is None else Samples(X).reshape(input_shape).data
    return train_clone(estimator, X, y)


def warn_if_without_epochs(estimator: Any) -> None:
    """Warn of an initialised skorch net whose history is empty, except in a FrozenEstimator."""
    net = get_innermost(estimator)
    history = getattr(net, "history", None)
    if is_frozen(estimator) or isinstance(net, nn.Module) or history is None or len(history):
        return
    if not getattr(net, "_trimmed_for_prediction", False):  # This clears the history of a net.
        name = type(net).__name__
        warn(
            f"The {name} in `estimator` is initialised, but its history contains no epoch. `fit`"
            " does not train it, so that the similarities are those of its present weights. If"
            f" they are not trained, call fit of the {name} first, or pass it without calling"
            " initialize, and y. If they are loaded or pretrained, pass FrozenEstimator(net).",
            UntrainedNetworkWarning,
        )


def train_clone(estimator: Any, X: Any, y: Any) -> Any:
    """Return a clone of a skorch net, or of a Pipeline that ends in one, trained on (X, y).

    Inputs and labels are cast to what the module and the criterion take, and X is not changed.
    """
    X = make_samples(estimator, X).get_skorch_data()
    labels = make_label_tensor(y)
    trained = clone(estimator)
    net = get_innermost(trained)
    if takes_one_axis_of_labels(net) and labels.shape[1:] == (1,):
        labels = labels[:, 0]
    # Steps of a Pipeline may change X in place, and torch warns of arrays that are read-only.
    is_writeable = not isinstance(X, np.ndarray) or X.flags.writeable
    X = copy_arrays(X) if isinstance(trained, Pipeline) or not is_writeable else X
    with _align_training(net), _name_steps(trained):
        trained.fit(X, labels if isinstance(y, Tensor) else labels.numpy())
    return trained


@contextlib.contextmanager
def _name_steps(estimator: Any) -> Iterator[None]:
    """Name the step before the network, if one raises an error of bad input inside the block."""
    try:
        yield
    except Exception as error:
        callers = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
        for name, step in list_steps(estimator):
            if any(caller is step for caller in callers):
                with name_step(name, step):
                    raise
        raise


@contextlib.contextmanager
def _align_training(net: Any) -> Iterator[None]:
    """Cast inputs and labels, inside the block, in each training loop of a skorch net.

    Hooks are registered only when the loop starts, because the `fit` of a net creates its module
    and criterion, and callbacks may replace them before the loop.
    """
    attributes = vars(net)

    def fit_loop(X: Any, *args: Any, **kwargs: Any) -> Any:
        # skorch passes the columns of a table as keyword arguments, unlike evaluations.
        X = X.to_numpy() if hasattr(X, "to_numpy") else X
        # Pickles that are made during the training (checkpoints) cannot contain this function.
        del attributes["fit_loop"]
        try:
            with cast_inputs(net), _align_labels(net):
                return net.fit_loop(X, *args, **kwargs)
        finally:
            attributes["fit_loop"] = fit_loop

    attributes["fit_loop"] = fit_loop
    try:
        yield
    finally:
        del attributes["fit_loop"]


@contextlib.contextmanager
def cast_inputs(net: Any) -> Iterator[None]:
    """Cast the inputs of an initialised skorch net to the dtype of its module inside the block."""
    hook = net.module_.register_forward_pre_hook(InputCast(), prepend=True, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _align_labels(net: Any) -> Iterator[None]:
    """Align the labels that the criterion of a net gets, inside the block.

    The net's own `get_loss`, which may change outputs and labels, is called before.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(net.criterion_, nn.Module):
            stack.callback(net.criterion_.register_forward_pre_hook(align_with_outputs).remove)
        yield


class InputCast:
    """Forward pre-hook that casts the inputs of a module to its dtype, as evaluations do.

    Integers are cast only if the module fails on integers, and does not fail on their cast.
    """

    def __init__(self) -> None:
        self._casts_integers: bool | None = None

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        floating = (p.dtype for p in module.parameters() if p.is_floating_point())
        dtype = next(floating, torch.get_default_dtype())
        inputs = args, kwargs
        kept = _map(lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)
        tensors: list[Tensor] = []
        _map(tensors.append, inputs)
        if all(tensor.is_floating_point() for tensor in tensors):
            return kept
        cast = _map(lambda t: t.to(dtype), inputs)
        if self._casts_integers is None:
            self._casts_integers = not _runs(module, *kept) and _runs(module, *cast)
        return cast if self._casts_integers else kept


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to the tensors in tuples, lists and dicts; keep other values."""
    if isinstance(value, Tensor):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(_map(function, part) for part in value)
    if type(value) is dict:
        return {key: _map(function, part) for key, part in value.items()}
    return value


def _runs(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Return whether a copy of the module accepts the inputs."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        copy.deepcopy(module).eval().forward(*args, **kwargs)
        return True
    return False


def align_with_outputs(criterion: nn.Module, args: Any) -> Any:
    """Return the outputs, and the labels in the shape and dtype that a criterion of torch takes.

    Labels of other criteria keep their shape; if they are floating-point numbers, they get the
    dtype of the outputs.
    """
    if len(args) != 2 or not all(isinstance(arg, Tensor) and arg.ndim for arg in args):
        return None
    outputs, y = args
    if _is_one_of(criterion, CLASS_CRITERIA):
        return outputs, align_classes(outputs, y, criterion)
    if _is_one_of(criterion, _VALUE_CRITERIA):
        return outputs, reshape_labels(y, outputs.shape, criterion).to(outputs.dtype)
    is_floating = y.is_floating_point() and outputs.is_floating_point()
    return outputs, y.to(outputs.dtype) if is_floating else y


def _is_one_of(criterion: nn.Module, classes: Sequence[type[nn.Module]]) -> bool:
    """Return whether a criterion has the forward pass of a class, which subclasses may replace."""
    original: Any = getattr(criterion, "_orig_mod", criterion)  # torch.compile wraps a criterion.
    return any(type(original).forward is one.forward for one in classes)


def align_classes(outputs: Tensor, y: Tensor, criterion: nn.Module) -> Tensor:
    """Return class numbers as int64 without the axis of the classes; keep probabilities."""
    takes_probabilities = _is_one_of(criterion, [nn.CrossEntropyLoss])
    if takes_probabilities and y.is_floating_point() and y.shape == outputs.shape:
        return y.to(outputs.dtype)
    if y.is_floating_point() and bool((y != y.round()).any()):
        others = ", or a probability for each class," if takes_probabilities else ""
        raise ValueError(
            f"`y` must contain class numbers{others} if the criterion of `estimator` is"
            f" {_name(criterion)}; got {float(y[y != y.round()][0])}. Number the classes from 0, or"
            " use a criterion of a regression."
        )
    return reshape_labels(y, (*outputs.shape[:1], *outputs.shape[2:]), criterion).long()


def reshape_labels(y: Tensor, shape: Sequence[int], criterion: nn.Module) -> Tensor:
    """Return labels in a shape that differs only by axes of length 1; else raise an error."""
    if _list_long_axes(y.shape) != _list_long_axes(shape):
        raise ValueError(
            f"`y` must have labels of shape {tuple(shape[1:])}, because the criterion of"
            f" `estimator`, {_name(criterion)}, compares them with its outputs; got labels of shape"
            f" {tuple(y.shape[1:])}. Pass labels of that shape, or change the number of outputs."
        )
    return y.reshape(tuple(shape))


def _list_long_axes(shape: Sequence[int]) -> list[int]:
    """Return the number of samples, and the lengths of the other axes except 1."""
    return [shape[0], *(length for length in shape[1:] if length != 1)]


def _name(criterion: nn.Module) -> str:
    return type(getattr(criterion, "_orig_mod", criterion)).__name__
