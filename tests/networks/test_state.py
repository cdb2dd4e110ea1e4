"""The state of a network is restored, and writes into tensors are recorded before they happen."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sknetsim._networks.isolation import borrow_and_restore
from sknetsim._networks.state import HOOKS, ModuleState, Writes

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


WRITES = {
    "in place": lambda tensor: tensor.mul_(2),
    "data": lambda tensor: tensor.data.mul_(2),
    "detach": lambda tensor: tensor.detach().mul_(2),
    "view": lambda tensor: tensor[1:].view(-1).add_(1),
    "item": lambda tensor: tensor.__setitem__(0, 5.0),
    "copy": lambda tensor: tensor.copy_(torch.ones(3)),
    "out": lambda tensor: torch.add(torch.ones(3), 1, out=tensor),
    "several tensors": lambda tensor: torch._foreach_mul_([torch.ones(1), tensor], 2.0),
    "fill": lambda tensor: torch.nn.init.zeros_(tensor),
    "random": lambda tensor: tensor.normal_(generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@torch.no_grad()
def test_the_contents_before_a_write_are_restored(write):
    tensor = torch.arange(3.0)
    writes = Writes([tensor])
    with writes:
        write(tensor)
    assert [saved is tensor for saved, _ in writes.saved] == [True]
    assert not torch.equal(tensor, torch.arange(3.0))
    writes.restore()
    assert torch.equal(tensor, torch.arange(3.0))


def test_the_contents_before_the_first_of_several_writes_are_restored():
    tensor = torch.arange(3.0)
    with Writes([tensor]) as writes:
        tensor.mul_(2).mul_(3)
    writes.restore()
    assert torch.equal(tensor, torch.arange(3.0))


def test_contents_are_restored_after_an_exception():
    tensor = torch.arange(3.0)
    writes = Writes([tensor])
    with pytest.raises(RuntimeError), writes:
        tensor.mul_(2)
        torch.ones(2) @ torch.ones(3)
    writes.restore()
    assert torch.equal(tensor, torch.arange(3.0))


READS = {
    "function": lambda tensor: tensor.mul(2),
    "copy": lambda tensor: tensor.clone().mul_(2),
    "matrix product": lambda tensor: tensor @ tensor,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reads_are_not_recorded(read):
    tensor = torch.arange(3.0)
    writes = Writes([tensor])
    with writes:
        read(tensor)
    assert not writes.saved


def test_a_restored_tensor_keeps_its_version():
    tensor = torch.arange(3.0)
    writes = Writes([tensor])
    with writes:
        tensor.mul_(2)
    version = tensor._version
    writes.restore()
    assert tensor._version == version
