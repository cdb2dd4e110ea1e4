"""The script for a CUDA device, run on the CPU."""

import importlib
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.once

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ["MLP", "CNN", "LSTM", "ResNet-18", "BERT-base", "ViT-B/16", "ResNet-50", "GPT-2"]
# Rows of a network: one in each of the first two tables, and one for each of three settings.
ROWS = 5


@pytest.fixture
def run_script(monkeypatch):
    """Return a function that runs the script in this process, which has imported torch."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, options)])
        runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")

    return run


@pytest.mark.slow
def test_every_network_has_its_rows(run_script, monkeypatch, tmp_path):
    # One call of each function fills the row, and the medians are not tested.
    timing = importlib.import_module("lib.timing")
    monkeypatch.setattr(timing, "time_in_turns", partial(timing.time_in_turns, rounds=1))
    run_script("--device", "cpu", "--small", "--seconds", 1000, "--out", tmp_path / "new")
    text = (tmp_path / "new" / "gpu.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    counts = {name: sum(row[0] == f"| {name}" for row in rows) for name in NAMES}
    assert counts == dict.fromkeys(NAMES, ROWS)
    assert "failed" not in text
    assert "no time left" not in text
    assert "Failed, or different by more than 1e-04: none." in text


def test_sections_without_time_are_named(run_script, tmp_path):
    run_script("--device", "cpu", "--small", "--seconds", 0, "--out", tmp_path)
    assert (tmp_path / "gpu.md").read_text().count("Not run: no time left.") == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_missing_device_is_an_error(run_script, capsys):
    with pytest.raises(SystemExit) as error:
        run_script()
    assert error.value.code == 2
    assert (
        "`--device` must be cpu if torch has no CUDA device; got cuda. Pass --device cpu."
        in capsys.readouterr().err
    )
