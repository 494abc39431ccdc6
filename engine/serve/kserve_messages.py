"""What the Open Inference Protocol's requests and answers look like, for the description alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Input(BaseModel):
    name: Literal["text", "text_pair"]
    datatype: Literal["BYTES"]
    shape: list[int] = Field(description="[texts] or [texts, 1].", min_length=1, max_length=2)
    data: list[str] = Field(description="Left out where the bytes follow the JSON.")


class Asked(BaseModel):
    name: str = Field(
        description="As the metadata lists them: a task; its name and _probabilities, _value, "
        "_truncated_at, _accepted or _out_of_domain; codes; num_tokens."
    )
    parameters: dict[str, Any] = Field({}, description="binary_data: true for bytes after the JSON")


class InferRequest(BaseModel):
    id: str = ""
    inputs: list[Input] = Field(min_length=1)
    outputs: list[Asked] = Field([], description="None: the outputs of all tasks of the form.")
    parameters: dict[str, Any] = Field({}, description="binary_data_output: true for all in bytes")


class Tensor(TensorMetadata):
    data: list[Any] = []


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str = ""
    outputs: list[Tensor]


class Error(BaseModel):
    error: str
