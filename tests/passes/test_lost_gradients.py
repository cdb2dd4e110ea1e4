"""Zero gradients and dropped outputs: one warning for each pass, or one for all of a block."""

import warnings

import pytest

from sknetsim._passes.lost_gradients import (
    LostGradients,
    collect_lost_gradients,
    report_lost_gradients,
)
from sknetsim.exceptions import DroppedOutputsWarning, ZeroGradientWarning


def test_the_warning_says_how_many_samples_have_which_zero_vector():
    message = r"2 of 5 samples have a zero gradient: .* is 0\. Check the network"
    with pytest.warns(ZeroGradientWarning, match=message):
        report_lost_gradients(LostGradients(2, 5, "gradient"))


def test_the_warning_says_at_how_many_samples_how_many_outputs_are_dropped():
    message = r"2 of 5 samples have dropped outputs, up to 3 of 6: .* ignores .*\.double\(\)"
    with pytest.warns(DroppedOutputsWarning, match=message) as caught:
        report_lost_gradients(LostGradients(0, 5, "gradient", 2, 3, 6))
    assert len(caught) == 1


def test_no_warning_is_given_without_a_zero_gradient():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report_lost_gradients(LostGradients(0, 5, "gradient", outputs=6))


def test_numbers_of_several_passes_are_added():
    total = LostGradients()
    total.add(LostGradients(1, 3, "gradient"))
    total.add(LostGradients(0, 4))
    assert total == LostGradients(1, 7, "gradient")
    total.add(LostGradients(0, 3, "gradient", 2, 1, 6))
    total.add(LostGradients(0, 2, "gradient", 1, 4, 6))
    assert total == LostGradients(1, 12, "gradient", 3, 4, 6)


def test_passes_inside_the_block_are_collected_in_place_of_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with collect_lost_gradients() as collected:
            report_lost_gradients(LostGradients(1, 3, "gradient"))
            report_lost_gradients(LostGradients(2, 4, "gradient"))
    assert collected == LostGradients(3, 7, "gradient")


def test_a_block_inside_another_one_keeps_its_own_numbers():
    with collect_lost_gradients() as outer:
        with collect_lost_gradients() as inner:
            report_lost_gradients(LostGradients(1, 3, "gradient"))
        report_lost_gradients(LostGradients(2, 4, "gradient"))
    assert (inner.zeros, outer.zeros) == (1, 2)


def test_warnings_return_after_an_error_inside_the_block():
    with pytest.raises(KeyError), collect_lost_gradients():
        raise KeyError
    with pytest.warns(ZeroGradientWarning):
        report_lost_gradients(LostGradients(1, 3, "gradient"))
