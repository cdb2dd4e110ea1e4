"""Chunks of Jacobians and their products, against Jacobians written out."""

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim._gradients.engine import GradientEngine
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples
from sknetsim._passes.chunks import iterate_chunks, with_progress
from sknetsim._passes.lost_gradients import collect_lost_gradients
from sknetsim._passes.pairs import make_tiles, prepare_for_pairs

from .. import naive

WHITENINGS = ["none", "half", "unit"]
EPS = np.finfo(np.float64).eps


def whitened_jacobians(network, X, whitening):
    """Return J^(x) = W(x) J(x), of shape (n, d, P), by a loop over samples."""
    whitened = []
    for jacobian in naive.jacobians(network, X):
        root, rank = naive.inverse_root(jacobian @ jacobian.T, EPS)
        matrix = {"none": np.eye(len(root)), "half": root, "unit": root / np.sqrt(rank)}[whitening]
        whitened.append(matrix @ jacobian)
    return np.stack(whitened)


def chunks_of(engine, X, whitening, **settings):
    return list(iterate_chunks(engine, Samples(X), whitening, **settings))


def split_by_parameter(vectors, network):
    """Return vectors of shape (q, P) as one tensor of shape (q, w) for each parameter."""
    named = list(network.named_parameters())
    parts = torch.as_tensor(vectors).split([parameter.numel() for _, parameter in named], dim=1)
    return {name: part for (name, _), part in zip(named, parts, strict=True)}


def join_parameters(total, network):
    return torch.cat([total[name] for name, _ in network.named_parameters()], dim=1)


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_whitened_jacobians_are_those_of_a_loop_over_samples(mlp, whitening):
    network, X, engine = mlp
    chunks = chunks_of(engine, X, whitening)
    actual = torch.cat([chunk.whitened().jacobian.materialize() for chunk in chunks])
    np.testing.assert_allclose(actual, whitened_jacobians(network, X, whitening), atol=1e-9)


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_self_kernels_of_a_chunk_are_those_of_its_whitened_jacobians(mlp, whitening):
    network, X, engine = mlp
    J = whitened_jacobians(network, X[:4], whitening)
    kernels = np.einsum("nop,nqp->noq", J, J)
    traces = np.einsum("noo->n", kernels)
    chunk = chunks_of(engine, X, whitening)[0]
    for equal in (chunk, chunk.whitened()):
        np.testing.assert_allclose(equal.own_kernel(), kernels, atol=1e-9)
        np.testing.assert_allclose(equal.own_similarity(), traces, atol=1e-9)
        np.testing.assert_allclose(equal.own_weight(True), kernels, atol=1e-9)
        np.testing.assert_allclose(equal.own_weight(False)[:, 0, 0], traces, atol=1e-9)


def test_cosines_of_chunks_are_the_correlations(mlp):
    network, X, engine = mlp
    first, second = (chunk.whitened() for chunk in chunks_of(engine, X[:8], "unit"))
    J, J2 = (naive.jacobians(network, X[rows]) for rows in (slice(0, 4), slice(4, 8)))
    np.testing.assert_allclose(first.cosines(second), naive.correlation(J, J2, EPS), atol=1e-9)


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_inner_products_and_products_are_those_of_written_out_jacobians(mlp, whitening):
    network, X, engine = mlp
    J = whitened_jacobians(network, X[:4], whitening)
    chunk = chunks_of(engine, X, whitening)[0]
    outputs, width = J.shape[1:]
    vectors = np.random.default_rng(0).standard_normal((3, outputs, width))
    stacked = split_by_parameter(vectors.reshape(-1, width), network)
    expected = np.einsum("nop,qop->nq", J, vectors)
    np.testing.assert_allclose(chunk.inner(stacked), expected, atol=1e-9)
    expected = np.einsum("nop,qp->noq", J, vectors[:, 0])
    product = chunk.product(split_by_parameter(vectors[:, 0], network))
    np.testing.assert_allclose(product, expected, atol=1e-9)


def test_inner_products_without_vectors_are_zero(source):
    engine, X = source
    assert chunks_of(engine, X, "unit")[0].inner({}).tolist() == [[0.0]] * 4


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_added_sums_are_loops_over_samples(mlp, whitening):
    network, X, engine = mlp
    J = whitened_jacobians(network, X, whitening)
    generator = np.random.default_rng(0)
    apart = generator.standard_normal((20, 3))
    together = generator.standard_normal((20, J.shape[1], 3))
    for values, equation in ((apart, "nq,nop->qop"), (together, "noq,nop->qp")):
        total = {}
        for chunk in chunks_of(engine, X, whitening):
            chunk.add_to(total, torch.as_tensor(values[chunk.rows]))
        expected = np.einsum(equation, values, J).reshape(-1, J.shape[2])
        np.testing.assert_allclose(join_parameters(total, network), expected, atol=1e-9)


def test_parts_of_a_chunk_keep_their_place_and_their_values(source):
    engine, X = source
    chunk = chunks_of(engine, X, "unit")[1]
    parts = chunk.split(3)
    assert [(part.rows.start, part.rows.stop) for part in parts] == [(4, 6), (6, 8)]
    torch.testing.assert_close(torch.cat([part.own_kernel() for part in parts]), chunk.own_kernel())


def test_chunks_from_a_start_cover_the_rest(source):
    engine, X = source
    rows = [chunk.rows for chunk in chunks_of(engine, X, "unit", start=10)]
    assert [(part.start, part.stop) for part in rows] == [(10, 14), (14, 18), (18, 20)]


class Scaled(nn.Module):
    """Outputs of four scales, two of which float32 resolves."""

    def forward(self, outputs):
        return outputs * torch.tensor([1, 1e-1, 1e-4, 1e-5])


@pytest.mark.parametrize(("whitening", "dropped"), [("unit", 2), ("half", 2), ("none", 0)])
def test_a_whitening_counts_the_outputs_that_it_drops(whitening, dropped):
    engine = GradientEngine(resolve_network(nn.Sequential(nn.Linear(3, 4), Scaled())))
    (chunk,) = chunks_of(engine, np.eye(3), whitening, counted=False)
    assert chunk.rank.tolist() == [4 - dropped] * 3
    parts = chunk, chunk.whitened(), prepare_for_pairs(chunk).part(slice(0, 3))
    for equal in parts:
        counts = equal.count_lost_gradients()
        assert (counts.reduced, counts.dropped, counts.outputs) == (3 * (dropped > 0), dropped, 4)


@pytest.mark.parametrize("whitening", WHITENINGS)
def test_tiles_hold_matrices_of_the_outputs_only_for_the_influence(mlp, whitening):
    """Each matrix takes as much memory as the cotangents, if there are many outputs."""
    _, X, engine = mlp
    (tile,) = make_tiles(chunks_of(engine, X, whitening))
    assert tile.self_kernel is tile.whitening is None
    roots = 8 * len(X) * tile.jacobian.outputs.shape[1] ** 2 if whitening == "half" else 0
    assert tile.nbytes == tile.jacobian.nbytes + roots


@pytest.mark.parametrize("counted", [True, False])
def test_zero_gradients_are_reported_at_the_end_if_counted(source, counted):
    engine, X = source
    with collect_lost_gradients() as collected:
        chunks_of(engine, X, "unit", counted=counted)
    assert (collected.zeros, collected.total) == (0, 20 if counted else 0)


def test_progress_shows_all_samples_if_verbose(source, capsys):
    engine, X = source
    assert len(list(with_progress(chunks_of(engine, X, "unit"), 20, 0))) == 5
    assert capsys.readouterr().err == ""
    assert len(list(with_progress(chunks_of(engine, X, "unit"), 20, 1))) == 5
    assert "20/20" in capsys.readouterr().err
