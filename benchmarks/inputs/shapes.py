"""The encoders that benchmarks are about, as numbers: counting with them needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitheads.export.source.encoder import Encoder


TEXT_TOKENS = 50
"""Tokens of a text, as in the paper (Section 6)."""

CLASSES = 3
"""Classes of a task."""


@dataclass(frozen=True)
class Shape:
    """An encoder, and how many of its layers are pooled. Task heads have its attention heads.

    Attributes:
        family: "bert" or "roberta".
        max_length: of a text, in tokens.
    """

    layers: int
    dim: int
    ffn_dim: int
    attention_heads: int
    pooled_layers: int
    vocab_size: int = 50265
    max_length: int = 512
    family: str = "roberta"


SHAPES = {
    "RoBERTa-large": Shape(24, 1024, 4096, 16, pooled_layers=16),
    "all-MiniLM-L6-v2": Shape(6, 384, 1536, 12, pooled_layers=4, vocab_size=30522, family="bert"),
}

SEEDED = {
    "RoBERTa-base": Shape(12, 768, 3072, 12, pooled_layers=8),
    "RoBERTa-large": SHAPES["RoBERTa-large"],
}
"""Encoders that are timed without their weights, which no package carries."""


def random_model(shape: Shape) -> Any:
    """A transformers model of that shape in fp32, its random weights the same each time."""
    import torch
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    sizes: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.attention_heads,
        "intermediate_size": shape.ffn_dim,
        "attn_implementation": "eager",
    }
    torch.manual_seed(0)
    if shape.family == "bert":
        bert = BertConfig(max_position_embeddings=shape.max_length, **sizes)
        model: Any = BertModel(bert, add_pooling_layer=False)
    else:
        # Positions begin after that of padding, which is 1.
        length = shape.max_length + 2
        roberta = RobertaConfig(max_position_embeddings=length, type_vocab_size=1, **sizes)
        model = RobertaModel(roberta, add_pooling_layer=False)
    return model.eval()


def random_encoder(name: str, shape: Shape) -> Encoder:
    """`random_model` in half precision, ready to be exported."""
    from bitheads.export.source.encoder import Encoder

    model = random_model(shape).half()
    return Encoder(
        name=name,
        model=model,
        tokenizer=None,
        model_type=shape.family,
        num_layers=shape.layers,
        attention_heads=shape.attention_heads,
        dim=shape.dim,
        max_length=shape.max_length,
        pad_id=model.config.pad_token_id,
        weights_sha256="0" * 64,
        vocabulary=model.config.vocab_size,
        token_types=model.config.type_vocab_size,
        reads_token_types=shape.family == "bert",
    )
