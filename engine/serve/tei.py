"""What clients of text-embeddings-inference ask for: here its embeddings, /embed, /similarity and
/info; heads and tokens are in the modules beside it."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import Field, RootModel
from starlette.responses import Response

from bitheads import __version__
from bitheads.engine.serve.api import json_response, read_message
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.errors import HttpError
from bitheads.engine.serve.messages import NUMBER_BYTES, Lenient, Message, to_json
from bitheads.engine.serve.tei_messages import (
    ERRORS,
    Cut,
    ErrorResponse,
    TextList,
    check_cut,
)
from bitheads.engine.serve.tei_predict import add_predict
from bitheads.engine.serve.tei_tokens import add_tokens
from bitheads.engine.serve.work import Embedded, Work


class EmbedRequest(Cut):
    inputs: str | TextList = Field(examples=["What a lovely film."])
    normalize: bool = Field(True, description="To a length of 1.")
    dimensions: int | None = Field(None, description="The first so many numbers alone.")


AS_EVER = Cut(truncate=None, truncation_direction=None, prompt_name=None)


class EmbedResponse(RootModel[list[list[float]]]):
    """A list of numbers for each text."""


class Compared(Lenient):
    source_sentence: str
    sentences: TextList


class SimilarityRequest(Lenient):
    inputs: Compared
    parameters: Cut | None = None


class SimilarityResponse(RootModel[list[float]]):
    """The cosine of each sentence with the source."""


class InfoResponse(Message):
    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, str]]
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str


def routes(work: Work, model: str) -> APIRouter:
    """Bodies are read by hand, as in engine.serve.api.

    Args:
        model: what /info calls it.
    """
    router = APIRouter(default_response_class=Response)
    engine = work.engine

    async def embed_texts(
        request: Request, texts: list[str], asked: Cut, dim: int | None, normalize: bool
    ) -> Embedded:
        visit = request.scope["visit"]
        done = await work.embed(texts, visit, dim, normalize, prompt_name=asked.prompt_name)
        check_cut(work, asked, done.usage)
        return done

    async def embed(request: Request) -> Response:
        """Each text's embedding, as the checkpoint's modules of sentence-transformers make it."""
        asked = await read_message(work, request, EmbedRequest)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        done = await embed_texts(request, texts, asked, asked.dimensions, asked.normalize)
        size = done.vectors.size * NUMBER_BYTES
        return await answer(request, done, size, done.vectors)

    async def answer(
        request: Request, done: Embedded, size: int, numbers: NDArray[np.float32]
    ) -> Response:
        client = request.scope["visit"].client
        made = await work.run(client, size, lambda: to_json(numbers.tolist()))
        return json_response(made, done.timing)

    for path in ("/embed", "/"):  # clients of huggingface_hub are given no path
        router.add_api_route(
            path,
            embed,
            methods=["POST"],
            response_model=None,
            responses={200: {"model": EmbedResponse}, **ERRORS},
            openapi_extra=json_body(EmbedRequest),
            operation_id=f"embed_{path.strip('/') or 'root'}",
        )

    @router.post(
        "/similarity",
        response_model=None,
        responses={200: {"model": SimilarityResponse}, **ERRORS},
        openapi_extra=json_body(SimilarityRequest),
    )
    async def similarity(request: Request) -> Response:
        """The cosine of each sentence's embedding with that of the source."""
        asked = await read_message(work, request, SimilarityRequest)
        texts = [asked.inputs.source_sentence, *asked.inputs.sentences]
        done = await embed_texts(request, texts, asked.parameters or AS_EVER, None, True)
        cosines = done.vectors[1:] @ done.vectors[0]
        return await answer(request, done, NUMBER_BYTES * len(texts), cosines)

    add_predict(router, work)
    add_tokens(router, work)

    @router.post(
        "/embed_all",
        response_model=None,
        responses={
            **ERRORS,
            424: {"model": ErrorResponse, "description": "Not offered"},
        },
    )
    async def embed_all() -> Response:
        """Refused: states of tokens leave the encoder's pass as codes, and nothing keeps them."""
        raise HttpError(
            424,
            "not_offered",
            "/embed_all: a vector for each token is not offered: of a token its code is kept, "
            "which /v1/features gives. Ask /embed for a vector of each text.",
        )

    @router.get(
        "/info",
        response_model=None,
        responses={200: {"model": InfoResponse}, 401: ERRORS[401]},
    )
    async def info() -> Response:
        """What the server has, in the words of text-embeddings-inference."""
        manifest = engine.manifest
        made = manifest.embedding
        pooling = "none" if made is None else "+".join(made.pooling)
        content = {
            "model_id": model,
            "model_sha": manifest.versions.get("encoder", "").partition("@")[2] or None,
            "model_dtype": engine.backend.split()[-1],
            "model_type": {"embedding": {"pooling": pooling}},
            "max_input_length": manifest.encoder.max_length,
            "max_batch_tokens": engine.encoder.max_batch_tokens,
            "max_client_batch_size": work.max_texts,
            "auto_truncate": True,
            "version": __version__,
        }
        return json_response(to_json(content))

    return router
