"""The similarity as a kernel: for kernel machines, Gaussian processes and pipelines."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .._kernels.whitening import METRICS, influence_kernel, reduce_kernel
from .._networks.samples import Samples
from .._passes.chunks import Chunk
from .._passes.contribution_pass import ROLES_OF_FEATURES, compute_contributions, find_roles
from ._base import StrOptions
from ._base_kernel import BaseKernel
from .contributions import Contributions


class NetworkKernel(BaseKernel):
    r"""Similarity of inputs as a trained network sees them.

    With J(x) the Jacobian of the network's d outputs in its parameters and
    :math:`K(x, x') = J(x) J(x')^T`,

    .. math:: k^C(x, x') = \frac{1}{d} \operatorname{tr}
        \left( K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2} \right).

    1 says that a training step on x moves the outputs at x' as it moves those at x, up to the ratio
    of their gradients' lengths; 0 that it leaves them alone; a negative value that it moves them
    the other way.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network. A trained one is used as it is and kept by `clone`; an untrained skorch net is
        trained in `fit`; "features" takes the rows of X as gradient features; None trains a small
        perceptron in `fit`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared: all, the largest, their sum, some, the criterion's value at the
        label (predicted, or y), or what a callable makes of the network's raw output.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C, in [-1, 1]) or Jacobians as they are.
    metric : {"trace", "rotation", "orthogonal"}, default="trace"
        What the d x d kernel is reduced to: its trace, or the largest trace that a rotation, or an
        orthogonal map, of the outputs gives it (sums of singular values, the smallest counted
        negative for rotations where the determinant is); always divided by d. "rotation" and
        "orthogonal" are not positive semi-definite in general.
    parameters : None, str, list of str or Module, default=None
        The parameters differentiated: all trainable ones, "last_layer", names or patterns such as
        "head.*", or a part of the network.
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
    GradientFeaturizer : Features whose product is the kernel.

    Notes
    -----
    Where a self-kernel K(x, x) has a rank r below d (softmax outputs), its root is a
    pseudo-inverse, with eigenvalues below ``10 d eps`` of the largest counted as 0, and d is
    replaced by sqrt(r r'). A sample with a zero gradient has similarity 0 with every sample; a
    warning counts such samples.

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
        return self._whitening("unit" if self.metric == "trace" else "half")

    def _similarity(self, rows: Chunk, columns: Chunk) -> Tensor:
        """Of whitened chunks: their products, or what the metric makes of d x d kernels."""
        if self.metric == "trace":
            return super()._similarity(rows, columns)
        ranks = [self._rank(chunk) for chunk in (rows, columns)]
        kernel = rows.jacobian.gram(columns.jacobian)
        found = reduce_kernel(kernel, self.metric, *ranks)
        return found.clamp_(-1, 1) if self.normalize else found

    def _rank(self, chunk: Chunk) -> Tensor:
        """What a kernel is divided by: the number of outputs, of those that are left."""
        outputs = chunk.jacobian.outputs.shape[1]
        return chunk.rank if self.normalize else chunk.rank.new_full(chunk.rank.shape, outputs)

    def matrix(self, X: Any, Y: Any = None) -> np.ndarray:
        r"""The d x d kernels of all pairs.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            The rows.
        Y : array-like of shape (n_samples_Y, ...), default=None
            The other rows; None: those of X.

        Returns
        -------
        kernels : ndarray of shape (n_samples_X, n_samples_Y, d, d), float64
            :math:`K^C(x,x') = K(x,x)^{-1/2} K(x,x') K(x',x')^{-1/2}`, or K(x, x') where not
            normalised; [i, j, o, p] compares output o at X[i] with output p at Y[j].
        """
        whitening = self._whitening("half")
        return self._assembled(
            self._make_source(),
            X,
            Y,
            (whitening, whitening),
            lambda rows, columns: rows.jacobian.gram(columns.jacobian),
        )

    def influence(self, X: Any, Y: Any = None) -> np.ndarray:
        r"""How far the outputs at Y move when a training step moves those at X by one.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            The rows that are pushed.
        Y : array-like of shape (n_samples_Y, ...), default=None
            The rows that follow; None: those of X.

        Returns
        -------
        influence : ndarray of shape (n_samples_X, n_samples_Y), float64
            :math:`k^N(x \to x') = K(x',x) K(x,x)^{-1}`, not symmetric and not bounded; of shape
            (n_samples_X, n_samples_Y, d, d) for d > 1 outputs, entry [i, j, o, p] the move of
            output o at Y[j] when output p at X[i] moves by one.
        """
        found = self._assembled(
            self._make_source(),
            X,
            Y,
            ("half", "none"),
            lambda rows, columns: influence_kernel(rows.jacobian.gram(columns.jacobian), rows.root),
        )
        return found[:, :, 0, 0] if found.shape[2] == 1 else found

    def contributions(self, X: Any, Y: Any, *, positions: Any = None) -> Contributions:
        """Take the similarity of pairs of rows apart, to see where it comes from.

        Parameters
        ----------
        X : array-like of shape (n_pairs, ...)
            The first row of each pair.
        Y : array-like of shape (n_pairs, ...)
            The second row of each pair.
        positions : None, str or list of str, default=None
            Names of layers, or patterns such as "features.*", whose positions are compared pair by
            pair (those of a convolution's image, or of a sequence); None: of no layer. They take
            n_pairs x n_positions x n_positions numbers.

        Returns
        -------
        contributions : Contributions
            What layers, parameters, activities and pairs of positions add. Each of these sums to
            the similarity of X[i] and Y[i] that the kernel gives. With output="predicted" the last
            layer adds 0 to pairs with different predictions: its weights are different ones.

        Raises
        ------
        ValueError
            If X and Y have different numbers of rows, `positions` names something else than layers
            that use their weight on activities, or the metric is not a sum over parameters.
        """
        if self.metric != "trace":
            raise ValueError(
                f"metric is {self.metric!r}, which is no sum over parameters; allowed for"
                " contributions is 'trace': set metric='trace'."
            )
        pairs = Samples.of(X), Samples.of(Y)
        if len(pairs[0]) != len(pairs[1]):
            raise ValueError(
                f"Y must have as many rows as X, {len(pairs[0])}, because row i of X is paired with"
                f" row i of Y; got {len(pairs[1])}. Repeat rows, or leave some out."
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
        kernel = chunk.own_kernel()
        values = METRICS[self.metric](kernel[:, None])[:, 0]
        ranks = chunk.rank if self.normalize else kernel.shape[1]
        return (values / torch.as_tensor(ranks).clamp(min=1)).cpu().numpy()
