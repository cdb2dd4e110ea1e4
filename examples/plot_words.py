"""
Words that a recurrent network finds similar
============================================

This example measures similarities in a recurrent network that a third party trained. The network
pronounces English words: a GRU reads the letters, and a second one writes the phonemes. The example
finds similar words, compares the similarity in the part that reads with that in the part that
writes, and looks up misspelled words. The words come from reviews of clothes.

The network is a plain module at the end of a scikit-learn ``Pipeline``, whose first step converts
words to numbers of letters. Each call gets the pipeline and a list of words. Words of different
lengths are padded; the network ignores the padding.
"""

import difflib
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sknetsim import NetworkKernel
from sknetsim.datasets import load_clothing_reviews, load_pronunciation_network
from sknetsim.displays import ContributionsDisplay

WORDS = 1_500
COMPARED = 200
SHOWN = 5
QUERIES = ["weight", "good", "tough", "one"]
MISSPELLINGS = {
    "recieved": "received",
    "versitile": "versatile",
    "burgandy": "burgundy",
    "silouette": "silhouette",
    "sofisticated": "sophisticated",
    "dissapointed": "disappointed",
    "definately": "definitely",
    "favourite": "favorite",
    "reccomend": "recommend",
    "sandels": "sandals",
    "leggins": "leggings",
    "bottons": "buttons",
    "becasue": "because",
    "becuase": "because",
    "regualr": "regular",
    "mateiral": "material",
    "hwoever": "however",
    "falttering": "flattering",
    "prefectly": "perfectly",
    "eptites": "petites",
}

counts = Counter(load_clothing_reviews().text.str.lower().str.findall("[a-z]{3,}").explode())
frequent = [word for word, _ in counts.most_common(WORDS)]
words = np.array(list(dict.fromkeys([*frequent, *MISSPELLINGS.values()])))
network = load_pronunciation_network()
END = network.phonemes.index("</s>")


def pronounce(words):
    """Return the phonemes that the network writes for each word, as lists."""
    with torch.no_grad():
        rows = network(torch.from_numpy(network.spell(words))).argmax(dim=2).tolist()
    return [[network.phonemes[i] for i in row[: [*row, END].index(END)]] for row in rows]


queries = [*QUERIES, "beautiful"]
for query, phonemes in zip(queries, pronounce(queries), strict=True):
    print(f"{query:<12}{' '.join(phonemes)}")

# %%
# The pronunciation of "one" is that of "own", which is wrong. The package of the network looks up
# frequent words in a dictionary, and uses the network for other words only.
#
# Similar words
# -------------
# The output that is compared is the sum of the logits of the phonemes that the network writes, up
# to the end of the word. So two words are similar if a training step that raises this sum for one
# word also raises it for the other.
#
# The neighbours rhyme with the query, are spelled like it, or are its inflections. The last query
# shows a limit: few words are similar to a long word, apart from its inflections. The other
# neighbours of "beautiful" do not convince, and their similarities are low.


def sum_logits(logits):
    """Return the sum of the logits of the phonemes that the network writes, for each word."""
    largest, phonemes = logits.max(dim=2)
    is_written = (phonemes != END).cumprod(dim=1)
    return (largest * is_written).sum(dim=1, keepdim=True)


pipeline = make_pipeline(FunctionTransformer(network.spell), network)
kernel = NetworkKernel(pipeline, sum_logits)
misspelled = list(MISSPELLINGS)
similarities = kernel([*queries, *misspelled], words)
for query, row in zip(queries, similarities, strict=False):
    nearest = [i for i in np.argsort(-row) if words[i] != query][:SHOWN]
    print(f"{query:<12}" + ", ".join(f"{words[i]} {row[i]:.2f}" for i in nearest))

# %%
# Letters or sounds?
# ------------------
# ``parameters`` restricts the similarity to a part of the network. Its first half, the encoder,
# reads the letters, and its second half, the decoder, writes the phonemes. The figure has the words
# that are most similar to a query for one of the halves.
#
# For the encoder, "weight" is similar to "right" and "bright", whose last letters are the same, and
# for the decoder to "wait", which sounds the same, and "date" and "hate", which rhyme. "Good" is
# similar to "gold" for one half, and to "would" and "should" for the other; "tough" is similar to
# "touch" and "took", or to "rough" and "cuff". The neighbours of "one" reveal the error of the
# network: for the decoder, they are "own" and words in which these letters sound like "own", such
# as "stone".

HALVES = {
    "encoder": ["letter_embedding.*", "encoder.*"],
    "decoder": ["phoneme_embedding.*", "decoder.*", "head.*"],
}
compared = np.random.default_rng(0).choice(len(words), COMPARED, replace=False)
rows = [*QUERIES, *words[compared]]
similarity = {
    half: NetworkKernel(pipeline, sum_logits, parameters=names)(rows, words)
    for half, names in HALVES.items()
}

figure, grid = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
for row, (query, axes) in enumerate(zip(QUERIES, grid.flat, strict=True)):
    is_other = words != query
    others, x, y = words[is_other], *(similarity[half][row, is_other] for half in HALVES)
    shown = sorted({*np.argsort(-x)[:SHOWN], *np.argsort(-y)[:SHOWN]}, key=lambda i: y[i] - x[i])
    places = np.arange(len(shown))
    axes.barh(places + 0.2, y[shown], 0.4, color="#0072B2", label="decoder")
    axes.barh(places - 0.2, x[shown], 0.4, color="#D55E00", label="encoder")
    axes.set_yticks(places, others[shown])
    axes.set(title=query, xlabel="similarity")
grid[0, 0].legend(loc="lower right")
plt.show()

# %%
# The same holds on average. The table has the mean similarities of random words to all words, by
# whether their last two letters are equal, and by whether they rhyme: whether the phonemes that the
# network writes are equal from the last stressed vowel on. Words that rhyme but end in other
# letters, such as "weight" and "late", are much more similar for the decoder. Words with the same
# last letters that do not rhyme are about equally similar for both halves. So the difference is in
# the sounds: the decoder compares little else, and the encoder compares letters, too.


def find_rhyme(phonemes):
    """Return the phonemes from the last stressed vowel on; without one, all phonemes."""
    stressed = [i for i, phoneme in enumerate(phonemes) if phoneme[-1] in "12"]
    return " ".join(phonemes[stressed[-1] if stressed else 0 :])


rhymes = np.array([find_rhyme(phonemes) for phonemes in pronounce(words)])
endings = np.array([word[-2:] for word in words])
is_other = words[compared, None] != words
equal_ending, rhyming = (a[compared, None] == a for a in (endings, rhymes))
print(f"{'letters':<10}{'sound':<12}{'pairs':>8}" + "".join(f"{half:>10}" for half in HALVES))
for letters, letters_match in {"equal": equal_ending, "other": ~equal_ending}.items():
    for sound, sound_matches in {"rhyme": rhyming, "no rhyme": ~rhyming}.items():
        pairs = letters_match & sound_matches & is_other
        means = [gram[len(QUERIES) :][pairs].mean() for gram in similarity.values()]
        print(
            f"{letters:<10}{sound:<12}{pairs.sum():8,}" + "".join(f"{mean:10.3f}" for mean in means)
        )

# %%
# A similarity is a sum over layers. The contributions of the layers show the same difference for
# two pairs of words with the same first word. The decoder contributes most to the pair that sounds
# the same, and the encoder to the pair that is spelled the same.

others = ["wait", "right"]
contributions = kernel.contributions([QUERIES[0]] * 2, others)
figure, grid = plt.subplots(1, 2, figsize=(10, 3), layout="constrained", sharex=True, sharey=True)
for pair, axes in enumerate(grid):
    ContributionsDisplay.from_predictions(contributions, pair=pair, ax=axes)
    axes.set(title=f"{QUERIES[0]} and {others[pair]}", ylabel="")
plt.show()

# %%
# Misspelled words
# ----------------
# The authors of the reviews misspell some words. The list below is a selection of spellings that
# are close to a frequent word: some are written by ear, and the others are typing errors. Of 20
# words, 17 are most similar to the intended word. The similarity is large if the network pronounces
# both in the same way, as "dissapointed". It is small for typing errors that change the
# pronunciation, as "becuase".
#
# The similarity is not needed to find the intended words: a comparison of letters finds all 20. It
# shows which of the errors matter to this network.

first, first_by_letters = 0, 0
for word, row, phonemes in zip(
    misspelled, similarities[len(queries) :], pronounce(misspelled), strict=True
):
    intended = MISSPELLINGS[word]
    own = row[words == intended].item()
    rank = 1 + (row > own).sum()
    first += rank == 1
    first_by_letters += difflib.get_close_matches(word, list(words), 1, 0) == [intended]
    print(f"{word:<14}{' '.join(phonemes):<36}{intended:<14}rank {rank:<4}similarity {own:.2f}")
print(f"Intended word first: {first} of {len(misspelled)}; by letters: {first_by_letters}")
