"""Networks that a benchmark trains."""

import torch
from sklearn.datasets import load_digits
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR


class Perceptron(nn.Sequential):
    """Perceptron with two hidden layers and ReLU; skorch makes it with new weights each time."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )


def make_net(kind, module, epochs, rate, **settings):
    """Make a skorch net with Adam, whose learning rate decays linearly to a hundredth."""
    return kind(
        module,
        optimizer=torch.optim.Adam,
        lr=rate,
        max_epochs=epochs,
        train_split=None,
        callbacks=[("decay", LRScheduler(LinearLR, end_factor=0.01, total_iters=epochs))],
        callbacks__print_log=None,
        verbose=0,
        **settings,
    )


def make_perceptron_net(kind, inputs, hidden, outputs, epochs, **settings):
    """Make a skorch net with a `Perceptron`, see `make_net`."""
    sizes = {"module__inputs": inputs, "module__hidden": hidden, "module__outputs": outputs}
    return make_net(kind, Perceptron, epochs, 3e-3, **sizes, **settings)


def train_digits_network():
    """Train a perceptron 64-128-128-10 on 1,000 of scikit-learn's digits.

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode.
    train, held_out : tensors of shape (1000, 64) and (797, 64)
        Digits that the network was trained on, and the others.
    """
    images, labels = load_digits(return_X_y=True)
    torch.manual_seed(0)
    order = torch.randperm(len(images))
    X = torch.as_tensor(images / 16, dtype=torch.float32)[order]
    y = torch.as_tensor(labels)[order]
    network = Perceptron(64, 128, 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(X[:1000]), y[:1000]).backward()
        optimizer.step()
    return network.eval(), X[:1000], X[1000:]
