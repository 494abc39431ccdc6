"""A text's embedding: one float vector of its last hidden states, as in sentence-transformers.

The encoder's pass that makes codes has these states in hand, so a vector costs a sum. Which sum,
and what is done with it, is the checkpoint's own: pooling, then steps in order.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""How the states of a text's tokens become one vector, as sentence-transformers names it."""

STEPS = ("dense", "layer_norm", "normalize")
"""What may be done with the vector then."""

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
"""What a vector's numbers can be made, as sentence-transformers names it."""

RANGES = "ranges"
"""The tensor with the least and the largest of each number over the build's texts."""

LAYER_NORM_EPSILON = 1e-5
LEAST_LENGTH = 1e-12
MAX_DIM, MAX_STEPS = 1 << 16, 16

Vectors = NDArray[np.float32]

_erf: Any = np.vectorize(math.erf, otypes=[np.float32])


def _gelu(x: Vectors) -> Vectors:
    found: Vectors = x * np.float32(0.5) * (1 + _erf(x / np.float32(math.sqrt(2))))
    return found


ACTIVATIONS: Mapping[str, Callable[[Vectors], Any]] = MappingProxyType(
    {
        "identity": lambda x: x,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, np.float32(0)),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "gelu": _gelu,
        "silu": lambda x: x / (1 + np.exp(-x)),
    }
)
"""Of a dense step. Each number by itself."""


@dataclass(frozen=True)
class Step:
    """One of STEPS.

    Attributes:
        activation: of "dense", a key of ACTIVATIONS.
        residual: of "dense", whether what went in is added to what comes out.
    """

    kind: str
    activation: str = "identity"
    residual: bool = False


@dataclass(frozen=True)
class EmbeddingSpec:
    """What an embedding is.

    Attributes:
        pooling: of POOLINGS; of several the vectors are put one behind the other.
        steps: what is done with that, in order.
        dim: numbers of the result.
        prompts: what the checkpoint says is put before a text, by name.
        default_prompt: the name of the one where none is asked for.
    """

    pooling: tuple[str, ...]
    steps: tuple[Step, ...]
    dim: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError for what no embedding is."""
        if not self.pooling or not all(pooling in POOLINGS for pooling in self.pooling):
            raise ValueError(f"pooling is {self.pooling!r:.60}, expected some of {POOLINGS}")
        if len(self.steps) > MAX_STEPS:
            raise ValueError(f"{len(self.steps)} steps, expected at most {MAX_STEPS}")
        for step in self.steps:
            known = step.kind in STEPS and step.activation in (*ACTIVATIONS,)
            if not known or type(step.residual) is not bool:
                raise ValueError(f"a step is {step!r:.80}, expected one of {STEPS}")
        if type(self.dim) is not int or not 1 <= self.dim <= MAX_DIM:
            raise ValueError(f"dim is {self.dim!r:.60}, expected 1 to {MAX_DIM}")
        if not all(type(text) is str for item in self.prompts.items() for text in item):
            raise TypeError("prompts are not texts by name")
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            raise ValueError(f"the default prompt {self.default_prompt!r:.60} is none of them")

    def to_json(self) -> dict[str, Any]:
        return {
            "pooling": list(self.pooling),
            "steps": [asdict(step) for step in self.steps],
            "dim": self.dim,
            "prompts": dict(self.prompts),
            "default_prompt": self.default_prompt,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> EmbeddingSpec:
        """Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
        lists, texts = (content["pooling"], content["steps"]), content["prompts"]
        if not all(isinstance(found, list) for found in lists) or not isinstance(texts, dict):
            raise TypeError("pooling and steps are no lists, or prompts are not by name")
        return cls(
            pooling=tuple(content["pooling"]),
            steps=tuple(Step(**step) for step in content["steps"]),
            dim=content["dim"],
            prompts=texts,
            default_prompt=content["default_prompt"],
        )

    def prompt(self, prompt: str | None = None, name: str | None = None) -> str:
        """What is put before a text: this prompt, the one of that name, or the default one.

        Raises InputError if there is none of that name, and for both at once.
        """
        if prompt is not None and name is not None:
            raise InputError(
                f"prompt: got {prompt!r:.80} and prompt_name {name!r:.80}, expected one of them."
            )
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputError(f"prompt: got {prompt!r:.80}, expected a text.")
            return prompt
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(
                f"prompt_name: got {name!r:.80}, expected one of {sorted(self.prompts)}. "
                "The checkpoint has no other prompts: put the text there by yourself."
            )
        return self.prompts[name]


@dataclass(frozen=True, eq=False)
class Embedder:
    """Makes embeddings of hidden states. A vector depends on its own text's states alone.

    Attributes:
        weights: `{i}.weight`, `{i}.bias`, `{i}.residual` of step i, as torch has them, and RANGES
            [2, dim]; float32.
    """

    spec: EmbeddingSpec
    weights: Mapping[str, Vectors] = field(default_factory=dict)

    def __call__(self, hidden: NDArray[Any], lengths: NDArray[np.int64]) -> Vectors:
        """The embeddings of a batch's rows, float32 [rows, dim].

        Args:
            hidden: the encoder's last hidden states, float32 or float16 [rows, seq, hidden dim].
            lengths: int64 [rows], tokens of each row, which come first.
        """
        poolings = self.spec.pooling
        pooled = np.empty((len(lengths), hidden.shape[-1] * len(poolings)), np.float32)
        for row, length in enumerate(lengths.tolist()):
            states = hidden[row, :length].astype(np.float32, copy=False)
            np.concatenate([pool(states, pooling) for pooling in poolings], out=pooled[row])
        return self.of_pooled(pooled)

    def of_pooled(self, pooled: Vectors) -> Vectors:
        """The embeddings of pooled states, float32 [rows, hidden dim of each pooling in turn], as
        `pool` or a GPU makes them."""
        vectors = np.empty((len(pooled), self.spec.dim), np.float32)
        for row, vector in enumerate(pooled):
            for i, step in enumerate(self.spec.steps):
                vector = self._take(i, step, vector)
            vectors[row] = vector
        return vectors

    def _take(self, i: int, step: Step, vector: Vectors) -> Vectors:
        if step.kind == "normalize":
            return _at_length_one(vector)
        weight, bias = self.weights[f"{i}.weight"], self.weights.get(f"{i}.bias")
        found: Vectors
        if step.kind == "layer_norm":
            centred = vector - vector.mean()
            found = centred / np.sqrt((centred * centred).mean() + np.float32(LAYER_NORM_EPSILON))
            found = found * weight if bias is None else found * weight + bias
            return found
        found = weight @ vector if bias is None else weight @ vector + bias
        with np.errstate(over="ignore"):  # of a sigmoid far below 0, which is 0
            found = ACTIVATIONS[step.activation](found).astype(np.float32, copy=False)
        if step.residual:
            projection = self.weights.get(f"{i}.residual")
            found += vector if projection is None else projection @ vector
        return found

    def fingerprint(self, precision: str) -> str:
        """64 hexadecimal digits: of two embedders the same, if they make the same of the same
        states, in that precision. Prompts are no part of it, nor are ranges where none are used."""
        stated = {**self.spec.to_json(), "prompts": {}, "default_prompt": None}
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
        used = {*self.weights} - (set() if precision in ("int8", "uint8") else {RANGES})
        for name in sorted(used):
            array = np.ascontiguousarray(self.weights[name], np.float32)
            digest.update(f"{name} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def check(self, hidden_dim: int) -> None:
        """Raises ValueError unless the weights are those of the steps."""
        size = hidden_dim * len(self.spec.pooling)
        wanted: dict[str, tuple[int, ...]] = {RANGES: (2, self.spec.dim)}
        for i, step in enumerate(self.spec.steps):
            if step.kind == "normalize":
                continue
            weight = self.weights.get(f"{i}.weight")
            if weight is None or weight.ndim == 0:
                raise ValueError(f"step {i} has no weights")
            out = len(weight)
            wanted[f"{i}.weight"] = (size,) if step.kind == "layer_norm" else (out, size)
            if f"{i}.bias" in self.weights:
                wanted[f"{i}.bias"] = (out,)
            if step.residual and out != size:
                wanted[f"{i}.residual"] = (out, size)
            size = out
        if size != self.spec.dim:
            raise ValueError(f"the steps end with {size} numbers, expected {self.spec.dim}")
        if different := wanted.keys() ^ self.weights.keys():
            raise ValueError(f"{min(different):.60} is missing, or belongs to no step")
        for name, shape in wanted.items():
            array = self.weights[name]
            if array.dtype != np.float32 or array.shape != shape:
                raise ValueError(
                    f"{name} is {array.dtype} {list(array.shape)}, expected float32 {list(shape)}"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has numbers that are not finite")

    def finish(
        self,
        vectors: Vectors,
        dim: int | None = None,
        normalize: bool = False,
        precision: str = "float32",
    ) -> NDArray[Any]:
        """Embeddings as they are asked for, in the order of sentence-transformers: cut, then made
        of length 1, then rounded.

        Args:
            vectors: float32 [texts, dim].
            dim: the first so many numbers, for encoders that were trained so (Matryoshka).
            normalize: to a length of 1.
            precision: of PRECISIONS. "int8" and "uint8" are steps between the least and the largest
                that a number was for the build's texts, cut off there; "binary" and "ubinary" are
                signs, eight to a byte.

        Returns [texts, dim], or [texts, ceil(dim / 8)] of signs.

        Raises InputError as `check_asked`.
        """
        self.check_asked(dim, normalize, precision)
        vectors = vectors[:, :dim]
        if normalize:
            vectors = _at_length_one(vectors)
        if precision == "float32":
            return vectors
        if precision in ("binary", "ubinary"):
            signs = np.packbits(vectors > 0, axis=-1)
            return signs if precision == "ubinary" else (signs ^ 0x80).view(np.int8)
        least, largest = self.weights[RANGES][:, :dim]
        step = (largest - least) / np.float32(255)
        step = np.where(step == 0, np.float32(1), step)
        steps = np.clip(np.floor((vectors - least) / step), 0, 255).astype(np.uint8)
        found: NDArray[Any] = steps if precision == "uint8" else (steps ^ 0x80).view(np.int8)
        return found

    def check_asked(self, dim: int | None, normalize: bool, precision: str) -> None:
        """Raises InputError for what `finish` cannot give."""
        if precision not in PRECISIONS:
            raise InputError(f"precision: got {precision!r:.60}, expected one of {PRECISIONS}.")
        if dim is not None and (type(dim) is not int or not 1 <= dim <= self.spec.dim):
            raise InputError(
                f"dim: got {dim!r:.60}, expected 1 to {self.spec.dim}, which the embedding has."
            )
        if normalize and precision in ("int8", "uint8") and not self._is_of_length_one(dim):
            raise InputError(
                f"precision: got {precision!r} of vectors whose length is changed, expected "
                "normalize=False: the ranges in the bundle are of vectors as the checkpoint makes "
                "them. Take float32, and make steps by ranges of your own."
            )

    def _is_of_length_one(self, dim: int | None) -> bool:
        """Whether vectors have a length of 1 anyway."""
        steps = self.spec.steps
        is_whole = dim is None or dim == self.spec.dim
        return bool(steps) and steps[-1].kind == "normalize" and is_whole


def pool(states: Vectors, pooling: str) -> Vectors:
    """One of POOLINGS over states float32 [tokens, hidden dim]; of no tokens all is 0.

    kernels/SPEC.md has it operation by operation: NumPy sums rows in order, so these are the bits
    of the other implementations.
    """
    count = len(states)
    found: Vectors
    if count == 0:
        found = np.zeros(states.shape[1], np.float32)
    elif pooling in ("cls", "lasttoken"):
        found = states[0 if pooling == "cls" else -1]
    elif pooling == "max":
        found = states.max(axis=0)
    elif pooling == "weightedmean":
        weights = np.arange(1, count + 1, dtype=np.float32)
        found = (states * weights[:, None]).sum(axis=0) / np.float32(count * (count + 1) // 2)
    else:
        found = states.sum(axis=0) / np.float32(count if pooling == "mean" else math.sqrt(count))
    return found


def _at_length_one(vectors: Vectors) -> Vectors:
    """One vector, or each of several."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Vectors = vectors / np.maximum(lengths, np.float32(LEAST_LENGTH))
    return found
