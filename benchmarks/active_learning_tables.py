"""Active learning in regression: gains of strategies, compared with bmdal_reg.

Writes ``benchmarks/results/active_learning_tables.md``. With ``--quick`` it only prints, after two
rounds of one seed.
"""

import numpy as np
from lib import report
from lib.active_learning.loops import (
    Task,
    format_gain,
    generate_introduction,
    generate_table,
    make_samplers,
    measure_curves,
)
from lib.active_learning.samplers import BmdalSampler
from lib.data.tables import TABLES
from lib.training import make_perceptron_net
from scipy import stats
from skorch import NeuralNetRegressor

from sknetsim.active.strategies import STRATEGIES

LOOP = {"n_initial": 128, "n_queries": 128, "n_rounds": 8}
COMPARED = ("maxdet", "lcmd")
SAMPLERS = {
    **make_samplers(["random", *COMPARED, "coverage"]),
    **{f"bmdal_reg {name}": BmdalSampler(name) for name in COMPARED},
}
FOR_REGRESSION = [name for name, strategy in STRATEGIES.items() if not strategy.needs_classes]
OTHERS = [name for name in FOR_REGRESSION if name not in SAMPLERS]


def compute_score(net, X, y):
    """Return the negative natural logarithm of the root mean square error; greater is better."""
    return -np.log(np.sqrt(np.mean((net.predict(X) - y) ** 2)))


def make_regression(name):
    """Return the network of a table, the table, and the score."""
    X, y = TABLES[name]()
    net = make_perceptron_net(NeuralNetRegressor, X.shape[1], 256, 1, epochs=50, batch_size=128)
    return net, X, y, compute_score


def format_interval(values):
    """Format the mean with half the width of its 95 % interval."""
    half_width = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():+.4f} ± {half_width:.4f}"


def generate_comparison(curves_by_table):
    """Yield the section that compares maxdet and lcmd with those of bmdal_reg."""
    yield from ("", "## Compared with bmdal_reg", "")
    yield (
        "Gains of sknetsim minus those of bmdal_reg's `select_batch` (gradient kernel, random"
        " projection to 512 features), seed by seed; positive values mean that sknetsim gains more."
        ' The columns "time" are the time of a query as a multiple of bmdal_reg\'s.'
    )
    yield ""
    columns = (column for name in COMPARED for column in (name, f"{name}, time"))
    yield from report.format_header(["table", *columns])
    differences = {name: [] for name in COMPARED}
    for table, curves in curves_by_table.items():
        cells = []
        for name in COMPARED:
            ours, theirs = curves[name], curves[f"bmdal_reg {name}"]
            differences[name].append(ours.area() - theirs.area())
            ratio = np.median(ours.query_times) / np.median(theirs.query_times)
            cells += [format_gain(ours, theirs), f"{ratio:.2f}"]
        yield report.format_row(table, *cells)
    means = (format_interval(np.mean(values, axis=0)) for values in differences.values())
    yield report.format_row("mean of the tables", *(cell for mean in means for cell in (mean, "")))


def generate_report(quick):
    """Yield the report, line by line."""
    yield from generate_introduction(
        __file__,
        "Active learning in regression",
        packages=("scikit-learn", "skorch", "numpy", "bmdal-reg"),
        networks="Perceptrons with two hidden layers of 256 units, 50 epochs of Adam",
        score="log RMSE (positive if the error is smaller)",
    )
    curves_by_table = {}
    for name in TABLES:
        task = Task(name, make_regression, (name,), LOOP, SAMPLERS, make_samplers(OTHERS))
        curves_by_table[name] = measure_curves(task, quick)
        yield from generate_table(task, curves_by_table[name])
    yield from generate_comparison(curves_by_table)


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "two rounds of one seed", generate_report)
