"""Attribution methods of other packages.

A method takes networks, a task and values of the damping. It yields, for each damping, the
influences (queries, n) on the quantity of the task; positive means that a training sample helps.
Packages are imported where they are used, so that one that is missing fails on its own.
"""

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from lib.attribution.training import compute_losses, measure_outputs

#: Samples of a batch.
BATCH = 500
#: Queries of a batch if the memory of each one grows with the number of training samples.
FEW = 20
#: Random features of TRAK.
PROJECTED = 512


def make_data(task):
    """Make the data sets of the training samples and of the queries."""
    return TensorDataset(task.X, task.y), TensorDataset(task.X_query, task.y_query)


def compute_total_loss(outputs, y):
    """Return the sum of the losses of a batch."""
    return compute_losses(outputs, y).sum()


def compute_total_harm(outputs, y):
    """Return the negative sum of the explained quantity, which grows as a loss does."""
    return -measure_outputs(outputs, y).sum()


def draw_labels(outputs):
    """Draw labels as the network predicts them, for the true Fisher matrix."""
    if outputs.shape[-1] == 1:
        return torch.normal(outputs.detach(), 1.0)
    return torch.distributions.Categorical(logits=outputs.detach()).sample()


@contextmanager
def fit_kronfluence(networks, task, strategy):
    """Fit kronfluence's factors, with labels drawn from the network."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task

    class KronfluenceTask(Task):
        """Loss and measured quantity, as kronfluence takes them."""

        def compute_train_loss(self, batch, model, sample=False):
            outputs = model(batch[0])
            return compute_total_loss(outputs, draw_labels(outputs) if sample else batch[1])

        def compute_measurement(self, batch, model):
            return compute_total_harm(model(batch[0]), batch[1])

    (network,) = networks
    subject = KronfluenceTask()
    settings = {"cpu": True, "disable_tqdm": True, "log_level": logging.ERROR}
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(network, subject)
        analyzer = Analyzer("attribution", model, subject, output_dir=folder, **settings)
        factors = FactorArguments(strategy=strategy)
        analyzer.fit_all_factors("factors", make_data(task)[0], BATCH, factor_args=factors)
        yield analyzer


def run_kronfluence(networks, task, dampings, strategy):
    """Yield influences by kronfluence."""
    from kronfluence.arguments import ScoreArguments

    train, queries = make_data(task)
    with fit_kronfluence(networks, task, strategy) as analyzer:
        for number, damping in enumerate(dampings):
            arguments = ScoreArguments(damping_factor=damping)
            data = (f"scores_{number}", "factors", queries, train, BATCH)
            analyzer.compute_pairwise_scores(
                *data, per_device_train_batch_size=BATCH, score_args=arguments
            )
            yield analyzer.load_pairwise_scores(data[0])["all_modules"]


def compute_kronfluence_self_influences(network, task, damping, strategy):
    """Return kronfluence's influence of each training sample on its own loss."""
    from kronfluence.arguments import ScoreArguments

    with fit_kronfluence([network], task, strategy) as analyzer:
        arguments = ScoreArguments(damping_factor=damping)
        data = ("scores", "factors", make_data(task)[0], BATCH)
        analyzer.compute_self_scores(*data, score_args=arguments)
        return analyzer.load_self_scores("scores")["all_modules"].numpy()


def make_dattri_task(networks, compute_loss, compute_target):
    """Make dattri's task, whose functions take parameters and a batch."""
    from dattri.task import AttributionTask

    def make_function(compute):
        def function(parameters, batch):
            outputs = functional_call(networks[0], parameters, batch[0])
            return compute(outputs, batch[1]).mean()

        return function

    states = [dict(network.state_dict()) for network in networks]
    return AttributionTask(
        make_function(compute_loss), networks[0], states, make_function(compute_target)
    )


def make_dattri_loaders(task):
    """Make one batch of all training samples, over which dattri averages, and few queries each."""
    train, queries = make_data(task)
    return DataLoader(train, batch_size=len(train)), DataLoader(queries, batch_size=FEW)


def compute_harm(outputs, y):
    """Return the negative of the explained quantity of each sample."""
    return -measure_outputs(outputs, y)


def run_dattri(networks, task, dampings, name, **settings):
    """Yield influences by an influence function of dattri."""
    import dattri.algorithm.influence_function as algorithms

    train, queries = make_dattri_loaders(task)
    subject = make_dattri_task(networks, compute_losses, compute_harm)
    for damping in dampings:
        attributor = getattr(algorithms, name)(subject, regularization=damping, **settings)
        attributor.cache(train)
        with torch.no_grad():
            scores = attributor.attribute(train, queries)
        yield scores.T


def run_dattri_ekfac(networks, task, dampings):
    """Yield influences by dattri's EK-FAC, whose factors are of the given labels.

    Its hooks and its measured quantity share one function, which must be the loss here.
    """
    import dattri.algorithm.influence_function as algorithms

    train, queries = make_dattri_loaders(task)
    for damping in dampings:
        # The parameters that a task keeps after `attribute` need no gradients, unlike `cache`.
        subject = make_dattri_task(networks, compute_losses, compute_losses)
        attributor = algorithms.IFAttributorEKFAC(subject, damping=damping)
        attributor.cache(train)
        with torch.no_grad():
            scores = attributor.attribute(train, queries)
        yield scores.T


def run_dattri_trak(networks, task, dampings):
    """Yield scores by dattri's TRAK."""
    from dattri.algorithm.trak import TRAKAttributor

    def compute_probability(parameters, batch):
        outputs = functional_call(networks[0], parameters, batch[0][None])
        return (-compute_losses(outputs, batch[1][None])).exp()

    subject = make_dattri_task(networks, measure_outputs, measure_outputs)
    loaders = [DataLoader(data, batch_size=BATCH) for data in make_data(task)]
    for damping in dampings:
        projector = {"proj_dim": PROJECTED, "device": "cpu"}
        attributor = TRAKAttributor(subject, compute_probability, projector, regularization=damping)
        attributor.cache(loaders[0])
        with torch.no_grad():
            scores = attributor.attribute(loaders[1])
        yield scores.T


@contextmanager
def prepare_captum(networks, task):
    """Return captum's arguments: network, training data, the saved network, and settings."""

    def load(network, path):
        network.load_state_dict(torch.load(path, weights_only=True))
        return 1.0

    (network,) = networks
    settings = {
        "checkpoints_load_func": load,
        "loss_fn": compute_total_loss,
        "test_loss_fn": compute_total_harm,
        "batch_size": BATCH,
        "sample_wise_grads_per_batch": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt"
        torch.save(network.state_dict(), path)
        yield network, make_data(task)[0], str(path), settings


def run_captum_gradients(networks, task, dampings):
    """Yield products of gradients by captum's TracInCP, with the trained network only."""
    from captum.influence import TracInCP

    with prepare_captum(networks, task) as (network, train, path, settings):
        tracin = TracInCP(network, train, [path], **settings)
        for _ in dampings:
            yield tracin.influence((task.X_query, task.y_query))


def compute_captum_self_influences(network, task):
    """Return the squared norm of each training sample's gradient, by captum's TracInCP."""
    from captum.influence import TracInCP

    with prepare_captum([network], task) as (network, train, path, settings):
        return TracInCP(network, train, [path], **settings).self_influence().numpy()


def run_captum_arnoldi(networks, task, dampings):
    """Yield influences by captum's approximation of the Hessian with rank 50."""
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    with prepare_captum(networks, task) as (network, train, path, settings):
        for damping in dampings:
            method = ArnoldiInfluenceFunction(network, train, path, hessian_reg=damping, **settings)
            yield method.influence((task.X_query, task.y_query))


def run_traker(networks, task, dampings):
    """Yield scores by traker."""
    from trak import TRAKer

    states = [network.state_dict() for network in networks]
    loaders = [DataLoader(data, batch_size=BATCH) for data in make_data(task)]
    for damping in dampings:
        with tempfile.TemporaryDirectory() as folder:
            traker = TRAKer(
                networks[0],
                "image_classification",
                len(task.X),
                save_dir=folder,
                device="cpu",
                proj_dim=PROJECTED,
                use_half_precision=False,
                lambda_reg=damping,
                logging_level=logging.ERROR,
            )
            for number, state in enumerate(states):
                traker.load_checkpoint(state, model_id=number)
                for batch in loaders[0]:
                    traker.featurize(batch, num_samples=len(batch[0]))
            traker.finalize_features()
            for number, state in enumerate(states):
                traker.start_scoring_checkpoint("queries", state, number, len(task.X_query))
                for batch in loaders[1]:
                    traker.score(batch, num_samples=len(batch[0]))
            yield torch.as_tensor(traker.finalize_scores("queries").copy()).T
