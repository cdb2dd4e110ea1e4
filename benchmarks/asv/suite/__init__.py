"""Benchmarks for airspeed velocity, on the networks of the other scripts."""

import sys
from pathlib import Path

import torch

# One thread, for its times change least from run to run.
torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parents[2]))
