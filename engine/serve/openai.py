"""Embeddings as clients of OpenAI's API ask for them: /v1/embeddings and /v1/models."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import Field
from starlette.responses import Response

from bitheads.engine.errors import InputError
from bitheads.engine.serve import messages
from bitheads.engine.serve.api import ERRORS, json_response
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.messages import NUMBER_BYTES, Lenient, Message, to_json
from bitheads.engine.serve.work import Work

TokenIds = Annotated[list[int], Field(fail_fast=True)]
Input = Annotated[list[str | int | TokenIds], Field(fail_fast=True)]


class EmbeddingsRequest(Lenient):
    input: str | Input = Field(
        description="One text, or a list of texts. Token ids are refused: they are of another "
        "tokenizer.",
        examples=["What a lovely film."],
    )
    model: str | None = Field(None, description="Any: a server has one encoder.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64 is of float32 numbers, the lowest byte first."
    )
    dimensions: int | None = Field(
        None, description="The first so many numbers alone, made of length 1 again."
    )

    def texts(self) -> list[str]:
        """Raises InputError for token ids."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(
                    f"input.{i}: got token ids, expected a text: they would be of another "
                    "tokenizer. Send texts; of LangChain's OpenAIEmbeddings, by "
                    "check_embedding_ctx_length=False."
                )
        return [text for text in texts if isinstance(text, str)]


class Embedding(Message):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(Message):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Message):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


class Model(Message):
    id: str
    object: Literal["model"]
    created: int = Field(description="0: nobody knows.")
    owned_by: str


class ModelsResponse(Message):
    object: Literal["list"]
    data: list[Model]


def routes(work: Work, model: str) -> APIRouter:
    """Bodies are read by hand, as in engine.serve.api.

    Args:
        model: what answers call it.
    """
    router = APIRouter(prefix="/v1", default_response_class=Response)

    @router.post(
        "/embeddings",
        response_model=None,
        responses={200: {"model": EmbeddingsResponse}, **ERRORS},
        openapi_extra=json_body(EmbeddingsRequest),
    )
    async def embeddings(request: Request) -> Response:
        """Each text's embedding, of length 1, as the checkpoint's modules of sentence-transformers
        make it, with its default prompt."""
        body, visit = await request.body(), request.scope["visit"]

        def parse() -> tuple[EmbeddingsRequest, list[str]]:
            asked = messages.parse(EmbeddingsRequest, body)
            return asked, asked.texts()

        asked, texts = await work.read(visit.client, body, len(body), parse)
        done = await work.embed(texts, visit, asked.dimensions)
        as_base64 = asked.encoding_format == "base64"
        write = partial(write_embeddings, done.vectors, as_base64, model, done.usage)
        size = done.vectors.size * (8 if as_base64 else NUMBER_BYTES)
        return json_response(await work.run(visit.client, size, write), done.timing)

    @router.get(
        "/models",
        response_model=None,
        responses={200: {"model": ModelsResponse}, 401: ERRORS[401]},
    )
    async def models() -> Response:
        """The bundle's name."""
        one = {"id": model, "object": "model", "created": 0, "owned_by": "bitheads"}
        return json_response(to_json({"object": "list", "data": [one]}))

    return router


def write_embeddings(
    vectors: NDArray[np.float32], as_base64: bool, model: str, usage: Mapping[str, int]
) -> bytes:
    """An EmbeddingsResponse."""
    found: list[Any]
    if as_base64:
        little = np.ascontiguousarray(vectors, "<f4")
        found = [base64.b64encode(vector.tobytes()).decode() for vector in little]
    else:
        found = vectors.tolist()
    data = [
        {"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(found)
    ]
    tokens = {"prompt_tokens": usage["tokens"], "total_tokens": usage["tokens"]}
    return to_json({"object": "list", "data": data, "model": model, "usage": tokens})
