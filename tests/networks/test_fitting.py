"""Training inside `fit`: X and y in the form that a network takes, and nets without training."""

import pickle

import numpy as np
import pandas
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import TensorDataset

from sknetsim import (
    ActiveLearningSampler,
    GradientFeaturizer,
    LabelDenoiser,
    NetworkDensity,
    NetworkKernel,
    PerceptualKernel,
    UntrainedNetworkWarning,
)
from sknetsim._networks.fitting import align_with_outputs, train_clone
from sknetsim.training import SimilarityTrainingMixin

SETTINGS = {"max_epochs": 3, "lr": 0.1, "train_split": None, "verbose": 0}


class Perceptron(nn.Sequential):
    def __init__(self, outputs=1, flat=False):
        layers = [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)]
        super().__init__(*layers, *[nn.Flatten(0)] * flat)


def regressor(**params):
    return NeuralNetRegressor(Perceptron, **SETTINGS, **params)


def classifier(outputs=3, criterion=nn.CrossEntropyLoss, kind=NeuralNetClassifier, **params):
    return kind(Perceptron, module__outputs=outputs, criterion=criterion, **SETTINGS, **params)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def targets(X):
    return np.sin(X[:, :1])


@pytest.fixture(scope="module")
def classes(X):
    return (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)


def weights(trained):
    net = trained[-1] if hasattr(trained, "steps") else trained
    return torch.cat([parameter.detach().flatten() for parameter in net.module_.parameters()])


def train_alone(net, X, y):
    """Return the weights after skorch's own `fit`, on arrays that the network takes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return weights(clone(net).fit(X, y))


def train_inside(net, X, y):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return weights(GradientFeaturizer(net, n_components=2, random_state=0).fit(X, y).estimator_)


TARGETS = {
    "flat": lambda y: y[:, 0],
    "flat float64": lambda y: y[:, 0].astype(float),
    "column float64": lambda y: y.astype(float),
    "big-endian": lambda y: y[:, 0].astype(">f4"),
    "objects": lambda y: y[:, 0].astype(object),
    "list": lambda y: y[:, 0].tolist(),
    "Series": lambda y: pandas.Series(y[:, 0], index=range(50, 80)),
    "nullable Series": lambda y: pandas.Series(y[:, 0], dtype="Float32"),
    "DataFrame": lambda y: pandas.DataFrame(y, index=range(50, 80)),
    "tensor": lambda y: torch.tensor(y[:, 0]),
    "float64 tensor": lambda y: torch.tensor(y[:, 0]).double(),
}


@pytest.mark.parametrize("convert", TARGETS.values(), ids=TARGETS)
def test_targets_of_each_form_train_the_same_regressor(X, targets, convert):
    expected = train_alone(regressor(), X, targets)
    assert torch.equal(train_inside(regressor(), X, convert(targets)), expected)


@pytest.mark.parametrize(
    "criterion", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.PoissonNLLLoss]
)
@pytest.mark.parametrize("flat", [False, True], ids=["(n, 1) outputs", "(n,) outputs"])
def test_targets_get_the_shape_of_the_outputs(X, targets, criterion, flat):
    net = regressor(criterion=criterion, module__flat=flat)
    expected = train_alone(net, X, targets[:, 0] if flat else targets)
    for y in (targets, targets[:, 0]):
        assert torch.equal(train_inside(net, X, y), expected)


def test_integer_targets_train_a_regressor(X, classes):
    expected = train_alone(regressor(), X, classes[:, None].astype(np.float32))
    assert torch.equal(train_inside(regressor(), X, classes), expected)


def test_a_validation_split_gets_aligned_targets(X, targets):
    net = regressor().set_params(train_split=ValidSplit(3))
    history = GradientFeaturizer(net).fit(X, targets[:, 0].astype(float)).estimator_.history
    assert history[-1, "valid_loss"] < 2 * targets.var()


CLASSES = {
    "int32": lambda y: y.astype(np.int32),
    "uint8": lambda y: y.astype(np.uint8),
    "whole float64": lambda y: y.astype(float),
    "column": lambda y: y[:, None],
    "int32 column": lambda y: y[:, None].astype(np.int32),
    "objects": lambda y: y.astype(object),
    "Categorical of numbers": lambda y: pandas.Series(pandas.Categorical(y)),
    "nullable Series": lambda y: pandas.Series(y, dtype="Int16"),
    "DataFrame": lambda y: pandas.DataFrame({"class": y}),
    "int32 tensor": lambda y: torch.tensor(y).int(),
}


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNet])
@pytest.mark.parametrize("convert", CLASSES.values(), ids=CLASSES)
def test_classes_of_each_form_train_the_same_classifier(X, classes, convert, kind):
    expected = train_alone(classifier(kind=kind), X, classes)
    assert torch.equal(train_inside(classifier(kind=kind), X, convert(classes)), expected)


@pytest.mark.parametrize("criterion", [nn.NLLLoss, nn.MultiMarginLoss])
def test_classes_of_other_criteria_become_int64(X, classes, criterion):
    module = nn.Sequential(*Perceptron(3), nn.Softmax(1))
    net = NeuralNetClassifier(module, criterion=criterion, **SETTINGS)
    expected = train_alone(net, X, classes)
    assert torch.equal(train_inside(net, X, classes[:, None].astype(np.int16)), expected)


def test_a_sparse_output_of_the_steps_is_cast(classes, targets):
    X = np.stack([classes, classes[::-1]], axis=1)
    pipeline = make_pipeline(OneHotEncoder(), NeuralNetRegressor(nn.Linear(6, 1), **SETTINGS))
    dense = np.concatenate([np.eye(3)[column] for column in X.T], axis=1, dtype=np.float32)
    expected = train_alone(pipeline[-1], dense, targets)
    assert torch.equal(train_inside(pipeline, X, targets[:, 0]), expected)


def test_tables_that_steps_return_become_arrays(X, targets):
    step = FunctionTransformer(halve).set_output(transform="pandas")
    expected = train_alone(regressor(), X / 2, targets)
    assert torch.equal(train_inside(make_pipeline(step, regressor()), X, targets), expected)


def test_booleans_train_a_classifier_of_two_classes(X, classes):
    net = classifier(outputs=2)
    expected = train_alone(net, X, (classes > 0).astype(np.int64))
    assert torch.equal(train_inside(net, X, classes > 0), expected)


def test_probabilities_of_classes_train_a_classifier(X, classes):
    y = np.eye(3)[classes] * 0.8 + 0.2 / 3
    expected = train_alone(classifier(), X, y.astype(np.float32))
    assert torch.equal(train_inside(classifier(), X, y), expected)


BINARY = {
    "integers": lambda y: y,
    "booleans": lambda y: y.astype(bool),
    "column": lambda y: y[:, None],
    "float64": lambda y: y.astype(float),
}


@pytest.mark.parametrize("convert", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("kind", [NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNet])
def test_binary_labels_of_each_form_train_the_same_net(X, classes, convert, kind):
    net = classifier(outputs=1, criterion=nn.BCEWithLogitsLoss, kind=kind)
    labels = np.float32(classes > 0)
    expected = train_alone(net, X, labels if kind is NeuralNetBinaryClassifier else labels[:, None])
    assert torch.equal(train_inside(net, X, convert(np.int64(classes > 0))), expected)


def test_several_binary_labels_become_floating_point_numbers(X, classes):
    y = np.eye(3, dtype=np.int32)[classes]
    net = classifier(criterion=nn.BCEWithLogitsLoss, kind=NeuralNet)
    expected = train_alone(net, X, y.astype(np.float32))
    assert torch.equal(train_inside(net, X, y), expected)


INPUTS = {
    "float64": lambda X: X.astype(float),
    "float64 tensor": lambda X: torch.tensor(X).double(),
    "half-precision": lambda X: X.astype(np.float16),
    "list": lambda X: X.tolist(),
    "DataFrame": lambda X: pandas.DataFrame(X.astype(float), columns=list("abc")),
}


@pytest.mark.parametrize("convert", INPUTS.values(), ids=INPUTS)
def test_inputs_are_cast_to_the_dtype_of_the_network(X, targets, convert):
    X = X.astype(np.float16).astype(np.float32)
    expected = train_alone(regressor(), X, targets)
    assert torch.equal(train_inside(regressor(), convert(X), targets), expected)


def test_float32_inputs_train_a_float64_network(X, targets):
    class Double(Perceptron):
        def __init__(self):
            super().__init__()
            self.double()

    net = NeuralNetRegressor(Double, **SETTINGS)
    expected = train_alone(net, X.astype(float), targets.astype(float))
    assert torch.equal(train_inside(net, X, targets[:, 0]), expected)


def test_items_of_a_dataset_are_cast(X, targets):
    dataset = TensorDataset(torch.tensor(X).double(), torch.tensor(targets[:, 0]).double())
    expected = train_alone(regressor(), X, targets)
    assert torch.equal(train_inside(regressor(), dataset, targets[:, 0]), expected)


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, first, second):
        return self.layer(first + second)


def test_inputs_by_name_are_cast(X, targets):
    net = NeuralNetRegressor(Sum, **SETTINGS)
    expected = train_alone(net, {"first": X, "second": X}, targets)
    both = {"first": X.astype(float), "second": X}
    assert torch.equal(train_inside(net, both, targets[:, 0]), expected)


def test_integer_columns_are_cast_for_a_linear_layer(targets):
    X = np.arange(90).reshape(30, 3) % 5
    expected = train_alone(regressor(), X.astype(np.float32), targets)
    for table in (X, pandas.DataFrame(X), torch.tensor(X)):
        assert torch.equal(train_inside(regressor(), table, targets), expected)


def test_integers_are_kept_for_an_embedding(targets):
    X = np.arange(90).reshape(30, 3) % 5
    net = NeuralNetRegressor(
        nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 1)), **SETTINGS
    )
    assert torch.equal(train_inside(net, X, targets[:, 0]), train_alone(net, X, targets))


class ToFloat64(TransformerMixin, BaseEstimator):
    """Step whose output is float64, as that of most transformers of scikit-learn."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, dtype=float) / 2


def halve(X):
    return X / 2


PIPELINES = {
    "one step": lambda net: make_pipeline(ToFloat64(), net),
    "nested": lambda net: make_pipeline(ToFloat64(), make_pipeline(ToFloat64(), net)),
    "nested steps": lambda net: make_pipeline(
        make_pipeline(ToFloat64(), FunctionTransformer(halve)), net
    ),
}


@pytest.mark.parametrize("wrap", PIPELINES.values(), ids=PIPELINES)
def test_the_output_of_the_steps_of_a_pipeline_is_cast(X, targets, wrap):
    scale = 4 if wrap is not PIPELINES["one step"] else 2
    expected = train_alone(regressor(), X / scale, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fitted = NetworkDensity(wrap(regressor())).fit(X.astype(float), targets[:, 0])
    net = fitted.estimator_
    while hasattr(net, "steps"):
        net = net[-1]
    assert torch.equal(weights(net), expected)
    assert np.isfinite(fitted.score_samples(X.astype(float))).all()


def test_a_step_that_changes_its_input_leaves_the_users_array(X, targets):
    before = X.astype(float)
    train_clone(make_pipeline(StandardScaler(copy=False), regressor()), before, targets)
    np.testing.assert_array_equal(before, X)


def test_the_trained_clone_is_an_ordinary_net(X, targets):
    trained = train_clone(regressor(), X.astype(float), targets[:, 0])
    assert "fit_loop" not in vars(trained)
    assert not trained.module_._forward_pre_hooks
    assert not trained.criterion_._forward_pre_hooks
    assert torch.equal(weights(pickle.loads(pickle.dumps(trained))), weights(trained))


def test_an_error_in_training_leaves_no_hooks_in_the_module(X, targets):
    class Failing(Callback):
        def on_batch_end(self, net, **kwargs):
            self.modules.append(net.module_)
            raise RuntimeError("stopped")

    Failing.modules = []
    with pytest.raises(RuntimeError, match="stopped"):
        train_clone(regressor(callbacks=[Failing]), X, targets)
    assert not Failing.modules[0]._forward_pre_hooks


def test_the_users_net_and_module_are_unchanged(X, targets):
    module = Perceptron()
    net = NeuralNetRegressor(module, **SETTINGS)
    before = pickle.dumps(module.state_dict())
    NetworkDensity(net).fit(X.astype(float), targets[:, 0])
    assert not hasattr(net, "module_")
    assert not module._forward_pre_hooks
    assert pickle.dumps(module.state_dict()) == before


class Checkpoint(Callback):
    """Callback that pickles the net after each epoch, as skorch's Checkpoint does."""

    def on_epoch_end(self, net, **kwargs):
        pickle.dumps(net)


def test_a_callback_can_pickle_the_net_during_training(X, targets):
    GradientFeaturizer(regressor(callbacks=[Checkpoint])).fit(X, targets[:, 0])


class SetInputs(Callback):
    """Callback that makes a new module when the training begins."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        net.set_params(module__outputs=y.shape[1] if y.ndim > 1 else 1)


def test_a_module_that_a_callback_makes_gets_cast_inputs(X, targets):
    net = regressor(callbacks=[SetInputs])
    trained = train_clone(net, X.astype(float), targets[:, 0])
    assert trained.score(X, targets) > train_clone(net, X, -targets).score(X, targets)


class OwnShapes(NeuralNetRegressor):
    """Net whose loss gives flat targets the shape of the outputs."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, y_true.unsqueeze(1), *args, **kwargs)


class OwnLoss(nn.Module):
    """Criterion for outputs of shape (n, 1) and targets of shape (n,)."""

    def forward(self, outputs, y):
        return (outputs[:, 0] - y).square().mean()


class SqueezedLoss(nn.MSELoss):
    """Subclass of a criterion of torch, for targets of shape (n,)."""

    def forward(self, outputs, y):
        return super().forward(outputs[:, 0], y)


OWN = {
    "get_loss": lambda: OwnShapes(Perceptron, **SETTINGS),
    "criterion": lambda: regressor(criterion=OwnLoss),
    "subclass of a criterion": lambda: regressor(criterion=SqueezedLoss),
}


@pytest.mark.parametrize("build", OWN.values(), ids=OWN)
def test_shapes_that_the_users_own_code_aligns_are_kept(X, targets, build):
    expected = train_alone(build(), X, targets[:, 0])
    assert torch.equal(train_inside(build(), X, targets[:, 0].astype(float)), expected)


def test_a_net_with_a_similarity_loss_is_trained_in_fit(X, classes):
    class Net(SimilarityTrainingMixin, NeuralNetClassifier):
        pass

    net = classifier(kind=Net)
    expected = train_alone(net, X, classes)
    trained = train_inside(net, X.astype(float), classes[:, None].astype(np.int32))
    torch.testing.assert_close(trained, expected)


@pytest.mark.parametrize(
    ("build", "y", "message"),
    [
        (regressor, np.ones((30, 2)), r"labels of shape \(1,\), .* MSELoss, .*; got .* \(2,\)"),
        (lambda: classifier(kind=NeuralNet, criterion=nn.MSELoss), np.arange(30.0),
         r"labels of shape \(3,\), because .*; got labels of shape \(\)"),
        (classifier, np.ones((30, 2), int), r"labels of shape \(\), .* CrossEntropyLoss"),
        (classifier, np.linspace(0, 2, 30), r"class numbers, or a probability .*; got 0\.06"),
    ],
    ids=["two columns", "one column for three outputs", "two columns of classes", "fractions"],
)  # fmt: skip
def test_labels_that_do_not_fit_the_outputs_raise_an_error(X, build, y, message):
    with pytest.raises(ValueError, match=message):
        NetworkDensity(build()).fit(X, y)


def test_axes_are_never_exchanged():
    outputs, y = torch.zeros(2, 6), torch.zeros(6, 2)
    with pytest.raises(ValueError, match="got labels of shape"):
        align_with_outputs(nn.MSELoss(), (outputs, y))


def test_maps_of_classes_become_int64():
    outputs, y = torch.zeros(2, 4, 3, 1), torch.ones(2, 3, 1, dtype=torch.int16)
    aligned = align_with_outputs(nn.CrossEntropyLoss(), (outputs, y))[1]
    assert aligned.dtype == torch.int64
    assert aligned.shape == (2, 3, 1)


NAMES = np.array(["cat", "dog"] * 15)
NAMED = {
    "array": (NAMES, "got dtype <U3"),
    "objects": (NAMES.astype(object), "got dtype <U3"),
    "list": (NAMES.tolist(), "got dtype <U3"),
    "Series": (pandas.Series(NAMES), "got dtype <U3"),
    "Categorical": (pandas.Categorical(NAMES), "got dtype <U3"),
    "column": (NAMES[:, None], "got dtype <U3"),
    "None": ([None, *NAMES[1:]], "objects of the types NoneType, str"),
    "None among numbers": ([None, *range(29)], "objects of the types NoneType, int"),
    "missing number": (
        pandas.array([pandas.NA, *range(29)]),
        "have all labels; got masked",
    ),
    "missing name": (pandas.Series([np.nan, *NAMES[1:]]).astype(object), "types float, str"),
    "NaN": ([np.nan, *range(29)], "be finite; got NaN"),
    "NaN in a tensor": (torch.tensor([torch.nan, *range(29)]), "be finite; got NaN"),
}
named = pytest.mark.parametrize(("y", "message"), NAMED.values(), ids=NAMED)


@named
def test_labels_that_are_not_numbers_cannot_train_a_net(X, y, message):
    with pytest.raises(ValueError, match=rf"`y` must .*{message}"):
        NetworkDensity(classifier()).fit(X, y)


@named
def test_losses_at_labels_that_are_not_numbers_raise_an_error(X, classes, y, message):
    net = classifier().fit(X, classes)
    with pytest.raises(ValueError, match=rf"`y` must .*{message}"):
        GradientFeaturizer(net, output="loss").fit_transform(X, y)


def test_names_are_allowed_if_labels_are_not_used(X, classes):
    """The features of a trained network can be followed by a classifier of named classes."""
    net = classifier().fit(X, classes)
    assert GradientFeaturizer(net, n_components=2).fit_transform(X, NAMES).shape == (30, 2)


SOME = np.ones((2, 3), np.float32), np.arange(2)


def initialized():
    return classifier().initialize()


INITIALIZED = {
    "net": initialized,
    "Pipeline": lambda: make_pipeline(StandardScaler().fit(np.ones((2, 3))), initialized()),
    "module object": lambda: NeuralNetRegressor(Perceptron(3), **SETTINGS).initialize(),
    "no epochs": lambda: classifier().partial_fit(*SOME, epochs=0),
}


@pytest.mark.parametrize("build", INITIALIZED.values(), ids=INITIALIZED)
@pytest.mark.parametrize("with_labels", [True, False])
def test_an_initialised_net_without_epochs_is_used_with_a_warning(X, classes, build, with_labels):
    estimator = build()
    with pytest.warns(UntrainedNetworkWarning, match="pass FrozenEstimator") as record:
        density = NetworkDensity(estimator).fit(X, classes if with_labels else None)
    assert density.estimator_ is estimator
    assert record[0].filename == __file__


@pytest.mark.parametrize("kind", [LabelDenoiser, ActiveLearningSampler])
def test_estimators_that_take_labels_warn_of_a_net_without_epochs(X, classes, kind):
    with pytest.warns(UntrainedNetworkWarning, match="`fit` does not train it"):
        kind(initialized()).fit(X, classes)


@pytest.mark.parametrize("kind", [NetworkKernel, PerceptualKernel])
def test_kernels_warn_of_a_net_without_epochs_before_fit(X, kind):
    kernel = kind(initialized())
    with pytest.warns(UntrainedNetworkWarning, match="history contains no epoch"):
        kernel(X)


TRAINED = {
    "trained": lambda net, X, y: net.fit(X, y),
    "Pipeline": lambda net, X, y: make_pipeline(StandardScaler(), net).fit(X, y),
    "FrozenEstimator": lambda net, X, y: FrozenEstimator(net.initialize()),
    "frozen Pipeline": lambda net, X, y: FrozenEstimator(
        make_pipeline(StandardScaler().fit(X), net.initialize())
    ),
    "Pipeline of FrozenEstimator": lambda net, X, y: make_pipeline(
        StandardScaler().fit(X), FrozenEstimator(net.initialize())
    ),
    "module": lambda net, X, y: net.initialize().module_,
    "pickled": lambda net, X, y: pickle.loads(pickle.dumps(net.fit(X, y))),
    "trimmed": lambda net, X, y: trim(net.fit(X, y)),
    "untrained": lambda net, X, y: net,
}


def trim(net):
    net.trim_for_prediction()
    return net


@pytest.mark.filterwarnings("error::sknetsim.UntrainedNetworkWarning")
@pytest.mark.parametrize("build", TRAINED.values(), ids=TRAINED)
def test_trained_and_frozen_networks_are_used_without_a_warning(X, classes, build):
    fitted = NetworkKernel(build(classifier(), X, classes)).fit(X, classes)
    assert fitted.transform(X).shape == (30, 30)


def test_a_frozen_net_that_is_not_initialised_raises_an_error(X, classes):
    net = classifier()
    for frozen in (FrozenEstimator(net), make_pipeline(StandardScaler(), FrozenEstimator(net))):
        with pytest.raises(ValueError, match="a FrozenEstimator of a NeuralNetClassifier, which"):
            NetworkDensity(frozen).fit(X, classes)
    assert not hasattr(net, "module_")


GRIDS = {
    "FrozenEstimator": (FrozenEstimator, True),
    "module": (lambda net: net.module_, True),
    "frozen Pipeline": (lambda net: FrozenEstimator(make_pipeline(net)), True),
    "net": (lambda net: net, False),
    "Pipeline": (lambda net: make_pipeline(net), False),
}


@pytest.mark.parametrize(("wrap", "is_kept"), GRIDS.values(), ids=GRIDS)
def test_a_grid_keeps_the_weights_of_frozen_nets_and_modules_only(X, classes, wrap, is_kept):
    """scikit-learn clones the values of a grid, which the guide says."""
    net = classifier().fit(X, classes)
    search = GridSearchCV(NetworkDensity(dimension=2.0), {"estimator": [wrap(net)]}, cv=2)
    used = NetworkKernel(search.fit(X, classes).best_estimator_.estimator_)(X)
    assert np.allclose(used, NetworkKernel(net)(X), atol=1e-6) == is_kept


def test_a_trained_net_that_set_params_sets_is_shared_by_clones(X, classes):
    net = classifier().fit(X, classes)
    density = clone(clone(NetworkDensity()).set_params(estimator=net))
    assert density.estimator is net
    assert clone(density.set_params(alpha=2.0)).fit(X).estimator_ is net
