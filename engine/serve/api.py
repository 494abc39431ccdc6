"""The server's own routes, under /v1."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Path, Request
from numpy.typing import NDArray
from starlette.responses import Response

from bitheads.engine.errors import BitheadsError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.predictions import Prediction
from bitheads.engine.serve import messages
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.errors import of_engine
from bitheads.engine.serve.messages import ErrorResponse
from bitheads.engine.serve.whole import Whole
from bitheads.engine.serve.work import Work, answer_bytes

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "Not a request of HTTP that can be read"},
    401: {"model": ErrorResponse, "description": "A key is needed"},
    404: {"model": ErrorResponse, "description": "No such task"},
    408: {"model": ErrorResponse, "description": "The body came too slowly"},
    413: {"model": ErrorResponse, "description": "Too large"},
    422: {"model": ErrorResponse, "description": "Not what is expected"},
    429: {"model": ErrorResponse, "description": "The queue is full; see Retry-After"},
    503: {"model": ErrorResponse, "description": "Shutting down, or not in time"},
}
MISMATCH: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorResponse, "description": "Of another feature spec"}
}
FORBIDDEN: dict[int | str, dict[str, Any]] = {
    403: {"model": ErrorResponse, "description": "The server has no admin keys"}
}
TASK = Path(description="A task's name.", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")


def routes(work: Work, whole: Whole) -> APIRouter:
    """Bodies are read by hand: FastAPI would decode and check them at three times the cost."""
    router = APIRouter(prefix="/v1", default_response_class=Response)
    engine = work.engine

    read = partial(read_message, work)

    async def answer(
        predictions: Mapping[str, Prediction],
        asked: messages.Tasks,
        usage: Mapping[str, int],
        timing: str,
        client: str,
        features: PackedFeatures | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Response:
        wants_all, told = asked.return_probabilities, (usage, engine.spec.id, features, embeddings)
        size = answer_bytes(predictions, wants_all)
        size += 0 if features is None else 2 * features.nbytes
        size += 0 if embeddings is None else messages.NUMBER_BYTES * embeddings.size
        write = partial(messages.write_predictions, predictions, wants_all, *told)
        return json_response(await work.run(client, size, write), timing)

    @router.post(
        "/predict",
        response_model=None,
        responses={200: {"model": messages.PredictResponse}, **ERRORS},
        openapi_extra=json_body(messages.PredictRequest),
    )
    async def predict(request: Request) -> Response:
        """Every task's answer for every text, from one encoder pass."""
        asked = await read(request, messages.PredictRequest)
        wanted = asked.return_features, request.scope["visit"], asked.return_embeddings
        done = await work.encode(asked.texts(), asked.tasks, *wanted)
        more = done.answer.features, done.answer.embeddings
        found, client = done.answer.predictions, _client(request)
        return await answer(found, asked, done.usage, done.timing, client, *more)

    @router.post(
        "/features",
        response_model=None,
        responses={200: {"model": messages.FeaturesResponse}, **ERRORS},
        openapi_extra=json_body(messages.FeaturesRequest),
    )
    async def features(request: Request) -> Response:
        """The codes of every text: what to store for tasks that are yet to come."""
        asked = await read(request, messages.FeaturesRequest)
        done = await work.encode(asked.texts(), [], True, request.scope["visit"])
        found = done.answer.features
        assert found is not None
        write = partial(messages.write_features, found, done.usage)
        return json_response(await work.run(_client(request), 2 * found.nbytes, write), done.timing)

    @router.post(
        "/predict_features",
        response_model=None,
        responses={200: {"model": messages.PredictResponse}, **ERRORS, **MISMATCH},
        openapi_extra=json_body(messages.PredictFeaturesRequest),
    )
    async def predict_features(request: Request) -> Response:
        """Every task's answer from stored codes, or from pairs of them: no encoder runs."""
        asked = await read(request, messages.PredictFeaturesRequest)
        read_features = partial(messages.read_features, asked, engine)
        try:
            size = len(await request.body())
            found = await work.run(_client(request), size, read_features)
        except BitheadsError as error:
            raise of_engine(error) from error
        visit, count = request.scope["visit"], len(found)
        if asked.pairs is None:
            answers, timing = await work.predict_features(found, asked.tasks, visit)
        else:
            count = len(asked.pairs)
            answers, timing = await work.predict_pairs(found, asked.pairs, asked.tasks, visit)
        usage = {"texts": count, "tokens": int(found.offsets[-1]), "truncated": 0}
        return await answer(answers, asked, usage, timing, _client(request))

    @router.get(
        "/tasks",
        response_model=None,
        responses={200: {"model": messages.TasksResponse}, 401: ERRORS[401]},
    )
    async def tasks() -> Response:
        """The loaded heads, and what a client must know of the encoder."""
        return json_response(messages.write_tasks(engine, engine.tasks))

    @router.put(
        "/tasks/{name}",
        response_model=None,
        status_code=204,
        responses={**ERRORS, **MISMATCH, **FORBIDDEN},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                },
            }
        },
    )
    async def put_task(request: Request, name: str = TASK) -> Response:
        """Loads a head file, or puts it in the place of the one there is. Needs an admin key."""
        body = await request.body()
        try:
            await asyncio.to_thread(whole.put_head, name, body)
        except BitheadsError as error:
            raise of_engine(error) from error
        return Response(status_code=204)

    @router.delete(
        "/tasks/{name}",
        response_model=None,
        status_code=204,
        responses={**ERRORS, **FORBIDDEN},
    )
    async def delete_task(name: str = TASK) -> Response:
        """Forgets a head. Needs an admin key."""
        try:
            await asyncio.to_thread(whole.delete_head, name)
        except BitheadsError as error:
            raise of_engine(error) from error
        return Response(status_code=204)

    return router


async def read_message(
    work: Work, request: Request, kind: type[messages.AnyMessage]
) -> messages.AnyMessage:
    """The request's body. Raises HttpError for what is none of this kind."""
    body = await request.body()
    parse = partial(messages.parse, kind, body)
    return await work.read(_client(request), body, len(body), parse)


def _client(request: Request) -> str:
    client: str = request.scope["visit"].client
    return client


def json_response(body: bytes, timing: str | None = None) -> Response:
    """An answer with a Server-Timing header, if there is anything to tell of."""
    headers = None if timing is None else {"server-timing": timing}
    return Response(body, 200, headers, "application/json")
