"""Networks whose own code changes weights, inputs or attributes, or depends on settings of torch.

Each has the similarities of a copy in eval mode, or an error that says what it does. The network is
the same afterwards.
"""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sknetsim import (
    GradientFeaturizer,
    NetworkDensity,
    NetworkKernel,
    PerceptualKernel,
    UnsupportedNetworkError,
)

from .. import naive
from ..states import record_state

EPS = torch.finfo(torch.float64).eps


def make_uncopyable(network):
    """Let deepcopy fail, so that the original network is evaluated."""
    network.generator = (value for value in ())
    return network


def compute_expected(network, X, select=None, selected=None):
    """Return k^C by a double loop over the samples, each on a new copy of the network."""
    rows = []
    for index in range(len(X)):
        own = copy.deepcopy(network).eval()
        for name, parameter in own.named_parameters():
            parameter.requires_grad_(
                parameter.requires_grad and (selected is None or name.startswith(selected))
            )
        rows.append(naive.jacobians(own, X[index : index + 1].clone(), select))
    J = np.concatenate(rows)
    return naive.correlation(J, J, EPS)


CALLS = {
    "gram": lambda network, X: NetworkKernel(network)(X),
    "single samples": lambda network, X: NetworkKernel(network, batch_size=1)(X),
    "chunks": lambda network, X: NetworkKernel(network, batch_size=3)(X),
    "features": lambda network, X: (lambda features: features @ features.T)(
        GradientFeaturizer(network).fit_transform(X)
    ),
}
call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def make_samples(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Folding(nn.Linear):
    """Layer with an adapter, which it adds to its weight in eval mode."""

    def __init__(self, how):
        super().__init__(5, 4)
        self.weight.requires_grad_(False)
        self.up, self.down = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 5))
        self.how, self.is_folded = how, False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.is_folded:
            self.is_folded = not mode
            self.how(self.weight, (1 - 2 * mode) * (self.up @ self.down).detach())
        return self

    def forward(self, rows):
        outputs = super().forward(rows)
        return outputs if self.is_folded else outputs + rows @ self.down.T @ self.up.T


def add_in_place(weight, change):
    with torch.no_grad():
        weight.add_(change)


FOLDING = {
    "data": lambda weight, change: weight.data.add_(change),
    "in place": add_in_place,
    "new data": lambda weight, change: setattr(weight, "data", weight.data + change),
    "several": lambda weight, change: torch._foreach_add_([weight.data], [change]),
}


@call
@pytest.mark.parametrize("copyable", [True, False], ids=["copy", "original"])
@pytest.mark.parametrize("how", FOLDING.values(), ids=FOLDING)
def test_layers_that_fold_an_adapter_in_eval_mode(how, copyable, call):
    torch.manual_seed(0)
    network = nn.Sequential(Folding(how), nn.Tanh(), nn.Linear(4, 3)).double().train()
    X = make_samples(7, 5)
    expected = compute_expected(network, X)
    if not copyable:
        make_uncopyable(network)
    before = record_state(network)
    for _ in range(2):
        np.testing.assert_allclose(call(network, X), expected, atol=1e-6)
    assert record_state(network) == before
    assert not network[0].is_folded


def test_a_network_whose_eval_removes_parameters_raises_an_error():
    class Fusing(nn.Linear):
        def train(self, mode=True):
            if not mode:
                del self.bias
                self.bias = None
            return super().train(mode)

    network = nn.Sequential(Fusing(4, 3)).train()
    before = record_state(network)
    with pytest.raises(
        UnsupportedNetworkError, match=r"same parameters.*adds or removes '0\.bias'"
    ):
        NetworkKernel(network)(torch.ones(3, 4))
    assert record_state(network) == before


class Changing(nn.Module):
    """Network that changes its weight in each forward pass, from some pass on."""

    def __init__(self, how, start=0):
        super().__init__()
        self.layer, self.head, self.how = nn.Linear(4, 3), nn.Linear(3, 2), how
        passes = iter(range(start))
        self.is_changing = lambda: next(passes, None) is None

    def forward(self, rows):
        if self.is_changing():
            with torch.no_grad():
                self.how(self)
        return self.head(torch.tanh(self.layer(rows)))


CHANGING = {
    "in place": lambda network: network.layer.weight.mul_(0.9),
    "data": lambda network: network.layer.weight.data.mul_(0.9),
    "detached": lambda network: network.layer.weight.detach().mul_(0.9),
    "rows": lambda network: network.layer.weight[0].zero_(),
    "new data": lambda network: setattr(
        network.layer.weight, "data", network.layer.weight.data * 0.9
    ),
    "new parameter": lambda network: setattr(
        network.layer, "weight", nn.Parameter(network.layer.weight * 0.9)
    ),
    "loaded": lambda network: network.layer.load_state_dict(
        {"weight": torch.ones(3, 4), "bias": torch.ones(3)}
    ),
}


@call
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("copyable", [True, False], ids=["copy", "original"])
@pytest.mark.parametrize("how", CHANGING.values(), ids=CHANGING)
def test_a_forward_pass_that_changes_weights_raises_an_error(how, copyable, start, call):
    network = Changing(how, start).double()
    if not copyable:
        make_uncopyable(network)
    before = record_state(network)
    with pytest.raises(UnsupportedNetworkError, match="must not change its own weights"):
        call(network, make_samples(7, 4))
    assert record_state(network) == before


class ChangingInputs(nn.Module):
    """Network that changes its inputs in place."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.ones(5))  # A parameter without a rule.
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, rows):
        self.how(rows)
        return self.head(torch.tanh(self.body(rows * self.scale)))


def assign_column(rows):
    rows[:, 0] = rows[:, 0] * 2 + 1


CHANGING_INPUTS = {
    "subtract and divide": lambda rows: rows.sub_(0.7).div_(2),
    "clamp": lambda rows: rows.clamp_(-1, 1),
    "column": assign_column,
    "out": lambda rows: torch.mul(rows, 2, out=rows),
    "data": lambda rows: rows.data.add_(1),
    "some samples": lambda rows: rows[rows[:, 0] > 0.5].numel() and rows.add_(1),
}


@call
@pytest.mark.parametrize("copyable", [True, False], ids=["copy", "original"])
@pytest.mark.parametrize("how", list(CHANGING_INPUTS.values())[:-1], ids=list(CHANGING_INPUTS)[:-1])
def test_a_network_may_change_its_inputs_in_place(how, copyable, call):
    torch.manual_seed(0)
    network, X = ChangingInputs(how).double(), make_samples(7, 5)
    expected = compute_expected(network, X)
    if not copyable:
        make_uncopyable(network)
    before = X.clone()
    np.testing.assert_allclose(call(network, X), expected, atol=1e-6)
    assert torch.equal(X, before)


@pytest.mark.parametrize("how", CHANGING_INPUTS.values(), ids=CHANGING_INPUTS)
def test_activations_of_a_network_that_changes_its_inputs(how):
    torch.manual_seed(0)
    network, X = ChangingInputs(how).double(), make_samples(7, 5)
    own = copy.deepcopy(network)
    own.how = lambda rows: None
    Y = X.clone()
    for row in Y:
        how(row[None])
    expected = PerceptualKernel(own, layers=["head"])(Y)
    np.testing.assert_allclose(PerceptualKernel(network, layers=["head"])(X), expected, atol=1e-10)


class Caching(nn.Module):
    """Network with a table that it keeps for the last shape of its inputs."""

    def __init__(self, keep, find, make):
        super().__init__()
        self.keep, self.find, self.make = keep, find, make
        self._tables, self.settings, self.table = {}, Settings(), None
        self.scale = nn.Parameter(torch.ones(1))
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, rows):
        table = self.find(self)
        if table is None or table.shape[:2] != rows.shape[:2]:
            table = self.make(self, rows)
            self.keep(self, table)
        return self.head((torch.tanh(self.body(rows * self.scale)) / table).sum(1))


class Settings:
    table = None


PLACES = {
    "attribute": (lambda n, t: setattr(n, "table", t), lambda n: n.table),
    "private dict": (lambda n, t: n._tables.update(last=t), lambda n: n._tables.get("last")),
    "object": (lambda n, t: setattr(n.settings, "table", t), lambda n: n.settings.table),
    "buffer": (
        lambda n, t: n.register_buffer("kept", t),
        lambda n: n._buffers.get("kept"),
    ),
    "layer": (lambda n, t: setattr(n.body, "table", t), lambda n: getattr(n.body, "table", None)),
}
MAKERS = {
    "inputs": lambda network, rows: torch.ones_like(rows[..., :1]).cumsum(1),
    "weights": lambda network, rows: network.body.weight.new_ones(
        len(rows), rows.shape[1], 1
    ).cumsum(1),
    "with a graph": lambda network, rows: (
        torch.ones_like(rows[..., :1]).cumsum(1) + network.body.weight.sum() ** 2
    ),
}


@call
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("keep", "find"), PLACES.values(), ids=PLACES)
def test_tables_of_the_last_shape_do_not_disturb_later_calls(keep, find, make, call):
    torch.manual_seed(0)
    network, X = Caching(keep, find, make).double(), make_samples(7, 5, 4)
    expected = compute_expected(network, X)
    before = record_state(network)
    for _ in range(2):
        np.testing.assert_allclose(call(network, X), expected, atol=1e-6)
    assert record_state(network) == before


def test_a_table_of_the_first_shape_does_not_disturb_later_calls():
    """The network never replaces its table, so that a table of another batch would fail."""
    network = Caching(*PLACES["attribute"], MAKERS["inputs"]).double()
    network.find = lambda own: own.table if own.table is not None else None
    network.forward = lambda rows: forward_with_first_table(network, rows)
    X = make_samples(7, 5, 4)
    np.testing.assert_allclose(np.diag(NetworkKernel(network, batch_size=3)(X)), 1, atol=1e-6)


def forward_with_first_table(network, rows):
    if network.table is None:
        network.table = torch.ones_like(rows[..., :1]).cumsum(1)
    hidden = torch.tanh(network.body(rows * network.scale)) / network.table
    return network.head(hidden.sum(1))


class Masked(nn.Module):
    """Transformer with padded positions, which torch's fused layers set to zero."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16, padding_idx=0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, tokens):
        hidden = self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0)
        return self.head(hidden.mean(1))


class Branching(nn.Module):
    """Network that computes another function if no gradient is needed."""

    def __init__(self, needs_gradient):
        super().__init__()
        self.needs_gradient = needs_gradient
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, rows):
        hidden = self.body(rows)
        return self.head(torch.tanh(hidden) if self.needs_gradient(hidden) else hidden)


class Differentiating(nn.Module):
    """Network whose outputs contain the derivative of a function in its inputs."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 1)

    def forward(self, rows):
        rows = rows.detach().clone().requires_grad_()
        energy = self.head(torch.tanh(self.body(rows)))
        forces = torch.autograd.grad(energy.sum(), rows, create_graph=True)[0]
        return torch.cat([energy, forces[:, :2]], 1)


def make_tokens():
    tokens = torch.randint(1, 20, (7, 9), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate([2, 3, 9, 5, 7, 4, 6]):
        tokens[row, length:] = 0
    return tokens


MODES = {
    "fused transformer": (Masked, make_tokens),
    "grad mode": (lambda: Branching(lambda hidden: torch.is_grad_enabled()), None),
    "gradient of an activation": (lambda: Branching(lambda hidden: hidden.requires_grad), None),
    "derivative in the inputs": (Differentiating, None),
}


@pytest.mark.parametrize("parameters", [None, "last_layer"])
@pytest.mark.parametrize(("kind", "make"), MODES.values(), ids=MODES)
@call
def test_networks_are_evaluated_in_the_mode_in_which_gradients_are_taken(
    kind, make, parameters, call
):
    torch.manual_seed(0)
    network = kind().double()
    X = make_samples(7, 5) if make is None else make()
    selected = None if parameters is None else "head"
    # All trainable parameters require a gradient, as in training.
    J = naive.jacobians(network, X)
    if selected is not None:
        sizes = [(name, p.numel()) for name, p in network.named_parameters()]
        mask = np.concatenate([np.full(size, name.startswith("head")) for name, size in sizes])
        J = J[..., mask]
    expected = naive.correlation(J, J, EPS)
    with torch.no_grad():
        gram = NetworkKernel(network, parameters=parameters, batch_size=4)(X)
    np.testing.assert_allclose(gram, expected, atol=1e-6)


def test_the_setting_of_fused_transformers_is_restored():
    before = torch.backends.mha.get_fastpath_enabled()
    NetworkKernel(Masked())(make_tokens())
    assert torch.backends.mha.get_fastpath_enabled() == before


@torch.no_grad()
def forward_without_gradients(network, rows):
    return network.head(torch.tanh(network.body(rows)))


@torch.inference_mode()
def forward_in_inference_mode(network, rows):
    return network.head(torch.tanh(network.body(rows)))


WITHOUT_GRAPH = {
    "no_grad": forward_without_gradients,
    "inference_mode": forward_in_inference_mode,
    "detach": lambda network, rows: network.head(network.body(rows)).detach(),
    "numpy": lambda network, rows: torch.tensor(network.head(network.body(rows)).detach().numpy()),
}


@call
@pytest.mark.parametrize("forward", WITHOUT_GRAPH.values(), ids=WITHOUT_GRAPH)
def test_outputs_without_a_graph_raise_an_error(forward, call):
    network = Branching(lambda hidden: True).double()
    network.forward = lambda rows: forward(network, rows)
    with pytest.raises(UnsupportedNetworkError, match=r"without an autograd graph.*no_grad"):
        call(network, make_samples(7, 5))


def test_an_output_that_detaches_raises_an_error():
    with pytest.raises(UnsupportedNetworkError, match=r"from `output`"):
        NetworkKernel(nn.Linear(4, 2), output=lambda raw: raw.detach())(torch.ones(3, 4))


def test_a_part_that_the_outputs_do_not_depend_on_has_zero_gradients():
    network = nn.ModuleDict({"used": nn.Linear(4, 2), "unused": nn.Linear(4, 2)})
    network.forward = lambda rows: network["used"](rows)
    with pytest.warns(UserWarning, match="3 of 3 samples have a zero gradient"):
        assert not NetworkKernel(network, parameters="unused.*")(torch.ones(3, 4)).any()


class Spectral(nn.Module):
    """Network with a complex weight that is used without a layer."""

    def __init__(self):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(3, 5, dtype=torch.cdouble)), None
        self.head = nn.Linear(24, 2).double()

    def forward(self, rows):
        spectrum = torch.fft.rfft(rows.unflatten(1, (3, 8)))[..., :5] * self.weight
        return self.head(torch.fft.irfft(spectrum, n=8).flatten(1))


class ComplexLayers(nn.Module):
    """Network with complex layers and real outputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(12, 4, dtype=torch.cdouble)
        self.head = nn.Linear(4, 2, dtype=torch.cdouble)

    def forward(self, rows):
        hidden = self.body(torch.complex(rows[:, :12], rows[:, 12:]))
        return torch.view_as_real(self.head(hidden * hidden.abs())).flatten(1)


def compute_real_jacobians(network, X):
    """Return the gradients in the real and imaginary parts, by a double loop."""
    parameters, rows = list(network.parameters()), []
    for index in range(len(X)):
        gradients = [
            torch.autograd.grad(output, parameters, retain_graph=True)
            for output in network(X[index : index + 1])[0]
        ]
        rows.append(
            [
                torch.cat(
                    [(torch.view_as_real(g) if g.is_complex() else g).flatten() for g in parts]
                )
                for parts in gradients
            ]
        )
    return np.array([[row.numpy() for row in sample] for sample in rows])


@pytest.mark.parametrize("kind", [Spectral, ComplexLayers])
@call
def test_complex_parameters_count_as_real_and_imaginary_parts(kind, call):
    torch.manual_seed(0)
    network, X = kind(), make_samples(7, 24)
    J = compute_real_jacobians(network, X)
    np.testing.assert_allclose(call(network, X), naive.correlation(J, J, EPS), atol=1e-6)


@pytest.mark.parametrize("kind", [Spectral, ComplexLayers])
def test_densities_and_contributions_of_complex_parameters(kind):
    torch.manual_seed(0)
    network, X = kind(), make_samples(7, 24)
    J = compute_real_jacobians(network, X)
    counts = NetworkDensity(network).fit(X).neighbor_count(X)
    expected = naive.correlation(J, J, EPS)
    np.testing.assert_allclose(counts, expected.sum(1), atol=1e-6)
    contributions = NetworkKernel(network).contributions(X[:3], X[3:6])
    total = sum(values.sum(1) for values in contributions.activities.values())
    np.testing.assert_allclose(total, np.diag(expected[:3, 3:6]), atol=1e-6)
    np.testing.assert_allclose(total, contributions.similarity, atol=1e-6)


@pytest.mark.parametrize("output", ["all", "predicted", "sum", 0])
def test_complex_outputs_raise_an_error(output):
    network = nn.Linear(4, 2, dtype=torch.cfloat)
    network.forward = lambda rows: F.linear(rows.to(torch.cfloat), network.weight, network.bias)
    with pytest.raises(
        UnsupportedNetworkError, match=r"must return floating-point numbers; got torch\.complex64"
    ):
        NetworkKernel(network, output=output)(torch.ones(3, 4))


@call
def test_classes_as_outputs_raise_an_error(call):
    network = Branching(lambda hidden: True).double()
    network.forward = lambda rows: network.head(network.body(rows)).argmax(1, keepdim=True)
    with pytest.raises(UnsupportedNetworkError, match=r"floating-point .* got torch.int64.*logits"):
        call(network, make_samples(7, 5))


class Casting(nn.Module):
    """Half-precision network that names its dtype in its code."""

    def __init__(self, dtype, cast, head=None):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8, dtype=dtype), nn.Linear(8, 2, dtype=head or dtype)
        self.cast = cast

    def forward(self, rows):
        hidden = torch.tanh(self.body(self.cast(rows)))
        return self.head(hidden.to(self.head.weight.dtype))


CASTS = {
    "to": lambda dtype: lambda rows: rows.to(dtype),
    "dtype by name": lambda dtype: lambda rows: rows.to(dtype=dtype),
    "method": lambda dtype: torch.Tensor.half if dtype is torch.float16 else torch.Tensor.bfloat16,
    "type": lambda dtype: lambda rows: rows.type(dtype),
    "new tensor": lambda dtype: lambda rows: rows.to(dtype) + torch.zeros(6, dtype=dtype),
    "mean": lambda dtype: lambda rows: rows - 0 * rows.mean(dtype=dtype),
}


@pytest.mark.parametrize("head", [None, torch.float32], ids=["same head", "float32 head"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", CASTS.values(), ids=CASTS)
def test_half_precision_networks_may_name_their_dtype(make, dtype, head):
    torch.manual_seed(0)
    network = Casting(dtype, make(dtype), head)
    X = make_samples(7, 6).float()
    exact = Casting(torch.float64, lambda rows: rows)
    exact.load_state_dict(network.state_dict())
    J = naive.jacobians(exact, X.double())
    expected = naive.correlation(J, J, EPS)
    before = record_state_of_half(network)
    np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-5)
    assert record_state_of_half(network) == before


def record_state_of_half(network):
    return [value.detach().float().numpy().tobytes() for value in network.state_dict().values()]


def test_a_half_precision_network_that_fails_in_float32_is_named():
    class Viewing(nn.Linear):
        def forward(self, rows):
            return super().forward(rows) @ torch.ones(3, 3)

    with pytest.raises(UnsupportedNetworkError, match=r"evaluated in float32.*\.float\(\)"):
        NetworkKernel(Viewing(4, 2).bfloat16())(torch.ones(3, 4))


class Skipping(nn.Module):
    """Network whose hook keeps an activation in the network that registered it."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.kept = nn.Linear(5, 6), nn.Linear(6, 3), None

        def keep(module, args, output):
            self.kept = output

        self.body.register_forward_hook(keep)

    def forward(self, rows):
        self.body(rows)
        return self.head(torch.tanh(self.kept))


class Viewing(nn.Module):
    """Network whose weights are views of one parameter."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Parameter(torch.randn(42, dtype=torch.float64))
        self.body, self.head = self.flat[:30].view(6, 5), self.flat[30:].view(2, 6)

    def forward(self, rows):
        return torch.tanh(rows @ self.body.T) @ self.head.T


class Attacking(nn.Module):
    """Network that computes a gradient by backward in its forward pass."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def compute(self, rows):
        return self.head(torch.tanh(self.body(rows * self.scale)))

    def forward(self, rows):
        rows = rows.requires_grad_()
        self.compute(rows).sum().backward()
        return self.compute(rows + 0.1 * rows.grad.sign())


class Adapting(nn.Module):
    """Network whose body is adapted to each sample by a derivative in its parameters."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, rows):
        outputs = []
        for row in rows:
            hidden = torch.tanh(self.body(row))
            step = torch.autograd.grad(hidden.square().sum(), self.body.weight, create_graph=True)
            outputs.append(self.head(torch.tanh(F.linear(row, self.body.weight - 0.1 * step[0]))))
        return torch.stack(outputs)


REFERRING = [Skipping, Viewing, Attacking, Adapting]


@call
@pytest.mark.parametrize("kind", REFERRING)
def test_networks_that_refer_to_themselves_or_differentiate_themselves(kind, call):
    torch.manual_seed(0)
    network, X = kind().double(), make_samples(7, 5)
    rebuilt, rows = kind(), []
    for index in range(len(X)):
        rebuilt = kind().double()
        rebuilt.load_state_dict(network.state_dict())
        if kind is Viewing:
            rebuilt.body, rebuilt.head = rebuilt.flat[:30].view(6, 5), rebuilt.flat[30:].view(2, 6)
        rows.append(naive.jacobians(rebuilt, X[index : index + 1].clone()))
    if kind is Viewing:
        network.body, network.head = network.flat[:30].view(6, 5), network.flat[30:].view(2, 6)
    J = np.concatenate(rows)
    before = record_state(network)
    np.testing.assert_allclose(call(network, X), naive.correlation(J, J, EPS), atol=1e-6)
    assert record_state(network) == before


def test_the_head_of_a_network_that_adapts_its_body():
    torch.manual_seed(0)
    network, X = Adapting().double(), make_samples(7, 5)
    J = naive.jacobians(network, X)[..., -21:]
    gram = NetworkKernel(network, parameters="last_layer")(X)
    np.testing.assert_allclose(gram, naive.correlation(J, J, EPS), atol=1e-6)


class Initialising(nn.Module):
    """Network that sets a table by the first batch that it gets."""

    def __init__(self, make, read, write):
        super().__init__()
        self.body, self.head, self.is_set = nn.Linear(5, 6), nn.Linear(6, 3), False
        make(self)
        self.read, self.write = read, write

    def forward(self, rows):
        if not self.is_set:
            self.write(self, rows.detach().mean(0))
            self.is_set = True
        return self.head(torch.tanh(self.body(rows - self.read(self))))


TABLES = {
    "buffer": (
        lambda n: n.register_buffer("table", torch.zeros(5)),
        lambda n: n.table,
        lambda n, mean: n.table.copy_(mean),
    ),
    "tensor in a dict": (
        lambda n: setattr(n, "tables", {"mean": torch.zeros(5, dtype=torch.float64)}),
        lambda n: n.tables["mean"],
        lambda n, mean: n.tables["mean"].copy_(mean),
    ),
    "tensor in a tuple of lists": (
        lambda n: setattr(n, "tables", ([torch.zeros(5, dtype=torch.float64)],)),
        lambda n: n.tables[0][0],
        lambda n, mean: n.tables[0][0].copy_(mean),
    ),
    "array of numpy": (
        lambda n: setattr(n, "table", np.zeros(5)),
        lambda n: torch.from_numpy(n.table.copy()),
        lambda n, mean: n.table.__setitem__(slice(None), mean.numpy()),
    ),
}


@pytest.mark.parametrize("copyable", [True, False], ids=["copy", "original"])
@pytest.mark.parametrize(("make", "read", "write"), TABLES.values(), ids=TABLES)
@call
def test_a_table_that_depends_on_the_first_batch_mixes_samples(make, read, write, copyable, call):
    torch.manual_seed(0)
    network = Initialising(make, read, write).double()
    if not copyable:
        make_uncopyable(network)
    before = record_state(network), torch.as_tensor(read(network)).clone()
    with pytest.raises(UnsupportedNetworkError, match="different outputs for a sample on its own"):
        call(network, make_samples(7, 5))
    assert record_state(network) == before[0]
    assert torch.equal(torch.as_tensor(read(network)), before[1])


class ChangingInBackward(nn.Module):
    """Network that changes a weight while gradients are computed."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, rows):
        hidden = self.body(rows)
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: self.head.weight.data.clamp_(-0.1, 0.1) and None)
        return self.head(torch.tanh(hidden))


def change_head(raw):
    change_head.network.head.weight.data.mul_(0.9)
    return raw


@pytest.mark.parametrize("output", ["all", "predicted"])
def test_a_network_that_changes_weights_in_the_backward_pass_raises_an_error(output):
    torch.manual_seed(0)
    network = ChangingInBackward().double()
    network.forward = ChangingInBackward.forward.__get__(network)
    before = record_state(network)
    with pytest.raises((UnsupportedNetworkError, RuntimeError)):
        NetworkKernel(network, output=output)(make_samples(7, 5))
    assert record_state(network) == before


def test_an_output_that_changes_weights_raises_an_error():
    network = Branching(lambda hidden: True).double()
    change_head.network, before = network, record_state(network)
    with pytest.raises(UnsupportedNetworkError, match="must not change its own weights"):
        NetworkKernel(network, output=change_head)(make_samples(7, 5))
    assert record_state(network) == before


class Drawing(nn.Module):
    """Network that draws numbers, which its outputs do not depend on."""

    def __init__(self, draw):
        super().__init__()
        self.layer, self.draw = nn.Linear(5, 3), draw

    def forward(self, rows):
        return self.layer(rows) + 0 * self.draw()


DRAWS = {
    "torch": lambda: torch.rand(()),
    "numpy": lambda: np.random.uniform(),
    "Python": random.random,
}


@call
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_random_states_are_restored(draw, call):
    network = Drawing(draw).double()
    X = make_samples(7, 5)
    before = record_state(network)
    call(network, X)
    assert record_state(network) == before


def test_a_dataset_may_return_the_same_tensor_each_time():
    class Reusing(torch.utils.data.Dataset):
        def __init__(self, X):
            self.X, self.item = X, torch.empty(5, dtype=torch.float64)

        def __len__(self):
            return len(self.X)

        def __getitem__(self, index):
            return self.item.copy_(self.X[index]), 0

    network, X = nn.Linear(5, 3).double(), make_samples(7, 5)
    np.testing.assert_allclose(NetworkKernel(network)(Reusing(X)), NetworkKernel(network)(X))


def test_weights_cached_by_parametrize_do_not_hide_their_parameters():
    torch.manual_seed(0)
    network, X = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double(), None
    nn.utils.parametrizations.weight_norm(network[0])
    X = make_samples(7, 5)
    expected = NetworkKernel(network)(X)
    with nn.utils.parametrize.cached(), torch.no_grad():
        network(X)
        np.testing.assert_allclose(NetworkKernel(network)(X), expected, atol=1e-10)
