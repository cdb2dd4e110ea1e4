"""The page of `explore`: what stands in it, and what a browser makes of it."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import nn

from sknetsim import LabelDenoiser, NetworkDensity, NetworkKernel, NetworkNeighbors, explore

WEIGHTS = {"method": "power", "alpha": 16.0}
#: Words that would do harm if they were markup.
WICKED = [
    "<script>document.title = 'gone'</script>",
    "</script><b>",
    "<img src=x onerror=alert(1)>",
]
WICKED += ['"&amp;\u2028', "$title"]


def content(path):
    """What the page shows, as data."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    return json.loads(found[1])


@pytest.fixture
def images():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(15, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    X = torch.rand(40, 1, 3, 5, dtype=torch.float64)
    y = np.arange(40) % 3
    return network, X, y


def test_the_page_says_what_the_estimators_say(images, tmp_path):
    network, X, y = images
    found = content(explore(network, X, y, tmp_path / "page.html", n_neighbors=4))
    neighbors = NetworkNeighbors(network, n_neighbors=4).fit(X)
    _, indices = neighbors.kneighbors()
    density = NetworkDensity(network, **WEIGHTS).fit(X)
    denoiser = LabelDenoiser(network, **WEIGHTS).fit(X, y)
    parts = NetworkKernel(network).contributions(X[[7] * 4], X[indices[7]])
    predictions = network(X).argmax(dim=1).tolist()
    assert found["neighbors"] == indices.tolist()
    np.testing.assert_allclose(found["similarities"][7], parts.similarity, atol=1e-4)
    np.testing.assert_allclose(
        found["parts"][7], np.stack(list(parts.by_layer().values()), axis=1), atol=1e-4
    )
    assert found["layers"] == ["1", "3"]
    expected = {
        "density": density.score_samples(X),
        "reliability": density.reliability(X),
        "quality": denoiser.label_quality(X, y),
    }
    assert list(found["numbers"]) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found["numbers"][name], values, atol=1e-4)
    assert found["words"] == {
        "label": [str(label) for label in y],
        "prediction": [str(label) for label in predictions],
    }
    assert found["contradicted"] == [str(a) != str(b) for a, b in zip(y, predictions, strict=True)]


def test_pictures_are_the_samples(images, tmp_path):
    network, X, _ = images
    found = content(explore(network, X, path=tmp_path / "page.html"))["samples"]
    assert (found["width"], found["height"], found["side"]) == (5, 3, 16)
    (sheet,) = found["sheets"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))))
    low, high = X.min(), X.max()
    expected = np.round(255 * ((X[17, 0] - low) / (high - low)).numpy())
    np.testing.assert_array_equal(pixels[3:6, 5:10], expected)


SHAPES = {
    "grey": ((4, 6), (16 * 4, 16 * 6)),
    "colours": ((3, 4, 6), (16 * 4, 16 * 6, 3)),
    "more channels than colours": ((5, 4, 6), (16 * 4, 16 * 6, 3)),
    "two channels": ((2, 4, 6), (16 * 4, 16 * 6)),
    "channels last": ((5, 6, 3), (16 * 5, 16 * 6, 3)),
    "one channel last": ((5, 6, 1), (16 * 5, 16 * 6)),
    "large": ((1, 96, 192), (16 * 48, 16 * 96)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_images_of_any_shape_are_shown(name, tmp_path):
    shape, expected = SHAPES[name]
    X = torch.rand(12, 2)
    samples = np.random.default_rng(0).random((12, *shape))
    path = explore(nn.Linear(2, 1), X, path=tmp_path / "page.html", samples=samples)
    (sheet,) = content(path)["samples"]["sheets"]
    assert (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1])))).shape == expected
    )


def test_many_images_stand_in_several_sheets(tmp_path):
    X = torch.rand(600, 2)
    path = explore(nn.Linear(2, 1), X, path=tmp_path / "page.html", image_shape=(1, 2))
    assert len(content(path)["samples"]["sheets"]) == 3


def test_rows_of_a_table_have_their_names(tmp_path):
    X = pandas.DataFrame(np.random.default_rng(0).random((12, 2)), columns=["length", "width"])
    path = explore(nn.Linear(2, 1).double(), X, path=tmp_path / "page.html")
    found = content(path)
    assert found["samples"]["columns"] == ["length", "width"]
    assert found["samples"]["cells"][3] == [f"{value:.4g}" for value in X.iloc[3]]
    assert found["words"] == {} and list(found["numbers"]) == ["density", "reliability"]


@pytest.mark.parametrize("form", [list, tuple, np.array, pandas.Series], ids=lambda f: f.__name__)
def test_texts_are_a_column(form, tmp_path):
    texts = [f"text {number}" for number in range(12)]
    path = explore(nn.Linear(2, 1), torch.rand(12, 2), path=tmp_path / "p", samples=form(texts))
    assert content(path)["samples"] == {"columns": ["text"], "cells": [[text] for text in texts]}


def test_numbers_that_are_predicted_contradict_no_label(tmp_path):
    X = np.random.default_rng(0).random((12, 2))
    found = content(explore(nn.Linear(2, 1).double(), X, X[:, 0], tmp_path / "page.html"))
    assert not any(found["contradicted"])
    assert found["words"]["label"][0] == f"{X[0, 0]:.4g}"


CLASSES = {
    "bool": lambda y: y.astype(bool),
    "column": lambda y: y[:, None],
    "float": lambda y: y.astype(float),
    "names": lambda y: np.array(["no", "yes"])[y],
}


@pytest.mark.parametrize("form", CLASSES)
def test_labels_in_any_form_are_contradicted_by_another_class(form, tmp_path):
    X, y = torch.randn(40, 2, dtype=torch.float64), np.arange(40) % 2
    network = nn.Linear(2, 2).double()
    given = CLASSES[form](y)
    found = content(explore(network, X, given, tmp_path / "page.html"))
    predicted = network(X).argmax(dim=1).numpy()
    assert found["contradicted"] == (predicted != y).tolist()
    names = dict(zip(y, np.ravel(given).tolist(), strict=True))
    told = [str(names[code]).removesuffix(".0") for code in predicted]
    assert found["words"]["prediction"] == told


def test_whole_numbers_that_are_predicted_contradict_no_label(tmp_path):
    X, y = np.random.default_rng(0).random((40, 2)), np.arange(40)
    found = content(explore(nn.Linear(2, 1).double(), X, y, tmp_path / "page.html"))
    assert not any(found["contradicted"])


def test_classes_that_differ_in_a_late_digit_are_told_apart(tmp_path):
    F = np.eye(3)[np.arange(12) % 3]
    y = 100_001.0 + np.arange(12) % 3
    found = content(explore("features", F, y, tmp_path / "page.html"))
    assert set(found["words"]["label"]) == {"100001", "100002", "100003"}


def test_a_network_is_trained_once(tmp_path):
    X = np.random.default_rng(0).random((30, 2))
    found = content(explore(None, X, X[:, 0], tmp_path / "page.html", random_state=0))
    network = NetworkNeighbors(random_state=0).fit(X, X[:, 0]).estimator_
    expected = NetworkDensity(network, **WEIGHTS).fit(X).score_samples(X)
    np.testing.assert_allclose(found["numbers"]["density"], expected, atol=1e-4)


@pytest.mark.parametrize("estimator", ["features", "landmarks"])
def test_features_do(estimator, tmp_path, images):
    network, X, y = images
    path = tmp_path / "page.html"
    if estimator == "features":
        X = np.random.default_rng(0).random((40, 3))
        X /= np.linalg.norm(X, axis=1)[:, None]
        found = content(explore("features", X, y, path))
    else:
        found = content(explore(network, X, y, path, n_components=20, random_state=0))
        gram = NetworkKernel(network)(X)
        near = np.take_along_axis(gram, np.array(found["neighbors"]), axis=1)
        np.testing.assert_allclose(found["similarities"], near, atol=1e-4)
    np.testing.assert_allclose(np.sum(found["parts"], axis=2), found["similarities"], atol=1e-3)
    assert (np.diff(found["similarities"], axis=1) <= 1e-4).all()


BAD = {
    "labels": ({"y": [1, 2]}, r"y has shape \(2,\) and X 40 rows"),
    "predictions": ({"predictions": [1, 2]}, r"predictions has shape \(2,\) and X 40 rows"),
    "scalar": ({"y": 3}, r"y has shape \(\) and X 40 rows"),
    "samples": ({"samples": ["a"]}, "samples is a list .* it has 1 rows and X 40"),
    "mixed samples": ({"samples": ["a"] * 39 + [None]}, "samples is a list that cannot be shown"),
    "ragged samples": ({"samples": [[1], [1, 2]] * 20}, "samples is a list that cannot be shown"),
    "missing pixels": ({"samples": np.full((40, 2, 2), np.nan)}, "row 0 has NaN or infinity"),
    "number": ({"image_shape": 15}, "image_shape is 15"),
    "negative": ({"image_shape": (-3, -5)}, r"image_shape is \(-3, -5\)"),
    "shape": ({"image_shape": (7, 7)}, r"image_shape is \(7, 7\)"),
    "neighbours": ({"n_neighbors": 40}, "n_neighbors is 40; allowed are integers from 1 to 39"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_fit_is_refused(bad, images, tmp_path):
    network, X, _ = images
    settings, message = BAD[bad]
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match=message):
        explore(network, X, path=path, **settings)
    assert not path.exists()


BAD_PATHS = {"folder": ".", "in no folder": "nowhere/page.html"}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_where_no_page_can_be_is_told_before_the_work(name, images, tmp_path, monkeypatch):
    monkeypatch.setattr("sknetsim.displays.explorer.compute_measures", None)
    with pytest.raises(ValueError, match=r"path is .* allowed is a file in a folder that exists"):
        explore(*images, tmp_path / BAD_PATHS[name])
    for settings in ({"path": 3}, {"path": tmp_path / "page.html", "title": None}):
        with pytest.raises(TypeError, match="allowed is a str"):
            explore(*images, **settings)


def test_an_earlier_page_stays_until_the_new_one_is_whole(images, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("earlier")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space"):
        explore(*images, path)
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def test_other_settings_are_refused(images, tmp_path):
    network, X, _ = images
    with pytest.raises(TypeError, match="colour"):
        explore(network, X, path=tmp_path / "page.html", colour="red")


def test_no_word_is_markup(tmp_path):
    X = torch.rand(10, 2)
    path = explore(
        nn.Linear(2, 5),
        X,
        WICKED * 2,
        tmp_path / "page.html",
        title=WICKED[0],
        predictions=WICKED * 2,
    )
    text = path.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert content(path)["words"]["label"] == WICKED * 2


def test_the_page_names_no_outside_address(images, tmp_path):
    network, X, y = images
    text = explore(network, X, y, tmp_path / "page.html").read_text()
    assert re.findall(r"https?:|//[a-z]", text) == []
    assert re.findall(r'(?:src|href)="[^"]*"', text) == []


# In a browser


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if program is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless", "no-sandbox", "disable-gpu", "window-size=1400,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


def opened(browser, path, place=""):
    browser.get("about:blank")
    browser.get(path.as_uri() + place)
    assert browser.get_log("browser") == [], "the page has errors"
    return browser


def texts(browser, selector):
    return [found.text for found in browser.find_elements("css selector", selector)]


def click(browser, selector):
    browser.find_element("css selector", selector).click()


def choose(browser, selector, text):
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("css selector", selector)).select_by_visible_text(text)


def shown_order(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('#samples [data-index]')]"
        ".map((one) => Number(one.dataset.index))"
    )


def fact(browser, name):
    return browser.find_element("css selector", f"[data-fact={name}]").text


@pytest.fixture
def page(images, tmp_path):
    return explore(*images, tmp_path / "page.html", n_neighbors=4)


def test_a_click_shows_a_sample_and_its_neighbours(browser, page):
    found = content(page)
    opened(browser, page)
    click(browser, "#samples [data-index='7']")
    assert texts(browser, "#title") == ["Sample 7"]
    for name in ("density", "reliability", "quality"):
        assert fact(browser, name) == f"{found['numbers'][name][7]:.3f}"
    near = browser.find_elements("css selector", "#neighbours [data-index]")
    assert [int(one.get_attribute("data-index")) for one in near] == found["neighbors"][7]
    assert [one.text.split("\n")[0] for one in near] == [
        f"{value:.3f}" for value in found["similarities"][7]
    ]


def test_a_click_on_a_neighbour_shows_why(browser, page):
    found = content(page)
    opened(browser, page, "#7")
    near = found["neighbors"][7][2]
    click(browser, f"#neighbours [data-index='{near}']")
    assert texts(browser, "#why .number") == [f"{value:.3f}" for value in found["parts"][7][2]]
    click(browser, "#go")
    assert texts(browser, "#title") == [f"Sample {near}"]
    browser.back()
    assert texts(browser, "#title") == ["Sample 7"]


def test_labels_filter_and_densities_sort(browser, page):
    found = content(page)
    opened(browser, page)
    choose(browser, "#label", "2")
    choose(browser, "#order", "log density, lowest first")
    expected = [index for index in range(40) if found["words"]["label"][index] == "2"]
    expected.sort(key=lambda index: found["numbers"]["density"][index])
    assert shown_order(browser) == expected
    assert texts(browser, "#count") == ["13 of 40 samples"]
    click(browser, "#contradicted input")
    assert shown_order(browser) == [i for i in expected if found["contradicted"][i]]


def test_the_keyboard_does_what_a_click_does(browser, tmp_path):
    X = torch.rand(12, 2)
    opened(browser, explore(nn.Linear(2, 1), X, path=tmp_path / "page.html"))
    browser.find_element("css selector", "#samples [data-index='5']").send_keys("\n")
    assert texts(browser, "#title") == ["Sample 5"]


def test_a_table_names_what_it_is_sorted_by(browser, tmp_path):
    page = explore(nn.Linear(2, 1), torch.rand(12, 2), path=tmp_path / "page.html")
    opened(browser, page)
    choose(browser, "#order", "reliability, highest first")
    values = content(page)["numbers"]["reliability"]
    assert texts(browser, "#samples th")[:2] == ["sample", "reliability"]
    found = texts(browser, "#samples td:nth-child(2)")
    assert found == [f"{value:.2f}" for value in sorted(values, reverse=True)]


def test_words_are_shown_as_they_are(browser, tmp_path):
    X = torch.rand(10, 2)
    page = explore(
        nn.Linear(2, 5), X, WICKED * 2, tmp_path / "page.html", samples=WICKED * 2, title=WICKED[0]
    )
    opened(browser, page)
    assert browser.title == WICKED[0] and texts(browser, "h1") == [WICKED[0]]
    assert len(browser.find_elements("css selector", "script")) == 2
    for index, word in enumerate(WICKED):
        click(browser, f"#samples [data-index='{index}']")
        shown = browser.find_element("css selector", "[data-fact=label]")
        assert shown.get_property("textContent") == word
        cells = browser.find_elements("css selector", f"#samples [data-index='{index}'] .text")
        assert [cell.get_property("textContent") for cell in cells] == [word]
    assert browser.find_elements("css selector", "main img, main b") == []


def test_thousands_of_samples_are_drawn_as_they_are_scrolled_to(browser, tmp_path):
    X = torch.rand(3_000, 2)
    network = nn.Linear(2, 1)
    page = explore(network, X, path=tmp_path / "page.html", image_shape=(1, 2), n_neighbors=2)
    opened(browser, page)
    assert texts(browser, "#count") == ["3,000 of 3,000 samples"]
    assert len(shown_order(browser)) < 3_000
    from selenium.webdriver.support.ui import WebDriverWait

    end = "const list = document.getElementById('samples'); list.scrollTop = list.scrollHeight"
    for _ in range(12):
        before = len(shown_order(browser))
        browser.execute_script(end)
        if before < 3_000:
            WebDriverWait(browser, 10).until(lambda one, b=before: len(shown_order(one)) > b)
    assert shown_order(browser) == list(range(3_000))


def test_a_tile_does_not_hold_its_sheet(browser, tmp_path):
    X, samples = torch.rand(40, 2), np.random.default_rng(0).random((40, 3, 32, 32))
    opened(browser, explore(nn.Linear(2, 1), X, path=tmp_path / "page.html", samples=samples))
    style = "return document.querySelector('#samples .picture').getAttribute('style').length"
    assert browser.execute_script(style) < 300
    pixels = "return getComputedStyle(document.querySelector('#samples .picture')).backgroundImage"
    assert browser.execute_script(pixels).startswith('url("data:image/png')


def test_the_focus_stays_where_it_was(browser, page):
    found = content(page)
    opened(browser, page, "#7")
    near = found["neighbors"][7][2]
    browser.find_element("css selector", f"#neighbours [data-index='{near}']").send_keys("\n")
    assert browser.switch_to.active_element.get_attribute("data-index") == str(near)
    browser.find_element("css selector", "#go").send_keys("\n")
    assert browser.switch_to.active_element.text == f"Sample {near}"


def test_the_list_follows_the_chosen_sample(browser, tmp_path):
    X = torch.rand(700, 2)
    path = tmp_path / "page.html"
    opened(browser, explore(nn.Linear(2, 1), X, path=path, image_shape=(1, 2)), "#650")
    (chosen,) = browser.find_elements("css selector", "#samples .chosen")
    assert chosen.get_attribute("data-index") == "650" and chosen.is_displayed()
    inside = "const [a, b] = [arguments[0], arguments[0].closest('section')].map((e) => "
    inside += "e.getBoundingClientRect()); return a.top >= b.top && a.bottom <= b.bottom + 1"
    assert browser.execute_script(inside, chosen)


@pytest.mark.parametrize("width", [400, 800, 1400])
@pytest.mark.parametrize("kind", ["images", "table"])
def test_the_page_is_no_wider_than_its_window(browser, width, kind, tmp_path):
    X, y = torch.rand(20, 4), ["a very long name of a class " * 4, "b"] * 10
    shape = (2, 2) if kind == "images" else None
    page = explore(nn.Linear(4, 2), X, y, tmp_path / "page.html", image_shape=shape)
    browser.set_window_size(width, 900)
    try:
        opened(browser, page)
        wide = "return document.documentElement.scrollWidth > window.innerWidth"
        assert not browser.execute_script(wide)
        inner = "const d = document.getElementById('details'); return d.scrollWidth > d.clientWidth"
        assert not browser.execute_script(inner)
    finally:
        browser.set_window_size(1400, 900)


def test_nothing_is_fetched(browser, page):
    opened(browser, page)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []
