"""Estimators with third-party networks on real images, words, speech and Thai text."""

import numpy as np
import pytest
import torch

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors
from sknetsim.datasets import PronunciationNetwork

from . import naive, real
from .real import digit_recognizer, mnist

END = PronunciationNetwork.phonemes.index("</s>")
#: Parts of the call, by their start in seconds, according to the annotations in its package.
SPEAKERS = {"first": (11, 12.7, 18.7), "second": (14.7, 16.3, 24.5)}
SPEECH, SILENCE = (9, 11.5, 13, 15.5, 19, 23), (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)


def sum_logits(logits):
    """Return the sum of the logits of the phonemes that the network writes before the end."""
    largest, phonemes = logits.max(dim=-1)
    return (largest * (phonemes != END).cumprod(dim=1)).sum(dim=1, keepdim=True)


def squared_length(embedding):
    return (embedding**2).sum(dim=1, keepdim=True)


def middle(logits):
    """Return the logit that a word begins at the character in the middle."""
    return logits[:, logits.shape[1] // 2, None]


def words(*words):
    return torch.from_numpy(real.pronunciation().spell(words))


#: Each network with the output that is compared, and with the samples.
NETWORKS = {
    "pronunciation": (real.pronunciation, sum_logits, lambda: words("weight", "wait", "right")),
    "speaker_encoder": (
        real.speaker_encoder,
        squared_length,
        lambda: real.spectrograms([11, 14.7, 18.7], 0.1),
    ),
    "voice_detector": (real.voice_detector, None, lambda: real.chunks([1, 9, 11], 3)),
    "word_boundaries": (real.word_boundaries, middle, lambda: real.thai_characters()[0][:20:4]),
}


@pytest.fixture(scope="module")
def network():
    return digit_recognizer()


@pytest.mark.parametrize("output", ["all", "predicted"])
def test_the_kernel_equals_the_double_loop(network, output):
    X, _ = mnist("test", 5)
    select = (lambda raw: raw) if output == "all" else (lambda raw: raw.max())
    actual = NetworkKernel(network, output)(X)
    J = naive.jacobians(network.double(), X.double(), select)
    expected = naive.correlation(J, J, np.finfo(np.float32).eps)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    network.float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_kernel_of_texts_and_speech_equals_the_double_loop(name, dtype, tolerance):
    load, select, load_samples = NETWORKS[name]
    network, X = load(), load_samples()
    actual = NetworkKernel(network.to(dtype), select or "all")(cast(X, dtype))
    J = naive.jacobians(network.double(), cast(X, torch.float64), select)
    expected = naive.correlation(J, J, np.finfo(np.float64).eps)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def cast(X, dtype):
    """Return numbers of letters unchanged, and real values in another precision."""
    return X.to(dtype) if X.is_floating_point() else X


@pytest.mark.parametrize(("part", "nearest"), [("encoder", "spelling"), ("decoder", "sound")])
@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("weight", {"spelling": "right", "sound": "wait"}),
        ("through", {"spelling": "though", "sound": "true"}),
    ],
)
def test_an_encoder_compares_letters_and_a_decoder_phonemes(part, nearest, word, others):
    network = real.pronunciation()
    kernel = NetworkKernel(network, sum_logits, parameters=network.get_submodule(part))
    similarities = dict(zip(others, kernel(words(word, *others.values()))[0, 1:], strict=True))
    assert max(similarities, key=similarities.get) == nearest


def test_parts_of_a_call_are_more_similar_if_the_speaker_is_the_same():
    X = real.spectrograms(sum(SPEAKERS.values(), ()), 1.6)
    gram = NetworkKernel(real.speaker_encoder(), squared_length)(X)
    assert_blocks_are_more_similar(gram, [len(starts) for starts in SPEAKERS.values()])


def test_speech_is_more_similar_to_speech_than_to_silence():
    gram = NetworkKernel(real.voice_detector())(real.chunks(SPEECH + SILENCE, 4))
    assert_blocks_are_more_similar(gram, [len(SPEECH), len(SILENCE)])


def assert_blocks_are_more_similar(gram, sizes):
    """Samples are more similar on average to those of the same group than to the others."""
    groups = np.repeat(range(len(sizes)), sizes)
    same = groups[:, None] == groups
    others = ~np.eye(len(gram), dtype=bool)
    assert gram[same & others].mean() > gram[~same].mean() + 0.1


def test_a_character_is_similar_to_one_with_the_same_prediction():
    network, (X, texts) = real.word_boundaries(), real.thai_characters()
    begins = middle(network(X)).detach()[:, 0] > 0
    # The first character of each text, so that no two texts are equal.
    indices = np.unique(texts, return_index=True)[1][:300]
    X, begins = X[indices], begins[indices].numpy()
    nearest = NetworkNeighbors(network, middle).fit(X).kneighbors(n_neighbors=1)[1][:, 0]
    assert (begins[nearest] == begins).mean() > 0.9 > max(begins.mean(), 1 - begins.mean())


@pytest.mark.slow
def test_most_nearest_neighbors_show_the_same_digit(network):
    X, y = mnist("train", 600)
    queries, labels = mnist("test", 60)
    actual = NetworkNeighbors(network, "predicted").fit(X).kneighbors(queries, 1)[1][:, 0]
    assert (y[actual] == labels).double().mean() > 0.8


@pytest.mark.slow
def test_noise_images_are_less_dense_than_digits(network):
    X, _ = mnist("train", 300)
    digits, _ = mnist("test", 50)
    density = NetworkDensity(network, "predicted", method="power", alpha=16).fit(X)
    noise = digits.flatten()[np.random.default_rng(0).permutation(digits.numel())]
    noisy = density.score_samples(noise.view_as(digits))
    assert np.median(noisy) < np.quantile(density.score_samples(digits), 0.1)
