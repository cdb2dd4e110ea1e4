"""The script for a CUDA device, run on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
NAMES = ["MLP", "CNN", "LSTM", "ResNet-18", "BERT-base", "ViT-B/16", "ResNet-50", "GPT-2"]
# Rows of a network: one in each of the first two tables, and one for each of three settings.
ROWS = 5


def run_script(*options):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, options)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_every_network_has_its_rows(tmp_path):
    completed = run_script(
        "--device", "cpu", "--small", "--seconds", 1000, "--out", tmp_path / "new"
    )
    assert completed.returncode == 0, completed.stderr
    text = (tmp_path / "new" / "gpu.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    counts = {name: sum(row[0] == f"| {name}" for row in rows) for name in NAMES}
    assert counts == dict.fromkeys(NAMES, ROWS)
    assert "failed" not in text
    assert "no time left" not in text
    assert "Failed, or different by more than 1e-04: none." in text


def test_sections_without_time_are_named(tmp_path):
    completed = run_script("--device", "cpu", "--small", "--seconds", 0, "--out", tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "gpu.md").read_text().count("Not run: no time left.") == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_missing_device_is_an_error():
    completed = run_script()
    assert completed.returncode == 2
    assert (
        "`--device` must be cpu if torch has no CUDA device; got cuda. Pass --device cpu."
        in completed.stderr
    )
