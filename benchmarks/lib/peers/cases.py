"""Cases of ``peers.py``: quantities on networks, and the methods that compute them."""

from dataclasses import dataclass, replace

QUICK = 10


@dataclass(frozen=True)
class Method:
    """A function of `lib.peers.methods`, or an implementation of neural-tangents."""

    name: str
    function: str
    batch_sizes: tuple = (0,)
    in_jax: bool = False


@dataclass(frozen=True)
class Case:
    """A quantity on a network; the first method is that of sknetsim."""

    name: str
    quantity: str
    kind: str
    outputs: int
    count: int
    methods: tuple

    def shorten(self):
        """Return the case with fewer samples."""
        return replace(self, count=self.count // QUICK)


EPOCH = Method("epoch (forward and backward)", "run_epoch", (32, 128, 512))
GRAM = Method("sknetsim", "compute_gram")
MATRIX = Method("sknetsim", "compute_matrix")
PRODUCTS = Method("only the matrix products, half of the pairs", "multiply_factors")
LOOP = Method("loop over samples", "compute_gram_by_loop")
VMAP = Method("torch.func vmap(grad)", "compute_vmap_gram")
STRUCTURED = Method(
    "neural-tangents, structured derivatives", "STRUCTURED_DERIVATIVES", in_jax=True
)
CONTRACTION = Method("neural-tangents, Jacobian contraction", "JACOBIAN_CONTRACTION", in_jax=True)
DENSITY = (
    Method("sknetsim, fit and score", "compute_density"),
    Method("sknetsim, fit", "run_density_fit"),
    Method("sknetsim, score", "score_density"),
    EPOCH,
)
TRAKER = Method("traker, 512 random features", "compute_traker_density", (64,))


def make_nngeometry(function, *batch_sizes):
    """Make the method of nngeometry, to be tried at several batch sizes."""
    return Method("nngeometry", function, batch_sizes)


def make_bmdal(*batch_sizes):
    """Make the method of bmdal_reg, to be tried at several batch sizes."""
    return Method("bmdal_reg", "compute_bmdal_gram", batch_sizes)


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
            make_bmdal(256, 1000),
            make_nngeometry("compute_nngeometry_gram", 250, 500, 1000),
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
            make_bmdal(1000, 4000),
            make_nngeometry("compute_nngeometry_gram", 1000, 2000, 4000),
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
        (
            GRAM,
            PRODUCTS,
            make_nngeometry("compute_nngeometry_gram", 250, 500, 1000),
            VMAP,
            LOOP,
            EPOCH,
        ),
    ),
    Case(
        "all 10 x 10 kernels",
        "matrix",
        "CNN",
        10,
        100,
        (MATRIX, make_nngeometry("compute_nngeometry_matrix", 50, 100), EPOCH),
    ),
    Case("whitened trace gram", "gram", "CNN", 10, 200, (GRAM, EPOCH)),
    Case("soft density", "density", "MLP", 1, 10_000, DENSITY),
    Case("soft density", "density", "CNN", 1, 10_000, DENSITY),
    Case("soft density", "density", "MLP", 10, 10_000, DENSITY),
    Case("soft density", "density", "CNN", 10, 2000, DENSITY),
    Case("soft density", "density", "MLP", 1, 1000, (*DENSITY, TRAKER)),
    Case("soft density", "density", "CNN", 1, 1000, (*DENSITY, TRAKER)),
)
