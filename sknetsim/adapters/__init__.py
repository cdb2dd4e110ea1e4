"""Adapters of the sampler for other packages of active learning."""

from __future__ import annotations

from typing import Any

from ..active.sampler import ActiveLearningSampler

__all__ = ["to_skactiveml"]


def to_skactiveml(sampler: ActiveLearningSampler, **parameters: Any) -> Any:
    """Make a sampler a pool query strategy of scikit-activeml.

    Parameters
    ----------
    sampler : ActiveLearningSampler
        Who chooses. Its network is taken from the ``clf`` or ``reg`` that `query` gets (a
        ``SkorchClassifier`` or ``SkorchRegressor``); without one it is the sampler's own.
    **parameters : dict
        ``missing_label`` (NaN by default) and ``random_state``, as of any of its strategies.

    Returns
    -------
    strategy : SingleAnnotatorPoolQueryStrategy
        With ``query(X, y, clf=None, fit_clf=True, reg=None, fit_reg=True, candidates=None,
        batch_size=1, return_utilities=False)``.

    Raises
    ------
    ImportError
        If scikit-activeml is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import ActiveLearningSampler
    >>> from sknetsim.adapters import to_skactiveml
    >>> X = np.linspace(-1, 1, 30)[:, None]
    >>> y = np.where(np.arange(30) % 10 == 0, np.sin(X[:, 0]), np.nan)
    >>> strategy = to_skactiveml(ActiveLearningSampler(strategy="lcmd", random_state=0))
    >>> strategy.query(X, y, batch_size=3).shape
    (3,)
    """
    from ._skactiveml import NetworkQueryStrategy

    return NetworkQueryStrategy(sampler, **parameters)
