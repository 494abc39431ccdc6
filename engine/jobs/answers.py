"""What a backfill writes: one folder per task, in it a Parquet file for each part of the store.

    OUTPUT/task=sentiment/part-00000000-1a2b3c4d.parquet

Such a file has a row per text that the head is for (engine.texts.forms): `id`, the parts of its
answer (engine.answer_parts), `probabilities` if they are asked for, `task`, and `head`, which says
whose answer it is. It is sealed like the store's parts, and its footer names the part it was made
of, by seal, the store and the head: that is how a run knows what is left to do, and what is not its
own. Where heads of a task stand beside each other, each has a folder of its own in the task's
(engine.store.answer_folders).

Of pairs of stored texts there is a file for each block of them, with `id_a` and `id_b`
(engine.jobs.backfill_pairs).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from bitheads.engine.answer_parts import parts_of
from bitheads.engine.errors import InputError, StoreError
from bitheads.engine.features.words import END, START
from bitheads.engine.heads.cpu import CpuHead
from bitheads.engine.heads.head import is_of_words
from bitheads.engine.predictions import Prediction
from bitheads.engine.store.answer_folders import (
    FORM,
    HEAD,
    HEAD_FOLDER,
    HEAD_SHA256,
    PAIR_IDS,
    PAIRS_SHA256,
    SOURCE_SEAL,
    SOURCE_STORE,
    TASK,
    TASK_FOLDER,
    VERSION,
    VERSION_KEY,
    head_name,
)
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.part import SUFFIX
from bitheads.engine.store.schema import ID
from bitheads.engine.store.sealed import SealedWriter, read_footer

METADATA = b"bitheads"
TRUNCATED_AT = "truncated_at"
"""The column of a text that was cut, beside its spans; null of one that was read whole."""

SPAN = pa.struct(
    [
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("label", pa.string()),
        ("probability", pa.float32()),
    ]
)
"""Of a text, from one code point to before another."""

NAME = pa.dictionary(pa.int32(), pa.string())
"""Of the columns `task` and `head`. pandas.read_parquet and pyarrow.parquet.read_table make this
type of what a folder's name says, and refuse a column of another one beside it."""

OTHER_HEADS = ("refuse", "replace", "keep")
"""What to do with a task's answers of another head."""

GROUP_ROWS = 1 << 15
"""Rows that wait in memory to be written as one row group."""


def _label(prediction: Prediction) -> pa.Array:
    return pa.array(prediction.labels).take(pa.array(prediction.best))


def _labels(prediction: Prediction) -> pa.Array:
    rows, chosen = np.nonzero(prediction.has_label)
    offsets = np.searchsorted(rows, np.arange(len(prediction.logits) + 1)).astype(np.int32)
    labels = pa.array(prediction.labels).take(pa.array(chosen))
    return pa.ListArray.from_arrays(pa.array(offsets), labels)


def _spans(prediction: Prediction) -> pa.Array:
    assert prediction.words is not None, "asked of heads of words"
    table = prediction.words.table
    found, bounds = prediction.found_spans
    columns = {
        "start": pa.array(table[found.first, START]),
        "end": pa.array(table[found.last, END]),
        "label": pa.array(prediction.labels).take(pa.array(found.label)),
        "probability": pa.array(found.probability),
    }
    spans = pa.StructArray.from_arrays([*columns.values()], [*columns])
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), spans)


def _probabilities(prediction: Prediction) -> pa.Array:
    probabilities = prediction.probabilities
    classes = probabilities.shape[1]
    offsets = pa.array(np.arange(0, probabilities.size + 1, classes, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(probabilities.ravel()))


COLUMNS: dict[str, tuple[pa.DataType, Callable[[Prediction], Any]]] = {
    "label": (pa.string(), _label),
    "probability": (pa.float32(), lambda prediction: prediction.probability),
    "labels": (pa.list_(pa.string()), _labels),
    "value": (pa.float64(), lambda prediction: prediction.values),
    "spans": (pa.list_(SPAN), _spans),
    TRUNCATED_AT: (pa.int32(), lambda prediction: prediction.truncated_at),
    "accepted": (pa.bool_(), lambda prediction: prediction.accepted),
    "out_of_domain": (pa.float32(), lambda prediction: prediction.out_of_domain),
    "probabilities": (pa.list_(pa.float32()), _probabilities),
}
"""By part: the column's type, and the column for texts that all have an answer."""

IN_DICTIONARY = {
    "label": "label",
    "labels": "labels.list.element",
    "spans": "spans.list.element.label",
}
"""Columns whose values are few, and Parquet's names for them."""


class Source(Protocol):
    """What a file of answers is made of: a part of a store, or a block of pairs."""

    @property
    def name(self) -> str:
        """Of the file."""

    @property
    def seal(self) -> str:
        """Stands for every byte that an answer is made of."""

    @property
    def store_id(self) -> str | None: ...
    @property
    def rows(self) -> int: ...


AnySource = TypeVar("AnySource", bound=Source)


@dataclass(frozen=True, eq=False)
class TaskHead:
    """A head and the SHA-256 of the file it came from."""

    head: CpuHead
    sha256: str


class TaskAnswers:
    """One task's folder of an output."""

    def __init__(
        self,
        output: Folder,
        head: TaskHead,
        probabilities: bool = False,
        pairs_sha256: str | None = None,
        other_heads: str = "refuse",
    ) -> None:
        """
        Args:
            output: the folder of all tasks.
            probabilities: of all labels, too.
            pairs_sha256: of the file of pairs, where answers are those of pairs.
            other_heads: answers of another head of this task are an error ("refuse"), become this
                head's ("replace"), or stay beside them, in a folder per head ("keep").

        Raises InputError for other values.
        """
        if other_heads not in OTHER_HEADS:
            raise InputError(
                f"other_heads: got {other_heads!r}, expected one of {list(OTHER_HEADS)}."
            )
        task = head.head.task
        self.folder = output.below(f"{TASK_FOLDER}{task}")
        self._names = {TASK: task, HEAD: head_name(head.sha256)}
        if other_heads == "keep":
            self.folder = self.folder.below(f"{HEAD_FOLDER}{self._names[HEAD]}")
        self.task = task
        self._replaces = other_heads == "replace"
        self._facts = {
            HEAD_SHA256: head.sha256,
            "spec_id": head.head.spec.id,
            "probabilities": probabilities,
        }
        if pairs_sha256 is not None:
            self._facts[PAIRS_SHA256] = pairs_sha256
        self._form = head.head.form
        id_columns = (ID,) if pairs_sha256 is None else PAIR_IDS
        labels = head.head.labels
        self._parts = [*parts_of(head.head.kind, head.head.decision)]
        if is_of_words(head.head):
            self._parts.append(TRUNCATED_AT)
        elif probabilities and labels:
            self._parts.append("probabilities")
        types = {
            **dict.fromkeys(id_columns, pa.string()),
            **{part: COLUMNS[part][0] for part in self._parts},
            **dict.fromkeys(self._names, NAME),
        }
        fields = [pa.field(name, kind, name == TRUNCATED_AT) for name, kind in types.items()]
        metadata = {"task": task, "labels": list(labels), **self._facts}
        self.schema = pa.schema(fields, metadata={METADATA: json.dumps(metadata)})
        self.in_dictionary = [IN_DICTIONARY[part] for part in self._parts if part in IN_DICTIONARY]
        self.in_dictionary += [*self._names]

    def remaining(self, parts: Sequence[AnySource]) -> list[AnySource]:
        """The parts whose answers are not there yet; changes nothing.

        Raises StoreError for their answers of another head or of other columns, and damaged ones.
        """
        found = self._found({part.name for part in parts})
        seals = {name: facts[SOURCE_SEAL] for name, facts in found.items() if self._is_own(facts)}
        return [part for part in parts if seals.get(part.name) != part.seal and part.rows]

    def remove_stale(self, parts: Sequence[Source]) -> None:
        """Removes what killed runs left, and answers of parts that the store no longer has.

        What is to be replaced stays until `run` has the new answers of that part.

        Raises as `remaining`, and StoreError for answers of another store: all of them would seem
        stale.
        """
        self.folder.remove_leftovers()
        seals = {part.name: part.seal for part in parts}
        stores = {part.store_id for part in parts}
        found = self._found(set(self.folder.names(SUFFIX)))
        for name, facts in found.items():
            # Parts of older versions do not say of which store they are, nor do their answers.
            if facts.get(SOURCE_STORE) is not None and facts[SOURCE_STORE] not in stores:
                raise StoreError(
                    f"{self.folder}/{name}: has the answers of another store, expected those of "
                    "the one that is named, and one output per store. Name the right store, or "
                    "choose another output. If the store was made anew, remove that folder."
                )
        for name, facts in found.items():
            if seals.get(name) != facts[SOURCE_SEAL]:
                self.folder.remove(name)

    def _is_own(self, facts: Mapping[str, Any]) -> bool:
        """Whether a file is as this would write it; one of an earlier version is made again."""
        return self._same(facts) and facts.get(VERSION_KEY) == VERSION

    def _same(self, facts: Mapping[str, Any]) -> bool:
        return {key: facts.get(key) for key in self._facts} == self._facts

    def _found(self, names: set[str]) -> dict[str, Mapping[str, Any]]:
        """What the footers of these files say, by name, as far as the files are there."""
        found = {}
        for name in sorted(names.intersection(self.folder.names(SUFFIX))):
            shown = f"{self.folder}/{name}"
            with self.folder.open(name) as file:
                facts = read_footer(file, shown).part
            if facts.get(PAIRS_SHA256) != self._facts.get(PAIRS_SHA256) or not (
                self._replaces or self._same(facts)
            ):
                raise StoreError(
                    f"{shown}: has the answers of {_named(facts)}, expected {_named(self._facts)}. "
                    "Choose another output, have them replaced (--other-heads replace), or remove "
                    "that folder. To keep several heads' answers in one output, begin one with "
                    "--other-heads keep."
                )
            found[name] = facts
        return found

    def open_file(self, part: Source) -> AnswerFile:
        """A file for the answers to a part's texts. Raises StoreError if it cannot be written."""
        return AnswerFile(self, part)

    def table(self, ids: Sequence[pa.Array], prediction: Prediction) -> pa.Table:
        """One row per text, or pair, that the task answers.

        Args:
            ids: a column for each that there is of them.
        """
        answered = prediction.answered
        if not answered.all():
            ids = [column.filter(pa.array(answered)) for column in ids]
            prediction = prediction[answered]
        found = [COLUMNS[part] for part in self._parts]
        columns = [pa.array(make(prediction), kind) for kind, make in found]
        only = pa.array(np.zeros(len(columns[0]), np.int32))
        columns += [pa.DictionaryArray.from_arrays(only, [name]) for name in self._names.values()]
        return pa.table([*ids, *columns], schema=self.schema)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What each file's footer says beside its source."""
        return {**self._facts, FORM: self._form, VERSION_KEY: VERSION}


class AnswerFile:
    """One file in the making: it is there, whole and on disk, once it is published."""

    def __init__(self, answers: TaskAnswers, part: Source) -> None:
        self._answers, self._part = answers, part
        self._pending: list[pa.Table] = []
        self._aside = answers.folder.write_aside(part.name)
        with self._aside.writing():
            self._sealed = SealedWriter(
                self._aside.file,
                answers.schema,
                compression="zstd",
                use_dictionary=answers.in_dictionary,
            )

    def append(self, ids: Sequence[pa.Array], prediction: Prediction) -> None:
        """Raises StoreError if it cannot be written; the file is then gone."""
        self._pending.append(self._answers.table(ids, prediction))
        if sum(map(len, self._pending)) >= GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        pending, self._pending = self._pending, []
        with self._aside.writing():
            self._sealed.write(pa.concat_tables(pending).combine_chunks())

    def publish(self) -> None:
        """Raises StoreError if it cannot be written; there is then nothing of it."""
        if self._pending:
            self._write()
        with self._aside.writing():
            source = {SOURCE_SEAL: self._part.seal, SOURCE_STORE: self._part.store_id}
            self._sealed.close({**self._answers.facts, **source})
        self._aside.publish()

    def discard(self) -> None:
        """Leaves nothing of it, unless it was published."""
        self._aside.discard()


def _named(facts: Mapping[str, Any]) -> str:
    with_all = "with" if facts.get("probabilities") else "without"
    named = f"head {head_name(str(facts.get(HEAD_SHA256)))}, {with_all} all probabilities"
    pairs = facts.get(PAIRS_SHA256)
    return named if pairs is None else f"{named}, of the file of pairs {str(pairs)[:12]}"
