"""Heads as clients of text-embeddings-inference ask for them: /predict.

Its servers have one classifier each. Here there are many heads, so one is named in the address, or
is the only one that gives such texts labels.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field, RootModel
from starlette.responses import Response

from bitheads.engine.answer_parts import gives_labels
from bitheads.engine.engine import Engine
from bitheads.engine.errors import InputError, UnknownTaskError
from bitheads.engine.predictions import Prediction
from bitheads.engine.serve.api import json_response, read_message
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.errors import empty, of_engine
from bitheads.engine.serve.messages import Message, to_json
from bitheads.engine.serve.tei_messages import ERRORS, Truncated, check_cut
from bitheads.engine.serve.work import Work, answer_bytes
from bitheads.engine.texts.forms import are_pairs, fit
from bitheads.engine.types import Text

Sequence1or2 = Annotated[list[str], Field(min_length=1, max_length=2)]
Batch = Annotated[list[Sequence1or2], Field(fail_fast=True)]

TASK: dict[str, Any] = {
    "name": "task",
    "in": "query",
    "required": False,
    "description": "Which head answers; without it the one that gives such texts labels, if there "
    "is one alone.",
    "schema": {"type": "string"},
}


class PredictRequest(Truncated):
    inputs: str | Sequence1or2 | Batch = Field(
        description="A text; a pair of texts; or a batch, each item of which is a list of one text "
        "or of two.",
        examples=["What a lovely film."],
    )
    raw_scores: bool = Field(False, description="Logits in place of probabilities.")

    def texts(self) -> tuple[list[Text], bool]:
        """The texts as the engine takes them, and whether they are a batch."""
        if isinstance(self.inputs, str):
            return [self.inputs], False
        items = [item for item in self.inputs if not isinstance(item, str)]
        if items or not self.inputs:
            return [_text_of(item) for item in items], True
        return [_text_of([item for item in self.inputs if isinstance(item, str)])], False


class LabelScore(Message):
    score: float
    label: str


class PredictResponse(RootModel[list[LabelScore] | list[list[LabelScore]]]):
    """Every label and its score, the highest first; of a batch a list of them for each item."""


def add_predict(router: APIRouter, work: Work) -> None:
    """Adds the route."""

    @router.post(
        "/predict",
        response_model=None,
        responses={200: {"model": PredictResponse}, **ERRORS},
        openapi_extra={**json_body(PredictRequest), "parameters": [TASK]},
    )
    async def predict(request: Request) -> Response:
        """One head's labels, the likeliest first; from the same encoder pass as all heads'."""
        asked = await read_message(work, request, PredictRequest)
        texts, is_batch = asked.texts()
        if not texts:
            raise empty("inputs")
        visit = request.scope["visit"]
        try:
            task = choose_task(work.engine, texts, request.query_params.get("task"))
        except (InputError, UnknownTaskError) as error:
            raise of_engine(error) from error
        done = await work.encode(texts, [task], False, visit)
        check_cut(work, asked, done.usage)
        found = done.answer.predictions
        write = partial(write_scores, found[task], asked.raw_scores, is_batch)
        try:
            made = await work.run(visit.client, 2 * answer_bytes(found, True), write)
        except InputError as error:
            raise of_engine(error) from error
        return json_response(made, done.timing)


def choose_task(engine: Engine, texts: list[Text], named: str | None) -> str:
    """The head that answers.

    Raises UnknownTaskError, or InputError for one that gives texts no labels or does not read all
    of these, and where several could answer, or none.
    """
    pairs = are_pairs(texts)
    if pairs.any() and not pairs.all():
        raise InputError(
            "inputs: got single texts and pairs, expected one of them: a head reads either. Ask "
            "for them one after the other."
        )
    if named is not None:
        (head,) = engine.choose_heads([named])
        if not gives_labels(head.labels, head.kind):
            raise InputError(
                f"task {named!r}: is of kind {head.kind}, whose answers are no labels with "
                "scores. Ask /v1/predict for them."
            )
        return named  # whether it reads such texts, the engine says
    form = "pairs of texts" if pairs.any() else "single texts"
    heads = [head for head in engine.choose_heads(None) if fit(head, pairs).all()]
    tasks = sorted(head.task for head in heads if gives_labels(head.labels, head.kind))
    if len(tasks) == 1:
        return tasks[0]
    if not tasks:
        loaded = sorted(engine.tasks) or "none"
        raise InputError(
            f"task: got none, and no loaded head gives {form} labels; loaded are {loaded}. Ask "
            "/v1/predict, which answers by all of them."
        )
    raise InputError(
        f"task: got none, expected one of {tasks}, which all give {form} labels. Name it in the "
        f"address, as in /predict?task={tasks[0]}."
    )


def write_scores(prediction: Prediction, raw: bool, is_batch: bool) -> bytes:
    """A PredictResponse.

    Raises InputError for logits of a kind that has not one for each label.
    """
    scores = prediction.logits if raw else prediction.probabilities
    if scores.shape[1] != len(prediction.labels):
        raise InputError(
            f"raw_scores: got true for a head of kind {prediction.kind}, expected false: it has no "
            "score of its own for each label."
        )
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = [
        [{"score": row[i], "label": prediction.labels[i]} for i in best]
        for row, best in zip(scores.tolist(), order.tolist(), strict=True)
    ]
    return to_json(rows if is_batch else rows[0])


def _text_of(item: list[str]) -> Text:
    return item[0] if len(item) == 1 else (item[0], item[1])
