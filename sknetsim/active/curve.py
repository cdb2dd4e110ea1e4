"""Learning curves of active learning: a loop of training, querying and labelling."""

from __future__ import annotations

import numbers
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy import stats
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.utils import check_array, check_consistent_length, check_random_state, check_scalar
from torch.utils.data import Dataset, Subset, default_collate

from .._networks.fitting import cast_inputs, train_clone
from .._networks.network import (
    get_batching,
    get_innermost,
    is_frozen,
    list_steps,
    make_samples,
    split_columns,
)
from .._networks.samples import RawSamples
from .._networks.samples.arrays import explain_dtype
from .._networks.samples.items import find_items, has_pairs
from .._networks.samples.labels import check_numbers


@dataclass(frozen=True, eq=False)
class ActiveLearningCurve:
    r"""Scores of a network after each round of active learning.

    The area of seed i is the mean of its scores over the rounds, without the initial score,
    :math:`a_i = \sum_{r=1}^R s_{ir} / R`. Two curves differ by the mean of :math:`a_i - a'_i` over
    the seeds, with Student's confidence interval.

    Parameters
    ----------
    n_labelled : ndarray of shape (n_rounds + 1,), int64
        Numbers of labelled samples, the initial number first.
    scores : ndarray of shape (n_seeds, n_rounds + 1), float64
        Scores on the test samples, in the unit of ``scoring``; greater is better.
    query_times : ndarray of shape (n_seeds, n_rounds), float64
        Duration of the sampler's `fit` and `query`, in seconds.
    indices : ndarray of shape (n_seeds, n_labelled[-1]), int64
        Positions in X of the labelled samples, in the order of labelling.
    seeds : tuple of int
        The seeds.

    See Also
    --------
    active_learning_curve : Function that computes a curve.
    sknetsim.displays.LearningCurveDisplay : Plot of the curves of several samplers.

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
        """Return the mean score over the rounds, without the initial score.

        Returns
        -------
        area : ndarray of shape (n_seeds,), float64
            Mean scores in the unit of the scores; NaN if there are no rounds.
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
            Curve of the same data and seeds, and so with the same initial samples.
        confidence : float in (0, 1), default=0.95
            Confidence level of the interval.

        Returns
        -------
        mean : float
            Mean of this area minus the other; positive if this curve is better.
        half_width : float
            Half the width of Student's confidence interval of the mean; NaN for a single seed.

        Raises
        ------
        ValueError
            If the seeds or the numbers of labelled samples differ.
        """
        if self.seeds != other.seeds:
            raise ValueError(
                f"`other` must be a curve of the same seeds, {self.seeds}; got {other.seeds}."
                " Compute both curves with the same seeds."
            )
        if self.n_labelled.tolist() != other.n_labelled.tolist():
            raise ValueError(
                "`other` must be a curve of the same numbers of labelled samples,"
                f" {self.n_labelled.tolist()}; got {other.n_labelled.tolist()}. Compute both curves"
                " with the same n_initial, n_queries and n_rounds."
            )
        differences = self.area() - other.area()
        count = len(differences)
        if count == 1:
            return float(differences[0]), float("nan")
        # mean +- t_{(1 + confidence) / 2, count - 1} * std / sqrt(count)
        quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
        return float(differences.mean()), float(quantile * stats.sem(differences))

    def to_frame(self) -> Any:
        """Return a table with one row per seed and round.

        Returns
        -------
        frame : pandas.DataFrame
            Table with the columns "seed", "n_labelled" and "score".
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
    """Score a network that is trained on more and more samples, which a sampler chooses.

    For each seed, the samples are split into test samples and others, and ``n_initial`` of the
    others are labelled at random. A clone of the estimator is trained on the labelled samples, and
    scored. In each round, the sampler chooses ``n_queries`` more samples, and a new clone is
    trained and scored. A seed determines the split, the initial samples, the initial weights of the
    network and all random numbers of the sampler, so that curves of two samplers with the same
    seeds differ only by what the samplers choose.

    Parameters
    ----------
    estimator : skorch net or Pipeline that ends in one
        An untrained network. If its module is a class, each training starts from new random
        weights; if its module is an object, each training starts from the weights of that object.
    sampler : ActiveLearningSampler
        Sampler that chooses the samples. A clone of it gets the trained network as ``estimator``
        and the seed as ``random_state``.
    X : array-like of shape (n_samples, ...), table, list of texts or images, dict or Dataset
        All samples. The first step of a Pipeline gets them in this form. A net gets the rows of a
        table as an array, or as a dict of columns if these are arguments of its module. Numbers are
        cast to the dtype of the network. The items of a Dataset are loaded when they are used.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), or None
        All labels, as numbers. Only those of test samples and of labelled samples are used. For
        training, they get the shape and dtype that the net's criterion takes. None: those of the
        items (x, y) of a Dataset. If a Dataset has such items, a net is always trained on their
        labels, as in skorch; if it has items x, they are combined with y.
    n_initial : int, default=20
        Number of samples that are labelled at first, at least 1.
    n_queries : int, default=20
        Number of samples that are chosen in each round, at least 1.
    n_rounds : int, default=5
        Number of rounds, at least 0.
    seeds : iterable of int, default=range(5)
        Seeds, with one run each; at least one seed.
    test_size : float in (0, 1), default=0.25
        Share of the samples that are test samples.
    scoring : str, callable or None, default=None
        Score, as in scikit-learn. None uses the `score` of the estimator.
    n_jobs : int or None, default=None
        Number of processes that share the seeds. None: 1, or the number set by
        ``joblib.parallel_config``.

    Returns
    -------
    curve : ActiveLearningCurve
        Scores, durations and chosen samples.

    Raises
    ------
    ValueError
        If there are fewer samples than the loop would label, if ``estimator`` is not trained by
        `fit`, if labels are missing, not finite or not numbers, if they do not fit the outputs of
        the network, or if a number is out of its range.
    TypeError
        If a number has a wrong type.

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
    samples = len(RawSamples(X))
    y = check_numbers(_list_labels(X) if y is None else y)
    check_consistent_length(np.empty(samples), y)
    _check_untrained(estimator)
    counts = n_initial + n_queries * np.arange(n_rounds + 1)
    _check_enough_samples(samples, test_size, int(counts[-1]))
    scorer = check_scoring(estimator, scoring=scoring)
    X = _convert_samples(estimator, X)
    loops = (Loop(estimator, sampler, X, y, scorer, seed) for seed in seeds)
    runs = Parallel(n_jobs)(delayed(loop.run)(counts, test_size) for loop in loops)
    scores, times, indices = map(np.array, zip(*runs, strict=True))
    return ActiveLearningCurve(counts, scores, times, indices, seeds)


@dataclass(frozen=True)
class Loop:
    """Loop of training, querying and labelling with one seed.

    Parameters
    ----------
    estimator, sampler, X, y
        See `active_learning_curve`.
    scorer : callable
        Function of (network, X, y) that returns a score; greater is better.
    seed : int
        Seed of the split, the initial weights and all random numbers.
    """

    estimator: Any
    sampler: Any
    X: Any
    y: np.ndarray
    scorer: Any
    seed: int

    def run(
        self, counts: np.ndarray, test_size: float
    ) -> tuple[list[float], list[float], np.ndarray]:
        """Return the scores, the durations of queries in seconds, and the labelled samples.

        The random state of torch, which skorch changes, is restored.
        """
        order = check_random_state(self.seed).permutation(len(self.y))
        test, others = np.split(order, [count_test_samples(len(order), test_size)])
        labelled, pool = np.split(others, [counts[0]])
        with torch.random.fork_rng():
            net = self._train(labelled)
            scores, times = [self._score(net, test)], []
            for count in np.diff(counts):
                start = time.perf_counter()
                chosen = self._query(net, labelled, pool, count)
                times.append(time.perf_counter() - start)
                labelled, pool = np.append(labelled, pool[chosen]), np.delete(pool, chosen)
                net = self._train(labelled)
                scores.append(self._score(net, test))
        return scores, times, labelled

    def _train(self, labelled: np.ndarray) -> Any:
        """Train a clone of the estimator on the labelled samples, and return it.

        Its initial weights depend only on the seed and on the number of labelled samples.
        """
        seed = np.random.SeedSequence([self.seed, len(labelled)]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        return train_clone(self.estimator, select_samples(self.X, labelled), self.y[labelled])

    def _score(self, net: Any, test: np.ndarray) -> float:
        # skorch passes the columns of a table as keyword arguments, so that steps return arrays.
        with config_context(transform_output="default"), cast_inputs(get_innermost(net)):
            X = make_samples(net, select_samples(self.X, test)).get_skorch_data()
            return float(self.scorer(net, X, self.y[test]))

    def _query(self, net: Any, labelled: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
        """Return the positions in the pool of the samples that the sampler chooses."""
        sampler = clone(self.sampler).set_params(estimator=net, random_state=self.seed)
        sampler.fit(select_samples(self.X, labelled), self.y[labelled])
        chosen: np.ndarray = sampler.query(select_samples(self.X, pool), int(count))
        return chosen


def _list_labels(X: Any) -> Any:
    """Return the labels of a Dataset of pairs (x, y), or None for other samples."""
    if not has_pairs(X):
        return None
    return default_collate([X[index][1] for index in range(len(RawSamples(X)))])


def _convert_samples(estimator: Any, X: Any) -> Any:
    """Return the samples in the form that skorch takes; steps of a Pipeline get them unchanged.

    Tables and lists become arrays, or a dict of arrays if the columns of a table are arguments of
    the network. Samples that the network reads one by one, or forms batches of in a way of its own,
    keep their form.
    """
    if list_steps(estimator):
        return X
    net = get_innermost(estimator)
    X = split_columns(net, X)
    is_array = isinstance(X, np.ndarray | list) or hasattr(X, "to_numpy")
    if not is_array or find_items(X, get_batching(net)) is not None:
        return X
    with explain_dtype(X):
        return check_array(X, dtype="numeric", allow_nd=True, ensure_all_finite=False)


def select_samples(X: Any, indices: np.ndarray) -> Any:
    """Return the samples at some indices, in the form of X; items of a Dataset are not loaded."""
    rows = indices.tolist()
    return Subset(X, rows) if isinstance(X, Dataset) else RawSamples(X).select(rows).data


def count_test_samples(samples: int, test_size: float) -> int:
    """Return the number of test samples, at least 1."""
    return max(1, round(test_size * samples))


def _check_untrained(estimator: Any) -> None:
    """Raise an error for an estimator that `fit` does not train: its scores would not change."""
    net = get_innermost(estimator)
    if isinstance(net, torch.nn.Module) or is_frozen(estimator) or not hasattr(net, "initialize"):
        raise ValueError(
            "`estimator` must be a skorch net, or a Pipeline that ends in one, that `fit` trains"
            f" anew; got {type(estimator).__name__}, which `fit` does not train. Pass an untrained"
            " net."
        )


def _check_enough_samples(samples: int, test_size: float, labelled: int) -> None:
    available = samples - count_test_samples(samples, test_size)
    if labelled > available:
        raise ValueError(
            f"`n_initial` + `n_rounds` * `n_queries` must be at most {available} (the number of"
            f" samples without the test samples); got {labelled}. Choose fewer samples, or set a"
            " smaller `test_size`."
        )
