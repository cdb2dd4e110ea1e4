"""Who is measured against whom, and on what."""

from dataclasses import dataclass, replace

QUICK = 10


@dataclass(frozen=True)
class Contestant:
    """A function of `contestants`, or an implementation of neural-tangents."""

    name: str
    function: str
    batch_sizes: tuple = (0,)
    in_jax: bool = False


@dataclass(frozen=True)
class Case:
    """A quantity on a network; the first contestant is ours."""

    name: str
    quantity: str
    kind: str
    outputs: int
    count: int
    contestants: tuple

    def quick(self):
        """With fewer rows."""
        return replace(self, count=self.count // QUICK)


EPOCH = Contestant("epoch, forward and backward", "epoch", (32, 128, 512))
GRAM = Contestant("sknetsim", "gram")
PRODUCTS = Contestant("matrix products of half the pairs, nothing else", "products")
LOOP = Contestant("loop over samples", "loop")
VMAP = Contestant("torch.func vmap(grad)", "vmap_gram")
STRUCTURED = Contestant(
    "neural-tangents, structured derivatives", "STRUCTURED_DERIVATIVES", in_jax=True
)
CONTRACTION = Contestant(
    "neural-tangents, Jacobian contraction", "JACOBIAN_CONTRACTION", in_jax=True
)
DENSITY = (
    Contestant("sknetsim, fit and score", "density"),
    Contestant("sknetsim, fit", "fit"),
    Contestant("sknetsim, score", "score"),
    EPOCH,
)
TRAKER = Contestant("traker, 512 random features", "traker_density", (64,))


def nngeometry(function, *batch_sizes):
    """The contestant, tried at several batch sizes."""
    return Contestant("nngeometry", function, batch_sizes)


def bmdal(*batch_sizes):
    """The contestant, tried at several batch sizes."""
    return Contestant("bmdal_reg", "bmdal_gram", batch_sizes)


CASES = (
    Case(
        "gram",
        "gram",
        "MLP",
        1,
        1000,
        (
            GRAM,
            PRODUCTS,
            bmdal(256, 1000),
            nngeometry("nngeometry_gram", 250, 500, 1000),
            STRUCTURED,
            CONTRACTION,
            VMAP,
            LOOP,
            EPOCH,
        ),
    ),
    Case(
        "gram",
        "gram",
        "MLP",
        1,
        4000,
        (
            GRAM,
            PRODUCTS,
            bmdal(1000, 4000),
            nngeometry("nngeometry_gram", 1000, 2000, 4000),
            STRUCTURED,
            VMAP,
            LOOP,
            EPOCH,
        ),
    ),
    Case(
        "gram",
        "gram",
        "CNN",
        1,
        1000,
        (GRAM, PRODUCTS, nngeometry("nngeometry_gram", 250, 500, 1000), VMAP, LOOP, EPOCH),
    ),
    Case(
        "all 10 x 10 kernels",
        "matrix",
        "CNN",
        10,
        100,
        (Contestant("sknetsim", "matrix"), nngeometry("nngeometry_matrix", 50, 100), EPOCH),
    ),
    Case("whitened trace gram", "gram", "CNN", 10, 200, (GRAM, EPOCH)),
    Case("soft density", "density", "MLP", 1, 10_000, DENSITY),
    Case("soft density", "density", "CNN", 1, 10_000, DENSITY),
    Case("soft density", "density", "MLP", 10, 10_000, DENSITY),
    Case("soft density", "density", "CNN", 10, 2000, DENSITY),
    Case("soft density", "density", "MLP", 1, 1000, (*DENSITY, TRAKER)),
    Case("soft density", "density", "CNN", 1, 1000, (*DENSITY, TRAKER)),
)
