"""Neighbour counts of a learnt sine: the toy problem of the paper.

The example explains which count follows the curvature at which frequency, and why.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

PATH = Path(__file__).parent.parent / "examples" / "plot_sine_density.py"
SEEDS = (0, 1, 2)


def import_example(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = import_example(PATH)


def test_curvature_equals_finite_differences():
    locations, step = np.linspace(0.01, 0.99, 50), 1e-4
    before, here, after = (
        np.sin(2 * np.pi * 2 * (locations + shift)) for shift in (-step, 0, step)
    )
    slope, bend = (after - before) / (2 * step), (after - 2 * here + before) / step**2
    expected = np.abs(bend) / (1 + slope**2) ** 1.5
    np.testing.assert_allclose(
        example.compute_curvature(2, locations), expected, rtol=1e-3, atol=1e-6
    )


def test_the_network_has_the_size_of_that_in_the_paper():
    parameters = example.make_perceptron(2).parameters()
    assert sum(parameter.numel() for parameter in parameters) == 21057


@pytest.mark.slow
def test_neighbor_counts_fall_with_frequency_and_curvature():
    """This is one test, because each parallel worker would train the networks again."""
    counts = {name: example.COUNTS[name] for name in ("soft", "threshold .95")}
    results = {
        frequency: [example.run(frequency, seed, 1024, 40, counts) for seed in SEEDS]
        for frequency in example.FREQUENCIES
    }
    check_the_curves_are_learnt(results)
    for name in counts:
        check_neighbors_become_fewer_with_frequency(results, name)
    for name, frequencies in {"soft": (1, 2), "threshold .95": (2, 4, 8)}.items():
        for frequency in frequencies:
            check_neighbors_are_fewer_where_the_curve_bends(results, name, frequency)


def check_the_curves_are_learnt(results):
    errors = [error for runs in results.values() for error, _ in runs]
    assert max(errors) < 0.05  # The mean of abs(y) is 0.64.


def check_neighbors_become_fewer_with_frequency(results, name):
    medians = [np.median(example.compute_mean_counts(runs, name)) for runs in results.values()]
    assert (np.diff(medians) < 0).all()


def check_neighbors_are_fewer_where_the_curve_bends(results, name, frequency):
    assert (example.compute_correlations(frequency, results[frequency], name) < 0).all()
