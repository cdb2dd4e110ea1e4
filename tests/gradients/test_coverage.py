"""Coverage of networks by rules: the method, the functions and the reason of each parameter."""

import re
import string

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.checkpoint import checkpoint

from sknetsim import (
    NetworkKernel,
    ParameterCoverage,
    RuleCoverage,
    UnsupportedNetworkError,
    register_rule,
    rule_coverage,
)
from sknetsim.rules import DenseBlock, _registry, layout_of

from ..networks_of_layers.routes import Product

SAMPLES, FEATURES = 12, 4


class Net(nn.Module):
    """Network of a linear layer, a function of its values and of a parameter W, and a head."""

    def __init__(self, compute=lambda hidden, W: hidden @ W, W=(FEATURES, FEATURES)):
        super().__init__()
        self.compute = compute
        self.body, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, 2)
        self.W = W if isinstance(W, nn.Parameter) else nn.Parameter(torch.randn(W))

    def forward(self, samples):
        return self.head(torch.tanh(self.compute(self.body(samples), self.W)))


def run_each_sample(hidden, W):
    """Return a product for one sample at a time."""
    return torch.stack([row @ W for row in hidden])


def change_after_call(hidden, W):
    """Return a sum of which one term is changed after the addition."""
    term = hidden.detach().clone()
    result = term + W[0]
    term.zero_()
    return hidden * result


def use_both_outputs(hidden, W):
    """Return the sum of both outputs of one function."""
    return sum(torch.broadcast_tensors(hidden, W[0]))


def run_reentrant(hidden, W):
    """Return a product that a reentrant checkpoint computes again in the backward pass."""
    return checkpoint(lambda values: values @ W, hidden, use_reentrant=True)


def take_largest(hidden, W):
    """Return the largest of the rows of W that the order of the hidden values chooses."""
    return hidden + nn.functional.embedding_bag(hidden.argsort(1)[:, :2], W, mode="max")


#: Layers of a block and their numbers of elements.
PARTS = [("mlp", 1), ("attention", 4)]


def draw():
    return torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(0))


def measure(compute=lambda hidden, W: hidden @ W, W=(FEATURES, FEATURES)):
    """Return the coverage of a network, and that of its parameter W."""
    torch.manual_seed(0)
    coverage = rule_coverage(Net(compute, W), draw())
    return coverage, next(entry for entry in coverage.parameters if entry.name == "W")


METHODS = {
    "rule": lambda hidden, W: hidden @ W,
    "call": lambda hidden, W: hidden * W.diag(),
    "vmap": run_each_sample,
    "loop": Product.apply,
    "none": lambda hidden, W: hidden,
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_named(method):
    coverage, entry = measure(METHODS[method])
    assert entry.method == method
    assert {other.method for other in coverage.parameters if other is not entry} == {"rule"}


@pytest.mark.parametrize(
    ("compute", "functions"),
    [
        (lambda hidden, W: hidden @ W, ("matmul",)),
        (lambda hidden, W: nn.functional.linear(hidden, W.exp()) * W[0], ("linear", "mul")),
        (run_each_sample, ("matmul",)),
        (Product.apply, ()),
        (lambda hidden, W: hidden, ()),
    ],
    ids=["one", "two, of derived tensors", "one sample at a time", "autograd.Function", "unused"],
)
def test_functions_on_samples_are_named(compute, functions):
    assert measure(compute)[1].functions == functions


def test_recurrent_layers_are_named():
    network = nn.GRUCell(FEATURES, 3)
    functions = {entry.functions for entry in rule_coverage(network, draw()).parameters}
    assert functions == {("gru_cell",)}


class Scale(nn.Module):
    """Layer with a parameter that belongs to no function of torch with a rule."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(FEATURES))

    def forward(self, inputs):
        return inputs * self.weight


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (Product.apply, "such as an autograd.Function"),
        (run_each_sample, "the axis of the samples in its call of matmul is not known"),
        (run_reentrant, "use_reentrant=False"),
        (change_after_call, "changes an argument of its call of add in place"),
        (use_both_outputs, "uses several outputs of its call of broadcast_tensors"),
        (take_largest, "no rule covers its call of embedding_bag"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_reason_of_the_fallback_is_given(compute, reason):
    coverage, entry = measure(compute)
    assert reason in entry.reason
    assert f": {entry.reason}." in str(coverage)


def test_a_complex_parameter_is_a_reason():
    W = nn.Parameter(torch.randn(FEATURES, FEATURES, dtype=torch.complex64))
    entry = measure(lambda hidden, W: (hidden.to(W.dtype) @ W).real, W)[1]
    assert "complex" in entry.reason


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("is_whole", [True, False], ids=["network", "layer"])
def test_a_scripted_module_is_a_reason(is_whole):
    torch.manual_seed(0)
    scripted = torch.jit.script(nn.Sequential(nn.Linear(FEATURES, 2)))
    network = scripted if is_whole else nn.Sequential(scripted, nn.Linear(2, 2))
    entries = rule_coverage(network, draw()).parameters
    assert ["scripted" in entry.reason for entry in entries[:2]] == [True, True]


def test_a_wrong_rule_is_a_reason(monkeypatch):
    monkeypatch.setitem(_registry._layers, Scale, None)
    register_rule(Scale, parameters=["weight"])(
        lambda module, inputs, cotangents, names: [
            DenseBlock(layout_of(module, names), 2 * cotangents * inputs[:, None])
        ]
    )
    entry = rule_coverage(Scale(), draw()).parameters[0]
    assert (entry.method, entry.functions) == ("vmap", ("Scale",))
    assert "differ from those of autograd" in entry.reason


@pytest.mark.parametrize("count", [2, FEATURES, FEATURES + 1])
def test_one_sample_at_a_time_is_left_to_the_fallback_for_any_number_of_samples(count):
    """An axis of features may be as long as that of the samples."""
    torch.manual_seed(0)
    network = Net(lambda hidden, W: torch.stack([nn.functional.linear(row, W) for row in hidden]))
    assert rule_coverage(network, draw()[:count]).parameters[0].method == "vmap"


def test_parameters_are_in_the_order_of_the_network_with_their_sizes():
    torch.manual_seed(0)
    network = Net()
    entries = rule_coverage(network, draw()).parameters
    expected = [(name, parameter.numel()) for name, parameter in network.named_parameters()]
    assert [(entry.name, entry.n_elements) for entry in entries] == expected


def test_only_the_selected_parameters_are_reported():
    torch.manual_seed(0)
    entries = rule_coverage(Net(), draw(), parameters="last_layer").parameters
    assert [entry.name for entry in entries] == ["head.weight", "head.bias"]


def test_shares_of_elements_sum_to_one():
    coverage = measure(METHODS["call"])[0]
    # 16 of 20 + 16 + 10 elements are those of W.
    assert coverage.shares == pytest.approx(
        {"none": 0, "rule": 30 / 46, "call": 16 / 46, "vmap": 0, "loop": 0}
    )


def test_rules_take_no_time_of_the_fallback():
    assert measure()[0].fallback_time == 0


def test_the_fallback_takes_a_share_of_the_time():
    assert 0 < measure(Product.apply)[0].fallback_time < 1


def test_a_method_of_some_chunks_only_is_noted():
    torch.manual_seed(0)
    network = Net(
        lambda hidden, W: hidden @ W.diag().diag() if len(hidden) == 8 else hidden * W.diag()
    )
    entries = rule_coverage(network, draw(), batch_size=8).parameters
    assert entries[0] == ParameterCoverage("W", 16, "call", ("matmul", "mul"))


def test_the_network_does_not_change():
    torch.manual_seed(0)
    network = Net(Product.apply).train()
    network.W.grad = torch.ones_like(network.W)
    network.head.bias.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    rule_coverage(network, draw())
    assert network.training
    assert torch.equal(network.W.grad, torch.ones(FEATURES, FEATURES))
    assert not network.head.bias.requires_grad
    for own, other in zip(network.parameters(), before, strict=True):
        assert torch.equal(own, other)


def test_a_pipeline_with_a_trained_net_is_covered():
    X = draw().numpy()
    y = np.arange(SAMPLES) % 2
    net = NeuralNetClassifier(
        Net, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    )
    pipeline = make_pipeline(StandardScaler(), net).fit(X, y)
    assert rule_coverage(pipeline, X, y, output="loss").shares["rule"] == 1


def test_flat_rows_get_their_shape():
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten())
    functions = rule_coverage(network, draw(), input_shape=(1, 2, 2)).parameters[0].functions
    assert functions == ("conv2d",)


def make_coverage(*entries):
    """Return a coverage of parameters with some names and numbers of elements."""
    parameters = (ParameterCoverage(name, count, "rule", ("linear",)) for name, count in entries)
    return RuleCoverage(tuple(parameters), 0.0)


def list_cells(coverage):
    """Return the first two columns of the table, without its heading."""
    lines = str(coverage).splitlines()[4:]
    return [tuple(re.split("  +", line)[:2]) for line in lines]


def test_the_table_has_a_row_for_each_layer_with_the_largest_first():
    coverage = make_coverage(("a.weight", 4), ("a.bias", 2), ("b.c.weight", 9), ("d", 1))
    assert list_cells(coverage) == [
        ("b.c", "weight"),
        ("a", "weight, bias"),
        ("(network)", "d"),
    ]


def test_many_layers_that_differ_by_numbers_share_a_row():
    names = [(f"layers.{i}.{part}.weight", size) for i in range(9) for part, size in PARTS]
    names += [("layers.0.norm1.weight", 1)]
    assert list_cells(make_coverage(*names)) == [
        ("layers.*.attention (9)", "weight"),
        ("layers.*.mlp (9)", "weight"),
        ("layers.0.norm1", "weight"),
    ]


def test_a_long_table_is_cut_off():
    coverage = make_coverage(*((f"{letter}.weight", 1) for letter in string.ascii_letters))
    assert list_cells(coverage)[-1] == ("... 28 more", "28")


def test_small_shares_are_not_shown_as_zero():
    assert "< 1 %" in str(make_coverage(("a.weight", 1000), ("b.weight", 1)))


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (None, NotFittedError, "`estimator` must be a trained network; got None"),
        ("features", NotFittedError, "`estimator` must be a trained network; got 'features'"),
        (NeuralNetClassifier(Net), NotFittedError, "which is not trained"),
        (Net, TypeError, "got the class Net, not an instance"),
        (NetworkKernel(), TypeError, "got a NetworkKernel"),
    ],
    ids=["None", "features", "untrained", "class", "estimator of this package"],
)
def test_what_is_no_trained_network_raises_an_error(estimator, error, message):
    with pytest.raises(error, match=message):
        rule_coverage(estimator, draw())


def test_no_samples_raise_an_error():
    with pytest.raises(ValueError, match="`X` must contain at least 1 sample; got 0"):
        rule_coverage(Net(), draw()[:0])


def test_labels_of_another_number_raise_an_error():
    with pytest.raises(ValueError, match=r"`y` must have 12 labels, .*; got shape \(13,\)"):
        rule_coverage(Net(), draw(), np.zeros(SAMPLES + 1))


def test_unknown_parameters_raise_an_error():
    with pytest.raises(ValueError, match="`parameters` must be"):
        rule_coverage(Net(), draw(), parameters="tail.weight")


def test_a_network_that_mixes_samples_raises_an_error():
    with pytest.raises(UnsupportedNetworkError, match="depend only on that sample"):
        rule_coverage(Net(lambda hidden, W: hidden @ W - hidden.mean(0)), draw())
