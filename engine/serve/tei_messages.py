"""What requests of text-embeddings-inference have in common, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from bitheads.engine.errors import InputError
from bitheads.engine.serve import api
from bitheads.engine.serve.errors import of_engine, too_large
from bitheads.engine.serve.messages import Lenient, Message
from bitheads.engine.serve.work import Work

TextList = Annotated[list[str], Field(fail_fast=True)]


class ErrorResponse(Message):
    error: str = Field(description="What was wrong, and what to do.")
    error_type: Literal["unhealthy", "backend", "overloaded", "validation", "tokenizer", "empty"]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {**row, "model": ErrorResponse} for status, row in api.ERRORS.items()
}


class Prompted(Lenient):
    prompt_name: str | None = Field(
        None, description="Of a prompt of the checkpoint, in place of its default one."
    )


class Truncated(Lenient):
    truncate: bool | None = Field(
        None, description="false: a text that is longer than the encoder reads is an error (413)."
    )
    truncation_direction: Literal["right", "left", "Right", "Left"] | None = Field(
        None,
        description="left: a text that is longer than the encoder reads is an error (422), as a "
        "text's beginning is what is read.",
    )


class Cut(Prompted, Truncated):
    """Of requests of embeddings."""


def check_cut(work: Work, asked: Truncated, usage: Mapping[str, int]) -> None:
    """Raises HttpError if texts were cut otherwise than the request wants it."""
    if not usage["truncated"]:
        return
    longest, count = work.engine.manifest.encoder.max_length, usage["truncated"]
    if asked.truncate is False:
        raise too_large("inputs", f"{count} longer texts", f"{longest} tokens", "encoder")
    if asked.truncation_direction in ("left", "Left"):
        raise of_engine(
            InputError(
                f"truncation_direction: got 'left' for {count} texts of more than {longest} "
                "tokens, expected 'right': a text's beginning is what is read. Send the end alone."
            )
        )
