"""Web page to explore samples: neighbours, density, label quality and contributions."""

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
    title: str = "What the network finds similar",
    **settings: Any,
) -> Path:
    r"""Write a page on which samples can be clicked: their neighbours, density, and why.

    The page is one file that opens from disk in any browser: no server, no outside address. It
    shows, for each sample, its most similar ones with what each layer adds to their similarity
    (`NetworkKernel.contributions`), and

    - its log density (`NetworkDensity` by :math:`\max(k^C, 0)^\alpha`), in nats: 0 is as dense as
      samples spread evenly over the sphere, low is unusual;
    - the reliability of its prediction (`NetworkDensity.reliability`), in samples;
    - the quality of its label (`LabelDenoiser.label_quality`), in [0, 1]: low is suspicious.

    Samples can be filtered by their label, and put in order by any of these. A page of n samples
    takes all n^2 similarities for neighbours, density and labels each, and n times ``n_neighbors``
    comparisons layer by layer; for thousands, ``n_components=256`` features find the same in a
    fraction of the time.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None
        The network, see `NetworkKernel`; one that is not trained yet is trained on X and y.
    X : array-like of shape (n_samples, ...)
        What the network takes: some thousands of rows.
    y : array-like of shape (n_samples,), default=None
        Labels; None: nothing is said of labels.
    path : str or Path, default="explorer.html"
        Where the page is written.
    samples : array-like of shape (n_samples, ...), DataFrame or list of str, default=None
        What a person sees of each sample, in place of X: images, rows of a table, or texts.
    image_shape : tuple of int, default=None
        Shape of a row as an image, (height, width), (channels, height, width) or (height, width,
        channels); None: the one that it has, and rows of one axis are those of a table.
    predictions : array-like of shape (n_samples,), default=None
        What the network says of each sample; None: asked of it where there are labels.
    n_neighbors : int, default=8
        Number of neighbours.
    alpha : float > 0, default=16.0
        The exponent with which similarities count for the density and the quality of labels.
    title : str, default="What the network finds similar"
        The page's heading.
    **settings : object
        Parameters that all estimators have, such as ``output``, ``n_components``, ``input_shape``,
        ``n_jobs`` and ``verbose``.

    Returns
    -------
    path : Path
        Where the page is.

    Raises
    ------
    ValueError
        If labels, predictions or samples are not as many as the rows of X, or not what can be
        shown, or the path is no file in a folder that exists.

    See Also
    --------
    sknetsim.displays : Pictures of the same for papers and notebooks.

    Notes
    -----
    Images are shown at up to 96 pixels a side. All words are shown as they are: neither a label nor
    a text can put anything else into the page.

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
    target = _checked_path(path)
    if not isinstance(title, str):
        raise TypeError(f"title is {title!r}; allowed is a str: say what the page shows.")
    appearance = describe_samples(samples, image_shape, X)
    found = compute_measures(
        estimator, X, y, predictions=predictions, n_neighbors=n_neighbors, alpha=alpha, **settings
    )
    _write(target, render_page(title, appearance, found))
    return target


def _checked_path(path: Any) -> Path:
    """Looked at before the work is done."""
    if not isinstance(path, str | PathLike):
        raise TypeError(
            f"path is {path!r}; allowed is a str or a Path: say where the page is written."
        )
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(
            f"path is {str(path)!r}; allowed is a file in a folder that exists: make the folder, or"
            " name a file in one."
        )
    return target


def _write(target: Path, text: str) -> None:
    """Whole or not at all: an earlier page stays until then."""
    partial = target.with_name(f"{target.name}.part")
    try:
        partial.write_bytes(text.encode("utf-8", errors="replace"))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
