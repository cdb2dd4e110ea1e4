"""The script for a CUDA device, as far as a CPU goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
NAMES = ["MLP", "CNN", "LSTM", "ResNet-18", "BERT-base", "ViT-B/16", "ResNet-50", "GPT-2"]
# Three settings stand in the last of three tables.
TIMES = 5


def run(*options):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_every_network_has_its_rows(tmp_path):
    answer = run("--device", "cpu", "--small", "--seconds", 1000, "--out", tmp_path / "new")
    assert answer.returncode == 0, answer.stderr
    text = (tmp_path / "new" / "gpu.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    counts = {name: sum(row[0] == f"| {name}" for row in rows) for name in NAMES}
    assert counts == dict.fromkeys(NAMES, TIMES)
    assert "failed" not in text
    assert "not run: time" not in text
    assert "Not within 1e-04: none." in text


def test_what_would_start_too_late_is_named(tmp_path):
    answer = run("--device", "cpu", "--small", "--seconds", 0, "--out", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "gpu.md").read_text().count("Not run: time.") == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_said():
    answer = run()
    assert answer.returncode == 2
    assert "no CUDA device here; allowed is --device cpu" in answer.stderr
