"""Similarity of samples as a kernel for kernel machines, Gaussian processes and pipelines."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from .._kernels.whitening import METRICS, influence_kernel, reduce_kernel
from .._passes.chunks import Chunk
from .._passes.contribution_pass import ROLES_OF_FEATURES, compute_contributions, find_roles
from ._base import StrOptions
from ._base_kernel import BaseKernel
from .contributions import Contributions


class NetworkKernel(BaseKernel):
    r"""Similarity :math:`k^C` of samples to a trained network, as a scikit-learn kernel.

    .. math:: k^C(x, x') = \frac{1}{d} \operatorname{tr}
        \left( K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2} \right),
        \qquad K(x, x') = J(x) J(x')^T,

    where J(x) is the Jacobian of the d outputs of the network with respect to its parameters [1]_.

    A similarity of 1 means that a training step on x changes the outputs at x' as it changes those
    at x, up to the ratio of the lengths of their gradients. 0 means that it does not change them,
    and a negative similarity that it changes them in the opposite direction.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network. A trained network is used unchanged, and `clone` shares it. A clone of an
        untrained skorch net is trained in `fit`. "features": the rows of X are gradient features,
        and no network is used. None: `fit` trains a small perceptron. A net that is initialised,
        but was not trained for any epoch, is used with an `UntrainedNetworkWarning`, except in a
        FrozenEstimator. Searches over ``estimator`` must list FrozenEstimator(net), because
        scikit-learn's clone of a trained net is untrained.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared. "all": all outputs; "predicted": the largest
        output of each sample; "sum": the sum of all outputs; "loss": the value of the criterion
        of a skorch net, for the fitted samples at the labels that `fit` gets, and for queries at
        those that the method gets. Without labels, as in a Pipeline, it is the value at the
        predicted label, which only classifiers have. Integers select outputs by their index, each
        at most once. A callable computes the outputs from the raw output of the network.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (:math:`k^C`, in [-1, 1]) or the Jacobians
        themselves (:math:`\operatorname{tr} K(x, x') / d`).
    metric : {"trace", "rotation", "orthogonal"}, default="trace"
        How the d x d kernel becomes one number, which is always divided by d. "trace": its trace.
        "rotation" or "orthogonal": its largest trace after any rotation, or any orthogonal map, of
        the outputs. This is the sum of its singular values; for "rotation", the smallest counts
        negative if the determinant is negative. "rotation" and "orthogonal" are not positive
        semi-definite in general.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated. None: all trainable parameters;
        "last_layer": those of the last layer; other strings: parameters by their names, or by
        patterns such as "head.*"; a Module: those of this part of the network.
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
    GradientFeaturizer : Features whose inner products are the kernel.

    Notes
    -----
    If a self-kernel K(x, x) has a rank r below d, as with softmax outputs, its inverse root is a
    pseudo-inverse, in which eigenvalues below ``10 d eps`` times the largest count as 0, and d is
    replaced by :math:`\sqrt{r r'}`. So the similarity ignores an output whose gradient is that much
    shorter than others, unless the network is float64; `DroppedOutputsWarning` reports it. A sample
    with a zero gradient has similarity 0 with every sample; `ZeroGradientWarning` reports the
    number of these samples.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import NetworkKernel
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
    >>> NetworkKernel(network)(X).shape
    (3, 3)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseKernel._parameter_constraints,
        "metric": [StrOptions(set(METRICS))],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        normalize: bool = True,
        metric: str = "trace",
        parameters: Any = None,
        batch_size: int | None = None,
        device: Any = None,
        input_shape: tuple[int, ...] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.output = output
        self.normalize = normalize
        self.metric = metric
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _similarity_whitening(self) -> str:
        return self._choose_whitening("unit" if self.metric == "trace" else "half")

    def _similarity(self, rows: Chunk, columns: Chunk) -> Tensor:
        if self.metric == "trace":
            return super()._similarity(rows, columns)
        # metric(K^C(x, x') / sqrt(r(x) r(x'))), with K^C of shape (n, m, d, d)
        divisors = [self._divisors(chunk) for chunk in (rows, columns)]
        kernels = rows.jacobian.gram(columns.jacobian)
        similarities = reduce_kernel(kernels, self.metric, *divisors)
        return similarities.clamp_(-1, 1) if self.normalize else similarities

    def _divisors(self, chunk: Chunk) -> Tensor:
        """Return the divisor of each self-kernel: its rank r if ``normalize``, else d."""
        outputs = chunk.jacobian.outputs.shape[1]
        return chunk.rank if self.normalize else chunk.rank.new_full(chunk.rank.shape, outputs)

    def matrix(self, X: Any, Y: Any = None, *, y_X: Any = None, y_Y: Any = None) -> np.ndarray:
        r"""Compute the d x d kernels of all pairs of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            The samples.
        Y : array-like of shape (n_samples_Y, ...), default=None
            The other samples. None: those of X.
        y_X, y_Y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels of X and of Y, only with ``output="loss"``. None: the predicted ones. Without Y,
            both sets have the labels of X.

        Returns
        -------
        kernels : ndarray of shape (n_samples_X, n_samples_Y, d, d), float64
            :math:`K^C(x,x') = K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2}` if ``normalize``, else
            K(x, x'). Entry [i, j, o, p] compares output o at X[i] with output p at Y[j].
        """
        # K^C(x, x') = (K(x,x)^{-1/2} J(x)) (K(x',x')^{-1/2} J(x'))^T
        whitening = self._choose_whitening("half")
        return self._compute_pairs(
            self._make_source(),
            *self._make_pair(X, Y, y_X, y_Y),
            (whitening, whitening),
            lambda rows, columns: rows.jacobian.gram(columns.jacobian),
        )

    def influence(self, X: Any, Y: Any = None, *, y_X: Any = None, y_Y: Any = None) -> np.ndarray:
        r"""Compute the change of the outputs at Y if a training step changes those at X by 1.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            The samples on which the step is taken.
        Y : array-like of shape (n_samples_Y, ...), default=None
            The samples at which the change is computed. None: those of X.
        y_X, y_Y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels of X and of Y, only with ``output="loss"``. None: the predicted ones. Without Y,
            both sets have the labels of X.

        Returns
        -------
        influence : ndarray of shape (n_samples_X, n_samples_Y), float64
            The influence :math:`k^N(x \to x') = K(x',x) K(x,x)^{-1}`, which is neither symmetric
            nor bounded. For d > 1 outputs its shape is (n_samples_X, n_samples_Y, d, d), and entry
            [i, j, o, p] is the change of output o at Y[j] if output p at X[i] changes by 1.
        """
        influences = self._compute_pairs(
            self._make_source(),
            *self._make_pair(X, Y, y_X, y_Y),
            # k^N(x -> x') = K(x',x) K(x,x)^{-1} follows from K(x,x)^{-1/2} K(x,x'), in which X is
            # whitened and Y is not, and from K(x,x)^{-1/2}.
            ("half", "none"),
            _compute_influence,
        )
        return influences[:, :, 0, 0] if influences.shape[2] == 1 else influences

    def contributions(
        self, X: Any, Y: Any, *, positions: Any = None, y_X: Any = None, y_Y: Any = None
    ) -> Contributions:
        """Split the similarity of pairs of samples into contributions of parts of the network.

        Parameters
        ----------
        X : array-like of shape (n_pairs, ...)
            The first sample of each pair.
        Y : array-like of shape (n_pairs, ...)
            The second sample of each pair.
        positions : None, str or list of str, default=None
            Names of layers, or patterns such as "features.*", for which pairs of positions (in an
            image or a sequence) are compared. None: no layer. The memory is
            n_pairs x n_positions x n_positions numbers per layer.
        y_X, y_Y : array-like of shape (n_pairs,) or (n_pairs, n_outputs), default=None
            Labels of X and of Y, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        contributions : Contributions
            The contributions of layers, of parameters, of activations, and of pairs of positions.
            Those of all layers, parameters or activations sum to the similarity of X[i] and Y[i].
            With ``output="predicted"`` the last layer contributes 0 to a pair with different
            predictions, because these depend on different weights of it.

        Raises
        ------
        ValueError
            If X and Y have different numbers of samples, if ``positions`` does not match layers
            that apply a weight at several positions, or if ``metric`` is not "trace".
        """
        if self.metric != "trace":
            raise ValueError(
                "`metric` must be 'trace' for contributions, because the other metrics are not sums"
                f" over parameters; got {self.metric!r}. Set metric='trace'."
            )
        first, second = self._make_pair(X, Y, y_X, y_Y)
        pairs = first, first if second is None else second
        if len(pairs[0]) != len(pairs[1]):
            raise ValueError(
                f"`Y` must have as many samples as `X`, {len(pairs[0])}, because sample i of one is"
                f" paired with sample i of the other; got {len(pairs[1])}. Pass the same number of"
                " samples."
            )
        source, network = self._make_source(), self._resolve_network()
        roles = ROLES_OF_FEATURES if isinstance(network, str) else find_roles(network.module)
        whitening = self._similarity_whitening()
        return Contributions(
            *compute_contributions(source, roles, pairs, whitening, positions, self.verbose)
        )

    def _own_similarity(self, chunk: Chunk) -> np.ndarray:
        if self.metric == "trace":
            return super()._own_similarity(chunk)
        values = METRICS[self.metric](chunk.own_kernel()[:, None])[:, 0]
        # A sample with a zero gradient has rank 0, and similarity 0 with itself.
        return (values / self._divisors(chunk).clamp(min=1)).cpu().numpy()


def _compute_influence(rows: Chunk, columns: Chunk) -> Tensor:
    """Return k^N of two tiles with the whitenings "half" and "none", of shape (n, m, p, a)."""
    assert rows.root is not None
    return influence_kernel(rows.jacobian.gram(columns.jacobian), rows.root)
