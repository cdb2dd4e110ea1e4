"""Losses of pairs and of groups, for training a network to treat samples as similar or dissimilar.

Index legend: n samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._networks.batches import Inputs, list_tensors, map_tensors
from ._base import BaseSimilarityLoss, order_by_group
from ._sums import sum_over_pairs

__all__ = [
    "ContrastiveSimilarityLoss",
    "GroupSimilarities",
    "GroupSimilarityLoss",
    "PairSimilarityLoss",
]


class PairSimilarityLoss(BaseSimilarityLoss):
    r"""Negative mean similarity of pairs of samples, times a weight.

    .. math:: L = -\frac{w}{n} \sum_i k(x_i, x_i'),

    where k is the similarity k^C of `NetworkKernel` or, without normalisation, the kernel itself.
    Minimising the loss raises the similarity of each pair if the weight is positive, and lowers it
    if the weight is negative. Because :math:`|k^C| \le 1`, the normalised loss is between
    :math:`-|w|` and :math:`|w|`.

    Parameters
    ----------
    weight : float, default=1.0
        The weight w: any finite number. 0 gives a loss of 0.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. "loss" is the loss at the
        predicted label. A single output is the fastest by far.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C) instead of the Jacobians themselves.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`. The loss depends
        on all parameters of the network.

    Notes
    -----
    The network is evaluated in eval mode, whatever its current mode: without dropout, and with the
    running statistics of batch norm. Second derivatives are exact, including those of the norms. A
    sample with a zero gradient has similarity 0 with every sample, with zero derivatives.

    On the first, second, fourth, eighth ... batch the network is verified on a few samples, like
    the network of an estimator, and a layer that cannot be differentiated twice raises an error.
    Hooks on layers are part of the network. Hooks on parameters act only on the gradient of the
    whole loss.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.losses import PairSimilarityLoss
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> loss = PairSimilarityLoss(weight=0.1)(network, torch.randn(5, 2), torch.randn(5, 2))
    >>> loss.backward()
    >>> network[0].weight.grad.shape
    torch.Size([8, 2])
    """

    def forward(self, network: Any, inputs: Inputs, others: Inputs) -> Tensor:
        """Return the loss of a batch of pairs.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs, others : Tensor, or dict or tuple of Tensor, of n samples each
            The first and the second sample of each pair.

        Returns
        -------
        loss : Tensor of shape ()
            In the dtype of the network, with its graph.
        """
        return self.value(self.similarities(network, inputs, others))

    def value(self, similarities: Tensor) -> Tensor:
        """Return the loss from the similarity of each pair.

        Parameters
        ----------
        similarities : Tensor of shape (n,)
            Result of `similarities`.

        Returns
        -------
        loss : Tensor of shape ()
            Minus the weight times the mean similarity, with its graph.
        """
        return -self.weight * similarities.mean()

    def similarities(self, network: Any, inputs: Inputs, others: Inputs) -> Tensor:
        """Return the similarity of each pair.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs, others : Tensor, or dict or tuple of Tensor, of n samples each
            The first and the second sample of each pair.

        Returns
        -------
        similarities : Tensor of shape (n,)
            With their graph, in [-1, 1] if normalised. 1 means that the gradients have the same
            direction, 0 that they are orthogonal, and a negative value that a training step on one
            sample changes the outputs at the other in the opposite direction.

        Raises
        ------
        ValueError
            If ``inputs`` and ``others`` have different numbers of samples.
        UnsupportedNetworkError
            If the network cannot be differentiated twice, or mixes the samples of a batch.
        """
        whitened = [self._whiten(network, batch) for batch in (inputs, others)]
        first, second = (batch.jacobian.whiten(batch.root).for_pairs() for batch in whitened)
        if len(first) != len(second):
            raise ValueError(
                f"`others` must have {len(first)} samples, as many as `inputs`; got {len(second)}."
                " Pair sample i of `inputs` with sample i of `others`."
            )
        rows = torch.arange(len(first), device=first.outputs.device)
        # k(x_i, x'_i) = <root J(x_i), root' J(x'_i)>_F
        similarities: Tensor = first.paired(second, rows, rows)
        return similarities.to(first.outputs.dtype)


@dataclass(frozen=True)
class GroupSimilarities:
    """Mean similarities within and between the groups of a batch, with their graph.

    Parameters
    ----------
    same : Tensor of shape ()
        Mean over pairs of different samples of the same group; in [-1, 1] if normalised.
    other : Tensor of shape ()
        Mean over pairs of samples of different groups; 0 if there is only one group.
    """

    same: Tensor
    other: Tensor


class _GroupLoss(BaseSimilarityLoss):
    """Base class of losses that depend on one sum of whitened gradients per group."""

    def forward(self, network: Any, inputs: Inputs, groups: Any) -> Tensor:
        """Return the loss of a batch whose samples belong to groups.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs : Tensor, or dict or tuple of Tensor, of n samples
            The batch.
        groups : array-like or Tensor of shape (n,)
            The group of each sample: a number or a name.

        Returns
        -------
        loss : Tensor of shape ()
            In the dtype of the network, with its graph.
        """
        return self.value(self.similarities(network, inputs, groups))

    def value(self, similarities: GroupSimilarities) -> Tensor:
        """Return the loss from the mean similarities of a batch.

        Parameters
        ----------
        similarities : GroupSimilarities
            Result of `similarities`.

        Returns
        -------
        loss : Tensor of shape ()
            With its graph.
        """
        return self.weight * self._unweighted_loss(similarities)

    @abc.abstractmethod
    def _unweighted_loss(self, similarities: GroupSimilarities) -> Tensor:
        """Return the loss for a weight of 1."""

    def similarities(self, network: Any, inputs: Inputs, groups: Any) -> GroupSimilarities:
        r"""Return the mean similarities within groups and between them.

        With :math:`\mu` the mean of the n unit gradients of a group,
        :math:`\sum_{i \ne j} k^C(x_i, x_j) = n^2 \|\mu\|^2 - n`.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs : Tensor, or dict or tuple of Tensor, of n samples
            The batch.
        groups : array-like or Tensor of shape (n,)
            The group of each sample: a number or a name.

        Returns
        -------
        similarities : GroupSimilarities
            The two means, with their graph.

        Raises
        ------
        ValueError
            If no group has two samples, or if there is not one finite group per sample.
        UnsupportedNetworkError
            If the network cannot be differentiated twice, or mixes the samples of a batch.
        """
        order, sizes = order_by_group(groups, len(list_tensors(inputs)[0]))
        whitened = self._whiten(network, map_tensors(lambda tensor: tensor[order], inputs))
        jacobian = whitened.jacobian
        within, total = sum_over_pairs(jacobian, whitened.root, sizes)
        # Pairs i != j of one group: sum_S n_S^2 - n. Pairs of two groups: n^2 - sum_S n_S^2.
        squares = sum(size**2 for size in sizes)
        same_pairs, other_pairs = squares - len(jacobian), len(jacobian) ** 2 - squares
        dtype = jacobian.outputs.dtype
        # sum_{i != j} k(x_i, x_j) = sum_{i, j} k(x_i, x_j) - sum_i k(x_i, x_i)
        same = ((within - whitened.self_similarity.sum()) / same_pairs).to(dtype)
        return GroupSimilarities(same, ((total - within) / max(1, other_pairs)).to(dtype))


class GroupSimilarityLoss(_GroupLoss):
    r"""Negative mean similarity within groups of samples, times a weight.

    .. math:: L = -w \; \frac{\sum_S \left( n_S^2 \|\mu_S\|^2 - n_S \right)}
        {\sum_S n_S (n_S - 1)}, \qquad
        \mu_S = \frac{1}{n_S} \sum_{i \in S} \frac{\nabla f(x_i)}{\|\nabla f(x_i)\|},

    where S runs over the groups of a batch: classes, or copies of a sample to which the network
    should become invariant. For several outputs, whitened Jacobians replace the unit gradients. The
    fraction is the mean of k^C over all pairs of different samples of a group, so the normalised
    loss is between :math:`-|w|` and :math:`|w|`. Each layer takes the cheaper one of two ways: one
    sum of gradients for each group, or products of all pairs.

    Parameters
    ----------
    weight : float, default=1.0
        The weight w: any finite number. Positive weights make the samples of a group similar,
        negative weights make them dissimilar.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. "loss" is the loss at the
        predicted label. A single output is the fastest by far.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C) instead of the Jacobians themselves.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`. The loss depends
        on all parameters of the network.

    See Also
    --------
    PairSimilarityLoss : Loss of pairs, with notes on how the network is evaluated.
    ContrastiveSimilarityLoss : Loss that also makes different groups dissimilar.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.losses import GroupSimilarityLoss
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> X = torch.randn(6, 2)
    >>> copies, samples = torch.cat([X, X.flip(1)]), torch.arange(6).repeat(2)
    >>> GroupSimilarityLoss(weight=0.1)(network, copies, samples).backward()
    """

    def _unweighted_loss(self, similarities: GroupSimilarities) -> Tensor:
        return -similarities.same


class ContrastiveSimilarityLoss(_GroupLoss):
    r"""Mean similarity between different groups minus that within groups, times a weight.

    .. math:: L = w \left( \bar k_{\text{other}} - \bar k_{\text{same}} \right),

    where the two means of k run over pairs of samples of different groups (0 if there is only one
    group) and over pairs of different samples of the same group. Minimising the loss makes the
    samples of a group similar and those of different groups dissimilar. The normalised loss is
    between :math:`-2|w|` and :math:`2|w|`.

    Parameters
    ----------
    weight : float, default=1.0
        The weight w: any finite number. A negative weight has the opposite effect.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. "loss" is the loss at the
        predicted label. A single output is the fastest by far.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C) instead of the Jacobians themselves.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`. The loss depends
        on all parameters of the network.

    See Also
    --------
    GroupSimilarityLoss : Loss of the similarity within groups only.
    PairSimilarityLoss : Loss of pairs, with notes on how the network is evaluated.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.losses import ContrastiveSimilarityLoss
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> loss = ContrastiveSimilarityLoss(weight=0.1)
    >>> loss(network, torch.randn(6, 2), ["a", "a", "b", "b", "b", "c"]).backward()
    """

    def _unweighted_loss(self, similarities: GroupSimilarities) -> Tensor:
        return similarities.other - similarities.same
