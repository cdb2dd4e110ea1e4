"""Kinds of rows that are read item by item, or in a form of their own, for the tests of what uses
rows: displays, stores, learning curves and adapters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from .test_kinds_of_rows import (
    KINDS,
    Example,
    Kind,
    N,
    make_float_texts,
    make_numbers,
    make_perceptron,
    make_texts,
    take_rows,
    to_float32,
)

LABELS = np.arange(N) % 2


class Items(Dataset):
    """Dataset of given items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def make_array():
    return make_numbers().to_numpy()


def make_pairs():
    return TensorDataset(torch.tensor(make_array()), torch.tensor(LABELS))


def make_pictures():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (5, 7, 3), np.uint8)) for _ in range(N)]


def make_huggingface_dataset(**columns):
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


def list_items(rows):
    """Return the inputs of items: of pairs (x, y), of dicts, or the items themselves."""
    items = [*rows] if hasattr(rows, "iloc") else [rows[index] for index in range(len(rows))]
    if isinstance(items[0], dict):
        return [item["text"] if "text" in item else item["image"] for item in items]
    return [item[0] if isinstance(item, tuple) else item for item in items]


def stack_items(rows):
    return np.stack([np.asarray(item) for item in list_items(rows)])


def flatten_items(rows):
    """Return images as rows of numbers in [0, 1]."""
    return stack_items(rows).astype("float32").reshape(len(rows), -1) / 255


def make_image_steps():
    return [FunctionTransformer(flatten_items)]


def make_text_steps():
    return [FunctionTransformer(list_items), *make_float_texts()]


class Bag(nn.Module):
    """Network that takes the mean embedding of numbered words, of which 0 is no word."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 4), nn.Linear(4, 2)

    def forward(self, words):
        is_word = words.ne(0)[..., None]
        return self.head(torch.tanh((self.embed(words) * is_word).sum(1) / is_word.sum(1)))


def make_sentences():
    """Return lists of different lengths, of numbers of words."""
    generator = np.random.default_rng(0)
    lists = [generator.integers(1, 20, length).tolist() for length in generator.integers(3, 7, N)]
    return pd.Series(lists).to_numpy()


def pad(sentences):
    return np.array([[*words, *[0] * (6 - len(words))] for words in sentences])


def pad_batch(pairs):
    sentences, labels = zip(*pairs, strict=True)
    padded = nn.utils.rnn.pad_sequence([torch.tensor(words) for words in sentences], True)
    return padded, torch.tensor(np.array(labels))


@dataclass(frozen=True)
class BatchedKind(Kind):
    """Rows of which the net forms batches in a way of its own."""

    collate: Callable = None


def make_small_perceptron():
    return make_perceptron(2)


def make_text_perceptron():
    return make_perceptron(6)


def make_image_perceptron():
    return make_perceptron(5 * 7 * 3)


def take_items(X, rows):
    return [X[int(row)] for row in rows]


def take_subset(X, rows):
    return Items(take_items(X, rows))


ITEM_KINDS = {
    "sparse matrix": Kind(
        lambda: sparse.coo_array(make_array()),
        lambda: [FunctionTransformer(to_float32)],
        make_small_perceptron,
        take=lambda X, rows: X.tocsr()[rows],
    ),
    "Dataset of pairs": Kind(
        make_pairs, list, make_small_perceptron, convert=stack_items, take=take_subset
    ),
    "SliceDataset of texts": Kind(
        lambda: SliceDataset(Items([(text, 0) for text in make_texts()])),
        make_float_texts,
        make_text_perceptron,
    ),
    "Hugging Face dataset of texts": Kind(
        lambda: make_huggingface_dataset(text=make_texts(), label=LABELS),
        make_text_steps,
        make_text_perceptron,
        take=lambda X, rows: X.select(rows),
    ),
    "Hugging Face dataset of images": Kind(
        lambda: make_huggingface_dataset(image=make_pictures()),
        make_image_steps,
        make_image_perceptron,
        take=lambda X, rows: X.select(rows),
    ),
    "images of Pillow": Kind(make_pictures, make_image_steps, make_image_perceptron),
    "Series of images": Kind(
        lambda: pd.Series(make_pictures()),
        make_image_steps,
        make_image_perceptron,
        take=lambda X, rows: X.iloc[rows],
    ),
    "Dataset of images": Kind(
        lambda: Items([(picture, 0) for picture in make_pictures()]),
        make_image_steps,
        make_image_perceptron,
        take=take_subset,
    ),
}

ITEM_KINDS["lists of different lengths"] = BatchedKind(
    make_sentences, list, Bag, convert=pad, take=take_rows, collate=pad_batch
)

ALL_KINDS = {**KINDS, **ITEM_KINDS}


def make_net(kind):
    net = NeuralNetClassifier(
        kind.make_module(), criterion=nn.CrossEntropyLoss, max_epochs=3, lr=0.1, verbose=0,
        train_split=None, iterator_train__shuffle=False,
    )  # fmt: skip
    if isinstance(kind, BatchedKind):
        net.set_params(
            iterator_train__collate_fn=kind.collate, iterator_valid__collate_fn=kind.collate
        )
    return net


def make_estimator(kind):
    """Return an untrained Pipeline, or net for rows that need no steps, with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, steps = make_net(kind), kind.make_steps()
    return make_pipeline(*steps, net) if steps else net


@pytest.fixture(scope="module", params=ALL_KINDS.values(), ids=ALL_KINDS)
def any_example(request):
    """Return a trained Pipeline or net with rows of each kind, and with its prepared rows."""
    kind = request.param
    X, pipeline = kind.make_rows(), make_estimator(kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline.fit(X, LABELS)
    prepared = kind.convert(X)
    steps = pipeline.steps if hasattr(pipeline, "steps") else [("net", pipeline)]
    for _, step in steps[:-1]:
        prepared = step.transform(prepared)
    return Example(kind, pipeline, X, steps[-1][1], prepared, LABELS)
