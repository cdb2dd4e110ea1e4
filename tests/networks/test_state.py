"""The state of a network is restored."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sknetsim._networks.state import HOOKS, ModuleState, borrow_and_restore

from ..states import record_state


class Keeping(nn.Module):
    """Network with attributes of many kinds."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls, self.mask = nn.Linear(2, 2), 0, None
        self._cache, self.seen, self.sizes, self.last = {}, [], set(), deque()
        self.nested, self.settings = {"inner": [1]}, SimpleNamespace(table=None, rows=[])
        self.register_buffer("table", torch.zeros(3))
        self.plain = torch.zeros(3)


CHANGES = {
    "number": lambda network: setattr(network, "calls", 1),
    "tensor in place of None": lambda network: setattr(network, "mask", torch.ones(2)),
    "new attribute": lambda network: setattr(network, "other", 1),
    "deleted attribute": lambda network: delattr(network, "calls"),
    "private dict": lambda network: network._cache.update(mask=torch.ones(2)),
    "list": lambda network: network.seen.append(1),
    "set": lambda network: network.sizes.add(1),
    "deque": lambda network: network.last.append(1),
    "container in a container": lambda network: network.nested["inner"].append(2),
    "attribute of an object": lambda network: setattr(network.settings, "table", torch.ones(2)),
    "container of an object": lambda network: network.settings.rows.append(1),
    "attribute of a layer": lambda network: setattr(network.layer, "count", 1),
    "new buffer": lambda network: network.register_buffer("mean", torch.ones(2)),
    "other buffer": lambda network: setattr(network, "table", torch.ones(3)),
    "other parameter": lambda network: setattr(
        network.layer, "weight", nn.Parameter(torch.ones(2, 2))
    ),
    "new layer": lambda network: setattr(network, "head", nn.Tanh()),
    "mode": lambda network: network.train(not network.training),
}

change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def record_attributes(network):
    """Return the attributes of all parts, and their contents, as a text."""
    return [
        f"{name} {id(value)} {value}"
        for part in network.modules()
        for name, value in vars(part).items()
    ]


@change
def test_attributes_are_restored(change):
    network = Keeping()
    before = record_attributes(network)
    state = ModuleState(network)
    assert not state.has_changed()
    change(network)
    assert state.has_changed()
    state.restore()
    assert record_attributes(network) == before


def test_hooks_may_be_left_out():
    network = Keeping()
    state = ModuleState(network, left_out=HOOKS)
    network.register_forward_hook(lambda module, args, output: None)
    assert not state.has_changed()


def test_attributes_that_contain_each_other_are_restored():
    network = Keeping()
    network.nested["itself"] = network.nested
    state = ModuleState(network)
    network.nested.clear()
    state.restore()
    assert network.nested["itself"] is network.nested


CONTENTS = {
    "buffer": lambda network: network.table.add_(1),
    "plain tensor": lambda network: network.plain.add_(1),
    "memory of a parameter": lambda network: setattr(
        network.layer.weight, "data", torch.ones(2, 2)
    ),
    "gradient": lambda network: network.layer(torch.ones(1, 2)).sum().backward(),
    "hook": lambda network: network.register_forward_hook(lambda module, args, output: None),
    **CHANGES,
}


@pytest.mark.parametrize("selected", [None, {"layer.weight"}], ids=["borrowed", "evaluated"])
@pytest.mark.parametrize("change", CONTENTS.values(), ids=CONTENTS)
def test_a_borrowed_network_is_restored(change, selected):
    network = Keeping()
    before = record_state(network), record_attributes(network)
    with pytest.raises(ZeroDivisionError), borrow_and_restore(network, selected):
        change(network)
        raise ZeroDivisionError
    assert (record_state(network), record_attributes(network)) == before


def test_a_borrowed_network_is_in_eval_mode():
    network = Keeping().train()
    with borrow_and_restore(network, None):
        assert not network.training and not network.layer.training
    assert network.training and network.layer.training
