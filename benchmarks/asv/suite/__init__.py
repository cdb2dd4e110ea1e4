"""Benchmarks for airspeed velocity, on the networks of the other benchmarks."""

import sys
from pathlib import Path

import torch

# Times vary least from run to run with one thread.
torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parents[2]))  # Folder of the package ``lib``.
