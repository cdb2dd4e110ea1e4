"""Seconds and peak memory of the public methods."""

from lib.networks import make_network_and_samples

from sknetsim import GradientFeaturizer, NetworkDensity, NetworkKernel, NetworkNeighbors

COUNTS = {"MLP": 200, "CNN": 24}
QUERIES = 12
COMPONENTS = 16


class Networks:
    """Base class of the benchmarks, with a network and samples."""

    params = (["MLP", "CNN"], [1, 10])
    param_names = ("kind", "outputs")

    def setup(self, kind, outputs):
        """Make the network and the samples; this is not measured."""
        self.network, self.X = make_network_and_samples(kind, outputs, COUNTS[kind])
        self.queries = self.X[:QUERIES]


class Kernel(Networks):
    """Benchmarks of NetworkKernel."""

    def setup(self, kind, outputs):
        super().setup(kind, outputs)
        self.kernel = NetworkKernel(self.network)

    def time_call(self, *parameters):
        self.kernel(self.X)

    def time_matrix(self, *parameters):
        self.kernel.matrix(self.queries, self.X)

    def time_influence(self, *parameters):
        self.kernel.influence(self.queries, self.X)

    peakmem_call, peakmem_matrix, peakmem_influence = time_call, time_matrix, time_influence


class Featurizer(Networks):
    """Benchmarks of GradientFeaturizer."""

    params = (*Networks.params, ["exact", "nystroem", "sketch"])
    param_names = (*Networks.param_names, "method")

    def setup(self, kind, outputs, method):
        super().setup(kind, outputs)
        size = None if method == "exact" else COMPONENTS
        self.featurizer = GradientFeaturizer(
            self.network, n_components=size, method=method, random_state=0
        ).fit(self.X)

    def time_fit(self, *parameters):
        self.featurizer.fit(self.X)

    def time_transform(self, *parameters):
        self.featurizer.transform(self.queries)

    peakmem_fit, peakmem_transform = time_fit, time_transform


class Density(Networks):
    """Benchmarks of NetworkDensity."""

    params = (*Networks.params, ["soft", "threshold", "power", "threshold of features"])
    param_names = (*Networks.param_names, "method")

    def setup(self, kind, outputs, method):
        super().setup(kind, outputs)
        n_components = COMPONENTS if method.endswith("features") else None
        method = method.split()[0]
        self.density = NetworkDensity(
            self.network, method=method, n_components=n_components, random_state=0
        ).fit(self.X)

    def time_fit(self, *parameters):
        self.density.fit(self.X)

    def time_score_samples(self, *parameters):
        self.density.score_samples(self.queries)

    peakmem_fit, peakmem_score_samples = time_fit, time_score_samples


class Neighbors(Networks):
    """Benchmarks of NetworkNeighbors; with features, the nearest samples are re-ranked."""

    params = (*Networks.params, [None, COMPONENTS])
    param_names = (*Networks.param_names, "n_components")

    def setup(self, kind, outputs, n_components):
        super().setup(kind, outputs)
        candidates = n_components and 2 * n_components
        self.neighbors = NetworkNeighbors(
            self.network, n_components=n_components, n_candidates=candidates, random_state=0
        ).fit(self.X)

    def time_fit(self, *parameters):
        self.neighbors.fit(self.X)

    def time_kneighbors(self, *parameters):
        self.neighbors.kneighbors(self.queries)

    def time_radius_neighbors(self, *parameters):
        self.neighbors.radius_neighbors(self.queries)

    def time_kneighbors_graph(self, *parameters):
        self.neighbors.kneighbors_graph(self.queries)

    peakmem_kneighbors = time_kneighbors
