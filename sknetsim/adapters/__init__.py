"""Adapters of the sampler for other packages of active learning."""

from __future__ import annotations

from typing import Any

from ..active.sampler import ActiveLearningSampler

__all__ = ["to_skactiveml"]


def to_skactiveml(sampler: ActiveLearningSampler, **parameters: Any) -> Any:
    """Return a pool query strategy of scikit-activeml that queries a sampler.

    Parameters
    ----------
    sampler : ActiveLearningSampler
        The sampler. Its network is replaced by that of the ``clf`` or ``reg`` passed to `query` (a
        ``SkorchClassifier`` or ``SkorchRegressor``). Without these, its own network is used.
    **parameters : dict
        ``missing_label`` (NaN by default) and ``random_state``, as for all query strategies of
        scikit-activeml.

    Returns
    -------
    strategy : SingleAnnotatorPoolQueryStrategy
        A strategy with ``query(X, y, clf=None, fit_clf=True, reg=None, fit_reg=True,
        candidates=None, batch_size=1, return_utilities=False)``.

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
