"""Learning curves of active learning: a loop of training, querying and labelling."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.utils import check_consistent_length, check_scalar

from .._networks.network import is_trained
from .._networks.samples import Samples
from ._loop import Loop, count_test_samples


@dataclass(frozen=True, eq=False)
class ActiveLearningCurve:
    """Scores of a network after each round of active learning.

    Parameters
    ----------
    n_labelled : ndarray of shape (n_rounds + 1,), int64
        Numbers of labelled samples, the initial ones first.
    scores : ndarray of shape (n_seeds, n_rounds + 1), float64
        Scores on the test samples, in the unit of ``scoring``; greater is better.
    query_times : ndarray of shape (n_seeds, n_rounds), float64
        What the sampler's `fit` and `query` took, in seconds.
    indices : ndarray of shape (n_seeds, n_labelled[-1]), int64
        Positions in X of the labelled samples, in the order of labelling.
    seeds : tuple of int
        The seeds.

    See Also
    --------
    sknetsim.displays.LearningCurveDisplay : Draws curves of several samplers.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import ActiveLearningCurve
    >>> scores = {"first": [[0.5, 0.8], [0.5, 0.9]], "second": [[0.5, 0.7], [0.5, 0.7]]}
    >>> first, second = (
    ...     ActiveLearningCurve(
    ...         n_labelled=np.array([10, 20]),
    ...         scores=np.array(values),
    ...         query_times=np.zeros((2, 1)),
    ...         indices=np.zeros((2, 20), dtype=int),
    ...         seeds=(0, 1),
    ...     )
    ...     for values in scores.values()
    ... )
    >>> first.area()
    array([0.8, 0.9])
    >>> mean, half_width = first.difference(second)
    >>> round(mean, 3)
    0.15
    """

    n_labelled: np.ndarray
    scores: np.ndarray
    query_times: np.ndarray
    indices: np.ndarray
    seeds: tuple[int, ...]

    def area(self) -> np.ndarray:
        """Mean score over the rounds, without the initial one.

        Returns
        -------
        area : ndarray of shape (n_seeds,), float64
            In the unit of the scores.
        """
        area: np.ndarray = self.scores[:, 1:].mean(axis=1)
        return area

    def difference(
        self, other: ActiveLearningCurve, confidence: float = 0.95
    ) -> tuple[float, float]:
        """Compare the areas of two curves, seed by seed.

        Parameters
        ----------
        other : ActiveLearningCurve
            A curve of the same data and seeds, whose initial samples are the same then.
        confidence : float in (0, 1), default=0.95
            The confidence of the interval.

        Returns
        -------
        mean : float
            Mean of this area less the other: positive where this one is better.
        half_width : float
            Half of the width of Student's interval of the mean; NaN for a single seed.

        Raises
        ------
        ValueError
            If the seeds differ, or the numbers of labelled samples.
        """
        if self.seeds != other.seeds:
            raise ValueError(
                f"other has the seeds {other.seeds}; allowed are curves of the same seeds,"
                f" {self.seeds}: run both with the same."
            )
        if self.n_labelled.tolist() != other.n_labelled.tolist():
            raise ValueError(
                f"other has {other.n_labelled.tolist()} labelled samples; allowed are curves of the"
                f" same numbers, {self.n_labelled.tolist()}: run both with the same rounds."
            )
        differences = self.area() - other.area()
        count = len(differences)
        if count == 1:
            return float(differences[0]), float("nan")
        quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
        return float(differences.mean()), float(quantile * stats.sem(differences))

    def to_frame(self) -> Any:
        """Give one row per seed and round.

        Returns
        -------
        frame : pandas.DataFrame
            With the columns "seed", "n_labelled" and "score".
        """
        import pandas

        seeds, rounds = self.scores.shape
        return pandas.DataFrame(
            {
                "seed": np.repeat(self.seeds, rounds),
                "n_labelled": np.tile(self.n_labelled, seeds),
                "score": self.scores.ravel(),
            }
        )


def active_learning_curve(
    estimator: Any,
    sampler: Any,
    X: Any,
    y: Any,
    *,
    n_initial: int = 20,
    n_queries: int = 20,
    n_rounds: int = 5,
    seeds: Iterable[int] = range(5),
    test_size: float = 0.25,
    scoring: Any = None,
    n_jobs: int | None = None,
) -> ActiveLearningCurve:
    """Score a network that is trained anew on more and more samples that a sampler chooses.

    For each seed the samples are parted into test samples and the others, of which ``n_initial``
    are labelled at random. In each round a clone of the estimator is trained on what is labelled,
    scored, and asked for ``n_queries`` samples more. A seed decides on the split, the initial
    samples, the network's initial weights and all that is drawn: curves of two samplers with the
    same seeds differ by what the samplers choose alone.

    Parameters
    ----------
    estimator : skorch net or Pipeline that ends in one
        An untrained network. A net that is given a module's class makes new weights for each
        training, one that is given a module begins from that module's each time.
    sampler : ActiveLearningSampler
        Who chooses. A clone of it gets the trained network as ``estimator`` and the seed as
        ``random_state``.
    X : array-like of shape (n_samples, ...) or Dataset
        All samples.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        All labels; the loop looks at those of the test samples and of samples chosen alone.
    n_initial : int, default=20
        Number of samples labelled at first.
    n_queries : int, default=20
        Number of samples chosen in each round.
    n_rounds : int, default=5
        Number of rounds.
    seeds : iterable of int, default=range(5)
        One run for each.
    test_size : float in (0, 1), default=0.25
        Share of the samples that scores are taken on.
    scoring : str, callable or None, default=None
        As in scikit-learn; None: the estimator's `score`.
    n_jobs : int or None, default=None
        Number of processes that the seeds are shared among.

    Returns
    -------
    curve : ActiveLearningCurve
        Scores, times and choices.

    Raises
    ------
    ValueError
        If there are fewer samples than will be labelled, or the estimator cannot be trained anew.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skorch import NeuralNetRegressor
    >>> from sknetsim import ActiveLearningSampler, active_learning_curve
    >>> X = np.linspace(-1, 1, 80, dtype="float32")[:, None]
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> net = NeuralNetRegressor(module, train_split=None, verbose=0)
    >>> sampler = ActiveLearningSampler(strategy="lcmd")
    >>> curve = active_learning_curve(
    ...     net, sampler, X, np.sin(4 * X), n_initial=4, n_queries=4, n_rounds=2, seeds=[0, 1]
    ... )
    >>> curve.n_labelled.tolist(), curve.scores.shape
    ([4, 8, 12], (2, 3))
    """
    seeds = tuple(seeds)
    for name, value, least in (
        ("n_initial", n_initial, 1),
        ("n_queries", n_queries, 1),
        ("n_rounds", n_rounds, 0),
        ("the number of seeds", len(seeds), 1),
    ):
        check_scalar(value, name, numbers.Integral, min_val=least)
    bounds = {"min_val": 0, "max_val": 1, "include_boundaries": "neither"}
    check_scalar(test_size, "test_size", numbers.Real, **bounds)
    samples = len(Samples(X))
    check_consistent_length(np.empty(samples), np.asarray(y))
    _refuse_fixed(estimator)
    counts = n_initial + n_queries * np.arange(n_rounds + 1)
    _refuse_too_few(samples, test_size, int(counts[-1]))
    scorer = check_scoring(estimator, scoring=scoring)
    loops = (Loop(estimator, sampler, X, np.asarray(y), scorer, seed) for seed in seeds)
    runs = Parallel(n_jobs)(delayed(_undisturbed)(loop.run, counts, test_size) for loop in loops)
    scores, times, indices = (np.array(found) for found in zip(*runs, strict=True))
    return ActiveLearningCurve(counts, scores, times, indices, seeds)


def _refuse_fixed(estimator: Any) -> None:
    """What cannot be trained anew would give the same score in each round."""
    if isinstance(estimator, torch.nn.Module) or is_trained(clone(estimator)):
        raise ValueError(
            f"estimator is a {type(estimator).__name__}, which `fit` does not train anew; allowed"
            " are skorch nets and Pipelines that end in one."
        )


def _undisturbed(function: Any, *arguments: Any) -> Any:
    """Torch's random state is the caller's, and skorch draws from it also to predict."""
    with torch.random.fork_rng():
        return function(*arguments)


def _refuse_too_few(samples: int, test_size: float, labelled: int) -> None:
    available = samples - count_test_samples(samples, test_size)
    if labelled > available:
        raise ValueError(
            f"n_initial and n_rounds times n_queries are {labelled} samples; allowed are up to"
            f" {available}, all but the test samples: ask for fewer, or set a smaller test_size."
        )
