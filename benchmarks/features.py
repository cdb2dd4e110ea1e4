"""Cost of computing features, and the error of their similarities.

Writes ``benchmarks/results/features.md``. With ``--quick`` it only prints, after one seed and two
rounds on fewer samples.
"""

from lib.features import costs, errors
from lib.report import format_title, write_report


def generate_report(quick):
    """Yield the report, line by line."""
    *title, _ = format_title(__file__, "Features: cost and error", ("scikit-learn", "numpy"))
    yield from title
    for part in (costs, errors):
        yield from ("", part.TEXT, "")
        yield from part.generate_table(quick)


if __name__ == "__main__":
    write_report(__file__, __doc__, "one seed and two rounds on fewer samples", generate_report)
