"""A tiny causal encoder like Qwen3-Embedding: the token that its tokenizer puts last reads all."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_encoders import DIM, MAX_LENGTH, VOCABULARY, corpus
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoModel, PreTrainedTokenizerFast, Qwen3Config

END = "<|endoftext|>"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizers cut a text: a blank, or one sign, belongs to the word behind it."""


def save_causal_encoder(folder: Path) -> Path:
    """Writes a model and its tokenizer where transformers finds them."""
    tokenizer = _train_tokenizer()
    end = tokenizer.convert_tokens_to_ids(END)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=DIM // 4,
        intermediate_size=2 * DIM,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=end,
        eos_token_id=end,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():  # as initialised, a layer adds next to nothing to its input
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(5)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _train_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END],
            show_progress=False,
            initial_alphabet=alphabet,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}",
        pair=f"$A $B {END}",
        special_tokens=[(END, tokenizer.token_to_id(END))],
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=END,
        eos_token=END,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )
