"""Tensor sketches, against a loop over the entries of the Jacobians."""

import numpy as np
import pytest
import sklearn
import torch
from scipy import stats

from sknetsim._features import sketch as sketch_module
from sknetsim._features.exact import fit_exact
from sknetsim._features.sketch import TensorSketch, fit_sketch
from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes.reductions import gram_matrix
from sknetsim.exceptions import FewerComponentsWarning, ZeroGradientWarning

from ..cases import NETWORKS, build

BY_NAME = {case.name: case for case in NETWORKS}
#: Networks with every form of a block: factors, windows, transposed windows, embeddings, dense.
FORMS = [
    "MLP",
    "CNN with BatchNorm",
    "depthwise separable convolution",
    "decoder of transposed convolutions",
    "LSTM classifier",
    "raw and unused parameters",
]


def make_engine(network, **params):
    return GradientEngine(resolve_network(network), **params)


@pytest.fixture
def data():
    network, X = build(NETWORKS[0], n_samples=12)
    return make_engine(network), X


def compute_exact_features(source, X):
    return fit_exact(source, Samples(X), None, 0.0, None).transform(source, Samples(X))


def draw_maps(count, parameters, outputs, seed):
    """Draw places and signs of the outputs, rows and columns of each parameter."""
    maps = []
    for index, parameter in enumerate(parameters):
        generator = np.random.default_rng([seed, index])
        rows = parameter.shape[0] if parameter.ndim else 1
        maps.append(
            [
                (generator.integers(count, size=size), generator.choice([-1.0, 1.0], size=size))
                for size in (outputs, rows, parameter.numel() // rows)
            ]
        )
    return maps


def sketch_entry_by_entry(features, network, count, seed):
    """Add each entry of the exact features, with its sign, at its place."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    outputs = features.shape[1] // sum(p.numel() for p in parameters)
    result, column = np.zeros((len(features), count)), 0
    maps = draw_maps(count, parameters, outputs, seed)
    for output in range(outputs):
        for (of_outputs, of_rows, of_columns), parameter in zip(maps, parameters, strict=True):
            for entry in range(parameter.numel()):
                row, rest = divmod(entry, len(of_columns[0]))
                chosen = (of_outputs, output), (of_rows, row), (of_columns, rest)
                place = sum(places[index] for (places, _), index in chosen) % count
                sign = np.prod([signs[index] for (_, signs), index in chosen])
                result[:, place] += sign * features[:, column]
                column += 1
    return result


@pytest.mark.parametrize("name", FORMS)
def test_sketches_add_signed_entries_at_their_places(name):
    network, X = build(BY_NAME[name], n_samples=4)
    source = make_engine(network)
    expected = sketch_entry_by_entry(compute_exact_features(source, X), network, 10, seed=3)
    np.testing.assert_allclose(
        TensorSketch(10, 3).transform(source, Samples(X)), expected, atol=1e-10
    )


@pytest.mark.parametrize("count", [1, 2, 7, 500])
def test_sketches_have_any_number_of_features(data, count):
    source, X = data
    network = build(NETWORKS[0])[0]
    expected = sketch_entry_by_entry(compute_exact_features(source, X[:3]), network, count, seed=0)
    np.testing.assert_allclose(
        TensorSketch(count, 0).transform(source, Samples(X[:3])), expected, atol=1e-10
    )


def test_the_map_is_the_same_for_every_part_of_the_data(data):
    source, X = data
    sketch = TensorSketch(9, 0)
    parts = np.vstack(
        [sketch.transform(source, Samples(X[start : start + 5])) for start in (0, 5, 10)]
    )
    np.testing.assert_allclose(parts, sketch.transform(source, Samples(X)), atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_neither_batches_nor_a_small_budget_change_a_sketch(name):
    network, X = build(BY_NAME[name], n_samples=7)
    expected = TensorSketch(9, 0).transform(make_engine(network), Samples(X))
    with sklearn.config_context(working_memory=0.1):
        actual = TensorSketch(9, 0).transform(make_engine(network, batch_size=4), Samples(X))
    np.testing.assert_allclose(actual, expected, atol=1e-10)


def test_inner_products_are_unbiased(data):
    """The mean over seeds is within its standard error; one test in a million fails by chance."""
    source, X = data
    X, seeds = X[:4], 200
    features = [TensorSketch(16, seed).transform(source, Samples(X)) for seed in range(seeds)]
    products = np.stack([rows @ rows.T for rows in features])
    pairs = np.triu_indices(len(X))
    deviations = (products.mean(axis=0) - gram_matrix(source, Samples(X)))[pairs]
    errors = stats.sem(products, axis=0)[pairs]
    limit = stats.t.isf(1e-6 / (2 * len(errors)), seeds - 1)
    assert (np.abs(deviations) < limit * errors).all()


def test_phases_of_a_large_sketch_lose_no_digit():
    sketch, like = TensorSketch(2**16, 0), torch.zeros(1, dtype=torch.float64)
    phases = sketch._draw_phases(3, np.random.default_rng(0), like)
    impulses = torch.fft.irfft(phases, 2**16)
    signs, places = impulses.gather(1, impulses.abs().argmax(1, True)), impulses.abs().argmax(1)
    exact = torch.zeros(3, 2**16, dtype=torch.float64)
    exact[range(3), places] = signs[:, 0].sign()
    torch.testing.assert_close(phases, torch.fft.rfft(exact), rtol=0, atol=1e-13)


def test_features_depend_on_the_seed(data):
    source, X = data
    first, second = (TensorSketch(9, seed).transform(source, Samples(X)) for seed in (0, 1))
    assert not np.allclose(first, second)


def fit(source, X, n_components, kernel_error=0.1, seed=0):
    generator = np.random.RandomState(seed)
    return fit_sketch(source, Samples(X), n_components, kernel_error, generator)


def naive_error(sketch, source, X):
    features = sketch.transform(source, Samples(X))
    difference = features @ features.T - gram_matrix(source, Samples(X))
    return np.sqrt(np.mean(difference[~np.eye(len(X), dtype=bool)] ** 2))


def test_the_kernel_error_is_that_of_the_fitted_samples(data):
    source, X = data
    sketch = fit(source, X, 20)
    assert sketch.kernel_error == pytest.approx(naive_error(sketch, source, X))


def test_the_kernel_error_of_many_samples_is_that_of_some(data, monkeypatch):
    source, X = data
    monkeypatch.setattr(sketch_module, "_MEASURED", 5)
    generator = np.random.RandomState(0)
    generator.randint(2**31)  # This number is the seed of the sketch.
    measured = X[generator.permutation(len(X))[:5]]
    sketch = fit(source, X, 20)
    assert sketch.kernel_error == pytest.approx(naive_error(sketch, source, measured))


@pytest.mark.parametrize("seed", range(4))
def test_auto_doubles_the_size_until_it_reaches_the_error(data, seed):
    source, X = data
    errors = {size: fit(source, X, size, seed=seed).kernel_error for size in (64, 128, 256, 512)}
    wanted = min(errors.values())
    expected = next(size for size, error in errors.items() if error <= wanted)
    assert fit(source, X, "auto", kernel_error=wanted, seed=seed).n_components == expected


def test_auto_warns_if_the_largest_sketch_misses_the_error(data, monkeypatch):
    source, X = data
    monkeypatch.setattr(sketch_module, "_MOST", 128)
    with pytest.warns(FewerComponentsWarning, match="of 128 features have .*method='nystroem'"):
        sketch = fit(source, X, "auto", kernel_error=1e-9)
    assert sketch.n_components == 128


def test_parameters_that_no_output_depends_on_are_sketched_to_zero():
    network, X = build(BY_NAME["raw and unused parameters"], n_samples=4)
    source = make_engine(network, parameters="unused.*")
    with pytest.warns(ZeroGradientWarning, match="4 of 4 samples"):
        assert not TensorSketch(5, 0).transform(source, Samples(X)).any()


def test_a_zero_gradient_is_sketched_to_zero():
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 2, bias=False)
    ).double()
    network[0].weight.data.fill_(1.0)
    X = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    with pytest.warns(ZeroGradientWarning, match="1 of 2 samples"):
        features = TensorSketch(5, 0).transform(make_engine(network), Samples(X))
    assert features[0].any()
    assert not features[1].any()
