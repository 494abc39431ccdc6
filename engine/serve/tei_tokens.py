"""Tokens as clients of text-embeddings-inference ask for them: /tokenize and /decode.

No encoder runs, so nothing waits in its queue. What is bounded is what is told of a request.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field, RootModel
from starlette.responses import Response

from bitheads.engine.errors import InputError
from bitheads.engine.serve.api import json_response, read_message
from bitheads.engine.serve.described import json_body
from bitheads.engine.serve.errors import empty, of_engine, too_large
from bitheads.engine.serve.messages import Lenient, Message, server_timing, stages_of, to_json
from bitheads.engine.serve.tei_messages import ERRORS, Prompted, TextList
from bitheads.engine.serve.visit import Visit
from bitheads.engine.serve.work import INLINE_BYTES, Work, pieces
from bitheads.engine.texts.told_tokens import told_tokens
from bitheads.engine.types import Stats

INLINE_CHARS, INLINE_IDS = 1024, 4096
"""Characters whose tokens are told at once, and ids that are decoded at once, in a millisecond or
so."""

TokenId = Annotated[int, Field(ge=0, lt=1 << 32)]
Ids = Annotated[list[TokenId], Field(fail_fast=True)]
IdLists = Annotated[list[Ids], Field(fail_fast=True)]


class TokenizeRequest(Prompted):
    inputs: str | TextList = Field(examples=["What a lovely film."])
    add_special_tokens: bool = Field(
        True, description="Put those around a text that the encoder reads around it."
    )


class Token(Message):
    id: int
    text: str = Field(description="What stands in its place; of a special one its name.")
    special: bool = Field(description="Whether the tokenizer put it there itself.")
    start: int | None = Field(
        description="In bytes of the text in UTF-8, with the prompt before it; null if special."
    )
    stop: int | None = Field(description="Behind its last byte.")


class TokenizeResponse(RootModel[list[list[Token]]]):
    """The tokens of each text, all of them: nothing is cut."""


class DecodeRequest(Lenient):
    ids: Ids | IdLists = Field(
        description="Of one text's tokens, or of several texts'. Ids that are no token's are "
        "passed over.",
        examples=[[101, 2054, 102]],
    )
    skip_special_tokens: bool = True


class DecodeResponse(RootModel[list[str]]):
    """The text of each list of ids."""


def add_tokens(router: APIRouter, work: Work) -> None:
    """Adds the routes."""

    @router.post(
        "/tokenize",
        response_model=None,
        responses={200: {"model": TokenizeResponse}, **ERRORS},
        openapi_extra=json_body(TokenizeRequest),
    )
    async def tokenize(request: Request) -> Response:
        """Each text's tokens, and where in it they are; no encoder runs."""
        asked = await read_message(work, request, TokenizeRequest)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        if not texts:
            raise empty("inputs")
        return await tell(work, texts, request.scope["visit"], asked)

    @router.post(
        "/decode",
        response_model=None,
        responses={200: {"model": DecodeResponse}, **ERRORS},
        openapi_extra=json_body(DecodeRequest),
    )
    async def decode(request: Request) -> Response:
        """The text that token ids stand for, as the tokenizer writes it."""
        asked = await read_message(work, request, DecodeRequest)
        single = [number for number in asked.ids if isinstance(number, int)]
        lists = [single] if single else [ids for ids in asked.ids if isinstance(ids, list)]
        if not lists:
            raise empty("ids")
        if len(lists) > work.max_texts:
            raise work.too_many(len(lists))
        visit, count = request.scope["visit"], sum(map(len, lists))
        visit.texts, visit.tokens = len(lists), count
        started_s = time.perf_counter()

        def make() -> bytes:
            return to_json(work.engine.tokenizer.decode(lists, asked.skip_special_tokens))

        try:
            made = await work.run(visit.client, count * INLINE_BYTES // INLINE_IDS, make)
        except InputError as error:
            raise of_engine(error) from error
        return _answer(visit, made, started_s)


async def tell(work: Work, texts: list[str], visit: Visit, asked: TokenizeRequest) -> Response:
    """Piece by piece, so that others have their turn in between, and no piece is begun once more
    was found than is told."""
    before = _prompt(work, asked.prompt_name)
    whole = [before + text for text in texts]
    work.check(whole)
    started_s = time.perf_counter()
    most, found, parts = work.max_told_tokens, 0, []
    for start, stop in pieces([len(text) for text in whole]):
        tell_piece = partial(_tell_piece, work, whole[start:stop], start, asked, most - found)
        size = sum(map(len, whole[start:stop])) * INLINE_BYTES // INLINE_CHARS
        try:
            count, part = await work.run(visit.client, size, tell_piece)
        except InputError as error:
            raise of_engine(error) from error
        found += count
        if found > most:
            raise too_large("inputs", f"{found} tokens or more", str(most), "--max-queue-tokens")
        parts.append(part)
    visit.texts, visit.tokens = len(whole), found
    return _answer(visit, b"[" + b",".join(parts) + b"]", started_s)


def _tell_piece(
    work: Work, texts: list[str], first_index: int, asked: TokenizeRequest, most: int
) -> tuple[int, bytes]:
    """How many tokens the texts have, and, if those are not more than may be, what to tell of
    them, in JSON without the brackets around it."""
    found = work.engine.tokenizer.encodings(texts, asked.add_special_tokens, first_index)
    count = sum(len(encoding) for _, encoding in found)
    if count > most:
        return count, b""
    return count, to_json([told_tokens(*one) for one in found])[1:-1]


def _prompt(work: Work, name: str | None) -> str:
    """What /embed puts before a text."""
    embedding = work.engine.manifest.embedding
    if embedding is None:
        if name is not None:
            work.embedder()  # says that there are none
        return ""
    try:
        return embedding.prompt(None, name)
    except InputError as error:
        raise of_engine(error) from error


def _answer(visit: Visit, made: bytes, started_s: float) -> Response:
    visit.stages = stages_of(time.perf_counter() - started_s, 0.0, Stats())
    return json_response(made, server_timing(visit.stages))
