"""Rows in their own form: padding by steps, other forms in `partial_fit`, and steps that mix."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sknetsim import ActiveLearningSampler, NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim.exceptions import UnsupportedNetworkError

from ..kinds import (
    ITEM_KINDS,
    KINDS,
    Bag,
    Items,
    make_estimator,
    make_perceptron,
    make_sentences,
    make_texts,
    pad,
    pad_to_longest,
)

SENTENCES = list(make_sentences()[:12])


class UnmaskedBag(Bag):
    def forward(self, words):
        return self.head(self.embed(words).mean(1))


class Mean(nn.Module):
    """Network of the mean of the positions, with zeros or without them."""

    def __init__(self, masked):
        super().__init__()
        self.masked, self.head = masked, nn.Linear(1, 2)

    def forward(self, values):
        count = values.ne(0).sum(1, keepdim=True) if self.masked else values.shape[1]
        return self.head(torch.tanh(values.sum(1, keepdim=True) / count))


def pad_column(table):
    return pad_to_longest(list(table["words"]))


def make_table(sentences):
    return pd.DataFrame({"words": pd.Series(sentences)})


def make_polars_table(sentences):
    return pl.DataFrame({"words": sentences})


def make_object_array(sentences):
    array = np.empty((len(sentences), 1), dtype=object)
    array[:, 0] = sentences
    return array


PADDED = {
    "list": (pad_to_longest, list),
    "Series": (pad_to_longest, pd.Series),
    "table": (pad_column, make_table),
    "polars table": (pad_column, make_polars_table),
    "dict": (pad_column, lambda sentences: {"words": sentences}),
    "array of objects": (lambda X: pad_to_longest(X[:, 0]), make_object_array),
}


@pytest.fixture(params=PADDED.values(), ids=PADDED)
def padded(request):
    """Return a step that pads to the longest sentence, and the sentences in a form."""
    step, convert = request.param
    return FunctionTransformer(step), convert


def test_similarities_do_not_depend_on_the_padding_of_steps(padded):
    step, convert = padded
    module = Bag()
    neighbors = NetworkNeighbors(make_pipeline(step, module), n_neighbors=1)
    neighbors.fit(convert(SENTENCES))
    distances = [neighbors.kneighbors(convert([words]))[0][0, 0] for words in SENTENCES]
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_steps_must_not_pad_for_a_network_that_depends_on_it(padded):
    step, convert = padded
    with pytest.raises(UnsupportedNetworkError, match="do not depend on its padding"):
        NetworkKernel(make_pipeline(step, UnmaskedBag()))(convert(SENTENCES))


def pad_numbers(sequences):
    return np.float32(pad([[word / 20 for word in words] for words in sequences]))


def pad_numbers_to_longest(sequences):
    width = max(map(len, sequences))
    return pad_numbers(sequences)[:, :width]


@pytest.mark.parametrize("masked", [True, False])
def test_sequences_of_numbers_may_be_padded(masked):
    pipeline = make_pipeline(FunctionTransformer(pad_numbers_to_longest), Mean(masked))
    if masked:
        expected = NetworkKernel(pipeline[-1])(pad_numbers(SENTENCES))
        np.testing.assert_allclose(NetworkKernel(pipeline)(SENTENCES), expected, atol=1e-6)
    else:
        with pytest.raises(UnsupportedNetworkError, match="do not depend on its padding"):
            NetworkKernel(pipeline)(SENTENCES)


def test_an_empty_text_is_a_sample():
    pipeline = make_pipeline(FunctionTransformer(pad_to_longest), Bag())
    distances, _ = NetworkNeighbors(pipeline, n_neighbors=2).fit([[1, 2], [3], [4, 5]]).kneighbors()
    assert np.isfinite(distances).all()


class WithPositions(Bag):
    """Network that returns the values of all positions, too."""

    def forward(self, words):
        return super().forward(words), self.embed(words)


def test_only_the_compared_outputs_must_not_depend_on_the_padding():
    pipeline = make_pipeline(FunctionTransformer(pad_to_longest), WithPositions())
    kernel = NetworkKernel(pipeline, output=lambda raw: raw[0])
    expected = NetworkKernel(pipeline[-1], output=lambda raw: raw[0])(pad(SENTENCES))
    np.testing.assert_allclose(kernel(SENTENCES), expected, atol=1e-6)


# Samples that are added in another form

TEXT_FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "Series": pd.Series,
    "polars Series": pl.Series,
}


@pytest.mark.parametrize("added", TEXT_FORMS.values(), ids=TEXT_FORMS)
@pytest.mark.parametrize("first", TEXT_FORMS.values(), ids=TEXT_FORMS)
def test_texts_of_another_form_are_added(first, added):
    texts = make_texts()
    pipeline = make_estimator(KINDS["list of texts"]).fit(texts, np.arange(len(texts)) % 2)
    sampler = ActiveLearningSampler(pipeline, strategy="maxdet")
    expected = sampler.fit(texts[:12]).score_samples(texts[12:])
    sampler.fit(first(texts[:6])).partial_fit(added(texts[6:9])).partial_fit(first(texts[9:12]))
    np.testing.assert_allclose(sampler.score_samples(texts[12:]), expected, rtol=1e-3)


def test_padded_texts_are_added():
    sentences = pd.Series(SENTENCES)
    pipeline = make_pipeline(FunctionTransformer(pad_to_longest), Bag())
    sampler = ActiveLearningSampler(pipeline, strategy="maxdet")
    expected = sampler.fit(sentences[:8]).score_samples(sentences[8:])
    sampler.fit(sentences[:2]).partial_fit(sentences[2:8])
    np.testing.assert_allclose(sampler.score_samples(sentences[8:]), expected, rtol=1e-3)


def scale_pixels(images):
    return np.float32(images / 255 if images.dtype == np.uint8 else images)


def test_added_arrays_reach_the_steps_in_their_own_dtype():
    pixels = np.random.default_rng(0).integers(0, 255, (12, 2), np.uint8)
    pipeline = make_pipeline(FunctionTransformer(scale_pixels), make_perceptron(2))
    sampler = ActiveLearningSampler(pipeline, strategy="maxdet")
    expected = sampler.fit(pixels[:8]).score_samples(pixels[8:])
    sampler.fit(pixels[:4]).partial_fit(pixels[4:8] / 255)
    np.testing.assert_allclose(sampler.score_samples(pixels[8:]), expected, rtol=1e-3)


# Steps that mix samples


def centre(rows):
    return np.float32(rows - rows.mean(axis=0))


@pytest.mark.parametrize(
    "call",
    [lambda net, X: NetworkDensity(net).fit(X), lambda net, X: NetworkKernel(net)(X)],
    ids=["fit", "kernel"],
)
def test_steps_that_mix_samples_raise_an_error(call):
    pipeline = make_pipeline(FunctionTransformer(centre), make_perceptron(2))
    X = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.raises(UnsupportedNetworkError, match="must transform each sample independently"):
        call(pipeline, X)


def test_rounding_errors_of_steps_do_not_mix_samples():
    """A matrix product in float32 rounds differently for one row than for many."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(400, 300)).astype("float32")
    X = generator.normal(size=(60, 400)).astype("float32") * 10
    pipeline = make_pipeline(FunctionTransformer(lambda rows: rows @ weights), make_perceptron(300))
    assert len(NetworkNeighbors(pipeline, n_neighbors=1).fit(X).kneighbors()[0]) == 60


@pytest.mark.parametrize("convert", [lambda x: pd.DataFrame({"t": x}), lambda x: {"t": x}])
def test_a_vectorizer_takes_no_table(convert):
    texts = make_texts()
    pipeline = make_estimator(KINDS["list of texts"]).fit(texts, np.arange(24) % 2)
    neighbors = NetworkNeighbors(pipeline, n_neighbors=1).fit(texts)
    with pytest.raises(ValueError, match="list or column of texts for a CountVectorizer; got a"):
        neighbors.kneighbors(convert(texts[:1]))


def test_lists_of_numbers_are_items_of_a_dataset():
    X, module = np.random.default_rng(0).normal(size=(12, 3)), make_perceptron(3)
    result = NetworkKernel(module)(Items([row.tolist() for row in X]))
    np.testing.assert_allclose(result, NetworkKernel(module)(X), atol=1e-6)


def test_pairs_that_scikit_learn_makes_of_a_dataset_raise_an_error():
    pairs = [(np.zeros(2), 0), (np.ones(2), 1)]
    with pytest.raises(ValueError, match=r"got a list of pairs.*Pass skorch's SliceDataset"):
        NetworkNeighbors(make_perceptron(2)).fit(pairs)


# Values without rows


@pytest.mark.parametrize(
    "rows", ["one text", b"bytes", 3.0, iter([1])], ids=["text", "bytes", "number", "iterator"]
)
def test_a_single_text_has_no_rows(rows):
    pipeline = make_estimator(KINDS["list of texts"]).fit(make_texts(), np.arange(24) % 2)
    with pytest.raises(ValueError, match=r"samples on its first axis; got a .* without axes"):
        NetworkDensity(pipeline).fit(rows)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dok", "lil"])
@pytest.mark.parametrize("has_steps", [False, True], ids=["net", "steps"])
def test_sparse_rows_are_rows(form, has_steps):
    X = np.random.default_rng(0).integers(0, 3, (12, 2)).astype("float32")
    module = make_perceptron(2)
    pipeline = make_pipeline(FunctionTransformer(sparse.csr_array.toarray), module)
    network = pipeline if has_steps else module
    expected = NetworkDensity(module).fit(X).score_samples(X)
    rows = sparse.coo_array(X).asformat(form)
    density = NetworkDensity(network).fit(rows)
    np.testing.assert_allclose(density.score_samples(rows), expected, atol=1e-6)


# Tokenizers


@pytest.fixture
def tokenized():
    texts = make_texts()
    pipeline = make_estimator(ITEM_KINDS["texts and a tokenizer"])
    return pipeline.fit(texts, np.arange(len(texts)) % 2), texts


def test_pickling_does_not_change_a_tokenizer(tokenized):
    pipeline, texts = tokenized
    trainer = pipeline[0].trainer
    density = NetworkDensity(pipeline).fit(texts)
    expected = density.score_samples(texts)
    loaded = pickle.loads(pickle.dumps(density))
    assert pipeline[0].trainer is trainer
    np.testing.assert_allclose(loaded.score_samples(texts), expected, atol=1e-6)


def test_a_tokenizer_that_was_pickled_is_the_same_step(tokenized):
    pipeline, texts = tokenized
    density = NetworkDensity(pipeline, method="power").fit(texts)
    pickle.dumps(pipeline)  # skorch deletes the trainer.
    assert np.isfinite(density.score_samples(texts)).all()


# Gaussian processes


def test_a_gaussian_process_takes_texts():
    texts, labels = make_texts(), np.arange(24) % 2
    pipeline = make_estimator(KINDS["list of texts"]).fit(texts, labels)
    prepared = pipeline[0].transform(texts).toarray()
    expected = GaussianProcessClassifier(NetworkKernel(pipeline[-1])).fit(prepared, labels)
    process = GaussianProcessClassifier(NetworkKernel(pipeline)).fit(texts, labels)
    result = process.predict_proba(texts)
    np.testing.assert_allclose(result, expected.predict_proba(prepared), atol=1e-5)
