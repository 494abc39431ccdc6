"""An encoder of RoBERTa-large's shape with seeded random weights: speed does not depend on them.

No such weights are on the package index, and this project fetches none from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.head_kernels import alike_heads
from benchmarks.inputs.shapes import SHAPES, Shape, random_model
from bitheads.engine import bundle
from bitheads.engine.heads.head_file import SUFFIX, write_head
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.export.texts import read_texts

NAME = "seeded-roberta-large"
HEADS = 14
SENTENCES = 60
MIN_SIGN_AGREEMENT = 0.99
"""Share of signs that the build asks for: random weights leave more features near zero than
trained ones do."""


def make_seeded_bundle(
    folder: Path, shape: Shape | None = None, say: Callable[[str], None] = lambda message: None
) -> tuple[Path, str]:
    """Writes the encoder and a bundle with random heads into `folder`; what is there is kept.

    Returns the bundle and the encoder's folder.
    """
    source, output = folder / NAME, folder / f"{NAME}-bundle"
    if (output / bundle.MANIFEST).is_file():
        return output, str(source)
    folder.mkdir(parents=True, exist_ok=True)
    save_encoder(source, shape or SHAPES["RoBERTa-large"])
    sentences = read_texts(None)
    texts = folder / "calibration.txt"
    texts.write_text("\n".join(sentences[:: len(sentences) // SENTENCES]), encoding="utf-8")
    manifest = make_bundle(
        BuildConfig(
            encoder=str(source),
            calibration=texts,
            output=output,
            min_sign_agreement=MIN_SIGN_AGREEMENT,
        ),
        say,
    )
    for head in alike_heads(manifest.spec, manifest.encoder.attention_heads, HEADS):
        write_head(head, output / bundle.HEADS / f"{head.task}{SUFFIX}", dtype="float16")
    return output, str(source)


def save_encoder(folder: Path, shape: Shape) -> None:
    """A RoBERTa with a byte-level BPE tokenizer learned from the shipped sentences."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        read_texts(None),
        trainers.BpeTrainer(
            vocab_size=4000,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", 2), cls_token=("<s>", 0), add_prefix_space=False
    )
    make_fast: Any = PreTrainedTokenizerFast
    fast = make_fast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=shape.max_length,
    )
    random_model(replace(shape, vocab_size=len(fast))).save_pretrained(folder)
    fast.save_pretrained(folder)
