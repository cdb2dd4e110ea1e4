"""Tables of texts: their columns, their sizes and their drawing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from .rendering import Table

#: Largest number of columns of samples in a drawn table.
MOST_COLUMNS = 16

# Width of a character and height of a line, in inches.
_CHARACTER_INCHES, _LINE_INCHES = 0.085, 0.24

# Largest number of characters in a line of a cell, and of lines in a cell.
_TEXT_CHARACTERS, _TEXT_LINES = 60, 4

# Largest number of characters of a column that is aligned to the right, and share of the width of a
# column to the left of texts.
_LABEL_CHARACTERS, _PAD_OF_TEXTS = 20, 0.02


def align_tables(queries: Table, neighbors: Table) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names and the cells of two tables with the same columns in one order.

    Queries may be in another form than the fitted samples: their columns may be in another order,
    have no names, or be fewer, because the steps before the network use only some of them.
    """
    first, second = queries.columns, neighbors.columns
    numbers = [str(place) for place in range(len(first))]
    has_no_names = numbers in (first, second) or len(set(first)) < len(first)
    if len(first) == len(second) and has_no_names:
        return second if first == numbers else first, queries.cells, neighbors.cells
    names = list(dict.fromkeys([*first, *second]))
    return names, _pick_columns(queries, names), _pick_columns(neighbors, names)


def concatenate_tables(tables: Sequence[Table]) -> Table:
    """Return the rows of tables in one table, which has the columns of all of them."""
    columns = tables[0].columns
    if all(table.columns == columns for table in tables):
        return Table(columns, np.concatenate([table.cells for table in tables]))
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    return Table(names, np.concatenate([_pick_columns(table, names) for table in tables]))


def _pick_columns(table: Table, names: list[str]) -> np.ndarray:
    """Return the cells of a table under some names; they are empty if it has no such column."""
    cells = np.full((len(table.cells), len(names)), "", dtype=object)
    for place, name in enumerate(names):
        if name in table.columns:
            cells[:, place] = table.cells[:, table.columns.index(name)]
    return cells


def wrap_text(text: str) -> str:
    """Return a long text in some lines, the last of which ends in an ellipsis if it is cut off."""
    text = text.encode(errors="replace").decode()  # matplotlib refuses lone surrogates.
    if len(text) <= _TEXT_CHARACTERS and "\n" not in text:
        return text
    return textwrap.fill(text, _TEXT_CHARACTERS, max_lines=_TEXT_LINES, placeholder=" …")


def count_lines(rows: Sequence[list[str]]) -> int:
    """Return the height of a table in lines, with a margin of one line."""
    return 1 + sum(map(_count_lines_of_row, rows))


def _count_lines_of_row(row: list[str]) -> int:
    return 1 + max(cell.count("\n") for cell in row)


def _count_characters(tables: Sequence[list[list[str]]]) -> np.ndarray:
    """Return the width of each column of all tables in characters, with a margin."""
    rows = [row for table in tables for row in table]
    return np.max([[max(map(len, cell.split("\n"))) for cell in row] for row in rows], axis=0) + 2


def measure_tables(tables: Sequence[list[list[str]]]) -> tuple[float, float]:
    """Return the width and height of tables one below the other, in inches."""
    lines = sum(count_lines(rows) for rows in tables)
    return _CHARACTER_INCHES * _count_characters(tables).sum(), _LINE_INCHES * lines


def draw_tables(axes: Sequence[Any], tables: Sequence[list[list[str]]]) -> None:
    """Draw tables in matplotlib Axes, with columns of one width in all tables.

    The first row of a table is its heading, and the second one, which is shaded, the query.
    """
    characters = _count_characters(tables)
    for axis, rows in zip(axes, tables, strict=True):
        _draw_table(axis, rows, characters / characters.sum())


def _draw_table(axis: Any, rows: list[list[str]], widths: np.ndarray) -> None:
    names, *cells = rows
    table = axis.table(cells, colLabels=names, colWidths=widths, cellLoc="right", bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, column), cell in table.get_celld().items():
        cell.set(edgecolor="0.85", facecolor="0.93" if row == 1 else "white")
        cell.set_height(_count_lines_of_row(rows[row]))
        cell.get_text().set(parse_math=False, weight="bold" if row == 0 else "normal")
        if any(len(values[column]) > _LABEL_CHARACTERS for values in cells):
            cell.PAD = _PAD_OF_TEXTS
            cell.get_text().set_horizontalalignment("left")
    axis.set_axis_off()
