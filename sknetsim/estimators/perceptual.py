"""The perceptual similarity as a kernel: activities compared directly, without gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from .._gradients.activations import ActivationEngine
from .._networks.network import FEATURES, resolve_network
from .._passes.chunks import Source
from ._base_kernel import BaseKernel


class PerceptualKernel(BaseKernel):
    r"""Similarity of what a trained network's layers take in, as perceptual losses compare it.

    With :math:`a_l(x)` what layer l takes in at x, flattened, :math:`n_l` numbers,

    .. math:: k(x, x') = \sum_l \frac{1}{n_l} \, a_l(x) \cdot a_l(x'),

    and where normalised, :math:`k(x, x') / \sqrt{k(x, x) \, k(x', x')}`. This is the similarity of
    `NetworkKernel`, :math:`\sum_i \lambda_i(x, x') \, a_i(x) \, a_i(x')`, with a weight
    :math:`\lambda_i` that is constant in each layer: all activities count alike, also those that no
    output depends on, and each position is compared with the same position only [1]_. It is a
    baseline.

    1 says that all activities of x' are those of x times one positive number; 0 that they have
    nothing in common; a negative value that they point the other way. After ReLUs no value is
    negative.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module or None, default=None
        The network. A trained one is used as it is and kept by `clone`, also where its parameters
        are frozen; an untrained skorch net is trained in `fit`; None trains a small perceptron in
        `fit`. Rows of features have no layers: `NetworkKernel` compares these.
    layers : None, str or list of str, default=None
        The layers whose inputs are compared: names of modules, or patterns such as "features.*";
        None: all with parameters of their own, but for the first and others that see the network's
        own input, unless there is no other. Only layers that take in floating-point numbers are
        compared: not embeddings, but what follows them.
    normalize : bool, default=True
        Whether to divide by the lengths of the activities, so that values are in [-1, 1].
    batch_size : int or None, default=None
        Samples per pass; None derives it from scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Where to compute; None stays where the network is.
    input_shape : tuple of int or None, default=None
        Shape that the network takes a flat row of X in, such as (1, 28, 28); None: as it is.
    n_jobs : int or None, default=None
        Workers that share passes over the rows; None: one, or as ``joblib.parallel_config`` says.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the perceptron of ``estimator=None``.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        The network's class, size and digest, and the versions of this and other packages.
    X_fit_ : array-like of shape (n_samples, ...)
        The rows that `transform` compares with.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    NetworkKernel : The similarity by gradients, which weighs activities by what depends on them.

    Notes
    -----
    Products are computed in the network's dtype and summed in float64. A layer that is called
    several times counts with all of its calls, one after the other. A layer whose first axis is not
    the samples' is evaluated one sample at a time. Rows must have one shape. A row at which all
    these activities are 0 has similarity 0 with every row; a warning counts such rows.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and
       Super-Resolution", ECCV 2016.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import PerceptualKernel
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
    >>> PerceptualKernel(network)(X).shape
    (3, 3)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        name: allowed
        for name, allowed in (
            BaseKernel._parameter_constraints | {"layers": "no_validation"}
        ).items()
        if name not in ("output", "parameters")
    }

    def __init__(
        self,
        estimator: Any = None,
        layers: Any = None,
        *,
        normalize: bool = True,
        batch_size: int | None = None,
        device: Any = None,
        input_shape: tuple[int, ...] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.layers = layers
        self.normalize = normalize
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _make_engine(self, estimator: Any) -> Source:
        if isinstance(estimator, str) and estimator == FEATURES:
            raise ValueError(
                f"estimator is {FEATURES!r}, whose rows have no layers; allowed are networks and"
                f" None: compare features by NetworkKernel({FEATURES!r})."
            )
        network = resolve_network(estimator).with_input_shape(self.input_shape)
        return ActivationEngine(network, self.layers, self.batch_size, self.device)
