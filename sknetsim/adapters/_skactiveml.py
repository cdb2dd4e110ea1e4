"""The only room that knows scikit-activeml: a sampler as one of its query strategies."""

from __future__ import annotations

from typing import Any

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.utils import MISSING_LABEL, is_labeled
from sklearn.base import clone, is_classifier

from .._networks.network import FEATURES, is_trained, make_classifier
from ..active.sampler import ActiveLearningSampler


class NetworkQueryStrategy(SingleAnnotatorPoolQueryStrategy):
    """A pool query strategy that asks an `ActiveLearningSampler`.

    Parameters
    ----------
    sampler : ActiveLearningSampler
        Who chooses.
    missing_label : scalar, str or None, default=MISSING_LABEL
        What stands for a missing label in y.
    random_state : int, RandomState or None, default=None
        Seed; None: the sampler's.
    """

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
        X : array-like of shape (n_samples, ...)
            All samples.
        y : array-like of shape (n_samples,)
            Their labels, some of them missing.
        clf : SkorchClassifier, default=None
            Whose network's gradients are compared; None: that of ``reg``, or the sampler's own,
            which is trained on what is labelled if it is not trained.
        fit_clf : bool, default=True
            Whether to train a clone of it first.
        reg : SkorchRegressor, default=None
            As ``clf``, for regression.
        fit_reg : bool, default=True
            Whether to train a clone of it first.
        candidates : array-like of int of shape (n_candidates,) or of samples, default=None
            What to choose from, as positions in X or as samples; None: all without a label.
        batch_size : int, default=1
            How many to choose.
        return_utilities : bool, default=False
            Whether to return what each was chosen by.

        Returns
        -------
        indices : ndarray of shape (batch_size,), int64
            Positions in X, or in candidates that are given as samples.
        utilities : ndarray of shape (batch_size, n_samples) or (batch_size, n_candidates)
            Only with ``return_utilities``, see `ActiveLearningSampler.query`; NaN for samples that
            are no candidates too.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities
        )
        pool, mapping = self._transform_candidates(candidates, X, y)
        model, fitted = (clf, not fit_clf) if reg is None else (reg, not fit_reg)
        sampler = self._sampler(model if fitted or model is None else clone(model).fit(X, y))
        labelled = is_labeled(y, self.missing_label_)
        if not labelled.any():
            raise ValueError(
                "y has no labels; at least one is needed: choose the first samples by"
                " RandomSampling."
            )
        sampler.fit(X[labelled], _labels(y[labelled], sampler.estimator))
        size = len(pool) if mapping is None else len(X)
        mapping = np.arange(size) if mapping is None else mapping
        if not return_utilities:
            return mapping[sampler.query(pool, batch_size)]
        indices, found = sampler.query(pool, batch_size, return_utilities=True)
        utilities = np.full((batch_size, size), np.nan)
        utilities[:, mapping] = found
        return mapping[indices], utilities

    def _sampler(self, model: Any) -> ActiveLearningSampler:
        """A sampler of a trained model's network."""
        own = self.random_state is None
        seed = self.sampler.random_state if own else self.random_state_.randint(2**31)
        sampler: ActiveLearningSampler = clone(self.sampler).set_params(random_state=seed)
        if model is None:
            return sampler
        sampler.set_params(estimator=_network_of(model))
        return sampler


def _network_of(model: Any) -> Any:
    """The skorch net that a model has trained; its own criterion, for theirs is wrapped."""
    if not hasattr(model, "neural_net_"):
        raise TypeError(
            f"clf or reg is a {type(model).__name__} without a trained network; allowed are trained"
            " models of the classes SkorchClassifier and SkorchRegressor: or leave it out, and give"
            " the sampler its estimator."
        )
    net = model.neural_net_
    return make_classifier(net, model.criterion) if is_classifier(model) else net


def _labels(y: np.ndarray, estimator: Any) -> np.ndarray | None:
    """As skorch takes them: numbers of classes, which missing ones have made floating; a column."""
    if is_trained(estimator) or (isinstance(estimator, str) and estimator == FEATURES):
        return None
    if estimator is None:
        return y
    return y.astype(np.int64) if is_classifier(estimator) else y[:, None]
