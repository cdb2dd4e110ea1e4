"""K-FAC and EK-FAC against their definitions, computed by loops over samples and outputs."""

from dataclasses import replace

import pytest
import torch
from sklearn import config_context
from torch import nn
from torch.nn import functional

from sknetsim import UnsupportedNetworkError
from sknetsim._curvature import matrix_gradients
from sknetsim._curvature.kronecker_ridge import fit_kronecker
from sknetsim._curvature.sources import CombinationEngine
from sknetsim._gradients.engine import GradientEngine
from sknetsim._kernels.embedding_blocks import EmbeddingBlock
from sknetsim._kernels.jacobian import concatenate_jacobians
from sknetsim._networks.network import resolve_network
from sknetsim._networks.samples import Samples

from .. import naive

pytestmark = pytest.mark.once

SAMPLES, DAMPING = 6, 0.1


class Tokens(nn.Module):
    """Embedding, a linear layer that is applied twice, and positions that are averaged."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3, padding_idx=0)
        self.shared = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2, bias=False)

    def forward(self, X):
        hidden = torch.tanh(self.shared(self.embedding(X)))
        return self.head(torch.tanh(self.shared(hidden[:, 1:])).mean(dim=1))


class Scaled(nn.Module):
    """Parameters without a layer that multiplies activations."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 5)
        self.norm = nn.LayerNorm(5)
        self.scale = nn.Parameter(torch.rand(5, 2))

    def forward(self, X):
        return self.norm(torch.tanh(self.layer(X))) @ self.scale.square()


class Split(nn.Module):
    """A weight whose two parts are applied to different sequences."""

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(3, 4)

    def forward(self, X):
        (first, second), (bias, other) = self.both.weight.chunk(2), self.both.bias.chunk(2)
        hidden = functional.linear(X[:, :2], first, bias).sum(dim=1)
        return torch.tanh(functional.linear(X, second, other)).sum(dim=1) * torch.tanh(hidden)


class TwoLayers(nn.Module):
    """The same function with a layer for each part."""

    def __init__(self, split):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)
        parts = split.both.weight.chunk(2), split.both.bias.chunk(2)
        for layer, weight, bias in zip((self.first, self.second), *parts, strict=True):
            layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})

    def forward(self, X):
        hidden = self.first(X[:, :2]).sum(dim=1)
        return torch.tanh(self.second(X)).sum(dim=1) * torch.tanh(hidden)


class Gated(nn.Module):
    """A layer that is multiplied by the first feature."""

    def __init__(self):
        super().__init__()
        self.gated, self.head = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, X):
        return self.gated(X) * X[:, :1] + self.head(X)


def make_mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def make_cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 2, groups=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=4),
        nn.Tanh(),
        nn.Conv2d(4, 2, 2, stride=2, bias=False),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


def draw_tokens():
    return torch.randint(0, 5, (SAMPLES, 4))


NETWORKS = {
    "MLP": (make_mlp, lambda: torch.randn(SAMPLES, 4)),
    "CNN with groups": (make_cnn, lambda: torch.randn(SAMPLES, 2, 3, 3)),
    "embedding": (Tokens, draw_tokens),
    "norm and raw parameter": (Scaled, lambda: torch.randn(SAMPLES, 4)),
}
methods = pytest.mark.parametrize("corrected", [False, True], ids=["K-FAC", "EK-FAC"])
networks = pytest.mark.parametrize("name", NETWORKS)


def build(name):
    torch.manual_seed(0)
    make, draw = NETWORKS[name]
    X = draw()
    return make().double().eval(), X.double() if X.is_floating_point() else X


def fit(network, X, corrected, **settings):
    engine = GradientEngine(resolve_network(network), **settings)
    return engine, fit_kronecker(engine, Samples(X), None, DAMPING, corrected)


def compute_metric(engine, ridge, X, factored=True):
    """Return the products of preconditioned gradients, of shape (n, n, d, d)."""
    ((_, jacobian),) = engine.jacobians(Samples(X), factored=factored)
    preconditioned = ridge.precondition(jacobian)
    return preconditioned.gram(preconditioned)


def list_calls(network, x):
    """Return the outputs for a sample, and module, input and output of each call of a layer."""
    calls = []
    hooks = [
        layer.register_forward_hook(lambda *call: calls.append(call))
        for layer in network.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding)
    ]
    outputs = network(x[None])[0]
    for hook in hooks:
        hook.remove()
    return outputs, [(layer, inputs[0].detach(), output) for layer, inputs, output in calls]


def list_activations(layer, inputs):
    """Return the activations of each position, of shape (g, t, i), with 1 for a bias."""
    if isinstance(layer, nn.Embedding):
        activations = functional.one_hot(inputs, len(layer.weight)).double()
    elif isinstance(layer, nn.Conv2d):
        settings = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        parts = inputs.chunk(layer.groups, dim=1)
        activations = torch.cat([functional.unfold(part, *settings).mT for part in parts])
    else:
        activations = inputs.reshape(1, -1, inputs.shape[-1])
    if getattr(layer, "bias", None) is None:
        return activations
    return torch.cat([activations, torch.ones_like(activations[..., :1])], dim=2)


def list_cotangents(layer, inputs, gradient):
    """Return the gradient in the output of a layer at each position, of shape (g, t, j)."""
    if isinstance(layer, nn.Embedding):
        # The row of the padding has no gradient.
        gradient = gradient * (inputs != layer.padding_idx)[..., None]
    if isinstance(layer, nn.Conv2d):
        return gradient[0].flatten(1).unflatten(0, (layer.groups, -1)).mT
    return gradient.reshape(1, -1, gradient.shape[-1])


def define_factors(network, X, roots):
    """Return A and S of each group of each layer, of shape (g, i, i) and (g, j, j)."""
    sums = {}
    for x, root in zip(X, roots, strict=True):
        outputs, calls = list_calls(network, x)
        for layer, inputs, _ in calls:
            own = sums.setdefault(layer, [0.0, 0.0, 0])
            activations = list_activations(layer, inputs)
            own[0] += activations.mT @ activations
            own[2] += activations.shape[1]
        for output in root @ outputs:
            gradients = torch.autograd.grad(output, [c[2] for c in calls], retain_graph=True)
            for (layer, inputs, _), gradient in zip(calls, gradients, strict=True):
                cotangents = list_cotangents(layer, inputs, gradient)
                sums[layer][1] += cotangents.mT @ cotangents
    return {layer: (A / positions, S / len(X)) for layer, (A, S, positions) in sums.items()}


def split_gradients(network, X):
    """Return the gradients by parameter, of shape (n, d, ...)."""
    written = torch.from_numpy(naive.jacobians(network, X))
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    parts = written.split([shape.numel() for shape in shapes.values()], dim=2)
    return {n: p.unflatten(2, s) for (n, s), p in zip(shapes.items(), parts, strict=True)}


def list_matrices(network, layer, gradients):
    """Return the gradients of a layer as matrices (n, d, g, j, i), with the bias as a column."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    weight = gradients[names[id(layer.weight)]]
    if isinstance(layer, nn.Embedding):
        return weight.mT[:, :, None]
    groups = getattr(layer, "groups", 1)
    matrices = weight.flatten(3).unflatten(2, (groups, -1))
    if layer.bias is None:
        return matrices
    return torch.cat([matrices, gradients[names[id(layer.bias)]].view(matrices[..., :1].shape)], 4)


def define_curvatures(network, X, corrected, roots=None):
    """Return the gradients (n, d, g, w) and the curvature (g, w, w) of each block.

    The curvature is that of combinations of outputs with the weights ``roots`` of shape (n, d, d).
    """
    gradients = split_gradients(network, X)
    if roots is None:
        roots = torch.eye(len(network(X[:1])[0])).double().expand(len(X), -1, -1)
    gradients = {
        name: torch.einsum("nko,no...->nk...", roots, gradient)
        for name, gradient in gradients.items()
    }
    blocks, in_layers = [], set()
    for layer, (A, S) in define_factors(network, X, roots).items():
        matrices = list_matrices(network, layer, gradients)
        in_layers |= {id(parameter) for parameter in layer.parameters()}
        curvatures = []
        for group in range(len(A)):
            H = torch.kron(S[group], A[group])
            if corrected:
                basis = torch.kron(*(torch.linalg.eigh(M[group])[1] for M in (S, A)))
                coordinates = matrices[:, :, group].flatten(2) @ basis
                H = basis @ torch.diag(coordinates.square().sum(dim=1).mean(dim=0)) @ basis.T
            curvatures.append(H)
        blocks.append((matrices.flatten(3), torch.stack(curvatures)))
    for name, parameter in network.named_parameters():
        if id(parameter) not in in_layers:
            J = gradients[name].flatten(2)
            blocks.append((J[:, :, None], torch.einsum("now,nov->wv", J, J)[None] / len(X)))
    return blocks


def define_metric(blocks):
    """Return sum over blocks of G (H + lambda)^{-1} G'^T, of shape (n, n, d, d)."""
    total = 0.0
    for gradients, curvatures in blocks:
        groups, width, _ = curvatures.shape
        damping = DAMPING * curvatures.diagonal(dim1=1, dim2=2).mean()
        for group in range(groups):
            H = curvatures[group] + damping * torch.eye(width)
            solved = gradients[:, :, group] @ torch.linalg.inv(H)
            total += torch.einsum("now,mpw->nmop", solved, gradients[:, :, group])
    return total


def check_products(products, expected):
    level = 1e-8 * float(expected.abs().max())
    torch.testing.assert_close(products, expected, rtol=1e-8, atol=level)


@methods
@networks
def test_products_equal_the_definition(name, corrected):
    network, X = build(name)
    expected = define_metric(define_curvatures(network, X, corrected))
    check_products(compute_metric(*fit(network, X, corrected), X), expected)


@methods
def test_products_of_combinations_of_outputs_equal_the_definition(corrected):
    network, X = build("CNN with groups")
    roots = torch.randn(SAMPLES, 3, 3).double()
    source = CombinationEngine(resolve_network(network))
    ridge = fit_kronecker(source, Samples(X), roots, DAMPING, corrected)
    ((_, preconditioned),) = ridge.jacobians(source, Samples(X).with_labels(roots))
    expected = define_metric(define_curvatures(network, X, corrected, roots))
    check_products(preconditioned.gram(preconditioned), expected)


@methods
@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_one_linear_layer_with_one_output_is_exact(samples, corrected):
    torch.manual_seed(0)
    network, X = nn.Linear(4, 1).double(), torch.randn(samples, 4).double()
    J = torch.from_numpy(naive.jacobians(network, X))[:, 0]
    curvature = J.T @ J / samples
    damping = DAMPING * curvature.trace() / 5
    expected = J @ torch.linalg.inv(curvature + damping * torch.eye(5)) @ J.T
    torch.testing.assert_close(compute_metric(*fit(network, X, corrected), X)[..., 0, 0], expected)


@networks
def test_gradients_in_a_form_for_sums_are_preconditioned_alike(name):
    network, X = build(name)
    engine, ridge = fit(network, X, corrected=True)
    expected = compute_metric(engine, ridge, X)
    torch.testing.assert_close(compute_metric(engine, ridge, X, factored=False), expected)


@methods
def test_parts_of_a_weight_are_layers_of_their_own(corrected):
    torch.manual_seed(0)
    network, X = Split().double(), torch.randn(SAMPLES, 4, 3).double()
    layers = TwoLayers(network).double()
    torch.testing.assert_close(network(X), layers(X))
    settings = {"corrected": corrected}
    metric, expected = (compute_metric(*fit(n, X, **settings), X) for n in (network, layers))
    # The mean eigenvalue of each part is its own.
    torch.testing.assert_close(metric, expected)


@pytest.mark.parametrize(("largest", "rows"), [(20, 2), (4, 1)])
def test_large_parameters_without_a_layer_keep_blocks_on_the_diagonal(largest, rows, monkeypatch):
    monkeypatch.setattr(matrix_gradients, "_LARGEST_MATRICES", largest)
    network, X = build("norm and raw parameter")
    scale = split_gradients(network, X)["scale"].flatten(2)
    ((_, jacobian),) = GradientEngine(resolve_network(network)).jacobians(Samples(X))
    ridge = fit(network, X, corrected=False, parameters="scale")[1]
    curvature = torch.einsum("now,nov->wv", scale, scale) / SAMPLES
    curvature *= torch.block_diag(*[torch.ones(rows, rows)] * (10 // rows))
    damping = DAMPING * curvature.diagonal().mean()
    solved = scale @ torch.linalg.inv(curvature + damping * torch.eye(10))
    expected = torch.einsum("now,mpw->nmop", solved, scale)
    block = ridge.precondition(jacobian).blocks["scale",]
    torch.testing.assert_close(block.gram(block), expected)


def test_a_layer_without_curvature_is_damped_as_all_layers_on_average():
    torch.manual_seed(0)
    network, X = Gated().double(), torch.randn(SAMPLES, 3).double()
    fitted = X * torch.tensor([0.0, 1.0, 1.0])
    engine, ridge = fit(network, fitted, corrected=True)
    J = split_gradients(network, fitted)
    total = sum(float(gradients.square().sum()) for gradients in J.values()) / SAMPLES
    assert ridge.damping == pytest.approx(DAMPING * total / 16)
    ((_, jacobian),) = engine.jacobians(Samples(X))
    block = ridge.precondition(jacobian).blocks["gated.weight",]
    expected = jacobian.blocks["gated.weight", "gated.bias"].self_kernel() / ridge.damping
    torch.testing.assert_close(block.self_kernel(), expected)


class Unused(nn.Module):
    """A layer whose output counts nothing, and a layer that is not called."""

    def __init__(self):
        super().__init__()
        self.zero, self.unused, self.head = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, X):
        return self.head(X) + 0 * self.zero(X)


@pytest.mark.parametrize("parameters", ["zero.*", "unused.*"])
def test_a_loss_without_curvature_is_refused(parameters):
    with pytest.raises(UnsupportedNetworkError, match="whose curvature is not zero"):
        fit(Unused(), torch.randn(SAMPLES, 3), corrected=False, parameters=parameters)


class OtherForms:
    """Source of Jacobians whose second chunk has no factors."""

    def __init__(self, engine):
        self.engine = engine

    def jacobians(self, X, start=0, factored=False):
        ((rows, jacobian),) = self.engine.jacobians(X, start, factored)
        yield rows, jacobian
        blocks = {key: block.dense() for key, block in jacobian.blocks.items()}
        yield rows, replace(jacobian, blocks=blocks)


def test_a_layer_that_is_used_in_two_ways_is_refused():
    network, X = build("MLP")
    source = OtherForms(GradientEngine(resolve_network(network)))
    with pytest.raises(UnsupportedNetworkError, match=r"another use of '0\.weight'"):
        fit_kronecker(source, Samples(X), None, DAMPING, corrected=False)


def test_factors_beyond_the_memory_budget_are_refused():
    network = nn.Linear(1000, 1)
    engine = GradientEngine(resolve_network(network))
    with (
        config_context(working_memory=8),
        pytest.raises(MemoryError, match="Kronecker factors of the parameters must fit into 3/4"),
    ):
        fit_kronecker(engine, Samples(torch.ones(2, 1000)), None, DAMPING, corrected=False)


def test_gradients_of_embeddings_stay_in_factors():
    network = nn.Sequential(nn.Embedding(10**5, 2), nn.Flatten(), nn.Linear(4, 2))
    X = torch.arange(6).reshape(3, 2)
    engine, ridge = fit(network, X, corrected=True)
    with config_context(working_memory=8):
        ((_, jacobian),) = ridge.jacobians(engine, Samples(X))
    assert isinstance(jacobian.blocks["0.weight",], EmbeddingBlock)


def test_small_chunks_have_the_same_products():
    network, X = build("CNN with groups")
    engine, ridge = fit(network, X, corrected=True)
    with config_context(working_memory=0.012):
        small = fit(network, X, corrected=True)[1]
        chunks = list(small.jacobians(engine, Samples(X), start=1))
    assert [rows for rows, _ in chunks] == [slice(n, n + 1) for n in range(1, SAMPLES)]
    joined = concatenate_jacobians([jacobian for _, jacobian in chunks])
    expected = compute_metric(engine, ridge, X)[1:, 1:]
    torch.testing.assert_close(joined.gram(joined), expected)
