"""What requests and answers of the server's own routes look like, in JSON."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitheads.engine.answer_parts import json_answers, told_decision
from bitheads.engine.engine import Engine
from bitheads.engine.errors import InputError, SpecMismatchError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.features.spec import Quantization
from bitheads.engine.heads.loaded_heads import TaskInfo
from bitheads.engine.kinds import KINDS
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Stats, Text

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
# An error takes a thousand times the memory of the byte that made it: of a list's, one is enough.
Inputs = Annotated[list[str | Pair], Field(fail_fast=True)]
Row = Annotated[int, Field(ge=0, lt=1 << 31)]
RowPair = Annotated[list[Row], Field(min_length=2, max_length=2)]
RowPairs = Annotated[list[RowPair], Field(fail_fast=True)]
TaskNames = Annotated[list[str], Field(fail_fast=True)]

NUMBER_BYTES = 24
"""Of a number of an embedding in JSON, at most."""

MAX_ERRORS = 100
"""Errors that are told one by one; of more only the number is told."""


class Message(BaseModel):
    """Nothing unknown, nothing converted: "1" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Lenient(Message):
    """Fields that are not here are passed over: clients of other servers send what only those
    know."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Texts(Message):
    inputs: str | Inputs = Field(
        description="One text, or a list of texts and of pairs of texts.",
        examples=["The plot is thin, but what a cast!"],
    )

    def texts(self) -> list[Text]:
        """The texts as the engine takes them."""
        if isinstance(self.inputs, str):
            return [self.inputs]
        return [item if isinstance(item, str) else (item[0], item[1]) for item in self.inputs]


class Tasks(Message):
    tasks: TaskNames | None = Field(
        None,
        description="Which heads answer; without it, all. A text is answered by those of its form: "
        "those for single texts or those for pairs. A task that is for none of the texts is an "
        "error.",
    )
    return_probabilities: bool = Field(
        False, description="Every label's probability, not only that of the answer."
    )


class PredictRequest(Texts, Tasks):
    """Texts in, every task's answer out."""

    return_features: bool = Field(
        False, description="The texts' codes, too, as /v1/features gives them."
    )
    return_embeddings: bool = Field(
        False,
        description="The texts' embeddings, too, as the checkpoint makes them; no prompt is put "
        "before the texts.",
    )


class FeaturesRequest(Texts):
    """Texts in, codes out: to store, and to ask new tasks of later."""


class Codes(Message):
    codes: str = Field(description="The codes of all tokens, one after the other, in base64.")
    num_tokens: int = Field(ge=1)
    is_pair: bool | None = Field(
        None,
        description="Whether they are of a pair of texts, as /v1/features says it. Heads answer "
        "codes of texts of their form; of the form two_texts none does. It is said of all codes or "
        "of none.",
    )


class PredictFeaturesRequest(Tasks):
    """Stored codes in, every task's answer out: no encoder runs."""

    spec_id: str = Field(description="Of the feature spec that the codes were made under.")
    features: Annotated[list[Codes], Field(fail_fast=True)]
    pairs: RowPairs | None = Field(
        None,
        description="Which two of the features go together, counted from 0: answers are of these "
        "pairs then, by heads of the form two_texts.",
        examples=[[[0, 1], [0, 2]]],
    )


class Usage(Message):
    texts: int = Field(description="That were asked about; pairs count once.")
    tokens: int
    truncated: int = Field(description="Texts that were longer than the encoder reads.")


class FoundSpan(Message):
    """A part of a text, in code points: characters of Python, not the units of UTF-16 that
    JavaScript and Java count."""

    start: int
    end: int = Field(description="Behind its last character.")
    label: str
    probability: float


class TaskAnswer(Message):
    """What is in it depends on the head alone, see /v1/tasks, but for `truncated_at`; nothing is
    ever null."""

    label: str | None = Field(
        None, description="The answer of a head of kind single_label or ordinal."
    )
    probability: float | None = Field(None, description="Of the label.")
    labels: list[str] | None = Field(
        None, description="The answer of a multi_label head: all labels of the text, or none."
    )
    value: float | None = Field(
        None,
        description="The answer of a regression head. Of an ordinal one the mean of its labels: of "
        "the numbers that they are, or of their places, from 0.",
    )
    spans: list[FoundSpan] | None = Field(
        None, description="The answer of a token_label head: the spans of the text, in order."
    )
    truncated_at: int | None = Field(
        None,
        description="From which code point on a token_label head has not read the text; of texts "
        "that are longer than the encoder reads.",
    )
    accepted: bool | None = Field(
        None,
        description="Whether the head stands by the answer; of heads that can refuse (can_refuse). "
        "Others stand by all.",
    )
    out_of_domain: float | None = Field(
        None,
        description="Probability that the text is none of the head's business; of heads that were "
        "trained to tell.",
    )
    probabilities: dict[str, float] | None = Field(
        None,
        description="By label: of a multi_label head those of the answer's, of any head that gives "
        "a text labels those of all with return_probabilities.",
    )


class PredictResponse(Message):
    predictions: list[dict[str, TaskAnswer]] = Field(description="By task, for each text.")
    features: list[Codes] | None = Field(None, description="Of each text, if asked for.")
    embeddings: list[list[float]] | None = Field(None, description="Of each text, if asked for.")
    usage: Usage
    spec_id: str


class FeaturesResponse(Message):
    features: list[Codes]
    spec_id: str
    code_bytes: int = Field(description="Bytes of one token's code.")
    usage: Usage


class Task(Message):
    name: str
    labels: list[str]
    kind: str = Field(
        description="What its answers are made of, see TaskAnswer.",
        json_schema_extra={"enum": [*KINDS]},
    )
    can_refuse: bool = Field(description="Whether its answers say `accepted`.")
    thresholds: dict[str, float] | None = Field(
        None, description="Probability from which on a text has a label; of kind multi_label."
    )
    value_range: list[float] | None = Field(
        None, description="Least and largest value; of kind regression.", min_length=2, max_length=2
    )
    abstain_below: float | None = Field(
        None, description="A label that is less probable is not accepted."
    )
    reject_above: float | None = Field(
        None, description="An answer whose `out_of_domain` is above is not accepted."
    )
    form: Literal["single", "pair", "two_texts"] = Field(
        description="What it answers: single texts, or pairs, read as one or each text by itself."
    )
    metrics: dict[str, float]
    bytes: int = Field(description="That its weights take in memory.")


class TasksResponse(Message):
    tasks: list[Task]
    spec_id: str
    encoder: str
    backend: str
    code_bytes: int
    dim: int
    num_layers: int
    max_length: int = Field(description="Most tokens of a text.")


class ErrorBody(Message):
    code: str = Field(description="A word for programs, such as queue_full.")
    message: str = Field(description="What was wrong, and what to do.")


class ErrorResponse(Message):
    error: ErrorBody


AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse(kind: type[AnyMessage], body: bytes) -> AnyMessage:
    """A request of this kind; a byte order mark before it is passed over, as RFC 8259 allows.

    Raises InputError that says where it is not one.
    """
    try:
        return kind.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        if error.error_count() > MAX_ERRORS:
            raise InputError(
                f"body: got {error.error_count()} fields that are not expected. See /docs."
            ) from None
        found = error.errors(include_url=False, include_context=False, include_input=False)
        # Of a union every member complains; the last one is about the richest form.
        place = ".".join(str(part) for part in found[-1]["loc"] if not _is_type(part))
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(
            f"{place or 'body'}: {found[-1]['msg']}{more}. See /docs for what is expected."
        ) from None


def _is_type(part: int | str) -> bool:
    """Whether it names a member of a union, not a place in the body."""
    return isinstance(part, str) and (part in ("str", "list") or "[" in part)


def read_features(request: PredictFeaturesRequest, engine: Engine) -> PackedFeatures:
    """Raises SpecMismatchError or InputError."""
    spec = engine.spec
    if request.spec_id != spec.id:
        raise SpecMismatchError(
            f"spec_id: got {request.spec_id!r}, expected {spec.id!r}: the codes were made by "
            "another bundle. Send them to a server of that bundle, or encode the texts again."
        )
    parts = []
    for i, item in enumerate(request.features):
        try:
            part = base64.b64decode(item.codes, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"features.{i}.codes: not valid base64 ({error}).") from error
        if len(part) != item.num_tokens * spec.code_bytes:
            raise InputError(
                f"features.{i}.codes: got {len(part)} bytes for {item.num_tokens} tokens, expected "
                f"{item.num_tokens * spec.code_bytes} ({spec.code_bytes} per token)."
            )
        parts.append(part)
    codes = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, spec.code_bytes)
    if spec.quantization is Quantization.FLOAT16 and not np.isfinite(codes.view(np.float16)).all():
        raise InputError("features: got codes that are not finite. Encode the texts again.")
    offsets = offsets_of([item.num_tokens for item in request.features])
    stated = [item.is_pair for item in request.features]
    if None in stated and {*stated} != {None}:
        raise InputError(
            f"features.{stated.index(None)}.is_pair: got none, expected true or false as of the "
            "others. Say it of all, or of none: heads for single texts and for pairs then answer "
            "each, and it is for you to know which."
        )
    pairs = None if None in stated else np.array(stated, np.bool_)
    return PackedFeatures(codes, offsets, spec, engine.calibration, pairs=pairs)


def write_predictions(
    predictions: Mapping[str, Prediction],
    return_probabilities: bool,
    usage: Mapping[str, int],
    spec_id: str,
    features: PackedFeatures | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> bytes:
    """A PredictResponse; of each text the tasks that answer it."""
    rows: list[dict[str, Any]] = [{} for _ in range(usage["texts"])]
    for task, prediction in predictions.items():
        for row, answer in zip(rows, json_answers(prediction, return_probabilities), strict=True):
            if answer is not None:
                row[task] = answer
    more: dict[str, Any] = {}
    if features is not None:
        more["features"] = _codes_of(features)
    if embeddings is not None:
        more["embeddings"] = embeddings.tolist()
    return to_json({"predictions": rows, **more, "usage": usage, "spec_id": spec_id})


def write_features(features: PackedFeatures, usage: Mapping[str, int]) -> bytes:
    """A FeaturesResponse."""
    return to_json(
        {
            "features": _codes_of(features),
            "spec_id": features.spec.id,
            "code_bytes": features.spec.code_bytes,
            "usage": usage,
        }
    )


def _codes_of(features: PackedFeatures) -> list[dict[str, Any]]:
    """`Codes` of each text."""
    items = []
    pairs = [None] * len(features) if features.pairs is None else features.pairs.tolist()
    bounds = zip(features.offsets[:-1], features.offsets[1:], pairs, strict=True)
    for start, stop, is_pair in bounds:
        part = base64.b64encode(features.codes[start:stop].tobytes()).decode()
        items.append({"codes": part, "num_tokens": int(stop - start), "is_pair": is_pair})
    return items


def write_tasks(engine: Engine, tasks: Mapping[str, TaskInfo]) -> bytes:
    """A TasksResponse."""
    encoder = engine.manifest.encoder
    return to_json(
        {
            "tasks": [
                {
                    "name": name,
                    "labels": list(info.labels),
                    "kind": info.kind,
                    **told_decision(info.labels, info.decision),
                    "form": info.form,
                    "metrics": dict(info.metrics),
                    "bytes": info.nbytes,
                }
                for name, info in sorted(tasks.items())
            ],
            "spec_id": engine.spec.id,
            "encoder": engine.spec.encoder,
            "backend": engine.backend,
            "code_bytes": engine.spec.code_bytes,
            "dim": engine.spec.dim,
            "num_layers": encoder.num_layers,
            "max_length": encoder.max_length,
        }
    )


def to_json(content: Any) -> bytes:
    """Lone surrogates, which a client may have sent, become question marks."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def stages_of(tokenize_s: float, queue_s: float, stats: Stats) -> dict[str, float]:
    """Seconds of each stage of a request. A batch's whole time counts for each of its requests."""
    return {
        "tokenize": tokenize_s,
        "queue": queue_s,
        "encode": stats.encode_s,
        "pack": stats.pack_s,
        "heads": stats.heads_s,
    }


def server_timing(stages: Mapping[str, float]) -> str:
    """As a Server-Timing header, in milliseconds."""
    return ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in stages.items())
