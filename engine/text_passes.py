"""Passes of texts through a bundle's encoder: to codes, and to what heads make of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import BatchedTexts
from bitheads.engine.bundle import Manifest
from bitheads.engine.encoder import AnsweringEncoder, Encoder
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration
from bitheads.engine.heads.head import (
    Head,
    empty_outputs,
    predictions_apart,
    predictions_of,
    reads_words,
)
from bitheads.engine.predictions import Predictions
from bitheads.engine.process.read_ahead import read_ahead
from bitheads.engine.progress import progress_bar
from bitheads.engine.text_batches import make_batches, warn_of_cut
from bitheads.engine.text_chunks import LEAST_TEXTS, TextChunks, cut_chunks, in_order
from bitheads.engine.texts.apart import take_apart
from bitheads.engine.texts.distinct import find_distinct
from bitheads.engine.texts.forms import are_pairs, fitting, leave_out_misfits, reads_apart
from bitheads.engine.texts.tokenize import TextTokenizer, check_sequence, check_texts
from bitheads.engine.types import PlacedBatch, Stats, Text


class TextPasses:
    """What `Engine` does with texts and heads, while it is open."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        encoder: Encoder[Any],
        calibration: Calibration | None,
    ) -> None:
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._calibration = calibration
        # Asked once: that takes as long as tokenizing a small text.
        self._answering = encoder if isinstance(encoder, AnsweringEncoder) else None

    def tokenize(
        self,
        texts: Sequence[Text],
        max_batch_tokens: int | None,
        split: bool = False,
        first_index: int = 0,
        words: bool = False,
    ) -> BatchedTexts:
        """All of the texts at once; see make_batches."""
        tokenizer, encoder, info = self._tokenizer, self._encoder, self._manifest.encoder
        budget = self.budget(max_batch_tokens)
        return make_batches(texts, tokenizer, encoder, info, budget, split, first_index, words)

    def tokenize_once(
        self,
        texts: Sequence[Text],
        max_batch_tokens: int | None,
        split: bool,
        first_index: int,
        words: bool,
    ) -> TextChunks:
        """All of the texts at once, of those that are equal one; see make_batches."""
        distinct = find_distinct(texts, self._tokenizer, split, first_index)
        work = self.tokenize(distinct.texts, max_batch_tokens, split, first_index, words)
        return TextChunks.whole(work, distinct)

    def budget(self, max_batch_tokens: int | None) -> int:
        """Tokens of an encoder call, at most; None is the encoder's choice."""
        return self._encoder.max_batch_tokens if max_batch_tokens is None else max_batch_tokens

    @contextmanager
    def tokenized(
        self,
        texts: Sequence[Text],
        max_batch_tokens: int | None,
        split: bool = False,
        words: bool = False,
    ) -> Iterator[TextChunks]:
        """The texts of a call on their way to the encoder, of those that are equal one.

        Those of a large call are tokenized chunk by chunk, one chunk ahead of the encoder, in a
        thread that has ended when the context is left. What can be wrong with the texts by
        themselves is found before the first is encoded. Where long texts are split all texts are
        tokenized first: how many windows there are, and that no pair has several, is known then.

        Args: see `tokenize`.
        """
        check_sequence(texts)
        with self._tokenized(texts, max_batch_tokens, split, words) as chunks:
            yield chunks
        warn_of_cut(chunks.stats, self._manifest.encoder, split)

    @contextmanager
    def _tokenized(
        self, texts: Sequence[Text], max_batch_tokens: int | None, split: bool, words: bool
    ) -> Iterator[TextChunks]:
        distinct = find_distinct(texts, self._tokenizer, split)
        once = distinct.texts
        if not split and len(once) >= LEAST_TEXTS:
            checked = self._tokenizer.check(once)
            chunks = cut_chunks(checked, self.budget(max_batch_tokens))
            if len(chunks) > 1:
                works = self._tokenize_chunks(checked, chunks, max_batch_tokens, words)
                with closing(read_ahead(works)) as ahead:
                    yield TextChunks(ahead, are_pairs(once), len(once), distinct)
                return
        yield TextChunks.whole(self.tokenize(once, max_batch_tokens, split, words=words), distinct)

    def _tokenize_chunks(
        self,
        texts: list[tuple[str, ...]],
        chunks: list[NDArray[np.int64]],
        max_batch_tokens: int | None,
        words: bool,
    ) -> Iterator[BatchedTexts]:
        """For another thread than that which encodes."""
        tokenizer, encoder, info = self._tokenizer, self._encoder, self._manifest.encoder
        for chosen in chunks:
            items = [texts[i] for i in chosen.tolist()]
            budget = self.budget(max_batch_tokens)
            yield make_batches(
                items, tokenizer, encoder, info, budget, False, words=words, chosen=chosen
            )

    def encode(self, chunks: TextChunks, bar: Any, embeddings: bool = False) -> PackedFeatures:
        """The codes of every real token, in the order of the call's texts.

        Args:
            embeddings: whether to make those, too; of texts of which none is split.
        """
        made = self._room_for_embeddings(chunks) if embeddings else None
        parts, stats = self._encode_parts(chunks, bar, made)
        features = replace(in_order(parts, chunks.places), stats=stats)
        return features if made is None else replace(features, embeddings=chunks.of_call(made))

    def embed(self, chunks: TextChunks, bar: Any) -> NDArray[np.float32]:
        """The embeddings alone, float32 [texts, dim], in the order of the call's texts."""
        made = self._room_for_embeddings(chunks)
        batches = (batch for work in chunks for batch in work.batches(embeddings=made))
        _run(chunks, self._encoder.encode(batches), bar)
        return chunks.of_call(made)

    def _room_for_embeddings(self, chunks: TextChunks) -> NDArray[np.float32]:
        spec = self._manifest.embedding
        assert spec is not None, "who asks has looked whether there are embeddings"
        return np.empty((chunks.num_distinct, spec.dim), np.float32)

    def _encode_parts(
        self, chunks: TextChunks, bar: Any, embeddings: NDArray[np.float32] | None = None
    ) -> tuple[list[tuple[NDArray[np.int64], PackedFeatures]], Stats]:
        """Of each chunk its texts and their codes; and the cost.

        Args:
            embeddings: of the call's different texts, float32 [texts, dim], to be filled; None:
                they are not asked for.
        """
        spec, calibration = self._manifest.spec, self._calibration
        parts: list[tuple[NDArray[np.int64], PackedFeatures]] = []

        def batches() -> Iterator[PlacedBatch]:
            for work in chunks:
                codes = np.empty((int(work.offsets[-1]), spec.code_bytes), np.uint8)
                words = work.words()
                features = PackedFeatures(
                    codes, work.offsets, spec, calibration, pairs=work.pairs, words=words
                )
                parts.append((work.texts, features))
                yield from work.batches(codes, embeddings)

        stats = _run(chunks, self._encoder.encode(batches()), bar)
        return parts, stats

    def predict(
        self,
        texts: Sequence[Text],
        heads: list[Head],
        named: bool,
        max_batch_tokens: int | None,
        split: bool,
        progress: bool,
    ) -> Predictions:
        """What those of the heads that are for such texts say of them.

        Args:
            named: whether they were asked by name, see `fitting`.
            split: whether long texts are read in windows.
            max_batch_tokens, progress: see Engine.encode.
        """
        how = (max_batch_tokens, split, progress)
        if any(map(reads_apart, heads)):
            return self._predict_apart(texts, heads, named, *how)
        return self._predict_joint(texts, heads, named, *how)

    def predict_features(self, features: PackedFeatures, heads: list[Head]) -> Predictions:
        """What heads that read a text, or a pair, from its own codes say of them."""
        started_s = time.perf_counter()
        by_task = self._encoder.predict(features, heads)
        heads_s = time.perf_counter() - started_s
        return Predictions(by_task, replace(features.stats, heads_s=heads_s))

    def predict_pairs(
        self, features: PackedFeatures, pairs: NDArray[np.int64], heads: list[Head]
    ) -> Predictions:
        """What heads of the form two_texts say of pairs of the texts, int64 [pairs, 2]."""
        started_s = time.perf_counter()
        stats = features.stats
        chosen, places = np.unique(pairs, return_inverse=True)
        if len(chosen) < len(features):  # the others need no vectors
            features, pairs = features[chosen], places.reshape(-1, 2)
        vectors = self._encoder.text_vectors(features, heads)
        outputs = self._encoder.pair_outputs(vectors, pairs, heads)
        heads_s = time.perf_counter() - started_s
        return Predictions(predictions_of(heads, outputs), replace(stats, heads_s=heads_s))

    def _predict_joint(
        self,
        texts: Sequence[Text],
        heads: list[Head],
        named: bool,
        max_batch_tokens: int | None,
        split: bool,
        progress: bool,
    ) -> Predictions:
        """Heads that read a text, or a pair, from its own codes."""
        words = reads_words(heads)
        with self.tokenized(texts, max_batch_tokens, split, words) as chunks:
            heads = fitting(heads, chunks.pairs, named=named)
            with progress_bar(chunks.num_windows, progress) as bar:
                if heads and not words and self._answers(chunks):
                    logits, stats = self._encode_and_answer(chunks, heads, bar)
                    leave_out_misfits(heads, chunks.pairs, logits)
                    return Predictions(predictions_of(heads, logits), stats)
                parts, stats = self._encode_parts(chunks, bar)
        found = self.predict_features(replace(in_order(parts), stats=stats), heads)
        if chunks.places is None:
            return found
        return Predictions({task: found[task][chunks.places] for task in found}, found.stats)

    def _predict_apart(
        self,
        texts: Sequence[Text],
        heads: list[Head],
        named: bool,
        max_batch_tokens: int | None,
        split: bool,
        progress: bool,
    ) -> Predictions:
        """Heads of which some read the texts of pairs by themselves, in one pass."""
        check_texts(texts)
        heads = fitting(heads, are_pairs(texts), named)
        placed, to_encode = take_apart(texts, heads)
        joint = [head for head in heads if not reads_apart(head)]
        apart = [head for head in heads if reads_apart(head)]
        words, of_joint = reads_words(heads), slice(len(placed.joint))
        with (
            self.tokenized(to_encode, max_batch_tokens, split, words) as chunks,
            progress_bar(chunks.num_windows, progress) as bar,
        ):
            if words or not self._answers(chunks):
                features = self.encode(chunks, bar)
                stats, started_s = features.stats, time.perf_counter()
                found = self._encoder.predict(features[of_joint], joint) if joint else {}
                vectors = self._encoder.text_vectors(features[of_joint.stop :], apart)
            else:
                outputs, stats = self._encode_and_answer(chunks, [*joint, *apart], bar)
                started_s = time.perf_counter()
                logits = [output[of_joint] for output in outputs[: len(joint)]]
                leave_out_misfits(joint, chunks.pairs[of_joint], logits)
                found = predictions_of(joint, logits)
                vectors = [output[of_joint.stop :] for output in outputs[len(joint) :]]
        of_pairs = self._encoder.pair_outputs(vectors, placed.pairs, apart)
        stats = replace(
            stats,
            num_texts=len(texts),
            num_truncated=placed.count(chunks.truncated),
            heads_s=stats.heads_s + time.perf_counter() - started_s,
        )
        return Predictions(predictions_apart(heads, placed, found, of_pairs), stats)

    def _answers(self, chunks: TextChunks) -> bool:
        """Whether the encoder runs heads itself. Its answers are those of windows, so not of texts
        that were split, and not of words."""
        return self._answering is not None and not chunks.is_split

    def _encode_and_answer(
        self, chunks: TextChunks, heads: list[Head], bar: Any
    ) -> tuple[list[NDArray[np.float32]], Stats]:
        """What each head makes of each of the call's texts, where the encoder does that; and the
        cost."""
        assert self._answering is not None, "asked of encoders that answer"
        outputs = empty_outputs(heads, chunks.num_distinct)
        batches = (batch for work in chunks for batch in work.batches())
        stats = _run(chunks, self._answering.encode_and_predict(batches, heads, outputs), bar)
        return [chunks.of_call(output) for output in outputs], stats


def _run(chunks: TextChunks, batches: Iterator[Stats], bar: Any) -> Stats:
    """Consumes the batches of an encoder; returns what all of it cost."""
    stats = Stats()
    for batch_stats in batches:
        stats += batch_stats
        bar.update(batch_stats.num_windows)
    return chunks.stats + stats
