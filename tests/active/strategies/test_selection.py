"""The greedy loop, its input, and the automatic threshold."""

import numpy as np
import pytest

from sknetsim.active.strategies import Selection, select_greedily
from sknetsim.active.strategies._selection import split_rows

from .naive import make_samples, make_setting


class FixedSelection(Selection):
    """Selection with given utilities that records the chosen samples."""

    def __init__(self, utilities):
        self.fixed, self.added = np.array(utilities), []

    def utilities(self):
        return self.fixed

    def add(self, index):
        self.added.append(index)


def test_the_largest_utilities_are_chosen_in_order_and_the_first_of_equal_ones():
    selection = FixedSelection([1, 3, 3, 2])
    choices = list(select_greedily(selection, 3))
    assert [index for index, _ in choices] == selection.added == [1, 2, 3]
    np.testing.assert_array_equal(choices[2][1], [1, np.nan, np.nan, 2])


def test_the_loop_does_not_change_the_utilities_of_the_strategy():
    selection = FixedSelection([1.0, 3.0])
    list(select_greedily(selection, 2))
    assert selection.fixed.tolist() == [1, 3]


@pytest.mark.parametrize("labelled", [1, 7])
def test_balls_of_the_automatic_threshold_contain_as_many_samples_as_the_pool(labelled):
    pool, others = make_samples(n_pool=400, n_labelled=labelled, width=3, unit=True)
    setting = make_setting(pool, others, n_queries=13, threshold="auto")
    near = pool @ pool.T >= setting.least_similarity(pool, labelled + 13)
    inside = (near.sum() - 400) / (400 * 399)
    np.testing.assert_allclose(inside * (labelled + 13), 1, rtol=0.01)


def test_the_automatic_threshold_of_a_single_sample_is_one():
    pool, labelled = make_samples(n_labelled=1, unit=True)
    setting = make_setting(pool, labelled, threshold="auto")
    assert setting.least_similarity(labelled, 1) == 1


def test_a_given_threshold_is_used():
    pool, labelled = make_samples(unit=True)
    assert make_setting(pool, labelled, threshold=0.3).least_similarity(pool, 5) == 0.3


def test_the_soft_method_has_no_count():
    assert make_setting(*make_samples(), method="soft").make_count(np.eye(2), 2) is None


def test_slices_cover_all_rows_within_the_limit(monkeypatch):
    monkeypatch.setattr("sknetsim.active.strategies._selection._ENTRIES", 30)
    slices = list(split_rows(10, 7))
    rows = [row for part in slices for row in range(10)[part]]
    assert rows == list(range(10))
    assert all((part.stop - part.start) * 7 <= 30 for part in slices)
    assert len(list(split_rows(10, 1000))) == 10
