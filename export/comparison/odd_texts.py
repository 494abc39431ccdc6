"""Texts that go wrong where ordinary ones do not: made for each encoder's tokenizer and limit.

A build compares them with transformers one by one, so that an average hides none of them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from bitheads.engine.texts.tokenize import CHARS_PER_TOKEN
from bitheads.engine.types import Text
from bitheads.export.texts import read_texts

MAX_TOKENS_TRIED = 24
"""Special and added tokens whose literal text is tried; some tokenizers have thousands."""
LONGEST_RUN = 1024
"""Tokens of a text that is run. Scores of attention grow with the square: at 8,192 tokens they
alone would take what memory a machine has. Longer texts' token ids are compared all the same."""

FIRST = "The tide was out, and every boat lay on its side."
SECOND = "Nobody had told the heron."
ODD: dict[str, Text] = {
    "an empty text": "",
    "a blank": " ",
    "a letter": "a",
    "blanks": "  The  tide\twas out,\n\nand\u00a0every boat\u2003lay on its side. ",
    "upper case": "THE TIDE Was Out, and EVERY boAt lay on its SIDE.",
    "accents": "D\u00e9j\u00e0 vu in Z\u00fcrich: na\u00efve \u00c5se, \u0130zmir, \u01c5, "
    "Stra\u00dfe, \ufb01sh, e\u0301.",
    "other scripts": "\u6f6e\u6c34\u9000\u4e86\u3002 \u041e\u0442\u043b\u0438\u0432. "
    "\u0391\u03bc\u03c0\u03ce\u03c4\u03b9\u03c2. \u062c\u0632\u0631 \uc370\ubb3c "
    "\u092d\u093e\u091f\u093e \u0e19\u0e49\u0e33\u0e25\u0e07",
    "signs": "http://a.b/c?d=1&e=2 #3 @x 4.5% -- \u2026 \u201cso\u201d \U0001f600 "
    "\U0001f469\u200d\U0001f467 \u00bd \u00b2",
    "control characters": "The\u200b tide\u0007 was\u00ad out\ufeff, \u202eand\ufffd \u0000so.",
    "a word without end": "tide" * 40,
}
PAIRS: dict[str, Text] = {
    "a pair": (FIRST, SECOND),
    "a pair in upper case, with blanks": (f" {FIRST.upper()}  ", f"\t{SECOND.upper()}"),
}


def odd_texts(
    tokenizer: Any, max_length: int, takes_pairs: bool, prefix: str = ""
) -> dict[str, Text]:
    """What is odd about a text -> the text, or the pair.

    Args:
        tokenizer: the encoder's, as transformers has it.
        max_length: most tokens of a text.
        takes_pairs: whether the encoder reads pairs at all.
        prefix: of every text, but not part of those that are given.
    """
    texts = dict(ODD)
    for token in _special_tokens(tokenizer):
        texts[f"{token} in a text"] = f"The tide {token} was out,{token}and {token}."
    enough = read_texts(None)
    long = " ".join(enough * (1 + CHARS_PER_TOKEN * max_length // len(" ".join(enough))))
    texts["a text longer than can be read"] = long
    words = long.split(" ")[::-1]  # not the same tokens once more
    exact = _text_of(tokenizer, max_length, words, prefix)
    if exact is not None:
        texts["a text as long as can be read"] = exact
    if max_length > LONGEST_RUN:
        run = _text_of(tokenizer, LONGEST_RUN, words, prefix)
        if run is not None:
            texts["a text as long as is run"] = run
    if takes_pairs:
        texts |= PAIRS
        for token in _special_tokens(tokenizer)[:1]:
            texts[f"a pair with {token}"] = (f"{FIRST} {token}", f"{token}{SECOND}")
        # Not longer: the tokenizers library makes all combinations of what is cut off.
        whole = exact or " ".join(words[:max_length])
        texts["a pair, cut"] = (whole, whole[::-1])
        texts["a pair, its second text cut"] = (SECOND, whole)
    return texts


def _special_tokens(tokenizer: Any) -> list[str]:
    """Special tokens, then some of the others that were added, evenly spread; no blank ones."""
    special = dict.fromkeys(str(token) for token in tokenizer.all_special_tokens)
    added = [str(token) for token in tokenizer.get_added_vocab() if str(token) not in special]
    room = max(1, MAX_TOKENS_TRIED - len(special))
    step = -(-len(added) // room) or 1
    return [token for token in [*special, *added[::step]][:MAX_TOKENS_TRIED] if token.strip()]


def _text_of(tokenizer: Any, num_tokens: int, words: list[str], prefix: str) -> str | None:
    """A text of the first of the words that has so many tokens, with the tokenizer's and prefix's.

    None if no number of words makes one, even with some letters at its end.
    """

    def count(text: str) -> int:
        return len(tokenizer(prefix + text, verbose=False)["input_ids"])

    most = bisect_right(range(len(words)), num_tokens, key=lambda n: count(" ".join(words[:n])))
    text = " ".join(words[: most - 1])
    for _ in range(num_tokens):
        if (got := count(text)) >= num_tokens:
            return text if got == num_tokens else None
        text += " a"
    return None
