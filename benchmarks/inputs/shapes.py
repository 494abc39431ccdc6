"""The encoders that benchmarks are about, as numbers: counting with them needs no model."""

from __future__ import annotations

from collections.abc import Mapping
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
        family: a key of FAMILIES, transformers' model type.
        max_length: of a text, in tokens.
        gated: its dense stage has a third matrix, which gates.
    """

    layers: int
    dim: int
    ffn_dim: int
    attention_heads: int
    pooled_layers: int
    vocab_size: int = 50265
    max_length: int = 512
    family: str = "roberta"
    gated: bool = False


FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "modernbert": {},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}
"""What their configurations say beside the sizes, where it is not transformers' default."""

SHAPES = {
    "RoBERTa-large": Shape(24, 1024, 4096, 16, pooled_layers=16),
    "all-MiniLM-L6-v2": Shape(6, 384, 1536, 12, pooled_layers=4, vocab_size=30522, family="bert"),
}

MODERNBERT_BASE = Shape(
    22, 768, 1152, 12, 15, vocab_size=50368, max_length=8192, family="modernbert", gated=True
)
SEEDED = {
    "RoBERTa-base": Shape(12, 768, 3072, 12, pooled_layers=8),
    "RoBERTa-large": SHAPES["RoBERTa-large"],
    "ModernBERT-base": MODERNBERT_BASE,
    "DeBERTa-v3-base": Shape(12, 768, 3072, 12, 8, vocab_size=128100, family="deberta-v2"),
}
"""Encoders that are timed without their weights, which no package carries."""


def random_model(shape: Shape) -> Any:
    """A transformers model of that shape in fp32, its random weights the same each time.

    As transformers makes it where nothing is said of attention.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    from bitheads.export.source.architecture import without_pooler

    # RoBERTa's positions begin after that of padding, which is 1.
    positions = shape.max_length + (2 if shape.family == "roberta" else 0)
    kind: Any = CONFIG_MAPPING[shape.family]
    config = kind(
        vocab_size=shape.vocab_size,
        hidden_size=shape.dim,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.attention_heads,
        intermediate_size=shape.ffn_dim,
        max_position_embeddings=positions,
        **FAMILIES[shape.family],
    )
    model: Any = AutoModel._model_mapping[kind]
    torch.manual_seed(0)
    return model._from_config(config, **without_pooler(model)).eval()


def random_encoder(name: str, shape: Shape) -> Encoder:
    """`random_model` in half precision, ready to be exported."""
    from bitheads.export.source.architecture import EAGER, examine
    from bitheads.export.source.encoder import Encoder

    model = random_model(shape)
    model.set_attn_implementation(EAGER)
    pad_id = model.config.pad_token_id
    found = examine(model, pad_id)
    return Encoder(
        name=name,
        model=model.half(),
        tokenizer=None,
        model_type=shape.family,
        num_layers=found.num_layers,
        attention_heads=found.attention_heads,
        dim=found.dim,
        max_length=shape.max_length,
        pad_id=pad_id,
        weights_sha256="0" * 64,
        vocabulary=model.config.vocab_size,
        token_types=found.token_types,
        reads_token_types=shape.family == "bert",
        forward=found.forward,
    )
