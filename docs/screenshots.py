"""The pictures of texts that show the site, the explorer and displays, as a browser shows them.

Run by ``python docs/screenshots.py`` after ``make docs``; needs chromium and its driver.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from selenium import webdriver
from selenium.webdriver.support.ui import Select
from sklearn.datasets import load_wine

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))

from _data import mnist, mnist_network

from sknetsim import LabelDenoiser, NetworkKernel, NetworkNeighbors, explore
from sknetsim.displays import (
    ContributionsDisplay,
    DenoisingDisplay,
    NeighborsDisplay,
    SimilarityMatrixDisplay,
)

mpl.use("Agg")
FOLDER = Path(__file__).resolve().parent
IMAGES = FOLDER / "images"
#: What texts show of the gallery.
FROM_GALLERY = {
    "neighbors": "plot_quickstart_001",
    "label_issues": "plot_label_issues_001",
    "fit": "plot_fit_001",
    "reasons": "plot_reasons_003",
}
SAMPLES = 2_000


@contextlib.contextmanager
def browser():
    """A headless one, of a screen's size."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("headless", "no-sandbox", "window-size=1420,900", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    found = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield found
    found.quit()


def copy_from_gallery():
    for name, drawn in FROM_GALLERY.items():
        path = FOLDER / "auto_examples" / "images" / f"sphx_glr_{drawn}.png"
        shutil.copy(path, IMAGES / f"{name}.png")


def shoot_gallery(one):
    one.get((FOLDER / "_build/html/docs/auto_examples/index.html").as_uri())
    one.save_screenshot(str(IMAGES / "gallery.png"))


def shoot_explorer(one):
    """The most suspicious labels among images that the network contradicts."""
    images = mnist("test", SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        page = explore(
            mnist_network(),
            images.inputs,
            images.labels,
            Path(folder) / "explorer.html",
            samples=images.images,
            title="MNIST's test images, as somebody else's network sees them",
            output="predicted",
            n_components=256,
            random_state=0,
        )
        one.get(page.as_uri())
        Select(one.find_element("css selector", "#order")).select_by_value("quality 1")
        one.find_element("css selector", "#contradicted input").click()
        one.find_elements("css selector", "#samples [data-index]")[1].click()
        one.save_screenshot(str(IMAGES / "explorer.png"))


def draw_displays():
    """Rows of a table, clusters, places, and labels with noise."""
    wine = load_wine(as_frame=True)
    X = (wine.data - wine.data.mean()) / wine.data.std()
    fitted = NetworkNeighbors(n_neighbors=4, random_state=0).fit(X, wine.target)
    table = wine.data.iloc[:, :7]
    indices = fitted.kneighbors(X.iloc[[0, 83]])[1]
    similarities = NetworkKernel(fitted.estimator_)(X.iloc[[0, 83]].to_numpy(), X.to_numpy())
    saved(
        "neighbors_of_rows",
        NeighborsDisplay.from_predictions(
            table.iloc[[0, 83]].to_numpy(),
            table.to_numpy()[indices],
            np.take_along_axis(similarities, indices, axis=1),
            labels=wine.target.to_numpy()[indices],
            query_labels=wine.target[[0, 83]],
            columns=table.columns,
        ),
    )
    digits = mnist("train", 300)
    kernel = NetworkKernel(mnist_network(), "predicted")
    matrix = SimilarityMatrixDisplay.from_estimator(kernel, digits.inputs, labels=digits.labels)
    saved("similarity_matrix", matrix)
    gram = kernel(digits.inputs[:1], digits.inputs[1:])
    pair = digits.inputs[:1], digits.inputs[[1 + gram.argmax()]]
    places = {"layer": "conv_layers.3", "grid": (14, 14)}
    saved("places", ContributionsDisplay.from_estimator(kernel, *pair, **places))
    draw_denoising()


def draw_denoising():
    generator = np.random.default_rng(0)
    X = generator.uniform(-2, 2, (300, 1))
    y = np.sin(2 * X[:, 0]) + generator.normal(scale=0.3, size=300)
    denoiser = LabelDenoiser(alpha=64, random_state=0).fit(X, y)
    saved("denoising", DenoisingDisplay.from_estimator(denoiser, X, y, coordinate=X[:, 0]))


def saved(name, display):
    display.figure_.savefig(IMAGES / f"{name}.png", dpi=110)


def main():
    torch.manual_seed(0)
    copy_from_gallery()
    draw_displays()
    with browser() as one:
        shoot_explorer(one)
        shoot_gallery(one)


if __name__ == "__main__":
    main()
