"""Tiny encoders of every family, made on the spot: real models and tokenizers, random weights."""

from __future__ import annotations

from importlib.resources import files
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
    AutoModel,
    BertConfig,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from benchmarks.inputs.model_types import VOCABULARY, train_wordpiece

FAMILIES = ("bert", "roberta", "distilbert", "xlm-roberta")
DIM, ATTENTION_HEADS = 64, 4
MAX_LENGTH = 64


def save_tiny_encoder(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes a model and its tokenizer where `AutoModel` and `AutoTokenizer` find them."""
    tokenizer = _train_tokenizer(family)
    _make_model(family, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def num_layers(family: str) -> int:
    """A family's layers: three for BERT, so that a mean leaves some out; tracing takes time."""
    return 3 if family == "bert" else 2


def corpus() -> list[str]:
    """The sentences a build is calibrated on, which is also what the tokenizers learn from."""
    source = files("bitheads.export") / "data" / "sentences.txt"
    return source.read_text(encoding="utf-8").splitlines()


def _make_model(family: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    pad_id = tokenizer.pad_token_id
    common = {"vocab_size": len(tokenizer), "pad_token_id": pad_id}
    shape = {
        "hidden_size": DIM,
        "num_hidden_layers": num_layers(family),
        "num_attention_heads": ATTENTION_HEADS,
        "intermediate_size": 2 * DIM,
        # Positions of these two families begin behind the padding's id.
        "max_position_embeddings": MAX_LENGTH + (pad_id + 1 if "roberta" in family else 0),
    }
    if family == "bert":
        config = BertConfig(**common, **shape)
    elif family == "roberta":
        config = RobertaConfig(**common, **shape, type_vocab_size=1)
    elif family == "xlm-roberta":
        config = XLMRobertaConfig(**common, **shape, type_vocab_size=1)
    else:
        config = DistilBertConfig(
            **common,
            dim=DIM,
            n_layers=num_layers(family),
            n_heads=ATTENTION_HEADS,
            hidden_dim=2 * DIM,
            max_position_embeddings=MAX_LENGTH,
        )
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    # As initialised, a layer adds next to nothing to its input, and every token looks alike.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.ndim == 2 else parameter.add_(
                0.1 * torch.randn_like(parameter)
            )
    return model.eval()


def _train_tokenizer(family: str) -> PreTrainedTokenizerFast:
    if family in ("bert", "distilbert"):
        return train_wordpiece(family == "bert", MAX_LENGTH)
    return _train_byte_level_bpe() if family == "roberta" else _train_unigram()


def _train_byte_level_bpe() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", 2), cls_token=("<s>", 0), add_prefix_space=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _with_roberta_tokens(tokenizer)


def _train_unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            show_progress=False,
            unk_token="<unk>",
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.decoder = decoders.Metaspace()
    return _with_roberta_tokens(tokenizer)


def _with_roberta_tokens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=MAX_LENGTH,
    )
