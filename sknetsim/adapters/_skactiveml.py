"""Query strategy of scikit-activeml; no other module imports that package."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.utils import MISSING_LABEL, is_labeled
from sklearn.base import clone, is_classifier

from .._networks.network import FEATURES, is_trained, make_classifier
from .._networks.samples import RawSamples
from ..active.sampler import ActiveLearningSampler


class NetworkQueryStrategy(SingleAnnotatorPoolQueryStrategy):
    """Pool query strategy that queries an `ActiveLearningSampler`.

    Parameters
    ----------
    sampler : ActiveLearningSampler
        The sampler; it is cloned in each query and never changed.
    missing_label : scalar, str or None, default=MISSING_LABEL
        Value of y that means a missing label.
    random_state : int, RandomState or None, default=None
        Seed. None: that of the sampler.
    """

    #: Number of features of X; None if X was not one array or table.
    n_features_in_: int | None

    def __init__(
        self,
        sampler: ActiveLearningSampler,
        missing_label: Any = MISSING_LABEL,
        random_state: Any = None,
    ):
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.sampler = sampler

    def query(
        self,
        X: Any,
        y: Any,
        clf: Any = None,
        fit_clf: bool = True,
        reg: Any = None,
        fit_reg: bool = True,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Choose the samples that should be labelled next.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), table, list of texts or images, dict or Dataset
            All samples. With ``clf`` or ``reg``, an array that these take; without them, samples in
            any form that the network of the sampler takes.
        y : array-like of shape (n_samples,)
            Their labels, some of them missing.
        clf : SkorchClassifier, default=None
            Classifier whose network's gradients are compared. None: the network of ``reg``, or that
            of the sampler, which is trained on the labelled samples if it is untrained.
        fit_clf : bool, default=True
            Whether to train a clone of ``clf`` first.
        reg : SkorchRegressor, default=None
            Regressor whose network's gradients are compared; it is used instead of ``clf``.
        fit_reg : bool, default=True
            Whether to train a clone of ``reg`` first.
        candidates : array-like of int of shape (n_candidates,) or of samples, default=None
            Samples to choose from, as positions in X or as samples in any form that X may have.
            None: all unlabelled samples.
        batch_size : int, default=1
            Number of samples to choose.
        return_utilities : bool, default=False
            Whether to return the utilities too.

        Returns
        -------
        indices : ndarray of shape (batch_size,), int64
            Positions in X, or in ``candidates`` if these are samples.
        utilities : ndarray of shape (batch_size, n_samples) or (batch_size, n_candidates)
            Utilities, see `ActiveLearningSampler.query`; NaN also for samples that are not
            candidates. Only with ``return_utilities``.

        Raises
        ------
        TypeError
            If the model has no trained network.
        ValueError
            If no sample is labelled.
        """
        model, is_fitted = (clf, not fit_clf) if reg is None else (reg, not fit_reg)
        given = X, candidates
        if model is None:
            # The sampler validates the samples, in the form that its network takes. scikit-activeml
            # gets their positions instead.
            X, candidates = _make_positions(X), _replace_samples(candidates)
        # The network of the sampler decides on NaN.
        settings = {"allow_nd": True, "ensure_all_finite": False}
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, check_X_dict=settings
        )
        pool, mapping = self._transform_candidates(candidates, X, y)
        is_labelled = is_labeled(y, self.missing_label_)
        if not is_labelled.any():
            raise ValueError(
                "`y` must have at least one label; got only missing ones. Use RandomSampling for"
                " the first samples."
            )
        if model is None:
            X, samples = given
            pool = samples if mapping is None else _select(X, mapping)
        elif not is_fitted:
            model = clone(model).fit(X, y)
        sampler = self._make_sampler(model)
        labels = _convert_labels(y[is_labelled], sampler.estimator)
        sampler.fit(_select(X, np.flatnonzero(is_labelled)), labels)
        self.n_features_in_ = getattr(sampler, "n_features_in_", None)
        # `mapping` gives the position in X of each pool sample. None: candidates are samples.
        size = len(RawSamples(pool)) if mapping is None else len(y)
        mapping = np.arange(size) if mapping is None else mapping
        if not return_utilities:
            return mapping[sampler.query(pool, batch_size)]
        indices, pool_utilities = sampler.query(pool, batch_size, return_utilities=True)
        utilities = np.full((batch_size, size), np.nan)
        utilities[:, mapping] = pool_utilities
        return mapping[indices], utilities

    def _make_sampler(self, model: Any) -> ActiveLearningSampler:
        """Return a clone of the sampler, with the network of a trained model if there is one."""
        has_no_seed = self.random_state is None
        seed = self.sampler.random_state if has_no_seed else self.random_state_.randint(2**31)
        sampler: ActiveLearningSampler = clone(self.sampler).set_params(random_state=seed)
        if model is not None:
            sampler.set_params(estimator=_extract_net(model))
        return sampler


def _make_positions(X: Any) -> np.ndarray:
    """Return the positions of the samples of X as a column."""
    return np.arange(len(RawSamples(X)))[:, None]


def _replace_samples(candidates: Any) -> Any:
    """Return positions in place of candidates that are samples; indices are returned unchanged."""
    is_unchanged = candidates is None or _are_indices(candidates)
    return candidates if is_unchanged else _make_positions(candidates)


def _are_indices(candidates: Any) -> bool:
    """Return whether candidates are integers in one axis, and not samples."""
    if isinstance(candidates, list | tuple | range):
        return all(isinstance(index, numbers.Integral) for index in candidates)
    kind = getattr(getattr(candidates, "dtype", None), "kind", "O")
    return getattr(candidates, "ndim", 0) == 1 and kind in "iu"


def _select(X: Any, indices: np.ndarray) -> Any:
    """Return the samples at some indices, in the form of X."""
    return RawSamples(X).select(indices.tolist()).data


def _extract_net(model: Any) -> Any:
    """Return the skorch net that a model has trained, with the model's own criterion.

    scikit-activeml wraps the criterion of a classifier.
    """
    if not hasattr(model, "neural_net_"):
        raise TypeError(
            "`clf` or `reg` must be a trained SkorchClassifier or SkorchRegressor; got a"
            f" {type(model).__name__} without a trained network. Train it, or leave it out and set"
            " the sampler's `estimator`."
        )
    net = model.neural_net_
    return make_classifier(net, model.criterion) if is_classifier(model) else net


def _convert_labels(y: np.ndarray, estimator: Any) -> np.ndarray | None:
    """Return labels in the form that training takes, or None if the network is not to be trained.

    Classes become integers again, because missing labels have made them floating-point numbers.
    Labels of a regression become a column.
    """
    if is_trained(estimator) or (isinstance(estimator, str) and estimator == FEATURES):
        return None
    if estimator is None:
        return y
    return y.astype(np.int64) if is_classifier(estimator) else y[:, None]
