"""Kinds of rows that a Pipeline or a network takes, for the tests of everything that takes rows."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skorch import NeuralNetClassifier
from skorch.helper import DataFrameTransformer, SliceDataset, SliceDict
from torch import nn
from torch.utils.data import Dataset, TensorDataset

N = 24
LABELS = np.arange(N) % 2


def make_table():
    """Return a table with numbers, missing numbers and categories."""
    generator = np.random.default_rng(0)
    age = generator.normal(40, 10, N)
    age[[3, 7]] = np.nan
    city = generator.choice(["Rome", "Oslo", "Bonn"], N)
    return pd.DataFrame({"age": age, "city": city, "income": generator.normal(size=N)})


def make_column_steps():
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = [("numbers", numbers, ["age", "income"]), ("names", OneHotEncoder(), ["city"])]
    return [ColumnTransformer(columns), FunctionTransformer(to_float32)]


def to_float32(values):
    values = values.toarray() if hasattr(values, "toarray") else values
    return np.asarray(values, "float32")


def stack_images(images):
    return np.stack(images).astype("float32").reshape(len(images), -1)


WORDS = ["good", "bad", "long", "short", "film", "actor"]


def make_texts():
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, 5)) for _ in range(N)]


def make_images():
    generator = np.random.default_rng(0)
    return [generator.normal(size=(2, 3)) for _ in range(N)]


class Columns(nn.Module):
    """Network that takes the columns of a table as keyword arguments."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, age, income):
        return self.head(torch.tanh(self.body(torch.cat([age, income], 1))))


class Embedded(nn.Module):
    """Network that takes numbers and categories."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(3, 2), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, X, city):
        return self.head(torch.tanh(self.body(torch.cat([X, self.embed(city.flatten())], 1))))


def make_perceptron(width):
    return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 2))


def make_numbers():
    return make_table()[["age", "income"]].fillna(0).astype("float32")


def split_columns(table):
    return {name: table[[name]].to_numpy() for name in table}


@dataclass(frozen=True)
class Kind:
    """Rows X, steps before a network, and the module; without steps, ``convert`` prepares X."""

    make_rows: Callable
    make_steps: Callable
    make_module: Callable
    convert: Callable = lambda rows: rows
    take: Callable = lambda X, rows: [X[int(row)] for row in rows]


def take_rows(X, rows):
    return X[rows]


def take_table(X, rows):
    return X.iloc[rows]


def make_float_texts():
    return [CountVectorizer(dtype="float32")]


KINDS = {
    "table": Kind(make_table, make_column_steps, lambda: make_perceptron(5), take=take_table),
    "polars table": Kind(
        lambda: pl.DataFrame(make_table().to_dict("list")),
        make_column_steps,
        lambda: make_perceptron(5),
        take=take_rows,
    ),
    "list of texts": Kind(make_texts, make_float_texts, lambda: make_perceptron(len(WORDS))),
    "array of texts": Kind(
        lambda: np.array(make_texts()),
        make_float_texts,
        lambda: make_perceptron(len(WORDS)),
        take=take_rows,
    ),
    "array of objects": Kind(
        lambda: np.array(make_texts(), dtype=object),
        lambda: [TfidfVectorizer(), FunctionTransformer(to_float32)],
        lambda: make_perceptron(len(WORDS)),
        take=take_rows,
    ),
    "column of texts": Kind(
        lambda: pd.Series(make_texts(), index=range(100, 100 + N)),
        make_float_texts,
        lambda: make_perceptron(len(WORDS)),
        take=take_table,
    ),
    "list of images": Kind(
        make_images, lambda: [FunctionTransformer(stack_images)], lambda: make_perceptron(6)
    ),
    "table of numbers and categories": Kind(
        lambda: make_table().assign(city=make_table().city.astype("category")).fillna({"age": 0}),
        lambda: [DataFrameTransformer()],
        Embedded,
        take=take_table,
    ),
    "table of keyword arguments": Kind(
        make_numbers, list, Columns, convert=split_columns, take=take_table
    ),
    "SliceDict": Kind(
        lambda: SliceDict(**split_columns(make_numbers())), list, Columns, take=take_rows
    ),
}


@dataclass(frozen=True)
class Example:
    """Trained Pipeline with its rows, and its network with the prepared rows."""

    kind: Kind
    pipeline: Any
    X: Any
    network: Any
    prepared: Any
    y: np.ndarray


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
        return [item.get("text", item.get("image", item)) for item in items]
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


class Sequence:
    """Sequence that has only a length and items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if not isinstance(index, int):
            raise TypeError(f"must be an int; got {index!r}")
        return self.items[index]


def make_column(name):
    return make_numbers()[[name]].to_numpy().tolist()


def make_dicts():
    return [
        {"age": np.float32([age]), "income": np.float32([income])} for age, income in make_array()
    ]


def join_dicts(rows):
    """Return the columns of items that are dicts."""
    items = [rows[index] for index in range(len(rows))]
    return {
        name: np.float32([item[name] for item in items]).reshape(len(items), 1)
        for name in ("age", "income")
    }


class MaskedBag(Bag):
    """Network that takes the mean embedding of the tokens of a text."""

    def forward(self, input_ids, attention_mask):
        return super().forward((input_ids + 1) * attention_mask)


def pad_to_longest(sentences):
    """Pad sentences to the length of the longest one, which depends on all of them."""
    width = max(map(len, sentences))
    return np.array([[*words, *[0] * (width - len(words))] for words in sentences])


def make_tokenizer_steps():
    """Return the tokenizer of skorch, which pads all texts to one length."""
    pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    hf = pytest.importorskip("skorch.hf")
    special = ["[UNK]", "[PAD]"]
    tokenizer = hf.HuggingfaceTokenizer(
        tokenizer=tokenizers.Tokenizer,
        model=tokenizers.models.WordLevel,
        model__unk_token="[UNK]",
        trainer=tokenizers.trainers.WordLevelTrainer(vocab_size=18, special_tokens=special),
        pre_tokenizer=tokenizers.pre_tokenizers.Whitespace,
        pad_token="[PAD]",
        max_length=6,
    )
    return [tokenizer]


def make_padding_steps():
    """Return a step that pads texts to the length of the longest one."""
    tokenizer = make_tokenizer_steps()[0].fit(make_texts()).fast_tokenizer_
    return [FunctionTransformer(PaddingTokenizer(tokenizer))]


class PaddingTokenizer:
    """Function that tokenizes texts, and pads them to the length of the longest one."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, texts):
        columns = self.tokenizer(list(texts), padding=True, return_tensors="np")
        return {name: columns[name] for name in ("input_ids", "attention_mask")}


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
    "SliceDataset of numbers": Kind(
        lambda: SliceDataset(make_pairs()),
        list,
        make_small_perceptron,
        convert=stack_items,
        take=lambda X, rows: X[np.array(rows)],
    ),
    "sequence of another class": Kind(
        lambda: Sequence(make_array()), list, make_small_perceptron, convert=stack_items
    ),
    "list of dicts": Kind(make_dicts, list, Columns, convert=join_dicts),
    "Dataset of dicts": Kind(
        lambda: Items(list(zip(make_dicts(), LABELS, strict=True))),
        list,
        Columns,
        convert=lambda X: join_dicts([x for x, _ in X.items]),
        take=take_subset,
    ),
    "Hugging Face dataset of columns": Kind(
        lambda: make_huggingface_dataset(age=make_column("age"), income=make_column("income")),
        list,
        Columns,
        convert=join_dicts,
        take=lambda X, rows: X.select(rows),
    ),
    "lists of different lengths": BatchedKind(
        make_sentences, list, Bag, convert=pad, take=take_rows, collate=pad_batch
    ),
    "Series of lists of different lengths": BatchedKind(
        lambda: pd.Series(make_sentences()),
        list,
        Bag,
        convert=pad,
        take=take_table,
        collate=pad_batch,
    ),
    "list padded by a step": Kind(
        lambda: list(make_sentences()), lambda: [FunctionTransformer(pad_to_longest)], Bag
    ),
    "texts and a tokenizer": Kind(make_texts, make_tokenizer_steps, MaskedBag),
    "texts padded by a tokenizer": Kind(make_texts, make_padding_steps, MaskedBag),
}

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


@functools.cache
def make_example(kind):
    """Return a trained Pipeline or net with rows of a kind, and with its prepared rows.

    All tests of a process share the example, so they must not change it.
    """
    X, pipeline = kind.make_rows(), make_estimator(kind)
    prepared = kind.convert(X)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline.fit(X if hasattr(pipeline, "steps") else prepared, LABELS)
    steps = pipeline.steps if hasattr(pipeline, "steps") else [("net", pipeline)]
    for _, step in steps[:-1]:
        prepared = step.transform(prepared)
    return Example(kind, pipeline, X, make_plain_net(steps[-1][1]), prepared, LABELS)


def make_plain_net(net):
    """Return a net with the same module that forms batches like torch."""
    plain = NeuralNetClassifier(net.module_, criterion=nn.CrossEntropyLoss).initialize()
    plain.history = net.history
    return plain


@pytest.fixture(scope="module", params=ALL_KINDS)
def any_example(request):
    """Return an example of each kind."""
    return make_example(ALL_KINDS[request.param])


@pytest.fixture(scope="module", params=[name for name in KINDS if not name.startswith("array of")])
def example(request):
    """Return an example of each kind of rows that are no items; lists stand for arrays."""
    return make_example(KINDS[request.param])


@pytest.fixture
def threads():
    """Let workers be threads, which start at once."""
    with joblib.parallel_config("threading"):
        yield


ROWS = [5, 2, 11]


def take_prepared(X, rows):
    if hasattr(X, "keys"):
        return {name: values[rows] for name, values in X.items()}
    return X[rows]


def to_dense(X):
    return X.toarray() if hasattr(X, "toarray") else X
