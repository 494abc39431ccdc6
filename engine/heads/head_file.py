"""The head file format: one folded task head in one safetensors file. This module owns it.

The header's `bitheads_head` entry is JSON: format version, task, labels, form, position pooling,
the feature spec the head was trained on, metrics, how it was trained, and the SHA-256 of all
that and the tensors. Weights may be float32 or float16; they are used as float32.

Version 2 adds `kind` and `decision` (engine.kinds). What version 1 can say, one label of a closed
list without a decision, is written as version 1, so that older readers go on reading it; the rest
they refuse by its version. Version 3 is that of the form `two_texts`, which has four tensors more.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bitheads.engine.errors import BitheadsError, HeadError
from bitheads.engine.features.spec import FeatureSpec, PositionPooling
from bitheads.engine.files import strict_json
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.kinds import KINDS, NO_DECISION, SINGLE_LABEL, Decision
from bitheads.engine.texts.forms import TWO_TEXTS

FORMAT_VERSIONS = (1, 2, 3)
TWO_TEXTS_VERSION = 3
SUFFIX = ".safetensors"
METADATA_KEY = "bitheads_head"
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
FORMS = ("single", "pair", TWO_TEXTS)
DTYPES = ("float32", "float16")
"""Types of the weights in a file."""

PAIR_PREFIX = "pair_"
PAIR_TENSORS = ("dense", "dense_bias", "output", "output_bias")
"""Those of a PairHalf, which have the prefix in a file."""

MAX_SIZE = 65_536
"""Largest dim, inner size and number of outputs: what the kernels' fixed-point numbers have room
for."""

MAX_VECTOR_SIZE = 16_383
"""Largest size of a text's vector: a pair is read as 4 size + 2 codes, see PairHalf."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairHalf:
    """The half of a head of the form `two_texts` that reads two texts' vectors.

    It is a head with `cls` pooling over uint8 codes of dim 4 size + 2, one token for each pair,
    which are made of the vectors as `kernels/SPEC.md` (combine_texts) says:

        outputs = output . tanh(dense . codes + dense_bias) + output_bias

    Attributes:
        dense: float32 [inner, 4 size + 2]. dense_bias: float32 [inner].
        output: float32 [outputs, inner]. output_bias: float32 [outputs].
    """

    dense: FloatArray
    dense_bias: FloatArray
    output: FloatArray
    output_bias: FloatArray

    position_pooling: ClassVar[PositionPooling] = PositionPooling.CLS
    query: ClassVar[None] = None
    value: ClassVar[None] = None


@dataclass(frozen=True, eq=False)
class FoldedHead:
    """A task head with its algebra done once; equal to the trained head on the same codes.

    With `attention` pooling, for each attention head h and the tokens t of a text:

        a_h = softmax over t of (query_h . code_t)
        v_h = value_h . (sum over t of a_ht code_t)
        logits = output . tanh(dense . concat_h(v_h) + dense_bias) + output_bias

    With `mean`, `cls` and `last` pooling there is no query and no value: `dense` reads the mean
    code, the first token's code or the last one's. Codes are 0/1 for signs, 0 to 255 for uint8;
    their scale and offset are folded into the weights.

    Of the form `two_texts`, that is the half that reads each of two texts by itself, and what it
    gives is the text's vector; `pair` is the half that reads two vectors.

    Attributes:
        task: its name, a file name without suffix.
        labels: the classes, in the order of the logits; of a `regression` none.
        form: "single" if it reads one text, "pair" if it reads two as the encoder joins them,
            "two_texts" if it reads two that were encoded by themselves.
        query: float32 [attention_heads, dim], or None.
        value: float32 [dim, dim], attention head h owns rows h * dim / heads and on; or None.
        dense: float32 [inner, dim]. dense_bias: float32 [inner].
        output: float32 [outputs, inner]. output_bias: float32 [outputs]. The outputs are the
            kind's logits and, last, the reject output, if it has one. Of the form two_texts they
            are those of `pair`, and these are the numbers of a vector, 1 to 16,383.
        kind: a name of engine.kinds.KINDS.
        decision: what makes an answer of the logits.
        metrics: name -> value, such as dev_accuracy.
        training: how it was made: settings, data hashes, versions.
        pair: of the form two_texts; None of the others.
    """

    task: str
    labels: tuple[str, ...]
    form: str
    position_pooling: PositionPooling
    spec: FeatureSpec
    query: FloatArray | None
    value: FloatArray | None
    dense: FloatArray
    dense_bias: FloatArray
    output: FloatArray
    output_bias: FloatArray
    metrics: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    kind: str = SINGLE_LABEL
    decision: Decision = NO_DECISION
    pair: PairHalf | None = None

    def __post_init__(self) -> None:
        """All that must hold of a head, before anything is made of it; `host/src/head_file.cpp` has
        the same list."""
        check_task_name(self.task)
        if self.form not in FORMS:
            raise HeadError(
                f"head {self.task!r}: form is {self.form!r}, expected one of {list(FORMS)}."
            )
        for label in self.labels:
            if not _is_text(label) or "\0" in label:
                raise HeadError(
                    f"head {self.task!r}: got the label {label!r}, expected a text without NUL, at "
                    "which C ends one."
                )
        for name, value in self.metrics.items():
            if not _is_text(name) or type(value) not in (int, float) or not abs(value) < math.inf:
                raise HeadError(
                    f"head {self.task!r}: got the metric {name!r}: {value!r}, expected a number."
                )
        if not isinstance(self.training, Mapping):
            raise HeadError(
                f"head {self.task!r}: got {type(self.training).__name__} as its training, expected "
                "an object."
            )
        if self.kind not in KINDS:
            raise HeadError(
                f"head {self.task!r}: kind is {self.kind!r}, expected one of {list(KINDS)}."
            )
        if KINDS[self.kind].is_of_words:
            if self.form != "single":
                raise HeadError(
                    f"head {self.task!r}: form is {self.form!r}, expected 'single' of a "
                    f"{self.kind} head, which reads words of one text."
                )
            if self.decision.reject_above is not None:
                raise HeadError(
                    f"head {self.task!r}: has a reject output, expected none of a {self.kind} head."
                )
        try:
            KINDS[self.kind].check(self.labels, self.decision)
        except ValueError as error:
            raise HeadError(f"head {self.task!r}: {error}.") from error
        for name, (size, most) in self._sizes().items():
            if not 1 <= size <= most:
                raise HeadError(
                    f"head {self.task!r}: got {size} as its {name}, expected 1 to {most}. "
                    "Train it again."
                )
        tensors = self.tensors
        for name, expected in self._shapes().items():
            array = tensors.get(name)
            shape = None if array is None else array.shape
            if shape != expected:
                raise HeadError(
                    f"head {self.task!r}: {name} has the shape {shape}, expected {expected} for "
                    f"{self.position_pooling.value} pooling at dim {self.spec.dim} and "
                    f"{self.num_outputs} outputs. Train it again."
                )
            if array is not None and not np.isfinite(array).all():
                raise HeadError(
                    f"head {self.task!r}: {name} holds values that are not finite. Train it again."
                )

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """By name, each with the largest that it may be."""
        sizes = {
            "dim": (self.spec.dim, MAX_SIZE),
            "inner size": (self.dense_bias.size, MAX_SIZE),
            "number of outputs": (self.num_outputs, MAX_SIZE),
        }
        if self.form == TWO_TEXTS:
            sizes["vector size"] = (self.output_bias.size, MAX_VECTOR_SIZE)
        if self.pair is not None:
            sizes["inner size of pairs"] = (self.pair.dense_bias.size, MAX_SIZE)
        return sizes

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        dim, inner, outputs = self.spec.dim, self.dense_bias.size, self.num_text_outputs
        attends = self.position_pooling is PositionPooling.ATTENTION
        heads = self.query.shape[0] if self.query is not None and self.query.ndim == 2 else 1
        if heads < 1 or dim % heads:
            raise HeadError(f"head {self.task!r}: {heads} attention heads do not divide dim {dim}.")
        return {
            "query": (heads, dim) if attends else None,
            "value": (dim, dim) if attends else None,
            "dense": (inner, dim),
            "dense_bias": (inner,),
            "output": (outputs, inner),
            "output_bias": (outputs,),
            **self._pair_shapes(),
        }

    def _pair_shapes(self) -> dict[str, tuple[int, ...] | None]:
        if self.form != TWO_TEXTS:
            return {f"{PAIR_PREFIX}{name}": None for name in PAIR_TENSORS}
        inner = 1 if self.pair is None else self.pair.dense_bias.size
        shapes = ((inner, 4 * self.num_text_outputs + 2), (inner,), (self.num_outputs, inner))
        return {
            f"{PAIR_PREFIX}{name}": shape
            for name, shape in zip(PAIR_TENSORS, (*shapes, (self.num_outputs,)), strict=True)
        }

    def save(self, path: str | Path, dtype: str = "float32", force: bool = False) -> Path:
        """Writes the head's file; see `write_head`. Returns its path."""
        path = Path(path)
        write_head(self, path, dtype, force)
        return path

    @property
    def num_outputs(self) -> int:
        """What it gives per text, or per pair: the kind's logits, and a reject output if it has
        one."""
        return KINDS[self.kind].num_logits(self.labels) + (self.decision.reject_above is not None)

    @property
    def num_text_outputs(self) -> int:
        """What it makes of a text's codes: its outputs, or of the form two_texts a vector."""
        return self.output_bias.size if self.form == TWO_TEXTS else self.num_outputs

    @property
    def format_version(self) -> int:
        """The lowest that says all there is to say."""
        if self.form == TWO_TEXTS:
            return TWO_TEXTS_VERSION
        return 1 if self.kind == SINGLE_LABEL and self.decision == NO_DECISION else 2

    @property
    def tensors(self) -> dict[str, FloatArray]:
        """The weights that are present, by name."""
        names = ("query", "value", "dense", "dense_bias", "output", "output_bias")
        tensors = {name: a for name in names if (a := getattr(self, name)) is not None}
        if self.pair is not None:
            tensors |= {f"{PAIR_PREFIX}{name}": getattr(self.pair, name) for name in PAIR_TENSORS}
        return tensors

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in memory."""
        return sum(array.nbytes for array in self.tensors.values())


def _is_text(text: Any) -> bool:
    """Whether it is a string that can be written: without lone surrogates."""
    return isinstance(text, str) and not any("\ud800" <= char <= "\udfff" for char in text)


def check_task_name(task: str) -> None:
    """Raises HeadError for names that could not be a file's."""
    if not TASK_NAME.fullmatch(task):
        raise HeadError(
            f"task name: got {task!r}, expected letters, digits, '_', '.' and '-', at most 100, "
            "starting with a letter or digit."
        )


def check_head_output(task: str, path: Path, force: bool) -> None:
    """Raises HeadError for what `write_head` will refuse; called before the work."""
    check_task_name(task)
    if path.suffix != SUFFIX:
        raise HeadError(f"head {path}: got the suffix {path.suffix!r}, expected {SUFFIX!r}.")
    if path.exists() and not force:
        raise HeadError(f"head {path} exists. Pass force=True (--force) to replace it.")


def write_head(head: FoldedHead, path: Path, dtype: str = "float32", force: bool = False) -> None:
    """Writes the file aside, then renames it, so that no reader ever sees half a head.

    Args:
        dtype: "float32", or "float16" for half the bytes (weights are rounded).

    Raises HeadError if the path is taken (without `force`), cannot be written, or if a weight
    does not fit float16.
    """
    check_head_output(head.task, path, force)
    with np.errstate(over="ignore"):  # found below
        tensors = {name: array.astype(dtype) for name, array in head.tensors.items()}
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise HeadError(f"head {head.task!r}: {name} overflows {dtype}. Write it as float32.")
    metadata = {
        "format_version": head.format_version,
        "task": head.task,
        "labels": list(head.labels),
        "form": head.form,
        "position_pooling": head.position_pooling.value,
        "spec_id": head.spec.id,
        "spec": head.spec.to_json(),
        "metrics": dict(head.metrics),
        "training": dict(head.training),
    }
    if head.format_version > 1:
        metadata |= {"kind": head.kind, "decision": head.decision.to_json()}
    metadata["sha256"] = _hash(metadata, tensors)
    header = json.dumps(metadata, ensure_ascii=False)
    try:
        strict_json.loads(header)
    except ValueError as error:
        raise HeadError(
            f"head {head.task!r}: its metadata cannot be written ({error}). See its metrics and "
            "training."
        ) from error
    data = save(tensors, metadata={METADATA_KEY: header})
    try:
        write_whole(path, data)
    except OSError as error:
        raise HeadError(
            f"head {path}: cannot be written ({error}). Choose a folder you may write to, with "
            f"{len(data)} bytes free."
        ) from error


def read_head(path: Path) -> FoldedHead:
    """Reads and checks a head file. Raises HeadError, naming the file, for any defect."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise HeadError(
            f"head {path}: no such file. Train one with `bitheads train-head`."
        ) from error
    # Of a dtype that NumPy lacks: TypeError, AttributeError or KeyError.
    except (OSError, SafetensorError, TypeError, AttributeError, KeyError) as error:
        raise HeadError(
            f"head {path}: cannot be read ({error}). Copy or train it again."
        ) from error
    if header is None:
        raise HeadError(
            f"head {path}: a safetensors file without {METADATA_KEY!r} in its header, so not a "
            "head. Write heads with `bitheads train-head`."
        )
    try:
        meta = strict_json.loads(header)
        version = meta["format_version"]
        if type(version) is not int or version not in FORMAT_VERSIONS:
            raise HeadError(
                f"head {path}: got format version {version}, expected one of "
                f"{list(FORMAT_VERSIONS)}. Train it again, or install the version of bitheads that "
                "wrote it."
            )
        expected = meta.pop("sha256")
        if (got := _hash(meta, tensors)) != expected:
            raise HeadError(
                f"head {path}: was changed since it was written: got sha256 {got[:12]}..., "
                f"expected {expected[:12]}.... Copy or train it again."
            )
        for name, array in tensors.items():
            if array.dtype.name not in DTYPES:
                raise TypeError(f"{name} is {array.dtype.name}, expected {' or '.join(DTYPES)}")
        if not isinstance(meta["labels"], list):
            raise TypeError(f"labels are not a list but {type(meta['labels']).__name__}")
        if not isinstance(meta["metrics"], dict):
            raise TypeError(f"metrics are not an object but {type(meta['metrics']).__name__}")
        kind, decision = SINGLE_LABEL, NO_DECISION
        if version > 1:
            kind, decision = meta["kind"], Decision.from_json(meta["decision"])
        if (version == TWO_TEXTS_VERSION) != (meta["form"] == TWO_TEXTS):
            raise HeadError(
                f"head {path}: got the form {meta['form']!r} in format version {version}, expected "
                f"{TWO_TEXTS!r} in version {TWO_TEXTS_VERSION}, and no other form there. Train it "
                "again."
            )
        weights = {name: _as_float32(array) for name, array in tensors.items()}
        pair = None
        if version == TWO_TEXTS_VERSION:
            of_pair = {name: weights.pop(f"{PAIR_PREFIX}{name}") for name in PAIR_TENSORS}
            pair = PairHalf(**of_pair)
        return FoldedHead(
            task=meta["task"],
            labels=tuple(meta["labels"]),
            form=meta["form"],
            position_pooling=PositionPooling(meta["position_pooling"]),
            spec=FeatureSpec.from_json(meta["spec"]),
            query=weights.pop("query", None),
            value=weights.pop("value", None),
            metrics=meta["metrics"],
            training=meta["training"],
            kind=kind,
            decision=decision,
            pair=pair,
            **weights,
        )
    except HeadError as error:
        if str(path) in str(error):
            raise
        raise HeadError(f"{path}: {error}") from error
    except (
        BitheadsError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise HeadError(
            f"head {path}: its header is malformed ({error!r}). Train it again."
        ) from error


def _hash(metadata: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode() + b"\n")
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _as_float32(array: NDArray[Any]) -> FloatArray:
    if array.dtype != np.float16:
        return array.astype(np.float32)
    from bitheads.engine import _kernels  # here, as nothing else of a head's file needs them

    floats = np.empty(array.shape, np.float32)  # NumPy itself takes ten times as long for these
    _kernels.floats_of_halves(np.require(array, None, ["C", "A"]).reshape(-1), floats.reshape(-1))
    return floats
