"""Display of learning curves: means, bands, legend and errors."""

import numpy as np
import pytest

from sknetsim import ActiveLearningCurve, ActiveLearningSampler
from sknetsim.displays import LearningCurveDisplay


def make_curve(scores):
    rounds = len(scores[0])
    return ActiveLearningCurve(
        n_labelled=10 * np.arange(1, rounds + 1),
        scores=np.array(scores),
        query_times=np.zeros((len(scores), rounds - 1)),
        indices=np.zeros((len(scores), 10 * rounds), dtype=int),
        seeds=tuple(range(len(scores))),
    )


def test_curves_are_means_with_bands_of_one_standard_deviation():
    curves = {"first": make_curve([[1.0, 2], [3, 4]]), "second": make_curve([[1.0, 2], [3, 6]])}
    display = LearningCurveDisplay.from_predictions(curves)
    assert [line.get_ydata().tolist() for line in display.ax_.lines] == [[2, 3], [2, 4]]
    assert [line.get_xdata().tolist() for line in display.ax_.lines] == [[10, 20]] * 2
    band = display.ax_.collections[0].get_paths()[0].vertices
    assert set(band[:, 1]) == {1, 2, 3, 4}
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["first", "second"]


def test_many_curves_differ_in_colour_or_marker():
    display = LearningCurveDisplay.from_predictions(
        {str(n): make_curve([[1.0, n]]) for n in range(20)}
    )
    assert len({(line.get_color(), line.get_marker()) for line in display.ax_.lines}) == 20


@pytest.mark.parametrize("curves", [{}, [1], {"random": 1.0}], ids=["none", "list", "number"])
def test_bad_curves_raise_an_error(curves):
    with pytest.raises(
        TypeError, match=r"`curves` must (be a dict|contain ActiveLearningCurve objects)"
    ):
        LearningCurveDisplay(curves)


def test_samplers_without_names_raise_an_error():
    with pytest.raises(TypeError, match=r"`samplers` must be a dict .* got ActiveLearningSampler"):
        LearningCurveDisplay.from_estimator(None, ActiveLearningSampler(), [[0.0]], [0.0])


def test_names_in_the_legend_are_not_parsed_as_formulas():
    display = LearningCurveDisplay.from_predictions({"$a": make_curve([[1.0, 2]])})
    (first,) = display.ax_.get_legend().get_texts()
    assert first.get_text() == "$a" and not first.get_parse_math()
