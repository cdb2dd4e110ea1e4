"""Time and memory of sknetsim for each kind of layer, compared with an epoch and other packages.

    python benchmarks/layers.py            # All networks
    python benchmarks/layers.py LSTM ViT   # These only

Writes ``benchmarks/results/layers.md``. With ``--quick``, or for some of the networks, it only
prints; with ``--quick`` after one round on an eighth of the samples.
"""

import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import torch
from lib.features.costs import BATCH_SIZES
from lib.layers.methods import PEERS, compute_peer_density, find_chunk, list_trainable, run_passes
from lib.layers.networks import CASES
from lib.peers.methods import (
    compute_density,
    compute_gram,
    compute_nngeometry_gram,
    fit_density,
    run_epoch,
)
from lib.peers.reference import compute_relative_error
from lib.processes import measure_peak_memory, run_in_fresh_process
from lib.report import format_header, format_range, format_row, format_title, write_report
from lib.timing import time_in_turns
from sklearn import config_context

ROUNDS, QUICK_ROUNDS, PEER_ROUNDS, SLOW_SECONDS = 5, 1, 1, 10
OUTPUTS, FEWER = 10, 4
BUDGETS, WARM_UP_BUDGET, WARM_UP_SAMPLES = (1024, 256), 128, 8
NNGEOMETRY_BATCH = 128
PACKAGES = ("scikit-learn", "transformers", "opacus", "backpack-for-pytorch", "nngeometry")
COLUMNS = (
    "network",
    "parameters",
    "N",
    "chunk",
    "epoch (CPU s)",
    "soft density (epochs)",
    "range",
    "soft density (fastest epochs)",
    "samples of the gram",
    "gram (epochs)",
    "ten outputs (ratio to the limit)",
)
PEER_COLUMNS = ("network", "quantity", "method", "epochs", "ratio to sknetsim", "difference")
MEMORY_COLUMNS = ("network", "N", "working_memory (MiB)", "peak (MiB)", "ratio to the budget")
#: Methods of other packages, functions of network and samples, by name.
DENSITIES = {name: partial(compute_peer_density, make) for name, make in PEERS.items()}
GRAMS = {"nngeometry": partial(compute_nngeometry_gram, batch_size=NNGEOMETRY_BATCH)}
#: Name, sknetsim's function and those of other packages for each quantity.
QUANTITIES = (("soft density", compute_density, DENSITIES), ("gram", compute_gram, GRAMS))
TEXT = f"""\
Soft densities and gram matrices of networks with random weights, for random samples; the sizes of \
the networks are in `benchmarks/lib/layers/networks.py`. An epoch is a forward and a backward pass \
over the same samples, in batches of the size that sknetsim chooses for its chunks. The fastest \
epoch is that of the fastest batch size among {", ".join(map(str, BATCH_SIZES))}. A soft density \
is fitted on N samples and scores the same samples. The gram matrix is that of the stated number \
of samples, in epochs over these. With ten outputs, a soft density of N / {FEWER} samples is \
compared with its limit: twice, for fit and score, a forward pass and ten backward passes, each \
with the sums of the parameters' gradients. All methods run in one thread, and their seconds are \
those of the process on the CPU, which other programs disturb less than wall time; many of them \
still slow it down by sharing its caches and memory. Seconds are medians of up to {ROUNDS} rounds, \
in which all methods take turns, after a first call on a few samples; no round begins after \
{SLOW_SECONDS} s. Ratios are ratios of medians, and the range is that of single rounds. The goal \
is 3 epochs for a soft density (2.3 for the MLP, 2.5 for the CNN), 6 for a gram matrix, and 1.2 \
times the limit of ten outputs."""
PEER_TEXT = f"""\
Other packages compute per-sample gradients, from which the soft density follows in two passes, in \
batches of at most 64 samples, or the gram matrix (nngeometry, batches of {NNGEOMETRY_BATCH}). \
They take turns with sknetsim and an epoch on the same N / {FEWER} samples, in {PEER_ROUNDS} \
round. Fixed costs count more for fewer samples. The difference is that from sknetsim's result, \
relative. Opacus replaces recurrent layers and attention by its own layers, and batch \
normalisation by group normalisation, which is another network with other densities."""
MEMORY_TEXT = """\
Memory of the soft density in a fresh process: the peak resident size (VmHWM) minus the resident \
size after loading network and samples and a first call on eight of them. The goal is at most 1.25 \
times the budget."""


def divide(timing, other):
    """Return the ratio of two medians, or the failure of the first, as text."""
    return timing.failure or f"{timing.median / other.median:.2f}"


def time_density(case, rounds):
    """Return the chunk, and the timings of density, epoch and fastest epoch."""
    network, X = case.draw(1, case.count)
    chunk, fastest = find_chunk(fit_density, network, X), choose_batch_size(network, X)
    epochs = [partial(run_epoch, network, batch_size=size) for size in (chunk, fastest)]
    return chunk, *take_turns([partial(compute_density, network), *epochs], X, rounds)


def choose_batch_size(network, X):
    """Return the batch size at which an epoch is fastest."""
    epochs = [partial(run_epoch, network, batch_size=size) for size in BATCH_SIZES]
    timings = take_turns(epochs, X, rounds=1)
    return min(zip(timings, BATCH_SIZES, strict=True), key=lambda pair: pair[0].median)[1]


def time_gram(case, rounds):
    """Return the timings of a gram matrix and of an epoch over its samples."""
    network, X = case.draw(1, case.gram_count)
    epoch = partial(run_epoch, network, batch_size=find_chunk(compute_gram, network, X))
    return take_turns([partial(compute_gram, network), epoch], X, rounds)


def time_outputs(case, rounds):
    """Return the timings of the soft density of ten outputs, and of its limit."""
    network, X = case.draw(OUTPUTS, case.count // FEWER)
    chunk = find_chunk(fit_density, network, X)
    limit = partial(run_passes, network, batch_size=chunk)
    return take_turns([partial(compute_density, network), limit], X, rounds)


def take_turns(calls, X, rounds):
    """Return the timings of functions of samples in seconds of the CPU, see `time_in_turns`."""
    return time_in_turns(
        calls,
        X,
        few=WARM_UP_SAMPLES,
        rounds=rounds,
        slow_seconds=SLOW_SECONDS,
        clock=time.process_time,
    )


def measure_case(name, case, rounds):
    """Return the row of a network."""
    chunk, density, epoch, fastest = time_density(case, rounds)
    gram, gram_epoch = time_gram(case, rounds)
    outputs, limit = time_outputs(case, rounds)
    network, _ = case.draw(1, WARM_UP_SAMPLES)
    ratios = [a / b for a, b in zip(density.seconds, epoch.seconds, strict=True)]
    return format_row(
        name,
        f"{sum(parameter.numel() for parameter in list_trainable(network)):,}",
        f"{case.count:,}",
        f"{chunk:,}",
        f"{epoch.median:.3g}",
        divide(density, epoch),
        format_range(ratios, ".2f"),
        divide(density, fastest),
        f"{case.gram_count:,}",
        divide(gram, gram_epoch),
        divide(outputs, limit),
    )


def generate_peer_rows(name, case):
    """Yield the rows of other packages for a network."""
    network, X = case.draw(1, case.count // FEWER)
    for quantity, compute, peers in QUANTITIES:
        epoch = partial(run_epoch, batch_size=find_chunk(compute, network, X))
        calls = [partial(call, network) for call in (epoch, compute, *peers.values())]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            epoch, ours, *timings = take_turns(calls, X, PEER_ROUNDS)
        for peer, timing in zip(peers, timings, strict=True):
            yield format_row(name, quantity, peer, *format_peer(timing, ours, epoch))


def format_peer(timing, ours, epoch):
    """Return the epochs of another package, their ratio to sknetsim's, and the difference."""
    if timing.failure:
        return timing.failure, "–", "–"
    error = compute_relative_error(torch.as_tensor(timing.result), ours.result)
    ratio = timing.median / ours.median
    return f"{timing.median / epoch.median:.1f}", f"{ratio:.1f}", f"{error:.0e}"


def measure_memory(name, count, budget):
    """Return the peak memory of the soft density of a network, and the seconds."""
    network, X = CASES[name].draw(1, count)
    run = partial(compute_density, network)
    return measure_peak_memory(
        config_context(working_memory=WARM_UP_BUDGET)(partial(run, X[:WARM_UP_SAMPLES])),
        config_context(working_memory=budget)(partial(run, X)),
    )


def format_memory(name, case, budget):
    """Return the row of a network with a memory budget."""
    try:
        peak, _ = run_in_fresh_process(measure_memory, name, case.count, budget)
        cells = f"{peak:.0f}", f"{peak / budget:.2f}"
    except (BrokenProcessPool, MemoryError) as failure:
        cells = f"failed: {failure}".replace("|", "/"), "–"
    return format_row(name, f"{case.count:,}", str(budget), *cells)


def generate_report(quick, cases):
    """Yield the report, line by line."""
    torch.set_num_threads(1)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    chosen = {name: CASES[name] for name in cases or CASES}
    if quick:
        chosen = {name: case.shorten() for name, case in chosen.items()}
    yield from format_title(__file__, "Kinds of layers", PACKAGES)
    yield from (TEXT, "", *format_header(COLUMNS))
    for name, case in chosen.items():
        yield measure_case(name, case, rounds)
    yield from ("", "## Other packages", "", PEER_TEXT, "", *format_header(PEER_COLUMNS))
    for name, case in chosen.items():
        yield from generate_peer_rows(name, case)
    yield from ("", "## Peak memory", "", MEMORY_TEXT, "", *format_header(MEMORY_COLUMNS))
    for name, case in chosen.items():
        for budget in BUDGETS:
            yield format_memory(name, case, budget)


if __name__ == "__main__":
    write_report(
        __file__,
        __doc__.splitlines()[0],
        "one round on an eighth of the samples",
        generate_report,
        tuple(CASES),
    )
