"""Agreement of K-FAC and EK-FAC with kronfluence, if the curvature is that of the given labels.

kronfluence draws labels from the network, or takes the given ones; with these, its curvature is the
mean outer product of the losses' gradients.
"""

import copy
import logging
import tempfile

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from sknetsim._curvature.kronecker_ridge import fit_kronecker
from sknetsim._curvature.sources import CombinationEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

SAMPLES, QUERIES = 300, 20
#: kronfluence's damping if it is None, in units of the mean eigenvalue of each layer.
DAMPING = 0.1
#: Methods for each network. K-FAC differs in layers with several positions, whose eigenvalues
#: kronfluence divides by the number of positions.
CASES = {"linear layers": ("kfac", "ekfac"), "convolutions": ("ekfac",)}


def make_networks():
    """Return a network and samples for it, by name, in float64."""
    convolutions = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, stride=2), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(27, 5)),
    )
    linear = nn.Sequential(
        *(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 5))
    )
    count = SAMPLES + QUERIES
    return {
        "linear layers": (linear.double(), torch.randn(count, 12).double()),
        "convolutions": (convolutions.double(), torch.randn(count, 2, 7, 7).double()),
    }


def run_kronfluence(network, train, queries, strategy):
    """Return the influences of the training samples on the losses of the queries."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Loss(Task):
        """Sum of the losses of a batch."""

        def compute_train_loss(self, batch, model, sample=False):
            return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    names = ("activation_covariance", "gradient_covariance", "eigendecomposition", "lambda")
    dtypes = {f"{name}_dtype": torch.float64 for name in (*names, "per_sample_gradient")}
    factors = FactorArguments(strategy=strategy, use_empirical_fisher=True, **dtypes)
    dtypes = ("precondition", "score", "per_sample_gradient")
    scores = ScoreArguments(
        damping_factor=None, **{f"{name}_dtype": torch.float64 for name in dtypes}
    )
    settings = {"cpu": True, "disable_tqdm": True, "log_level": logging.ERROR}
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(copy.deepcopy(network), Loss())
        analyzer = Analyzer("agreement", model, Loss(), output_dir=folder, **settings)
        analyzer.fit_all_factors("factors", train, SAMPLES, factor_args=factors)
        data = ("scores", "factors", queries, train, QUERIES)
        analyzer.compute_pairwise_scores(
            *data, per_device_train_batch_size=SAMPLES, score_args=scores
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"]


def run_sknetsim(network, train, queries, strategy):
    """Return the same influences from the gradients of the losses."""
    source = CombinationEngine(resolve_network(network))
    train_samples, query_samples = (weigh(network, *data.tensors) for data in (train, queries))
    ridge = fit_kronecker(source, train_samples, train_samples.labels, DAMPING, strategy == "ekfac")
    rows, columns = (
        torch.cat([jacobian.materialize()[:, 0] for _, jacobian in ridge.jacobians(source, X)])
        for X in (query_samples, train_samples)
    )
    return rows @ columns.T


def weigh(network, X, y):
    """Return samples whose labels are the gradients of the losses in the outputs, (n, 1, d)."""
    probabilities = network(X).detach().softmax(dim=1)
    residuals = probabilities - functional.one_hot(y, probabilities.shape[1])
    return Samples(X).with_labels(residuals[:, None])


def measure_agreement():
    """Yield the network, the method and the relative difference of the influences."""
    torch.manual_seed(0)
    for name, (network, X) in make_networks().items():
        y = torch.distributions.Categorical(logits=3 * network(X).detach()).sample()
        train = TensorDataset(X[:SAMPLES], y[:SAMPLES])
        queries = TensorDataset(X[SAMPLES:], y[SAMPLES:])
        for strategy in CASES[name]:
            own = run_sknetsim(network, train, queries, strategy)
            others = run_kronfluence(network, train, queries, strategy)
            yield name, strategy, float((own - others).norm() / others.norm())
