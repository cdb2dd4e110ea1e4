"""Learning curves of each kind of rows, compared with the loop by hand on prepared rows."""

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from sknetsim import ActiveLearningSampler, active_learning_curve
from sknetsim.displays import LearningCurveDisplay

from ..test_kinds_of_rows import (
    KINDS,
    Kind,
    N,
    make_float_texts,
    make_numbers,
    make_perceptron,
    make_texts,
    to_dense,
    to_float32,
)

LABELS = np.arange(N) % 2
LOOP = {"n_initial": 12, "n_queries": 2, "n_rounds": 2, "seeds": [0]}


class Items(Dataset):
    """Dataset of given items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def make_rows():
    return make_numbers().to_numpy()


def make_pairs():
    return TensorDataset(torch.tensor(make_rows()), torch.tensor(LABELS))


def take_items(X, rows):
    return [X[int(row)] for row in rows]


def stack(pairs):
    return np.stack([x.numpy() for x, _ in pairs])


# Forms of the same rows that only samples read one by one have.
MORE_KINDS = {
    "sparse": Kind(
        lambda: sparse.coo_array(make_rows()),
        lambda: [FunctionTransformer(to_float32)],
        lambda: make_perceptron(2),
        take=lambda X, rows: X.tocsr()[rows],
    ),
    "Dataset of pairs": Kind(
        make_pairs, list, lambda: make_perceptron(2), convert=stack, take=take_items
    ),
    "Dataset of items": Kind(
        lambda: Items([*torch.tensor(make_rows())]),
        list,
        lambda: make_perceptron(2),
        convert=lambda items: np.stack([item.numpy() for item in items]),
        take=take_items,
    ),
    "SliceDataset of texts": Kind(
        lambda: SliceDataset(Items([(text, 0) for text in make_texts()])),
        make_float_texts,
        lambda: make_perceptron(6),
        take=take_items,
    ),
}


def make_net(kind):
    return NeuralNetClassifier(
        kind.make_module(), criterion=nn.CrossEntropyLoss, max_epochs=3, lr=0.1, verbose=0,
        train_split=None,
    )  # fmt: skip


def make_estimator(kind):
    """Return an untrained Pipeline, or net for rows that need no steps, with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, steps = make_net(kind), kind.make_steps()
    return make_pipeline(*steps, net) if steps else net


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


@pytest.fixture(autouse=True)
def threads():
    """Let workers be threads, which start at once."""
    with joblib.parallel_config("threading"):
        yield


ALL_KINDS = {**MORE_KINDS, **KINDS}


@pytest.mark.parametrize("strategy", ["lcmd", "badge", "coverage", "margin", "random"])
@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=ALL_KINDS)
@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_the_curve_of_raw_rows_is_that_of_the_loop_by_hand(kind, strategy):
    sampler = ActiveLearningSampler(strategy=strategy)
    curve = active_learning_curve(make_estimator(kind), sampler, kind.make_rows(), LABELS, **LOOP)
    scores, labelled = run_by_hand(kind, strategy, 0)
    assert curve.indices[0].tolist() == labelled.tolist()
    np.testing.assert_allclose(curve.scores[0], scores)


@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=ALL_KINDS)
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
    kind = MORE_KINDS["Dataset of pairs"]
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
            make_net(MORE_KINDS["Dataset of items"]), ActiveLearningSampler(),
            Items([*torch.tensor(make_rows())]), None, **LOOP,
        )  # fmt: skip


def test_items_of_a_dataset_are_not_loaded_at_once():
    """The largest number of items in memory is that of a batch, not of the pool."""

    class Counted(Items):
        loaded = 0

        def __getitem__(self, index):
            type(self).loaded += 1
            return super().__getitem__(index)

    from sknetsim.active.curve import select_samples

    chosen = select_samples(Counted([(x, 0) for x in torch.tensor(make_rows())]), np.arange(9))
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
