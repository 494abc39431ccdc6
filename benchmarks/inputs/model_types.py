"""A tiny encoder of each model type that transformers has and people use: random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedTokenizerFast,
)

from bitheads.export.texts import read_texts

MAX_LENGTH = 80
VOCABULARY = 1200
LAYERS, DIM, HEADS = 2, 64, 4

_BERT = {
    "hidden_size": DIM,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * DIM,
    "max_position_embeddings": MAX_LENGTH,
}
_ROTARY = {**_BERT, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096}
_T5 = {"d_model": DIM, "num_layers": LAYERS, "num_heads": HEADS, "d_ff": 2 * DIM, "d_kv": 16}
_DEBERTA = {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_WINDOW = 16

TYPES: Mapping[str, Mapping[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "mpnet": _BERT,
    "modernbert": {
        **_BERT,
        "num_hidden_layers": 4,
        "local_attention": _WINDOW,
        "max_position_embeddings": 8192,
    },
    "xlm-roberta": _BERT,
    "xlm-roberta-xl": _BERT,
    "distilbert": {
        "dim": DIM,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_dim": 2 * DIM,
        "max_position_embeddings": MAX_LENGTH,
    },
    "electra": {**_BERT, "embedding_size": 32},
    "albert": {**_BERT, "embedding_size": 32},
    "camembert": _BERT,
    "xmod": {**_BERT, "default_language": "en_XX", "languages": ["en_XX"]},
    "data2vec-text": _BERT,
    "ernie": _BERT,
    "roformer": {**_BERT, "embedding_size": DIM},
    "mobilebert": {
        **_BERT,
        "embedding_size": 32,
        "intra_bottleneck_size": DIM,
        "true_hidden_size": DIM,
    },
    "squeezebert": {
        **_BERT,
        "embedding_size": DIM,
        **dict.fromkeys(
            (
                "q_groups",
                "k_groups",
                "v_groups",
                "post_attention_groups",
                "intermediate_groups",
                "output_groups",
            ),
            1,
        ),
    },
    "rembert": {**_BERT, "input_embedding_size": 32, "output_embedding_size": 32},
    "megatron-bert": _BERT,
    "big_bird": {**_BERT, "attention_type": "original_full"},
    "deberta": _DEBERTA,
    "deberta-v2": {
        **_DEBERTA,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "nomic_bert": _BERT,
    "gte": _BERT,
    "jina_embeddings_v3": _BERT,
    "eurobert": _ROTARY,
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "qwen2": _ROTARY,
    "qwen3": _ROTARY,
    "llama": _ROTARY,
    "mistral": {**_ROTARY, "sliding_window": _WINDOW},
    "gemma3_text": {**_ROTARY, "sliding_window": _WINDOW, "query_pre_attn_scalar": 16},
    "modernbert-decoder": {
        **_BERT,
        "num_hidden_layers": 4,
        "local_attention": _WINDOW,
        "max_position_embeddings": 8192,
    },
    # Two that nothing here was written for.
    "olmo2": _ROTARY,
    "gpt_neox": {**_BERT, "max_position_embeddings": 512},
}

REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "nystromformer": (
        {**_BERT, "num_landmarks": 8, "segment_means_seq_len": 8},
        "depend on the padding beside it",
    ),
    "convbert": (_BERT, "depend on the padding beside it"),
    "fnet": (_BERT, "depend on the padding beside it"),
    "funnel": (
        {
            "d_model": DIM,
            "n_head": HEADS,
            "d_head": 16,
            "d_inner": 2 * DIM,
            "block_sizes": [1, 1],
            "block_repeats": [1, 1],
            "architectures": ["FunnelModel"],
        },
        "cannot be run on token ids alone",
    ),
}
"""Types whose hidden states are no features of tokens, and what is said of them."""

WORDS = ("a", "line", "of", "plain", "words,", "some", "longer", "than", "others", "are")
TEXTS = [" ".join((WORDS * 6)[:count]) for count in (1, 2, 5, 9, 17, 33, 60)]
"""Of one token to as many as are read: the graph was traced with eight."""

_TIMES = 5.0
"""As initialised, a layer adds next to nothing to its input, and every token looks alike."""


def save_encoder(model_type: str, values: Mapping[str, Any], folder: Path) -> Path:
    """Writes a model and a tokenizer where transformers finds them."""
    kind: Any = CONFIG_MAPPING[model_type]
    has_types = kind().to_dict().get("type_vocab_size", 0) > 1
    tokenizer = train_wordpiece(has_types)
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": tokenizer.pad_token_id}
    # Some types' tokenizers add tokens of their own to any vocabulary.
    config = kind(vocab_size=len(tokenizer) + 8, **ids, **values)
    torch.manual_seed(0)
    model = auto_class(kind).from_config(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 and weights.std() < 0.1 and "norm" not in name:
                weights.mul_(_TIMES)
            elif weights.ndim == 1:
                weights.add_(0.1 * torch.randn_like(weights))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def auto_class(kind: Any) -> Any:
    """What loads a class of configurations: of an encoder-decoder the encoder alone."""
    has_encoder = kind in AutoModelForTextEncoding._model_mapping
    return AutoModelForTextEncoding if has_encoder else AutoModel


def num_layers(model_type: str) -> int:
    """Of a type's tiny encoder."""
    values = TYPES[model_type]
    return int(values.get("num_hidden_layers") or values.get("n_layers") or values["num_layers"])


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def train_wordpiece(has_types: bool, max_length: int = MAX_LENGTH) -> PreTrainedTokenizerFast:
    """A tokenizer like BERT's, of the shipped sentences."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = _wordpiece({})
    texts = read_texts(None)
    characters = {c for text in texts for c in tokenizer.normalizer.normalize_str(text)}
    # In their places before words are counted: else their ids, and with them which of two equally
    # frequent pieces is taken, are other ones in each process.
    pieces = [f"##{c}" for c in sorted(characters) if not c.isspace()]
    tokenizer.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=VOCABULARY, special_tokens=[*special, *pieces], show_progress=False
        ),
    )
    tokenizer = _wordpiece(tokenizer.get_vocab())  # to which those are no special tokens
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", *["token_type_ids"] * has_types, "attention_mask"],
    )
