"""Attribution methods of sknetsim, in the form of `lib.attribution.peers`, and all methods."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lib.attribution import peers
from sknetsim import NetworkKernel, TrainingInfluence

#: Dampings in units of the mean eigenvalue; the first is the default of sknetsim.
RELATIVE = (1.0, 0.01, 0.1, 0.3, 3.0, 10.0)
#: Dampings of kronfluence; the first is its default, and None its heuristic .1 of the mean.
KRONFLUENCE = (1e-8, None, 1e-6, 1e-5, 1e-4)
#: Dampings of packages that add a number to the diagonal of a Hessian, after their default.
ABSOLUTE = (1e-4, 1e-3, 3e-3, 1e-2)
#: Largest number of parameters whose dense Hessian is formed.
DENSE = 10_000


@dataclass(frozen=True)
class Method:
    """A function that yields influences for dampings, of which the first is the default.

    A ``joint`` method takes several networks at once; the influences of other methods are averaged
    over networks.
    """

    name: str
    package: str
    function: Any
    dampings: tuple = (None,)
    joint: bool = False


def run_influence(networks, task, dampings, **settings):
    """Yield influences by `TrainingInfluence`."""
    (network,) = networks
    for damping in dampings:
        estimator = TrainingInfluence(network, damping=damping or 1.0, random_state=0, **settings)
        estimator.fit(task.X, task.y)
        yield estimator.influence(task.X_query, task.y_query)


def run_similarity(networks, task, dampings):
    """Yield similarities, negative and a (d - 1)th of the size between different labels."""
    (network,) = networks
    similarities = NetworkKernel(network)(task.X_query, task.X)
    if task.is_classification:
        same = task.y_query.numpy()[:, None] == task.y.numpy()
        similarities *= np.where(same, 1, -1 / (task.sizes[-1] - 1))
    for _ in dampings:
        yield similarities


def make_ours(task):
    """Make the methods of sknetsim; the exact matrix is only for small networks."""
    exact = task.n_parameters <= DENSE
    settings = {"exact Gauss-Newton": {}} if exact else {}
    landmarks = 50 if exact else 100
    settings[f"Gauss-Newton, {landmarks} landmarks"] = {"n_components": landmarks}
    settings |= {"K-FAC": {"curvature": "kfac"}, "EK-FAC": {"curvature": "ekfac"}}
    methods = [
        Method(
            f"TrainingInfluence, {name}", "sknetsim", partial(run_influence, **options), RELATIVE
        )
        for name, options in settings.items()
    ]
    none = partial(run_influence, curvature="none")
    return [
        *methods,
        Method("TrainingInfluence, no curvature", "sknetsim", none),
        Method("NetworkKernel, sign by label", "sknetsim", run_similarity),
    ]


def make_peers(task):
    """Make the methods of other packages that suit the task."""
    methods = [
        Method(
            "EK-FAC", "kronfluence", partial(peers.run_kronfluence, strategy="ekfac"), KRONFLUENCE
        ),
        Method(
            "K-FAC", "kronfluence", partial(peers.run_kronfluence, strategy="kfac"), KRONFLUENCE
        ),
        make_dattri("conjugate gradients", "CG"),
        Method("EK-FAC, given labels", "dattri", peers.run_dattri_ekfac, (0.0, *ABSOLUTE)),
        Method("TracInCP, last network", "captum", peers.run_captum_gradients),
        Method("ArnoldiInfluenceFunction", "captum", peers.run_captum_arnoldi, (1e-3, 1e-2)),
    ]
    if task.n_parameters <= DENSE:
        methods.append(make_dattri("dense Hessian", "Explicit"))
    if task.is_classification:
        dampings = (0.0, 1e-2, 1e-1, 1.0)
        methods += [
            Method("TRAK, 512 projections", "dattri", peers.run_dattri_trak, dampings, joint=True),
            Method("TRAK, 512 projections", "traker", peers.run_traker, dampings, joint=True),
        ]
    return methods


def list_methods(task):
    """List the methods that suit the task."""
    return [*make_ours(task), *make_peers(task)]


def make_dattri(name, algorithm):
    """Make an influence function of dattri."""
    function = partial(peers.run_dattri, name=f"IFAttributor{algorithm}")
    return Method(name, "dattri", function, (0.0, *ABSOLUTE))
