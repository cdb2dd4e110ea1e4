"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def reproducible():
    """The same random numbers for each test in any order, on one thread."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
