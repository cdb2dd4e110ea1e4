"""Quantities that ``engine.py`` times in two checkouts; only public names of sknetsim are used."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel

LANDMARKS = 256
QUICK = 10


def compute_gram(network, X):
    """Compute the gram matrix of the samples."""
    return NetworkKernel(network)(X)


def compute_soft_density(network, X):
    """Compute the soft log densities of the fitted samples."""
    return NetworkDensity(network, method="soft").fit(X).score_samples(X)


def compute_power_density(network, X):
    """Compute the log densities of the fitted samples by similarities to the power of 16."""
    return NetworkDensity(network, method="power", alpha=16.0).fit(X).score_samples(X)


def compute_features(network, X):
    """Compute the features of the samples from landmarks among them."""
    size = min(LANDMARKS, len(X))
    return GradientFeaturizer(network, n_components=size, random_state=0).fit_transform(X)


@dataclass(frozen=True)
class Case:
    """A quantity of ``count`` samples on a network of one output, "MLP" or "CNN"."""

    name: str
    kind: str
    count: int
    compute: Callable

    def shorten(self):
        """Return the case with fewer samples."""
        return replace(self, count=self.count // QUICK)


QUANTITIES = (
    ("gram", 1_000, compute_gram),
    ("soft density", 2_000, compute_soft_density),
    ("power density, alpha 16", 1_000, compute_power_density),
    (f"features of {LANDMARKS} landmarks, fit and transform", 1_000, compute_features),
)
CASES = tuple(
    Case(name, kind, count, compute)
    for kind in ("MLP", "CNN")
    for name, count, compute in QUANTITIES
)
