"""
A table with categories and missing values
==========================================

This example passes a table with categories and missing values to sknetsim. A network learns to
recognise documentaries in a table of films from Wikidata. It is the last step of a scikit-learn
``Pipeline`` whose other steps scale numbers, impute missing ones and encode categories. Each call
gets the pipeline and rows of the table, as they are. The example finds similar films, unusual rows
and suspicious labels, and then examines films whose genre is missing.

The similarity is that of the network *after* the steps. A column that no step takes, such as the
title, has no effect on it, but it is displayed.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import LabelDenoiser, NetworkDensity, NetworkNeighbors
from sknetsim.datasets import load_films
from sknetsim.displays import NeighborsDisplay

TRAINING = 12_000
EPOCHS = 10
SHOWN = 15
FICTION = "Action|Comedy|Crime|Drama|Fantasy|Horror|Mystery|Romance|Sci-Fi|Thriller"
TEXT = {"index": False, "max_colwidth": 36, "float_format": "{:.3g}".format}

films = load_films()
columns = ["title", "year", "runtime", "rated", "country", "critics", "metacritic", "reviews"]
columns += ["box_office"]
print(f"Missing values in {len(films):,} films:")
print(films[columns].isna().mean().map("{:.0%}".format).to_string())

# %%
# Training
# --------
# More than half of the films have no score by Metacritic, and most have neither a rating nor a box
# office. ``StandardScaler`` ignores missing numbers. The imputer after it replaces them by the mean
# and adds a column with 1 for each missing number. ``OneHotEncoder`` takes a missing category as
# one more category, and rare categories together.

has_genre = films.genres.notna()
known = films[has_genre].sample(frac=1, random_state=0, ignore_index=True)
is_documentary = known.genres.str.contains("Documentary").to_numpy(np.int64)
X, y = known[columns][:TRAINING], is_documentary[:TRAINING]
X_test, y_test = known[columns][TRAINING:], is_documentary[TRAINING:]

imputer = SimpleImputer(add_indicator=True)
logarithm = FunctionTransformer(np.log1p)
steps = make_column_transformer(
    (make_pipeline(StandardScaler(), imputer), ["year", "runtime", "critics", "metacritic"]),
    (make_pipeline(logarithm, StandardScaler(), imputer), ["reviews", "box_office"]),
    (
        OneHotEncoder(min_frequency=50, handle_unknown="infrequent_if_exist", sparse_output=False),
        ["rated", "country"],
    ),
)
torch.manual_seed(0)
module = nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
net = NeuralNetClassifier(
    module,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    max_epochs=EPOCHS,
    lr=1e-3,
    batch_size=64,
    iterator_train__shuffle=True,
    train_split=None,
    verbose=0,
)
start = time.perf_counter()
pipeline = make_pipeline(steps, FunctionTransformer(np.float32), net).fit(X, y)
print(f"Training: {time.perf_counter() - start:.0f} seconds")
probability = pipeline.predict_proba(X_test)[:, 1]
print(f"{y.mean():.1%} of the films are documentaries.")
print(f"Area under the ROC curve, test films: {roc_auc_score(y_test, probability):.3f}")

# %%
# Similar films
# -------------
# The queries are test films: the fiction film with the most reviews, the documentary with the most
# reviews, and the documentary with the most missing values. The network sees no title and no
# subject. For this network, "Fahrenheit 9/11" is a box-office hit like the fiction films around it.
# The third query is compared by the values that it has and by those that it lacks: its neighbours
# lack the same ones.

neighbors = NetworkNeighbors(pipeline, n_neighbors=5).fit(X)
kinds = np.where(y == 1, "documentary", "other")
documentaries = X_test[y_test == 1]
queries = pd.concat(
    [
        X_test[y_test == 0].nlargest(1, "reviews"),
        documentaries.nlargest(1, "reviews"),
        documentaries.loc[[documentaries.isna().sum(axis=1).idxmax()]],
    ]
)
query_kinds = ["other", "documentary", "documentary"]
NeighborsDisplay.from_estimator(neighbors, queries, labels=kinds, query_labels=query_kinds)
plt.show()

# %%
# Unusual rows
# ------------
# One of these rows has a wrong value: "Machuca" is not one minute long. No value of the others is
# obviously wrong, but they are rare: short films, old documentaries with few reviews, a Japanese
# documentary with the rating PG.

density = NetworkDensity(pipeline, method="power", alpha=16).fit(X)
scores = density.score_samples(X)
order = np.argsort(scores)
unusual = X.assign(density=scores).iloc[order[:SHOWN]]
print(unusual[["density", *columns[:5], "reviews"]].to_string(**TEXT))

# %%
# The ranks of the shortest films show that the density finds what is rare, not what is wrong:
# "Destino" and "Heavy Metal Parking Lot" are as short as the table says.

ranks = pd.Series(range(1, len(X) + 1), index=order)
shortest = X[["title", "runtime"]].nsmallest(5, "runtime")
print(shortest.assign(rank=ranks[shortest.index]).to_string(**TEXT))

# %%
# Suspicious labels
# -----------------
# The quality of a label is the share of similar films with the same label, from 0 to 1. Among the
# documentaries, the list begins with "Apollo 18", a horror film that pretends to be one. "Faces of
# Death" is largely staged, and "The Naked City" is a crime film. Most of the others are indeed
# documentaries, but unusual ones, such as concert films that many people watched.
#
# The second list is less convincing: most of it consists of small, well reviewed films whose label
# is right. Three are not fiction: a recorded performance ("Aziz Ansari: Buried Alive") and
# documentaries about a musician ("Runnin' Down a Dream") and a photographer ("William Eggleston in
# the Real World"). Wikidata lists them under comedy, music and biography only.

denoiser = LabelDenoiser(pipeline).fit(X, y)
quality = denoiser.label_quality(X, y)
labelled = known[["title", "year", "genres"]][:TRAINING]
labelled.insert(0, "quality", quality)
print("Labelled as documentaries:")
print(labelled[y == 1].nsmallest(SHOWN, "quality").to_string(**TEXT))
print("Not labelled as documentaries:")
print(labelled[y == 0].nsmallest(SHOWN, "quality").to_string(**TEXT))

# %%
# The other genres, which the network does not see, allow a check of the first list. Of all
# documentaries, 6 % have a genre of fiction as well; of the 20 most suspicious ones, 55 % do. With
# the network's own confidence in the label instead, it is 40 %, which is three films fewer.

is_fiction = labelled.genres.str.contains(FICTION).to_numpy()[y == 1]
confidence = pipeline.predict_proba(X)[:, 1]
print(f"Documentaries that have a genre of fiction, too: {is_fiction.mean():.0%}")
for name, values in {"quality": quality, "own confidence": confidence}.items():
    worst = is_fiction[np.argsort(values[y == 1])[:20]]
    print(f"    the 20 most suspicious ones by {name}: {worst.mean():.0%}")

# %%
# Films without a genre
# ---------------------
# Wikidata has no genre for 443 films, so they are new to the network. The share of documentaries
# among the similar films is an estimate. Nine of the 15 films with the largest estimates are
# documentaries, among them those about Jack Smith and William Burroughs. The others, such as
# "Sparrows Dance" and "My Dog Tulip", are small fiction films.

unknown = films[~has_genre]
estimates = denoiser.transform(unknown[columns])[:, 1]
unknown = unknown[["title", "director", "year"]].assign(estimate=estimates)
print(unknown.nlargest(SHOWN, "estimate").to_string(**TEXT))

# %%
# A new row may lack most of its values. Its columns need the types of the table: pandas takes a
# column without any value for a column of numbers, which the one-hot encoder refuses.

new = pd.DataFrame([{"title": "A new film", "year": 2014, "runtime": 75}], columns=columns)
new = new.astype(X.dtypes)
print(f"Share of documentaries among similar films: {denoiser.transform(new)[0, 1]:.2f}")
print(f"Probability according to the network: {pipeline.predict_proba(new)[0, 1]:.2f}")
NeighborsDisplay.from_estimator(neighbors, new, labels=kinds)
plt.show()
