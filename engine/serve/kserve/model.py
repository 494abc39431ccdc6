"""The one model of a server: what it is, what it can do, what it did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bitheads.engine.errors import BitheadsError, InputError, UnknownTaskError
from bitheads.engine.heads.head import Head
from bitheads.engine.serve.errors import HttpError, of_engine
from bitheads.engine.serve.kserve.inputs import PAIR, TEXT, Asked
from bitheads.engine.serve.kserve.outputs import (
    CODES,
    NUM_TOKENS,
    PROBABILITIES,
    Output,
    described_outputs,
    most_likely,
    names_of,
    outputs_of,
    outputs_of_codes,
    task_of,
)
from bitheads.engine.serve.visit import Visit
from bitheads.engine.serve.whole import Whole
from bitheads.engine.serve.work import Answered, Work, answer_bytes
from bitheads.engine.types import Text

PLATFORM = "bitheads"
VERSION = "1"
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
]

TENSOR_BYTES, MOST_OUTPUTS = 256, 5
"""Bytes of an output in JSON beside its values, and outputs of a task, both at most."""

TYPES = {
    "BOOL": "TYPE_BOOL",
    "BYTES": "TYPE_STRING",
    "FP32": "TYPE_FP32",
    "INT64": "TYPE_INT64",
}
"""What a model's configuration calls the data types."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Inferred:
    """Output tensors to be made, in `Model.write`."""

    done: Answered
    loaded: Mapping[str, Head]
    wanted: Sequence[Asked] | None

    def outputs(self) -> Iterator[tuple[Output, bool]]:
        """Each, and whether it is asked for in binary.

        A request's texts are all single, or all pairs: no task leaves one out.
        """
        asked = None if self.wanted is None else {output.name: output for output in self.wanted}
        answer = self.done.answer
        for task, prediction in answer.predictions.items():
            for output in outputs_of(task, prediction, self.loaded, asked):
                made = Asked(output.name) if asked is None else asked[output.name]
                labels = prediction.labels
                yield (
                    most_likely(output, labels, made.classes) if made.classes else output,
                    made.is_binary,
                )
        if answer.features is not None and asked is not None:
            for output in outputs_of_codes(answer.features):
                if output.name in asked:
                    yield output, asked[output.name].is_binary

    def num_bytes(self) -> int:
        """Of all outputs there are, in JSON, at most."""
        predictions, features = self.done.answer.predictions, self.done.answer.features
        size = answer_bytes(predictions, True)
        size += MOST_OUTPUTS * TENSOR_BYTES * (1 + len(predictions))
        return size if features is None else size + 3 * features.nbytes + 64 * len(features)


class Model:
    """A server's model, whatever protocol asks.

    Attributes:
        name: of the bundle's folder.
        is_live: whether requests can be answered at all.
        is_ready: whether requests are taken.
    """

    def __init__(
        self,
        work: Work,
        whole: Whole,
        name: str,
        is_live: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        self._work = work
        self._whole = whole
        self.name = name
        self.is_live = is_live
        self.is_ready = is_ready

    @property
    def max_texts(self) -> int:
        """Texts of a request, at most."""
        return self._work.max_texts

    def check(self, name: str, version: str) -> None:
        """Raises HttpError if it is another. An empty version is the newest."""
        if name != self.name or version not in ("", VERSION):
            raise HttpError(
                404,
                "unknown_model",
                f"model {name!r} version {version or VERSION!r}: expected {self.name!r} version "
                f"{VERSION!r}.",
            )

    def metadata(self) -> dict[str, Any]:
        """Its inputs and outputs."""
        loaded = self._loaded()
        outputs = [
            made for _, head in sorted(loaded.items()) for made in described_outputs(head, loaded)
        ]
        outputs += [
            {"name": CODES, "datatype": "BYTES", "shape": [-1]},
            {"name": NUM_TOKENS, "datatype": "INT64", "shape": [-1]},
        ]
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [
                {"name": TEXT, "datatype": "BYTES", "shape": [-1]},
                {"name": PAIR, "datatype": "BYTES", "shape": [-1], "optional": True},
            ],
            "outputs": outputs,
        }

    def configuration(self) -> dict[str, Any]:
        """Triton's model configuration, as far as there is such a thing here.

        The number of texts is a dimension of the shapes, so max_batch_size is 0.
        """
        described = self.metadata()

        def tensor(of: Mapping[str, Any]) -> dict[str, Any]:
            made = {"name": of["name"], "data_type": TYPES[of["datatype"]], "dims": of["shape"]}
            return made | ({"optional": True} if of.get("optional") else {})

        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": PLATFORM,
            "max_batch_size": 0,
            "input": [tensor(made) for made in described["inputs"]],
            "output": [tensor(made) for made in described["outputs"]],
        }

    async def model_statistics(self) -> list[dict[str, Any]]:
        """Triton's, of all models: this one."""
        shown = await asyncio.to_thread(self._whole.show_statistics)
        return [{"name": self.name, "version": VERSION, **shown}]

    def index(self, ready: bool) -> list[dict[str, str]]:
        """The repository's models; with `ready` those that are."""
        is_ready = self.is_ready()
        if ready and not is_ready:
            return []
        state = {"state": "READY", "reason": ""}
        if not is_ready:
            state = {"state": "UNAVAILABLE", "reason": "the server shuts down"}
        return [{"name": self.name, "version": VERSION, **state}]

    async def infer(
        self, texts: Sequence[Text], wanted: Sequence[Asked] | None, visit: Visit
    ) -> Inferred:
        """Texts to outputs.

        Args:
            wanted: None for those of all tasks of the texts' form.

        Raises HttpError.
        """
        loaded = self._loaded()
        tasks = None if wanted is None else _tasks_of(wanted, loaded)
        names = {output.name for output in wanted or ()}
        done = await self._work.encode(texts, tasks, bool({CODES, NUM_TOKENS} & names), visit)
        return Inferred(done, loaded, wanted)

    async def write(self, inferred: Inferred, client: str, make: Callable[[], Result]) -> Result:
        """Makes the answer, aside if that takes long."""

        def timed() -> Result:
            started_s = time.perf_counter()
            made = make()
            self._work.statistics.wrote(time.perf_counter() - started_s)
            return made

        return await self._work.run(client, inferred.num_bytes(), timed)

    def _loaded(self) -> dict[str, Head]:
        """The heads by task; a snapshot. Raises HttpError."""
        try:
            return {head.task: head for head in self._work.engine.choose_heads(None)}
        except BitheadsError as error:
            raise of_engine(error) from error


def _tasks_of(wanted: Sequence[Asked], loaded: Mapping[str, Head]) -> list[str]:
    """The tasks whose outputs are asked for. Raises HttpError for an output that a task has not."""
    tasks = []
    for output in wanted:
        name = output.name
        if name in (CODES, NUM_TOKENS):
            _check_classes(output, None)
            continue
        tasks.append(task := task_of(name, loaded))
        head = loaded.get(task)  # of one that is not there the engine says so
        if head is not None and name not in (names := names_of(head, loaded)):
            raise of_engine(
                UnknownTaskError(
                    f"output {name!r}: the head of task {task!r} has none of that name, expected "
                    f"one of {names}."
                )
            )
        if head is not None:
            _check_classes(output, f"{task}_{PROBABILITIES}")
    return list(dict.fromkeys(tasks))


def _check_classes(output: Asked, probabilities: str | None) -> None:
    """Raises HttpError for class_count of what is no probabilities."""
    if output.classes and output.name != probabilities:
        raise of_engine(
            InputError(
                f"output {output.name!r}: got class_count {output.classes}, which is for outputs "
                f"TASK_{PROBABILITIES} of heads with labels. Ask for such a one, or leave it out."
            )
        )
