"""Wrong labels by the influence of samples on their own loss."""

import time
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from lib.attribution import peers
from lib.attribution.methods import DENSE
from lib.attribution.tasks import CLASSES
from lib.attribution.training import compute_losses
from lib.timing import describe_error
from sknetsim import TrainingInfluence

#: Share of wrong labels.
SHARE = 0.1


def flip_labels(task, seed):
    """Return the task with a share of labels replaced by others, and which are wrong."""
    generator = np.random.default_rng(seed)
    wrong = np.zeros(len(task.y), bool)
    wrong[generator.choice(len(wrong), int(SHARE * len(wrong)), replace=False)] = True
    shifts = torch.as_tensor(generator.integers(1, CLASSES, len(wrong)) * wrong)
    return replace(task, y=(task.y + shifts) % CLASSES), wrong


def compute_own_losses(network, task):
    """Return the loss of each training sample."""
    with torch.no_grad():
        return compute_losses(network(task.X), task.y).numpy()


def compute_self_influences(network, task, **settings):
    """Return sknetsim's influence of each training sample on its own loss."""
    estimator = TrainingInfluence(network, random_state=0, **settings)
    return estimator.fit(task.X, task.y).self_influence_


def list_detectors(task):
    """List detectors of wrong labels by name; the exact matrix is only for small networks."""
    influences = {
        "K-FAC": {"curvature": "kfac"},
        "EK-FAC": {"curvature": "ekfac"},
        "no curvature": {"curvature": "none"},
    }
    if task.n_parameters <= DENSE:
        influences |= {
            "exact Gauss-Newton": {},
            "exact Gauss-Newton, damping 0.01": {"damping": 0.01},
            "exact Gauss-Newton, damping 10": {"damping": 10.0},
        }
    kronfluence = partial(peers.compute_kronfluence_self_influences, strategy="ekfac")
    return {
        **{
            f"TrainingInfluence, {name}": partial(compute_self_influences, **settings)
            for name, settings in influences.items()
        },
        "kronfluence, EK-FAC": partial(kronfluence, damping=1e-8),
        "kronfluence, EK-FAC, damping None": partial(kronfluence, damping=None),
        "captum, TracInCP, last network": peers.compute_captum_self_influences,
        "loss of the sample": compute_own_losses,
    }


def detect(detector, network, task, wrong):
    """Return the area under the ROC curve and the processor's seconds, or a failure."""
    start = time.process_time()
    try:
        scores = detector(deepcopy(network), task)
    except Exception as error:
        return describe_error(error)
    return roc_auc_score(wrong, scores), time.process_time() - start
