"""Film review snippets, each rated by 15 to 29 people.

They are part of the source distribution of ``vaderSentiment``, which ``make bench`` downloads into
the environment:

    pip download --no-deps --no-binary :all: --dest .venv-bench/sdists vaderSentiment==3.3.2
"""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
FOLDER = "hutto_ICWSM_2014"


class Snippets(NamedTuple):
    """Texts with ratings from -4 (extremely negative) to 4."""

    texts: list[str]
    ratings: np.ndarray  # (n, largest number of raters), NaN after the last rating of a text
    means: np.ndarray  # (n,)


def load_film_reviews():
    """Load 10,605 snippets; a column of ratings does not belong to one person."""
    (sdist,) = (Path(sys.prefix) / "sdists").glob("vader*.tar.gz")
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile(f"{outer.getnames()[0]}/{ARCHIVE}").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        texts = _read_table(archive, "movieReviewSnippets_GroundTruth.txt")
        rated = _read_table(archive, "movieReviewSnippets_anonDataRatings.txt")
    lists = [json.loads(cells[-1]) for cells in rated]
    ratings = np.full((len(lists), max(map(len, lists))), np.nan)
    for row, values in zip(ratings, lists, strict=True):
        row[: len(values)] = values
    return Snippets([cells[-1] for cells in texts], ratings, np.nanmean(ratings, axis=1))


def _read_table(archive, name):
    """Return the cells of each line of a file."""
    with io.TextIOWrapper(archive.extractfile(f"{FOLDER}/{name}"), encoding="utf-8-sig") as lines:
        return [line.rstrip("\n").split("\t") for line in lines]
