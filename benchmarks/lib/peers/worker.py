"""The process of one contestant that lives on torch."""

import sys
from functools import partial

from lib.networks import network_and_rows
from lib.peers import contestants
from lib.peers.serving import serve


def main(name, kind, outputs, count, batch_size, result):
    """Serve one contestant on one network; a batch size of 0 says that it has none."""
    network, X = network_and_rows(kind, int(outputs), int(count))
    call = getattr(contestants, name)
    prepare = contestants.PREPARE.get(call, lambda network, X: network)
    if int(batch_size):
        call = partial(call, batch_size=int(batch_size))
    serve(partial(prepare, network), call, X, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
