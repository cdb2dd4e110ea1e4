"""ActiveLearningSampler: from networks to choices."""

import pickle
import types

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from sknetsim import ActiveLearningSampler, NetworkDensity, NetworkKernel
from sknetsim.active.strategies import STRATEGIES

from ..cases import NETWORKS, build

CLASSIFIERS_ONLY = {"badge", "entropy", "margin"}
WITHOUT_CLASSES = sorted(set(STRATEGIES) - CLASSIFIERS_ONLY)
ALONE = {"badge", "density", "entropy", "kcenter", "margin", "maxdet", "reliability"}
every_strategy = pytest.mark.parametrize("strategy", sorted(STRATEGIES))


def rows(count=30, seed=0, width=4):
    return np.random.RandomState(seed).normal(size=(count, width)).astype("float32")


def classifier(outputs=3, criterion=nn.CrossEntropyLoss, ending=(), width=4):
    module = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, outputs), *ending)
    return NeuralNetClassifier(module, criterion=criterion, verbose=0).initialize()


def regressor(outputs=1, width=4):
    module = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, outputs))
    return NeuralNetRegressor(module, max_epochs=1, train_split=None, verbose=0).initialize()


def fitted(strategy, estimator=None, n_labelled=8, **params):
    sampler = ActiveLearningSampler(
        classifier() if estimator is None else estimator,
        strategy=strategy,
        random_state=0,
        **params,
    )
    return sampler.fit(rows(n_labelled, seed=1))


@every_strategy
def test_indices_are_distinct_positions_in_the_pool(strategy):
    indices = fitted(strategy).query(rows(), n_queries=7)
    assert indices.dtype == np.int64
    assert len(set(indices.tolist())) == 7
    assert set(indices) <= set(range(30))


@every_strategy
def test_utilities_have_a_row_for_each_choice(strategy):
    indices, utilities = fitted(strategy).query(rows(), n_queries=3, return_utilities=True)
    assert utilities.shape == (3, 30)
    assert utilities.dtype == np.float64
    for number, row in enumerate(utilities):
        assert np.flatnonzero(np.isnan(row)).tolist() == sorted(indices[:number])


@every_strategy
def test_the_whole_pool_can_be_asked_for(strategy):
    assert sorted(fitted(strategy).query(rows(9), n_queries=9)) == list(range(9))


@every_strategy
def test_one_seed_gives_one_answer(strategy):
    net = classifier()
    first, second = (fitted(strategy, net).query(rows(), 5).tolist() for _ in range(2))
    assert first == second


@every_strategy
def test_score_samples_is_offered_where_a_sample_alone_has_a_utility(strategy):
    sampler = fitted(strategy)
    assert hasattr(sampler, "score_samples") == (strategy in ALONE)
    if strategy in ALONE:
        scores = sampler.score_samples(rows())
        utilities = sampler.query(rows(), return_utilities=True)[1][0]
        np.testing.assert_allclose(scores, utilities)


@pytest.mark.parametrize("strategy", sorted(ALONE))
def test_the_utility_of_a_sample_does_not_depend_on_the_pool(strategy):
    sampler = fitted(strategy, n_components=16)
    together = sampler.score_samples(rows())
    alone = np.concatenate([sampler.score_samples(rows()[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together[:5], rtol=1e-4, atol=1e-4)


@every_strategy
def test_bytes_keep_a_sampler(strategy):
    sampler = fitted(strategy)
    loaded = pickle.loads(pickle.dumps(sampler))
    assert loaded.query(rows(), 5).tolist() == sampler.query(rows(), 5).tolist()


# Quantities against the other estimators.


def exact(strategy, network, X, output="all", **params):
    sampler = ActiveLearningSampler(
        network, output, strategy=strategy, n_components=None, random_state=0, **params
    )
    return sampler.fit(X)


@pytest.mark.parametrize("case", NETWORKS[:1] + NETWORKS[7:12], ids=lambda case: case.name)
def test_maxdet_is_the_variance_of_a_gaussian_process(case):
    network, X = build(case, n_samples=12)
    gram = NetworkKernel(network, case.output, normalize=False)(X)
    gram *= np.trace(gram).clip(1) / np.trace(gram)  # The factor 1 / d does not matter.
    noise = 1e-6 * np.diag(gram)[:8].mean()
    inside, cross = gram[:8, :8], gram[8:, :8]
    solved = np.linalg.solve(inside + noise * np.eye(8), cross.T)
    expected = np.diag(gram)[8:] - np.einsum("nz,zn->n", cross, solved)
    found = exact("maxdet", network, X[:8], case.output).score_samples(X[8:])
    scale = np.diag(gram)[8:].mean()
    ratio = (found / expected)[expected > 1e-3 * scale]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


@pytest.mark.parametrize("method", ["soft", "threshold", "power"])
@pytest.mark.parametrize("case", NETWORKS[:3], ids=lambda case: case.name)
def test_density_is_the_count_of_network_density(case, method):
    network, X = build(case, n_samples=12)
    expected = NetworkDensity(network, method=method, threshold=0.6).fit(X[:8]).neighbor_count(X)
    found = exact("density", network, X[:8], method=method, threshold=0.6).score_samples(X)
    np.testing.assert_allclose(found, -expected, atol=1e-9)


@pytest.mark.parametrize("case", NETWORKS[:3], ids=lambda case: case.name)
def test_reliability_is_that_of_network_density(case):
    network, X = build(case, n_samples=12)
    expected = NetworkDensity(network).fit(X[:8]).reliability(X)
    found = exact("reliability", network, X[:8]).score_samples(X)
    np.testing.assert_allclose(found, -expected, rtol=1e-9)


def test_kcenter_measures_distances_of_gradients():
    network, X = build(NETWORKS[0], n_samples=12)
    gram = NetworkKernel(network, normalize=False)(X) * 3  # Of three outputs, not their mean.
    squares = np.diag(gram)
    distances = squares[:, None] + squares - 2 * gram
    found = exact("kcenter", network, X[:8]).score_samples(X[8:])
    np.testing.assert_allclose(found, distances[8:, :8].min(axis=1), rtol=1e-9)


def test_badge_looks_at_gradients_of_the_loss_at_the_predicted_class():
    net, X = classifier(), rows(6)
    expected = []
    for row in torch.tensor(X):
        logits = net.module_(row[None])
        loss = nn.functional.cross_entropy(logits, logits.argmax(dim=1))
        found = torch.autograd.grad(loss, list(net.module_.parameters()))
        expected.append(sum(float((gradient**2).sum()) for gradient in found))
    scores = exact("badge", net, rows(3, seed=1)).score_samples(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
def test_a_last_sigmoid_does_not_matter(strategy):
    logits = classifier(1, nn.BCEWithLogitsLoss, [nn.Flatten(0)])
    with torch.no_grad():
        logits.module_[0].weight.mul_(3)
    ending = [*logits.module_, nn.Sigmoid()]
    probabilities = NeuralNetClassifier(nn.Sequential(*ending), criterion=nn.BCELoss).initialize()
    expected, found = (
        exact(strategy, net, rows(3, seed=1)).score_samples(rows())
        for net in (logits, probabilities)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strategy", ["kcenter", "lcmd"])
def test_what_all_gradients_have_in_common_costs_no_digits(strategy):
    X = torch.tensor([2000.0, 300.0]) + torch.tensor(rows(60, width=2))
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
    single = exact(strategy, network, X[:5]).query(X[5:], 10)
    double = exact(strategy, network.double(), X[:5].double()).query(X[5:].double(), 10)
    assert single.tolist() == double.tolist()


def test_reliability_of_tiny_gradients_is_a_number():
    network = nn.Linear(2, 1, bias=False)
    pool = torch.tensor([[1e-22, 0], [0, 1.0], [0, 2], [1e-30, 0]])
    sampler = exact("reliability", network, torch.tensor([[0.0, 1.0]]))
    assert np.isfinite(sampler.score_samples(pool)).all()
    assert sorted(sampler.query(pool, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", ["maxdet", "bait", "frank-wolfe"])
def test_a_posterior_beyond_the_budget_is_refused(strategy):
    network = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 1))
    sampler = exact(strategy, network, rows(5))
    with sklearn.config_context(working_memory=16), pytest.raises(MemoryError, match="1,201 feat"):
        sampler.query(rows(), 3)


@pytest.mark.parametrize("strategy", ["lcmd", "coverage", "density"])
def test_sketches_choose_what_gradients_choose_where_choices_are_plain(strategy):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
    pool = np.repeat(10 * np.eye(4, dtype="float32")[1:], [9, 6, 3], axis=0)
    pool = torch.tensor(pool + 0.1 * rows(18, width=4))
    labelled = torch.tensor(10 * np.eye(4, dtype="float32")[:1])
    kinds = np.repeat([1, 2, 3], [9, 6, 3])
    params = {"strategy": strategy, "threshold": 0.9, "method": "power", "alpha": 8}
    sampler = ActiveLearningSampler(network, n_components=128, random_state=0, **params)
    found = kinds[sampler.fit(labelled).query(pool, 3)]
    assert sorted(found.tolist()) == [1, 2, 3]


# The labelled samples' features are made once.


class Counting(Dataset):
    """Counts how often its items are read."""

    def __init__(self, X):
        self.X, self.reads = X, np.zeros(len(X), dtype=int)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        self.reads[index] += 1
        return torch.tensor(self.X[index]), 0


@pytest.mark.parametrize("random_state", [0, np.random.RandomState(0), None], ids=str)
@pytest.mark.parametrize("strategy", ["maxdet", "coverage"])
def test_labelled_samples_are_not_read_again_while_the_network_is_the_same(strategy, random_state):
    old, new = Counting(rows(8)), Counting(rows(4, seed=2))
    params = {"strategy": strategy, "random_state": random_state, "n_components": 16}
    sampler = ActiveLearningSampler(classifier(), **params).fit(old)
    sampler.query(rows(9, seed=3))
    before = old.reads.copy()
    sampler.query(rows(9, seed=4))
    sampler.partial_fit(new).query(rows(9, seed=3))
    assert old.reads.tolist() == before.tolist()
    assert (new.reads > 0).all()


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"random"}))
def test_more_labelled_samples_are_as_if_fitted_together(strategy):
    X, net = rows(12), classifier()
    sampler = ActiveLearningSampler(net, strategy=strategy, n_components=16, random_state=0)
    together = clone(sampler).fit(X).query(rows(20, seed=3), 5)
    sampler.fit(X[:5]).query(rows(9, seed=4))
    sampler.partial_fit(X[5:7])
    sampler.partial_fit(X[7:])
    assert sampler.n_labelled_ == 12
    assert sampler.query(rows(20, seed=3), 5).tolist() == together.tolist()


@pytest.mark.parametrize("strategy", ["maxdet", "kcenter", "density", "margin"])
def test_a_network_that_is_trained_on_is_looked_at_anew(strategy):
    net, pool = classifier(), rows(20, seed=3)
    sampler = ActiveLearningSampler(net, strategy=strategy, random_state=0).fit(rows(8))
    before = sampler.score_samples(pool)
    with torch.no_grad():
        for parameter in net.module_.parameters():
            parameter.normal_()
    after = sampler.score_samples(pool)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, clone(sampler).fit(rows(8)).score_samples(pool))


def test_badge_does_not_look_at_labelled_samples():
    old = Counting(rows(8))
    sampler = ActiveLearningSampler(classifier(), strategy="badge").fit(old)
    before = old.reads.copy()
    sampler.query(rows(9, seed=3))
    assert old.reads.tolist() == before.tolist()


def test_many_small_steps_of_datasets_are_one_chain():
    sampler = ActiveLearningSampler(classifier(), strategy="random").fit(Counting(rows(2)))
    for _ in range(1_100):
        sampler.partial_fit(Counting(rows(1)))
    assert len(sampler._X.data[0]) == 2
    assert sampler.n_labelled_ == 1_102


def test_whole_numbers_do_not_cut_what_is_joined_to_them():
    sampler = ActiveLearningSampler(nn.Linear(2, 1), strategy="kcenter")
    sampler.fit(torch.tensor([[0, 1], [1, 0]])).partial_fit(torch.tensor([[0.9, 0.9]]))
    np.testing.assert_allclose(sampler.score_samples(torch.tensor([[0.9, 0.9]])), 0, atol=1e-6)


def test_the_first_partial_fit_is_a_fit():
    sampler = ActiveLearningSampler(classifier()).partial_fit(rows(8))
    assert sampler.n_labelled_ == 8


FORMS = {
    "arrays": (lambda X: X),
    "tensors": torch.tensor,
    "datasets": lambda X: TensorDataset(torch.tensor(X), torch.zeros(len(X))),
    "lists": lambda X: X.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["maxdet", "margin", "typicality"])
def test_samples_in_any_form_are_chosen_alike(strategy, form):
    make = FORMS[form]
    sampler = ActiveLearningSampler(classifier(), strategy=strategy, random_state=0)
    sampler.fit(make(rows(6))).partial_fit(make(rows(3, seed=2)))
    assert sampler.query(make(rows()), 4).tolist() == (
        clone(sampler).fit(np.concatenate([rows(6), rows(3, seed=2)])).query(rows(), 4).tolist()
    )


@pytest.mark.parametrize("container", [dict, tuple])
def test_samples_of_several_arrays_are_joined(container):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, first, second):
            return self.layer(torch.cat([first, second], dim=1))

    def make(count, seed):
        first, second = rows(count, seed, 2), rows(count, seed, 3)
        both = {"first": first, "second": second}
        return both if container is dict else tuple(both.values())

    sampler = ActiveLearningSampler(Pair(), random_state=0).fit(make(4, 0))
    assert sampler.partial_fit(make(3, 1)).query(make(9, 2), 4).shape == (4,)


# Networks, outputs and labels.


@pytest.mark.parametrize("strategy", WITHOUT_CLASSES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_regressors_of_several_outputs(strategy, outputs):
    assert fitted(strategy, regressor(outputs)).query(rows(), 3).shape == (3,)


@pytest.mark.parametrize("strategy", WITHOUT_CLASSES)
def test_rows_of_features_need_no_network(strategy):
    features = rows() / np.linalg.norm(rows(), axis=1, keepdims=True)
    sampler = ActiveLearningSampler("features", strategy=strategy, random_state=0)
    assert sampler.fit(features[:5]).query(features[5:], 4).shape == (4,)


def test_rows_of_features_are_used_as_they_are():
    features = 0.1 * rows(9, width=600)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sampler = ActiveLearningSampler("features", strategy="density").fit(features[:4])
    expected = -(features[4:].astype(float) @ features[:4].T).sum(axis=1)
    np.testing.assert_allclose(sampler.score_samples(features[4:]), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 2)])
def test_the_default_network_is_trained_on_labels_of_any_shape(shape):
    y = np.random.RandomState(0).normal(size=shape)
    sampler = ActiveLearningSampler(random_state=0).fit(rows(20), y)
    assert sampler.query(rows(), 3).shape == (3,)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_untrained_net_is_trained_in_fit(dtype):
    net = NeuralNetRegressor(nn.Linear(4, 1), max_epochs=1, train_split=None, verbose=0)
    X, y = rows(20).astype(dtype), rows(20, width=1).astype(dtype)
    sampler = ActiveLearningSampler(net, random_state=0).fit(X, y)
    assert not hasattr(net, "module_")
    assert sampler.query(rows().astype(dtype), 3).shape == (3,)


@pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
def test_binary_classifiers_of_one_output(strategy):
    net = classifier(1, nn.BCEWithLogitsLoss, [nn.Flatten(0)])
    assert fitted(strategy, net).query(rows(), 3).shape == (3,)


def test_steps_of_pipelines_get_arrays():
    pipeline = make_pipeline(FunctionTransformer(lambda X: X.astype("float32")), classifier())
    sampler = ActiveLearningSampler(pipeline, random_state=0).fit(rows(8).astype(float))
    assert sampler.query(rows().astype(float), 3).shape == (3,)


def test_pipelines_prepare_the_pool_too():
    X, net = 5 + 3 * rows(30), classifier()
    scaler = StandardScaler().fit(X)
    pipeline = make_pipeline(scaler, net)
    sampler = ActiveLearningSampler(pipeline, strategy="entropy").fit(X[:4])
    plain = ActiveLearningSampler(net, strategy="entropy").fit(scaler.transform(X[:4]))
    expected = plain.score_samples(scaler.transform(X))
    np.testing.assert_allclose(sampler.score_samples(X), expected, rtol=1e-5)


@every_strategy
def test_the_network_is_left_as_it_was(strategy):
    net = classifier(ending=[nn.Dropout()])
    net.module_.train()
    state = torch.random.get_rng_state()
    before = pickle.dumps([*net.module_.state_dict().values()])
    fitted(strategy, net).query(rows(), 3)
    assert net.module_.training
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    assert pickle.dumps([*net.module_.state_dict().values()]) == before
    assert torch.equal(torch.random.get_rng_state(), state)


# modAL's protocol.


@every_strategy
def test_samplers_answer_as_modal_asks(strategy):
    net = classifier()
    learner = types.SimpleNamespace(estimator=net, X_training=rows(8, seed=1))
    sampler = ActiveLearningSampler(strategy=strategy, random_state=0)
    indices, utilities = sampler(learner, rows(), n_instances=3)
    assert indices.tolist() == fitted(strategy, net).query(rows(), 3).tolist()
    assert utilities.shape == (3, 30)


def test_a_generator_goes_on_from_call_to_call_of_modal():
    learner = types.SimpleNamespace(estimator=classifier(), X_training=rows(8, seed=1))
    sampler = ActiveLearningSampler(strategy="random", random_state=np.random.RandomState(0))
    first, second = (sampler(learner, rows(), n_instances=9)[0].tolist() for _ in range(2))
    assert first != second


def test_modals_call_leaves_the_sampler_unfitted():
    learner = types.SimpleNamespace(estimator=classifier(), X_training=rows(8, seed=1))
    sampler = ActiveLearningSampler(random_state=0)
    sampler(learner, rows())
    assert sampler.estimator is None
    assert not hasattr(sampler, "estimator_")


# Refusals.


@pytest.mark.parametrize("count", [0, -1, 31, 2.0, "2", None])
def test_the_number_of_queries_is_checked(count):
    with pytest.raises(
        ValueError, match=r"`n_queries` must be an integer between 1 and 30 .*; got"
    ):
        fitted("maxdet").query(rows(), count)


@pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
@pytest.mark.parametrize("estimator", [regressor(), nn.Linear(4, 3), "features", None])
def test_strategies_by_classes_refuse_other_networks(strategy, estimator):
    sampler = ActiveLearningSampler(estimator, strategy=strategy)
    with pytest.raises(
        ValueError, match=f"must contain a skorch classifier for strategy={strategy!r}; got"
    ):
        sampler.fit(0.1 * rows(8))


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'maxdet'"):
        ActiveLearningSampler(classifier(), strategy="greedy").fit(rows(8))


def test_why_there_are_no_scores():
    with pytest.raises(AttributeError) as raised:
        fitted("lcmd").score_samples(rows())
    assert "for score_samples; got 'lcmd'" in str(raised.value.__cause__)


def test_an_unknown_strategy_offers_no_scores():
    assert not hasattr(ActiveLearningSampler(strategy="greedy"), "score_samples")


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="0 sample"):
        fitted("maxdet").query(rows()[:0])


def test_arrays_and_datasets_are_not_mixed():
    sampler = ActiveLearningSampler(classifier()).fit(Counting(rows(8)))
    with pytest.raises(TypeError, match="X must have the form of the samples before it, a Dataset or not; got a"):
        sampler.partial_fit(rows(8))


@pytest.mark.parametrize(
    "changed",
    [{"strategy": "coverage"}, {"n_components": 8}, {"output": 0}, {"parameters": "last_layer"}],
    ids=str,
)
def test_parameters_changed_after_fit_are_followed(changed):
    net = classifier()
    sampler = fitted("maxdet", net, n_components=16)
    sampler.query(rows(), 3)
    sampler.set_params(**changed)
    expected = clone(sampler).fit(rows(8, seed=1)).query(rows(), 3)
    assert sampler.query(rows(), 3).tolist() == expected.tolist()


def test_a_pool_of_another_width_is_refused():
    with pytest.raises(ValueError, match="X has 3 features"):
        fitted("maxdet").query(rows(width=3))


def test_more_labelled_samples_of_another_width_are_refused():
    with pytest.raises(ValueError, match="X has 3 features"):
        fitted("maxdet").partial_fit(rows(width=3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pool_with_nan_or_infinity_is_refused(value):
    X = rows()
    X[3, 2] = value
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        fitted("maxdet").query(X)


@every_strategy
def test_a_pool_of_identical_samples_is_chosen_from(strategy):
    pool = np.repeat(rows(1), 10, axis=0)
    assert len(set(fitted(strategy).query(pool, 4))) == 4


def test_a_sampler_that_is_not_fitted_says_so():
    with pytest.raises(NotFittedError):
        ActiveLearningSampler(classifier()).query(rows())


@pytest.mark.parametrize(
    "params",
    [{"n_components": 0}, {"threshold": 1.0}, {"threshold": "best"}, {"alpha": 0}, {"method": "x"}],
    ids=str,
)
def test_parameters_are_checked(params):
    with pytest.raises(ValueError, match=f"The {next(iter(params))!r} parameter"):
        ActiveLearningSampler(classifier(), **params).fit(rows(8))
