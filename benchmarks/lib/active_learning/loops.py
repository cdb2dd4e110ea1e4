"""Loops of active learning for several samplers, seed by seed, and their tables."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from joblib import Parallel, delayed
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from lib import report
from sknetsim import ActiveLearningCurve, ActiveLearningSampler, active_learning_curve

FEWER_SEEDS = 3
COLUMNS = ("strategy", "seeds", "mean score", "gain", "gain in the first half", "seconds a query")


class Perceptron(nn.Sequential):
    """Two hidden layers of ReLU, with new weights each time that skorch makes one."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )


def perceptron(kind, inputs, hidden, outputs, epochs, **settings):
    """A skorch net of two hidden layers, see `decaying`."""
    sizes = {"module__inputs": inputs, "module__hidden": hidden, "module__outputs": outputs}
    return decaying(kind, Perceptron, epochs, 3e-3, **sizes, **settings)


def decaying(kind, module, epochs, rate, **settings):
    """A skorch net of Adam, its rate decaying to a hundredth of what it is at first."""
    return kind(
        module,
        optimizer=torch.optim.Adam,
        lr=rate,
        max_epochs=epochs,
        train_split=None,
        callbacks=[("decay", LRScheduler(LinearLR, end_factor=0.01, total_iters=epochs))],
        callbacks__print_log=None,
        verbose=0,
        **settings,
    )


def ours(names):
    """Samplers of this package."""
    return {name: ActiveLearningSampler(strategy=name) for name in names}


@dataclass(frozen=True)
class Task:
    """Data and network (a function of ``arguments``), the loop, and who takes part.

    ``samplers`` take part at ``seeds`` seeds, ``fewer`` at the first of them alone.
    """

    name: str
    make: Callable
    arguments: tuple
    loop: dict
    samplers: dict
    fewer: dict
    seeds: int = 10

    def runs(self, quick):
        """Who runs with which seed; seeds in the outer loop, so that a moment's noise is shared."""
        for seed in range(1 if quick else self.seeds):
            taking_part = {**self.samplers, **(self.fewer if seed < FEWER_SEEDS else {})}
            yield from ((name, sampler, seed) for name, sampler in taking_part.items())


def run(task, sampler, seed, quick):
    """The curve of one sampler and seed, on one thread."""
    torch.set_num_threads(1)
    net, X, y, scoring = task.make(*task.arguments)
    loop = {**task.loop, "n_rounds": 2} if quick else task.loop
    return active_learning_curve(net, sampler, X, y, seeds=[seed], scoring=scoring, **loop)


def joined(curves):
    """The curves of single seeds as one."""
    first = curves[0]
    scores, times, indices = (
        np.concatenate([getattr(curve, name) for curve in curves])
        for name in ("scores", "query_times", "indices")
    )
    seeds = tuple(seed for curve in curves for seed in curve.seeds)
    return ActiveLearningCurve(first.n_labelled, scores, times, indices, seeds)


def first_rounds(curve, count):
    """The curve cut off after so many rounds."""
    part = slice(count + 1)
    return replace(curve, n_labelled=curve.n_labelled[part], scores=curve.scores[:, part])


def seeds_of(curve, other):
    """The part of a curve that has the other's seeds."""
    rows = [curve.seeds.index(seed) for seed in other.seeds]
    return replace(curve, scores=curve.scores[rows], seeds=other.seeds)


def gain(curve, other):
    """The difference of the areas, with its interval."""
    mean, half = curve.difference(seeds_of(other, curve))
    return f"{mean:+.4f} ± {half:.4f}"


def measured(task, quick):
    """The curves of all who take part, by name."""
    runs = list(task.runs(quick))
    found = Parallel(2)(delayed(run)(task, sampler, seed, quick) for _, sampler, seed in runs)
    curves = defaultdict(list)
    for (name, _, _), curve in zip(runs, found, strict=True):
        curves[name].append(curve)
    return {name: joined(parts) for name, parts in curves.items()}


def table(task, curves):
    """What was found of one task."""
    yield from ("", f"## {task.name}", "")
    loop, half = task.loop, task.loop["n_rounds"] // 2
    yield (
        f"{loop['n_initial']} samples at first, {loop['n_rounds']} rounds of {loop['n_queries']}."
    )
    yield ""
    yield from report.head(COLUMNS)
    base = curves["random"]
    for name, curve in curves.items():
        gains = [gain(curve, base), gain(first_rounds(curve, half), first_rounds(base, half))]
        yield report.row(
            name,
            str(len(curve.seeds)),
            f"{curve.area().mean():.4f}",
            *(["–", "–"] if curve is base else gains),
            f"{np.median(curve.query_times):.3g}",
        )


def introduction(title, packages, network, score):
    """The first lines of a document."""
    yield from (f"# {title}", "", f"{report.setting(packages)}; two processes of one thread.", "")
    yield (
        f"{network}, trained anew in each round. A seed decides on the split (a quarter is for"
        " tests), the first samples and the initial weights: strategies are compared seed by seed."
        f" Gains are on random choice, in {score}, on the mean over the rounds (and over the first"
        " half of them), with Student's intervals of 95 %. Seconds are medians of one query,"
        " gradients of pool and labelled samples included."
    )
