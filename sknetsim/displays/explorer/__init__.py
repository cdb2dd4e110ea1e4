"""Web page to explore samples: neighbours, density, label quality and influence."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ._measures import compute_measures
from ._page import render_page
from ._samples import describe_samples

__all__ = ["explore"]


def explore(
    estimator: Any,
    X: Any,
    y: Any = None,
    path: Any = "explorer.html",
    *,
    samples: Any = None,
    image_shape: Sequence[int] | None = None,
    predictions: Any = None,
    n_neighbors: int = 8,
    alpha: float = 16.0,
    title: str = "Similarity explorer",
    **settings: Any,
) -> Path:
    r"""Write a web page that shows each sample with its neighbours, density and label quality.

    The page is a single file that opens from disk in any browser, without a server and without
    loading anything from the network. For each sample it shows the most similar samples, with the
    contribution of each layer to the similarity (`NetworkKernel.contributions`), and

    - the log density (`NetworkDensity` by :math:`\max(k^C, 0)^\alpha`) in nats: 0 is the value of
      samples spread evenly over the sphere, and unusual samples have low values;
    - the reliability of the prediction (`NetworkDensity.reliability`), as a number of samples: if
      it is near 0, hardly any sample of X supports the prediction;
    - the quality of the label (`LabelDenoiser.label_quality`), in [0, 1]: suspicious labels have
      low values;
    - with labels, the most helpful and the most harmful of the other samples
      (`TrainingInfluence.top`): those with the largest influence on the margin of the predicted
      label, or on the loss if labels are numbers.

    Samples can be filtered by label, and sorted by density, reliability and quality. For n samples,
    neighbours, density and label quality each need all n^2 similarities, and the contributions need
    n times ``n_neighbors`` comparisons by layer. For thousands of samples, ``n_components=256``
    features give nearly the same page in a fraction of the time.

    The influence is that of training samples: it is computed as if the network had been trained on
    X and y. It is exact to first order for up to 2,000 combinations of samples and outputs (of ten
    classes, 222 samples). For more samples, it is computed with landmarks, 64 for ten classes, so
    that it needs a time linear in n; the page gives their number. If samples and outputs are too
    many, if the criterion has no loss of single samples or no curvature, or if the order of the
    classes in the network is unknown, the page has the reason in place of the influence.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None
        The network; see `NetworkKernel`. An untrained network is trained on X and y.
    X : array-like of shape (n_samples, ...), table, list of texts or images, dict or Dataset
        Inputs of the network, or of the steps of a Pipeline before it; some thousands of samples
        are practical.
    y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
        Labels. None: the page has no labels, predictions or label quality. For a network trained on
        numbers of classes, names of classes are shown without its predictions, because the order
        of the names in the network is unknown. With ``output="loss"``, they are the labels at which
        the losses are compared, but the quality of labels compares the losses at the predicted
        labels.
    path : str or Path, default="explorer.html"
        File of the page.
    samples : array-like of shape (n_samples, ...), DataFrame or list of str, default=None
        Appearance of each sample on the page: images, rows of a table, or texts, in any form that X
        may have. None: X itself, before the steps of a Pipeline.
    image_shape : tuple of int, default=None
        Shape of a sample as an image, (height, width), (channels, height, width) or (height, width,
        channels). None: its own shape, and samples with one axis are rows of a table.
    predictions : array-like of shape (n_samples,), default=None
        Predictions that are shown. None: those of the network, if there are labels.
    n_neighbors : int, default=8
        Number of neighbours, of helpful and of harmful samples.
    alpha : float > 0, default=16.0
        Exponent of the similarities in the density and the label quality.
    title : str, default="Similarity explorer"
        Heading of the page.
    **settings : object
        Common parameters of the estimators, such as ``output``, ``n_components``, ``input_shape``,
        ``n_jobs`` and ``verbose``.

    Returns
    -------
    path : Path
        File of the page.

    Raises
    ------
    TypeError
        If the path or the title has another type.
    ValueError
        If there is not one label, prediction and appearance per sample, if the samples cannot be
        shown, or if the path is not a file in an existing folder.

    See Also
    --------
    sknetsim.displays : Plots of the same results for papers and notebooks.

    Notes
    -----
    A row of a table is shown with the names and values of its columns, and with its index if that
    is not its position. Missing values are shown as "missing". Of more than 24 columns, the first
    ones and the last one are shown; to choose others, pass them as ``samples``. Of a sparse matrix
    with more than 24 columns, the non-zero entries of each row are shown. A sample that consists of
    several arrays, such as an item of a Dataset that is a dict, has a column for each of them. If
    one of them is an image, the image is shown with the other columns below it.

    The longer side of an image is at most 96 pixels; images of different sizes are enlarged to one
    size, with light grey margins. Images may be arrays or images of Pillow. A text has up to 2,000
    characters on the page. Labels and texts are shown literally: they cannot add markup or scripts
    to the page.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sknetsim import explore
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> X, y = torch.randn(30, 2), ["a", "b"] * 15
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = explore(network, X, y, Path(folder.name) / "explorer.html")
    >>> path.name
    'explorer.html'
    >>> folder.cleanup()
    """
    target = _check_path(path)
    if not isinstance(title, str):
        raise TypeError(f"`title` must be a str; got {title!r}. Pass the heading of the page.")
    appearance = describe_samples(samples, image_shape, X)
    measures = compute_measures(
        estimator, X, y, predictions=predictions, n_neighbors=n_neighbors, alpha=alpha, **settings
    )
    _write_atomically(target, render_page(title, appearance, measures))
    return target


def _check_path(path: Any) -> Path:
    """Return the path of the page; raise before anything is computed if it cannot be written."""
    if not isinstance(path, str | PathLike):
        raise TypeError(f"`path` must be a str or a Path; got {path!r}. Pass the file of the page.")
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(
            f"`path` must be a file in an existing folder; got {str(path)!r}. Create the folder, or"
            " pass another file."
        )
    return target


def _write_atomically(target: Path, text: str) -> None:
    """Write a file completely or not at all: an earlier page is replaced only at the end."""
    partial = target.with_name(f"{target.name}.part")
    try:
        partial.write_bytes(text.encode("utf-8", errors="replace"))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
