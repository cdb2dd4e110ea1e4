"""Mixin that adds a similarity loss to the training of any skorch net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from torch import Tensor

from ._networks.batches import list_tensors, map_tensors
from ._networks.samples.arrays import concatenate_arrays
from .losses._losses import GroupSimilarityLoss, PairSimilarityLoss

__all__ = ["SimilarityTrainingMixin"]

# Names of the values in the history.
_HISTORY_NAMES = ("similarity_loss", "same_similarity", "other_similarity")


class SimilarityTrainingMixin:
    """Mixin that adds a loss of `sknetsim.losses` to the criterion of any skorch net.

    List it before the net's class: ``class Net(SimilarityTrainingMixin, NeuralNetClassifier)``. The
    groups of the loss are the classes in a batch or, with ``similarity_augment``, each sample and
    its changed copy. A batch in which no group has two samples is trained on without the similarity
    loss. Validation losses do not include it.

    Parameters
    ----------
    *args
        Arguments of the net.
    similarity : type or Module, default=GroupSimilarityLoss
        The loss. Its parameters are named ``similarity__weight``, ``similarity__output`` and so on,
        also in grid searches. With a weight of 0, the similarities are only recorded.
    similarity_schedule : callable or None, default=None
        Function that returns a factor of the weight from the number of the epoch, counted from 0.
        None: the factor is 1.
    similarity_augment : callable or None, default=None
        Function that returns changed copies of a batch of inputs, such as rotated images, which the
        network should treat as similar to the originals. None: the groups are the classes.
    **kwargs
        Keyword arguments of the net, and ``similarity__*``.

    Attributes
    ----------
    similarity_ : Module
        The loss.
    history : History
        The net's history, with further values for each batch and, as means over the batches, for
        each epoch: ``similarity_loss`` (the term that was added), ``same_similarity`` and, for
        losses of groups, ``other_similarity``.

    See Also
    --------
    sknetsim.losses.GroupSimilarityLoss : The default loss, and how it is computed.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> from sknetsim.training import SimilarityTrainingMixin
    >>> class Net(SimilarityTrainingMixin, NeuralNetClassifier):
    ...     pass
    >>> X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> y = (X[:, 0] > 0).astype(int)
    >>> net = Net(
    ...     torch.nn.Linear(3, 2), criterion=torch.nn.CrossEntropyLoss, similarity__weight=0.1,
    ...     similarity__output="predicted", max_epochs=2, train_split=None, verbose=0,
    ... ).fit(X, y)
    >>> len(net.history[:, "same_similarity"])
    2
    """

    prefixes_: list[str]
    history: Any
    similarity_: Any
    initialized_: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        prefixes = getattr(cls, "prefixes_", [])
        cls.prefixes_ = [*prefixes, *({"similarity"} - set(prefixes))]

    def __init__(
        self,
        *args: Any,
        similarity: Any = GroupSimilarityLoss,
        similarity_schedule: Callable[[int], float] | None = None,
        similarity_augment: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.similarity = similarity
        self.similarity_schedule = similarity_schedule
        self.similarity_augment = similarity_augment

    def initialize_criterion(self) -> Any:
        """Create the criterion and the similarity loss.

        Returns
        -------
        self : object
            The net.
        """
        net: Any = super()
        net.initialize_criterion()
        self._initialize_similarity()
        return self

    def set_params(self, **params: Any) -> Any:
        """Set parameters; those of the similarity loss do not initialize the network again.

        Parameters
        ----------
        **params
            Parameters by name.

        Returns
        -------
        self : object
            The net.
        """
        own = {name: value for name, value in params.items() if name.startswith("similarity")}
        net: Any = super()
        net.set_params(**{name: value for name, value in params.items() if name not in own})
        for name, value in own.items():
            setattr(self, name, value)
        if own and self.initialized_:
            self._initialize_similarity()
        return self

    def _initialize_similarity(self) -> None:
        net: Any = self
        params = net.get_params_for("similarity")
        is_instance = isinstance(self.similarity, torch.nn.Module)
        if (is_instance and params) or not (is_instance or isinstance(self.similarity, type)):
            raise ValueError(
                "`similarity` must be a class of sknetsim.losses, or an instance without further"
                f" parameters; got {self.similarity!r} with parameters {sorted(params)}. Pass the"
                " class."
            )
        self.similarity_ = self.similarity if is_instance else self.similarity(**params)

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Tensor:
        """Return the loss of a batch: the net's own and, in training, the similarity loss.

        Parameters
        ----------
        y_pred : Tensor or tuple of Tensor
            Outputs of the network.
        y_true : Tensor
            Labels of the batch.
        X : Tensor, or dict or tuple of Tensor
            Inputs of the batch.
        training : bool, default=False
            Whether the batch is a training batch.

        Returns
        -------
        loss : Tensor of shape ()
            With its graph.
        """
        net: Any = super()
        loss: Tensor = net.get_loss(y_pred, y_true, X=X, training=training)
        arguments = self._make_arguments(X, y_true) if training else None
        return loss if arguments is None else loss + self._compute_term(*arguments)

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Record the means over the batches of the epoch.

        Parameters
        ----------
        net : skorch net
            The net.
        *args, **kwargs
            Arguments of the callback.
        """
        parent: Any = super()
        parent.on_epoch_end(net, *args, **kwargs)
        batches = self.history[-1]["batches"]
        for name in _HISTORY_NAMES:
            values = [batch[name] for batch in batches if name in batch]
            if values:
                self.history.record(name, float(np.mean(values)))

    def _make_arguments(self, X: Any, y: Any) -> tuple[Any, Any] | None:
        """Return the arguments of the loss: inputs, and others or groups; None without a pair."""
        X = map_tensors(lambda tensor: tensor.to(self.device), X)  # type: ignore[attr-defined]
        takes_pairs = isinstance(self.similarity_, PairSimilarityLoss)
        if self.similarity_augment is None:
            groups = _check_classes(y, is_classifier(self) and not takes_pairs)
            return (X, groups) if np.unique(groups, return_counts=True)[1].max() > 1 else None
        changed = self.similarity_augment(X)
        if takes_pairs:
            return X, changed
        copies = concatenate_arrays(X, changed)
        return copies, torch.arange(len(list_tensors(X)[0])).repeat(2)

    def _compute_term(self, inputs: Any, others: Any) -> Tensor:
        """Return the term that is added to the loss of a batch, and record it."""
        similarities = self.similarity_.similarities(self, inputs, others)
        schedule, epoch = self.similarity_schedule, len(self.history) - 1
        factor = 1 if schedule is None else schedule(epoch)
        term: Tensor = self.similarity_.value(similarities) * factor
        is_pairs = isinstance(similarities, Tensor)
        means = [similarities.mean()] if is_pairs else [similarities.same, similarities.other]
        for name, value in zip(_HISTORY_NAMES, [term, *means], strict=False):
            self.history.record_batch(name, value.item())
        return term


def _check_classes(y: Any, are_groups: bool) -> np.ndarray:
    """Return the class of each sample of a batch; raise if classes cannot be the groups."""
    labels = y.detach().cpu().numpy().reshape(len(y), -1) if isinstance(y, Tensor) else None
    if not are_groups or labels is None or labels.shape[1] != 1 or (labels != labels.round()).any():
        form = f"of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"of {type(y).__name__}"
        raise ValueError(
            "`similarity_augment` must be a function if classes cannot be the groups of the loss;"
            f" got None with y {form}. Pass a function that returns changed copies of a batch, or"
            " use a classifier with one class per sample and a loss of groups."
        )
    return np.asarray(labels[:, 0])
