"""The estimators' common parent: parameters, validation, and the trained network that is kept."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import Tags, check_consistent_length, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.utils.data import DataLoader, Dataset

from .._features.nystroem import fit_nystroem
from .._features.projection import compute_features
from .._features.rows import FeatureRows
from .._gradients.engine import GradientEngine
from .._networks.fingerprint import fingerprint_value
from .._networks.isolation import has_device
from .._networks.network import FEATURES, Network, fit_network, is_trained, resolve_network
from .._networks.persistence import describe_origin, dumps, loads, warn_if_different
from .._networks.samples import Samples, is_on_disk, select_labels
from .._passes.chunks import Source

__all__ = [
    "BaseLabelledReference",
    "BaseReference",
    "BaseSimilarity",
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_is_fitted",
    "fit_context",
]

# scikit-learn's own parameter validation has no public name yet; it is imported here alone.
fit_context = _fit_context(prefer_skip_nested_validation=True)

_PACKED = "_packed"


class BaseSimilarity(BaseEstimator):
    """Common parameters, and a trained network that is kept through `clone`.

    Subclasses give their parameters' constraints, and call `_fit_network` in `fit`.
    """

    #: What no pickle takes along.
    _transient: ClassVar[tuple[str, ...]] = ()

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
        """Get the parameters; those of a trained network are not listed, since it is kept.

        Parameters
        ----------
        deep : bool, default=True
            Whether to list the parameters of an untrained estimator too.

        Returns
        -------
        params : dict
            Parameter names mapped to their values.
        """
        return super().get_params(deep=deep and not is_trained(self.estimator))

    def set_params(self, **params: Any) -> BaseSimilarity:
        """Set parameters; those of a trained network are refused, since setting them resets it.

        Parameters
        ----------
        **params : dict
            Parameter names mapped to their values.

        Returns
        -------
        self : object
            The estimator.
        """
        nested = sorted(name for name in params if name.startswith("estimator__"))
        if nested and is_trained(params.get("estimator", self.estimator)):
            raise ValueError(
                f"{nested[0]!r} would reset the trained network in place; allowed are parameters of"
                f" {type(self).__name__} itself: search over `estimator` with a list of"
                " FrozenEstimator(net), or pass an untrained net."
            )
        super().set_params(**params)
        return self

    def __sklearn_clone__(self) -> BaseSimilarity:
        params = self.get_params(deep=False).items()
        kept = {name: value for name, value in params if isinstance(value, torch.nn.Module)}
        if is_trained(self.estimator):
            kept["estimator"] = self.estimator
        twin = copy.copy(self)
        for name in kept:
            setattr(twin, name, None)
        cloned: BaseSimilarity = super(BaseSimilarity, twin).__sklearn_clone__()
        for name, value in kept.items():
            setattr(cloned, name, value)
        return cloned

    def __copy__(self) -> BaseSimilarity:
        """The same objects: a pickle would copy the network."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseSimilarity:
        """Shared objects stay shared: a pickle would not know what is copied around this."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        for name, value in vars(self).items():
            setattr(twin, name, copy.deepcopy(value, memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Arrays, and the rest as bytes: networks by value, and for any device."""
        state = {
            name: value
            for name, value in super().__getstate__().items()
            if name not in self._transient
        }
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        rest = {name: value for name, value in state.items() if name not in arrays}
        return {_PACKED: dumps(rest), **arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: value for name, value in state.items() if name != _PACKED}
        attributes = {**loads(state[_PACKED]), **arrays}
        if attributes["device"] is not None and not has_device(attributes["device"]):
            attributes["device"] = None
        super().__setstate__(attributes)
        if hasattr(self, "made_with_"):
            now = describe_origin(self.estimator_)
            warn_if_different(type(self).__name__, self.made_with_, now)

    def _check_X(self, X: Any, *, reset: bool) -> Samples:
        """Return the samples of X after validation; on reset, store the shape of a sample."""
        if isinstance(X, Mapping | tuple | Dataset | DataLoader) and not issparse(X):
            samples = Samples(X)
            samples.check_finite()
            if reset:
                self._row_shape = None
            return samples
        if isinstance(X, torch.Tensor) or is_on_disk(X):
            samples = Samples(X)
            samples.check_finite()
        else:
            X = validate_data(self, X, reset=reset, dtype="numeric", allow_nd=True)
            samples = Samples(X)
        if reset:
            self.n_features_in_ = X.shape[1] if X.ndim > 1 else 1
            self._row_shape = tuple(X.shape[1:])
        elif self._row_shape not in (None, tuple(X.shape[1:])):
            raise ValueError(
                f"X has rows of shape {tuple(X.shape[1:])}; {type(self).__name__} was fitted on"
                f" rows of shape {self._row_shape}."
            )
        return samples

    def _fit_network(self, X: Any, y: Any) -> tuple[Samples, Source]:
        """Set ``estimator_``; validated X and where its Jacobians come from, tried on a row."""
        if y is None and get_tags(self).target_tags.required:
            raise ValueError(
                "The estimator requires y to be passed, but the target y is None: hand over the"
                " labels that the network was trained on."
            )
        samples = self._check_X(X, reset=True)
        if y is not None:
            check_consistent_length(np.empty(len(samples)), y)
        self.estimator_ = fit_network(
            self.estimator, samples.data, y, self.random_state, self.input_shape
        )
        self.made_with_ = describe_origin(self.estimator_)
        source = self._make_source()
        self._try_network(source, samples.select([0]), select_labels(self._choose_labels(y), [0]))
        return samples, source

    def _try_network(self, source: Source, X: Samples, y: Any) -> None:
        """Ask for what will be needed, of one row: a network that is unfit fails in `fit`."""
        next(source.jacobians(X, y))

    def _make_source(self) -> Source:
        """Where the Jacobians come from."""
        check_is_fitted(self, "estimator_")
        self._validate_params()
        return self._make_source_for(self.estimator_)

    def _get_estimator(self) -> Any:
        """The trained network, or the word for none."""
        return self.estimator_

    def _fingerprint(self) -> str:
        """A fingerprint of the parameters, and of the network as it is now."""
        return fingerprint_value((self._get_settings(), self._resolve_network()))

    def _get_settings(self) -> dict[str, Any]:
        """All parameters but the network."""
        params = self.get_params(deep=False).items()
        return {name: value for name, value in params if name != "estimator"}

    def _resolve_network(self) -> Network | str:
        """The trained network without what is around it, or the word for none."""
        network = self._get_estimator()
        return network if isinstance(network, str) else resolve_network(network)

    def _make_source_for(self, estimator: Any) -> Source:
        source = self._make_engine(estimator)
        source.n_jobs = self.n_jobs
        return source

    def _make_engine(self, estimator: Any) -> Source:
        if isinstance(estimator, str) and estimator == FEATURES:
            return FeatureRows()
        network = resolve_network(estimator).with_input_shape(self.input_shape)
        output = self._choose_output()
        return GradientEngine(network, output, self.parameters, self.batch_size, self.device)

    def _choose_output(self) -> Any:
        """The outputs whose gradients are compared."""
        return self.output

    def _choose_labels(self, y: Any) -> Any:
        """Labels that the outputs are compared at; None: the predicted ones."""
        return None


class BaseReference(BaseSimilarity):
    """What compares queries with fitted rows, exactly or by features from landmarks among them."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "n_components": [Interval(numbers.Integral, 1, None, closed="left"), None],
    }

    def _fit_projection(self, source: Source, X: Samples) -> None:
        """Draw landmarks where features are asked for."""
        self._projection = None
        self.kernel_error_ = 0.0
        if self.n_components is not None:
            generator = check_random_state(self.random_state)
            self._projection = fit_nystroem(source, X, None, self.n_components, 0.0, generator)
            self.kernel_error_ = self._projection.kernel_error

    def _project(self, source: Source, X: Samples) -> tuple[Source, Samples]:
        """The rows, or their features, and where their Jacobians come from."""
        if self._projection is None:
            return source, X
        features = compute_features(self._projection, source, X, verbose=self.verbose)
        return FeatureRows(source.dtype, source.n_jobs), Samples(features)

    def _make_fitted_source(self, source: Source) -> Source:
        """Where the Jacobians of the fitted rows come from, which may be features by now."""
        return source if self._projection is None else FeatureRows(source.dtype, source.n_jobs)


class BaseLabelledReference(BaseReference):
    """What looks at the fitted rows' labels, also where the network is trained already."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
