"""Texts to token ids, in bounded time and memory whatever a text holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bitheads.engine.errors import BitheadsError, BundleError, InputError
from bitheads.engine.features.spec import show_prefix
from bitheads.engine.features.words import (
    NUM_TOKENS,
    TOKEN,
    Table,
    words_of_tokens,
)
from bitheads.engine.texts.token_places import TokenCharacters
from bitheads.engine.texts.tokenizer_bounds import (
    MAX_DECODED_CHARS,
    check_decoder,
    check_tokenizer,
)
from bitheads.engine.types import Text

CHARS_PER_TOKEN = 16
"""Characters per token of the limit above which a text is cut first, see `_encode_long`."""

MAX_CHARS = 1 << 18
"""Characters of a text that are read at most: what has not filled the limit by then is one endless
word, or blank, and finding that out would cost half a second per megabyte."""

CUT_MARGIN = 128
"""Characters before a cut whose tokens are not relied on. BERT's tokenizer makes a word of more
than 100 characters one unknown token, so half of such a word has other tokens than the whole."""

CHUNK_CHARS, CHUNK_TEXTS = 1 << 19, 1 << 12
"""Characters, and texts, that are tokenized together: the tokenizer's own objects are large and
must not pile up."""

TokenIds = NDArray[np.int32]

_Part = tuple[TokenIds, bool, Table | None]
"""A text's tokens, whether those are all, and its words if they are asked for."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """One tokenized text, or a window on one.

    Attributes:
        ids: int32 [tokens].
        num_first: tokens with type id 0; the rest, the second text of a pair, have type id 1.
        truncated: whether tokens were dropped to keep to the maximum length.
        is_pair: whether it is of two texts.
        continues: whether it is a window on the text before it, where long texts are split.
        words: see engine.features.words.Words.table; None for a pair, and where nobody asked.
    """

    ids: TokenIds
    num_first: int
    truncated: bool
    is_pair: bool = False
    continues: bool = False
    words: Table | None = None


@dataclass(frozen=True, eq=False)
class _Encoded:
    """What the library gave for an item.

    Attributes:
        parts: the ids of its texts, as many as can matter.
        is_whole: whether those are all.
        words: as Tokens.words, of all its tokens; None for a pair, and where nobody asked.
    """

    parts: list[TokenIds]
    is_whole: bool
    words: Table | None = None


class TextTokenizer:
    """The encoder's own tokenizer, cut to at most `max_length` tokens per text, or per window.

    A prefix is put before a text, or the first text of a pair, as characters: a tokenizer makes
    other tokens of two parts than of the whole. What is said of a text's characters and tokens is
    then said of the prefix and the text together.

    Pairs are joined as the tokenizer's template says and cut longest text first. The cutting is
    done here: the library's keeps all that is cut off, and of a pair every combination of it,
    which is gigabytes for a few long pairs.

    Attributes:
        takes_pairs: whether the encoder has the token types of a pair's texts.
    """

    def __init__(
        self,
        path: Path,
        max_length: int,
        vocabulary: int | None = None,
        token_types: int | None = None,
        prefix: str = "",
    ) -> None:
        """
        Args:
            max_length: most tokens of a text, the tokenizer's own among them.
            vocabulary: rows of the encoder's table of tokens, None if it is not known.
            token_types: rows of that of token types; None: unknown, or the encoder reads none.
            prefix: of every text, see FeatureSpec.

        Raises BundleError for a tokenizer that cannot be read, that makes more of a text than
        engine.texts.tokenizer_bounds allows, or whose tokens have no row: an encoder answers
        anything for those; and for a prefix that leaves no room for texts.
        """
        try:
            check_tokenizer(path, max_length)
            self._tokenizer = Tokenizer.from_file(str(path))
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._templates = {
                1: _Template(self._tokenizer.encode("a")),
                2: _Template(self._tokenizer.encode("a", "a")),
            }
            whole = self._encode_prefix(prefix)
            # Windows begin with it, too. A blank at its end is of the next word's first token.
            self._prefix_ids = self._encode_prefix(prefix.rstrip(" "))
        except BaseException as error:  # the library raises bare Exception, and panics
            if not _is_of_library(error):
                raise
            raise BundleError(
                f"tokenizer {path}: cannot be read ({error}). Export the bundle again."
            ) from error
        self._max_length = max_length
        self._max_chars = CHARS_PER_TOKEN * max_length
        self._token_types = token_types
        if vocabulary is not None and (outside := self.tokens_outside(vocabulary)):
            raise BundleError(f"tokenizer {path}: {rowless_tokens(outside, vocabulary)}")
        single, pair = (self._templates[n].token_types for n in (1, 2))
        self.takes_pairs = token_types is None or pair <= token_types
        if token_types is not None and single > token_types:
            raise BundleError(
                f"tokenizer {path}: gives a text the token type {single - 1}, but the encoder's "
                f"table of token types has {token_types} rows. Take the tokenizer that belongs "
                "to the encoder, and export the bundle again."
            )
        self._prefix = prefix
        if prefix:
            self._check_prefix(max(whole.size, self._prefix_ids.size))

    def _encode_prefix(self, prefix: str) -> TokenIds:
        """Some tokenizers make a token of nothing."""
        if not prefix:
            return np.empty(0, np.int32)
        return _ids(self._tokenizer.encode(prefix, add_special_tokens=False))

    def _check_prefix(self, tokens: int) -> None:
        """A pair is cut longest text first, so half of the tokens are the first text's for sure."""
        room = self._max_length - self._templates[1].num_own
        if self.takes_pairs:
            room = min(room, (self._max_length - self._templates[2].num_own) // 2)
        chars, most_chars = len(self._prefix), self._max_chars // 2
        if tokens >= room or chars > most_chars:
            raise BundleError(
                f"prefix {show_prefix(self._prefix)}: got {tokens} tokens and {chars} characters, "
                f"expected at most {max(0, room - 1)} and {most_chars}, so that texts have room: "
                f"the maximum length is {self._max_length}. Export the bundle again, with a "
                "shorter --prefix or a larger --max-length."
            )

    def tokens_outside(self, vocabulary: int) -> dict[str, int]:
        """The tokens it can give, and their ids, that are not below `vocabulary`."""
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        for template in self._templates.values():
            for own in template.own_ids:
                ids.setdefault(self._tokenizer.id_to_token(own) or f"token {own}", own)
        return {token: number for token, number in ids.items() if number >= vocabulary}

    def __call__(
        self,
        texts: Sequence[Text],
        split: bool = False,
        first_index: int = 0,
        words: bool = False,
    ) -> list[Tokens]:
        """Token ids of every text, in order.

        Args:
            words: find those of single texts, which takes longer.
            split: make a longer text several windows, one after the other, instead of cutting it.
                Each has the tokenizer's own tokens, and the prefix's. Past MAX_CHARS a text is
                cut all the same.
            first_index: of the texts, where errors name one.

        Raises InputError for what is no sequence, such as a generator, for items that are neither
        a string nor a pair of strings, for strings that are not valid Unicode (lone surrogates),
        for pairs that would have to be split, for pairs where the encoder has no token type for a
        second text, and where the tokenizer itself fails, as at a pattern that does not end.
        """
        checked = self.check(texts, first_index)
        encoded = (
            text
            for chunk in self._chunks(checked)
            for text in self._encode_or_say(chunk, split, words)
        )
        if not split:
            return [self._join(text) for text in encoded]
        windows: list[Tokens] = []
        for index, text in enumerate(encoded, first_index):
            windows += self._split(text, index)
        return windows

    def check(self, texts: Sequence[Text], first_index: int = 0) -> list[tuple[str, ...]]:
        """Each text as a tuple of its one or two strings.

        Raises InputError for what would be wrong with them whatever the tokenizer makes of them.
        """
        checked = check_texts(texts, first_index)
        if not self.takes_pairs:
            self._refuse_pairs(checked, first_index)
        return checked

    def _refuse_pairs(self, items: list[tuple[str, ...]], first_index: int) -> None:
        for index, item in enumerate(items, first_index):
            if len(item) == 2:
                raise InputError(
                    f"text {index}: got a pair, whose second text has the token type "
                    f"{self._templates[2].token_types - 1}, but the encoder's table of token "
                    f"types has {self._token_types} rows: it reads single texts only. Pass the "
                    "two texts one by one, or take another encoder."
                )

    def _chunks(self, items: list[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
        chunk: list[tuple[str, ...]] = []
        chars = 0
        for item in items:
            if self._prefix:
                item = (self._prefix + item[0], *item[1:])
            chunk.append(item)
            chars += sum(min(len(text), self._max_chars) for text in item)
            if chars >= CHUNK_CHARS or len(chunk) == CHUNK_TEXTS:
                yield chunk
                chunk, chars = [], 0
        if chunk:
            yield chunk

    def _encode_or_say(
        self, items: list[tuple[str, ...]], split: bool, words: bool
    ) -> Iterator[_Encoded]:
        with _said_of(len(items)):
            yield from self._encode(items, split, words)

    def _encode(self, items: list[tuple[str, ...]], split: bool, words: bool) -> Iterator[_Encoded]:
        short = [text for item in items for text in item if len(text) <= self._max_chars]
        encoded = iter(self._encode_short(short, words))
        for item in items:
            found = [
                next(encoded)
                if len(text) <= self._max_chars
                else self._encode_long(text, split, words)
                for text in item
            ]
            parts = [ids for ids, _, _ in found]
            is_whole = all(whole for _, whole, _ in found)
            yield _Encoded(parts, is_whole, found[0][2] if len(item) == 1 else None)

    def _encode_short(self, texts: list[str], words: bool) -> list[_Part]:
        if not words:
            return [(ids, True, None) for ids in self._ids_of(texts)]
        found = self._words_by_characters([i for i, t in enumerate(texts) if t.isascii()], texts)
        rest = [i for i in range(len(texts)) if i not in found]
        encodings = self._tokenizer.encode_batch([texts[i] for i in rest], add_special_tokens=False)
        tables = self._words_by_library([texts[i] for i in rest], encodings)
        for i, encoding, table in zip(rest, encodings, tables, strict=True):
            found[i] = _ids(encoding), True, table
        return [found[i] for i in range(len(texts))]

    def _ids_of(self, texts: list[str]) -> list[TokenIds]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [_ids(encoding) for encoding in encodings]

    def _words_by_characters(self, rows: list[int], texts: list[str]) -> dict[int, _Part]:
        """Of those of the rows of which the tokens' own characters say where the tokens lie."""
        if self._characters is None:
            return {}
        chosen = [texts[i] for i in rows]
        ids = self._ids_of(chosen)
        places, holds = self._characters.places(chosen, ids)
        tables = self._words(chosen, places, [one.size for one in ids])
        found = zip(rows, ids, tables, holds.tolist(), strict=True)
        return {i: (one, True, table) for i, one, table, is_sure in found if is_sure}

    def _words_by_library(self, texts: list[str], encodings: list[Encoding]) -> list[Table]:
        """Of texts of which the library says where tokens lie."""
        places = chain.from_iterable(encoding.offsets for encoding in encodings)
        tokens = np.fromiter(chain.from_iterable(places), np.int32).reshape(-1, 2)
        return self._words(texts, tokens, [len(encoding) for encoding in encodings])

    def _words(self, texts: list[str], places: Table, num_tokens: list[int]) -> list[Table]:
        """Of texts behind the prefix, to which its characters do not count."""
        before = self._templates[1].num_before
        return words_of_tokens(texts, places, num_tokens, len(self._prefix), before)

    def encodings(
        self, texts: Sequence[str], own_tokens: bool = True, first_index: int = 0
    ) -> list[tuple[str, Encoding]]:
        """All tokens of each text, uncut, as the library has them, and what they are of: the prefix
        and the text. It is for telling tokens; an encoder is given those of a call.

        Args:
            own_tokens: put the tokenizer's own around them.
            first_index: of the texts, where errors name one.

        Raises InputError as a call, and for a text of more than MAX_CHARS characters.
        """
        whole = []
        for index, (text, *_) in enumerate(self.check(texts, first_index), first_index):
            if len(text) > MAX_CHARS:
                raise InputError(
                    f"text {index}: got {len(text)} characters, expected at most {MAX_CHARS}: no "
                    "more of a text is read. Send it in parts."
                )
            whole.append(self._prefix + text)
        with _said_of(len(whole)):
            found = self._tokenizer.encode_batch(whole, add_special_tokens=own_tokens)
        return [*zip(whole, found, strict=True)]

    def decode(self, ids: Sequence[Sequence[int]], skip_own_tokens: bool = True) -> list[str]:
        """The text of each list of token ids, as the tokenizer's decoder writes it; ids that are
        none of its tokens' are passed over.

        Args:
            skip_own_tokens: leave out the special ones.

        Raises InputError where the decoder fails, or may make a text of any size, and for tokens
        of more than MAX_DECODED_CHARS characters.
        """
        if self._decoder_fault is not None:
            raise InputError(
                f"ids: the decoder of this bundle's tokenizer {self._decoder_fault}, so texts may "
                "become of any size. Decode them with a tokenizer of your own."
            )
        chars = 0
        for number in chain.from_iterable(ids):
            chars += len(self._tokenizer.id_to_token(number) or "")
            if chars > MAX_DECODED_CHARS:
                raise InputError(
                    f"ids: got tokens of more than {MAX_DECODED_CHARS} characters. Send fewer."
                )
        try:
            return self._tokenizer.decode_batch([*map(list, ids)], skip_own_tokens)
        except BaseException as error:
            if not _is_of_library(error):
                raise
            raise InputError(
                f"ids: the tokenizer failed on one of {len(ids)} lists ({error!s:.200}). Send ids "
                "that /tokenize gave."
            ) from error

    @cached_property
    def _decoder_fault(self) -> str | None:
        """Why its decoder is not run; None if it is."""
        decoder = self._tokenizer.decoder
        try:
            check_decoder(None if decoder is None else json.loads(decoder.__getstate__()))
        except ValueError as error:
            return str(error)
        return None

    @cached_property
    def _characters(self) -> TokenCharacters | None:
        return TokenCharacters.of(self._tokenizer)

    def _join(self, encoded: _Encoded) -> Tokens:
        parts = encoded.parts
        template = self._templates[len(parts)]
        lengths = [ids.size for ids in parts]
        kept = _cut_longest_first(lengths, max(0, self._max_length - template.num_own))
        ids, num_first = template.join(
            [ids[:length] for ids, length in zip(parts, kept, strict=True)]
        )
        words = encoded.words
        if words is not None and kept != lengths:
            words = _words_within(words, 0, template.num_before + kept[0])
        truncated = kept != lengths or not encoded.is_whole
        return Tokens(ids, num_first, truncated, len(parts) == 2, words=words)

    def _split(self, encoded: _Encoded, index: int) -> Iterator[Tokens]:
        joined = self._join(encoded)
        if not joined.truncated:
            yield joined
            return
        parts, words = encoded.parts, encoded.words
        if len(parts) == 2:
            raise InputError(
                f"text {index}: got a pair of {sum(ids.size for ids in parts)} tokens, expected at "
                f"most {self._max_length} with the tokenizer's own: pairs are not split. Pass "
                "long_texts='cut', or split its second text and ask for each part."
            )
        (ids,) = parts
        room = max(1, self._max_length - self._templates[1].num_own)
        before = self._templates[1].num_before
        first = None if words is None else _words_within(words, 0, before + room)
        yield self._join(_Encoded([ids[:room]], encoded.is_whole, first))
        prefix = self._prefix_ids
        step = room - prefix.size
        for start in range(room, ids.size, step):
            part = np.concatenate([prefix, ids[start : start + step]])
            of_part = None
            if words is not None:
                of_part = _words_within(words, before + start, before + start + step)
                of_part[:, TOKEN] += prefix.size - start
            window = self._join(_Encoded([part], True, of_part))
            yield replace(window, continues=True)

    def _encode_long(self, text: str, split: bool, words: bool) -> _Part:
        """As much of a very long text as can matter.

        A beginning that alone fills the maximum length gives the same first tokens as the whole
        text, as tokenizers work word by word; one that does not is made longer, up to
        MAX_CHARS. Of a pair of two such texts with an odd number of tokens to share, the odd one
        goes to the beginning of more tokens, which need not be the text of more tokens.
        Where long texts are split all tokens matter, up to MAX_CHARS.
        """
        max_chars = MAX_CHARS if split else self._max_chars
        while True:
            beginning = _cut_at_space(text, max_chars)
            encoded = self._tokenizer.encode(beginning, add_special_tokens=False)
            is_whole = len(beginning) == len(text)
            if is_whole or max_chars >= MAX_CHARS or self._fills(encoded, len(beginning)):
                tables = self._words_by_library([beginning], [encoded]) if words else [None]
                return _ids(encoded), is_whole, tables[0]
            max_chars = min(4 * max_chars, MAX_CHARS)

    def _fills(self, encoded: Encoding, num_chars: int) -> bool:
        """Whether the maximum length is reached well before the end, where the cut may matter."""
        if len(encoded) < self._max_length:
            return False
        last_char: int = encoded.offsets[self._max_length - 1][1]
        return last_char <= num_chars - CUT_MARGIN


class _Template:
    """Where a tokenizer puts its own tokens around one text, or around a pair.

    Attributes:
        num_own: how many tokens are its own.
        num_before: those before the first text.
        own_ids: the ids of those.
        token_types: rows that the types it gives need; at least 1.
    """

    def __init__(self, example: Encoding) -> None:
        """example: of the tokenizer, one in which every text has a token."""
        texts = example.sequence_ids  # None for the tokenizer's own tokens
        ids, types = _ids(example), example.type_ids
        self._own: list[TokenIds] = []  # before each text, and after the last
        self._text_types = []
        end = 0
        for text in range(example.n_sequences):
            start = texts.index(text)
            self._own.append(ids[end:start])
            self._text_types.append(types[start])
            end = start + texts.count(text)
        self._own.append(ids[end:])
        self.num_own = sum(own.size for own in self._own)
        self.num_before = self._own[0].size
        self.own_ids = [int(number) for own in self._own for number in own]
        self.token_types = 1 + max(types, default=0)
        own_types = [kind for kind, text in zip(types, texts, strict=True) if text is None]
        self._num_own_second = sum(own_types)

    def join(self, parts: list[TokenIds]) -> tuple[TokenIds, int]:
        """The ids of the texts with the tokenizer's own, and how many have the type id 0."""
        pieces = [self._own[0]]
        for part, own in zip(parts, self._own[1:], strict=True):
            pieces += [part, own]
        ids = np.concatenate(pieces)
        types = zip(self._text_types, parts, strict=True)
        num_second = self._num_own_second + sum(kind * part.size for kind, part in types)
        return ids, ids.size - num_second


def _cut_longest_first(lengths: list[int], budget: int) -> list[int]:
    """How many tokens of each of one or two texts are kept; as the tokenizers library does it."""
    if sum(lengths) <= budget:
        return lengths
    if len(lengths) == 1:
        return [budget]
    shorter = min(*lengths, budget // 2)
    kept = [shorter, budget - shorter]
    return kept if lengths[0] <= lengths[1] else kept[::-1]


def _words_within(words: Table, first: int, end: int) -> Table:
    """Those that have tokens from `first` on and before `end`, with those tokens alone; a copy."""
    ends = words[:, TOKEN] + words[:, NUM_TOKENS]
    start = np.searchsorted(ends, first, side="right")
    kept = words[start : np.searchsorted(words[:, TOKEN], end)].copy()
    if len(kept):
        before = max(0, first - kept[0, TOKEN])
        kept[0, TOKEN] += before
        kept[0, NUM_TOKENS] -= before
        kept[-1, NUM_TOKENS] = min(kept[-1, NUM_TOKENS], end - kept[-1, TOKEN])
    return kept


def check_iterable(texts: object) -> None:
    """Raises InputError for what gives no texts one by one; it may have no end, and no order."""
    kind, fix = _misfit(texts)
    if not fix and (isinstance(texts, Mapping) or not hasattr(texts, "__iter__")):
        fix = "Pass its values, or a list of texts."
    if fix:
        raise InputError(f"texts: got {kind}, expected an iterable of texts. {fix}")


def check_texts(texts: Sequence[Text], first_index: int = 0) -> list[tuple[str, ...]]:
    """Each text as a tuple of its one or two strings.

    Args:
        first_index: what the first of them is called in errors.

    Raises InputError for what is no sequence, and for items that are no texts.
    """
    check_sequence(texts)
    return [_check(item, index) for index, item in enumerate(texts, first_index)]


def check_sequence(texts: object) -> None:
    """What has no length cannot be read twice; a set has no order, a mapping gives its keys.

    A pandas Series, or a NumPy array of one axis, is as good as a list; a data frame would give
    the names of its columns.
    """
    kind, fix = _misfit(texts)
    if not fix and (isinstance(texts, Mapping) or not hasattr(texts, "__getitem__")):
        fix = (
            "Pass list(texts), in the order that answers shall have; encode_stream takes what has "
            "no end."
        )
    if fix:
        raise InputError(f"texts: got {kind}, expected a sequence of texts. {fix}")


def _misfit(texts: object) -> tuple[str, str]:
    """What it is, and what to pass instead if it is text itself, or a table."""
    if isinstance(texts, str):
        return f"one string ({texts[:40]!r})", "Pass [text]."
    if isinstance(texts, bytes | bytearray):
        return f"bytes ({texts[:40]!r})", "Pass [text.decode()]."
    is_table = getattr(texts, "ndim", 1) != 1 or hasattr(texts, "columns")
    return f"a {type(texts).__name__}", "Pass one of its columns." if is_table else ""


@contextmanager
def _said_of(count: int) -> Iterator[None]:
    """The library panics where a pattern tries too many ways to match: that is an InputError."""
    try:
        yield
    except BaseException as error:
        if not _is_of_library(error) or isinstance(error, BitheadsError):
            raise
        raise InputError(
            f"texts: the tokenizer failed on one of {count} ({error!s:.200}). Leave out what is "
            "unlike language, such as one character a thousand times."
        ) from error


def _is_of_library(error: BaseException) -> bool:
    """Whether it is an error, or a panic of the tokenizers library, whose class cannot be had."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def rowless_tokens(outside: Mapping[str, int], vocabulary: int) -> str:
    """What is wrong with tokens past the end of the encoder's table, and the fix."""
    first = ", ".join(
        f"{token!r} (id {number})"
        for token, number in sorted(outside.items(), key=lambda item: item[1])[:5]
    )
    more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
    return (
        f"gives token ids that the encoder has no embedding for: its table has {vocabulary} rows, "
        f"got {first}{more}. If tokens were added, resize the embeddings in transformers, "
        "model.resize_token_embeddings(len(tokenizer)), and train them; if not, this is another "
        "encoder's tokenizer: take its own. Then export again."
    )


def _check(item: object, index: int) -> tuple[str, ...]:
    pair = (item,) if isinstance(item, str) else item
    if (
        not isinstance(pair, tuple | list)
        or not 1 <= len(pair) <= 2
        or not all(isinstance(text, str) for text in pair)
    ):
        raise InputError(
            f"text {index}: got {_describe(item)}, expected a str or a pair of str. "
            "Convert it, for example with str(...), or leave it out."
        )
    for text in pair:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"text {index}: got a lone surrogate {text[error.start]!r} at character "
                    f"{error.start}, expected valid Unicode. Decode the source with "
                    "errors='replace', or pass text.encode('utf-8', 'replace').decode()."
                ) from error
    return tuple(pair)


def _describe(item: object) -> str:
    if isinstance(item, tuple | list):
        return f"{type(item).__name__} of ({', '.join(type(part).__name__ for part in item)})"
    return f"{type(item).__name__} {str(item)[:40]!r}"


def _ids(encoding: Encoding) -> TokenIds:
    return np.asarray(encoding.ids, dtype=np.int32)


def _cut_at_space(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    space = max(text.rfind(blank, 0, max_chars) for blank in " \n\t")
    return text[: space if space > max_chars // 2 else max_chars]
