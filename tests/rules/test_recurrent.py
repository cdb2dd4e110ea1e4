"""Recurrent layers and cells of torch, computed with the cotangents at their pre-activations."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sknetsim.rules import _recurrence, recurrent

SAMPLES, STEPS, INPUTS, UNITS, OUTPUTS = 3, 4, 3, 2, 3
LENGTHS = [4, 2, 1]
KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
CELLS = {
    "lstm_cell": nn.LSTMCell,
    "gru_cell": nn.GRUCell,
    "rnn_tanh_cell": nn.RNNCell,
    "rnn_relu_cell": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}
FORMS = {
    "one layer": {},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "time first": {"batch_first": False, "num_layers": 2},
    "without biases": {"bias": False, "bidirectional": True},
    "packed": {"num_layers": 2, "bidirectional": True},
}
CASES = [(kind, form) for kind in KINDS for form in FORMS]
CASES += [("lstm", f"projected {form}") for form in ("bidirectional", "without biases", "packed")]
CASES += [(kind, form) for kind in CELLS for form in ("cell", "cell without biases")]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


class Case:
    """A network, the outputs of torch, and those of this package with the recorded calls."""

    def __init__(self, kind, form):
        torch.manual_seed(0)
        self.function, self.calls = getattr(recurrent, kind), []
        run = self.run_cell if kind in CELLS else self.run_network
        run(kind, form)
        self.parameters = list(self.module.parameters())
        self.inputs = [self.X, *self.states, *self.parameters]
        self.cotangents = [torch.randn_like(output) for output in self.expected]

    def record(self, *arguments):
        self.calls.append(arguments)

    def run_network(self, kind, form):
        options = {"batch_first": True, **FORMS[form.removeprefix("projected ")]}
        if form.startswith("projected"):
            options["proj_size"] = 1
        module = self.module = KINDS[kind](INPUTS, UNITS, **options).double()
        first = (SAMPLES, STEPS) if module.batch_first else (STEPS, SAMPLES)
        count = module.num_layers * (2 if module.bidirectional else 1)
        widths = [module.proj_size or UNITS, UNITS][: 2 if kind == "lstm" else 1]
        self.X = draw(*first, INPUTS)
        self.states = [draw(count, SAMPLES, width) for width in widths]
        states = tuple(self.states) if kind == "lstm" else self.states[0]
        settings = (module._flat_weights, module.bias, module.num_layers, 0.0, True)
        if form.endswith("packed"):
            packed = pack_padded_sequence(self.X, LENGTHS, batch_first=True)
            data, sizes = packed.data, packed.batch_sizes
            steps, last = module(packed, states)
            outputs = self.function(
                self.record, data, sizes, states, *settings, module.bidirectional
            )
            steps, mine = unpack(steps), unpack(PackedSequence(outputs[0], sizes))
        else:
            steps, last = module(self.X, states)
            flags = (module.bidirectional, module.batch_first)
            outputs = self.function(self.record, self.X, states, *settings, *flags)
            mine = outputs[0]
        if not module.batch_first:
            steps, mine = steps.transpose(0, 1), mine.transpose(0, 1)
        # All outputs have the samples first.
        last = last if kind == "lstm" else (last,)
        self.expected = [steps, *(state.transpose(0, 1) for state in last)]
        self.outputs = [mine, *(state.transpose(0, 1) for state in outputs[1:])]

    def run_cell(self, kind, form):
        module = self.module = CELLS[kind](INPUTS, UNITS, bias=form == "cell").double()
        self.X = draw(SAMPLES, INPUTS)
        self.states = [draw(SAMPLES, UNITS) for _ in range(2 if kind == "lstm_cell" else 1)]
        states = tuple(self.states) if kind == "lstm_cell" else self.states[0]
        weights = (module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)
        pairs = (module(self.X, states), self.function(self.record, self.X, states, *weights))
        self.expected, self.outputs = (
            list(pair) if kind == "lstm_cell" else [pair] for pair in pairs
        )

    def differentiate(self, outputs, inputs, cotangents, **options):
        return torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True, **options)


def unpack(packed):
    return pad_packed_sequence(packed, batch_first=True)[0]


make_case = cache(Case)
each_case = pytest.mark.parametrize(("kind", "form"), CASES)


def assert_all_close(values, expected):
    torch.testing.assert_close(list(values), list(expected), rtol=1e-10, atol=1e-10)


@each_case
def test_outputs_equal_those_of_torch(kind, form):
    case = make_case(kind, form)
    assert_all_close(case.outputs, case.expected)


@each_case
def test_gradients_equal_those_of_torch(kind, form):
    case = make_case(kind, form)
    pair = (case.outputs, case.expected)
    assert_all_close(*(case.differentiate(z, case.inputs, case.cotangents) for z in pair))


@each_case
def test_factors_give_the_gradients_of_each_sample(kind, form):
    case = make_case(kind, form)
    points = [call[3] for call in case.calls]
    gradients = {}
    deltas = case.differentiate(case.outputs, points, case.cotangents)
    for (inputs, weight, bias, _), delta in zip(case.calls, deltas, strict=True):
        assert inputs.shape[:-1] == delta.shape[:-1]
        time = "" if kind in CELLS else "t"
        gradients[weight] = torch.einsum(f"{time}nj,{time}ni->nji", delta, inputs)
        if bias is not None:
            gradients[bias] = torch.einsum(f"{time}nj->nj", delta)
    rows = []
    for n in range(SAMPLES):
        cotangents = [
            torch.zeros_like(z).index_copy(0, torch.tensor([n]), z[n : n + 1])
            for z in case.cotangents
        ]
        rows.append(case.differentiate(case.expected, case.parameters, cotangents))
    expected = [torch.stack(parts) for parts in zip(*rows, strict=True)]
    assert_all_close((gradients[parameter] for parameter in case.parameters), expected)


@each_case
def test_cotangents_of_several_outputs_equal_those_of_each(kind, form):
    case = make_case(kind, form)
    inputs = [*case.states, *case.parameters, *(call[3] for call in case.calls)]
    several = [torch.randn(OUTPUTS, *z.shape, dtype=z.dtype) for z in case.outputs]
    batched = torch.func.vmap(lambda z: case.differentiate(case.outputs, inputs, z))(several)
    for o in range(OUTPUTS):
        single = case.differentiate(case.outputs, inputs, [z[o] for z in several])
        assert_all_close((z[o] for z in batched), single)


@each_case
def test_second_derivatives_equal_those_of_torch(kind, form):
    case = make_case(kind, form)
    derivatives = []
    for outputs in (case.outputs, case.expected):
        gradients = case.differentiate(outputs, case.inputs, case.cotangents, create_graph=True)
        derivatives.append(
            case.differentiate(sum(z.pow(3).sum() for z in gradients), case.inputs, None)
        )
    assert_all_close(*derivatives)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_reach_the_recorded_tensors(kind):
    """The losses differentiate the products of the recorded inputs and cotangents."""
    case = make_case(kind, "bidirectional")
    deltas = case.differentiate(
        case.outputs, [call[3] for call in case.calls], case.cotangents, create_graph=True
    )
    norm = sum(
        (delta.flatten(0, 1).mT @ call[0].flatten(0, 1)).square().sum()
        for call, delta in zip(case.calls, deltas, strict=True)
    )
    weights = [p for p in case.parameters if p.ndim == 2]
    gradients = case.differentiate(case.expected, weights, case.cotangents, create_graph=True)
    expected = sum(gradient.square().sum() for gradient in gradients)
    pair = (norm, expected)
    assert_all_close(*(case.differentiate(z, case.inputs, None) for z in pair))


def test_second_derivatives_of_several_outputs_equal_those_of_each():
    case = make_case("gru", "bidirectional")
    several = [torch.randn(OUTPUTS, *z.shape, dtype=z.dtype) for z in case.outputs]
    points = [call[3] for call in case.calls]

    def differentiate(cotangents):
        return case.differentiate(case.outputs, points, cotangents, create_graph=True)

    batched = sum(z.pow(3).sum() for z in torch.func.vmap(differentiate)(several))
    singles = sum(
        z.pow(3).sum() for o in range(OUTPUTS) for z in differentiate([c[o] for c in several])
    )
    assert_all_close(*(case.differentiate(z, case.inputs, None) for z in (batched, singles)))


def test_the_products_for_weights_run_only_on_request(monkeypatch):
    case = make_case("lstm", "bidirectional")

    def fail(*arguments):
        raise AssertionError

    monkeypatch.setattr(_recurrence.Link, "backward", fail)
    points = [call[3] for call in case.calls]
    case.differentiate(case.outputs, points, case.cotangents)


def run_gru(record, module, X, dropout=0.0):
    state = X.new_zeros(module.num_layers, len(X), UNITS)
    settings = (module._flat_weights, True, module.num_layers, dropout, True, False, True)
    return recurrent.gru(record, X, state, *settings)


def test_dropout_is_not_implemented():
    calls = []
    module = nn.GRU(INPUTS, UNITS, 2, batch_first=True)
    X = torch.randn(SAMPLES, STEPS, INPUTS)
    result = run_gru(lambda *arguments: calls.append(arguments), module, X, dropout=0.5)
    assert result is NotImplemented
    assert calls == []


def test_cotangents_exist_if_only_some_parameters_require_gradients():
    module = nn.GRU(INPUTS, UNITS, batch_first=True).requires_grad_(False)
    module.bias_ih_l0.requires_grad_()
    calls = []
    X = torch.randn(SAMPLES, STEPS, INPUTS)
    outputs, _ = run_gru(lambda *arguments: calls.append(arguments), module, X)
    deltas = torch.autograd.grad(outputs.sum(), [call[3] for call in calls])
    assert all(delta.abs().sum() > 0 for delta in deltas)


def test_outputs_in_float32_without_gradients_equal_those_of_torch():
    module = nn.GRU(INPUTS, UNITS, batch_first=True)
    X = torch.randn(SAMPLES, STEPS, INPUTS)
    with torch.no_grad():
        outputs = run_gru(lambda *arguments: None, module, X)
        torch.testing.assert_close(outputs, module(X))
