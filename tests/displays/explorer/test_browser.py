"""The page in a browser: clicks, keyboard, filters, focus and layout."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from sknetsim import explore

from .pages import WICKED, read_data


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver_path = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if program is None or driver_path is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless", "no-sandbox", "disable-gpu", "window-size=1400,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    yield driver
    driver.quit()


def open_page(browser, path, place=""):
    browser.get("about:blank")
    browser.get(path.as_uri() + place)
    assert browser.get_log("browser") == [], "the page has errors"
    return browser


def read_texts(browser, selector):
    return [element.text for element in browser.find_elements("css selector", selector)]


def click(browser, selector):
    browser.find_element("css selector", selector).click()


def choose_option(browser, selector, text):
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("css selector", selector)).select_by_visible_text(text)


def read_order(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('#samples [data-index]')]"
        ".map((item) => Number(item.dataset.index))"
    )


def read_fact(browser, name):
    return browser.find_element("css selector", f"[data-fact={name}]").text


@pytest.fixture
def page(images, tmp_path):
    return explore(*images, tmp_path / "page.html", n_neighbors=4)


def test_a_click_shows_a_sample_and_its_neighbours(browser, page):
    data = read_data(page)
    open_page(browser, page)
    click(browser, "#samples [data-index='7']")
    assert read_texts(browser, "#title") == ["Sample 7"]
    for name in ("density", "reliability", "quality"):
        assert read_fact(browser, name) == f"{data['scores'][name][7]:.3f}"
    neighbours = browser.find_elements("css selector", "#neighbours [data-index]")
    assert [int(one.get_attribute("data-index")) for one in neighbours] == data["neighbors"][7]
    assert [one.text.split("\n")[0] for one in neighbours] == [
        f"{value:.3f}" for value in data["similarities"][7]
    ]


def test_a_click_on_a_neighbour_shows_contributions(browser, page):
    data = read_data(page)
    open_page(browser, page, "#7")
    neighbours = data["neighbors"][7][2]
    click(browser, f"#neighbours [data-index='{neighbours}']")
    assert read_texts(browser, "#contributions .number") == [
        f"{value:.3f}" for value in data["contributions"][7][2]
    ]
    click(browser, "#follow")
    assert read_texts(browser, "#title") == [f"Sample {neighbours}"]
    browser.back()
    assert read_texts(browser, "#title") == ["Sample 7"]


def test_a_click_on_a_helpful_sample_opens_it(browser, page):
    helpful = read_data(page)["influence"]["lists"][0]
    open_page(browser, page, "#7")
    index, value = helpful["samples"][7][1], helpful["values"][7][1]
    tile = browser.find_elements("css selector", "#influence [data-index]")[1]
    assert float(tile.text.split("\n")[0]) == pytest.approx(value, rel=0.05)
    tile.click()
    assert read_texts(browser, "#title") == [f"Sample {index}"]


def test_samples_are_filtered_by_label_and_sorted_by_density(browser, page):
    data = read_data(page)
    open_page(browser, page)
    choose_option(browser, "#label", "2")
    choose_option(browser, "#order", "log density, lowest first")
    expected = [index for index in range(40) if data["texts"]["label"][index] == "2"]
    expected.sort(key=lambda index: data["scores"]["density"][index])
    assert read_order(browser) == expected
    assert read_texts(browser, "#count") == ["13 of 40 samples"]
    click(browser, "#mismatch input")
    assert read_order(browser) == [i for i in expected if data["mismatches"][i]]


def test_samples_can_be_selected_by_the_keyboard(browser, tmp_path):
    X = torch.rand(12, 2)
    open_page(browser, explore(nn.Linear(2, 1), X, path=tmp_path / "page.html"))
    browser.find_element("css selector", "#samples [data-index='5']").send_keys("\n")
    assert read_texts(browser, "#title") == ["Sample 5"]


def test_a_table_has_a_column_of_the_score_that_sorts_it(browser, tmp_path):
    page = explore(nn.Linear(2, 1), torch.rand(12, 2), path=tmp_path / "page.html")
    open_page(browser, page)
    choose_option(browser, "#order", "reliability, highest first")
    values = read_data(page)["scores"]["reliability"]
    assert read_texts(browser, "#samples th")[:2] == ["sample", "reliability"]
    cells = read_texts(browser, "#samples td:nth-child(2)")
    assert cells == [f"{value:.2f}" for value in sorted(values, reverse=True)]


def test_texts_are_shown_literally(browser, tmp_path):
    X = torch.rand(10, 2)
    page = explore(
        nn.Linear(2, 5), X, WICKED * 2, tmp_path / "page.html", samples=WICKED * 2, title=WICKED[0]
    )
    open_page(browser, page)
    assert browser.title == WICKED[0] and read_texts(browser, "h1") == [WICKED[0]]
    assert len(browser.find_elements("css selector", "script")) == 2
    for index, word in enumerate(WICKED):
        click(browser, f"#samples [data-index='{index}']")
        shown = browser.find_element("css selector", "[data-fact=label]")
        assert shown.get_property("textContent") == word
        cells = browser.find_elements("css selector", f"#samples [data-index='{index}'] .text")
        assert [cell.get_property("textContent") for cell in cells] == [word]
    assert browser.find_elements("css selector", "main img, main b") == []


def test_thousands_of_samples_are_drawn_as_the_user_scrolls(browser, tmp_path):
    X = torch.rand(3_000, 2)
    network = nn.Linear(2, 1)
    page = explore(network, X, path=tmp_path / "page.html", image_shape=(1, 2), n_neighbors=2)
    open_page(browser, page)
    assert read_texts(browser, "#count") == ["3,000 of 3,000 samples"]
    assert len(read_order(browser)) < 3_000
    from selenium.webdriver.support.ui import WebDriverWait

    end = "const list = document.getElementById('samples'); list.scrollTop = list.scrollHeight"
    for _ in range(12):
        before = len(read_order(browser))
        browser.execute_script(end)
        if before < 3_000:
            WebDriverWait(browser, 10).until(lambda one, b=before: len(read_order(one)) > b)
    assert read_order(browser) == list(range(3_000))


def test_tiles_refer_to_their_sheet(browser, tmp_path):
    X, samples = torch.rand(40, 2), np.random.default_rng(0).random((40, 3, 32, 32))
    open_page(browser, explore(nn.Linear(2, 1), X, path=tmp_path / "page.html", samples=samples))
    style = "return document.querySelector('#samples .picture').getAttribute('style').length"
    assert browser.execute_script(style) < 300
    pixels = "return getComputedStyle(document.querySelector('#samples .picture')).backgroundImage"
    assert browser.execute_script(pixels).startswith('url("data:image/png')


def test_the_focus_follows_the_selection(browser, page):
    data = read_data(page)
    open_page(browser, page, "#7")
    neighbours = data["neighbors"][7][2]
    browser.find_element("css selector", f"#neighbours [data-index='{neighbours}']").send_keys("\n")
    assert browser.switch_to.active_element.get_attribute("data-index") == str(neighbours)
    browser.find_element("css selector", "#follow").send_keys("\n")
    assert browser.switch_to.active_element.text == f"Sample {neighbours}"


def test_the_list_scrolls_to_the_selected_sample(browser, tmp_path):
    X = torch.rand(700, 2)
    path = tmp_path / "page.html"
    open_page(browser, explore(nn.Linear(2, 1), X, path=path, image_shape=(1, 2)), "#650")
    (chosen,) = browser.find_elements("css selector", "#samples .selected")
    assert chosen.get_attribute("data-index") == "650" and chosen.is_displayed()
    inside = "const [a, b] = [arguments[0], arguments[0].closest('section')].map((e) => "
    inside += "e.getBoundingClientRect()); return a.top >= b.top && a.bottom <= b.bottom + 1"
    assert browser.execute_script(inside, chosen)


@pytest.mark.parametrize("width", [400, 800, 1400])
@pytest.mark.parametrize("kind", ["images", "table"])
def test_the_page_is_not_wider_than_its_window(browser, width, kind, tmp_path):
    X, y = torch.rand(20, 4), ["a very long name of a class " * 4, "b"] * 10
    shape = (2, 2) if kind == "images" else None
    page = explore(nn.Linear(4, 2), X, y, tmp_path / "page.html", image_shape=shape)
    browser.set_window_size(width, 900)
    try:
        open_page(browser, page)
        wide = "return document.documentElement.scrollWidth > window.innerWidth"
        assert not browser.execute_script(wide)
        inner = "const d = document.getElementById('details'); return d.scrollWidth > d.clientWidth"
        assert not browser.execute_script(inner)
    finally:
        browser.set_window_size(1400, 900)


def test_nothing_is_loaded_from_the_network(browser, page):
    open_page(browser, page)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []


def test_texts_are_shown_literally_and_missing_ones_as_missing(browser, tmp_path):
    texts = [*WICKED, None]
    path = explore(nn.Linear(2, 2), torch.rand(len(texts), 2), path=tmp_path / "p.html",
                   samples=texts, n_neighbors=2)  # fmt: skip
    open_page(browser, path)
    cells = [cell.text for cell in browser.find_elements("css selector", "#samples td.text")]
    assert cells == [*(text.replace("\u2028", "").strip() for text in WICKED), "missing"]
    assert read_texts(browser, "#samples td.missing") == ["missing"]


def test_other_values_of_an_image_are_shown_below_it(browser, tmp_path):
    samples = {"image": np.random.default_rng(0).random((5, 3, 3)), "city": np.array([*"abcde"])}
    path = explore(nn.Linear(2, 2), torch.rand(5, 2), path=tmp_path / "page.html", samples=samples,
                   n_neighbors=2)  # fmt: skip
    open_page(browser, path, "#3")
    assert len(browser.find_elements("css selector", "#samples .picture")) == 5
    assert read_texts(browser, "#whole td") == ["d"]


def test_a_long_text_is_shown_as_a_whole_only_for_the_selected_sample(browser, tmp_path):
    texts = ["first line\n" + "word " * 200] * 5
    path = explore(nn.Linear(2, 2), torch.rand(5, 2), path=tmp_path / "page.html", samples=texts,
                   n_neighbors=2)  # fmt: skip
    open_page(browser, path)
    listed, whole = (
        browser.find_element("css selector", f"{place} td.text div").size["height"]
        for place in ("#samples", "#whole")
    )
    line = float(browser.execute_script(
        "return parseFloat(getComputedStyle(document.querySelector('td.text div')).lineHeight)"
    ))  # fmt: skip
    assert listed <= 4.1 * line < whole
