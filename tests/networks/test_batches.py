"""Batches of tensors, in dicts and tuples that may be nested."""

import pytest
import torch

from sknetsim._networks.batches import list_tensors, map_tensors, slice_batch

A, B, C = torch.arange(3.0), torch.ones(3, 2), torch.zeros(3, 1)
BATCHES = {
    "tensor": (A, [A]),
    "tuple": ((A, B), [A, B]),
    "dict": ({"a": A, "b": B}, [A, B]),
    "nested": ({"a": (A, {"b": B}), "c": C}, [A, B, C]),
}
batches = pytest.mark.parametrize(("batch", "tensors"), BATCHES.values(), ids=BATCHES)


@batches
def test_tensors_are_listed_in_order(batch, tensors):
    assert all(a is b for a, b in zip(list_tensors(batch), tensors, strict=True))


@batches
def test_a_function_is_applied_to_each_tensor(batch, tensors):
    negatives = list_tensors(map_tensors(torch.neg, batch))
    assert all(torch.equal(a, -b) for a, b in zip(negatives, tensors, strict=True))


@batches
def test_a_slice_contains_the_same_samples_of_each_tensor(batch, tensors):
    parts = list_tensors(slice_batch(batch, slice(1, 3)))
    assert all(torch.equal(a, b[1:3]) for a, b in zip(parts, tensors, strict=True))


def test_the_form_of_a_batch_stays():
    batch, _ = BATCHES["nested"]
    mapped = map_tensors(torch.neg, batch)
    assert list(mapped) == ["a", "c"]
    assert isinstance(mapped["a"], tuple)
    assert isinstance(mapped["a"][1], dict)
