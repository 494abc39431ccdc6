"""The Open Inference Protocol's output tensors: what of an answer is which.

Of each task, of which TASK stands for the name:

    TASK                 BYTES [texts]          the label; of several a list of them in JSON
                         BYTES [texts]          a list of the spans in JSON
                         FP32 [texts]           the value of a regression head
    TASK_probabilities   FP32 [texts, labels]   where texts have labels
    TASK_value           FP32 [texts]           of an ordinal head
    TASK_truncated_at    INT64 [texts]          of a head that gives spans; -1: read whole
    TASK_accepted        BOOL [texts]           of a head that can refuse
    TASK_out_of_domain   FP32 [texts]           of a head with a reject output

And the texts' codes. A name that is a task's is that task's, whatever it ends in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.answer_parts import parts_of, spans_of
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.head import Head
from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction
from bitheads.engine.serve.messages import to_json

CODES, NUM_TOKENS = "codes", "num_tokens"
PROBABILITIES, TRUNCATED_AT = "probabilities", "truncated_at"


@dataclass(frozen=True)
class Output:
    """One output tensor.

    Attributes:
        datatype: of the protocol.
        values: what its JSON form lists, row by row.
        raw: its binary form.
        shape: first the texts.
    """

    name: str
    datatype: str
    shape: list[int]
    values: list[Any]
    raw: bytes


def _labels(prediction: Prediction) -> list[str]:
    return [label or "" for label in prediction.top]


def _lists(prediction: Prediction) -> list[str]:
    """In JSON, as a label may hold any character but NUL."""
    return [to_json(labels).decode() for labels in prediction.selected]


def _spans(prediction: Prediction) -> list[str]:
    return [to_json(spans).decode() for spans in spans_of(prediction)]


def _truncated_at(prediction: Prediction) -> NDArray[np.int64]:
    assert prediction.words is not None, "asked of heads of words"
    return prediction.words.truncated_at


_TENSORS: dict[str, tuple[str, Callable[[Prediction], Any]]] = {
    "label": ("BYTES", _labels),
    "labels": ("BYTES", _lists),
    "spans": ("BYTES", _spans),
    "value": ("FP32", lambda prediction: prediction.values),
    PROBABILITIES: ("FP32", lambda prediction: prediction.probabilities),
    TRUNCATED_AT: ("INT64", _truncated_at),
    "accepted": ("BOOL", lambda prediction: prediction.accepted),
    "out_of_domain": ("FP32", lambda prediction: prediction.out_of_domain),
}
"""By part: its type, and its strings or numbers. The label's probability is among all of them."""

SUFFIXES = tuple(f"_{part}" for part in _TENSORS)


def _parts(
    task: str, labels: Sequence[str], kind: str, decision: Decision, tasks: Collection[str]
) -> Iterator[tuple[str, str]]:
    """The names of a task's outputs, and which part of its answer each is.

    Args:
        tasks: all there are; a name that is one of theirs is not this one's.
    """
    main, *others = (part for part in parts_of(kind, decision) if part in _TENSORS)
    yield task, main
    if main == "spans":
        others = [TRUNCATED_AT, *others]
    elif labels:
        others = [PROBABILITIES, *others]
    for part in others:
        if (name := f"{task}_{part}") not in tasks:
            yield name, part


def described_outputs(head: Head, tasks: Collection[str]) -> Iterator[dict[str, Any]]:
    """The metadata of a task's outputs."""
    for name, part in _parts(head.task, head.labels, head.kind, head.decision, tasks):
        shape = [-1, len(head.labels)] if part == PROBABILITIES else [-1]
        made: dict[str, Any] = {"name": name, "datatype": _TENSORS[part][0], "shape": shape}
        parameters = {"kind": head.kind} if name == head.task else {}
        if part in ("spans", PROBABILITIES):
            parameters["labels"] = ",".join(head.labels)
        if parameters:
            made["parameters"] = parameters
        yield made


def names_of(head: Head, tasks: Collection[str]) -> list[str]:
    """The names of a task's outputs."""
    return [name for name, _ in _parts(head.task, head.labels, head.kind, head.decision, tasks)]


def task_of(name: str, tasks: Collection[str]) -> str:
    """The task whose output has this name, if there is one."""
    if name in tasks:
        return name
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)


def outputs_of(
    task: str, prediction: Prediction, tasks: Collection[str], wanted: Collection[str] | None
) -> Iterator[Output]:
    """A task's outputs, for texts that are all of its form.

    Args:
        wanted: names of those that are made; None for all.
    """
    found = _parts(task, prediction.labels, prediction.kind, prediction.decision, tasks)
    for name, part in found:
        if wanted is None or name in wanted:
            datatype, make = _TENSORS[part]
            made = make(prediction)
            yield _strings(name, made) if datatype == "BYTES" else _array(name, datatype, made)


def most_likely(output: Output, labels: Sequence[str], count: int) -> Output:
    """Of probabilities the largest, each with the number and the name of its label, as Triton
    writes them: BYTES [texts, count], `0.970000:2:sport`. Of equal ones the first.

    Args:
        count: at most; where there are fewer labels, all.
    """
    values = np.frombuffer(output.raw, np.float32).reshape(output.shape)
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    largest = np.take_along_axis(values, order, axis=1)
    rows = zip(order.ravel().tolist(), largest.ravel().tolist(), strict=True)
    made = _strings(output.name, [f"{value:f}:{i}:{labels[i]}" for i, value in rows])
    return replace(made, shape=[*order.shape])


def outputs_of_codes(features: PackedFeatures) -> Iterator[Output]:
    """The codes of all texts, and their numbers of tokens."""
    bounds = zip(features.offsets[:-1].tolist(), features.offsets[1:].tolist(), strict=True)
    parts = [features.codes[start:stop].tobytes() for start, stop in bounds]
    # Bytes that are not text have no JSON form; KServe's clients ask for binary.
    yield Output(CODES, "BYTES", [len(parts)], [part.hex() for part in parts], _raw(parts))
    yield _array(NUM_TOKENS, "INT64", features.num_tokens)


def _strings(name: str, values: list[str]) -> Output:
    return Output(name, "BYTES", [len(values)], values, _raw([text.encode() for text in values]))


def _array(name: str, datatype: str, array: NDArray[Any]) -> Output:
    values = array.reshape(-1).tolist()
    return Output(name, datatype, [*array.shape], values, np.ascontiguousarray(array).tobytes())


def _raw(parts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)
