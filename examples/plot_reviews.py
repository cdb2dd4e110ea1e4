"""
Texts behind a vectorizer or a tokenizer
========================================

This example passes texts to sknetsim. A network learns from the text of a review whether its author
recommends a garment. It is the last step of a scikit-learn ``Pipeline`` that begins with a
vectorizer, or with a tokenizer of skorch. Each call gets the pipeline and raw texts, in a column, a
list or an array. The example finds similar reviews and suspicious labels, and looks up the
neighbours of new sentences.

The labels have real errors: some authors praise a garment and do not recommend it. The stars that
the authors gave as well reveal such errors. The network does not see the stars.
"""

import textwrap
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import LabelDenoiser, NetworkNeighbors
from sknetsim.datasets import load_clothing_reviews
from sknetsim.displays import NeighborsDisplay

try:
    from skorch.hf import HuggingfaceTokenizer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
except ImportError as error:
    HuggingfaceTokenizer = None
    print(f"The section on tokenizers is left out: {error}")

TRAINING = 8_000
TEST = 2_000
EPOCHS = 5
WORDS = 2_000
SHOWN = 10

reviews = load_clothing_reviews().sample(TRAINING + TEST, random_state=0, ignore_index=True)
print(pd.crosstab(reviews.recommended, reviews.stars).to_string())

# %%
# Training
# --------
# The samples are a column of a table, the texts as the authors wrote them. The vectorizer returns a
# sparse matrix, which skorch passes to the network.

X, X_test = reviews.text[:TRAINING], reviews.text[TRAINING:]
labels = reviews.recommended.to_numpy()
y, y_test = labels[:TRAINING], labels[TRAINING:]


def train(step, module, lr):
    """Train a network behind a step that takes texts, and print how good it is."""
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=EPOCHS,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    start = time.perf_counter()
    pipeline = make_pipeline(step, net).fit(X, y)
    area = roc_auc_score(y_test, pipeline.predict_proba(X_test)[:, 1])
    print(f"Training: {time.perf_counter() - start:.0f} seconds")
    print(f"Area under the ROC curve, test reviews: {area:.3f}")
    return pipeline


torch.manual_seed(0)
module = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 2))
vectorizer = TfidfVectorizer(
    ngram_range=(1, 2), max_features=WORDS, sublinear_tf=True, dtype=np.float32
)
pipeline = train(vectorizer, module, lr=2e-3)

# %%
# Similar reviews
# ---------------
# The queries are the first test review of each label. They are raw texts, and so are the rows of
# the figure. The three neighbours of the complaint are complaints about the fit or the design, and
# the neighbours of the praise also praise a dress.

neighbors = NetworkNeighbors(pipeline, n_neighbors=3).fit(X)
names = np.where(labels == 1, "recommended", "not")
first = [int(np.argmax(y_test == label)) for label in (0, 1)]
NeighborsDisplay.from_estimator(
    neighbors,
    X_test.iloc[first],
    labels=names[:TRAINING],
    query_labels=names[TRAINING:][first],
)
plt.show()

# %%
# Suspicious labels
# -----------------
# The quality of a label is the share of similar reviews with the same label, from 0 to 1. Reading
# the texts shows clear errors at the top of both lists: five stars and praise without a
# recommendation, and a recommendation of a garment that was returned. Further down, both labels are
# plausible, as in most reviews with three stars.

quality = LabelDenoiser(pipeline).fit(X, y).label_quality(X, y)
ranked = reviews[:TRAINING].assign(quality=quality)
for label, name in enumerate(["not recommended", "recommended"]):
    print(f"Most suspicious ones of the reviews with the label '{name}':")
    for review in ranked[y == label].nsmallest(SHOWN, "quality").itertuples():
        head = f"{review.quality:.3f} {'*' * review.stars:<5} "
        wrapping = {"max_lines": 2, "placeholder": " …", "subsequent_indent": " " * len(head)}
        print(textwrap.fill(head + review.text, 75, **wrapping))

# %%
# The stars check the lists without reading. A label contradicts them if the author recommends a
# garment with one or two stars, or does not recommend one with four or five. This is much more
# frequent among the 20 most suspicious reviews than among all: 25 % instead of 4.2 % without a
# recommendation, and 15 % instead of 0.6 % with one. The network's own confidence in a label finds
# as many: here, the similar reviews explain a suspicion, but do not improve the list.

confidence = pipeline.predict_proba(X)[np.arange(TRAINING), y]
for label, name in enumerate(["not recommended", "recommended"]):
    stars = ranked.stars.to_numpy()[y == label]
    contradicts = stars <= 2 if label else stars >= 4
    print(f"Contradictions among reviews with the label '{name}': {contradicts.mean():.1%}")
    for measure, values in {"quality": quality, "own confidence": confidence}.items():
        worst = contradicts[np.argsort(values[y == label])[:20]]
        print(f"    among the 20 most suspicious ones by {measure}: {worst.mean():.0%}")

# %%
# New sentences
# -------------
# The neighbours of two new sentences share their words: a garment that was ruined by one wash, and
# garments that run large and are recommended nevertheless.

sentences = [
    "The seams came apart after one wash.",
    "It runs large, but I wear it all the time.",
]
print("Probability of a recommendation:", pipeline.predict_proba(sentences)[:, 1].round(2))
NeighborsDisplay.from_estimator(neighbors, sentences, labels=names[:TRAINING])
plt.show()

# %%
# A tokenizer instead of the vectorizer
# -------------------------------------
# The tokenizer learns its words from the training reviews, and returns the numbers of the words
# together with a mask, which the network takes as two arguments. Its predictions are about as good.
# The similarity is another one, because the network is: the neighbours share the judgement of the
# first sentence rather than its words. No neighbour is about seams or washing.


class MeanOfWords(nn.Module):
    """Perceptron on the mean of the embeddings of the words."""

    def __init__(self, width=32):
        super().__init__()
        self.embedding, self.body = nn.Embedding(WORDS, width), nn.Linear(width, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        words = (self.embedding(input_ids) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return self.head(torch.relu(self.body(words)))


if HuggingfaceTokenizer is not None:
    tokenizer = HuggingfaceTokenizer(
        tokenizer=Tokenizer,
        model=models.WordLevel,
        model__unk_token="[UNK]",
        trainer=trainers.WordLevelTrainer,
        trainer__vocab_size=WORDS,
        trainer__special_tokens=["[UNK]", "[PAD]"],
        normalizer=normalizers.Lowercase,
        pre_tokenizer=pre_tokenizers.Whitespace,
        max_length=128,
        verbose=0,
    )
    torch.manual_seed(0)
    pipeline = train(tokenizer, MeanOfWords(), lr=5e-3)
    print("Probability of a recommendation:", pipeline.predict_proba(sentences)[:, 1].round(2))
    neighbors = NetworkNeighbors(pipeline, n_neighbors=3).fit(X)
    NeighborsDisplay.from_estimator(neighbors, sentences, labels=names[:TRAINING])
    plt.show()
