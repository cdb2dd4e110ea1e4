"""Mixin that adds a similarity loss to the training of any skorch net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from torch import Tensor

from ._networks.inputs import concatenate_samples, list_tensors, map_tensors
from .losses._losses import GroupSimilarityLoss, PairSimilarityLoss

__all__ = ["SimilarityTrainingMixin"]

_RECORDED = ("similarity_loss", "same_similarity", "other_similarity")


class SimilarityTrainingMixin:
    """Adds a loss of `sknetsim.losses` to that of any skorch net, batch by batch.

    Stands before the net's class: ``class Net(SimilarityTrainingMixin, NeuralNetClassifier)``.
    Groups are the classes of a batch or, with ``similarity_augment``, each sample and its changed
    copy. A batch without two samples of a group is trained on as if nothing were added. Validation
    losses are without the term.

    Parameters
    ----------
    *args
        Of the net.
    similarity : type or Module, default=GroupSimilarityLoss
        The loss. Its parameters are spelt ``similarity__weight``, ``similarity__output`` and so on,
        for grid searches too; a weight of 0 only looks on.
    similarity_schedule : callable or None, default=None
        From the number of the epoch, counted from 0, to a factor of the weight; None: 1.
    similarity_augment : callable or None, default=None
        From a batch of inputs to changed copies, such as turned images, which the network is to
        find similar to them; None: classes are groups.
    **kwargs
        Of the net, and ``similarity__*``.

    Attributes
    ----------
    similarity_ : Module
        The loss.
    history : History
        With ``similarity_loss`` (the term as it was added), ``same_similarity`` and, of losses with
        groups, ``other_similarity``: of each batch, and means of the epoch's.

    See Also
    --------
    sknetsim.losses.GroupSimilarityLoss : How similarities are computed, and what they cost.

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
        known = getattr(cls, "prefixes_", [])
        cls.prefixes_ = [*known, *({"similarity"} - set(known))]

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
        """Make the criterion, and the loss beside it."""
        net: Any = super()
        net.initialize_criterion()
        self._initialize_similarity()
        return self

    def set_params(self, **params: Any) -> Any:
        """Set parameters; those of the similarity anew, and nothing else because of them."""
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
        made = isinstance(self.similarity, torch.nn.Module)
        if (made and params) or not (made or isinstance(self.similarity, type)):
            raise ValueError(
                f"similarity is {self.similarity!r} and has parameters {sorted(params)}; allowed"
                " are a class of sknetsim.losses with parameters, or a loss without: hand over the"
                " class."
            )
        self.similarity_ = self.similarity if made else self.similarity(**params)

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Tensor:
        """The net's own loss and, in training, the similarity's."""
        net: Any = super()
        loss: Tensor = net.get_loss(y_pred, y_true, X=X, training=training)
        compared = self._compared(X, y_true) if training else None
        return loss if compared is None else loss + self._term(*compared)

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Record means over the epoch's batches."""
        parent: Any = super()
        parent.on_epoch_end(net, *args, **kwargs)
        batches = self.history[-1]["batches"]
        for name in _RECORDED:
            values = [batch[name] for batch in batches if name in batch]
            if values:
                self.history.record(name, float(np.mean(values)))

    def _compared(self, X: Any, y: Any) -> tuple[Any, Any] | None:
        """What the loss takes beside the network; None where a batch has nothing to compare."""
        X = map_tensors(lambda tensor: tensor.to(self.device), X)  # type: ignore[attr-defined]
        pairs = isinstance(self.similarity_, PairSimilarityLoss)
        if self.similarity_augment is None:
            groups = _classes(y, is_classifier(self) and not pairs)
            return (X, groups) if np.unique(groups, return_counts=True)[1].max() > 1 else None
        changed = self.similarity_augment(X)
        if pairs:
            return X, changed
        copies = concatenate_samples(X, changed)
        return copies, torch.arange(len(list_tensors(X)[0])).repeat(2)

    def _term(self, inputs: Any, others: Any) -> Tensor:
        found = self.similarity_.similarities(self, inputs, others)
        schedule, epoch = self.similarity_schedule, len(self.history) - 1
        term: Tensor = self.similarity_.value(found) * (1 if schedule is None else schedule(epoch))
        pair = isinstance(found, Tensor)
        values = (term, found.mean()) if pair else (term, found.same, found.other)
        for name, value in zip(_RECORDED, values, strict=False):
            self.history.record_batch(name, value.item())
        return term


def _classes(y: Any, known: bool) -> np.ndarray:
    """The classes of a batch, of one axis."""
    labels = y.detach().cpu().numpy().reshape(len(y), -1) if isinstance(y, Tensor) else None
    if not known or labels is None or labels.shape[1] != 1 or (labels != labels.round()).any():
        came = f"of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise ValueError(
            f"similarity_augment is None and y of a batch is {came}; allowed without it are classes"
            " of a classifier, one per sample, as groups: say by similarity_augment what is to be"
            " similar."
        )
    found: np.ndarray = labels[:, 0]
    return found
