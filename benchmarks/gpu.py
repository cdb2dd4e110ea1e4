"""Tests, speed, memory and errors on a CUDA device, without downloads.

Writes ``gpu.md`` into the folder ``--out`` line by line, so an interrupted run leaves the lines
that are finished. Networks of packages that are not installed are left out. With ``--device cpu
--small`` it runs on any machine, on tiny networks.
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

# This folder contains the tests, whose networks are measured, and sknetsim if it is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.gpu.networks import CASES
from lib.gpu.subjects import (
    BUDGET,
    FEW,
    LARGE_BUDGET,
    OUTPUT,
    Setting,
    Subject,
    allow_tf32,
    apply_setting,
    measure_cells,
    pad_cells,
)
from lib.report import RESULTS, format_header, format_row, format_title
from lib.timing import MESSAGE, describe_error, time_in_turns

from sknetsim import NetworkKernel
from tests.cases import LAYERS, NETWORKS, build

ROOT = Path(__file__).resolve().parents[1]
#: Seconds after which no measurement begins; the last one then ends within nine minutes.
SECONDS = 440
#: Seconds after which the tests are stopped.
TEST_SECONDS = 150
#: Processes that run the tests.
WORKERS = 5
#: Largest difference in float32 that the tests of sknetsim allow.
TOLERANCE = 1e-4
#: Text by which a file with tests for a CUDA device is recognised.
MARK = "pytest.mark.gpu"

#: sknetsim with the default values of its parameters and of ``working_memory``.
DEFAULT = Setting("float32", BUDGET, batched=False)
BATCHED = Setting("float32, batches")
SETTINGS = (BATCHED, Setting("TF32 allowed", tf32=True), Setting("bfloat16", half=True))

LABEL_COLUMNS, TOTAL_COLUMN = ("network", "setting", "parameters"), "total (s)"
DENSITY_COLUMNS = (
    "samples",
    "epoch (s)",
    "soft density (epochs)",
    "peak memory of the density (MiB)",
)
GRAM_COLUMNS = (
    "samples of the gram",
    "gram (s)",
    "time of torch.func / time of the gram",
    "difference of the gram",
    "difference of torch.func",
)
SHORT_GRAM_COLUMNS = (GRAM_COLUMNS[1], GRAM_COLUMNS[3])
FEATURE_COLUMNS = ("samples", "features", "seconds", "reported error", "peak memory (MiB)")


class Run:
    """Device and networks of a run, and the time that is left."""

    def __init__(self, options):
        self.device = options.device
        self.cases = [case.shrink() if options.small else case for case in CASES]
        self._end = time.monotonic() + options.seconds

    @property
    def seconds_left(self):
        """Seconds until no further measurement begins."""
        return self._end - time.monotonic()


def measure_density(subject):
    """Return the cells of DENSITY_COLUMNS."""
    X = subject.X
    density, epoch = time_in_turns([subject.compute_density, subject.find_fastest_epoch(X)], X)
    if density.failure or epoch.failure:
        return [density.failure or epoch.failure]
    epochs = f"{density.median / epoch.median:.1f}"
    return [f"{len(X):,}", f"{epoch.median:.2g}", epochs, f"{density.peak:,.0f}"]


def measure_gram(subject):
    """Return the cells of GRAM_COLUMNS."""
    X = subject.X[: subject.case.gram_samples]
    gram, peer = time_in_turns([subject.compute_gram, subject.compute_peer_gram], X)
    ratio = f"{peer.median / gram.median:.2g}"
    differences = [subject.describe_difference(timing) for timing in (gram, peer)]
    return [f"{len(X):,}", f"{gram.median:.2g}", ratio, *differences]


def measure_short_gram(subject):
    """Return the cells of SHORT_GRAM_COLUMNS."""
    (gram,) = time_in_turns([subject.compute_gram], subject.X[: subject.case.gram_samples])
    return [f"{gram.median:.2g}", subject.describe_difference(gram)]


def measure_features(subject):
    """Return the cells of FEATURE_COLUMNS."""
    X = subject.X[: 2 * subject.case.gram_samples]
    (timing,) = time_in_turns([subject.fit_featurizer], X, few=2 * FEW)
    if timing.failure:
        return [timing.failure]
    featurizer = timing.result
    sizes = [f"{len(X):,}", str(featurizer.n_components_)]
    return [
        *sizes,
        f"{timing.median:.2g}",
        f"{featurizer.kernel_error_:.0e}",
        f"{timing.peak:,.0f}",
    ]


def measure_rows(run, setting, measurements):
    """Yield the row of each network.

    ``measurements`` are functions of a subject with the numbers of their cells.
    """
    for case in run.cases:
        start = time.monotonic()
        cells = measure_case(case, run, setting, measurements)
        yield format_row(case.name, setting.name, *cells, f"{time.monotonic() - start:.0f}")


def measure_case(case, run, setting, measurements):
    """Return the cells of a network, or the reason why it was not measured."""
    width = 1 + sum(measurements.values())
    reason = explain_omission(case, run)
    if reason:
        return pad_cells([reason], width)
    try:
        with apply_setting(setting):
            return measure_cells(Subject.create(case, run.device, setting), measurements)
    except Exception as error:
        return pad_cells([describe_error(error)], width)


def explain_omission(case, run):
    """Return the reason why a network is not measured, or an empty text if it is."""
    if importlib.util.find_spec(case.package) is None:
        return f"not run: {case.package} is not installed"
    return "not run: no time left" if run.seconds_left < 0 else ""


def run_marked_tests(run):
    """Run the tests that need a CUDA device, and yield the lines of their section."""
    if run.device == "cpu":
        yield "Not run: the device is the CPU."
        return
    # Other test files may import packages that are not installed on the machine with the device.
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if MARK in path.read_text()]
    options = ["-q", "-m", "gpu", "-n", str(WORKERS), "-p", "no:cacheprovider", *map(str, files)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # In a session of its own, the process can be killed together with its workers.
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield from summarize_tests(process, min(TEST_SECONDS, run.seconds_left))


def summarize_tests(process, seconds):
    """Yield the names of the tests that fail, and the last line of pytest's output."""
    try:
        output = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = f"{process.communicate()[0]}\nstopped after {seconds:.0f} s"
    lines = output.strip().splitlines() or ["no output"]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if failures:
        yield from (*(f"- `{line[:MESSAGE]}`" for line in failures[:30]), "")
    yield f"`pytest -m gpu tests`: {lines[-1].strip('= ')}"


def compute_difference(case, device):
    """Return the largest difference of k^C in float32 on a device from float64 on the CPU."""
    network, X = build(case, dtype=torch.float32)
    gram = NetworkKernel(network.to(device), case.output)(X)
    X = X.double() if X.is_floating_point() else X
    expected = NetworkKernel(network.cpu().double(), case.output)(X)
    return np.abs(gram - expected).max()


def compare_test_networks(run):
    """Compare each network of the tests with float64, and yield the lines of the section."""
    cases, differences, wrong = [*LAYERS, *NETWORKS], {}, []
    for case in cases:
        if run.seconds_left < 0:
            break
        try:
            differences[case.name] = difference = compute_difference(case, run.device)
            if not difference <= TOLERANCE:
                wrong.append(f"{case.name} (differs by {difference:.1e})")
        except Exception as error:
            wrong.append(f"{case.name} ({describe_error(error)})")
    largest = sorted(differences, key=differences.get, reverse=True)[:3]
    yield from format_header(("networks", "compared", "largest differences"))
    listed = ", ".join(f"{name} {differences[name]:.1e}" for name in largest)
    yield format_row(str(len(cases)), str(len(differences)), listed)
    yield ""
    yield f"Failed, or different by more than {TOLERANCE:.0e}: {'; '.join(wrong) or 'none'}."


def measure_defaults(run):
    """Measure every network with default values, and yield the lines of the section."""
    yield (
        f"TF32 is off, `working_memory` is {BUDGET:,} MiB, and output {OUTPUT} is used. An epoch is"
        " one forward and backward pass over the same samples in training mode, with cuDNN and the"
        " faster of two batch sizes. Seconds are medians of up to three calls; the methods take"
        " turns. Memory is the peak on the device above the memory in use before the call."
        f" Differences are the largest of {FEW} x {FEW} similarities k^C, compared with those from"
        " autograd in float64 on the CPU."
    )
    yield ""
    yield from format_header((*LABEL_COLUMNS, *DENSITY_COLUMNS, *GRAM_COLUMNS, TOTAL_COLUMN))
    measurements = {measure_density: len(DENSITY_COLUMNS), measure_gram: len(GRAM_COLUMNS)}
    yield from measure_rows(run, DEFAULT, measurements)


def measure_landmarks(run):
    """Measure features from landmarks, and yield the lines of the section."""
    yield (
        f"`fit_transform` with `working_memory` of {LARGE_BUDGET:,} MiB and a `batch_size`, the"
        " smaller one of the epoch."
    )
    yield ""
    yield from format_header((*LABEL_COLUMNS, *FEATURE_COLUMNS, TOTAL_COLUMN))
    yield from measure_rows(run, BATCHED, {measure_features: len(FEATURE_COLUMNS)})


def measure_settings(run):
    """Measure batches, TF32 and half precision, and yield the lines of the section."""
    yield (
        f"`working_memory` is {LARGE_BUDGET:,} MiB, and `batch_size` is the smaller one of the"
        " epoch. The epoch has the same setting; differences are from float64 with the same"
        " weights."
    )
    yield ""
    yield from format_header((*LABEL_COLUMNS, *DENSITY_COLUMNS, *SHORT_GRAM_COLUMNS, TOTAL_COLUMN))
    measurements = {
        measure_density: len(DENSITY_COLUMNS),
        measure_short_gram: len(SHORT_GRAM_COLUMNS),
    }
    for setting in SETTINGS:
        yield from measure_rows(run, setting, measurements)


SECTIONS = {
    "Tests marked gpu": run_marked_tests,
    "Networks of the tests, float32 on the device compared with float64 on the CPU": (
        compare_test_networks
    ),
    "Speed, memory and errors": measure_defaults,
    "Features": measure_landmarks,
    "Batches, TF32 and bfloat16": measure_settings,
}


def describe_package(package):
    """Return the name and the version of a package."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} without a version"


def describe_accelerator(device):
    """Return the name and the memory of the device, and the versions of its driver and of CUDA."""
    if device == "cpu":
        return "no accelerator"
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        driver = "unknown"
    memory = f"{properties.total_memory / 2**20:,.0f} MiB"
    return f"{properties.name}, {memory}, driver {driver}, CUDA {torch.version.cuda}"


def generate_report(run):
    """Yield the report, line by line."""
    packages = ("scikit-learn", "skorch", "sknetsim", "torchvision", "transformers")
    versions = ", ".join(map(describe_package, packages))
    note = f"; {describe_accelerator(run.device)}; {versions}"
    yield from format_title(__file__, "sknetsim on a CUDA device", (), note)
    for place, (title, generate_section) in enumerate(SECTIONS.items()):
        yield from ([""] if place else [])
        yield from (f"## {title}", "")
        try:
            yield from generate_section(run) if run.seconds_left > 0 else ["Not run: no time left."]
        except Exception as error:
            yield describe_error(error)


def main():
    """Read the options, measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and few samples")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="time after which no measurement begins"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.md")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "`--device` must be cpu if torch has no CUDA device; got cuda. Pass --device cpu."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    allow_tf32(False)
    run = Run(options)
    with (options.out / "gpu.md").open("w") as file:
        for line in generate_report(run):
            print(line, file=file, flush=True)
            print(f"[{run.seconds_left:.0f} s left] {line}", flush=True)


if __name__ == "__main__":
    main()
