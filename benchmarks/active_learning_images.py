"""Active learning in classification: gains of strategies, compared with scikit-activeml.

Writes ``benchmarks/results/active_learning_images.md``. With ``--quick`` it only prints, after two
rounds of one seed.
"""

from lib.active_learning.loops import (
    Task,
    generate_introduction,
    generate_table,
    make_samplers,
    measure_curves,
)
from lib.active_learning.samplers import SkactivemlSampler
from lib.report import write_report
from lib.training import make_perceptron_net
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim.active.strategies import STRATEGIES
from sknetsim.datasets import load_mnist

SEEDS = 20
LOOP = {"n_initial": 20, "n_queries": 20, "n_rounds": 8}
THEIRS = ("Badge", "CoreSet", "TypiClust")
SAMPLERS = {
    **make_samplers(["random", "badge", "coverage"]),
    **{f"scikit-activeml {name}": SkactivemlSampler(name) for name in THEIRS},
}
OTHERS = [name for name in STRATEGIES if name not in SAMPLERS]


def make_digits():
    """Return the task of 1,797 digits of 8 x 8 pixels."""
    X, y = load_digits(return_X_y=True)
    return make_classification((X / 16).astype("float32"), y, 128)


def make_mnist():
    """Return the task of the first 5,000 training images of MNIST."""
    digits = load_mnist("train", 5_000)
    return make_classification(digits.inputs.reshape(len(digits.labels), -1), digits.labels, 256)


def make_classification(X, y, hidden):
    """Return a network, images and labels, and the score."""
    settings = {"criterion": nn.CrossEntropyLoss, "classes": list(range(10)), "batch_size": 32}
    net = make_perceptron_net(NeuralNetClassifier, X.shape[1], hidden, 10, epochs=50, **settings)
    return net, X, y, "accuracy"


def generate_report(quick):
    """Yield the report, line by line."""
    yield from generate_introduction(
        __file__,
        "Active learning in classification",
        packages=("scikit-learn", "skorch", "numpy", "scikit-activeml"),
        networks=(
            "Perceptrons with two hidden layers (128 units for digits, 256 for MNIST), 50 epochs of"
            " Adam; the strategies of scikit-activeml use the activations of the last hidden layer"
        ),
        score="accuracy",
    )
    for name, make in {"digits": make_digits, "MNIST, 5,000 images": make_mnist}.items():
        task = Task(name, make, (), LOOP, SAMPLERS, make_samplers(OTHERS), SEEDS)
        yield from generate_table(task, measure_curves(task, quick))


if __name__ == "__main__":
    write_report(__file__, __doc__, "two rounds of one seed", generate_report)
