"""Contributions of layers, parameters, activations and positions to a similarity.

Index legend: n pairs of samples; t, s positions (uses of a weight); i activations; j neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._networks.modules import format_names


@dataclass(frozen=True, eq=False)
class Contributions:
    r"""Contributions of the parts of a network to the similarity of pairs of samples.

    The similarity is a sum over the activations of all layers [1]_,

    .. math:: k(x, x') = \sum_i \lambda_i(x, x') \, a_i(x) \, a_i(x'), \qquad
        \lambda_i(x, x') = \sum_j e_j(x) \, e_j(x'),

    where :math:`a_i` is an activation that a layer takes in, j are the neurons that use it, and
    :math:`e_j` is the gradient of an output with respect to the value of neuron j, whitened as in
    the similarity. Products of gradients are summed over the outputs. The equation follows from the
    gradient of a weight, :math:`e a^T`; each bias counts as one more activation, equal to 1. The
    paper says *activities* for activations, as the attributes do.

    A layer that uses its weight at several positions t compares each position with each:
    :math:`\sum_{t, s} (e_t \cdot e'_s) (a_t \cdot a'_s)`. All contributions are exact and sum to
    the similarity; negative ones lower it. `NetworkKernel.contributions` returns this object.

    Parameters
    ----------
    similarity : ndarray of shape (n_pairs,), float64
        The similarity of each pair, as `NetworkKernel` computes it.
    activities : dict of str to ndarray of shape (n_pairs, n_activities), float64
        The contribution of each activation, by the name of the parameter that acts on it, in the
        order of the network.
    layers : dict of str to str
        The layer of each parameter, by the name of the parameter; "" is the network itself.
    positions : dict of str to ndarray of shape (n_pairs, n_positions, n_positions), float64
        The contributions of pairs of positions, by the name of the layer.

    See Also
    --------
    NetworkKernel : The similarity. Its method `contributions` returns this object.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sknetsim import NetworkKernel
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
    >>> contributions = NetworkKernel(network).contributions(X[:2], X[1:])
    >>> sorted(contributions.by_layer())
    ['0', '2']
    >>> contributions.by_activity("0.weight").shape
    (2, 2)
    >>> np.allclose(sum(contributions.by_layer().values()), contributions.similarity)
    True
    """

    similarity: np.ndarray
    activities: dict[str, np.ndarray]
    layers: dict[str, str]
    positions: dict[str, np.ndarray]

    def by_layer(self) -> dict[str, np.ndarray]:
        """Sum the contributions of each layer.

        Returns
        -------
        parts : dict of str to ndarray of shape (n_pairs,), float64
            The contributions by the name of the layer, in the order of the network. A parameter
            that several layers share counts for the first of them.
        """
        parts: dict[str, np.ndarray] = {}
        for name, part in self.by_parameter().items():
            layer = self.layers[name]
            parts[layer] = parts[layer] + part if layer in parts else part
        return parts

    def by_parameter(self) -> dict[str, np.ndarray]:
        """Sum the contributions of each parameter.

        Returns
        -------
        parts : dict of str to ndarray of shape (n_pairs,), float64
            The contributions by the name of the parameter, in the order of the network.
        """
        return {name: values.sum(axis=1) for name, values in self.activities.items()}

    def by_activity(self, parameter: str) -> np.ndarray:
        r"""Return the contribution of each activation on which a parameter acts.

        Parameters
        ----------
        parameter : str
            The name of the parameter, such as "0.weight".

        Returns
        -------
        parts : ndarray of shape (n_pairs, n_activities), float64
            The contributions :math:`\lambda_i a_i a_i'`, one for each activation i. The activations
            of a weight are its columns; of a convolution, the offsets in its kernel, channel by
            channel, summed over its groups; of an embedding, its rows; of a transposed convolution,
            the channels of its input. A bias, like any parameter with one axis, has a single one.
            If ``estimator="features"``, each feature is an activation.

        Raises
        ------
        ValueError
            If the kernel compares no parameter of this name.
        """
        if parameter not in self.activities:
            raise ValueError(
                "`parameter` must be the name of a parameter that the kernel compares; got"
                f" {parameter!r}. Use one of {format_names(self.activities)}."
            )
        return self.activities[parameter]

    def by_position(self, layer: str) -> np.ndarray:
        r"""Return the contribution of each pair of positions of a layer.

        Parameters
        ----------
        layer : str
            The name of the layer, such as "features.0". It must be one of the ``positions`` that
            were passed to `NetworkKernel.contributions`.

        Returns
        -------
        parts : ndarray of shape (n_pairs, n_positions, n_positions), float64
            Entry [i, t, s] is :math:`(e_t \cdot e'_s) (a_t \cdot a'_s)`, summed over outputs and
            groups, for position t of the first sample of pair i and position s of the second. If
            the layer has a bias, 1 is added to :math:`a_t \cdot a'_s`. Positions of an image are
            in row-major order; those of several calls of a layer are concatenated. They are
            positions of the output of a layer, but of the input of a transposed convolution. All of
            them sum to the contribution of the layer, without that of its bias if the bias is not
            used at the same positions as the weight (in a transposed convolution, or in a layer
            that shares its weight).

        Raises
        ------
        ValueError
            If the positions of this layer were not requested.
        """
        if layer not in self.positions:
            raise ValueError(
                "`layer` must be a layer whose positions were requested"
                f" ({format_names(self.positions) or 'none were'}); got {layer!r}. Pass it in the"
                " `positions` of NetworkKernel.contributions."
            )
        return self.positions[layer]

    def to_frame(self) -> Any:
        """Make a table with one row per pair and parameter.

        Returns
        -------
        frame : pandas.DataFrame
            A table with the columns "pair" (the number of the pair), "layer", "parameter" and
            "contribution".
        """
        import pandas

        parts = self.by_parameter()
        count = len(self.similarity)
        return pandas.DataFrame(
            {
                "pair": np.tile(np.arange(count), len(parts)),
                "layer": np.repeat([self.layers[name] for name in parts], count),
                "parameter": np.repeat(list(parts), count),
                "contribution": np.concatenate(list(parts.values())),
            }
        )
