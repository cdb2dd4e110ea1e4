"""What features cost, and how near they come to the similarity.

Writes ``benchmarks/features.md``. With ``--quick`` it only prints, after one seed and two rounds
on fewer rows.
"""

from lib.features import costs as feature_costs
from lib.features import errors as feature_errors
from lib.report import run, setting


def lines(quick):
    """The whole text, line by line."""
    yield from ("# Features: cost and error", "", f"{setting(('scikit-learn', 'numpy'))}.")
    for part in (feature_costs, feature_errors):
        yield from ("", part.TEXT, "")
        yield from part.table(quick)


if __name__ == "__main__":
    run(__file__, __doc__, "one seed and two rounds on fewer rows", lines)
