"""Blocks, Jacobians and roots on a device that is not the CPU, without such a device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sknetsim._kernels.jacobian import Jacobian, concatenate_jacobians
from sknetsim._kernels.whitening import METRICS, WHITENINGS, inverse_root, reduce_kernel

from .random_blocks import OUTPUTS, QUANTITIES, draw, kinds, split_by_layout


def move(value, device):
    """Return the same object with empty tensors on a device."""
    if isinstance(value, list):
        return [move(item, device) for item in value]
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device=device)
    fields = {
        name: move(field, device) if isinstance(field, torch.Tensor) else field
        for name, field in vars(value).items()
    }
    return type(value)(**fields)


def get_item(tensor, key):
    """Index through torch's dispatcher; Python's own indexing needs the driver of the device."""
    axis = 0
    key = key if isinstance(key, tuple) else (key,)
    rest = tensor.ndim - sum(item is not None and item is not Ellipsis for item in key)
    for item in key:
        if item is Ellipsis:
            axis += rest
        elif item is None:
            tensor, axis = tensor.unsqueeze(axis), axis + 1
        elif isinstance(item, slice):
            start, stop, step = item.indices(tensor.shape[axis])
            tensor, axis = torch.ops.aten.slice(tensor, axis, start, stop, step), axis + 1
        elif isinstance(item, int):
            tensor = tensor.select(axis, item)
        else:
            tensor = torch.ops.aten.index(tensor, [None] * axis + [item])
            axis += item.ndim
    return tensor


def set_item(tensor, indices, values):
    torch.ops.aten.index_put_(tensor, [indices], values)


@pytest.fixture
def fake_devices(monkeypatch):
    """Tensors on devices that do not exist; an operation on two devices raises an error."""
    monkeypatch.setattr(torch.Tensor, "__getitem__", get_item)
    monkeypatch.setattr(torch.Tensor, "__setitem__", set_item)
    with FakeTensorMode() as mode:
        yield mode


def test_an_operation_on_two_fake_devices_raises_an_error(fake_devices):
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        torch.empty(2, 3, device="cuda") + torch.empty(2, 3)


@kinds
def test_quantities_of_blocks_stay_on_their_device(make, request):
    drawn = draw(make)
    request.getfixturevalue("fake_devices")
    on_gpu = [move(value, "cuda") for value in drawn]
    for compute in QUANTITIES.values():
        assert compute(*on_gpu).device.type == "cuda"


@kinds
def test_quantities_of_jacobians_stay_on_their_device(make, request):
    block, other, _, weights, vectors, maps = draw(make)
    request.getfixturevalue("fake_devices")
    names = tuple(name for name, _ in block.layout)
    first, second = (
        Jacobian(
            {names: move(part, "cuda")},
            block.layout,
            torch.empty(samples, OUTPUTS, dtype=torch.float64, device="cuda"),
        )
        for part, samples in ((block, 4), (other, 5))
    )
    root, rank, _ = inverse_root(first.self_kernel(), torch.float32)
    parts = split_by_layout(move(vectors, "cuda"), block.layout)
    by_name = dict(zip(names, parts, strict=True))
    pairs = move([torch.tensor([0, 3, 3]), torch.tensor([4, 0, 1])], "cuda")
    results = [
        first.gram(second),
        first.trace_gram(second),
        first.paired(second, *pairs),
        first.whiten(WHITENINGS["unit"](root, rank)).materialize(),
        first.inner(by_name),
        first.product(by_name),
        *first.weighted_sum(move(weights, "cuda")).values(),
        first.sketch(dict(zip(names, move(maps, "cuda"), strict=True))),
        concatenate_jacobians([first, second]).materialize(),
        *[reduce_metric(first.gram(second)) for reduce_metric in METRICS.values()],
        reduce_kernel(first.gram(first), "trace", rank, rank),
    ]
    assert {result.device.type for result in results} == {"cuda"}
