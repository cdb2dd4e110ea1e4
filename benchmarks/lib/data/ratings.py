"""Snippets of film reviews, and how 15 to 29 people rated each.

They lie in the source distribution of ``vaderSentiment``, which ``make bench`` downloads into the
environment:

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
    """Texts, rated from -4 (extremely negative) to 4."""

    texts: list[str]
    ratings: np.ndarray  # (n, the most raters of a text), NaN behind a text's last one
    means: np.ndarray  # (n,)


def film_reviews():
    """10,605 snippets; a column of ratings is not one person's."""
    (sdist,) = (Path(sys.prefix) / "sdists").glob("vader*.tar.gz")
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile(f"{outer.getnames()[0]}/{ARCHIVE}").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        texts = table(archive, "movieReviewSnippets_GroundTruth.txt")
        rated = table(archive, "movieReviewSnippets_anonDataRatings.txt")
    given = [json.loads(cells[-1]) for cells in rated]
    ratings = np.full((len(given), max(map(len, given))), np.nan)
    for row, values in zip(ratings, given, strict=True):
        row[: len(values)] = values
    return Snippets([cells[-1] for cells in texts], ratings, np.nanmean(ratings, axis=1))


def table(archive, name):
    """The cells of a file's lines."""
    with io.TextIOWrapper(archive.extractfile(f"{FOLDER}/{name}"), encoding="utf-8-sig") as lines:
        return [line.rstrip("\n").split("\t") for line in lines]
