"""Process of one method that uses torch."""

import sys
from functools import partial

from lib.networks import make_network_and_samples
from lib.peers import methods
from lib.peers.serving import serve


def main(name, kind, outputs, count, batch_size, result):
    """Serve one method on one network; a batch size of 0 means that the method has none."""
    network, X = make_network_and_samples(kind, int(outputs), int(count))
    call = getattr(methods, name)
    prepare = methods.PREPARE.get(call, lambda network, X: network)
    if int(batch_size):
        call = partial(call, batch_size=int(batch_size))
    serve(partial(prepare, network), call, X, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
