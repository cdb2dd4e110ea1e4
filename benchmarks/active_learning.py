"""Active learning: what strategies gain on random choice, beside other packages'."""

from dataclasses import dataclass, field, replace

import numpy as np
import report
import torch
from images import mnist
from joblib import Parallel, delayed
from samplers import BmdalSampler, SkactivemlSampler
from scipy import stats
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from tables import TABLES
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from sknetsim import ActiveLearningCurve, ActiveLearningSampler, active_learning_curve
from sknetsim.strategies import STRATEGIES

EPOCHS, SEEDS, FEWER_SEEDS = 50, 10, 3
CLASSES_ONLY = ("badge", "entropy", "margin")


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


def perceptron(kind, inputs, hidden, outputs, **settings):
    """A skorch net of Adam, its rate decaying to a hundredth."""
    return kind(
        Perceptron,
        module__inputs=inputs,
        module__hidden=hidden,
        module__outputs=outputs,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=128,
        max_epochs=EPOCHS,
        train_split=None,
        callbacks=[("decay", LRScheduler(LinearLR, end_factor=0.01, total_iters=EPOCHS))],
        callbacks__print_log=None,
        verbose=0,
        **settings,
    )


def negative_log_rmse(net, X, y):
    """Of predictions, natural logarithm; greater is better."""
    return -np.log(np.sqrt(np.mean((net.predict(X) - y) ** 2)))


def regression(table):
    """A table, a perceptron of two hidden layers of 256, and how it is scored."""
    X, y = TABLES[table]()
    net = perceptron(NeuralNetRegressor, X.shape[1], 256, 1)
    return net, X, y, negative_log_rmse


def digits():
    """1,797 digits of 8 x 8 pixels."""
    X, y = load_digits(return_X_y=True)
    return classification((X / 16).astype("float32"), y, 128)


def images():
    """The first 5,000 training images of MNIST."""
    found = mnist("train", 5_000)
    return classification(found.inputs.reshape(len(found.labels), -1), found.labels, 256)


def classification(X, y, hidden):
    """Images, a perceptron of two hidden layers, and how it is scored."""
    settings = {"criterion": nn.CrossEntropyLoss, "classes": list(range(10))}
    net = perceptron(NeuralNetClassifier, X.shape[1], hidden, 10, **settings)
    return net, X, y, "accuracy"


def ours(names):
    """Samplers of this package."""
    return {name: ActiveLearningSampler(strategy=name) for name in names}


@dataclass(frozen=True)
class Task:
    """Data, the loop, and who takes part at how many seeds."""

    name: str
    make: object
    arguments: tuple
    loop: dict
    samplers: dict = field(repr=False)
    fewer: dict = field(repr=False)

    def runs(self, quick):
        """Who runs with which seed; seeds in the outer loop, so that a moment's noise is shared."""
        for seed in range(1 if quick else SEEDS):
            at_all = {} if seed >= FEWER_SEEDS else self.fewer
            yield from (
                (name, sampler, seed) for name, sampler in {**self.samplers, **at_all}.items()
            )


REGRESSION_LOOP = {"n_initial": 128, "n_queries": 128, "n_rounds": 8}
IMAGES_LOOP = {"n_initial": 20, "n_queries": 20, "n_rounds": 8}
BMDAL = {f"bmdal_reg {name}": BmdalSampler(name) for name in ("maxdet", "lcmd")}
SKACTIVEML = {
    f"scikit-activeml {name}": SkactivemlSampler(name) for name in ("Badge", "CoreSet", "TypiClust")
}
REGRESSION = {**ours(["random", "maxdet", "lcmd", "coverage"]), **BMDAL}
OTHERS = [name for name in STRATEGIES if name not in REGRESSION and name not in CLASSES_ONLY]
IMAGES = {**ours(["random", "badge", "coverage"]), **SKACTIVEML}
TASKS = [
    *(
        Task(table, regression, (table,), REGRESSION_LOOP, REGRESSION, ours(OTHERS))
        for table in TABLES
    ),
    *(
        Task(name, make, (), IMAGES_LOOP, IMAGES, ours([n for n in STRATEGIES if n not in IMAGES]))
        for name, make in {"digits": digits, "MNIST, 5,000": images}.items()
    ),
]


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
    return replace(
        curve, n_labelled=curve.n_labelled[: count + 1], scores=curve.scores[:, : count + 1]
    )


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
    names = dict.fromkeys(name for name, _, _ in runs)
    return {
        name: joined(
            [curve for (other, _, _), curve in zip(runs, found, strict=True) if other == name]
        )
        for name in names
    }


def table(task, curves):
    """What was found of one task."""
    loop, unit = task.loop, "log RMSE, less" if task.loop is REGRESSION_LOOP else "accuracy, more"
    yield ""
    yield f"## {task.name}"
    yield ""
    yield (
        f"{loop['n_initial']} samples at first, {loop['n_rounds']} rounds of {loop['n_queries']}."
        f" Gains on random choice: {unit} by so much, on the mean over the rounds."
    )
    yield ""
    half = loop["n_rounds"] // 2
    columns = [
        "strategy",
        "seeds",
        "mean score",
        "gain",
        f"gain in the first {half} rounds",
        "seconds a query",
    ]
    yield from report.head(columns)
    base = curves["random"]
    for name, curve in curves.items():
        early = gain(first_rounds(curve, half), first_rounds(base, half))
        yield report.row(
            name,
            str(len(curve.seeds)),
            f"{curve.area().mean():.4f}",
            "–" if curve is base else gain(curve, base),
            "–" if curve is base else early,
            f"{np.median(curve.query_times):.3g}",
        )


def beside_bmdal(found):
    """Our maxdet and lcmd less bmdal_reg's, table by table and on the mean."""
    yield ""
    yield "## Beside bmdal_reg"
    yield ""
    yield (
        "Gains of this package less those of bmdal_reg, seed by seed (positive where this package"
        " gains more), and its time for a query in theirs (medians)."
    )
    yield ""
    yield from report.head(
        [
            "table",
            *(f"{name}, {what}" for name in ("maxdet", "lcmd") for what in ("less theirs", "time")),
        ]
    )
    pairs = {name: [] for name in ("maxdet", "lcmd")}
    for task, curves in found.items():
        cells = []
        for name, differences in pairs.items():
            mine, theirs = curves[name], curves[f"bmdal_reg {name}"]
            differences.append(mine.area() - theirs.area())
            times = np.median(mine.query_times) / np.median(theirs.query_times)
            cells += [gain(mine, theirs), f"{times:.2f}"]
        yield report.row(task, *cells)
    cells = []
    for differences in pairs.values():
        mean = np.mean(differences, axis=0)
        half = stats.t.ppf(0.975, len(mean) - 1) * mean.std(ddof=1) / np.sqrt(len(mean))
        cells += [f"{mean.mean():+.4f} ± {half:.4f}", ""]
    yield report.row("mean of the tables", *cells)


def lines(quick):
    """The document."""
    yield "# Active learning"
    yield ""
    packages = ["scikit-learn", "skorch", "numpy", "bmdal-reg", "scikit-activeml"]
    yield (
        report.setting(packages).replace(
            f"{torch.get_num_threads()} threads", "two processes of one thread"
        )
        + "."
    )
    yield ""
    yield (
        "Perceptrons of two hidden layers (256 units, digits 128), trained anew in each round for"
        f" {EPOCHS} epochs of Adam. A seed decides on the split (a quarter is for tests), the first"
        " samples and the initial weights, so that strategies are compared seed by seed; intervals"
        " are Student's, of 95 %."
    )
    found = {}
    for task in TASKS:
        curves = measured(task, quick)
        yield from table(task, curves)
        if task.loop is REGRESSION_LOOP:
            found[task.name] = curves
    yield from beside_bmdal(found)


if __name__ == "__main__":
    report.run(__file__, __doc__, "one seed, two rounds", lines)
