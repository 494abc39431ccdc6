"""Whether answers are those of a store: to the last byte, and one per text that a head is for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bitheads.engine.errors import BitheadsError, StoreError
from bitheads.engine.store import schema, sealed
from bitheads.engine.store.answer_folders import (
    FORM,
    HEAD,
    HEAD_SHA256,
    PAIR_IDS,
    PAIRS_SHA256,
    SOURCE_SEAL,
    SOURCE_STORE,
    TASK,
    TASK_FOLDER,
    VERSION,
    VERSION_KEY,
    AnswerFolder,
    answer_folders,
    head_name,
    seal_of_block,
    seal_of_pairs,
)
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.ids import IdIndex
from bitheads.engine.store.part import SUFFIX, Part
from bitheads.engine.store.store import FeatureStore

AGAIN = "Run `bitheads backfill` again"
BLOCK = re.compile(r"pairs-(\d{8})\.parquet")


def verify_answers(
    store: FeatureStore,
    output: str | Path,
    filesystem: Any = None,
    is_checked: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """Reads every byte of an output's answers; returns what is wrong, one sentence per fault, or
    nothing.

    Of each task, and each head where several stand beside each other, it compares with the store:
    whose answers the files say they are, which parts they were made of, and their ids, which are
    those of the texts that the head is for, each once. Of pairs of texts it knows the ids, not
    which pairs were asked.

    Args:
        output: a folder or a URI, to which `filesystem` belongs.
        is_checked: called after each part of the store, or block of pairs, and head.

    Raises StoreError if the folder cannot be read or holds no answers, or the store is damaged.
    """
    folder = Folder(output, filesystem)
    found = answer_folders(folder)
    if not found:
        raise StoreError(
            f"{folder}: holds no answers to verify, expected an output of `bitheads backfill` with "
            f"a folder {TASK_FOLDER}... for each task. Name the right one."
        )
    wrong = []
    if len({one.head is None for one in found}) > 1:
        wrong.append(
            f"{folder}: has tasks with one head and tasks with heads beside each other, expected "
            "one layout, as other readers do. Move one kind into another output."
        )
    for one in found:
        wrong += _Check(store, one, is_checked).run()
    return wrong


class _Check:
    """Of one folder of answers."""

    def __init__(
        self, store: FeatureStore, answers: AnswerFolder, is_checked: Callable[[str], None]
    ) -> None:
        self._store, self._answers, self._is_checked = store, answers, is_checked
        self._wrong: list[str] = []
        self._heads: set[str] = set()

    def run(self) -> list[str]:
        folder, names = self._answers.folder, self._answers.folder.names(SUFFIX)
        forms: set[str] = set()
        footers: dict[str, Any] = {}
        for name in names:
            try:
                footers[name] = self._footer(name)
                forms.add(str(footers[name].part[FORM]))
            except BitheadsError as error:
                self._wrong.append(str(error))
        if len(self._heads) > 1:
            self._wrong.append(
                f"{folder}: has the answers of {len(self._heads)} heads, {sorted(self._heads)}, "
                f"expected one. {AGAIN} with --other-heads replace, which was interrupted."
            )
        of_pairs = {name for name, footer in footers.items() if PAIRS_SHA256 in footer.part}
        if of_pairs:
            self._check_pairs({name: footers[name] for name in of_pairs})
        if len(of_pairs) < len(names) or not names:
            self._check_texts(
                {name: one for name, one in footers.items() if name not in of_pairs},
                forms,
                set(names),
            )
        return self._wrong

    def _footer(self, name: str) -> sealed.Footer:
        """Raises StoreError for one that is not of these answers."""
        shown, store = self._shown(name), self._store
        with self._answers.folder.open(name) as file:
            footer = sealed.read_footer(file, shown)
        said = footer.part
        if SOURCE_SEAL not in said or not isinstance(said.get(HEAD_SHA256), str):
            raise StoreError(f"{shown}: holds no answers, and lies among them. Move it away.")
        if said.get(VERSION_KEY) != VERSION:
            raise StoreError(
                f"{shown}: is of another version of bitheads, which did not say whose answers "
                f"these are. {AGAIN}, which makes them anew."
            )
        if said.get(SOURCE_STORE) not in (None, store.id):
            raise StoreError(
                f"{shown}: has the answers of store {said[SOURCE_STORE]}, expected those of "
                f"{store.id}, which {store.folder} is. Name the right store."
            )
        self._heads.add(head_name(said[HEAD_SHA256]))
        return footer

    def _shown(self, name: str) -> str:
        return f"{self._answers.folder}/{name}"

    def _read(self, name: str, footer: sealed.Footer, ids: Sequence[str]) -> pa.Table:
        """The columns of ids, once every byte was read, and task and head are what is said of them.

        Raises StoreError.
        """
        shown = self._shown(name)
        with self._answers.folder.open(name) as file:
            sealed.CheckedFile(file, footer, shown).check()
            try:
                parquet = sealed.open_parquet(file, footer, shown)
                table = parquet.read(columns=[*ids, TASK, HEAD], use_threads=False)
            except (pa.ArrowException, KeyError) as error:
                raise StoreError(f"{shown}: cannot be decoded ({error}).") from error
        head = head_name(footer.part[HEAD_SHA256])
        for column, expected, named in (
            (TASK, self._answers.task, self._answers.task),
            (HEAD, head, self._answers.head or head),
        ):
            values = set(pc.unique(table[column]).to_pylist())
            if values - {expected} or named != expected:
                raise StoreError(
                    f"{shown}: column {column!r} has {sorted(map(str, values))}, its footer and "
                    f"its folder say {expected!r} and {named!r}, expected one of them all. Move "
                    f"the folder back to where it was. {AGAIN}."
                )
        return table

    def _check_texts(self, footers: dict[str, Any], forms: set[str], names: set[str]) -> None:
        parts = {part.name: part for part in self._store.parts}
        for name in footers:
            if name not in parts:
                self._wrong.append(
                    f"{self._shown(name)}: has the answers of a part that the store no longer has. "
                    f"{AGAIN}."
                )
        for part in self._store.parts:
            try:
                if part.name in footers:
                    self._check_part(part, footers[part.name])
                elif part.name not in names and (missing := len(_ids_for(part, forms))):
                    self._wrong.append(
                        f"{self._answers.folder}: answers of {missing:,} texts are missing, those "
                        f"of part {part.name}. {AGAIN}."
                    )
            except StoreError as error:
                self._wrong.append(str(error))
            self._is_checked(part.name)

    def _check_part(self, part: Part, footer: sealed.Footer) -> None:
        """Raises StoreError unless its answers are one for each text that the head is for."""
        shown = self._shown(part.name)
        if footer.part[SOURCE_SEAL] != part.seal:
            raise StoreError(
                f"{shown}: was made of the part as it was before its texts changed. {AGAIN}."
            )
        ids = self._read(part.name, footer, [schema.ID])[schema.ID].to_pylist()
        expected = _ids_for(part, {str(footer.part[FORM])})
        if ids == expected:
            return
        counts, wanted = Counter(ids), set(expected)
        twice = [name for name, count in counts.items() if count > 1]
        missing, foreign = wanted - counts.keys(), counts.keys() - wanted
        example = next(iter([*twice, *sorted(missing), *sorted(foreign)]), "")
        raise StoreError(
            f"{shown}: of {len(expected):,} texts {len(missing):,} have no answer, {len(twice):,} "
            f"several, and {len(foreign):,} answers are of others ({example!r}, for one). Remove "
            "the file, and run `bitheads backfill` again."
        )

    def _check_pairs(self, footers: dict[str, Any]) -> None:
        index = IdIndex()
        for part in self._store.parts:
            for table in part.tables([schema.ID]):
                index.add(table[schema.ID].to_pylist())
        numbers = []
        for name, footer in sorted(footers.items()):
            try:
                shown, match = self._shown(name), BLOCK.fullmatch(name)
                if match is None:
                    raise StoreError(
                        f"{shown}: is no name of a block of pairs. Give it its old name back."
                    )
                numbers.append(int(match[1]))
                seal = seal_of_pairs(footer.part[PAIRS_SHA256], self._store.parts)
                if footer.part[SOURCE_SEAL] != seal_of_block(seal, int(match[1])):
                    raise StoreError(
                        f"{shown}: was made of the store as it was before it changed. {AGAIN}."
                    )
                table = self._read(name, footer, PAIR_IDS)
                for column in PAIR_IDS:
                    there = index.contains(table[column].to_pylist())
                    if not there.all():
                        raise StoreError(
                            f"{shown}: has the id {table[column][int(there.argmin())].as_py()!r}, "
                            f"which the store does not have. {AGAIN}."
                        )
            except StoreError as error:
                self._wrong.append(str(error))
            self._is_checked(name)
        if numbers and (gone := set(range(max(numbers))) - {*numbers}):
            self._wrong.append(
                f"{self._answers.folder}: answers of {len(gone):,} blocks of pairs are missing, "
                f"the first of them is block {min(gone)}. {AGAIN}."
            )


def _ids_for(part: Part, forms: set[str]) -> list[str]:
    """Ids of the texts that heads of these forms answer, in order; no forms: those of all."""
    found: list[str] = []
    says = schema.IS_PAIR in schema.columns_of(part.schema)
    for table in part.tables([schema.ID, *([schema.IS_PAIR] if says else [])]):
        # As schema.read_features: a row group with a text of no known form all heads answer.
        if says and len(forms) == 1 and not table[schema.IS_PAIR].null_count:
            fits = table[schema.IS_PAIR]
            table = table.filter(fits if forms == {"pair"} else pc.invert(fits))
        found += table[schema.ID].to_pylist()
    return found
