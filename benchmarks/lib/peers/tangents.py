"""Process of neural-tangents, in its own environment without torch."""

import sys
import types

import jax
import numpy as np
from jax._src import source_info_util
from jax.interpreters import ad

# neural-tangents imports its conversions for TensorFlow, which is not installed.
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")
# Its structured derivatives use the former place of these two modules.
ad.source_info_util, ad.config = source_info_util, jax.config

import neural_tangents  # noqa: E402

from lib.peers.serving import serve  # noqa: E402


def apply_perceptron(layers, X):
    """Apply the network with the given weights and biases."""
    *hidden, (weight, bias) = layers
    for hidden_weight, hidden_bias in hidden:
        X = jax.nn.relu(X @ hidden_weight.T + hidden_bias)
    return X @ weight.T + bias


def make_gram_function(implementation):
    """Make the function of layers and samples that computes the cosines of all pairs."""
    kernel = neural_tangents.empirical_ntk_fn(
        apply_perceptron,
        trace_axes=(-1,),
        vmap_axes=0,
        implementation=neural_tangents.NtkImplementation[implementation],
    )

    def compute_cosines(layers, X):
        gram = kernel(X, None, layers)
        norms = jax.numpy.sqrt(jax.numpy.diagonal(gram))
        return gram / norms[:, None] / norms

    return jax.jit(compute_cosines)


def main(implementation, data, result):
    """Serve the gram matrix; compilation for the number of samples is not timed."""
    saved = np.load(data)
    parameters = [jax.numpy.asarray(saved[name]) for name in saved.files if name != "X"]
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    gram = make_gram_function(implementation)

    def prepare(X):
        return gram.lower(layers, X).compile()

    serve(
        prepare,
        lambda compiled, X: compiled(layers, X).block_until_ready(),
        jax.numpy.asarray(saved["X"]),
        result,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
