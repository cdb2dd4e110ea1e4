"""Which chunks are checked; that checks find what is wrong is tested with the engine."""

from sknetsim._selfcheck import Schedule


def passed(step, samples):
    """Sizes of the chunks of a pass over samples, and the numbers of those that are checked."""
    schedule, sizes, checked = Schedule(), [], []
    while samples:
        size = schedule.size(step, samples)
        samples -= size
        schedule.last = samples == 0
        sizes.append(size)
        if schedule.due(size):
            checked.append(len(sizes))
            schedule.record(size, set())
    return sizes, checked


def test_large_chunks_are_cut_short_where_they_are_checked():
    sizes, checked = passed(100, 1000)
    assert sizes == [32, 100, 100, 100, 100, 100, 100, 32, 100, 100, 100, 4, 32]
    assert checked == [1, 8, 13]


def test_small_chunks_are_checked_more_often():
    sizes, checked = passed(10, 200)
    assert sizes == [10] * 20
    assert checked == [1, 2, 4, 8, 16, 20]


def test_single_samples_are_all_checked():
    assert passed(1, 5) == ([1] * 5, [1, 2, 3, 4, 5])


def test_a_pass_of_one_chunk_is_checked():
    assert passed(100, 20) == ([20], [1])
