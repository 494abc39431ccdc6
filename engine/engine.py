"""The engine: a loaded bundle that turns texts into codes and codes into predictions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import bundle
from bitheads.engine.encoder import Encoder
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.features.packed import PackedFeatures, check_pairs
from bitheads.engine.features.spec import Calibration, FeatureSpec, check_spec
from bitheads.engine.heads.head import (
    Head,
    is_of_words,
)
from bitheads.engine.heads.head_file import SUFFIX, FoldedHead, read_head
from bitheads.engine.heads.loaded_heads import LoadedHeads, TaskInfo
from bitheads.engine.open_encoder import open_encoder
from bitheads.engine.predictions import Predictions
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.lifetime import Lifetime
from bitheads.engine.progress import progress_bar
from bitheads.engine.sessions.embedding_rows import embedding_rows
from bitheads.engine.text_batches import is_split, open_tokenizer, warn_of_cut
from bitheads.engine.text_chunks import TextChunks
from bitheads.engine.text_passes import TextPasses
from bitheads.engine.texts.forms import (
    fitting,
    of_codes,
    of_two_texts,
)
from bitheads.engine.texts.prompts import put_before
from bitheads.engine.texts.tokenize import TextTokenizer, check_iterable
from bitheads.engine.types import Text

MAX_HEAD_READERS = 8
"""Threads that read heads, at most: each takes several times the memory of a head's file."""

logger = logging.getLogger("bitheads")


class Engine:
    """One frozen encoder and any number of task heads. Make one with `Engine.load`.

    Thread-safe: calls from several threads take turns on the encoder; heads may be added and
    removed at any time, and a call sees the heads there were when it began.

    An engine belongs to the process that loaded it: in one that is forked later every call raises
    ForkedError, and OpenVINO cannot be loaded there. After `close` every call raises ClosedError.
    What an engine is, `spec`, `manifest`, `calibration` and `backend`, can be read everywhere.
    """

    def __init__(
        self,
        manifest: bundle.Manifest,
        tokenizer: TextTokenizer,
        encoder: Encoder[Any],
        calibration: Calibration | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.manifest = manifest
        self.calibration = calibration
        self._embedder = embedder
        self._lifetime = Lifetime("this engine")
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._passes = TextPasses(manifest, tokenizer, encoder, calibration)
        self._backend = encoder.name
        self._heads = LoadedHeads()

    @classmethod
    def load(
        cls,
        path: str | Path,
        backend: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        verify: bool = True,
        min_sign_agreement: float | None = None,
    ) -> Engine:
        """Loads a bundle and the heads in it.

        Args:
            path: the bundle's folder.
            backend: "openvino" or "onnxruntime" on a CPU; "tensorrt", "onnxruntime-tensorrt" or
                "onnxruntime-cuda" on a GPU; "auto": a GPU's first that works, else the fastest on
                the CPU, which is timed once per bundle and machine, and remembered.
            threads: processor threads of the encoder and of heads, None for all cores that this
                process has, by its affinity and its container's quota (engine.process.cores).
            precision: "auto" (on a CPU the fastest floating-point type, timed with the backends;
                on a GPU the graph's), "fp32", "bf16" where the processor has it, or "int8_dynamic"
                or "int8": faster on CPUs, with more signs that differ, and only with "openvino" and
                bundles built with that `--precision`. "fp16" is for a GPU alone, and bundles in
                fp16; so are "fp8", and "int8" with "tensorrt", of bundles built with
                `--plan-precision`.
            verify: compare every file with its recorded hash first; takes about 0.1 s per 100 MB.
            min_sign_agreement: over 0 and up to 1. What precision "auto" may take on a CPU: the
                fastest whose share of signs that are as torch's in fp32 was at least this when the
                bundle was built, int8 included. None: the fastest floating-point type, which
                keeps 0.997. GPUs are not asked.

        Raises BundleError, HeadError, SpecMismatchError, BackendError or PlanError, and ForkedError
        if it would take OpenVINO, and this process was forked from one that had loaded that.
        """
        folder = Path(path)
        manifest = bundle.read_manifest(folder)
        if verify:
            bundle.verify(folder, manifest)
        calibration = bundle.read_calibration(folder, manifest.spec)
        rows = embedding_rows(folder, manifest)
        tokenizer = open_tokenizer(folder, manifest, rows)
        embedder = bundle.read_embedder(folder, manifest)
        encoder = open_encoder(
            folder,
            manifest,
            calibration,
            backend,
            precision,
            threads,
            embedder,
            min_sign_agreement,
        )
        engine = cls(manifest, tokenizer, encoder, calibration, embedder)
        try:
            engine._add_heads(sorted((folder / bundle.HEADS).glob(f"*{SUFFIX}")), threads)
        except BaseException:
            engine.close()
            raise
        return engine

    def close(self) -> None:
        """Frees the memory of encoder, heads and tokenizer, a GPU's too; more than once is fine.

        Waits for calls that run in other threads. What `tokenizer` and `encoder` gave keeps its
        memory for as long as it is kept. In a process that was forked since, nothing is freed.

        Raises InputError within a call of this engine.
        """
        if not self._lifetime.end():
            return
        self._heads.clear()
        encoder = self._encoder
        del self._tokenizer, self._encoder, self._passes
        encoder.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def spec(self) -> FeatureSpec:
        """What this engine's codes mean."""
        return self.manifest.spec

    @property
    def backend(self) -> str:
        """The encoder's backend and precision, such as "openvino bf16"."""
        return self._backend

    @property
    def takes_pairs(self) -> bool:
        """Whether the encoder reads two texts together, which heads of the form "pair" want."""
        self._lifetime.check()
        return self._tokenizer.takes_pairs

    @property
    def tokenizer(self) -> TextTokenizer:
        """It is for hosts that schedule batches themselves, as engine.serve does."""
        self._lifetime.check()
        return self._tokenizer

    @property
    def encoder(self) -> Encoder[Any]:
        """It is for hosts that schedule batches themselves, as engine.serve does."""
        self._lifetime.check()
        return self._encoder

    @property
    def tasks(self) -> Mapping[str, TaskInfo]:
        """The loaded heads by task name; a snapshot."""
        self._lifetime.check()
        return self._heads.infos()

    def add_head(self, path: str | Path | FoldedHead, replace: bool = False) -> str:
        """Loads a head, without touching the encoder, and returns its task name.

        Args:
            path: of a head's file, or a head that `train_head` gave.

        Raises HeadError if the file is not a sound head or the name is taken (without `replace`),
        SpecMismatchError if it was trained on another feature spec.
        """
        with self._lifetime:
            head = self.read_head(path)
            self._use_head_of(path, head, replace)
        return head.task

    def read_head(self, path: str | Path | FoldedHead) -> Head:
        """A head of this engine's encoder, ready for `use_head`, which answers nothing yet.

        Args:
            path: see `add_head`.

        Raises HeadError or SpecMismatchError.
        """
        with self._lifetime:
            folded = path if isinstance(path, FoldedHead) else read_head(Path(path))
            check_spec(_called(path), folded.spec, self.spec)
            head: Head = self._encoder.load_head(folded)
        return head

    def use_head(self, head: Head, replace: bool = False) -> None:
        """Adds what `read_head` gave. Raises HeadError if its name is taken (without `replace`)."""
        with self._lifetime:
            self._heads.add(head, replace)

    def _use_head_of(
        self, path: str | Path | FoldedHead, head: Head, replace: bool = False
    ) -> None:
        try:
            self.use_head(head, replace)
        except HeadError as error:
            raise HeadError(f"{_called(path)}: {error}") from None

    def _add_heads(self, paths: Sequence[Path], threads: int | None) -> None:
        """Adds heads as if one after the other; reading, which takes the time, is done at once."""
        pool = ThreadPoolExecutor(min(threads or count_cores(), MAX_HEAD_READERS), "read-heads")
        try:
            for path, head in zip(paths, pool.map(self.read_head, paths), strict=True):
                self._use_head_of(path, head)
        finally:
            pool.shutdown(cancel_futures=True)

    def remove_head(self, name: str) -> None:
        """Forgets a head; its file stays. Raises UnknownTaskError if there is none."""
        with self._lifetime:
            self._heads.remove(name)

    def encode(
        self,
        texts: Sequence[Text],
        max_batch_tokens: int | None = None,
        progress: bool = False,
        long_texts: str = "cut",
        words: bool = False,
        embeddings: bool = False,
    ) -> PackedFeatures:
        """One encoder pass over the texts: the codes of every real token, in input order.

        Equal texts go through the encoder once.

        Args:
            texts: strings, or pairs of strings joined as the tokenizer joins pairs.
            max_batch_tokens: bound on an encoder call's tokens, padding included; it bounds
                memory. A single longer text is a call of its own. None: the encoder's choice,
                1,024 on a CPU, up to 16,384 on a GPU.
            progress: show a progress bar on standard error.
            long_texts: what becomes of texts over the encoder's maximum length. "cut": the rest
                is dropped, counted in `stats.num_truncated` and logged. "split": they are read in
                windows of the maximum length, each by itself and with the prefix's and the
                tokenizer's own tokens; a text's codes are those of its windows, one after the
                other. Pairs are not split.
            words: say of the codes which words they are of, which heads of the kind `token_label`
                want; tokenizing takes longer.
            embeddings: give each text's float vector beside its codes, see `embed`; no prompt is
                put before the texts.

        Raises InputError for items that are no texts, for pairs that would have to be split, and
        for embeddings of texts that are split or of a bundle without, BackendError if the encoder
        fails.
        """
        with self._lifetime:
            split = is_split(long_texts)
            if embeddings:
                self._check_embeddings(split)
            with (
                self._passes.tokenized(texts, max_batch_tokens, split, words) as chunks,
                progress_bar(chunks.num_windows, progress) as bar,
            ):
                return self._passes.encode(chunks, bar, embeddings)

    def embed(
        self,
        texts: Sequence[Text],
        dim: int | None = None,
        normalize: bool = False,
        precision: str = "float32",
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_batch_tokens: int | None = None,
        progress: bool = False,
    ) -> NDArray[Any]:
        """Each text's embedding: what sentence-transformers' `encode` gives of the checkpoint.

        Args:
            texts: see `encode`; long ones are cut.
            dim: the first so many numbers alone, for encoders that were trained for that.
            normalize: to a length of 1, which many checkpoints do anyway.
            precision: "float32"; "int8" or "uint8", steps between the least and the largest that
                each number was for the build's texts; "binary" or "ubinary", signs, eight to a
                byte, signed or not.
            prompt: put before each text, in place of one of the checkpoint's.
            prompt_name: of one of the checkpoint's; None for its default one, if it has any.
            max_batch_tokens, progress: see `encode`.

        Returns [texts, dim], or [texts, ceil(dim / 8)] of signs.

        Raises InputError for items that are no texts, and for a bundle without embeddings or what
        it cannot give, BackendError if the encoder fails.
        """
        with self._lifetime:
            embedder = self.embedder
            embedder.check_asked(dim, normalize, precision)
            before = embedder.spec.prompt(prompt, prompt_name)
            if before:
                texts = put_before(before, texts)
            with (
                self._passes.tokenized(texts, max_batch_tokens) as chunks,
                progress_bar(chunks.num_windows, progress) as bar,
            ):
                vectors = self._passes.embed(chunks, bar)
            return embedder.finish(vectors, dim, normalize, precision)

    @property
    def embedder(self) -> Embedder:
        """What makes embeddings of batches; for hosts that schedule them themselves.

        Raises InputError for a bundle without embeddings.
        """
        self._lifetime.check()
        return bundle.require_embedder(self._embedder)

    def encode_stream(
        self,
        texts: Iterable[Text],
        chunk_texts: int = 4096,
        max_batch_tokens: int | None = None,
        progress: bool = False,
        long_texts: str = "cut",
        words: bool = False,
        embeddings: bool = False,
    ) -> Iterator[PackedFeatures]:
        """`encode` for texts without end: chunk by chunk, in input order, in constant memory.

        A chunk is tokenized while the one before it is encoded, so texts are read up to a chunk
        ahead of the features. They are read by the thread that asks for the features.

        Equal texts of a chunk go through the encoder once.

        Args:
            texts: any iterable; nothing of it is kept.
            chunk_texts: texts of one PackedFeatures. They are sorted by length among each other,
                so that many short texts want larger chunks.
            max_batch_tokens, progress, long_texts, words, embeddings: see `encode`.

        Raises what `encode` and the iterable raise, and InputError for what gives no texts: one
        string, bytes, a mapping, which gives its keys, a table, a number.
        """
        self._lifetime.check()
        check_iterable(texts)
        if chunk_texts < 1:
            raise InputError(f"chunk_texts: got {chunk_texts}, expected at least 1.")
        split = is_split(long_texts)
        if embeddings:
            self._check_embeddings(split)
        return self._encode_chunks(
            iter(texts), chunk_texts, max_batch_tokens, split, progress, words, embeddings
        )

    def _check_embeddings(self, split: bool) -> None:
        """Raises InputError if there are none of such texts."""
        _ = self.embedder
        if split:
            raise InputError(
                "embeddings: got long_texts='split', expected 'cut': an embedding is of what the "
                "encoder reads at once."
            )

    def _encode_chunks(
        self,
        texts: Iterator[Text],
        chunk_texts: int,
        max_batch_tokens: int | None,
        split: bool,
        progress: bool,
        words: bool,
        embeddings: bool,
    ) -> Iterator[PackedFeatures]:
        starts = count(0, chunk_texts)
        with ThreadPoolExecutor(1, "tokenize") as tokenizing, progress_bar(None, progress) as bar:

            def tokenize(chunk: list[Text], start: int) -> TextChunks:
                with self._lifetime:
                    return self._passes.tokenize_once(chunk, max_batch_tokens, split, start, words)

            def tokenize_next() -> Future[TextChunks] | None:
                chunk = list(islice(texts, chunk_texts))
                return tokenizing.submit(tokenize, chunk, next(starts)) if chunk else None

            ahead = tokenize_next()
            while ahead is not None:
                self._lifetime.check()  # in a forked process, nobody tokenizes
                chunk = ahead.result()
                ahead = tokenize_next()
                features = self._encode(chunk, bar, embeddings)
                warn_of_cut(features.stats, self.manifest.encoder, split)
                yield features

    def _encode(self, chunk: TextChunks, bar: Any, embeddings: bool) -> PackedFeatures:
        with self._lifetime:
            return self._passes.encode(chunk, bar, embeddings)

    def predict(
        self,
        texts: Sequence[Text],
        tasks: Sequence[str] | None = None,
        max_batch_tokens: int | None = None,
        progress: bool = False,
        long_texts: str = "cut",
    ) -> Predictions:
        """Every task's answer for every text, from one encoder pass; equal texts are read once.

        Heads of the form `two_texts` read the texts of a pair each by itself: for those every
        different text of the pairs is encoded once.

        Args:
            tasks: names of loaded heads, None for all that are for such texts. Each text is
                answered by the heads of its form, those for single texts or those for pairs: in a
                call that mixes them, `Prediction.top` is None for texts that are not for the head.
            texts, max_batch_tokens, progress, long_texts: see `encode`. What is read by itself is
                cut, or split, by itself.

        Raises what `encode` raises, UnknownTaskError for a task no head answers, and InputError for
        a task that was named and is for none of the texts.
        """
        with self._lifetime:
            heads = self.choose_heads(tasks)  # first: an unknown task should not cost a pass
            named, split = tasks is not None, is_split(long_texts)
            return self._passes.predict(texts, heads, named, max_batch_tokens, split, progress)

    def predict_features(
        self, features: PackedFeatures, tasks: Sequence[str] | None = None
    ) -> Predictions:
        """Every task's answer from codes alone: no encoder runs.

        Args:
            tasks: see `predict`; of features that do not say which texts were pairs, any head
                answers, and of those that say nothing of words, none of the kind `token_label`.
                Heads of the form `two_texts` are for `predict_pairs`.

        Raises UnknownTaskError for a task no head answers, InputError for a task that was named and
        is for none of the texts, SpecMismatchError for features of another spec.
        """
        with self._lifetime:
            heads = of_codes(self.choose_heads(tasks), named=tasks is not None)
            if tasks is None and features.words is None:
                heads = [head for head in heads if not is_of_words(head)]
            check_spec("features", features.spec, self.spec)
            heads = fitting(heads, features.pairs, named=tasks is not None)
            return self._passes.predict_features(features, heads)

    def predict_pairs(
        self,
        features: PackedFeatures,
        pairs: NDArray[np.int64],
        tasks: Sequence[str] | None = None,
    ) -> Predictions:
        """Every task's answer for pairs of encoded texts: no encoder runs.

        So texts are encoded once whatever they are compared with, and n candidates for one text are
        pairs (0, 1) to (0, n) of 1 + n texts.

        Args:
            features: of single texts.
            pairs: int64 [pairs, 2], which of those texts go together; answers are in this order.
            tasks: names of loaded heads of the form `two_texts`, None for all of them.

        Raises UnknownTaskError for a task no head answers, InputError for pairs that are none of
        these texts', and for a task that was named and is of another form, SpecMismatchError for
        features of another spec.
        """
        with self._lifetime:
            heads = of_two_texts(self.choose_heads(tasks), named=tasks is not None)
            check_spec("features", features.spec, self.spec)
            return self._passes.predict_pairs(features, check_pairs(pairs, features), heads)

    def choose_heads(self, tasks: Sequence[str] | None) -> list[Head]:
        """The loaded heads of these tasks, None for all of them; a snapshot.

        Raises UnknownTaskError for a task no head answers.
        """
        with self._lifetime:
            return self._heads.choose(tasks)


def _called(path: str | Path | FoldedHead) -> str:
    """What to call a head in errors."""
    return f"head {path.task!r}" if isinstance(path, FoldedHead) else f"head {path}"
