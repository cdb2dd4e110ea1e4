"""Active learning in classification: what strategies gain on random choice, beside others.

Writes ``benchmarks/active_learning_images.md``. With ``--quick`` it only prints, after two
rounds of one seed.
"""

from lib import report
from lib.active_learning.loops import Task, introduction, measured, ours, perceptron, table
from lib.active_learning.samplers import SkactivemlSampler
from lib.data.images import mnist
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim.active.strategies import STRATEGIES

SEEDS = 20
LOOP = {"n_initial": 20, "n_queries": 20, "n_rounds": 8}
THEIRS = ("Badge", "CoreSet", "TypiClust")
SAMPLERS = {
    **ours(["random", "badge", "coverage"]),
    **{f"scikit-activeml {name}": SkactivemlSampler(name) for name in THEIRS},
}
OTHERS = [name for name in STRATEGIES if name not in SAMPLERS]


def digits():
    """1,797 digits of 8 x 8 pixels."""
    X, y = load_digits(return_X_y=True)
    return classification((X / 16).astype("float32"), y, 128)


def mnist_5000():
    """The first 5,000 training images of MNIST."""
    found = mnist("train", 5_000)
    return classification(found.inputs.reshape(len(found.labels), -1), found.labels, 256)


def classification(X, y, hidden):
    """Images, their network, and how that is scored."""
    settings = {"criterion": nn.CrossEntropyLoss, "classes": list(range(10)), "batch_size": 32}
    net = perceptron(NeuralNetClassifier, X.shape[1], hidden, 10, epochs=50, **settings)
    return net, X, y, "accuracy"


def lines(quick):
    """The whole text, line by line."""
    packages = ("scikit-learn", "skorch", "numpy", "scikit-activeml")
    network = (
        "Perceptrons of two hidden layers (digits 128 units, MNIST 256), 50 epochs of Adam; those"
        " of scikit-activeml look at the activations of the last hidden layer"
    )
    yield from introduction("Active learning in classification", packages, network, "accuracy")
    for name, make in {"digits": digits, "MNIST, 5,000 images": mnist_5000}.items():
        task = Task(name, make, (), LOOP, SAMPLERS, ours(OTHERS), SEEDS)
        yield from table(task, measured(task, quick))


if __name__ == "__main__":
    report.run(__file__, __doc__, "two rounds of one seed", lines)
