"""Networks retrained without groups of samples, and the influence that predicts the change."""

import numpy as np
from scipy.stats import spearmanr
from sklearn.cluster import KMeans

from lib.attribution.truth import retrain
from sknetsim import TrainingInfluence

#: Number of groups.
GROUPS = 20


def make_groups(task, kind):
    """Return the group of each sample: "random", or "similar" samples by their inputs."""
    count = len(task.X)
    if kind == "random":
        return np.random.default_rng(0).permutation(count) % GROUPS
    return KMeans(GROUPS, n_init=3, random_state=0).fit_predict(task.X.numpy())


def retrain_without_groups(task, groups, retrainings):
    """Return decreases of query losses by groups (2, groups, queries), by halves of retrainings.

    Each half has its own networks that are trained on all samples.
    """
    everything = np.ones((1, len(groups)), bool)
    full = retrain(task, everything, 4 * retrainings, seed=1).measured["loss"][0]
    members = [groups != group for group in range(GROUPS)]
    parts = [
        retrain(task, member[None], retrainings, seed=1000 * (number + 2)).measured["loss"][0]
        for number, member in enumerate(members)
    ]
    halves = []
    for start in (0, 1):
        # "loss" is the negative loss, so the difference is positive for groups that help.
        without = np.stack([part[start::2].mean(0) for part in parts])
        halves.append(full[start::2].mean(0) - without)
    return np.stack(halves)


def predict_changes(networks, task, groups, **settings):
    """Return the mean influences (groups, queries) of groups over networks."""
    total = 0.0
    for network in networks:
        estimator = TrainingInfluence(network, random_state=0, **settings).fit(task.X, task.y)
        total = total + estimator.group_influence(task.X_query, groups, task.y_query)
    return total.T / len(networks)


def compare_changes(predicted, halves):
    """Return Pearson's and Spearman's correlations, the slope, and the agreement of the halves.

    The values of all groups and queries are compared; the slope is that of the retrained changes
    on the predicted ones.
    """
    first, second = halves[0].ravel(), halves[1].ravel()
    retrained, predicted = (first + second) / 2, predicted.ravel()
    pearson = np.corrcoef(predicted, retrained)[0, 1]
    agreement = np.corrcoef(first, second)[0, 1]
    return {
        "Pearson": pearson,
        "Spearman": spearmanr(predicted, retrained).statistic,
        "slope": pearson * retrained.std() / predicted.std(),
        "ceiling": (2 * agreement / (1 + agreement)) ** 0.5,
    }
