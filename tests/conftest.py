"""Fixtures of all tests."""

import pytest
import torch

from .kinds import any_example, example, threads

__all__ = ["any_example", "example", "threads"]


@pytest.fixture(autouse=True)
def reproducible():
    """Give each test the same random numbers, in any order of the tests, and one thread."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
