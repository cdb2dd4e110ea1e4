"""Losses that make a network find pairs and groups of inputs similar, or unlike, in its training.

Index legend: n samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._networks.inputs import Inputs, list_tensors, map_tensors
from ._base import BaseSimilarityLoss, order_by_group, squared_length

__all__ = [
    "ContrastiveSimilarityLoss",
    "GroupSimilarities",
    "GroupSimilarityLoss",
    "PairSimilarityLoss",
]


class PairSimilarityLoss(BaseSimilarityLoss):
    r"""Minus the mean similarity of pairs of inputs, times a weight.

    .. math:: L = -\frac{w}{n} \sum_i k(x_i, x_i'),

    k the similarity k^C of `NetworkKernel`, or the kernel as it is. Minimising it raises the
    similarity of each pair where the weight is positive and lowers it where that is negative; with
    :math:`|k^C| \le 1` it lies between :math:`-|w|` and :math:`|w|`.

    Parameters
    ----------
    weight : float, default=1.0
        The weight w; finite, of any sign.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`; a single one is the fastest by far.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C) or Jacobians as they are.
    parameters : None, str, list of str or Module, default=None
        The parameters whose gradients are compared, see `NetworkKernel`. The loss depends on all.

    Notes
    -----
    The network is evaluated in eval mode, whatever its mode: without dropout, and with the running
    statistics of batch norm. Its second derivatives are exact, norms included. Where a gradient is
    zero its similarities are 0 and have no derivative. On the first, second, fourth, eighth ...
    batch a network is verified on a few samples, as by the estimators, and one with a layer that
    cannot be differentiated twice is refused. Hooks of layers are part of the network; hooks on its
    parameters see gradients of the whole loss alone.

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
        """The loss, of shape (), from a batch and the other of each pair.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs, others : Tensor, or dict or tuple of Tensor, of n rows each
            The first and the second of each pair, where the network is.

        Returns
        -------
        loss : Tensor of shape ()
            In the dtype of the network, with its graph.
        """
        return self.value(self.similarities(network, inputs, others))

    def value(self, similarities: Tensor) -> Tensor:
        """The loss from the similarity of each pair.

        Parameters
        ----------
        similarities : Tensor of shape (n,)
            What `similarities` gives.

        Returns
        -------
        loss : Tensor of shape ()
            With its graph.
        """
        return -self.weight * similarities.mean()

    def similarities(self, network: Any, inputs: Inputs, others: Inputs) -> Tensor:
        """The similarity of each pair.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs, others : Tensor, or dict or tuple of Tensor, of n rows each
            The first and the second of each pair.

        Returns
        -------
        similarities : Tensor of shape (n,)
            In [-1, 1] where normalised, with their graph.
        """
        whitened = [self._whitened(network, batch) for batch in (inputs, others)]
        first, second = (found.jacobian.whiten(found.root).for_pairs() for found in whitened)
        if len(first) != len(second):
            raise ValueError(
                f"others has {len(second)} rows and inputs {len(first)}; allowed are as many:"
                " row i of one is paired with row i of the other."
            )
        rows = torch.arange(len(first), device=first.outputs.device)
        found: Tensor = first.paired(second, rows, rows)
        return found.to(first.outputs.dtype)


@dataclass(frozen=True)
class GroupSimilarities:
    """Mean similarities of a batch, with their graph.

    Parameters
    ----------
    same : Tensor of shape ()
        Over pairs of different samples of the same group.
    other : Tensor of shape ()
        Over pairs of samples of different groups; 0 where there is one group.
    """

    same: Tensor
    other: Tensor


class _GroupLoss(BaseSimilarityLoss):
    """What is made of sums of whitened gradients, one for each group."""

    def forward(self, network: Any, inputs: Inputs, groups: Any) -> Tensor:
        """The loss, from a batch and the group of each row.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs : Tensor, or dict or tuple of Tensor, of n rows
            A batch, where the network is.
        groups : array-like or Tensor of shape (n,)
            The group of each row.

        Returns
        -------
        loss : Tensor of shape ()
            In the dtype of the network, with its graph.
        """
        return self.value(self.similarities(network, inputs, groups))

    def value(self, similarities: GroupSimilarities) -> Tensor:
        """The loss from the mean similarities of a batch.

        Parameters
        ----------
        similarities : GroupSimilarities
            What `similarities` gives.

        Returns
        -------
        loss : Tensor of shape ()
            With its graph.
        """
        return self.weight * self._unweighted(similarities)

    @abc.abstractmethod
    def _unweighted(self, similarities: GroupSimilarities) -> Tensor:
        """What is minimised where the weight is 1."""

    def similarities(self, network: Any, inputs: Inputs, groups: Any) -> GroupSimilarities:
        r"""Mean similarities within groups and between them, through sums of gradients.

        With :math:`\mu` the mean of n unit gradients,
        :math:`\sum_{i \ne j} k^C(x_i, x_j) = n^2 \|\mu\|^2 - n`: no pairs are formed.

        Parameters
        ----------
        network : Module or skorch net
            The network.
        inputs : Tensor, or dict or tuple of Tensor, of n rows
            A batch, where the network is.
        groups : array-like or Tensor of shape (n,)
            The group of each row.

        Returns
        -------
        similarities : GroupSimilarities
            With their graph.

        Raises
        ------
        ValueError
            If no two rows are of one group.
        """
        order, sizes = order_by_group(groups, len(list_tensors(inputs)[0]))
        whitened = self._whitened(network, map_tensors(lambda tensor: tensor[order], inputs))
        jacobian, roots = whitened.jacobian, whitened.root.split(sizes)
        parts = zip(jacobian.split(sizes), roots, strict=True)
        sums = [part.weighted_sum(root.mT) for part, root in parts]
        within = torch.stack([squared_length(part) for part in sums]).sum()
        total = squared_length(
            {name: torch.stack([p[name] for p in sums]).sum(0) for name in sums[0]}
        )
        squares = sum(size**2 for size in sizes)
        pairs, all_pairs = squares - len(jacobian), len(jacobian) ** 2 - squares
        dtype = jacobian.outputs.dtype
        same = ((within - whitened.own.sum()) / pairs).to(dtype)
        return GroupSimilarities(same, ((total - within) / max(1, all_pairs)).to(dtype))


class GroupSimilarityLoss(_GroupLoss):
    r"""Minus the mean similarity within groups of inputs, times a weight.

    .. math:: L = -w \; \frac{\sum_S \left( n_S^2 \|\mu_S\|^2 - n_S \right)}
        {\sum_S n_S (n_S - 1)}, \qquad
        \mu_S = \frac{1}{n_S} \sum_{i \in S} \frac{\nabla f(x_i)}{\|\nabla f(x_i)\|},

    S the groups of a batch: classes, or copies of a sample to which the network is to be invariant;
    of several outputs, whitened Jacobians in place of unit gradients.
    A batch of n rows costs one more sum of gradients for each group, and no pairs.

    Parameters
    ----------
    weight : float, default=1.0
        The weight w; positive ones make groups alike, negative ones push them apart.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`; a single one is the fastest by far.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C) or Jacobians as they are.
    parameters : None, str, list of str or Module, default=None
        The parameters whose gradients are compared, see `NetworkKernel`. The loss depends on all.

    See Also
    --------
    PairSimilarityLoss : How the network is evaluated.
    ContrastiveSimilarityLoss : Which also makes different groups unlike.

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

    def _unweighted(self, similarities: GroupSimilarities) -> Tensor:
        return -similarities.same


class ContrastiveSimilarityLoss(_GroupLoss):
    """Mean similarity of different groups less that within groups, times a weight.

    Minimising it makes the rows of a group alike and those of different groups unlike.

    Parameters
    ----------
    weight : float, default=1.0
        The weight; negative ones do the opposite.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`; a single one is the fastest by far.
    normalize : bool, default=True
        Whether to compare whitened Jacobians (k^C) or Jacobians as they are.
    parameters : None, str, list of str or Module, default=None
        The parameters whose gradients are compared, see `NetworkKernel`. The loss depends on all.

    See Also
    --------
    GroupSimilarityLoss : Groups alone.
    PairSimilarityLoss : How the network is evaluated.

    Examples
    --------
    >>> import torch
    >>> from sknetsim.losses import ContrastiveSimilarityLoss
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> loss = ContrastiveSimilarityLoss(weight=0.1)
    >>> loss(network, torch.randn(6, 2), ["a", "a", "b", "b", "b", "c"]).backward()
    """

    def _unweighted(self, similarities: GroupSimilarities) -> Tensor:
        return similarities.other - similarities.same
