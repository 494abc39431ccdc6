"""The words of the data flow as types: feature spec, token batch, packed features, prediction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from functools import cached_property
from operator import add
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import BundleError, InputError, SpecMismatchError, UnknownTaskError
from bitheads.engine.features import pack

Text = str | tuple[str, str]
"""What a task reads: one text, or a pair joined the way the encoder's tokenizer joins pairs."""


class _Word(str, Enum):
    """A word of the data flow; shown and parsed as its value."""

    def __str__(self) -> str:
        return str(self.value)


class LayerPooling(_Word):
    """How the exported layers of one token become one vector (Section 4 of the paper)."""

    LAST = "last"
    MEAN = "mean"
    LEARNED = "learned"


class PositionPooling(_Word):
    """How the tokens of one text become one vector (Section 4 of the paper)."""

    ATTENTION = "attention"
    MEAN = "mean"
    CLS = "cls"


class Quantization(_Word):
    """How one pooled feature is stored (Section 5 of the paper)."""

    SIGN = "sign"
    UINT8 = "uint8"
    FLOAT16 = "float16"


class Order(_Word):
    """Whether layers are pooled before or after taking signs (Section 6.3 of the paper)."""

    POOL_THEN_SIGN = "pool_then_sign"
    SIGN_THEN_VOTE = "sign_then_vote"


MAX_LAYER, MAX_DIM = 1 << 20, 1 << 24


def _typed(value: Any, *kinds: type) -> Any:
    """The value, if it is of one of the types itself: True is no number."""
    if type(value) not in kinds:
        raise TypeError(f"got {value!r:.60}, expected {' or '.join(k.__name__ for k in kinds)}")
    return value


def _within(value: Any, least: int, most: int) -> int:
    if not least <= _typed(value, int) <= most:
        raise ValueError(f"got {value}, expected {least} to {most}")
    return int(value)


@dataclass(frozen=True)
class FeatureSpec:
    """What a code means. Two specs with the same `id` produce interchangeable codes.

    Attributes:
        encoder: the encoder's name, for people.
        weights_sha256: hash of the encoder's trained weights, for machines.
        layers: hidden-state indices that are pooled, ascending; 0 is the embedding layer.
        dim: features a token.
        layer_weights: one weight a layer, only with `LayerPooling.LEARNED`.
        calibration_sha256: hash of the per-feature thresholds or scales, or None.
    """

    encoder: str
    weights_sha256: str
    layers: tuple[int, ...]
    layer_pooling: LayerPooling
    quantization: Quantization
    order: Order
    dim: int
    layer_weights: tuple[float, ...] | None = None
    calibration_sha256: str | None = None

    @cached_property  # asked for at every prediction, of every head
    def id(self) -> str:
        """16 hexadecimal digits; heads and stores carry it."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def code_bytes(self) -> int:
        """Bytes of one token's code."""
        return pack.code_bytes(self.dim, self.quantization.value)

    def to_json(self) -> dict[str, Any]:
        return {k: v.value if isinstance(v, Enum) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureSpec:
        """Raises BundleError for missing or unknown fields and values out of range."""
        names = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping):
            raise BundleError(
                f"feature spec: got {data!r:.60}, expected an object. Export the bundle again."
            )
        unknown = set(data) - names
        if unknown:
            raise BundleError(
                f"feature spec: unknown fields {sorted(unknown)}, expected {sorted(names)}. "
                "It was written by a newer bitheads: upgrade, or export the bundle again."
            )
        try:
            weights, layers = data.get("layer_weights"), _typed(data["layers"], list, tuple)
            spec = cls(
                encoder=_typed(data["encoder"], str),
                weights_sha256=_typed(data["weights_sha256"], str),
                layers=tuple(_within(layer, 0, MAX_LAYER) for layer in layers),
                layer_pooling=LayerPooling(data["layer_pooling"]),
                quantization=Quantization(data["quantization"]),
                order=Order(data["order"]),
                dim=_within(data["dim"], 1, MAX_DIM),
                layer_weights=(
                    None
                    if weights is None
                    else tuple(float(_typed(w, int, float)) for w in _typed(weights, list, tuple))
                ),
                calibration_sha256=_typed(data.get("calibration_sha256"), str, NoneType),
            )
            if not spec.layers:
                raise ValueError("expected at least one layer")
            if spec.layer_weights is not None and len(spec.layer_weights) != len(spec.layers):
                raise ValueError("expected one weight for each layer, or none")
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise BundleError(
                f"feature spec: cannot read {dict(data)!r} ({error!r}). Export the bundle again."
            ) from error
        return spec

    def __str__(self) -> str:
        layers = f"layers {self.layers[0]}-{self.layers[-1]}"
        parts = [self.encoder, layers, self.layer_pooling.value, self.quantization.value]
        if self.quantization is Quantization.SIGN:
            parts.append(self.order.value)
        if self.calibration_sha256 is not None:
            parts.append(f"calibration {self.calibration_sha256[:8]}")
        return f"{self.id} ({', '.join(parts)}, dim {self.dim}, weights {self.weights_sha256[:8]})"


@dataclass(frozen=True, eq=False)
class Calibration:
    """Per-feature constants of a spec; all float32 [dim].

    Attributes:
        thresholds: a sign bit is 1 iff the layer mean exceeds it (`sign` only).
        scale, zero_point: x ~ scale * (code - zero_point) (`uint8` only).
    """

    thresholds: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    zero_point: NDArray[np.float32] | None = None

    @property
    def inverse_scale(self) -> NDArray[np.float32] | None:
        """What the kernels multiply by, rounded once: float32 [dim]."""
        return None if self.scale is None else np.reciprocal(self.scale)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The arrays that are present, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: array for name, array in named.items() if array is not None}

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays().items()):
            digest.update(name.encode() + b"\0" + array.astype("<f4").tobytes())
        return digest.hexdigest()


def code_affine(
    spec: FeatureSpec, calibration: Calibration | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and offset of a spec's codes: x ~ scale * code + offset, each float32 [dim].

    Raises SpecMismatchError for uint8 codes without their calibration.
    """
    ones = np.ones(spec.dim, np.float32)
    if spec.quantization is Quantization.SIGN:
        return 2 * ones, -ones
    if spec.quantization is Quantization.FLOAT16:
        return ones, 0 * ones
    if calibration is None or calibration.scale is None or calibration.zero_point is None:
        raise SpecMismatchError(
            f"uint8 codes of spec {spec.id} cannot be read without their scale and zero point: "
            "got no calibration. Pass calibration=engine.calibration of the bundle that made them."
        )
    return calibration.scale, -calibration.scale * calibration.zero_point


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A padded batch for one encoder call; padding is on the right.

    Attributes:
        input_ids, attention_mask: int64 [rows, seq].
        token_type_ids: int64 [rows, seq]; sessions ignore it if the graph has no such input.
        lengths: int64 [rows], real tokens of each row.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PlacedBatch:
    """A padded batch, and where its rows' results belong.

    Attributes:
        tokens: the batch.
        texts: int64 [rows], index of each row's text, or window on one, in the input.
        token_offsets: int64 [rows], index in the codes of each row's first token.
    """

    tokens: TokenBatch
    texts: NDArray[np.int64]
    token_offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Stats:
    """What a call did and what it cost; seconds are wall time of each stage.

    Where batches ran at the same time, each counts for its share of the machine.

    Attributes:
        num_truncated: texts of which tokens were dropped.
        num_windows: rows of the encoder calls: as many as texts, and more where texts were split.
    """

    num_texts: int = 0
    num_tokens: int = 0
    num_truncated: int = 0
    num_windows: int = 0
    num_batches: int = 0
    num_padding: int = 0
    tokenize_s: float = 0.0
    encode_s: float = 0.0
    pack_s: float = 0.0
    heads_s: float = 0.0

    def __add__(self, other: Stats) -> Stats:
        return Stats(*map(add, vars(self).values(), vars(other).values()))


BatchRunner: TypeAlias = Callable[[PlacedBatch, NDArray[np.uint8]], Stats]
"""Encodes one batch and packs its rows to their place in the codes, uint8 [tokens, code_bytes]."""


@dataclass(frozen=True, eq=False)
class PackedFeatures:
    """Codes of the real tokens of some texts, ragged: no padding is ever stored.

    Attributes:
        codes: uint8 [total_tokens, code_bytes].
        offsets: int64 [texts + 1]; text i owns codes[offsets[i]:offsets[i + 1]].
        spec: what the codes mean.
        calibration: the spec's per-feature constants, where it has any.
        stats: what the call that made them cost, where a call did.
        pairs: bool [texts], which texts were pairs; None where nobody knows. A head answers only
            texts of its form, see engine.texts.forms.
    """

    codes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    spec: FeatureSpec
    calibration: Calibration | None = None
    stats: Stats = field(default_factory=Stats)
    pairs: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        codes, offsets, code_bytes = self.codes, self.offsets, self.spec.code_bytes
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != code_bytes:
            raise InputError(
                f"codes: got {codes.dtype} {list(codes.shape)}, expected uint8 [tokens, "
                f"{code_bytes}] for spec {self.spec}."
            )
        if offsets.dtype != np.int64 or offsets.ndim != 1 or offsets.size < 1:
            raise InputError(
                f"offsets: got {offsets.dtype} {list(offsets.shape)}, expected int64 [texts + 1]."
            )
        if offsets[0] != 0 or offsets[-1] != codes.shape[0] or (self.num_tokens < 0).any():
            raise InputError(
                f"offsets: expected 0 first, {codes.shape[0]} (the tokens) last, never falling; "
                f"got {offsets[0]} first and {offsets[-1]} last."
            )
        pairs = self.pairs
        if pairs is not None and (pairs.dtype != np.bool_ or pairs.shape != (len(self),)):
            raise InputError(
                f"pairs: got {pairs.dtype} {list(pairs.shape)}, expected bool [{len(self)}], one "
                "for each text, or None."
            )

    def __len__(self) -> int:
        """Number of texts."""
        return self.offsets.size - 1

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [texts]."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all codes."""
        return self.codes.nbytes

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> PackedFeatures:
        """Some of the texts, again as PackedFeatures; a step-1 slice shares the codes' memory.

        An integer gives one text; integers and booleans in a sequence or array gather texts.
        """
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            stop = max(start, stop)
            first, last = self.offsets[start], self.offsets[stop]
            offsets = self.offsets[start : stop + 1] - first
            return self._with(self.codes[first:last], offsets, slice(start, stop))
        if isinstance(index, tuple):  # to NumPy, one index a dimension
            index = list(index)
        chosen = np.atleast_1d(np.arange(len(self), dtype=np.int64)[index])
        counts = self.num_tokens[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        codes = self.codes[np.repeat(self.offsets[chosen], counts) + within]
        return self._with(codes, offsets, chosen)

    def __iter__(self) -> Iterator[PackedFeatures]:
        return (self[i] for i in range(len(self)))

    def unpack(self) -> NDArray[np.float32]:
        """The features the codes stand for, float32 [total_tokens, dim].

        Signs come back as -1 and +1. Raises SpecMismatchError for uint8 without calibration.
        """
        scale, offset = code_affine(self.spec, self.calibration)
        return pack.unpack(self.codes, self.spec.dim, self.spec.quantization.value, scale, offset)

    @staticmethod
    def concat(parts: Sequence[PackedFeatures]) -> PackedFeatures:
        """The texts of all parts, in order. Raises SpecMismatchError if their specs differ."""
        if not parts:
            raise InputError("concat: got no parts, expected at least one.")
        first = parts[0]
        for part in parts[1:]:
            if part.spec.id != first.spec.id:
                raise SpecMismatchError(
                    f"concat: got features of spec {part.spec}, expected spec {first.spec}. "
                    "Encode all texts with one bundle."
                )
        counts = np.concatenate([part.num_tokens for part in parts])
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        codes = np.concatenate([part.codes for part in parts])
        stats = sum((part.stats for part in parts), Stats())
        known = [part.pairs for part in parts if part.pairs is not None]
        pairs = np.concatenate(known) if len(known) == len(parts) else None
        return PackedFeatures(codes, offsets, first.spec, first.calibration, stats, pairs)

    def _with(
        self,
        codes: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        chosen: slice | NDArray[np.int64],
    ) -> PackedFeatures:
        pairs = None if self.pairs is None else self.pairs[chosen]
        return PackedFeatures(codes, offsets, self.spec, self.calibration, pairs=pairs)


@dataclass(frozen=True, eq=False)
class Prediction:
    """One task's answer for some texts.

    Attributes:
        labels: the task's classes.
        logits: float32 [texts, classes]; NaN for texts that the task does not answer.
    """

    labels: tuple[str, ...]
    logits: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits, float32 [texts, classes]; NaN as they are."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        result: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
        return result

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which texts have an answer, bool [texts]; the others are not of the head's form."""
        result: NDArray[np.bool_] = ~np.isnan(self.logits[:, 0])
        return result

    @property
    def top(self) -> tuple[str | None, ...]:
        """The likeliest label of each text; None where the task does not answer."""
        best = self.logits.argmax(axis=1)
        answered = zip(best, self.answered, strict=True)
        return tuple(self.labels[i] if has_answer else None for i, has_answer in answered)


class Predictions(Mapping[str, Prediction]):
    """Task -> Prediction, with the cost of the call in `stats`.

    Asking for a task that did not answer raises UnknownTaskError, which is a KeyError.
    """

    def __init__(self, by_task: Mapping[str, Prediction], stats: Stats) -> None:
        self._by_task = dict(by_task)
        self.stats = stats

    def __getitem__(self, task: str) -> Prediction:
        try:
            return self._by_task[task]
        except KeyError:
            raise UnknownTaskError(
                f"task {task!r}: not among the answers, got those of {sorted(self._by_task)}. It "
                "was not asked, or none of the texts is of its head's form: a pair head answers "
                "pairs, all others single texts."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_task)

    def __len__(self) -> int:
        return len(self._by_task)

    def __repr__(self) -> str:
        return f"Predictions({self._by_task!r})"
