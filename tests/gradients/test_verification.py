"""Which chunks are checked; that checks find what is wrong is tested with the engine."""

import pytest

from sknetsim._gradients.verification import Schedule


def checked(step, samples):
    """The numbers of the chunks of a pass over samples that are checked."""
    schedule, numbers = Schedule(), []
    for number, start in enumerate(range(0, samples, step), start=1):
        size = min(step, samples - start)
        if schedule.is_due(size, start + size == samples):
            numbers.append(number)
            schedule.record(size, set())
    return numbers


def test_large_chunks_are_checked_at_powers_of_eight_and_at_the_end():
    assert checked(100, 7050) == [1, 8, 64, 71]


def test_small_chunks_are_checked_more_often():
    assert checked(10, 200) == [1, 2, 4, 8, 16, 20]


def test_single_samples_are_all_checked():
    assert checked(1, 5) == [1, 2, 3, 4, 5]


def test_a_pass_of_one_chunk_is_checked():
    assert checked(100, 20) == [1]


@pytest.mark.parametrize("count", [1, 31, 32])
def test_a_small_chunk_is_checked_whole(count):
    assert len(range(count)[Schedule().select_part(count)]) == count


@pytest.mark.parametrize("count", [33, 47, 48, 100, 1023, 1024])
def test_of_a_large_chunk_some_samples_from_all_over_it_are_checked(count):
    found = range(count)[Schedule().select_part(count)]
    assert 16 <= len(found) <= 32
    assert found[-1] >= count * 15 // 16
