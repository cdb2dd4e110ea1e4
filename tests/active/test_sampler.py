"""ActiveLearningSampler, from networks to chosen samples."""

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
ANY_NETWORK = sorted(set(STRATEGIES) - CLASSIFIERS_ONLY)
ALONE = {"badge", "density", "entropy", "kcenter", "margin", "maxdet", "reliability"}
every_strategy = pytest.mark.parametrize("strategy", sorted(STRATEGIES))


def make_samples(count=30, seed=0, width=4):
    return np.random.RandomState(seed).normal(size=(count, width)).astype("float32")


def classifier(outputs=3, criterion=nn.CrossEntropyLoss, ending=(), width=4):
    module = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, outputs), *ending)
    return NeuralNetClassifier(module, criterion=criterion, verbose=0).initialize()


def regressor(outputs=1, width=4):
    module = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, outputs))
    return NeuralNetRegressor(module, max_epochs=1, train_split=None, verbose=0).initialize()


def fit_sampler(strategy, estimator=None, n_labelled=8, **params):
    sampler = ActiveLearningSampler(
        classifier() if estimator is None else estimator,
        strategy=strategy,
        random_state=0,
        **params,
    )
    return sampler.fit(make_samples(n_labelled, seed=1))


@every_strategy
def test_indices_are_distinct_positions_in_the_pool(strategy):
    indices = fit_sampler(strategy).query(make_samples(), n_queries=7)
    assert indices.dtype == np.int64
    assert len(set(indices.tolist())) == 7
    assert set(indices) <= set(range(30))


@every_strategy
def test_utilities_have_one_row_per_choice(strategy):
    indices, utilities = fit_sampler(strategy).query(
        make_samples(), n_queries=3, return_utilities=True
    )
    assert utilities.shape == (3, 30)
    assert utilities.dtype == np.float64
    for number, row in enumerate(utilities):
        assert np.flatnonzero(np.isnan(row)).tolist() == sorted(indices[:number])


@every_strategy
def test_the_whole_pool_can_be_chosen(strategy):
    assert sorted(fit_sampler(strategy).query(make_samples(9), n_queries=9)) == list(range(9))


@every_strategy
def test_equal_seeds_give_equal_choices(strategy):
    net = classifier()
    first, second = (fit_sampler(strategy, net).query(make_samples(), 5).tolist() for _ in range(2))
    assert first == second


@every_strategy
def test_score_samples_is_available_if_a_sample_has_a_utility_on_its_own(strategy):
    sampler = fit_sampler(strategy)
    assert hasattr(sampler, "score_samples") == (strategy in ALONE)
    if strategy in ALONE:
        scores = sampler.score_samples(make_samples())
        utilities = sampler.query(make_samples(), return_utilities=True)[1][0]
        np.testing.assert_allclose(scores, utilities)


@pytest.mark.parametrize("strategy", sorted(ALONE))
def test_the_utility_of_a_sample_does_not_depend_on_the_pool(strategy):
    sampler = fit_sampler(strategy, n_components=16)
    together = sampler.score_samples(make_samples())
    alone = np.concatenate([sampler.score_samples(make_samples()[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, together[:5], rtol=1e-4, atol=1e-4)


@every_strategy
def test_a_pickled_sampler_makes_the_same_choices(strategy):
    sampler = fit_sampler(strategy)
    loaded = pickle.loads(pickle.dumps(sampler))
    assert loaded.query(make_samples(), 5).tolist() == sampler.query(make_samples(), 5).tolist()


# Utilities, compared with other estimators.


def fit_exact(strategy, network, X, output="all", **params):
    sampler = ActiveLearningSampler(
        network, output, strategy=strategy, n_components=None, random_state=0, **params
    )
    return sampler.fit(X)


@pytest.mark.parametrize("case", NETWORKS[:1] + NETWORKS[7:12], ids=lambda case: case.name)
def test_maxdet_is_the_variance_of_a_gaussian_process(case):
    network, X = build(case, n_samples=12)
    gram = NetworkKernel(network, case.output, normalize=False)(X)
    gram *= np.trace(gram).clip(1) / np.trace(gram)  # The factor 1 / d cancels.
    noise = 1e-6 * np.diag(gram)[:8].mean()
    inside, cross = gram[:8, :8], gram[8:, :8]
    solved = np.linalg.solve(inside + noise * np.eye(8), cross.T)
    expected = np.diag(gram)[8:] - np.einsum("nz,zn->n", cross, solved)
    variances = fit_exact("maxdet", network, X[:8], case.output).score_samples(X[8:])
    scale = np.diag(gram)[8:].mean()
    ratio = (variances / expected)[expected > 1e-3 * scale]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


@pytest.mark.parametrize("method", ["soft", "threshold", "power"])
@pytest.mark.parametrize("case", NETWORKS[:3], ids=lambda case: case.name)
def test_density_equals_the_count_of_network_density(case, method):
    network, X = build(case, n_samples=12)
    expected = NetworkDensity(network, method=method, threshold=0.6).fit(X[:8]).neighbor_count(X)
    utilities = fit_exact("density", network, X[:8], method=method, threshold=0.6).score_samples(X)
    np.testing.assert_allclose(utilities, -expected, atol=1e-9)


@pytest.mark.parametrize("case", NETWORKS[:3], ids=lambda case: case.name)
def test_reliability_equals_that_of_network_density(case):
    network, X = build(case, n_samples=12)
    expected = NetworkDensity(network).fit(X[:8]).reliability(X)
    utilities = fit_exact("reliability", network, X[:8]).score_samples(X)
    np.testing.assert_allclose(utilities, -expected, rtol=1e-9)


def test_kcenter_measures_distances_of_gradients():
    network, X = build(NETWORKS[0], n_samples=12)
    gram = (
        NetworkKernel(network, normalize=False)(X) * 3
    )  # The sum over three outputs, not their mean.
    squares = np.diag(gram)
    distances = squares[:, None] + squares - 2 * gram
    utilities = fit_exact("kcenter", network, X[:8]).score_samples(X[8:])
    np.testing.assert_allclose(utilities, distances[8:, :8].min(axis=1), rtol=1e-9)


def test_badge_uses_gradients_of_the_loss_at_the_predicted_class():
    net, X = classifier(), make_samples(6)
    expected = []
    for row in torch.tensor(X):
        logits = net.module_(row[None])
        loss = nn.functional.cross_entropy(logits, logits.argmax(dim=1))
        gradients = torch.autograd.grad(loss, list(net.module_.parameters()))
        expected.append(sum(float((gradient**2).sum()) for gradient in gradients))
    scores = fit_exact("badge", net, make_samples(3, seed=1)).score_samples(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
def test_a_last_sigmoid_does_not_matter(strategy):
    logits = classifier(1, nn.BCEWithLogitsLoss, [nn.Flatten(0)])
    with torch.no_grad():
        logits.module_[0].weight.mul_(3)
    ending = [*logits.module_, nn.Sigmoid()]
    probabilities = NeuralNetClassifier(nn.Sequential(*ending), criterion=nn.BCELoss).initialize()
    expected, utilities = (
        fit_exact(strategy, net, make_samples(3, seed=1)).score_samples(make_samples())
        for net in (logits, probabilities)
    )
    np.testing.assert_allclose(utilities, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strategy", ["kcenter", "lcmd"])
def test_the_common_part_of_all_gradients_costs_no_precision(strategy):
    X = torch.tensor([2000.0, 300.0]) + torch.tensor(make_samples(60, width=2))
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
    single = fit_exact(strategy, network, X[:5]).query(X[5:], 10)
    double = fit_exact(strategy, network.double(), X[:5].double()).query(X[5:].double(), 10)
    assert single.tolist() == double.tolist()


def test_reliability_of_tiny_gradients_is_finite():
    network = nn.Linear(2, 1, bias=False)
    pool = torch.tensor([[1e-22, 0], [0, 1.0], [0, 2], [1e-30, 0]])
    sampler = fit_exact("reliability", network, torch.tensor([[0.0, 1.0]]))
    assert np.isfinite(sampler.score_samples(pool)).all()
    assert sorted(sampler.query(pool, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", ["maxdet", "bait", "frank-wolfe"])
def test_a_posterior_beyond_the_budget_raises_an_error(strategy):
    network = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 1))
    sampler = fit_exact(strategy, network, make_samples(5))
    with sklearn.config_context(working_memory=16), pytest.raises(MemoryError, match="1,201 feat"):
        sampler.query(make_samples(), 3)


@pytest.mark.parametrize("strategy", ["lcmd", "coverage", "density"])
def test_sketches_choose_one_sample_of_each_distinct_cluster(strategy):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
    pool = np.repeat(10 * np.eye(4, dtype="float32")[1:], [9, 6, 3], axis=0)
    pool = torch.tensor(pool + 0.1 * make_samples(18, width=4))
    labelled = torch.tensor(10 * np.eye(4, dtype="float32")[:1])
    kinds = np.repeat([1, 2, 3], [9, 6, 3])
    params = {"strategy": strategy, "threshold": 0.9, "method": "power", "alpha": 8}
    sampler = ActiveLearningSampler(network, n_components=128, random_state=0, **params)
    chosen = kinds[sampler.fit(labelled).query(pool, 3)]
    assert sorted(chosen.tolist()) == [1, 2, 3]


# Features of labelled samples are computed once.


class CountingDataset(Dataset):
    """Dataset that counts how often its items are read."""

    def __init__(self, X):
        self.X, self.reads = X, np.zeros(len(X), dtype=int)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        self.reads[index] += 1
        return torch.tensor(self.X[index]), 0


@pytest.mark.parametrize("random_state", [0, np.random.RandomState(0), None], ids=str)
@pytest.mark.parametrize("strategy", ["maxdet", "coverage"])
def test_labelled_samples_are_read_once_while_the_network_is_the_same(strategy, random_state):
    old, new = CountingDataset(make_samples(8)), CountingDataset(make_samples(4, seed=2))
    params = {"strategy": strategy, "random_state": random_state, "n_components": 16}
    sampler = ActiveLearningSampler(classifier(), **params).fit(old)
    sampler.query(make_samples(9, seed=3))
    before = old.reads.copy()
    sampler.query(make_samples(9, seed=4))
    sampler.partial_fit(new).query(make_samples(9, seed=3))
    assert old.reads.tolist() == before.tolist()
    assert (new.reads > 0).all()


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"random"}))
def test_partial_fit_equals_a_fit_to_all_samples(strategy):
    X, net = make_samples(12), classifier()
    sampler = ActiveLearningSampler(net, strategy=strategy, n_components=16, random_state=0)
    together = clone(sampler).fit(X).query(make_samples(20, seed=3), 5)
    sampler.fit(X[:5]).query(make_samples(9, seed=4))
    sampler.partial_fit(X[5:7])
    sampler.partial_fit(X[7:])
    assert sampler.n_labelled_ == 12
    assert sampler.query(make_samples(20, seed=3), 5).tolist() == together.tolist()


@pytest.mark.parametrize("strategy", ["maxdet", "kcenter", "density", "margin"])
def test_features_are_computed_again_after_the_network_has_changed(strategy):
    net, pool = classifier(), make_samples(20, seed=3)
    sampler = ActiveLearningSampler(net, strategy=strategy, random_state=0).fit(make_samples(8))
    before = sampler.score_samples(pool)
    with torch.no_grad():
        for parameter in net.module_.parameters():
            parameter.normal_()
    after = sampler.score_samples(pool)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, clone(sampler).fit(make_samples(8)).score_samples(pool))


def test_badge_does_not_read_labelled_samples():
    old = CountingDataset(make_samples(8))
    sampler = ActiveLearningSampler(classifier(), strategy="badge").fit(old)
    before = old.reads.copy()
    sampler.query(make_samples(9, seed=3))
    assert old.reads.tolist() == before.tolist()


def test_many_datasets_are_joined_without_nesting():
    sampler = ActiveLearningSampler(classifier(), strategy="random").fit(
        CountingDataset(make_samples(2))
    )
    for _ in range(1_100):
        sampler.partial_fit(CountingDataset(make_samples(1)))
    assert len(sampler._X.data[0]) == 2
    assert sampler.n_labelled_ == 1_102


def test_integers_do_not_truncate_samples_that_are_added_to_them():
    sampler = ActiveLearningSampler(nn.Linear(2, 1), strategy="kcenter")
    sampler.fit(torch.tensor([[0, 1], [1, 0]])).partial_fit(torch.tensor([[0.9, 0.9]]))
    np.testing.assert_allclose(sampler.score_samples(torch.tensor([[0.9, 0.9]])), 0, atol=1e-6)


def test_the_first_partial_fit_is_a_fit():
    sampler = ActiveLearningSampler(classifier()).partial_fit(make_samples(8))
    assert sampler.n_labelled_ == 8


FORMS = {
    "arrays": (lambda X: X),
    "tensors": torch.tensor,
    "datasets": lambda X: TensorDataset(torch.tensor(X), torch.zeros(len(X))),
    "lists": lambda X: X.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["maxdet", "margin", "typicality"])
def test_samples_in_any_form_give_the_same_choices(strategy, form):
    make = FORMS[form]
    sampler = ActiveLearningSampler(classifier(), strategy=strategy, random_state=0)
    sampler.fit(make(make_samples(6))).partial_fit(make(make_samples(3, seed=2)))
    assert sampler.query(make(make_samples()), 4).tolist() == (
        clone(sampler)
        .fit(np.concatenate([make_samples(6), make_samples(3, seed=2)]))
        .query(make_samples(), 4)
        .tolist()
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
        first, second = make_samples(count, seed, 2), make_samples(count, seed, 3)
        both = {"first": first, "second": second}
        return both if container is dict else tuple(both.values())

    sampler = ActiveLearningSampler(Pair(), random_state=0).fit(make(4, 0))
    assert sampler.partial_fit(make(3, 1)).query(make(9, 2), 4).shape == (4,)


# Networks, outputs and labels.


@pytest.mark.parametrize("strategy", ANY_NETWORK)
@pytest.mark.parametrize("outputs", [1, 3])
def test_regressors_can_have_several_outputs(strategy, outputs):
    assert fit_sampler(strategy, regressor(outputs)).query(make_samples(), 3).shape == (3,)


@pytest.mark.parametrize("strategy", ANY_NETWORK)
def test_features_need_no_network(strategy):
    features = make_samples() / np.linalg.norm(make_samples(), axis=1, keepdims=True)
    sampler = ActiveLearningSampler("features", strategy=strategy, random_state=0)
    assert sampler.fit(features[:5]).query(features[5:], 4).shape == (4,)


def test_features_are_used_unchanged():
    features = 0.1 * make_samples(9, width=600)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sampler = ActiveLearningSampler("features", strategy="density").fit(features[:4])
    expected = -(features[4:].astype(float) @ features[:4].T).sum(axis=1)
    np.testing.assert_allclose(sampler.score_samples(features[4:]), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 2)])
def test_the_default_network_is_trained_with_labels_of_any_shape(shape):
    y = np.random.RandomState(0).normal(size=shape)
    sampler = ActiveLearningSampler(random_state=0).fit(make_samples(20), y)
    assert sampler.query(make_samples(), 3).shape == (3,)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_untrained_net_is_trained_in_fit(dtype):
    net = NeuralNetRegressor(nn.Linear(4, 1), max_epochs=1, train_split=None, verbose=0)
    X, y = make_samples(20).astype(dtype), make_samples(20, width=1).astype(dtype)
    sampler = ActiveLearningSampler(net, random_state=0).fit(X, y)
    assert not hasattr(net, "module_")
    assert sampler.query(make_samples().astype(dtype), 3).shape == (3,)


@pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
def test_binary_classifiers_can_have_one_output(strategy):
    net = classifier(1, nn.BCEWithLogitsLoss, [nn.Flatten(0)])
    assert fit_sampler(strategy, net).query(make_samples(), 3).shape == (3,)


def test_the_steps_of_pipelines_get_arrays():
    pipeline = make_pipeline(FunctionTransformer(lambda X: X.astype("float32")), classifier())
    sampler = ActiveLearningSampler(pipeline, random_state=0).fit(make_samples(8).astype(float))
    assert sampler.query(make_samples().astype(float), 3).shape == (3,)


def test_pipelines_transform_the_pool():
    X, net = 5 + 3 * make_samples(30), classifier()
    scaler = StandardScaler().fit(X)
    pipeline = make_pipeline(scaler, net)
    sampler = ActiveLearningSampler(pipeline, strategy="entropy").fit(X[:4])
    plain = ActiveLearningSampler(net, strategy="entropy").fit(scaler.transform(X[:4]))
    expected = plain.score_samples(scaler.transform(X))
    np.testing.assert_allclose(sampler.score_samples(X), expected, rtol=1e-5)


@every_strategy
def test_the_network_is_unchanged(strategy):
    net = classifier(ending=[nn.Dropout()])
    net.module_.train()
    state = torch.random.get_rng_state()
    before = pickle.dumps([*net.module_.state_dict().values()])
    fit_sampler(strategy, net).query(make_samples(), 3)
    assert net.module_.training
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    assert pickle.dumps([*net.module_.state_dict().values()]) == before
    assert torch.equal(torch.random.get_rng_state(), state)


# Protocol of modAL.


@every_strategy
def test_samplers_can_be_query_strategies_of_modal(strategy):
    net = classifier()
    learner = types.SimpleNamespace(estimator=net, X_training=make_samples(8, seed=1))
    sampler = ActiveLearningSampler(strategy=strategy, random_state=0)
    indices, utilities = sampler(learner, make_samples(), n_instances=3)
    assert indices.tolist() == fit_sampler(strategy, net).query(make_samples(), 3).tolist()
    assert utilities.shape == (3, 30)


def test_calls_of_modal_continue_one_random_state():
    learner = types.SimpleNamespace(estimator=classifier(), X_training=make_samples(8, seed=1))
    sampler = ActiveLearningSampler(strategy="random", random_state=np.random.RandomState(0))
    first, second = (sampler(learner, make_samples(), n_instances=9)[0].tolist() for _ in range(2))
    assert first != second


def test_a_call_of_modal_leaves_the_sampler_unfitted():
    learner = types.SimpleNamespace(estimator=classifier(), X_training=make_samples(8, seed=1))
    sampler = ActiveLearningSampler(random_state=0)
    sampler(learner, make_samples())
    assert sampler.estimator is None
    assert not hasattr(sampler, "estimator_")


# Invalid input.


@pytest.mark.parametrize("count", [0, -1, 31, 2.0, "2", None])
def test_the_number_of_queries_is_checked(count):
    with pytest.raises(
        ValueError, match=r"`n_queries` must be an integer between 1 and 30 .*; got"
    ):
        fit_sampler("maxdet").query(make_samples(), count)


def test_one_sample_of_the_pool_can_be_selected():
    with pytest.raises(ValueError, match=r"`n_queries` must be 1 \(the number .*; got 2"):
        fit_sampler("maxdet").query(make_samples()[:1], 2)


@pytest.mark.parametrize("strategy", sorted(CLASSIFIERS_ONLY))
@pytest.mark.parametrize("estimator", [regressor(), nn.Linear(4, 3), "features", None])
def test_strategies_that_need_classes_raise_an_error_for_other_networks(strategy, estimator):
    sampler = ActiveLearningSampler(estimator, strategy=strategy)
    with pytest.raises(
        ValueError, match=f"must contain a skorch classifier for strategy={strategy!r}; got"
    ):
        sampler.fit(0.1 * make_samples(8))


def test_an_unknown_strategy_raises_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="'maxdet'"):
        ActiveLearningSampler(classifier(), strategy="greedy").fit(make_samples(8))


def test_missing_score_samples_are_explained():
    with pytest.raises(AttributeError) as raised:
        fit_sampler("lcmd").score_samples(make_samples())
    assert "for score_samples; got 'lcmd'" in str(raised.value.__cause__)


def test_an_unknown_strategy_has_no_score_samples():
    assert not hasattr(ActiveLearningSampler(strategy="greedy"), "score_samples")


def test_an_empty_pool_raises_an_error():
    with pytest.raises(ValueError, match="0 sample"):
        fit_sampler("maxdet").query(make_samples()[:0])


def test_arrays_and_datasets_may_be_mixed():
    network, labelled, added, pool = classifier(), *(make_samples(n) for n in (8, 9, 10))
    sampler = ActiveLearningSampler(network, strategy="maxdet").fit(CountingDataset(labelled))
    expected = ActiveLearningSampler(network, strategy="maxdet").fit(labelled).partial_fit(added)
    np.testing.assert_allclose(
        sampler.partial_fit(added).score_samples(pool), expected.score_samples(pool), rtol=1e-4
    )


def test_other_arguments_cannot_be_added():
    sampler = ActiveLearningSampler(classifier()).fit({"input": make_samples(8)})
    with pytest.raises(ValueError, match="`X` must have the form of the samples before it, with"):
        sampler.partial_fit(make_samples(8))


@pytest.mark.parametrize(
    "changed",
    [{"strategy": "coverage"}, {"n_components": 8}, {"output": 0}, {"parameters": "last_layer"}],
    ids=str,
)
def test_parameters_can_change_after_fit(changed):
    net = classifier()
    sampler = fit_sampler("maxdet", net, n_components=16)
    sampler.query(make_samples(), 3)
    sampler.set_params(**changed)
    expected = clone(sampler).fit(make_samples(8, seed=1)).query(make_samples(), 3)
    assert sampler.query(make_samples(), 3).tolist() == expected.tolist()


def test_a_pool_of_another_width_raises_an_error():
    with pytest.raises(ValueError, match="X has 3 features"):
        fit_sampler("maxdet").query(make_samples(width=3))


def test_labelled_samples_of_another_width_raise_an_error():
    with pytest.raises(ValueError, match="X has 3 features"):
        fit_sampler("maxdet").partial_fit(make_samples(width=3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pool_with_nan_or_infinity_raises_an_error(value):
    X = make_samples()
    X[3, 2] = value
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        fit_sampler("maxdet").query(X)


@every_strategy
def test_identical_samples_are_chosen_once_each(strategy):
    pool = np.repeat(make_samples(1), 10, axis=0)
    assert len(set(fit_sampler(strategy).query(pool, 4))) == 4


def test_a_sampler_that_is_not_fitted_raises_an_error():
    with pytest.raises(NotFittedError):
        ActiveLearningSampler(classifier()).query(make_samples())


@pytest.mark.parametrize(
    "params",
    [{"n_components": 0}, {"threshold": 1.0}, {"threshold": "best"}, {"alpha": 0}, {"method": "x"}],
    ids=str,
)
def test_parameters_are_checked(params):
    with pytest.raises(ValueError, match=f"The {next(iter(params))!r} parameter"):
        ActiveLearningSampler(classifier(), **params).fit(make_samples(8))
