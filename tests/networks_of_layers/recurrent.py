"""Recurrent layers and cells.

Index legend: n samples, t positions, i features.
"""

import warnings

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..cases import Case, normal
from .common import FEATURES, POSITIONS, WIDTH, make_case

KINDS = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "RNN with ReLU": (nn.RNN, {"nonlinearity": "relu"}),
}
DEEP = {"num_layers": 2, "bidirectional": True}
HIDDEN = 3
FIRST_LAYER = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def make_layer(kind, **options):
    """Return a function that makes a recurrent layer in a dict."""
    layer, own = KINDS[kind]
    return lambda: {"layer": layer(WIDTH, HIDDEN, **own, **options)}


def run(p, h):
    """Return the outputs of the layer, which has the samples first."""
    return p.layer(h)[0]


def run_time_first(p, h):
    """Return the outputs of the layer, which has the positions first."""
    return p.layer(h.transpose(0, 1))[0].transpose(0, 1)


def read_state(p, h):
    """Return the last states of the layer."""
    _, state = p.layer(h)
    states = torch.cat(state, dim=2) if isinstance(state, tuple) else state
    return states.transpose(0, 1)


def start_from_data(p, h):
    """Return the outputs of a layer whose first states are functions of the samples."""
    state = p.start(h[:, 0]).view(len(h), -1, HIDDEN).transpose(0, 1).contiguous()
    return p.layer(h, (state, state.tanh()) if isinstance(p.layer, nn.LSTM) else state)[0]


def start_from_parameters(p, h):
    """Return the outputs of a layer whose first states are raw parameters."""
    state = p.first.expand(-1, len(h), -1).contiguous()
    return p.layer(h, (state, state.tanh()) if isinstance(p.layer, nn.LSTM) else state)[0]


def run_packed(p, h):
    """Return the outputs of a layer on sequences of several lengths, in any order."""
    packed = pack_padded_sequence(h, measure_lengths(h), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(p.layer(packed)[0], batch_first=True, total_length=h.shape[1])[0]


def run_packed_and_sorted(p, h):
    """Return the outputs of a layer on sequences, sorted by their lengths, with positions first."""
    lengths, order = measure_lengths(h).sort(descending=True, stable=True)
    packed = pack_padded_sequence(h[order].transpose(0, 1), lengths)
    outputs = pad_packed_sequence(p.layer(packed)[0], total_length=h.shape[1])[0]
    return outputs.transpose(0, 1)[order.argsort()]


def read_packed_state(p, h):
    """Return the last states of a layer on sequences of several lengths."""
    packed = pack_padded_sequence(h, measure_lengths(h), batch_first=True, enforce_sorted=False)
    return p.layer(packed)[1].transpose(0, 1)


def measure_lengths(h):
    """Return a length between 1 and t for each sample (n,)."""
    return 1 + (10 * h[:, 0, 0].detach().abs()).long() % h.shape[1]


def run_on_windows(p, h):
    """Return the outputs of a layer that reads two windows of each sample as sequences."""
    windows = h.reshape(2 * len(h), -1, WIDTH)
    return p.layer(windows)[0].reshape(len(h), -1)


def run_twice(p, h):
    """Return the outputs of a layer that continues from its own state."""
    _, state = p.layer(h[:, :2])
    return p.layer(h[:, 2:], state)[0]


class Unrolled(nn.Module):
    """Network that calls a cell at each position; ``bidirectional`` adds a cell from the end."""

    def __init__(self, kind, first=False, stacked=False):
        super().__init__()
        self.cells = nn.ModuleList([kind(FEATURES, HIDDEN)])
        if stacked:
            self.cells.append(kind(HIDDEN, HIDDEN))
        self.first = nn.Parameter(torch.randn(HIDDEN)) if first else None
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, sequences):
        states = [self._start(len(sequences), cell) for cell in self.cells]
        for position in sequences.unbind(1):
            hidden = position
            for index, cell in enumerate(self.cells):
                states[index] = cell(hidden, states[index])
                hidden = states[index][0] if isinstance(states[index], tuple) else states[index]
        return self.head(hidden)

    def _start(self, count, cell):
        """Return the first state of a cell."""
        if self.first is None:
            return None
        state = self.first.expand(count, -1)
        return (state, state) if isinstance(cell, nn.LSTMCell) else state


class Translator(nn.Module):
    """Encoder and decoder of GRUs, with attention to the encoder's outputs at each step."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 5)
        self.encoder = nn.GRU(5, 3, batch_first=True, bidirectional=True)
        self.start = nn.Linear(6, 4)
        self.keys = nn.Linear(6, 4, bias=False)
        self.decoder = nn.GRUCell(5 + 6, 4)
        self.head = nn.Linear(4 + 6, 9)

    def forward(self, words):
        values, _ = self.encoder(self.embed(words))
        state, outputs = torch.tanh(self.start(values[:, -1])), []
        for word in words.flip(1).unbind(1)[:2]:
            scores = torch.einsum("nti,ni->nt", self.keys(values), state)
            context = torch.einsum("nt,nti->ni", scores.softmax(1), values)
            state = self.decoder(torch.cat([self.embed(word), context], 1), state)
            outputs.append(self.head(torch.cat([state, context], 1)))
        return torch.stack(outputs, 1)[..., :1].flatten(1)


class ConvolutionalLSTM(nn.Module):
    """LSTM whose gates are convolutions of images."""

    def __init__(self):
        super().__init__()
        self.gates = nn.Conv2d(1 + 2, 8, 3, padding=1)
        self.head = nn.Linear(2, 2)

    def forward(self, videos):
        hidden = cell = videos.new_zeros(len(videos), 2, *videos.shape[-2:])
        for image in videos.unbind(1):
            gates = self.gates(torch.cat([image[:, None], hidden], 1)).chunk(4, 1)
            read, forget, write = (gate.sigmoid() for gate in gates[:3])
            cell = forget * cell + read * gates[3].tanh()
            hidden = write * cell.tanh()
        return self.head(hidden.mean((2, 3)))


def make_normalized():
    """Make an LSTM whose recurrent weight is normalised by a hook."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = nn.LSTM(WIDTH, HIDDEN, batch_first=True)
        return {"layer": nn.utils.weight_norm(layer, "weight_hh_l0")}


def make_frozen(kind, *names):
    """Return a function that makes a recurrent layer with frozen parameters in a dict."""

    def make():
        layer = make_layer(kind, batch_first=True, num_layers=2)()["layer"]
        for name in names:
            getattr(layer, name).requires_grad_(False)
        return {"layer": layer}

    return make


def make_kinds():
    """Yield the cases of each kind of recurrent layer."""
    for kind in KINDS:
        yield make_case(f"{kind}, deep", run, make_layer(kind, batch_first=True, **DEEP))
        yield make_case(f"{kind}, deep, time first", run_time_first, make_layer(kind, **DEEP))
    for kind in ("LSTM", "GRU", "RNN"):
        layer = make_layer(kind, batch_first=True)
        two = make_layer(kind, batch_first=True, bidirectional=True)
        yield make_case(f"{kind}, state", read_state, make_layer(kind, batch_first=True, **DEEP))
        yield make_case(f"{kind} without bias", run, make_layer(kind, batch_first=True, bias=False))
        yield make_case(
            f"{kind}, first state from the samples",
            start_from_data,
            lambda two=two: {"start": nn.Linear(WIDTH, 2 * HIDDEN), **two()},
        )
        yield make_case(
            f"{kind}, first state from parameters", start_from_parameters, two, first=(2, 1, HIDDEN)
        )
        yield make_case(f"{kind}, packed", run_packed, make_layer(kind, batch_first=True, **DEEP))
        yield make_case(
            f"{kind}, packed and sorted", run_packed_and_sorted, make_layer(kind, **DEEP)
        )
        yield make_case(f"{kind}, windows of each sample", run_on_windows, layer)
        yield make_case(f"{kind} that continues", run_twice, layer)
    for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        draw = normal(POSITIONS, FEATURES)
        yield Case(kind.__name__, lambda kind=kind: Unrolled(kind), draw)
        yield Case(
            f"{kind.__name__}, stacked", lambda kind=kind: Unrolled(kind, stacked=True), draw
        )
        yield Case(
            f"{kind.__name__}, first state from parameters",
            lambda kind=kind: Unrolled(kind, first=True),
            draw,
        )


CASES = [
    *make_kinds(),
    make_case("LSTM, projected", run, make_layer("LSTM", batch_first=True, proj_size=2, **DEEP)),
    make_case(
        "LSTM, projected, state", read_state, make_layer("LSTM", batch_first=True, proj_size=2)
    ),
    make_case("GRU, packed, state", read_packed_state, make_layer("GRU", batch_first=True, **DEEP)),
    make_case("LSTM, half frozen", run, make_frozen("LSTM", "weight_ih_l0", "bias_hh_l1")),
    make_case("GRU, half frozen", run, make_frozen("GRU", "weight_hh_l0", "bias_ih_l0")),
    make_case("RNN, first layer frozen", run, make_frozen("RNN", *FIRST_LAYER)),
    make_case("LSTM with weight_norm", run, make_normalized),
    Case(
        "GRU with attention, translator", Translator, lambda n: torch.randint(0, 9, (n, POSITIONS))
    ),
    Case("convolutional LSTM", ConvolutionalLSTM, normal(3, 4, 4)),
]
