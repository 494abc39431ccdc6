"""What openvino-tokenizers makes of a tokenizer, mended where it computes something else.

Each mend is of a step of its pipeline, before that becomes a graph.
"""

from __future__ import annotations

import re
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
BLANK = r"[\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
"""What the tokenizers library splits words at; PCRE's own class has one more, U+180E."""
BY_CHARACTER = {"NFKD", "NFD", "StripAccents", "Lowercase", "Precompiled"}
"""Normalizers that together are a table of characters, if one of them drops marks."""
SOME_BLANK = re.compile(r"(?<!\[)(?<!\[\^)\\s")
MARK, MARKED_WORD = "\u2581", "\u2581[^\u2581]*|[^\u2581]+"
"""Split before each mark, marks side by side would become one."""
MARKING = (" ", MARK)
"""The step that puts the mark of a word for each blank."""
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
    normalizers = _parts(content.get("normalizer"), "normalizers")
    pre_tokenizers = _parts(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [part["type"] for part in normalizers if part["type"] != "Replace"]
    if kinds == ["BertNormalizer"]:
        _normalize_as_bert(pipeline, steps, own, normalizers[0])
    elif "StripAccents" in kinds and set(kinds) <= BY_CHARACTER:
        _normalize_by_table(pipeline, steps, own)
    if [part["type"] for part in pre_tokenizers] == ["BertPreTokenizer"]:
        _split_as_bert(pipeline, steps, own, content["model"])
    splits = any(part["type"] == "WhitespaceSplit" for part in pre_tokenizers)
    for place, step in enumerate(pipeline.steps):
        if isinstance(step, steps.SpecialTokensSplit):
            _blanks_first(step)
        if isinstance(step, steps.CharsmapStep):
            step.remove_extra_whitespaces = False
        if splits and (_pattern(step), getattr(step, "replace_term", "")) == MARKING:
            blanks = [(f"{BLANK}+", " "), ("^ | $", "")]
            _put(pipeline, place, [steps.RegexNormalizationStep(*each) for each in blanks])
            splits = False
    pipeline.finalize()
    for step in pipeline.steps:
        if isinstance(step, steps.RegexNormalizationStep):
            pattern = step.regex_search_pattern.replace(*MARKED_ALREADY)
            step.regex_search_pattern = SOME_BLANK.sub(lambda _: BLANK, pattern)
        if isinstance(step, steps.RegexSplitStep) and step.split_pattern == MARK:
            step.split_pattern, step.behaviour = MARKED_WORD, "isolate"


def _parts(content: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """The parts of a sequence, or the one that there is."""
    if content is None:
        return []
    return list(content[name]) if content["type"] == "Sequence" else [content]


def _pattern(step: Any) -> str:
    return str(getattr(step, "regex_search_pattern", ""))


def _put(pipeline: Any, place: int, found: list[Any]) -> None:
    pipeline.steps[place:place] = found
    for step in found:
        step.set_pipeline(pipeline)


def _normalize_by_table(pipeline: Any, steps: Any, own: Tokenizer) -> None:
    """Several steps that each change characters one by one become one table, in their order.

    Marks are dropped, so that it is the same whether letters with marks come as one character.
    """
    whole = [
        step
        for step in pipeline.steps
        if isinstance(step, (steps.NormalizeUnicode, steps.CaseFoldStep, steps.CharsmapStep))
        or _pattern(step) == steps.RegexNormalizationStep.strip_accents_regex().regex_search_pattern
    ]
    place = pipeline.steps.index(whole[0])
    pipeline.steps = [step for step in pipeline.steps if step not in whole]
    _put(pipeline, place, [_table_step(steps, own)])


def _table_step(steps: Any, own: Tokenizer) -> Any:
    """What the normalizer makes of each character, but for those it only puts between blanks."""
    table = {}
    for character in map(chr, _characters()):
        normal = own.normalizer.normalize_str(character)
        if normal not in (character, f" {character} "):
            table[character] = normal
    return steps.CharsmapStep(
        charsmap=charsmap(table), normalization_form="", remove_extra_whitespaces=False
    )


def _normalize_as_bert(pipeline: Any, steps: Any, own: Tokenizer, normalizer: Any) -> None:
    """BERT's normalizer is a table of characters: the tokenizers library's own is read out.

    But for what would make it long, private use and Chinese, for which there are expressions.
    """
    found = [_table_step(steps, own)]
    if normalizer["clean_text"]:
        found.insert(0, steps.RegexNormalizationStep(rf"{PRIVATE_USE}|\x00", ""))
    if normalizer["handle_chinese_chars"]:
        found.append(steps.RegexNormalizationStep(rf"({CHINESE})", " $1 "))
    whole = [step for step in pipeline.steps if isinstance(step, steps.NormalizationStep)]
    place = pipeline.steps.index(whole[0])
    pipeline.steps = [step for step in pipeline.steps if step not in whole]
    _put(pipeline, place, found)


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
            _put(pipeline, first, [too_long])
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
