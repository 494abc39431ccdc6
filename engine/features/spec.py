"""The feature spec: what a code means, in words, and the constants that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import BundleError, SpecMismatchError


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
    LAST = "last"


class Quantization(_Word):
    """How one pooled feature is stored (Section 5 of the paper)."""

    SIGN = "sign"
    UINT8 = "uint8"
    FLOAT16 = "float16"


class Order(_Word):
    """Whether layers are pooled before or after taking signs (Section 6.3 of the paper)."""

    POOL_THEN_SIGN = "pool_then_sign"
    SIGN_THEN_VOTE = "sign_then_vote"


CODE_BITS = {Quantization.SIGN: 1, Quantization.UINT8: 8, Quantization.FLOAT16: 16}
"""Bits per feature of a code."""

MAX_LAYER, MAX_DIM = 1 << 20, 1 << 24


def code_bytes(dim: int, quantization: Quantization) -> int:
    """Bytes of one token's code. Raises ValueError for a dim below 1."""
    if dim < 1:
        raise ValueError(f"dim: got {dim}, expected at least 1")
    return -(-dim * CODE_BITS[quantization] // 8)


def show_prefix(prefix: str) -> str:
    """The beginning of a prefix, for messages: in JSON, as its blanks and line ends matter."""
    return json.dumps(prefix[:60])


def _typed(value: Any, *kinds: type) -> Any:
    """The value, if its type is one of these, not a type made of one: True is not a number."""
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
        dim: features per token.
        layer_weights: one weight per layer, only with `LayerPooling.LEARNED`.
        calibration_sha256: hash of the per-feature thresholds or scales, or None.
        prefix: what every text begins with when the encoder reads it, such as "query: ".
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
    prefix: str = ""

    @cached_property  # asked for at every prediction, of every head
    def id(self) -> str:
        """16 hexadecimal digits; heads and stores carry it."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def code_bytes(self) -> int:
        """Bytes of one token's code."""
        return code_bytes(self.dim, self.quantization)

    def to_json(self) -> dict[str, Any]:
        """Without a prefix as it was before there were any: the id is a hash of this."""
        content = {k: v.value if isinstance(v, Enum) else v for k, v in asdict(self).items()}
        if not self.prefix:
            del content["prefix"]
        return content

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
                prefix=_typed(data.get("prefix", ""), str),
            )
            spec.prefix.encode()  # a lone surrogate raises a ValueError
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
        if self.prefix:
            parts.append(f"prefix {show_prefix(self.prefix)}")
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


def check_spec(what: str, got: FeatureSpec, expected: FeatureSpec) -> None:
    """Raises SpecMismatchError, naming both, unless the specs have the same id."""
    if got.id != expected.id:
        raise SpecMismatchError(
            f"{what}: got feature spec {got}, expected {expected}. Its codes mean something else: "
            "train the head, or encode the texts, with the bundle at hand."
        )
