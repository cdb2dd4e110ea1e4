"""Blocks against their gradients written out, and on devices that are not the CPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sknetsim._gradients.capture import compute_cotangents, record_calls
from sknetsim._gradients.engine import blocks_by_rules
from sknetsim._gradients.parameters import make_plan
from sknetsim._kernels import blocks as _blocks
from sknetsim._kernels import jacobian as _jacobian
from sknetsim._kernels import position_blocks as _position_blocks
from sknetsim._kernels import whitening as _kernels
from sknetsim._kernels.blocks import DenseBlock
from sknetsim._kernels.embedding_blocks import EmbeddingBlock
from sknetsim._kernels.factored_blocks import FactorBlock
from sknetsim._kernels.jacobian import Jacobian
from sknetsim._kernels.layouts import PLAIN_ORDER, FourierMap, Order

from ..cases import LAYERS, build

OUTPUTS, GROUPS, OUT, KERNEL, CHANNELS = 3, 2, 4, 2, 3
WIDTH = KERNEL * CHANNELS
WINDOWS = Order((GROUPS, OUT, KERNEL, CHANNELS), (0, 1, 3, 2))
TRANSPOSED = Order((GROUPS, OUT, WIDTH), (0, 2, 1))
#: Shape of the weight in the layout, whose first axis holds the groups too.
SHAPES = {
    PLAIN_ORDER: (GROUPS * OUT, WIDTH),
    WINDOWS: (GROUPS * OUT, CHANNELS, KERNEL),
    TRANSPOSED: (GROUPS * WIDTH, OUT),
}


def factor_block(samples, positions, bias=False, order=PLAIN_ORDER):
    layout = (("weight", torch.Size(SHAPES[order])),)
    layout += (("bias", torch.Size([GROUPS * OUT])),) * bias
    activations = torch.randn(samples, positions, GROUPS, WIDTH, dtype=torch.float64)
    return FactorBlock(layout, _cotangents(samples, positions, GROUPS), activations, order)


def _cotangents(samples, positions, groups):
    return torch.randn(samples, OUTPUTS, positions, groups, OUT, dtype=torch.float64)


def embedding_block(samples, positions):
    indices = torch.randint(0, 7, (samples, positions))
    return EmbeddingBlock(
        (("weight", torch.Size([7, OUT])),), _cotangents(samples, positions, 1), indices
    )


def dense_block(samples, *shapes):
    layout = tuple((str(index), torch.Size(shape)) for index, shape in enumerate(shapes))
    width = sum(shape.numel() for _, shape in layout)
    return DenseBlock(layout, torch.randn(samples, OUTPUTS, width, dtype=torch.float64))


KINDS = {
    "factors": lambda samples: factor_block(samples, 1),
    "factors with bias": lambda samples: factor_block(samples, 1, bias=True),
    "factors at positions": lambda samples: factor_block(samples, 3, bias=True),
    "factors of windows": lambda samples: factor_block(samples, 3, order=WINDOWS),
    "transposed factors": lambda samples: factor_block(samples, 3, order=TRANSPOSED),
    "written factors": lambda samples: factor_block(samples, 3, order=TRANSPOSED).written(),
    "embedding": lambda samples: embedding_block(samples, 5),
    "embedding of one token": lambda samples: embedding_block(samples, 1),
    "dense": lambda samples: dense_block(samples, [2, 3]),
    "dense of several parameters": lambda samples: dense_block(samples, [3, 2, 2], [3], []),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def quantities(block, other, root, weights, vectors, maps):
    """All that a block can give."""
    by_rows = [len(shape) > 1 for _, shape in block.layout]
    by_columns = [False] * len(by_rows)
    return {
        "gram": block.gram(other),
        "trace_gram": block.trace_gram(other),
        "paired": block.paired(other.rows(slice(0, 4))),
        "by rows": torch.cat(block.marginals(other.rows(slice(0, 4)), by_rows), dim=1),
        "by columns": torch.cat(block.marginals(other.rows(slice(0, 4)), by_columns), dim=1),
        "sketch": block.sketch(maps),
        "self_kernel": block.self_kernel(),
        "whitened": block.whiten(root).materialize(),
        "weighted_sum": torch.cat(block.weighted_sum(weights), dim=1),
        "inner": block.inner(vectors.split([shape.numel() for _, shape in block.layout], 1)),
        "product": block.product(vectors[:2].split([s.numel() for _, s in block.layout], 1)),
        "joined": _blocks.concatenate_blocks([block, other]).materialize(),
        "added": _blocks.add_blocks([block, block]).materialize(),
        "for sums": block.for_sums().materialize(),
        "for pairs": block.for_pairs().materialize(),
        "some rows": block.rows(slice(1, 3)).materialize(),
    }


def fourier_map(shape, frequencies=7):
    """A map of a parameter with any phases: those of hashes are a special case."""
    sizes = OUTPUTS, shape[0] if shape else 1, shape[1:].numel()
    return FourierMap(*(torch.randn(size, frequencies, dtype=torch.complex128) for size in sizes))


def draw(make):
    torch.manual_seed(0)
    block, other = make(4), make(5)
    width = sum(shape.numel() for _, shape in block.layout)
    root = torch.randn(4, OUTPUTS, OUTPUTS, dtype=torch.float64)
    weights = torch.randn(4, OUTPUTS, 2, dtype=torch.float64)
    vectors = torch.randn(OUTPUTS, width, dtype=torch.float64)
    maps = [fourier_map(shape) for _, shape in block.layout]
    return block, other, root, weights, vectors, maps


@kinds
def test_quantities_are_those_of_the_gradients(make):
    drawn = draw(make)
    block, other, *rest = drawn
    expected = quantities(block.dense(), other.dense(), *rest)
    for name, found in quantities(*drawn).items():
        torch.testing.assert_close(found, expected[name], msg=name)


@kinds
def test_small_temporaries_change_nothing(make, monkeypatch):
    block, other, *_ = draw(make)
    expected = block.gram(other), block.trace_gram(other)
    monkeypatch.setattr(_position_blocks, "_PAIR_ELEMENTS", 1)
    torch.testing.assert_close((block.gram(other), block.trace_gram(other)), expected)


@kinds
def test_blocks_of_different_forms_meet(make):
    block, other, *_ = draw(make)
    torch.testing.assert_close(block.gram(other.dense()), block.gram(other))
    torch.testing.assert_close(block.dense().trace_gram(other), block.trace_gram(other))
    first = other.rows(slice(0, 4))
    torch.testing.assert_close(block.paired(first.dense()), block.paired(first))


@kinds
def test_pairs_are_the_diagonal_of_the_grams_trace(make):
    block, other, *_ = draw(make)
    expected = torch.einsum("nnoo->n", block.gram(other.rows(slice(0, 4))))
    torch.testing.assert_close(block.paired(other.rows(slice(0, 4))), expected)


def test_a_sketch_of_gradients_written_out_multiplies_by_the_map_entry_by_entry():
    block, *_, maps = draw(KINDS["dense of several parameters"])
    expected, first = torch.zeros(4, 7, dtype=torch.complex128), 0
    for fourier in maps:
        for row in range(len(fourier.rows)):
            for column in range(len(fourier.columns)):
                phases = fourier.outputs * fourier.rows[row] * fourier.columns[column]
                expected += block.gradients[:, :, first].to(phases) @ phases
                first += 1
    torch.testing.assert_close(block.sketch(maps), expected)


def _on(device, value):
    """The same object with its tensors on a device."""
    if isinstance(value, list):
        return [_on(device, item) for item in value]
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device=device)
    fields = {
        name: _on(device, field) if isinstance(field, torch.Tensor) else field
        for name, field in vars(value).items()
    }
    return type(value)(**fields)


def _index(tensor, key):
    """Indexing through the dispatcher: Python's own asks for the device's driver."""
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


def _put(tensor, indices, values):
    torch.ops.aten.index_put_(tensor, [indices], values)


@pytest.fixture
def fake_devices(monkeypatch):
    """Tensors on devices that are not there; operations that mix devices are refused."""
    monkeypatch.setattr(torch.Tensor, "__getitem__", _index)
    monkeypatch.setattr(torch.Tensor, "__setitem__", _put)
    with FakeTensorMode() as mode:
        yield mode


def test_fake_devices_notice_a_mixture(fake_devices):
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        torch.empty(2, 3, device="cuda") + torch.empty(2, 3)


@kinds
def test_grams_and_sums_stay_on_their_device(make, request):
    drawn = draw(make)
    request.getfixturevalue("fake_devices")
    on_gpu = [_on("cuda", value) for value in drawn]
    for found in quantities(*on_gpu).values():
        assert found.device.type == "cuda"


def _outputs(samples):
    return torch.empty(samples, OUTPUTS, dtype=torch.float64, device="cuda")


@kinds
def test_jacobians_and_roots_stay_on_their_device(make, request):
    block, other, _, weights, vectors, maps = draw(make)
    request.getfixturevalue("fake_devices")
    key = tuple(name for name, _ in block.layout)
    first, second = (
        Jacobian({key: _on("cuda", b)}, b.layout, _outputs(n)) for b, n in ((block, 4), (other, 5))
    )
    root, rank = _kernels.inverse_root(first.self_kernel(), torch.float32)
    unit = _kernels.WHITENINGS["unit"](root, rank)
    by_name = dict(
        zip(
            key,
            _on("cuda", vectors).split([s.numel() for _, s in block.layout], 1),
            strict=True,
        )
    )
    results = [
        first.gram(second),
        first.trace_gram(second),
        first.paired(second, *_on("cuda", [torch.tensor([0, 3, 3]), torch.tensor([4, 0, 1])])),
        first.whiten(unit).materialize(),
        first.inner(by_name),
        first.product(by_name),
        *first.weighted_sum(_on("cuda", weights)).values(),
        first.sketch(dict(zip(key, _on("cuda", maps), strict=True))),
        _jacobian.concatenate_jacobians([first, second]).materialize(),
        *[_kernels.METRICS[name](first.gram(second)) for name in _kernels.METRICS],
        _kernels.reduce_kernel(first.gram(first), "trace", rank, rank),
    ]
    assert {result.device.type for result in results} == {"cuda"}


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_rules_stay_on_the_networks_device(case):
    network, X = build(case)
    network, X = network.to("meta"), X.to("meta")
    plan = make_plan(network, {name for name, _ in network.named_parameters()}, set())
    with record_calls(list(plan.groups)) as uses:
        outputs = network(X)
    blocks = blocks_by_rules(plan, uses, compute_cotangents(outputs, uses))
    assert {t.device.type for block in blocks.values() for t in block._tensors().values()} == {
        "meta"
    }
