"""Models of Hugging Face's transformers, with tiny configurations, and adapters on a frozen one."""

from importlib.util import find_spec

import torch
from torch import nn

from ..cases import Case, tokens
from .common import POSITIONS

WORDS = 11
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 9}
HEADS = {"num_labels": 2, "pad_token_id": 0}


class Logits(nn.Module):
    """Logits of a model for texts, whose word 0 is padding if ``masked``."""

    def __init__(self, model, masked=True):
        super().__init__()
        self.model, self.masked = model, masked

    def forward(self, words):
        mask = {"attention_mask": (words > 0).long()} if self.masked else {}
        return self.model(input_ids=words, **mask).logits


class LowRank(nn.Module):
    """Frozen linear layer plus a trainable product of two thin matrices."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, hidden):
        return self.layer(hidden) + 0.5 * self.up(self.down(hidden))


def make_bert():
    """Make a BERT that classifies texts."""
    from transformers import BertConfig, BertForSequenceClassification

    return Logits(BertForSequenceClassification(BertConfig(vocab_size=WORDS, **SIZES, **HEADS)))


def make_adapted_bert():
    """Make a frozen BERT with adapters of its queries and values."""
    network = make_bert()
    network.model.bert.requires_grad_(False)
    for layer in network.model.bert.encoder.layer:
        attention = layer.attention.self
        attention.query, attention.value = LowRank(attention.query), LowRank(attention.value)
    return network


def make_gpt2():
    """Make a GPT-2 that classifies texts by their last words."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 9}
    special = {"bos_token_id": 1, "eos_token_id": 1}
    config = GPT2Config(vocab_size=WORDS, use_cache=False, **sizes, **HEADS, **special)
    return Logits(GPT2ForSequenceClassification(config), masked=False)


class LastWords(nn.Module):
    """Two logits of the word after a text."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, words):
        return self.model(input_ids=words).logits[:, -1, :2]


def make_llama():
    """Make a language model with grouped heads whose last weight is that of its embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=WORDS,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        use_cache=False,
        max_position_embeddings=9,
        **SIZES,
    )
    return LastWords(LlamaForCausalLM(config))


class Answers(nn.Module):
    """Two logits of each of two words of an encoder and decoder."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, words):
        outputs = self.model(input_ids=words, decoder_input_ids=words[:, :2])
        return outputs.logits[..., 0]


def make_t5():
    """Make a T5, an encoder and decoder with learnt biases of relative positions."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 9, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=WORDS, use_cache=False, decoder_start_token_id=0, **sizes)
    return Answers(T5ForConditionalGeneration(config))


class Images(nn.Module):
    """Logits of a model for images."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(pixel_values=images).logits


def make_vit():
    """Make a vision transformer that classifies images."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=4, patch_size=2, num_channels=1, num_labels=2, **SIZES)
    return Images(ViTForImageClassification(config))


def make_swin():
    """Make a Swin transformer that classifies images."""
    from transformers import SwinConfig, SwinForImageClassification

    sizes = {"embed_dim": 4, "depths": [2, 1], "num_heads": [1, 2], "window_size": 2}
    config = SwinConfig(image_size=8, patch_size=1, num_channels=1, num_labels=2, **sizes)
    return Images(SwinForImageClassification(config))


def draw_images(side):
    """Return a function that draws images in float64."""
    return lambda n: torch.randn(n, 1, side, side, dtype=torch.float64)


TEXTS = tokens(POSITIONS, WORDS)
CASES = (
    [
        Case("BERT", make_bert, lambda n: TEXTS(n).index_fill(1, torch.tensor([0]), 1)),
        Case("BERT with adapters", make_adapted_bert, lambda n: 1 + TEXTS(n) % 10),
        Case("GPT-2", make_gpt2, lambda n: 2 + TEXTS(n) % 9),
        Case("Llama", make_llama, TEXTS),
        Case("T5", make_t5, lambda n: 1 + TEXTS(n) % 10),
        Case("ViT", make_vit, draw_images(4)),
        Case("Swin", make_swin, draw_images(8)),
    ]
    if find_spec("transformers")
    else []
)
