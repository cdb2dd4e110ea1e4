"""The process of neural-tangents, in an environment of its own, without torch."""

import sys
import types

import jax
import numpy as np
from jax._src import source_info_util
from jax.interpreters import ad

# Its conversions for TensorFlow are imported with it, and want TensorFlow.
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")
# Its structured derivatives look for these in their old place.
ad.source_info_util, ad.config = source_info_util, jax.config

import neural_tangents  # noqa: E402

from lib.peers.serving import serve  # noqa: E402


def perceptron(layers, rows):
    """The network, from its weights and biases."""
    *hidden, (weight, bias) = layers
    for hidden_weight, hidden_bias in hidden:
        rows = jax.nn.relu(rows @ hidden_weight.T + hidden_bias)
    return rows @ weight.T + bias


def gram_function(implementation):
    """The compiled function that gives the cosines of all pairs."""
    chosen = neural_tangents.NtkImplementation[implementation]
    kernel = neural_tangents.empirical_ntk_fn(
        perceptron, trace_axes=(-1,), vmap_axes=0, implementation=chosen
    )

    def cosines(layers, rows):
        gram = kernel(rows, None, layers)
        norms = jax.numpy.sqrt(jax.numpy.diagonal(gram))
        return gram / norms[:, None] / norms

    return jax.jit(cosines)


def main(implementation, data, result):
    """Serve the gram; compiling for the number of rows is not timed."""
    saved = np.load(data)
    parameters = [jax.numpy.asarray(saved[name]) for name in saved.files if name != "X"]
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    gram = gram_function(implementation)

    def compiled(rows):
        return gram.lower(layers, rows).compile()

    serve(
        compiled,
        lambda call, rows: call(layers, rows).block_until_ready(),
        jax.numpy.asarray(saved["X"]),
        result,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
