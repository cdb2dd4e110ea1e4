"""Samples in each form as columns of a table, texts and images."""

import datetime
import weakref

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import sparse
from skorch.helper import SliceDataset, SliceDict
from torch.utils.data import Dataset, Subset, TensorDataset

from sknetsim.displays._appearance.formatting import format_value
from sknetsim.displays._appearance.parts import list_parts
from sknetsim.displays._appearance.rendering import is_image_like, render_images, to_images
from sknetsim.displays.explorer._samples import describe_samples

from .test_rendering import render_table


class Items(Dataset):
    """Dataset of given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def make_table():
    return pd.DataFrame(
        {
            "age": [41.5, np.nan, 30],
            "city": pd.Categorical(["Rome", None, "Oslo"]),
            "since": [pd.Timestamp("2020-01-01"), pd.NaT, pd.Timestamp("2020-01-02 10:30")],
            "member": [True, False, True],
            "visits": pd.array([1, None, 3], dtype="Int64"),
            "note": [None, "late", "on <b>time</b>"],
        }
    )


TABLE = {
    "age": ["41.5", "missing", "30"],
    "city": ["Rome", "missing", "Oslo"],
    "since": ["2020-01-01", "missing", "2020-01-02 10:30:00"],
    "member": ["True", "False", "True"],
    "visits": ["1", "missing", "3"],
    "note": ["missing", "late", "on <b>time</b>"],
}


def make_polars_table():
    return pl.DataFrame(
        {
            "age": [41.5, None, 30],
            "city": ["Rome", None, "Oslo"],
            "since": [datetime.datetime(2020, 1, 1), None, datetime.datetime(2020, 1, 2, 10, 30)],
            "member": [True, False, True],
            "visits": [1, None, 3],
            "note": [None, "late", "on <b>time</b>"],
        }
    )


TEXTS = ["a film", "no film", "<i>two</i> films"]
NUMBERS = np.array([[1, 0.5], [2, 0.25], [3, 0.125]])
CELLS = {"0": ["1", "2", "3"], "1": ["0.5", "0.25", "0.125"]}
WIDE = sparse.csr_array(([1.5, 2, 0.25], ([0, 0, 2], [3, 40, 7])), shape=(3, 60))
ENTRIES = {"non-zero entries": ["3: 1.5, 40: 2", "all zero", "7: 0.25"]}
DICTS = [{"city": "Rome", "age": 3}, {"city": "Oslo"}, {"city": None, "age": 5}]
OF_DICTS = {"city": ["Rome", "Oslo", "missing"], "age": ["3", "missing", "5"]}
RAGGED = {"0": ["[1, 2, 3]", "[4]", "[5, 6]"]}


def make_pairs(values):
    return Items(*zip(values, range(3), strict=True))


# Samples, and the names and cells of the columns that show them.
FORMS = {
    "table": (make_table(), TABLE),
    "polars table": (make_polars_table(), TABLE),
    "equal names": (pd.DataFrame(NUMBERS, columns=["a", "a"]), CELLS | {"names": ["a", "a"]}),
    "names of two levels": (
        pd.DataFrame(NUMBERS, columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        {"a, 1": CELLS["0"], "b, 2": CELLS["1"]},
    ),
    "list of texts": (TEXTS, {"text": TEXTS}),
    "tuple of texts": (tuple(TEXTS), {"text": TEXTS}),
    "array of texts": (np.array(TEXTS), {"text": TEXTS}),
    "array of bytes": (np.array([text.encode() for text in TEXTS]), {"text": TEXTS}),
    "array of objects": (np.array([*TEXTS[:2], None], object), {"text": [*TEXTS[:2], "missing"]}),
    "Series": (pd.Series(TEXTS, index=[7, 8, 9]), {"text": TEXTS}),
    "named Series": (pd.Series(TEXTS, name="review"), {"review": TEXTS}),
    "polars Series": (pl.Series("review", TEXTS), {"review": TEXTS}),
    "column of texts": (pd.DataFrame({"review": TEXTS}), {"review": TEXTS}),
    "array": (NUMBERS, CELLS),
    "array without columns": (np.zeros((3, 0)), {"0": ["[]", "[]", "[]"]}),
    "masked array": (
        np.ma.masked_equal(NUMBERS, 0.25),
        CELLS | {"1": ["0.5", "missing", "0.125"]},
    ),
    "array of dates": (
        np.array(["2020-01-01", "NaT", "2020-01-02T10:30"], "datetime64[ns]"),
        {"0": TABLE["since"]},
    ),
    "tensor": (torch.tensor(NUMBERS, requires_grad=True), CELLS),
    "list of tensors": ([*torch.tensor(NUMBERS)], CELLS),
    "list of tuples": ([("a", 1), ("b", 2), ("c", 3)], {"0": ["a", "b", "c"], "1": CELLS["0"]}),
    "list of mixed rows": (
        [["Rome", 41.5], ["Oslo", float("nan")], [None, 30]],
        {"0": ["Rome", "Oslo", "missing"], "1": ["41.5", "missing", "30"]},
    ),
    "list of lists of different lengths": ([[1, 2, 3], [4], [5, 6]], RAGGED),
    "tensors of different lengths": (
        [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6])],
        RAGGED,
    ),
    "list of lists of words": (
        [["a", "b"], ["c"], [*"defghijklm"]],
        {"0": ["[a, b]", "[c]", "[d, e, f, g, h, i, …, m]"]},
    ),
    "list of dicts": (DICTS, OF_DICTS),
    "dict": ({"age": NUMBERS[:, :1], "X": NUMBERS}, {"age": CELLS["0"]} | {
        "X": ["[1, 0.5]", "[2, 0.25]", "[3, 0.125]"]
    }),
    "dict of one array": ({"X": NUMBERS}, CELLS),
    "SliceDict": (
        SliceDict(city=np.array(["Rome", "Oslo", "Bonn"]), age=np.array([1, 2, 3])),
        {"city": ["Rome", "Oslo", "Bonn"], "age": CELLS["0"]},
    ),
    "tuple": ((NUMBERS[:, :1], torch.tensor([4, 5, 6])), {"0": CELLS["0"], "1": ["4", "5", "6"]}),
    "sparse matrix": (WIDE, ENTRIES),
    "sparse matrix by columns": (WIDE.tocsc(), ENTRIES),
    "narrow sparse matrix": (sparse.csr_matrix(NUMBERS), CELLS),
    "Dataset of pairs": (TensorDataset(torch.tensor(NUMBERS), torch.arange(3)), CELLS),
    "Dataset of tensors": (TensorDataset(torch.tensor(NUMBERS)), CELLS),
    "Dataset of texts": (Items(*TEXTS), {"text": TEXTS}),
    "Dataset of texts and labels": (make_pairs(TEXTS), {"text": TEXTS}),
    "Dataset of dicts": (make_pairs(DICTS), OF_DICTS),
    "Dataset of tuples": (
        make_pairs([*zip(TEXTS, NUMBERS, strict=True)]),
        {"0": TEXTS, "1": ["[1, 0.5]", "[2, 0.25]", "[3, 0.125]"]},
    ),
    "Subset": (Subset(make_pairs(TEXTS), [2, 0, 1]), {"text": [TEXTS[2], *TEXTS[:2]]}),
    "SliceDataset": (SliceDataset(make_pairs(TEXTS)), {"text": TEXTS}),
    "SliceDataset of dicts": (SliceDataset(make_pairs(DICTS)), OF_DICTS),
}  # fmt: skip


def make_huggingface_dataset(**columns):
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


@pytest.mark.parametrize(("X", "columns"), FORMS.values(), ids=FORMS)
def test_samples_of_each_form_are_rows_of_a_table(X, columns):
    names = columns.get("names", [*columns])
    cells = [column for name, column in columns.items() if name != "names"]
    table = render_table(X, [2, 0, 2])
    assert table.columns == names
    assert table.cells.T.tolist() == [[column[2], column[0], column[2]] for column in cells]


@pytest.mark.parametrize(("X", "columns"), FORMS.values(), ids=FORMS)
def test_samples_of_each_form_are_on_the_page(X, columns):
    shown = describe_samples(None, None, X)
    cells = [column for name, column in columns.items() if name != "names"]
    rows = np.array(shown["cells"])[:, -len(cells) :]
    assert rows.T.tolist() == cells and len(shown["wraps"]) == len(shown["columns"])


def test_items_of_a_huggingface_dataset_are_rows_of_a_table():
    X = make_huggingface_dataset(text=[*TEXTS[:2], None], ids=[[1, 2], [3], [4]])
    table = render_table(X, [0, 1, 2])
    assert table.columns == ["text", "ids"]
    assert table.cells[:, 0].tolist() == [*TEXTS[:2], "missing"]
    assert table.cells[:, 1].tolist() == ["[1, 2]", "[3]", "[4]"]


# Three images of 4 x 6 pixels, each of one colour.
GREY = np.arange(3.0)[:, None, None] * np.ones((4, 6))


def make_picture(value, mode="RGB"):
    return Image.fromarray(np.full((4, 6, 3), value, np.uint8)).convert(mode)


PICTURES = [make_picture(value) for value in range(3)]
COLOURED = GREY[..., None] * np.ones(3)

IMAGE_FORMS = {
    "array": (GREY, GREY),
    "nested list": (GREY.tolist(), GREY),
    "list of arrays": ([*GREY], GREY),
    "list of tensors": ([*torch.tensor(GREY)], GREY),
    "array of objects": (pd.Series([*GREY]).to_numpy(), GREY),
    "Series": (pd.Series([*GREY]), GREY),
    "channels first": ([torch.tensor(image).expand(3, 4, 6) for image in GREY], COLOURED),
    "Pillow": (PICTURES, COLOURED),
    "grey Pillow": ([make_picture(value, "L") for value in range(3)], GREY),
    "transparent Pillow": ([make_picture(value, "RGBA") for value in range(3)], COLOURED),
    "Dataset": (TensorDataset(torch.tensor(GREY), torch.arange(3)), GREY),
    "Dataset of Pillow": (make_pairs(PICTURES), COLOURED),
    "Dataset of dicts": (Items(*({"image": image} for image in PICTURES)), COLOURED),
    "SliceDataset": (SliceDataset(make_pairs(PICTURES)), COLOURED),
    "dict": ({"age": np.arange(3), "image": GREY}, GREY),
    "SliceDict": (SliceDict(image=GREY), GREY),
    "column of a table": (pd.DataFrame({"image": PICTURES, "age": [1, 2, 3]}), COLOURED),
}


@pytest.mark.parametrize(("X", "images"), IMAGE_FORMS.values(), ids=IMAGE_FORMS)
def test_images_of_each_form_are_images(X, images):
    assert is_image_like(X, None)
    np.testing.assert_array_equal(to_images(X, [2, 0, 2], None), images[[2, 0, 2]])


@pytest.mark.parametrize(("X", "images"), IMAGE_FORMS.values(), ids=IMAGE_FORMS)
def test_images_of_each_form_are_on_the_page(X, images):
    shown = describe_samples(None, None, X)
    assert (shown["width"], shown["height"], len(shown["sheets"])) == (6, 4, 1)


def test_images_of_a_huggingface_dataset_are_shown_with_its_other_columns():
    X = make_huggingface_dataset(image=PICTURES, label=[5, 6, 7])
    np.testing.assert_array_equal(to_images(X, [2, 0], None), COLOURED[[2, 0]])
    shown = describe_samples(None, None, X)
    assert shown["columns"] == ["label"] and shown["cells"] == [["5"], ["6"], ["7"]]
    assert "sheets" in shown


def test_other_values_of_samples_with_images_are_shown():
    shown = describe_samples(None, None, {"image": GREY, "city": np.array(["a", "b", "c"])})
    assert shown["columns"] == ["city"] and shown["cells"] == [["a"], ["b"], ["c"]]


def test_images_of_one_batch_are_in_memory_at_a_time():
    class Counted(Items):
        alive = largest = 0

        def __getitem__(self, index):
            image = make_picture(index % 255)
            self.alive += 1
            weakref.finalize(image, self.release)
            self.largest = max(self.largest, self.alive)
            return {"image": image, "name": str(index), **({"last": 1} if index == 599 else {})}

        def release(self):
            self.alive -= 1

    X = Counted(*range(600))
    shown = describe_samples(None, None, X)
    assert 256 <= X.largest <= 257
    assert shown["columns"] == ["name", "last"]
    assert shown["cells"][3] == ["3", ""] and shown["cells"][599] == ["599", "1"]


def test_images_of_different_sizes_are_enlarged_between_margins():
    images = render_images([np.eye(2), np.zeros((4, 2)), np.ones((1, 2))], [0, 1, 2], None)
    assert images.shape == (3, 4, 2)
    margin = [[0.93, 0.93]]
    np.testing.assert_array_equal(images[0], [*margin, [1, 0], [0, 1], *margin])
    np.testing.assert_array_equal(images[1], np.zeros((4, 2)))
    enlarged = render_images([np.eye(2), np.zeros((4, 4))], [0, 1], None)[0]
    np.testing.assert_array_equal(enlarged, np.kron(np.eye(2), np.ones((2, 2))))


def test_grey_images_beside_coloured_ones_are_grey():
    images = render_images([np.ones((2, 2)), np.zeros((3, 2, 2))], [0, 1], None)
    np.testing.assert_array_equal(images[0], np.ones((2, 2, 3)))


def test_a_missing_image_is_an_empty_one():
    images = render_images([PICTURES[0], None, PICTURES[2]], [0, 1, 2], None)
    assert (images[1] == 0.93).all() and (images[2] == 1).all()
    shown = describe_samples(None, None, [None, PICTURES[1], PICTURES[2]])
    assert (shown["width"], shown["height"]) == (6, 4)


@pytest.mark.parametrize("form", ["DataFrame", "polars", "sparse", "list", "dict", "Dataset"])
def test_flat_samples_of_each_form_get_the_given_shape(form):
    X = np.arange(12.0).reshape(2, 6)
    forms = {
        "DataFrame": pd.DataFrame,
        "polars": lambda X: pl.DataFrame(X),
        "sparse": sparse.csr_array,
        "list": lambda X: X.tolist(),
        "dict": lambda X: {"other": np.zeros(2), "pixels": X},
        "Dataset": lambda X: TensorDataset(torch.tensor(X), torch.zeros(2)),
    }
    images = to_images(forms[form](X), [1, 0], (2, 3))
    np.testing.assert_array_equal(images, X[[1, 0]].reshape(2, 2, 3))


def test_images_of_pillow_keep_their_pixels_in_the_given_shape():
    picture = Image.fromarray(np.arange(90, dtype=np.uint8).reshape(5, 6, 3))
    expected = np.arange(90).reshape(5, 6, 3)
    for shape in (None, (5, 6, 3)):
        images = to_images([picture, None], [0, 1], shape)
        np.testing.assert_array_equal(images[0], expected)
        assert images[1].size == 0


def test_texts_with_the_shape_of_an_image_raise_an_error():
    with pytest.raises(ValueError, match=r"must consist of numbers to be drawn .* Leave `image_sh"):
        to_images(TEXTS, [0], (2, 3))


def test_wide_tables_show_their_first_columns_and_the_last_one():
    X = pd.DataFrame(np.arange(80).reshape(2, 40), columns=[f"c{i}" for i in range(40)])
    shown = describe_samples(None, None, X)
    first = range(22)
    assert shown["columns"] == [*(f"c{i}" for i in first), "… 17 more columns", "c39"]
    assert shown["cells"][1] == [*(str(40 + i) for i in first), "…", "79"]


def test_the_index_of_a_table_is_shown_unless_it_is_the_position():
    X = make_table()
    assert describe_samples(None, None, X)["columns"] == [*TABLE]
    for name in (None, "customer"):
        shown = describe_samples(None, None, X.set_axis(pd.Index([*"xyz"], name=name)))
        assert shown["columns"] == [name or "index", *TABLE]
        assert [row[0] for row in shown["cells"]] == [*"xyz"]


def test_long_texts_are_cut_off_on_the_page():
    ((text,), (short,)) = describe_samples(None, None, ["word " * 1000, "a"])["cells"]
    assert len(text) == 2000 and text.startswith("word word") and text.endswith(" …")
    assert short == "a"


def test_columns_with_long_texts_are_wrapped():
    X = pd.DataFrame({"note": ["word " * 10, "a"], "city": ["Rome", "Oslo"]})
    assert describe_samples(None, None, X)["wraps"] == [True, False]


VALUES = {
    "None": (None, "missing"),
    "NaN": (float("nan"), "missing"),
    "float32 NaN": (np.float32("nan"), "missing"),
    "tensor": (torch.tensor(float("nan")), "missing"),
    "NA": (pd.NA, "missing"),
    "NaT": (pd.NaT, "missing"),
    "NaT of numpy": (np.datetime64("NaT"), "missing"),
    "masked": (np.ma.masked, "missing"),
    "infinity": (float("inf"), "inf"),
    "bool": (np.True_, "True"),
    "date": (datetime.date(2020, 1, 2), "2020-01-02"),
    "array with two axes": (np.zeros((2, 3)), "array of shape (2, 3)"),
    "missing in an array": (np.array([1.0, np.nan]), "[1, missing]"),
    "dict": ({"a": 1.5, "b": None}, "a: 1.5, b: missing"),
    "image": (PICTURES[0], "image of 6 x 4 pixels"),
}


@pytest.mark.parametrize(("value", "text"), VALUES.values(), ids=VALUES)
def test_values_of_each_type_are_texts(value, text):
    assert format_value(value) == text


def test_items_of_a_dataset_are_loaded_only_if_they_are_shown():
    class Counted(Items):
        loaded = 0

        def __getitem__(self, index):
            self.loaded += 1
            return super().__getitem__(index)

    X = Counted(*TEXTS)
    list_parts(X, [1, 1])
    assert X.loaded == 2
