"""The engine: a loaded bundle that turns texts into codes and codes into predictions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tqdm import tqdm

from engine import bundle, pack
from engine.batching import cut_batches, pad_batch
from engine.errors import BackendError, HeadError, UnknownTaskError
from engine.head_file import SUFFIX, FoldedHead, read_head
from engine.heads import check_spec, predict_heads
from engine.sessions import EncoderSession, open_session
from engine.tokenize import TextTokenizer, Tokens
from engine.types import (
    Calibration,
    FeatureSpec,
    PackedFeatures,
    Predictions,
    Stats,
    Text,
)

MAX_BATCH_TOKENS = 1024
"""Default token budget of an encoder call: past this, larger batches gain nothing on a CPU."""

logger = logging.getLogger("bitheads")


@dataclass(frozen=True)
class TaskInfo:
    """What a loaded head answers.

    Attributes:
        labels: its classes.
        form: "single" if it reads one text, "pair" if it reads two.
        metrics: name -> value, as measured when it was trained.
        nbytes: bytes its weights take in memory.
    """

    labels: tuple[str, ...]
    form: str
    metrics: Mapping[str, float]
    nbytes: int


class Engine:
    """One frozen encoder and any number of task heads. Make one with `Engine.load`.

    Thread-safe: calls from several threads take turns on the encoder; heads may be added and
    removed at any time, and a call sees the heads there were when it began.
    """

    def __init__(
        self,
        manifest: bundle.Manifest,
        tokenizer: TextTokenizer,
        session: EncoderSession,
        calibration: Calibration | None = None,
    ) -> None:
        self.manifest = manifest
        self.calibration = calibration
        self._tokenizer = tokenizer
        self._session = session
        self._encoder_lock = threading.Lock()
        self._heads_lock = threading.Lock()
        self._heads: Mapping[str, FoldedHead] = MappingProxyType({})

    @classmethod
    def load(
        cls,
        path: str | Path,
        backend: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        verify: bool = True,
    ) -> Engine:
        """Loads a bundle and the heads in it.

        Args:
            path: the bundle's folder.
            backend: "auto", "openvino" or "onnxruntime".
            threads: processor threads of the encoder, None for all cores.
            precision: "auto" (the fastest this processor is made for), "fp32" or "bf16".
            verify: compare every file with its recorded hash first; takes about 0.1 s per 100 MB.

        Raises BundleError, HeadError, SpecMismatchError or BackendError.
        """
        folder = Path(path)
        manifest = bundle.read_manifest(folder)
        if verify:
            bundle.verify(folder, manifest)
        engine = cls(
            manifest,
            TextTokenizer(folder / bundle.TOKENIZER, manifest.encoder.max_length),
            open_session(folder / bundle.GRAPH, manifest.output_names, backend, precision, threads),
            bundle.read_calibration(folder, manifest.spec),
        )
        for head_path in sorted((folder / bundle.HEADS).glob(f"*{SUFFIX}")):
            engine.add_head(head_path)
        return engine

    @property
    def spec(self) -> FeatureSpec:
        """What this engine's codes mean."""
        return self.manifest.spec

    @property
    def backend(self) -> str:
        """The encoder's backend and precision, such as "openvino bf16"."""
        return f"{self._session.backend} {self._session.precision}"

    @property
    def tasks(self) -> Mapping[str, TaskInfo]:
        """The loaded heads by task name; a snapshot."""
        return {
            name: TaskInfo(
                head.labels, head.form, MappingProxyType(dict(head.metrics)), head.nbytes
            )
            for name, head in self._heads.items()
        }

    def add_head(self, path: str | Path, replace: bool = False) -> str:
        """Loads a head file, without touching the encoder, and returns its task name.

        Raises HeadError if the file is no sound head or the name is taken (without `replace`),
        SpecMismatchError if it was trained on another feature spec.
        """
        head = read_head(Path(path))
        check_spec(f"head {path}", head.spec, self.spec)
        with self._heads_lock:
            if head.task in self._heads and not replace:
                raise HeadError(
                    f"head {path}: task {head.task!r} is loaded already. Remove it first, or pass "
                    "replace=True."
                )
            self._heads = MappingProxyType({**self._heads, head.task: head})
        return head.task

    def remove_head(self, name: str) -> None:
        """Forgets a head; its file stays. Raises UnknownTaskError if there is none."""
        with self._heads_lock:
            self._choose([name])
            self._heads = MappingProxyType({k: v for k, v in self._heads.items() if k != name})

    def encode(
        self,
        texts: Sequence[Text],
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        progress: bool = False,
    ) -> PackedFeatures:
        """One encoder pass over the texts: the codes of every real token, in input order.

        Args:
            texts: strings, or pairs of strings joined as the tokenizer joins pairs.
            max_batch_tokens: bound on an encoder call's tokens, padding included; it bounds
                memory. A single longer text is a call of its own.
            progress: show a progress bar on standard error.

        Raises InputError for items that are no texts, BackendError if the encoder fails.
        Texts over the maximum length are cut, counted in `stats.num_truncated` and logged.
        """
        started_s = time.perf_counter()
        tokens = self._tokenizer(texts)
        stats = Stats(
            num_texts=len(tokens),
            num_truncated=sum(text.truncated for text in tokens),
            tokenize_s=time.perf_counter() - started_s,
        )
        if stats.num_truncated:
            logger.warning(
                "%d of %d texts were longer than %d tokens and were cut",
                stats.num_truncated,
                stats.num_texts,
                self.manifest.encoder.max_length,
            )
        lengths = np.array([text.ids.size for text in tokens], np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        codes = np.empty((int(offsets[-1]), self.spec.code_bytes), np.uint8)
        batches = cut_batches(lengths, max_batch_tokens)
        with tqdm(total=len(tokens), unit="text", desc="encode", disable=not progress) as bar:
            for rows in batches:
                stats += self._encode_batch([tokens[i] for i in rows], offsets[rows], codes)
                bar.update(len(rows))
        return PackedFeatures(codes, offsets, self.spec, self.calibration, stats)

    def _encode_batch(
        self, tokens: list[Tokens], token_offsets: np.ndarray, codes: np.ndarray
    ) -> Stats:
        """Runs the encoder on one batch and packs its rows straight to their place in `codes`."""
        batch = pad_batch(tokens, self.manifest.encoder.pad_id)
        spec, calibration = self.spec, self.calibration or Calibration()
        with self._encoder_lock:
            started_s = time.perf_counter()
            try:
                layers = self._session.run(batch)
            except Exception as error:  # each backend has its own
                raise BackendError(
                    f"{self.backend} failed on a batch of {list(batch.input_ids.shape)} tokens: "
                    f"{error}. Try a smaller max_batch_tokens, or another backend."
                ) from error
            encoded_s = time.perf_counter()
            pack.pool_and_pack(
                layers,
                batch.lengths,
                token_offsets,
                codes,
                quantization=spec.quantization.value,
                order=spec.order.value,
                layer_weights=(
                    None if spec.layer_weights is None else np.array(spec.layer_weights, np.float32)
                ),
                thresholds=calibration.thresholds,
                inverse_scale=calibration.inverse_scale,
                zero_point=calibration.zero_point,
            )
            packed_s = time.perf_counter()
        num_tokens = int(batch.lengths.sum())
        return Stats(
            num_tokens=num_tokens,
            num_batches=1,
            num_padding=batch.input_ids.size - num_tokens,
            encode_s=encoded_s - started_s,
            pack_s=packed_s - encoded_s,
        )

    def predict(
        self,
        texts: Sequence[Text],
        tasks: Sequence[str] | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        progress: bool = False,
    ) -> Predictions:
        """Every task's answer for every text, from one encoder pass.

        Args:
            tasks: names of loaded heads, None for all of them.
            texts, max_batch_tokens, progress: see `encode`.

        Raises what `encode` and `predict_features` raise.
        """
        heads = self._choose(tasks)  # first: an unknown task should not cost an encoder pass
        return self._predict(self.encode(texts, max_batch_tokens, progress), heads)

    def predict_features(
        self, features: PackedFeatures, tasks: Sequence[str] | None = None
    ) -> Predictions:
        """Every task's answer from codes alone: no encoder runs.

        Raises UnknownTaskError for a task no head answers, SpecMismatchError for features of
        another spec.
        """
        heads = self._choose(tasks)
        check_spec("features", features.spec, self.spec)
        return self._predict(features, heads)

    @staticmethod
    def _predict(features: PackedFeatures, heads: list[FoldedHead]) -> Predictions:
        started_s = time.perf_counter()
        by_task = predict_heads(features, heads)
        heads_s = time.perf_counter() - started_s
        return Predictions(by_task, replace(features.stats, heads_s=heads_s))

    def _choose(self, tasks: Sequence[str] | None) -> list[FoldedHead]:
        heads = self._heads
        if tasks is None:
            return list(heads.values())
        if isinstance(tasks, str):
            tasks = [tasks]
        unknown = [name for name in tasks if name not in heads]
        if unknown:
            raise UnknownTaskError(
                f"task {unknown[0]!r}: no such head is loaded, expected one of "
                f"{sorted(heads) or 'none (no head is loaded)'}. Add it with "
                "engine.add_head(path), or train it with `python -m training.head`."
            )
        return [heads[name] for name in dict.fromkeys(tasks)]
