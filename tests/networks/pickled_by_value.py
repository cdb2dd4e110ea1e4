"""Networks whose classes and functions are pickled by value, because no module contains them."""

import abc
import collections
import dataclasses
import enum
import functools

import torch
from torch import nn

MAIN = """
import torch
from torch import nn

class InMain(nn.Module):
    class Inner(nn.Module):
        def forward(self, X):
            return X.tanh()

    def __init__(self):
        super().__init__()
        self.layer, self.inner = nn.Linear(3, 2), self.Inner()
        self.scale = lambda scores: 2 * scores

    def forward(self, X):
        return self.scale(self.inner(self.layer(X)))
"""


def make_class_of_main():
    names = {"__name__": "__main__"}
    exec(MAIN, names)
    return names["InMain"]()


def make_local_class():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, X):
            class Nested:
                scale = 2.0

            return Nested.scale * self.layer(X)

    return Local()


def make_base(**members):
    """Return a network of a class with other members."""

    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, X):
            return self.layer(X)

    return type("Made", (Base,), members)()


def make_inherited_values():
    """Return a network of a class that repeats values of its base classes."""

    class Base(nn.Module):
        _version, name, sizes = 1, "a name with spaces", (1, 2)

        def forward(self, X):
            return X

    members = {"__doc__": "Text.", "_version": 1, "name": Base.name, "sizes": Base.sizes}
    return type("Made", (Base,), members)()


def make_plain_objects():
    class Empty:
        pass

    network = make_local_class()
    network.partial = functools.partial(lambda X, scale: X * scale, scale=2)
    network.empty = Empty()
    return network


def make_functions():
    def outer(scale):
        def activate(scores, *, power=2):
            return (lambda inner: inner**power)(scores * scale)

        return activate

    return make_base(
        activate=staticmethod(outer(3)),
        build=classmethod(lambda kind: kind()),
        gain=property(lambda self: 2, lambda self, value: None),
        halve=functools.partialmethod(lambda self, factor: factor, 0.5),
        counted=functools.partial(outer(2), power=3),
    )


def make_recursive_functions():
    def even(count):
        return count == 0 or odd(count - 1)

    def odd(count):
        return count != 0 and even(count - 1)

    def undefined():
        return later

    if not even:
        later = None
    return make_base(even=staticmethod(even), odd=staticmethod(odd), later=staticmethod(undefined))


def make_decorated():
    network = make_base(forward=torch.no_grad()(lambda self, X: self.layer(X)))
    network.pool = torch.nn.functional.max_pool2d
    network.vectorized = torch.vmap(lambda row: row.sum())
    return network


def make_dataclass():
    @dataclasses.dataclass(eq=False)
    class Options(nn.Module):
        scale: float = 2.0
        sizes: list = dataclasses.field(default_factory=lambda: [1, 2])

        def __post_init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

    @dataclasses.dataclass(frozen=True)
    class Settings:
        name: str = "a"

    network = Options()
    network.settings = Settings()
    return network


def make_abstract():
    class Base(nn.Module, abc.ABC):
        @abc.abstractmethod
        def forward(self, X):
            pass

    class Concrete(Base):
        __slots__ = ("slot",)

        def forward(self, X):
            return X

    return Concrete()


def make_enum():
    class Mode(enum.Enum):
        ADD = 1
        MULTIPLY = "two"

        def apply(self, left, right):
            return left + right if self is Mode.ADD else left * right

    class Flag(enum.IntFlag):
        A = 1
        B = 2

    network = make_base(modes=[Mode.ADD, Mode.MULTIPLY])
    network.mode, network.flag = Mode.MULTIPLY, Flag.A | Flag.B
    return network


def make_containers():
    class Table(dict):
        def __missing__(self, key):
            return 2

    network = make_base(scales=[1.0, 2.0], table={"a": torch.arange(3.0)})
    network.default = collections.defaultdict(lambda: 3, a=1)
    network.ordered = collections.OrderedDict(b=1, a=2)
    network.table = Table(a=1)
    network.pair = collections.namedtuple("Pair", "left right")(1, 2)
    network.words = {"one", "two", "three", "four", "five"}
    network.functions = {lambda X: X, lambda X: -X, torch.tanh}
    network.counts = collections.Counter("abca")
    return network


def make_weight_norm():
    return nn.Sequential(
        nn.utils.weight_norm(nn.Linear(3, 2)), nn.utils.spectral_norm(nn.Linear(2, 2))
    )


def make_hooks():
    network = make_local_class()
    for factor in (2, 3):
        network.layer.register_forward_hook(
            lambda layer, inputs, output, factor=factor: factor * output
        )
    network.layer.register_forward_pre_hook(lambda layer, inputs: None, with_kwargs=False)
    return network


def make_lazy():
    network = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyConv1d(2, 1))
    network[0](torch.ones(2, 3))
    network[2](torch.ones(1, 4, 5))
    return network


def make_shared_parameters():
    network = nn.Sequential(nn.Linear(3, 3), make_local_class(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


def make_recurrent():
    return nn.ModuleList([nn.LSTM(3, 4, 2), nn.MultiheadAttention(4, 2), nn.BatchNorm1d(4)])


def make_sparse_buffer():
    network = make_local_class()
    network.register_buffer("graph", torch.eye(3).to_sparse())
    network.register_buffer("complex", torch.eye(3, dtype=torch.complex64).conj())
    network.register_buffer("number", torch.tensor(3))
    return network


def make_traced():
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 2), nn.Tanh()))


def make_cycle():
    network = make_local_class()
    network.__dict__["parent"] = [network]
    return network


NETWORKS = {
    name.removeprefix("make_"): make
    for name, make in list(globals().items())
    if name.startswith("make_")
}
