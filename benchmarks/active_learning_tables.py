"""Active learning in regression: what strategies gain on random choice, beside bmdal_reg.

Writes ``benchmarks/active_learning_tables.md``. With ``--quick`` it only prints, after two
rounds of one seed.
"""

import numpy as np
from lib import report
from lib.active_learning.loops import Task, gain, introduction, measured, ours, perceptron, table
from lib.active_learning.samplers import BmdalSampler
from lib.data.tables import TABLES
from scipy import stats
from skorch import NeuralNetRegressor

from sknetsim.active.strategies import STRATEGIES

LOOP = {"n_initial": 128, "n_queries": 128, "n_rounds": 8}
COMPARED = ("maxdet", "lcmd")
SAMPLERS = {
    **ours(["random", *COMPARED, "coverage"]),
    **{f"bmdal_reg {name}": BmdalSampler(name) for name in COMPARED},
}
OTHERS = [name for name, kind in STRATEGIES.items() if name not in SAMPLERS and not kind.classes]


def negative_log_rmse(net, X, y):
    """Of predictions, natural logarithm; greater is better."""
    return -np.log(np.sqrt(np.mean((net.predict(X) - y) ** 2)))


def regression(name):
    """A table, its network, and how that is scored."""
    X, y = TABLES[name]()
    net = perceptron(NeuralNetRegressor, X.shape[1], 256, 1, epochs=50, batch_size=128)
    return net, X, y, negative_log_rmse


def interval(values):
    """Mean and half of Student's interval."""
    half_width = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():+.4f} ± {half_width:.4f}"


def beside_bmdal(found):
    """Our maxdet and lcmd less bmdal_reg's, table by table and on the mean."""
    yield from ("", "## Beside bmdal_reg", "")
    yield (
        "Gains of this package less those of bmdal_reg's `select_batch` (gradient kernel, random"
        " projection to 512 features), seed by seed: positive where this package gains more; and"
        " its time for a query in theirs."
    )
    yield ""
    yield from report.head(
        ["table", *(f"{name}{of}" for name in COMPARED for of in ("", ", time"))]
    )
    differences = {name: [] for name in COMPARED}
    for task, curves in found.items():
        cells = []
        for name in COMPARED:
            mine, theirs = curves[name], curves[f"bmdal_reg {name}"]
            differences[name].append(mine.area() - theirs.area())
            times = np.median(mine.query_times) / np.median(theirs.query_times)
            cells += [gain(mine, theirs), f"{times:.2f}"]
        yield report.row(task, *cells)
    means = (interval(np.mean(values, axis=0)) for values in differences.values())
    yield report.row("mean of the tables", *(cell for mean in means for cell in (mean, "")))


def lines(quick):
    """The whole text, line by line."""
    packages = ("scikit-learn", "skorch", "numpy", "bmdal-reg")
    network = "Perceptrons of two hidden layers of 256 units, 50 epochs of Adam"
    title, score = "Active learning in regression", "log RMSE (less by so much)"
    yield from introduction(title, packages, network, score)
    found = {}
    for name in TABLES:
        task = Task(name, regression, (name,), LOOP, SAMPLERS, ours(OTHERS))
        found[name] = measured(task, quick)
        yield from table(task, found[name])
    yield from beside_bmdal(found)


if __name__ == "__main__":
    report.run(__file__, __doc__, "two rounds of one seed", lines)
