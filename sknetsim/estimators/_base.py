"""Base classes of the estimators: common parameters, validation, and the trained network."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Set
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import Tags, check_consistent_length, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._features.source import FeatureSource
from .._gradients.engine import GradientEngine
from .._networks.fingerprint import fingerprint_value
from .._networks.fitting import fit_network
from .._networks.isolation import has_device
from .._networks.network import (
    FEATURES,
    Network,
    is_trained,
    resolve_network,
)
from .._networks.persistence import describe_origin, pack, unpack, warn_if_different
from .._networks.samples import Samples
from .._networks.samples.labels import drop_unweighted, label_samples
from .._passes.chunks import Source, iterate_chunks
from ._changes import FittedNetwork, refuse_changes
from ._validation import check_samples

__all__ = [
    "BaseSimilarity",
    "HasMethods",
    "Interval",
    "LabelledTransformerMixin",
    "StrOptions",
    "check_is_fitted",
    "fit_context",
]


def fit_context(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `fit` method that validates parameters first, and refuses a changing network."""
    # scikit-learn has no public name for its parameter validation, so only this module imports it.
    return refuse_changes(_fit_context(prefer_skip_nested_validation=True)(fit))


class BaseSimilarity(BaseEstimator):
    """Base class of all estimators: the common parameters, and one trained network.

    `clone` and `copy` share the trained network with the original; `deepcopy` and `pickle` copy it.
    Subclasses declare the constraints of their own parameters, and call `_fit_network` in `fit`.
    """

    #: Attributes that are left out of a pickle.
    _transient: ClassVar[tuple[str, ...]] = ()

    #: Whether losses are compared at the labels that `fit` and the queries get, if they get any.
    _uses_labels: ClassVar[bool] = True

    #: Shape of a fitted sample; None if X was not one array.
    _sample_shape: tuple[int, ...] | None

    #: Weights of the fitted samples; None if all are 1.
    _sample_weight: np.ndarray | None = None

    #: Texts of the warnings of the steps before the network in `fit`, which queries do not repeat.
    _shown_in_fit: Set[str] = frozenset()

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": "no_validation",
        "output": "no_validation",
        "parameters": "no_validation",
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "device": "no_validation",
        "input_shape": [tuple, list, None],
        "n_jobs": [numbers.Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, without those of a trained network.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of an untrained network, as
            ``estimator__<parameter>``.

        Returns
        -------
        params : dict
            Parameter names mapped to their values.
        """
        return super().get_params(deep=deep and not is_trained(self.estimator))

    def set_params(self, **params: Any) -> BaseSimilarity:
        """Set parameters of this estimator, or of its untrained network.

        Parameters
        ----------
        **params : dict
            Parameter names mapped to their values.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If a parameter of a trained network is set, because that would reset its weights.
        """
        nested = sorted(name for name in params if name.startswith("estimator__"))
        if nested and is_trained(params.get("estimator", self.estimator)):
            raise ValueError(
                f"`{nested[0]}` must belong to an untrained network, because setting it resets the"
                f" weights; got a trained network. Set parameters of {type(self).__name__} itself,"
                " search over `estimator` with a list of FrozenEstimator(net), or pass an"
                " untrained net."
            )
        super().set_params(**params)
        return self

    def __sklearn_clone__(self) -> BaseSimilarity:
        # scikit-learn would copy modules and trained nets: both are shared with the clone instead.
        params = self.get_params(deep=False).items()
        shared = {name: value for name, value in params if isinstance(value, torch.nn.Module)}
        if is_trained(self.estimator):
            shared["estimator"] = self.estimator
        without_networks = copy.copy(self)
        for name in shared:
            setattr(without_networks, name, None)
        cloned: BaseSimilarity = super(BaseSimilarity, without_networks).__sklearn_clone__()
        for name, value in shared.items():
            setattr(cloned, name, value)
        return cloned

    def __copy__(self) -> BaseSimilarity:
        """Return a copy that shares all attributes; `__getstate__` would copy the network."""
        shallow = type(self).__new__(type(self))
        shallow.__dict__.update(self.__dict__)
        return shallow

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseSimilarity:
        """Return a deep copy that respects ``memo``; `__getstate__` would ignore it.

        An object that this estimator shares with other copied objects is thus copied only once.
        """
        deep = copy.copy(self)
        memo[id(self)] = deep
        for name, value in vars(self).items():
            setattr(deep, name, copy.deepcopy(value, memo))
        return deep

    def __getstate__(self) -> dict[str, Any]:
        """Return the arrays, all other attributes as bytes, and the digests of both.

        The bytes contain networks by value, and load on a machine with other devices.
        """
        state = {
            name: value
            for name, value in super().__getstate__().items()
            if name not in self._transient
        }
        return pack(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = unpack(state, type(self).__name__)
        # On a machine without this device, compute on the device of the network.
        if attributes["device"] is not None and not has_device(attributes["device"]):
            attributes["device"] = None
        super().__setstate__(attributes)
        if hasattr(self, "made_with_"):
            now = describe_origin(self.estimator_)
            warn_if_different(type(self).__name__, self.made_with_, now)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # A given network decides on NaN, because it may impute it; the default network cannot.
        tags.input_tags.allow_nan = not isinstance(self.estimator, str | None)
        tags.input_tags.sparse = True
        return tags

    def _check_X(self, X: Any, y: Any = None, *, reset: bool) -> Samples:
        """Return the samples of X after validation; on reset, store the shape of a sample.

        The labels y of queries are those at which their losses are compared.
        """
        estimator = self.estimator if reset else self._get_estimator()
        return self._label_queries(check_samples(self, estimator, X, reset), y)

    def _label_queries(self, samples: Samples, y: Any, parameter: str = "y") -> Samples:
        """Return the samples with the labels y, or raise an error if these have no effect."""
        if y is None:
            return samples
        if not self._takes_labels():
            output = f"output={self.output!r}" if hasattr(self, "output") else type(self).__name__
            is_network = not isinstance(self._get_estimator(), str)
            raise ValueError(
                f"`{parameter}` must be None unless losses of a network are compared, because"
                f" nothing else depends on labels; got labels for"
                f" {output if is_network else f'estimator={FEATURES!r}'}. Leave out"
                f" `{parameter}`, or set output='loss' for a skorch net."
            )
        return label_samples(samples, y, parameter)

    def _takes_labels(self) -> bool:
        """Return whether the compared gradients depend on labels."""
        output = getattr(self, "output", None)
        is_loss = isinstance(output, str) and output == "loss"
        return self._uses_labels and is_loss and not isinstance(self._get_estimator(), str)

    def _fit_network(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[Samples, Source]:
        """Set ``estimator_``, and return the validated samples and the source of their Jacobians.

        Weights are stored in ``_sample_weight``, and samples of weight 0 are dropped. The network
        is tried on the first sample, and on the first one with NaN or infinity, so that `fit`
        raises an error if a network or parameter is unsuitable.
        """
        if y is None and get_tags(self).target_tags.required:
            # scikit-learn's checks look for the first sentence.
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None. Pass the"
                " labels that the network was trained on."
            )
        samples = self._check_X(X, reset=True)
        if y is not None:
            check_consistent_length(np.empty(len(samples)), y)
        samples, y, self._sample_weight = drop_unweighted(samples, y, sample_weight)
        self.estimator_ = fit_network(
            self.estimator,
            samples.data,
            y,
            self.random_state,
            self.input_shape,
            self._sample_weight,
        )
        source = self._make_source()
        source.check_samples_independent(samples)
        self._fitted_network = FittedNetwork.of(self, source)
        self.made_with_ = describe_origin(self.estimator_)
        if y is not None and self._takes_labels():
            samples = label_samples(samples, y)
        # The first sample with NaN, too: only some networks take NaN.
        for index in sorted({0, samples.find_non_finite() or 0}):
            self._try_network(source, samples.select([index]))
        return samples, source

    def _try_network(self, source: Source, X: Samples) -> None:
        """Compute the Jacobians of a few samples, so that `fit` raises errors of the network."""
        for _ in iterate_chunks(source, X, counted=False):
            pass

    def _make_source(self) -> Source:
        """Return a new source of Jacobians, after validation of the parameters."""
        check_is_fitted(self, "estimator_")
        self._validate_params()
        return self._make_source_for(self.estimator_)

    def _check_unchanged(self, source: Source) -> None:
        """Raise an error if the network, or what is compared of it, has changed since `fit`."""
        if self._fitted_network is not None:
            self._fitted_network.check(self, source)

    def _get_estimator(self) -> Any:
        """Return the trained network, or "features"."""
        return self.estimator_

    def _fingerprint(self) -> str:
        """Return a fingerprint of the parameters and of the network in its current state."""
        return fingerprint_value((self._get_settings(), self._identify_network()))

    def _identify_network(self) -> Any:
        """Return "features", or the network and which of its parameters are trainable."""
        network = self._resolve_network()
        if isinstance(network, str):
            return network
        return network, [parameter.requires_grad for parameter in network.module.parameters()]

    def _get_settings(self) -> dict[str, Any]:
        """Return all parameters except the network."""
        params = self.get_params(deep=False).items()
        return {name: value for name, value in params if name != "estimator"}

    def _resolve_network(self) -> Network | str:
        """Return the network inside the trained estimator, or "features"."""
        estimator = self._get_estimator()
        return estimator if isinstance(estimator, str) else resolve_network(estimator)

    def _make_source_for(self, estimator: Any) -> Source:
        """Return the source of Jacobians of a trained network, or of "features"."""
        source = self._make_engine(estimator)
        source.n_jobs = self.n_jobs
        return source

    def _make_engine(self, estimator: Any) -> Source:
        """Return the engine of a network, or for "features" the source of the rows of X."""
        if isinstance(estimator, str) and estimator == FEATURES:
            return FeatureSource()
        network = resolve_network(estimator).with_input_shape(self.input_shape)
        output = self._choose_output()
        return GradientEngine(network, output, self.parameters, self.batch_size, self.device)

    def _choose_output(self) -> Any:
        """Return the ``output`` whose gradients are compared."""
        return self.output


class LabelledTransformerMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Mixin of transformers that compare losses at given labels."""

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, and transform the same samples, with ``output="loss"`` at the same labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their labels, see `fit`.

        Returns
        -------
        transformed : ndarray or csr_matrix with n_samples rows
            The result of `transform`.
        """
        self.fit(X, y)
        return self.transform(X, y if self._takes_labels() else None)
