"""Losses of fitted samples, and the quantities that are attributed at queries.

Index legend: n samples; d outputs of the network; q columns of the labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._curvature.loss_derivatives import (
    LossDerivatives,
    add_criterion,
    differentiate_losses,
    differentiate_margins,
)
from .._gradients.engine import GradientEngine
from .._networks.network import Network
from .._networks.samples import Samples
from ..labels._targets import Classification, Multilabel, Target


@dataclass(frozen=True)
class TrainingLoss:
    """Loss that the network was trained with, as a function of outputs and labels.

    Attributes
    ----------
    target : Target
        Meaning of the labels.
    """

    target: Target

    def complete(self, network: Network) -> Network:
        """Return the network with a criterion, if it has none."""
        has_classes = isinstance(self.target, Classification)
        are_probabilities = isinstance(self.target, Classification) and self.target.probabilities
        return add_criterion(network, has_classes, are_probabilities)

    def differentiate(
        self, engine: GradientEngine, X: Samples, y: Any, with_hessians: bool
    ) -> LossDerivatives:
        """Return the derivatives of the loss of each sample at the labels y."""
        return differentiate_losses(engine, X, self._encode(y), with_hessians)

    def weigh_outputs(self, engine: GradientEngine, X: Samples, y: Any, measure: str) -> Tensor:
        """Return the gradients in the outputs of a measured quantity, of shape (n, d), float64.

        The sign is that of the influence: helpful samples increase a margin and decrease a loss.

        Parameters
        ----------
        engine : GradientEngine
            Engine of the network.
        X : Samples of length n
            The queries.
        y : array-like of n labels, or None
            The labels; None for the predicted ones.
        measure : {"margin", "loss", "auto"}
            The quantity.
        """
        self.check_measure(measure)
        if measure == "loss" or not self.has_margins:
            labels = self._predict(engine, X) if y is None else self._encode(y)
            return differentiate_losses(engine, X, labels, with_hessians=False).gradients
        if isinstance(self.target, Classification):
            # The loss falls if the margin grows, so the gradient of the margin counts negative.
            return -differentiate_margins(engine, X, None if y is None else self._encode(y))
        labels = self._predict(engine, X) if y is None else self._encode(y)
        # margin = mean_q (2 y_q - 1) z_q
        return (1 - 2 * torch.as_tensor(labels).double()) / labels.shape[1]

    @property
    def has_margins(self) -> bool:
        """True if labels are classes, or 0 and 1."""
        return isinstance(self.target, Classification | Multilabel)

    def check_measure(self, measure: str) -> None:
        """Raise an error if the labels have no such quantity."""
        if measure == "margin" and not self.has_margins:
            raise ValueError(
                "`measure` must be 'loss' or 'auto' if the labels are numbers, which have no"
                " margin; got 'margin'. Set measure='loss'."
            )

    def predict_labels(self, engine: GradientEngine, X: Samples) -> np.ndarray:
        """Return the predictions in the form that labels have."""
        return self.target.labels(self.target.predictions(engine, X))

    def _encode(self, y: Any) -> np.ndarray:
        """Return numbers of classes, or the labels as numbers of shape (n, q)."""
        if isinstance(self.target, Classification):
            return self.target.encode(y)
        return self.target.values(y)

    def _predict(self, engine: GradientEngine, X: Samples) -> np.ndarray:
        """Return the predicted labels in the form of `_encode`."""
        if self.has_margins:
            return self._encode(self.predict_labels(engine, X))
        raise ValueError(
            "`y` must be the labels of the queries if the labels are numbers, because the loss has"
            " a zero gradient at the network's own prediction; got None. Pass y."
        )


def encode_groups(groups: Any, count: int) -> np.ndarray:
    """Return the group of each of ``count`` fitted samples, one-hot, in the sorted order."""
    try:
        _, codes = np.unique(np.asarray(groups), return_inverse=True)
    except TypeError as error:
        raise TypeError(
            "`groups` must contain names that can be sorted, only numbers or only strings; got"
            f" others: {error}. Give samples without a group a group of their own."
        ) from error
    if codes.shape != (count,):
        raise ValueError(
            f"`groups` must have the shape ({count},), with one group for each fitted sample; got"
            f" shape {np.shape(groups)}. Pass one group per sample."
        )
    encoded: np.ndarray = np.eye(codes.max() + 1)[codes]
    return encoded
