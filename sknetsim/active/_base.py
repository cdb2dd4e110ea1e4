"""How strategies of active learning get what they look at: features of pool and labelled rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from .._features.exact import Exact
from .._features.projection import Projection, compute_features
from .._features.sketch import TensorSketch
from .._gradients.engine import GradientEngine
from .._gradients.predictions import predict_probabilities
from .._networks.fingerprint import fingerprint_value
from .._networks.network import FEATURES, resolve_network
from .._passes.chunks import Source
from ..estimators._base import BaseSimilarity
from .strategies import STRATEGIES, Selection, Setting


class BaseSampler(BaseSimilarity):
    """Features of labelled rows, made once for each network, and of a pool.

    For estimators with the parameters that a strategy's setting has.
    """

    strategy: str
    n_components: int | None
    method: str
    threshold: float | str
    alpha: float

    _X: Any
    n_labelled_: int

    def _forget(self) -> None:
        """Draw another sketch, under which no features are known yet."""
        self._seed = int(check_random_state(self.random_state).randint(2**31))
        self._found: dict[str, np.ndarray] = {}

    def _choose_output(self) -> Any:
        return self._strategy().output or self.output

    def _strategy(self) -> type[Selection]:
        return STRATEGIES[self.strategy]

    def _make_source_for(self, estimator: Any) -> Source:
        """Where the Jacobians come from; refused where the strategy asks for classes in vain."""
        if self._strategy().classes:
            self._refuse_without_classes(estimator)
        return super()._make_source_for(estimator)

    def _refuse_without_classes(self, estimator: Any) -> None:
        named = isinstance(estimator, str) and estimator == FEATURES
        if named or not resolve_network(estimator).classifier:
            others = ", ".join(repr(name) for name, kind in STRATEGIES.items() if not kind.classes)
            raise ValueError(
                f"strategy is {self.strategy!r} and estimator is"
                f" {'rows of features' if named else 'no classifier'}"
                f"{', the perceptron of None' * (self.estimator is None)}; allowed are skorch"
                f" classifiers, or one of the strategies {others}: wrap the network in a"
                " NeuralNetClassifier, or choose another strategy."
            )

    def _try_network(self, source: Source, X: Any, y: Any) -> None:
        """Strategies by classes need predictions, random choice nothing."""
        if self._strategy().gradients is not None:
            super()._try_network(source, X, y)
        elif self._strategy().classes:
            self._probabilities(source, X)

    def _probabilities(self, source: Source, X: Any) -> np.ndarray:
        assert isinstance(source, GradientEngine)
        return predict_probabilities(source, X)

    def _selection(self, X: Any, count: int) -> Selection:
        """The strategy, with what it needs to know of pool and labelled samples."""
        source, strategy = self._make_source(), self._strategy()
        generator = check_random_state(self.random_state)
        pool = labelled = classes = np.empty((len(X), 0))
        if strategy.gradients is not None:
            pool, labelled = self._features_of_both(source, X)
        elif strategy.classes:
            classes = self._probabilities(source, X)
        levels = (self.method, self.threshold, self.alpha)
        return strategy(Setting(pool, labelled, classes, count, *levels, generator))

    def _features_of_both(self, source: Source, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Of the pool and of the labelled rows, no rows of these where none are looked at."""
        projection = self._projection(source, X)
        pool = self._features(projection, source, X)
        if not self._strategy().labelled:
            return pool, pool[:0]
        return pool, self._labelled_features(projection, source)

    def _projection(self, source: Source, X: Any) -> Projection:
        """From Jacobians to features, the same for all rows: nothing is fitted to any."""
        _, jacobian = next(source.jacobians(X.select([0])))
        whitening = self._strategy().gradients
        assert whitening is not None
        named = isinstance(self.estimator_, str)
        if named or self.n_components is None or jacobian.width <= self.n_components:
            return Exact(jacobian.width, whitening=whitening)
        return TensorSketch(self.n_components, self._seed, whitening=whitening)

    def _features(self, projection: Projection, source: Source, X: Any) -> np.ndarray:
        """Sketched gradients of length 1 are so again, for near ones are nearer then."""
        features = compute_features(projection, source, X, verbose=self.verbose)
        if isinstance(projection, TensorSketch) and projection.whitening == "unit":
            lengths = np.linalg.norm(features, axis=1, keepdims=True)
            np.divide(features, lengths, out=features, where=lengths > 0)
        return features

    def _labelled_features(self, projection: Projection, source: Source) -> np.ndarray:
        """Those known from before, if the network is the same, and the others."""
        key = self._key(projection)
        known = self._found.get(key, np.empty((0, projection.n_components)))
        new = range(len(known), self.n_labelled_)
        if new:
            features = self._features(projection, source, self._X.select(new))
            known = np.concatenate([known.astype(features.dtype), features])
            self._found.clear()
            self._found[key] = known
        return known

    def _key(self, projection: Projection) -> str:
        """Of all that features of a row depend on, the network as it is now among them."""
        chosen = (self._choose_output(), self.parameters, self.input_shape)
        return fingerprint_value((projection, self._resolve_network(), chosen))


def has_utility_alone(sampler: BaseSampler) -> bool:
    """Whether `score_samples` is there; scikit-learn shows why it is not."""
    alone = [name for name, kind in STRATEGIES.items() if kind.alone]
    if sampler.strategy not in alone:
        raise AttributeError(
            f"strategy is {sampler.strategy!r}, by which a sample alone has no utility; allowed are"
            f" {', '.join(map(repr, alone))}: or look at query(..., return_utilities=True)."
        )
    return True
