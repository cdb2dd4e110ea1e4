"""Process of one quantity in one checkout, which PYTHONPATH selects."""

import sys
from pathlib import Path

import sknetsim
from lib.engine import cases
from lib.networks import make_network_and_samples
from lib.peers.serving import serve


def main(checkout, function, kind, count, result):
    """Serve one quantity, if sknetsim was imported from the checkout."""
    source = Path(sknetsim.__file__)
    if not source.is_relative_to(checkout):
        raise RuntimeError(
            f"sknetsim must be imported from {checkout}; got {source}. Pass the root folder of a"
            " checkout."
        )
    network, X = make_network_and_samples(kind, 1, int(count))
    serve(lambda X: network, getattr(cases, function), X, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
