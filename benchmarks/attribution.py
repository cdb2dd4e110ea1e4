"""Attribution: predicted effects of training samples, compared with retrained networks.

Writes ``benchmarks/results/attribution.md``. With ``--quick`` it only prints, for the digits,
with fewer samples and subsets.
"""

import os
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
from lib import report
from lib.attribution import groups, noise
from lib.attribution.measure import SLOW_SECONDS, Measurement, measure_method
from lib.attribution.methods import list_methods
from lib.attribution.tasks import TASKS
from lib.attribution.training import train_full_networks
from lib.attribution.truth import draw_halves, retrain
from lib.processes import run_in_fresh_process

#: Numbers of networks whose influences are averaged.
NETWORKS = {"digits": 5, "MNIST": 10, "California": 5}
#: Tasks with labels that can be wrong.
NOISY = ("digits", "MNIST")
NOISE_SEEDS = 3
#: Trainings without each group of samples.
GROUP_RETRAININGS = 32


def explain():
    """Yield the explanation of the scores."""
    yield (
        "Networks are trained on random halves of the samples, several times with other seeds. The"
        " linear datamodelling score (LDS) is the rank correlation, over these subsets, between the"
        " mean measured quantity of a query and the sum of the subset's influences on it, averaged"
        " over queries. The ceiling is the score of a perfect attribution, from the agreement of"
        " two halves of the retrainings. Influences are of networks that were trained on all"
        " samples: of one, or the mean of several. They explain the margin; the same influences are"
        " also compared with the loss (in regression, they explain the loss)."
    )
    yield ""
    yield (
        "The best damping is the one with the best score of one network on 100 other queries, which"
        " are not used otherwise; the default is used without settings. Dampings of sknetsim are in"
        " units of the mean eigenvalue, those of other packages are absolute; None of kronfluence"
        " is a tenth of the mean eigenvalue of each layer. Influences of several networks, with the"
        " best damping, are averaged; TRAK combines them in its own way. Seconds are of the"
        " processor, with one thread, for one network and one damping; memory is what the process"
        " needs in addition to its imported packages. Methods that take more than"
        f" {SLOW_SECONDS} s are run only once."
    )


def format_score(scores, index=0):
    """Format one of the scores of a damping, which may be missing."""
    return f"{scores[index]:.3f}" if scores else "–"


def measure_task(name, quick):
    """Yield the section of one task."""
    task = TASKS[name]()
    task = task.shorten() if quick else task
    truth = retrain(task, draw_halves(len(task.X), task.subsets), task.retrainings, seed=0)
    networks = train_full_networks(task, 1 if quick else NETWORKS[name])
    ceiling = truth.compute_ceiling(task.quantity, slice(task.tuning, None))
    queries = len(task.X_query) - task.tuning
    shape = "-".join(map(str, task.sizes))
    yield from ("", f"## {task.name}", "")
    yield (
        f"{len(task.X):,} samples, perceptron {shape} ({task.n_parameters:,} parameters),"
        f" {task.subsets} halves x {task.retrainings} retrainings, {task.epochs} epochs,"
        f" {queries} queries. Ceiling of the {task.quantity}: {ceiling:.3f}."
    )
    yield ""
    yield from report.format_header(make_columns(len(networks)))
    for method in list_methods(task):
        # A quick run imports the packages only once; its memory is not meaningful.
        run = measure_method if quick else measure_in_fresh_process
        yield format_measurement(method, run(method, networks, task, truth), len(networks))


def measure_in_fresh_process(*arguments):
    """Measure a method in a new process, which may run out of memory."""
    try:
        return run_in_fresh_process(measure_method, *arguments)
    except BrokenProcessPool:
        return Measurement(failure="failed: the process was ended, probably for its memory")


def make_columns(count):
    """Return the names of the columns for a number of networks."""
    columns = ["method", "package", "default damping", "LDS", "best damping", "LDS, best", "loss"]
    if count > 1:
        columns += [f"{count} networks", "loss"]
    return [*columns, "CPU s", "MiB", "remark"]


def format_measurement(method, measured, count):
    """Return the row of one method, measured with a number of networks."""
    default, best = method.dampings[0], measured.single.get(measured.best)
    has_dampings = len(method.dampings) > 1
    cells = [method.name, method.package, f"{default}" if has_dampings else "–"]
    cells += [format_score(measured.single.get(default))]
    cells += [f"{measured.best}" if has_dampings and best else "–"]
    cells += [format_score(best), format_score(best, 1)]
    if count > 1:
        cells += [format_score(measured.several), format_score(measured.several, 1)]
    costs = [f"{measured.seconds:.2f}", f"{measured.memory:.0f}"]
    costs = ["–" if np.isnan(measured.seconds) else cost for cost in costs]
    return report.format_row(*cells, *costs, measured.failure)


def measure_noise(quick):
    """Yield the section on wrong labels."""
    yield from ("", "## Wrong labels", "")
    yield (
        f"{noise.SHARE:.0%} of the labels are replaced by others, drawn at random, and a network is"
        " trained on all. The area under the ROC curve is that of finding the wrong labels by the"
        " influence of each sample on its own loss, mean and range of"
        f" {NOISE_SEEDS} seeds; seconds are of the processor, with one thread, in the last of them."
    )
    for name in NOISY[:1] if quick else NOISY:
        yield from ("", f"### {name}", "")
        yield from report.format_header(["method", "AUC", "range", "CPU s"])
        results = {}
        for seed in range(1 if quick else NOISE_SEEDS):
            task = TASKS[name]()
            task, wrong = noise.flip_labels(task.shorten() if quick else task, seed)
            (network,) = train_full_networks(task, 1, seed=seed)
            for detector, function in noise.list_detectors(task).items():
                result = noise.detect(function, network, task, wrong)
                results.setdefault(detector, []).append(result)
        for detector, values in results.items():
            yield format_detector(detector, values)


def format_detector(name, results):
    """Return the row of one detector of wrong labels."""
    failures = [result for result in results if isinstance(result, str)]
    if failures:
        return report.format_row(name, failures[0], "–", "–")
    areas, seconds = zip(*results, strict=True)
    return report.format_row(
        name, f"{np.mean(areas):.3f}", report.format_range(areas, ".3f"), f"{seconds[-1]:.2f}"
    )


def measure_groups(quick):
    """Yield the section on networks that are retrained without a group."""
    task = TASKS["California"]()
    task = task.shorten() if quick else task
    retrainings = 4 if quick else GROUP_RETRAININGS
    networks = train_full_networks(task, 1 if quick else 10)
    yield from ("", "## Retraining without a group", "")
    yield (
        f"California housing: the samples are divided into {groups.GROUPS} groups, at random or by"
        f" k-means of the inputs. Networks are retrained {retrainings} times without each group,"
        f" and {4 * retrainings} times with all. The change of each query's loss is compared with"
        " the influence of the group, over all groups and queries. A slope of 1 means that"
        " influences have the right size."
    )
    yield ""
    names = ["groups", "method", "networks", "Pearson", "Spearman", "slope", "ceiling of Pearson"]
    yield from report.format_header(names)
    methods = {"Gauss-Newton": {}, "EK-FAC": {"curvature": "ekfac"}, "none": {"curvature": "none"}}
    for kind in ("random", "similar"):
        members = groups.make_groups(task, kind)
        halves = groups.retrain_without_groups(task, members, retrainings)
        for method, settings in methods.items():
            for count in sorted({1, len(networks)}):
                predicted = groups.predict_changes(networks[:count], task, members, **settings)
                values = groups.compare_changes(predicted, halves).values()
                cells = [f"{value:.3f}" for value in values]
                yield report.format_row(kind, method, f"{count}", *cells)


def generate_report(quick, cases):
    """Yield the report, line by line."""
    torch.set_num_threads(1)
    packages = ["numpy", "scipy", "kronfluence", "dattri", "captum", "traker"]
    yield from report.format_title(__file__, "Attribution", packages)
    yield from explain()
    cases = cases or (QUICK_CASES if quick else CASES)
    for name in TASKS:
        if name in cases:
            yield from measure_task(name, quick)
    if "labels" in cases:
        yield from measure_noise(quick)
    if "groups" in cases:
        yield from measure_groups(quick)


#: Parts of the report.
CASES = (*TASKS, "labels", "groups")
#: Parts of the quick report.
QUICK_CASES = ("digits", "labels")

if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"  # The other processes inherit it.
    description = "Compare attributions with retrained networks."
    report.write_report(
        __file__,
        description,
        "only the digits, with fewer samples and subsets",
        generate_report,
        CASES,
    )
