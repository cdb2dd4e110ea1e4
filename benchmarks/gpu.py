"""Tests, errors, speed and memory on a CUDA device, from what is installed there and no network.

Writes ``gpu.md`` in the folder ``--out``, line by line, so that a run cut short leaves what it has.
With ``--device cpu --small`` it runs everywhere, within seconds, on tiny networks.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

# The tests' networks, and the package where it is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.gpu.networks import CASES
from lib.gpu.subjects import (
    BUDGET,
    FEW,
    LARGE_BUDGET,
    MESSAGE,
    OUTPUT,
    Setting,
    Subject,
    allow_tf32,
    applied,
    interleaved,
    measured,
    padded,
    shown,
)
from lib.report import describe_environment, format_header, format_row

from sknetsim import NetworkKernel
from tests.cases import LAYERS, NETWORKS, build

ROOT = Path(__file__).resolve().parents[1]
# For all of it, so that what was started last ends before a limit of nine minutes; for the tests.
SECONDS, TEST_SECONDS = 440, 150
WORKERS = 5
# What the package's own tests allow in float32.
TOLERANCE = 1e-4
MARK = "pytest.mark.gpu"


DEFAULT = Setting("float32", BUDGET, batched=False)
BATCHED = Setting("float32, batches")
SETTINGS = (BATCHED, Setting("TF32 allowed", tf32=True), Setting("bfloat16", half=True))

ABOUT, TAKEN = ("network", "setting", "parameters"), "all of it (s)"
PASS = ("rows", "epoch (s)", "soft density (epochs)", "its peak memory (MiB)")
GRAM = ("rows of the gram", "gram (s)", "torch.func (times ours)", "difference", "torch.func's")
FEATURE = ("rows", "features", "seconds", "error stated", "peak memory (MiB)")


class Run:
    """What the options say, and the time that is left."""

    def __init__(self, options):
        self.device = options.device
        self.cases = [case.reduced() if options.small else case for case in CASES]
        self._end = time.monotonic() + options.seconds

    @property
    def left(self):
        """Return the seconds until nothing more is started."""
        return self._end - time.monotonic()


def pass_cells(subject):
    """Return the cells of PASS."""
    X = subject.X
    density, epoch = interleaved([subject.density, subject.fastest_epoch(X)], X)
    if density.failure or epoch.failure:
        return [density.failure or epoch.failure]
    times = f"{density.median / epoch.median:.1f}"
    return [f"{len(X):,}", f"{epoch.median:.2g}", times, f"{density.peak:,.0f}"]


def gram_cells(subject):
    """Return the cells of GRAM."""
    X = subject.X[: subject.case.pairs]
    gram, peer = interleaved([subject.gram, subject.peer], X)
    times = f"{peer.median / gram.median:.2g}"
    differences = [subject.difference(timed) for timed in (gram, peer)]
    return [f"{len(X):,}", f"{gram.median:.2g}", times, *differences]


def feature_cells(subject):
    """Return the cells of FEATURE."""
    X = subject.X[: 2 * subject.case.pairs]
    (timed,) = interleaved([subject.features], X, few=2 * FEW)
    if timed.failure:
        return [timed.failure]
    made = timed.value
    found = [f"{len(X):,}", str(made.n_components_), f"{timed.median:.2g}"]
    return [*found, f"{made.kernel_error_:.0e}", f"{timed.peak:,.0f}"]


def short_gram_cells(subject):
    """Return the seconds of the gram, and its difference."""
    (gram,) = interleaved([subject.gram], subject.X[: subject.case.pairs])
    return [f"{gram.median:.2g}", subject.difference(gram)]


def rows_of(run, chosen, parts):
    """Yield the row of each network: parts are functions of a subject, with their widths."""
    for case in run.cases:
        start = time.monotonic()
        cells = list(cells_of(case, run, chosen, parts))
        yield format_row(case.name, chosen.name, *cells, f"{time.monotonic() - start:.0f}")


def cells_of(case, run, chosen, parts):
    """Yield the cells; what cannot be done, or fails, leaves the others as they are."""
    width = 1 + sum(parts.values())
    reason = reason_against(case, run)
    if reason:
        yield from padded([reason], width)
        return
    try:
        with applied(chosen):
            yield from measured(Subject.of(case, run.device, chosen), parts)
    except Exception as error:
        yield from padded([shown(error)], width)


def reason_against(case, run):
    """Say why a network is not measured; empty where it is."""
    if importlib.util.find_spec(case.package) is None:
        return f"not run: {case.package} is not installed"
    return "not run: time" if run.left < 0 else ""


def marked_tests(run):
    """Run the tests that need a CUDA device, in a group of processes of its own."""
    if run.device == "cpu":
        yield "Not run: the device is the CPU."
        return
    # Other test files may import packages that are not installed on the machine with the device.
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if MARK in path.read_text()]
    options = ["-q", "-m", "gpu", "-n", str(WORKERS), "-p", "no:cacheprovider", *map(str, files)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield from summary(process, min(TEST_SECONDS, run.left))


def summary(process, seconds):
    """Yield the last line of pytest's answer, after the names of what failed."""
    try:
        answer = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        answer = f"{process.communicate()[0]}\nstopped after {seconds:.0f} s"
    lines = answer.strip().splitlines() or ["no answer"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield from (f"- `{line[:MESSAGE]}`" for line in failed[:30])
    yield from ("", f"`pytest -m gpu tests`: {lines[-1].strip('= ')}")


def case_difference(case, device):
    """Return the largest difference of k^C in float32 on the device from float64 on the CPU."""
    network, X = build(case, dtype=torch.float32)
    found = NetworkKernel(network.to(device), case.output)(X)
    wide = X.double() if X.is_floating_point() else X
    return np.abs(found - NetworkKernel(network.cpu().double(), case.output)(wide)).max()


def compared_cases(run):
    """Compare every network of the tests with itself in float64 on the CPU."""
    cases, found, wrong = [*LAYERS, *NETWORKS], {}, []
    for case in cases:
        if run.left < 0:
            break
        try:
            found[case.name] = difference = case_difference(case, run.device)
            if not difference <= TOLERANCE:
                wrong.append(f"{case.name} (differs by {difference:.1e})")
        except Exception as error:
            wrong.append(f"{case.name} ({shown(error)})")
    worst = sorted(found, key=found.get, reverse=True)[:3]
    yield from format_header(("networks", "of these compared", "largest differences"))
    named = ", ".join(f"{name} {found[name]:.1e}" for name in worst)
    yield format_row(str(len(cases)), str(len(found)), named)
    yield from ("", f"Not within {TOLERANCE:.0e}: {'; '.join(wrong) or 'none'}.")


def essentials(run):
    """Measure every network as a user finds the package."""
    yield (
        f"TF32 off, working_memory {BUDGET:,} MiB, output {OUTPUT}. An epoch is one of forward and"
        " backward passes over the same rows in training mode, with cuDNN, at the better of two"
        " batch sizes. Seconds are medians of up to three calls in turns. Memory is the device's,"
        f" above what was loaded. Differences are the largest of {FEW} x {FEW} k^C from those of"
        " autograd's gradients in float64 on the CPU."
    )
    yield from ("", *format_header((*ABOUT, *PASS, *GRAM, TAKEN)))
    yield from rows_of(run, DEFAULT, {pass_cells: len(PASS), gram_cells: len(GRAM)})


def features(run):
    """Measure features from landmarks."""
    yield f"`fit_transform`, working_memory {LARGE_BUDGET:,} MiB, in batches as for an epoch."
    yield from ("", *format_header((*ABOUT, *FEATURE, TAKEN)))
    yield from rows_of(run, BATCHED, {feature_cells: len(FEATURE)})


def settings(run):
    """Measure larger batches, TF32 and half precision."""
    yield (
        f"working_memory {LARGE_BUDGET:,} MiB, in batches as for an epoch; the epoch is in the same"
        " setting, differences are from float64 with the same weights."
    )
    yield from ("", *format_header((*ABOUT, *PASS, GRAM[1], GRAM[3], TAKEN)))
    for chosen in SETTINGS:
        yield from rows_of(run, chosen, {pass_cells: len(PASS), short_gram_cells: 2})


SECTIONS = {
    "Tests marked gpu": marked_tests,
    "Networks of the tests, float32 on the device against float64 on the CPU": compared_cases,
    "Speed, memory and errors": essentials,
    "Features": features,
    "Larger batches, TF32 and bfloat16": settings,
}


def installed(package):
    """Return a package with its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} without a version"


def accelerator(device):
    """Return the device's name, memory and versions."""
    if device == "cpu":
        return "no accelerator"
    found = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        driver = "unknown"
    memory = f"{found.total_memory / 2**20:,.0f} MiB"
    return f"{found.name}, {memory}, driver {driver}, CUDA {torch.version.cuda}"


def lines(run):
    """Yield the whole text, line by line."""
    packages = ("scikit-learn", "skorch", "sknetsim", "torchvision", "transformers")
    yield from ("# On a CUDA device", "")
    yield f"{describe_environment(())}; {accelerator(run.device)};"
    yield f"{', '.join(map(installed, packages))}."
    for title, section in SECTIONS.items():
        yield from ("", f"## {title}", "")
        try:
            yield from section(run) if run.left > 0 else ["Not run: time."]
        except Exception as error:
            yield shown(error)


def main():
    """Read the options, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and few rows")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="nothing starts later")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; allowed is --device cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    allow_tf32(False)
    run = Run(options)
    with (options.out / "gpu.md").open("w") as file:
        for line in lines(run):
            print(line, file=file, flush=True)
            print(f"[{run.left:.0f} s left] {line}", flush=True)


if __name__ == "__main__":
    main()
