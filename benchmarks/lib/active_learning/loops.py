"""Active-learning loops of several samplers, seed by seed, and their tables."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from joblib import Parallel, delayed

from lib import report
from sknetsim import ActiveLearningCurve, ActiveLearningSampler, active_learning_curve

FEWER_SEEDS = 3
COLUMNS = ("strategy", "seeds", "mean score", "gain", "gain in the first half", "seconds per query")


def make_samplers(strategies):
    """Make samplers of sknetsim by the names of their strategies."""
    return {name: ActiveLearningSampler(strategy=name) for name in strategies}


@dataclass(frozen=True)
class Task:
    """Data and network (from ``make(*arguments)``), the loop, and the samplers.

    ``samplers`` run with ``seeds`` seeds, ``fewer`` only with the first FEWER_SEEDS of them.
    """

    name: str
    make: Callable
    arguments: tuple
    loop: dict
    samplers: dict
    fewer: dict
    seeds: int = 10

    def list_runs(self, quick):
        """Yield the name, the sampler and the seed of each run.

        Seeds are the outer loop, so that a moment's load of the machine affects all samplers.
        """
        for seed in range(1 if quick else self.seeds):
            samplers = {**self.samplers, **(self.fewer if seed < FEWER_SEEDS else {})}
            yield from ((name, sampler, seed) for name, sampler in samplers.items())


def run_loop(task, sampler, seed, quick):
    """Return the curve of one sampler and seed, computed with one thread."""
    torch.set_num_threads(1)
    net, X, y, scoring = task.make(*task.arguments)
    loop = {**task.loop, "n_rounds": 2} if quick else task.loop
    return active_learning_curve(net, sampler, X, y, seeds=[seed], scoring=scoring, **loop)


def concatenate(curves):
    """Concatenate the curves of single seeds."""
    first = curves[0]
    scores, times, indices = (
        np.concatenate([getattr(curve, name) for curve in curves])
        for name in ("scores", "query_times", "indices")
    )
    seeds = tuple(seed for curve in curves for seed in curve.seeds)
    return ActiveLearningCurve(first.n_labelled, scores, times, indices, seeds)


def select_rounds(curve, count):
    """Return the first ``count`` rounds of a curve."""
    part = slice(count + 1)
    return replace(curve, n_labelled=curve.n_labelled[part], scores=curve.scores[:, part])


def select_seeds(curve, other):
    """Return the part of a curve that has the seeds of ``other``."""
    rows = [curve.seeds.index(seed) for seed in other.seeds]
    return replace(curve, scores=curve.scores[rows], seeds=other.seeds)


def format_gain(curve, other):
    """Format the difference between the areas of two curves, with its interval."""
    mean, half_width = curve.difference(select_seeds(other, curve))
    return f"{mean:+.4f} ± {half_width:.4f}"


def measure_curves(task, quick):
    """Return the curves of all samplers by name."""
    runs = list(task.list_runs(quick))
    results = Parallel(2)(
        delayed(run_loop)(task, sampler, seed, quick) for _, sampler, seed in runs
    )
    curves = defaultdict(list)
    for (name, _, _), curve in zip(runs, results, strict=True):
        curves[name].append(curve)
    return {name: concatenate(parts) for name, parts in curves.items()}


def generate_table(task, curves):
    """Yield the section of one task, line by line."""
    yield from ("", f"## {task.name}", "")
    loop, half = task.loop, task.loop["n_rounds"] // 2
    yield (
        f"{loop['n_initial']} initial samples, then {loop['n_rounds']} rounds of"
        f" {loop['n_queries']}."
    )
    yield ""
    yield from report.format_header(COLUMNS)
    base = curves["random"]
    base_half = select_rounds(base, half)
    for name, curve in curves.items():
        gains = [format_gain(curve, base), format_gain(select_rounds(curve, half), base_half)]
        yield report.format_row(
            name,
            str(len(curve.seeds)),
            f"{curve.area().mean():.4f}",
            *(["–", "–"] if curve is base else gains),
            f"{np.median(curve.query_times):.3g}",
        )


def generate_introduction(script, title, packages, networks, score):
    """Yield the first lines of a report."""
    yield from report.format_title(script, title, packages, note="; two processes of one thread")
    yield (
        f"{networks}. The network is trained from scratch in each round. A seed determines the"
        " split (a quarter is the test set), the first samples and the initial weights, so"
        " strategies are compared seed by seed. Gains are differences from random selection in"
        f" {score}, averaged over the rounds (and over the first half of them), with 95 % intervals"
        " of Student's t distribution. Seconds are medians of one query, including the gradients"
        " of the pool and of the labelled samples."
    )
