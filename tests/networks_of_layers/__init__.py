"""Networks of every kind of layer, as test cases by family.

Samples of most networks have 4 positions, and tests use 4 samples too, so that the axes of samples
and positions have the same length.
"""

from . import attention, derived, raw, recurrent, routes, transformers

#: Cases of all families.
CASES = [
    *recurrent.CASES,
    *attention.CASES,
    *raw.CASES,
    *derived.CASES,
    *routes.CASES,
    *transformers.CASES,
]
