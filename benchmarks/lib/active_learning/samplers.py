"""Samplers of other packages with the interface of `active_learning_curve`: fit, then query."""

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

np.Inf = np.inf  # bmdal_reg was written for numpy 1.

FEATURES, SIGMA = 512, 1e-3
# Transforms of the gradient kernel that the authors of bmdal_reg recommend for each selection.
TRANSFORMS = {
    "lcmd": [("rp", [FEATURES])],
    "maxdet": [("rp", [FEATURES]), ("train", [SIGMA, None])],
}


class BmdalSampler(BaseEstimator):
    """``select_batch`` of bmdal_reg with the gradient kernel, randomly projected."""

    def __init__(self, selection="lcmd", estimator=None, random_state=None):
        self.selection = selection
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X, y):
        self.X_, self.y_ = torch.tensor(X), torch.tensor(y)
        return self

    def query(self, X, n_queries):
        from bmdal_reg.bmdal.algorithms import select_batch
        from bmdal_reg.bmdal.feature_data import TensorFeatureData

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            indices, _ = select_batch(
                batch_size=n_queries,
                models=[self.estimator.module_],
                data={
                    "train": TensorFeatureData(self.X_),
                    "pool": TensorFeatureData(torch.tensor(X)),
                },
                y_train=self.y_,
                base_kernel="grad",
                kernel_transforms=TRANSFORMS[self.selection],
                selection_method=self.selection,
                maxdet_sigma=SIGMA,
                allow_float64=True,
                verbosity=0,
            )
        return indices.numpy()


class SkactivemlSampler(BaseEstimator):
    """Strategy of scikit-activeml on the activations of the last hidden layer."""

    def __init__(self, strategy="Badge", estimator=None, random_state=None):
        self.strategy = strategy
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X, y):
        self.X_, self.y_ = X, y
        return self

    def query(self, X, n_queries):
        from skactiveml import pool

        hidden = self._compute_activations(np.concatenate([self.X_, X]))
        # scikit-activeml marks the samples of the pool by a label of NaN.
        labels = np.concatenate([self.y_.astype(float), np.full(len(X), np.nan)])
        strategy = getattr(pool, self.strategy)(random_state=self.random_state)
        head = [wrap_last_layer(self.estimator.module_[-1])] if self.strategy == "Badge" else []
        fitted = {"fit_clf": False} if head else {}
        indices = strategy.query(hidden, labels, *head, **fitted, batch_size=n_queries)
        return np.asarray(indices) - len(self.X_)

    def _compute_activations(self, X):
        with torch.no_grad():
            hidden = nn.Sequential(*list(self.estimator.module_)[:-1])
            return hidden(torch.tensor(X)).numpy()


def wrap_last_layer(layer):
    """Wrap a trained last layer as a classifier of scikit-activeml on its input activations."""
    from skactiveml.base import SkactivemlClassifier

    class Head(SkactivemlClassifier):
        def fit(self, X, y):
            return self

        def predict_proba(self, X):
            with torch.no_grad():
                return layer(torch.tensor(X)).softmax(dim=1).numpy()

    return Head()
