"""What the Open Inference Protocol's requests and answers look like, for the description alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel


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
    parameters: dict[str, Any] = Field(
        {},
        description="binary_data: true for bytes after the JSON; classification: so many of the "
        "likeliest labels",
    )


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


class ConfiguredTensor(BaseModel):
    name: str
    data_type: str
    dims: list[int]
    optional: bool = False


class ModelConfiguration(BaseModel):
    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfiguredTensor]
    output: list[ConfiguredTensor]


class Duration(BaseModel):
    count: int
    ns: int


class BatchStatistics(BaseModel):
    batch_size: int
    compute_infer: Duration


class ModelStatistics(BaseModel):
    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970.")
    inference_count: int = Field(description="Texts that were answered.")
    execution_count: int = Field(description="Batches that were encoded.")
    inference_stats: dict[str, Duration] = Field(description="Of requests, by stage.")
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    model_stats: list[ModelStatistics]


class IndexRequest(BaseModel):
    ready: bool = False


class IndexedModel(BaseModel):
    name: str
    version: str
    state: str
    reason: str


class Index(RootModel[list[IndexedModel]]):
    pass


class Error(BaseModel):
    error: str
