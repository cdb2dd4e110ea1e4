"""Why two inputs are similar: what layers, parameters, activities and positions add to it.

Index legend: n pairs of inputs; t, s positions (uses of a weight); i activities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._networks.network import format_names


@dataclass(frozen=True, eq=False)
class Contributions:
    r"""What the parts of a network add to the similarity of pairs of inputs.

    With a the activities that a layer takes in and e the gradients of the outputs in what it puts
    out, both whitened as the similarity has them, the gradient of a weight is
    :math:`e a^T`. Hence the similarity is a sum over all activities,

    .. math:: k(x, x') = \sum_i \lambda_i(x, x') \, a_i(x) \, a_i(x'), \qquad
        \lambda_i = \sum_j e_j(x) \, e_j(x'),

    j the neurons that use activity i, and each bias one more activity equal to 1 [1]_. A layer that
    uses its weight at positions t compares each with each:
    :math:`\sum_{t, s} (e_t \cdot e'_s) (a_t \cdot a'_s)`. All parts are exact, and sum to the
    similarity; negative ones lower it. `NetworkKernel.contributions` makes them.

    Parameters
    ----------
    similarity : ndarray of shape (n_pairs,), float64
        What `NetworkKernel` gives for each pair.
    activities : dict of str to ndarray of shape (n_pairs, n_activities), float64
        What each activity adds, by the name of the parameter, in the network's order.
    layers : dict of str to str
        The layer of each parameter; "" is the network itself.
    positions : dict of str to ndarray of shape (n_pairs, n_positions, n_positions), float64
        What pairs of positions add, by the name of the layer.

    See Also
    --------
    NetworkKernel : The similarity, and what makes these parts of it.

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
    >>> found = NetworkKernel(network).contributions(X[:2], X[1:])
    >>> sorted(found.by_layer())
    ['0', '2']
    >>> found.by_activity("0.weight").shape
    (2, 2)
    >>> np.allclose(sum(found.by_layer().values()), found.similarity)
    True
    """

    similarity: np.ndarray
    activities: dict[str, np.ndarray]
    layers: dict[str, str]
    positions: dict[str, np.ndarray]

    def by_layer(self) -> dict[str, np.ndarray]:
        """What each layer adds.

        Returns
        -------
        parts : dict of str to ndarray of shape (n_pairs,), float64
            By the layer's name, in the network's order. A parameter that several layers share
            counts for the first of them.
        """
        parts: dict[str, np.ndarray] = {}
        for name, part in self.by_parameter().items():
            layer = self.layers[name]
            parts[layer] = parts[layer] + part if layer in parts else part
        return parts

    def by_parameter(self) -> dict[str, np.ndarray]:
        """What each parameter adds.

        Returns
        -------
        parts : dict of str to ndarray of shape (n_pairs,), float64
            By the parameter's name, in the network's order.
        """
        return {name: values.sum(axis=1) for name, values in self.activities.items()}

    def by_activity(self, parameter: str) -> np.ndarray:
        r"""What each activity that a parameter acts on adds.

        Parameters
        ----------
        parameter : str
            Its name, such as "0.weight".

        Returns
        -------
        parts : ndarray of shape (n_pairs, n_activities), float64
            :math:`\lambda_i a_i a_i'` for each activity i: for a weight, one for each of its
            columns (of a convolution, channel by channel the offsets in the kernel, summed over
            its groups), for an embedding one for each of its rows, for a transposed convolution
            one for each channel that it takes in. A bias, or any parameter of one axis, has a
            single one; features are one each.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        if parameter not in self.activities:
            raise ValueError(
                f"parameter is {parameter!r}; allowed are {format_names(self.activities)}: name"
                " one of those that the kernel compares."
            )
        return self.activities[parameter]

    def by_position(self, layer: str) -> np.ndarray:
        r"""What each pair of positions adds, of a layer that uses its weight at positions.

        Parameters
        ----------
        layer : str
            Its name, such as "features.0": one of those that were asked for as ``positions``.

        Returns
        -------
        parts : ndarray of shape (n_pairs, n_positions, n_positions), float64
            [i, t, s] is :math:`(e_t \cdot e'_s) (a_t \cdot a'_s)`, summed over the outputs and
            groups, for position t of the first input of pair i and position s of the second; 1 is
            added to a.a' for a bias. Positions of an image go row by row, and those of several
            calls of the layer one call after the other. They are where a layer puts something
            out, but where a transposed convolution takes something in. All sum to what the layer
            adds; without the bias where that is used elsewhere too (that of a transposed
            convolution, or of a layer that shares its weight).

        Raises
        ------
        ValueError
            If these positions were not asked for.
        """
        if layer not in self.positions:
            raise ValueError(
                f"layer is {layer!r}; allowed are layers whose positions were asked for"
                f" ({format_names(self.positions) or 'none were'}): name it in the `positions` of"
                " NetworkKernel.contributions."
            )
        return self.positions[layer]

    def to_frame(self) -> Any:
        """Give one row per pair and parameter.

        Returns
        -------
        frame : pandas.DataFrame
            With the columns "pair" (its number), "layer", "parameter" and "contribution".
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
