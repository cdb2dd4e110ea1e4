"""Learning curves of each kind of rows, compared with the loop by hand on prepared rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sknetsim import ActiveLearningSampler, active_learning_curve
from sknetsim.active.curve import select_samples
from sknetsim.displays import LearningCurveDisplay

from ..kinds import (
    ALL_KINDS,
    ITEM_KINDS,
    KINDS,
    LABELS,
    Items,
    Kind,
    N,
    list_items,
    make_array,
    make_estimator,
    make_float_texts,
    make_net,
    make_pairs,
    make_perceptron,
    make_small_perceptron,
    make_texts,
    take_items,
    to_dense,
)

pytestmark = pytest.mark.usefixtures("threads")

LOOP = {"n_initial": 12, "n_queries": 2, "n_rounds": 2, "seeds": [0]}

CURVE_KINDS = {
    **ALL_KINDS,
    # skorch takes no Dataset of items without labels, but a learning curve adds them.
    "Dataset of items": Kind(
        lambda: Items([*torch.tensor(make_array())]),
        list,
        make_small_perceptron,
        convert=lambda items: np.stack([item.numpy() for item in items]),
        take=take_items,
    ),
    "Dataset of texts": Kind(
        lambda: Items(make_texts()),
        lambda: [FunctionTransformer(list_items), *make_float_texts()],
        lambda: make_perceptron(6),
        take=take_items,
    ),
}


def run_by_hand(kind, strategy, seed):
    """Return scores and labelled samples of the loop, whose sampler gets prepared rows."""
    X, estimator = kind.make_rows(), make_estimator(kind)
    order = np.random.RandomState(seed).permutation(N)
    test, labelled, pool = np.split(order, [N // 4, N // 4 + LOOP["n_initial"]])
    scores = []
    for number in range(LOOP["n_rounds"] + 1):
        torch.manual_seed(int(np.random.SeedSequence([seed, len(labelled)]).generate_state(1)[0]))
        trained = clone(estimator)
        rows = kind.take(X, labelled)
        is_pipeline = isinstance(trained, Pipeline)
        trained.fit(rows if is_pipeline else prepare(kind, trained, rows), LABELS[labelled])
        net = trained[-1] if is_pipeline else trained
        prepared = {
            name: prepare(kind, trained, kind.take(X, indices))
            for name, indices in {"test": test, "labelled": labelled, "pool": pool}.items()
        }
        scores.append(np.mean(net.predict(prepared["test"]) == LABELS[test]))
        if number < LOOP["n_rounds"]:
            sampler = ActiveLearningSampler(net, strategy=strategy, random_state=seed)
            sampler.fit(prepared["labelled"], LABELS[labelled])
            chosen = sampler.query(prepared["pool"], LOOP["n_queries"])
            labelled, pool = np.append(labelled, pool[chosen]), np.delete(pool, chosen)
    return scores, labelled


def prepare(kind, trained, rows):
    """Return rows as the network takes them."""
    rows = kind.convert(rows)
    for _, step in trained.steps[:-1] if isinstance(trained, Pipeline) else []:
        rows = step.transform(rows)
    return to_dense(rows)


# All kinds, with two strategies in turn, and all strategies with one kind.
CASES = [
    *((name, ("lcmd", "badge")[number % 2]) for number, name in enumerate(CURVE_KINDS)),
    *(("table", strategy) for strategy in ("badge", "coverage", "margin", "random")),
]


@pytest.mark.parametrize(("name", "strategy"), CASES)
@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_the_curve_of_raw_rows_is_that_of_the_loop_by_hand(name, strategy):
    kind = CURVE_KINDS[name]
    sampler = ActiveLearningSampler(strategy=strategy)
    curve = active_learning_curve(make_estimator(kind), sampler, kind.make_rows(), LABELS, **LOOP)
    scores, labelled = run_by_hand(kind, strategy, 0)
    assert curve.indices[0].tolist() == labelled.tolist()
    np.testing.assert_allclose(curve.scores[0], scores)


@pytest.mark.parametrize("kind", CURVE_KINDS.values(), ids=CURVE_KINDS)
def test_workers_do_not_change_the_curve_of_raw_rows(kind):
    curves = [
        active_learning_curve(
            make_estimator(kind), ActiveLearningSampler(strategy="lcmd"), kind.make_rows(), LABELS,
            **{**LOOP, "seeds": [0, 1], "n_jobs": n_jobs},
        )
        for n_jobs in (1, 2)
    ]  # fmt: skip
    np.testing.assert_array_equal(curves[0].scores, curves[1].scores)
    np.testing.assert_array_equal(curves[0].indices, curves[1].indices)


def test_labels_of_a_dataset_are_those_of_its_pairs():
    kind = ITEM_KINDS["Dataset of pairs"]
    curves = [
        active_learning_curve(
            make_estimator(kind), ActiveLearningSampler(strategy="badge"), make_pairs(), y, **LOOP
        )
        for y in (None, LABELS)
    ]
    np.testing.assert_array_equal(curves[0].scores, curves[1].scores)
    np.testing.assert_array_equal(curves[0].indices, curves[1].indices)


def test_a_dataset_without_labels_needs_labels():
    with pytest.raises(ValueError, match=r"`y` must be the labels of X; got None\. Pass one"):
        active_learning_curve(
            make_net(CURVE_KINDS["Dataset of items"]), ActiveLearningSampler(),
            Items([*torch.tensor(make_array())]), None, **LOOP,
        )  # fmt: skip


def test_items_of_a_dataset_are_not_loaded_at_once():
    """The largest number of items in memory is that of a batch, not of the pool."""

    class Counted(Items):
        loaded = 0

        def __getitem__(self, index):
            type(self).loaded += 1
            return super().__getitem__(index)

    chosen = select_samples(Counted([(x, 0) for x in torch.tensor(make_array())]), np.arange(9))
    assert len(chosen) == 9 and Counted.loaded == 0


def test_the_index_of_a_table_is_ignored():
    kind = KINDS["table"]
    curves = []
    for index in (range(N), range(N)[::-1]):
        X = kind.make_rows().set_axis(pd.Index(index))
        sampler = ActiveLearningSampler(strategy="lcmd")
        curves.append(active_learning_curve(make_estimator(kind), sampler, X, LABELS, **LOOP))
    np.testing.assert_array_equal(curves[0].indices, curves[1].indices)


def test_curves_of_raw_rows_are_drawn():
    kind = KINDS["list of texts"]
    samplers = {name: ActiveLearningSampler(strategy=name) for name in ("random", "lcmd")}
    display = LearningCurveDisplay.from_estimator(
        make_estimator(kind), samplers, kind.make_rows(), LABELS, **LOOP
    )
    assert [line.get_label() for line in display.ax_.lines] == ["random", "lcmd"]
    assert display.curves["lcmd"].n_labelled.tolist() == [12, 14, 16]


def test_an_error_names_the_column_that_a_net_without_steps_does_not_take():
    net = make_net(ITEM_KINDS["Dataset of pairs"])
    with pytest.raises(ValueError, match=r"`X` must contain .* numbers; got .* in 'city'"):
        active_learning_curve(
            net, ActiveLearningSampler(), KINDS["table"].make_rows(), LABELS, **LOOP
        )
