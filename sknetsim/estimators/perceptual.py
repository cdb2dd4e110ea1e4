"""Perceptual similarity as a kernel: activations are compared, without gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from .._gradients.activations import ActivationEngine
from .._networks.network import FEATURES, resolve_network
from .._passes.chunks import Source
from ._base_kernel import BaseKernel


class PerceptualKernel(BaseKernel):
    r"""Perceptual similarity of samples, from inner products of their activations [2]_.

    .. math:: k(x, x') = \sum_l \frac{1}{n_l} \, a_l(x) \cdot a_l(x'),

    where :math:`a_l(x)` are the :math:`n_l` activations that layer l takes in at x, flattened. If
    ``normalize``, the similarity is :math:`k(x, x') / \sqrt{k(x, x) \, k(x', x')}`.

    The similarity of `NetworkKernel` is
    :math:`\sum_i \lambda_i(x, x') \, a_i(x) \, a_i(x')`, where :math:`\lambda_i` weights activation
    i by the outputs that depend on it. Here the weight is constant in each layer: all activations
    count the same, even those that do not affect any output, and a position is compared only with
    the same position [1]_. This kernel is a baseline.

    A similarity of 1 means that the activations at x' are those at x times one positive number. 0
    means that they are orthogonal, and a negative similarity that they point in opposite
    directions. Activations after ReLUs give no negative similarity.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module or None, default=None
        The network. A trained network is used unchanged, and `clone` shares it; its parameters may
        be frozen. A clone of an untrained skorch net is trained in `fit`. None: `fit` trains a
        small perceptron. Features have no layers; `NetworkKernel` compares them.
    layers : None, str or list of str, default=None
        The layers whose inputs are compared, by names of modules or patterns such as "features.*".
        None: all layers with parameters of their own, except the first one and those that take the
        input of the network, unless there are no others. Only layers with floating-point inputs are
        compared: not embeddings, but the layers after them.
    normalize : bool, default=True
        Whether to divide by the lengths of the activations, so that similarities are in [-1, 1].
    batch_size : int or None, default=None
        Number of samples per pass. None chooses it to fit scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Device to compute on. None uses the device of the network.
    input_shape : tuple of int or None, default=None
        Shape that each sample gets before it enters the network, such as (1, 28, 28) for flat
        images. None leaves samples unchanged.
    n_jobs : int or None, default=None
        Number of workers that share the passes over the samples. None: 1, or the number set by
        ``joblib.parallel_config``.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the perceptron that ``estimator=None`` trains.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        Class, size and digest of the network, and the versions of sknetsim and other packages.
    X_fit_ : array-like of shape (n_samples, ...)
        The fitted samples, with which `transform` compares queries.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    NetworkKernel : Similarity by gradients, which weights activations by their effect on outputs.

    Notes
    -----
    Inner products are computed in the dtype of the network and summed in float64. If a layer is
    called several times, the activations of all calls are concatenated. If the first axis of a
    layer's input is not that of the samples, samples are evaluated one at a time. All samples must
    have the same shape. A sample at which all compared activations are 0 has similarity 0 with
    every sample; a warning reports the number of these samples.

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
                f"`estimator` must be a network or None, because features have no layers; got"
                f" {FEATURES!r}. Use NetworkKernel({FEATURES!r}) to compare features."
            )
        network = resolve_network(estimator).with_input_shape(self.input_shape)
        return ActivationEngine(network, self.layers, self.batch_size, self.device)
