"""Tokenizers with the pipelines of those that people use, trained on what is on any machine.

The published ones are no part of this project and cannot be fetched everywhere. What a graph of
one gets wrong lies in its pipeline (normalizer, regular expressions, kind of model, added tokens),
which is the same here: transformers' own classes make it. Vocabularies are small, but not so small
that merges would not matter.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AlbertTokenizer,
    BertTokenizer,
    BigBirdTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RemBertTokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

VOCABULARY = 8000
_LANGUAGES_TIMES = 20
"""Lines of other languages are few: so often they are read."""
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@lru_cache(maxsize=1)
def corpus() -> tuple[str, ...]:
    """Python's manual, the shipped sentences, and a sentence in each of 38 languages."""
    manual = "\n".join(import_module("pydoc_data.topics").topics.values())
    folder = files("bitheads.export") / "data"
    sentences, languages = (
        (folder / name).read_text(encoding="utf-8") for name in ("sentences.txt", "languages.txt")
    )
    return (
        *manual.splitlines(),
        *sentences.splitlines(),
        *languages.splitlines() * _LANGUAGES_TIMES,
    )


@lru_cache(maxsize=2)
def _word_pieces(lowercase: bool) -> Mapping[str, int]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "<pad>", "</s>", "<mask>"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer.get_vocab()


def _train_bytes(pattern: str | None, special: list[str], **options: Any) -> Tokenizer:
    """Byte-level BPE, split by GPT-2's expression or by `pattern`."""
    tokenizer = Tokenizer(models.BPE(**options))
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def _vocabulary_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers' classes of BPE take."""
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


@lru_cache(maxsize=4)
def _sentence_pieces(kind: str, rule: str) -> Any:
    """A model trained by sentencepiece, as its message."""
    sentencepiece = import_module("sentencepiece")
    proto = import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=written,
        model_type=kind,
        vocab_size=VOCABULARY,
        normalization_rule_name=rule,
        byte_fallback=kind == "bpe",
        character_coverage=0.9995,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    proto.ParseFromString(written.getvalue())
    return proto


def _unigram(special: list[str]) -> dict[str, Any]:
    """Pieces with their scores behind `special`, and the table of characters of sentencepiece."""
    proto = _sentence_pieces("unigram", "nmt_nfkc")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces if piece.type == 1]
    return {
        "vocab": [*((token, 0.0) for token in special), *pieces],
        "_spm_precompiled_charsmap": proto.normalizer_spec.precompiled_charsmap,
    }


def _byte_fallback(special: list[str]) -> dict[str, Any]:
    """Vocabulary and merges of a BPE model of sentencepiece, whose other characters are bytes."""
    proto = _sentence_pieces("bpe", "identity")
    pieces = [piece.piece for piece in proto.pieces if piece.type in (1, 6)]
    vocab = {token: number for number, token in enumerate([*special, *pieces])}
    found = []
    for piece in proto.pieces:
        if piece.type == 1:
            for cut in range(1, len(piece.piece)):
                left, right = piece.piece[:cut], piece.piece[cut:]
                if left in vocab and right in vocab:
                    found.append((-piece.score, vocab[left], vocab[right], (left, right)))
    return {"vocab": vocab, "merges": [merge for *_, merge in sorted(found)]}


def _fast(**options: Any) -> Any:
    return PreTrainedTokenizerFast(**options)  # type: ignore[no-untyped-call]


def _bert() -> Any:
    return BertTokenizer(vocab=dict(_word_pieces(True)))


def _bert_cased() -> Any:
    return BertTokenizer(vocab=dict(_word_pieces(False)), do_lower_case=False)


def _mpnet() -> Any:
    return MPNetTokenizer(vocab=dict(_word_pieces(True)))


def _roberta() -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return RobertaTokenizer(**_vocabulary_of(_train_bytes(None, special)))


def _modernbert() -> Any:
    """GPT-NeoX's, whose runs of blanks are added tokens, and special tokens as BERT's."""
    tokenizer = _train_bytes(None, ["|||IP_ADDRESS|||", "<|padding|>"])
    tokenizer.normalizer = normalizers.NFC()
    special = ["<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    blanks = [AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)]
    emails = [
        AddedToken(text, normalized=True) for text in ("|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||")
    ]
    tokenizer.add_tokens([*blanks, *emails])
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in special]
        + [AddedToken("[MASK]", lstrip=True, normalized=False)]
        + [AddedToken(f"[unused{i}]", normalized=True) for i in range(20)]
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0", special_tokens=ids
    )
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    return _fast(tokenizer_object=tokenizer, **named)


def _gpt_neox() -> Any:
    tokenizer = _train_bytes(None, ["<|endoftext|>", "<|padding|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    end = "<|endoftext|>"
    return _fast(
        tokenizer_object=tokenizer, unk_token=end, bos_token=end, eos_token=end, pad_token=end
    )


def _qwen() -> Any:
    pattern = import_module("transformers.models.qwen2.tokenization_qwen2").PRETOKENIZE_REGEX
    trained = _train_bytes(pattern, ["<|endoftext|>"])
    tokenizer = Qwen2Tokenizer(**_vocabulary_of(trained))
    tokenizer.add_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token in ("<|im_start|>", "<|im_end|>")
        ]
        + [AddedToken(token, normalized=False) for token in ("<think>", "</think>", "<tool_call>")]
    )
    return tokenizer


def _llama_3() -> Any:
    tokenizer = _train_bytes(LLAMA_3, [], ignore_merges=True)
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False)
            for token in (
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|reserved_special_token_0|>",
                "<|reserved_special_token_1|>",
                "<|reserved_special_token_10|>",
            )
        ]
    )
    start = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{start} $A",
                pair=f"{start} $A {start}:1 $B:1",
                special_tokens=[(start, tokenizer.token_to_id(start))],
            ),
        ]
    )
    end = "<|end_of_text|>"
    return _fast(tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=end)


def _gemma() -> Any:
    """Runs of blanks, tabs and line breaks are added tokens, and pieces that are merged."""
    runs = [piece * count for piece in ("\n", "\u2581", "\t") for count in range(2, 32)]
    trained = _byte_fallback(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "\t", *runs])
    joined = [(run[:cut], run[cut:]) for run in runs for cut in range(1, len(run))]
    tokenizer = GemmaTokenizer(**{**trained, "merges": [*joined, *trained["merges"]]})
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False) for token in [*runs, "<unused0>", "[multimodal]"]]
    )
    return tokenizer


def _llama() -> Any:
    return LlamaTokenizer(**_byte_fallback(["<unk>", "<s>", "</s>"]))


def _llama_published() -> Any:
    """As tokenizer.json has it: the mark of a word is put in by a normalizer."""
    tokenizer = Tokenizer(
        models.BPE(
            **_byte_fallback(["<unk>", "<s>", "</s>"]),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return _fast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _xlm_roberta() -> Any:
    unigram = _unigram(["<s>", "<pad>", "</s>", "<unk>"])
    mask: Any = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(
        **{**unigram, "vocab": [*unigram["vocab"], ("<mask>", 0.0)]}, mask_token=mask
    )


def _camembert() -> Any:
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>"]
    unigram = _unigram(special)
    return CamembertTokenizer(**{**unigram, "vocab": [*unigram["vocab"], ("<mask>", 0.0)]})


def _t5() -> Any:
    unigram = _unigram(["<pad>", "</s>", "<unk>"])
    extra = [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    return T5Tokenizer(**{**unigram, "vocab": [*unigram["vocab"], *extra]})


def _deberta_v2() -> Any:
    unigram = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    vocab = [*unigram["vocab"], ("[MASK]", 0.0)]
    return DebertaV2Tokenizer(vocab=vocab, unk_id=3)


def _albert() -> Any:
    return AlbertTokenizer(**_unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))


def _rembert() -> Any:
    return RemBertTokenizer(**_unigram(["[PAD]", "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))


def _big_bird() -> Any:
    special = ["<pad>", "</s>", "<s>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return BigBirdTokenizer(vocab=_unigram(special)["vocab"])


KINDS: Mapping[str, Callable[[], Any]] = {
    "bert": _bert,
    "bert, cased": _bert_cased,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "modernbert": _modernbert,
    "gpt_neox": _gpt_neox,
    "qwen": _qwen,
    "llama 3": _llama_3,
    "gemma": _gemma,
    "llama": _llama,
    "llama, published": _llama_published,
    "xlm-roberta": _xlm_roberta,
    "camembert": _camembert,
    "t5": _t5,
    "deberta-v2": _deberta_v2,
    "albert": _albert,
    "rembert": _rembert,
    "big_bird": _big_bird,
}
"""Name -> what makes it, as transformers has tokenizers."""
