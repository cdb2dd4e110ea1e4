"""Fixtures of all tests."""

import gc

import pytest
import torch

from .kinds import any_example, example, threads

__all__ = ["any_example", "example", "threads"]


def pytest_collection():
    """Disable garbage collection, because a collection of tests creates hardly any garbage."""
    gc.disable()


def pytest_collection_finish():
    """Enable garbage collection again."""
    gc.enable()


@pytest.fixture(autouse=True)
def reproducible():
    """Give each test the same random numbers, in any order of the tests, and one thread."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
