"""What openvino-tokenizers makes of a tokenizer, mended where it computes something else.

Each mend is of a step of its pipeline, before that becomes a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from bitheads.engine.process.quiet_import import import_quietly
from bitheads.export.tokenizer.charsmap import charsmap

PRIVATE_USE = r"[\x{E000}-\x{F8FF}\x{F0000}-\x{FFFFD}\x{100000}-\x{10FFFD}]"
ASIDE = "\ue000"
"""No vocabulary has it: a word of it alone is unknown."""
CHINESE = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
)
"""What the tokenizers library takes for Chinese, with the gap in it."""
MARKED_ALREADY = ("| |$)|(?=", "| |\u2581|$)|(?=")
"""In the expression that puts the mark of a word before a text: not where it has one."""
LAST_IN_USE = 0x40000
"""Planes behind it have no characters but tags, variants and those of private use."""
TAGS = range(0xE0000, 0xE0200)
UTF8_BYTES = 4
"""Most bytes of a character."""


def mend(pipeline: Any, own: Tokenizer, content: Mapping[str, Any]) -> None:
    """Changes the steps of a pipeline (openvino_tokenizers.tokenizer_pipeline.TokenizerPipeline).

    Args:
        own: the tokenizer. content: its tokenizer.json.
    """
    steps = import_quietly("openvino_tokenizers.tokenizer_pipeline")
    normalizer = content.get("normalizer") or {}
    if normalizer.get("type") == "BertNormalizer":
        _normalize_as_bert(pipeline, steps, own, normalizer)
    if (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer":
        _split_as_bert(pipeline, steps, own, content["model"])
    for step in pipeline.steps:
        if isinstance(step, steps.SpecialTokensSplit):
            _blanks_first(step)
    pipeline.finalize()
    for step in pipeline.steps:
        if isinstance(step, steps.RegexNormalizationStep):
            step.regex_search_pattern = step.regex_search_pattern.replace(*MARKED_ALREADY)


def _normalize_as_bert(pipeline: Any, steps: Any, own: Tokenizer, normalizer: Any) -> None:
    """BERT's normalizer is a table of characters: the tokenizers library's own is read out.

    But for what would make it long, private use and Chinese, for which there are expressions.
    """
    table = {}
    for character in map(chr, _characters()):
        normal = own.normalizer.normalize_str(character)
        if normal not in (character, f" {character} "):
            table[character] = normal
    found = []
    if normalizer["clean_text"]:
        found.append(steps.RegexNormalizationStep(rf"{PRIVATE_USE}|\x00", ""))
    if table:
        found.append(
            steps.CharsmapStep(
                charsmap=charsmap(table),
                normalization_form="",
                remove_extra_whitespaces=False,
            )
        )
    if normalizer["handle_chinese_chars"]:
        found.append(steps.RegexNormalizationStep(rf"({CHINESE})", " $1 "))
    first = next(
        i for i, step in enumerate(pipeline.steps) if isinstance(step, steps.NormalizationStep)
    )
    others = [step for step in pipeline.steps if not isinstance(step, steps.NormalizationStep)]
    pipeline.steps = [*others[:first], *found, *others[first:]]
    for step in found:
        step.set_pipeline(pipeline)


def _split_as_bert(pipeline: Any, steps: Any, own: Tokenizer, model: Mapping[str, Any]) -> None:
    """Splits at the tokenizer's own punctuation, and counts a word's letters, not its bytes.

    A word of more letters than the model takes is unknown; it is replaced before it is split off.
    """
    split = own.pre_tokenizer.pre_tokenize_str
    signs = [number for number in _characters() if len(split(f"a{chr(number)}b")) == 3]
    punctuation = f"[{_ranges(signs)}]"
    first = next(
        i for i, step in enumerate(pipeline.steps) if isinstance(step, steps.PreTokenizatinStep)
    )
    for step in pipeline.steps:
        if isinstance(step, steps.RegexSplitStep) and r"\p{P}" in step.split_pattern:
            step.split_pattern = punctuation
        if isinstance(step, steps.WordPieceTokenizationStep):
            longest = int(model["max_input_chars_per_word"])
            step.max_bytes_per_word = UTF8_BYTES * longest
            letter = rf"(?!{punctuation})\S"
            too_long = steps.RegexNormalizationStep(rf"(?:{letter}){{{longest + 1},}}", ASIDE)
            pipeline.steps.insert(first, too_long)
            too_long.set_pipeline(pipeline)
            break


def _characters() -> Iterator[int]:
    """Code points in use, but for surrogates, which no text has, and those of private use."""
    yield from range(1, 0xD800)
    yield from range(0xF900, LAST_IN_USE)
    yield from TAGS


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending code points as the inside of a class of characters."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return "".join(rf"\x{{{low:X}}}-\x{{{high:X}}}" for low, high in found)


def _blanks_first(step: Any) -> None:
    """A token that takes the blanks beside it goes before tokens that are blanks."""
    step.special_tokens = sorted(
        step.special_tokens, key=lambda token: not (token.strip_left or token.strip_right)
    )
