"""Writes into tensors that are recorded before they happen."""

import pytest
import torch

from sknetsim._networks.writes import Writes

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


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@torch.no_grad()
def test_writes_into_watched_tensors_are_recorded(write):
    tensor = torch.arange(3.0)
    writes = Writes([], [tensor])
    with writes:
        write(tensor)
    assert writes.wrote_watched and not writes.saved


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
    writes = Writes([tensor], [tensor])
    with writes:
        read(tensor)
    assert not writes.saved and not writes.wrote_watched


def test_a_restored_tensor_keeps_its_version():
    tensor = torch.arange(3.0)
    writes = Writes([tensor])
    with writes:
        tensor.mul_(2)
    version = tensor._version
    writes.restore()
    assert tensor._version == version
