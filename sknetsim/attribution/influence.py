"""Influence of fitted samples on a network's margins and losses."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_consistent_length, check_random_state
from torch import Tensor

from .._curvature.fitting import CURVATURES, check_curvature, fit_ridge
from .._curvature.sources import CombinationEngine, PreconditionedEngine
from .._gradients.predictions import predict_outputs
from .._networks.network import resolve_network
from .._networks.samples import Samples
from .._passes.chunks import Chunk, Source, iterate_chunks, with_progress
from .._passes.reductions import compute_pair_matrix, reduce_pairs
from .._passes.sums import kernel_sums, sum_jacobians
from ..estimators._base import Interval, StrOptions, check_is_fitted, fit_context
from ..estimators._base_reference import BaseLabelledReference
from ..labels._label_arrays import check_labels
from ..labels._problems import infer_target
from ..labels._targets import require_network
from ._extremes import Extremes, InfluentialSamples, check_number
from ._quantities import TrainingLoss, encode_groups

_NO_WHITENINGS = ("none", "none")


class TrainingInfluence(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseLabelledReference):
    r"""Influence of the samples that a network was trained on, on its margins and losses.

    Without the fitted sample i, training would have reached other parameters. To first order [1]_,
    the measured quantity f at a query x would change by

    .. math:: \frac{1}{N} \nabla f(x)^T (H + \lambda)^{-1} \nabla \ell_i,
        \qquad H = \frac{1}{N} \sum_j J(x_j)^T \nabla^2 \ell_j \, J(x_j),

    where N is the number of fitted samples, :math:`\ell_i` the loss of sample i, J the Jacobian of
    the outputs with respect to the parameters, and :math:`\nabla^2 \ell_j` the Hessian of the loss
    in the outputs. H is the Gauss-Newton matrix, which equals the Fisher matrix for a
    cross-entropy.

    The influence is positive if the fitted sample helps: it increases the margin, or decreases the
    loss. 0 means no effect, and negative that the sample harms. Influences of several fitted
    samples add up.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module or None, default=None
        The network, trained on these samples; see `NetworkKernel`. The criterion of a skorch net is
        the loss. A module has no criterion: its loss is the cross-entropy if it has several outputs
        and the labels are whole numbers, and otherwise the squared error.
    measure : {"auto", "margin", "loss"}, default="auto"
        The quantity that is measured at a query. "margin":
        :math:`z_y - \log \sum_{o \ne y} \exp z_o` for the class y and the logits z, in nats; for
        several labels per sample, the mean of the logits, each counted negative if its label is 0.
        "loss": the criterion, as a mean over the outputs of a sample, whatever its ``reduction``.
        "auto": "margin" for classes and labels, "loss" for numbers.
    curvature : {"ggn", "kfac", "ekfac", "none"}, default="ggn"
        The matrix H. "ggn": the Gauss-Newton matrix; "kfac" and "ekfac": its approximations by
        Kronecker products for each layer [3]_; "none": the identity in place of
        :math:`H + \lambda`, so that the influence is that of one step of gradient descent of size
        1.
    damping : float > 0, default=1.0
        The number :math:`\lambda`, in units of the mean eigenvalue of H (for "kfac" and "ekfac":
        of each layer).
    n_components : int or None, default=None
        Number of landmarks among the fitted samples, for "ggn". Gradients are then compared in the
        span of the landmarks' gradients, which is faster for many samples, and less exact. None:
        exact, by a matrix with one row for each parameter, or for each fitted sample and output,
        whichever is smaller.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`.
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
        Seed of the landmarks, and of the perceptron that ``estimator=None`` trains.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        Class, size and digest of the network, and the versions of sknetsim and other packages.
    damping_ : float
        The number :math:`\lambda`.
    self_influence_ : ndarray of shape (n_samples_fit,), float64
        Decrease of each fitted sample's loss by the sample itself, computed on first access. It is
        not negative, and large for wrong labels that the network has memorised.
    leverage_ : ndarray of shape (n_samples_fit,), float64
        Share of each fitted sample's outputs that it determines itself, in degrees of freedom:
        the trace of :math:`\nabla^2 \ell_i J_i (H + \lambda)^{-1} J_i^T / N`, computed on first
        access. It is not negative, and for "ggn" at most the number of outputs; "kfac" and "ekfac"
        can exceed it.
    kernel_error_ : float
        0; there for other estimators.
    n_samples_fit_ : int
        Number of fitted samples.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    NetworkNeighbors : Fitted samples that the network considers similar to a query.
    LabelDenoiser : Wrong labels by the labels of similar samples.

    Notes
    -----
    The inner product of two features of `transform` is the cosine of gradients in the metric of
    :math:`(H + \lambda)^{-1}`. Other estimators take them with ``estimator="features"``. There is
    one feature for each dimension that the landmarks span (without landmarks: the fitted samples,
    or all parameters, if they are fewer). The part of a gradient beyond this span is left out. So
    features with ``n_components`` are the smallest.

    If the network is trained further after `fit`, a `ChangedNetworkError` is raised.

    References
    ----------
    .. [1] P. W. Koh, P. Liang, "Understanding Black-box Predictions via Influence Functions", ICML
       2017.
    .. [2] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: Attributing Model
       Behavior at Scale", ICML 2023: the margin, and the linear datamodelling score.
    .. [3] T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent, "Fast Approximate Natural
       Gradient Descent in a Kronecker-factored Eigenbasis", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import TrainingInfluence
    >>> X = np.random.default_rng(0).normal(size=(40, 2))
    >>> X[:, 0] += np.sign(X[:, 0])  # two classes with a gap
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[0] = 1 - y[0]  # a wrong label
    >>> influence = TrainingInfluence(random_state=0).fit(X, y)
    >>> influence.influence(X[:3], y[:3]).shape
    (3, 40)
    >>> int(influence.self_influence_.argmax())
    0
    """

    #: Whether the contents of the criterion matter, see `FittedNetwork`.
    _takes_loss = True

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseLabelledReference._parameter_constraints,
        "measure": [StrOptions({"auto", "margin", "loss"})],
        "curvature": [StrOptions(set(CURVATURES))],
        "damping": [Interval(numbers.Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        measure: str = "auto",
        curvature: str = "ggn",
        damping: float = 1.0,
        n_components: int | None = None,
        parameters: Any = None,
        batch_size: int | None = None,
        device: Any = None,
        input_shape: tuple[int, ...] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.measure = measure
        self.curvature = curvature
        self.damping = damping
        self.n_components = n_components
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any) -> TrainingInfluence:
        """Train the network if it is untrained, and compute the curvature of its loss.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples that the network was trained on.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            The labels that it was trained on: numbers, or classes numbered as in its training.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the labels do not fit the network, or ``n_components`` the curvature.
        UnsupportedNetworkError
            If the criterion is not convex in the outputs, or has no second derivative.
        MemoryError
            If the exact curvature exceeds scikit-learn's ``working_memory``.
        """
        y = None if y is None else check_labels(y)
        samples, source = self._fit_network(X, y)
        self._loss = TrainingLoss(infer_target(require_network(source), samples, y))
        self._loss.check_measure(self.measure)
        engine = self._make_combinations()
        has_curvature = self.curvature != "none"
        derivatives = self._loss.differentiate(engine, samples, y, has_curvature)
        self._X, self._y, self._derivatives = samples, y, derivatives
        self._weighted = samples.with_labels(derivatives.gradients[:, None])
        generator = check_random_state(self.random_state)
        self._ridge = fit_ridge(
            self.curvature, engine, samples, derivatives, self.damping, self.n_components, generator
        )
        self._curvature = self.curvature
        self.damping_ = self._ridge.damping
        self.kernel_error_ = 0.0
        self.n_samples_fit_ = len(samples)
        self._own: dict[str, Any] = {}
        return self

    def influence(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute the influence of each fitted sample on each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Their labels, at which the quantity is measured. None: the predicted labels; required if
            labels are numbers.

        Returns
        -------
        influence : ndarray of shape (n_queries, n_samples_fit), float64
            Increase of the margin, or decrease of the loss, by each fitted sample: positive for
            helpful samples.
        """
        queries = self._weigh_queries(X, y)
        gram = compute_pair_matrix(*self._list_pairs(queries))
        return gram / self.n_samples_fit_

    def top(self, X: Any, n_samples: int = 5, y: Any = None) -> InfluentialSamples:
        """Find the fitted samples with the largest influence on each query, of both signs.

        The matrix of all influences is not kept in memory.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        n_samples : int, default=5
            Number of helpful and of harmful samples for each query.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Their labels, see `influence`.

        Returns
        -------
        samples : InfluentialSamples
            Indices and influences of the helpful and of the harmful samples.
        """
        queries = self._weigh_queries(X, y)
        check_number(n_samples, self.n_samples_fit_)
        source, samples, fitted, whitenings, function, verbose = self._list_pairs(queries)
        make = partial(Extremes, int(n_samples))
        extremes = reduce_pairs(source, samples, fitted, make, function, whitenings, verbose)
        return extremes.scale(1 / self.n_samples_fit_)

    def mean_influence(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute the influence of each fitted sample on the mean over all queries.

        The time is linear in the number of samples and queries: one pass over each.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Their labels, see `influence`.

        Returns
        -------
        influence : ndarray of shape (n_samples_fit,), float64
            The mean of `influence` over the queries.
        """
        queries, source = self._weigh_queries(X, y), self._make_loss_source()
        total = sum_jacobians(source, queries, None, "none", self.verbose)
        sums, _ = kernel_sums(source, self._weighted, total, "none", self.verbose)
        return sums[:, 0] / (self.n_samples_fit_ * len(queries))

    def group_influence(self, X: Any, groups: Any, y: Any = None) -> np.ndarray:
        """Compute the influence of groups of fitted samples on each query.

        The time is linear in the number of samples and queries: one pass over each,
        with a sum of gradients for each group.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        groups : array-like of shape (n_samples_fit,)
            The group of each fitted sample.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Their labels, see `influence`.

        Returns
        -------
        influence : ndarray of shape (n_queries, n_groups), float64
            The sum of `influence` over the samples of each group, in the sorted order of the
            groups.
        """
        queries = self._weigh_queries(X, y)
        values = encode_groups(groups, self.n_samples_fit_)
        source = self._make_loss_source()
        total = sum_jacobians(source, self._weighted, values, "none", self.verbose)
        sums, _ = kernel_sums(source, queries, total, "none", self.verbose)
        return sums / self.n_samples_fit_

    def leave_one_out(self) -> np.ndarray:
        r"""Compute the outputs at each fitted sample if the network were trained without it.

        One Newton step leads to them:
        :math:`z_i + M_i (1 - \nabla^2 \ell_i M_i)^{-1} \nabla \ell_i` with
        :math:`M_i = J_i (H + \lambda)^{-1} J_i^T / N`. They are exact for a linear model with a
        squared error and weight decay. ``curvature`` must be "ggn", because the other curvatures
        do not contain the part that a sample adds, so that it cannot be subtracted.

        Returns
        -------
        outputs : ndarray of shape (n_samples_fit, n_outputs), float64
            Outputs before a final softmax or sigmoid.
        """
        self._check_curvature("leave_one_out", ["ggn"])
        engine, derivatives = self._make_combinations(), self._derivatives
        outputs = predict_outputs(engine, self._X)
        samples, identity = self._weigh_each_output(self._X)
        kernels = self._compute_fitted_kernels(samples)
        moves = kernels / self.n_samples_fit_
        # A step that removes sample i also removes its part of the curvature.
        matrices = identity - derivatives.hessians @ moves
        gradients = torch.linalg.solve(matrices, derivatives.gradients)
        return outputs + torch.einsum("nop,np->no", moves, gradients).numpy()

    def posterior_variance(self, X: Any) -> np.ndarray:
        r"""Compute the variance of the outputs at each query, given the fitted samples.

        It is the variance of the Gaussian process with the tangent kernel, or of the linearised
        Laplace approximation: the diagonal of :math:`J(x) (H + \lambda)^{-1} J(x)^T / N`, if the
        loss is a negative log-likelihood. It is large if no fitted sample determines the gradients
        of the outputs. With ``n_components``, gradients beyond the span of the landmarks have the
        variance of the prior, :math:`1 / (\lambda N)` per squared length.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.

        Returns
        -------
        variance : ndarray of shape (n_queries, n_outputs), float64
            Variances of the outputs before a final softmax or sigmoid, not negative.
        """
        self._check_curvature("posterior_variance")
        samples, _ = self._weigh_each_output(self._check_X(X, reset=False))
        kernels = self._compute_own_kernels(self._make_preconditioned(), samples)
        rest = self._ridge.measure_rest(self._make_combinations(), samples)
        variance = kernels.diagonal(dim1=1, dim2=2) + rest
        return variance.numpy() / self.n_samples_fit_

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute features whose inner products are similarities of preconditioned gradients.

        For classes and labels, the gradients are those of the measured quantity. For numbers they
        are those of all outputs, because the loss has no gradient at the prediction, and the
        similarity is :math:`k^C` of the outputs (see `NetworkKernel`).

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Their labels, only for classes and labels, see `influence`.

        Returns
        -------
        features : ndarray of shape (n_queries, n_features), float64
            Features of length 1, or 0 for a zero gradient.
        """
        self._check_fitted_network()
        if self._loss.has_margins:
            queries = self._weigh_queries(X, y)
        elif y is not None:
            raise ValueError(
                "`y` must be None if the labels are numbers, because features compare the outputs;"
                " got labels. Pass X only."
            )
        else:
            queries, _ = self._weigh_each_output(self._check_X(X, reset=False))
        source = self._make_preconditioned()
        chunks = with_progress(iterate_chunks(source, queries), len(queries), self.verbose)
        return np.concatenate(
            [chunk.whitened().jacobian.materialize().flatten(1).cpu().numpy() for chunk in chunks]
        )

    @property
    def self_influence_(self) -> np.ndarray:
        """Decrease of each fitted sample's loss by the sample itself, of shape (n_samples_fit,)."""
        return self._get_own("self_influence", lambda: self._weighted)

    @property
    def leverage_(self) -> np.ndarray:
        """Share of each fitted sample's outputs that it determines, of shape (n_samples_fit,)."""
        self._check_curvature("leverage_")
        return self._get_own(
            "leverage", lambda: self._X.with_labels(self._derivatives.compute_roots())
        )

    def __dir__(self) -> list[str]:
        """List all attributes except those that a notebook would compute to display them."""
        computed = ("self_influence_", "leverage_")
        names = (name for name in object.__dir__(self) if name not in computed)
        return [name for name in names if hasattr(self, name)]

    def _get_own(self, name: str, weigh: Callable[[], Samples]) -> np.ndarray:
        """Return the traces of self-kernels at the fitted samples, divided by their number."""
        self._check_fitted_network()
        if name not in self._own:
            kernels = self._compute_fitted_kernels(weigh())
            # In a dict, because scikit-learn allows no new attribute after `fit`.
            traces = kernels.diagonal(dim1=1, dim2=2).sum(dim=1)
            self._own[name] = traces.numpy() / self.n_samples_fit_
        own: np.ndarray = self._own[name]
        return own

    @property
    def _n_features_out(self) -> int:
        """Number of features that `transform` returns."""
        combinations = 1 if self._loss.has_margins else self._derivatives.gradients.shape[1]
        return combinations * self._ridge.n_features

    def _weigh_each_output(self, X: Samples) -> tuple[Samples, Tensor]:
        """Return the samples with each output as a combination, and the weights of shape (d, d)."""
        identity = torch.eye(self._derivatives.gradients.shape[1], dtype=torch.float64)
        return X.with_labels(identity.expand(len(X), -1, -1)), identity

    def _compute_own_kernels(self, source: Source, X: Samples) -> Tensor:
        """Return the self-kernels of preconditioned gradients, of shape (n, k, k), float64."""
        chunks = iterate_chunks(source, X, "none", counted=False)
        chunks = with_progress(chunks, len(X), self.verbose)
        return torch.cat([chunk.own_kernel().cpu() for chunk in chunks])

    def _check_curvature(self, name: str, allowed: Sequence[str] = CURVATURES[:-1]) -> None:
        """Raise an error if the estimator is not fitted, or if its curvature is not allowed."""
        self._check_fitted_network()
        check_curvature(self._curvature, name, allowed)

    def _check_fitted_network(self) -> None:
        """Raise an error if the estimator is not fitted, or if the network has changed."""
        check_is_fitted(self, "damping_")
        self._check_unchanged(self._make_source())

    def _weigh_queries(self, X: Any, y: Any) -> Samples:
        """Return the queries with the weights of their outputs in the measured quantity."""
        self._check_fitted_network()
        samples = self._check_X(X, reset=False)
        if y is not None:
            check_consistent_length(np.empty(len(samples)), y)
        weights = self._loss.weigh_outputs(self._make_combinations(), samples, y, self.measure)
        return samples.with_labels(weights[:, None])

    def _predict_labels(self, X: Any) -> np.ndarray:
        """Return the predictions of the network in the form that labels have."""
        samples = self._check_X(X, reset=False)
        return self._loss.predict_labels(self._make_combinations(), samples)

    def _list_pairs(self, queries: Samples) -> tuple[Any, ...]:
        """Return the arguments of a pass over all pairs of queries and fitted samples."""
        source = self._make_loss_source()
        return source, queries, self._weighted, _NO_WHITENINGS, _multiply, self.verbose

    def _choose_output(self) -> Any:
        """Return "all", because the loss depends on all outputs."""
        return "all"

    def _list_settings(self) -> tuple[Any, ...]:
        """Return the arguments of an engine of the network with its criterion."""
        network = resolve_network(self.estimator_).with_input_shape(self.input_shape)
        return self._loss.complete(network), self.parameters, self.batch_size, self.device

    def _make_combinations(self) -> CombinationEngine:
        """Return the source of the gradients of combinations of outputs."""
        engine = CombinationEngine(*self._list_settings())
        engine.n_jobs = self.n_jobs
        return engine

    def _make_preconditioned(self) -> PreconditionedEngine:
        """Return the source of preconditioned gradients."""
        engine = PreconditionedEngine(self._ridge, *self._list_settings())
        engine.n_jobs = self.n_jobs
        return engine

    def _make_loss_source(self) -> PreconditionedEngine:
        """Return the source of preconditioned gradients, which keeps those of the losses."""
        if "products" not in self._own:
            source = self._make_combinations()
            self._own["products"] = self._ridge.multiply_fitted(source, self._weighted)
        engine = self._make_preconditioned()
        engine.remember(self._weighted, self._own["products"])
        return engine

    def _compute_fitted_kernels(self, weighted: Samples) -> Tensor:
        """Return the self-kernels of combinations of outputs at the fitted samples."""
        engine, source = self._make_preconditioned(), self._make_combinations()
        engine.remember(weighted, self._ridge.multiply_fitted(source, weighted))
        return self._compute_own_kernels(engine, weighted)


def _multiply(rows: Chunk, columns: Chunk) -> Tensor:
    """Return the products of the gradients of two tiles, of shape (n, m), float64."""
    return rows.jacobian.trace_gram(columns.jacobian)
