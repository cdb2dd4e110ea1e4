"""Pictures of the user guide: displays, and screenshots of the site and the explorer.

Run ``python docs/screenshots.py`` after ``make docs``. The script needs chromium and its driver.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from selenium import webdriver
from selenium.webdriver.support.ui import Select
from sklearn.datasets import load_wine

from sknetsim import LabelDenoiser, NetworkKernel, NetworkNeighbors, explore
from sknetsim.datasets import load_mnist, load_mnist_network
from sknetsim.displays import (
    ContributionsDisplay,
    DenoisingDisplay,
    NeighborsDisplay,
    SimilarityMatrixDisplay,
)

mpl.use("Agg")
FOLDER = Path(__file__).resolve().parent
IMAGES = FOLDER / "images"
#: Pictures of the guide that are figures of the gallery.
FROM_GALLERY = {
    "neighbors": "plot_quickstart_001",
    "label_issues": "plot_label_issues_001",
    "fit": "plot_fit_001",
    "reasons": "plot_reasons_003",
    "influence": "plot_attribution_001",
}
SAMPLES = 2_000


@contextlib.contextmanager
def start_browser():
    """Start a headless browser with a window of the size of a screen."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("headless", "no-sandbox", "window-size=1420,900", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield browser
    browser.quit()


def copy_from_gallery():
    """Copy the figures of FROM_GALLERY."""
    for name, figure in FROM_GALLERY.items():
        path = FOLDER / "auto_examples" / "images" / f"sphx_glr_{figure}.png"
        shutil.copy(path, IMAGES / f"{name}.png")


def shoot_gallery(browser):
    """Take a screenshot of the gallery, from its first pictures on."""
    browser.get((FOLDER / "_build/html/docs/auto_examples/index.html").as_uri())
    picture = browser.find_element("css selector", ".sphx-glr-thumbcontainer")
    browser.execute_script("arguments[0].scrollIntoView()", picture)
    browser.save_screenshot(str(IMAGES / "gallery.png"))


def shoot_explorer(browser):
    """Take a screenshot of the explorer with the most suspicious labels."""
    digits = load_mnist("test", SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        page = explore(
            load_mnist_network(),
            digits.inputs,
            digits.labels,
            Path(folder) / "explorer.html",
            samples=digits.images,
            title="Test images of MNIST and a third-party network",
            output="predicted",
            n_components=256,
            random_state=0,
        )
        browser.get(page.as_uri())
        Select(browser.find_element("css selector", "#order")).select_by_value("quality 1")
        browser.find_element("css selector", "#mismatch input").click()
        browser.find_elements("css selector", "#samples [data-index]")[1].click()
        browser.save_screenshot(str(IMAGES / "explorer.png"))


def draw_displays():
    """Draw the displays of the guide."""
    draw_neighbors_of_rows()
    draw_similarities()
    draw_denoising()


def draw_neighbors_of_rows():
    """Draw the neighbours of two rows of a table."""
    wine = load_wine(as_frame=True)
    X = (wine.data - wine.data.mean()) / wine.data.std()
    fitted = NetworkNeighbors(n_neighbors=4, random_state=0).fit(X, wine.target)
    table = wine.data.iloc[:, :7]
    indices = fitted.kneighbors(X.iloc[[0, 83]])[1]
    similarities = NetworkKernel(fitted.estimator_)(X.iloc[[0, 83]].to_numpy(), X.to_numpy())
    save(
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


def draw_similarities():
    """Draw a similarity matrix, and the positions that contribute to one similarity."""
    digits = load_mnist("train", 300)
    kernel = NetworkKernel(load_mnist_network(), "predicted")
    matrix = SimilarityMatrixDisplay.from_estimator(kernel, digits.inputs, labels=digits.labels)
    save("similarity_matrix", matrix)
    gram = kernel(digits.inputs[:1], digits.inputs[1:])
    pair = digits.inputs[:1], digits.inputs[[1 + gram.argmax()]]
    options = {"layer": "conv_layers.3", "grid": (14, 14)}
    save("places", ContributionsDisplay.from_estimator(kernel, *pair, **options))


def draw_denoising():
    """Draw noisy labels of a sine and their means."""
    generator = np.random.default_rng(0)
    X = generator.uniform(-2, 2, (300, 1))
    y = np.sin(2 * X[:, 0]) + generator.normal(scale=0.3, size=300)
    denoiser = LabelDenoiser(alpha=64, random_state=0).fit(X, y)
    save("denoising", DenoisingDisplay.from_estimator(denoiser, X, y, coordinate=X[:, 0]))


def save(name, display):
    """Write the figure of a display into the folder of the guide's pictures."""
    display.figure_.savefig(IMAGES / f"{name}.png", dpi=110)


def main():
    """Draw and copy all pictures of the guide."""
    torch.manual_seed(0)
    copy_from_gallery()
    draw_displays()
    with start_browser() as browser:
        shoot_explorer(browser)
        shoot_gallery(browser)


if __name__ == "__main__":
    main()
