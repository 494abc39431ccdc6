"""Rows that a program has in memory, by what they can do: none of their libraries is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.training.data.class_names import names_of_features
from bitheads.training.data.columns import COLUMN_OF, PAIR, TEXT, Columns, choose_labelled
from bitheads.training.data.rows import Rows, rows_of_arrow, rows_of_objects

SHOWN = (
    "a list of dicts, a list of (text, label) or ((text_a, text_b), label), a pandas or polars "
    "DataFrame, a pyarrow Table, or a Dataset of Hugging Face"
)


def rows_in_memory(rows: Any, kind: str | None, name: str) -> Rows:
    """Labelled rows of any library; see `labelled_from`.

    Raises InputError for what has no rows, and for columns that are not right.
    """
    path, choose = Path(name), partial(choose_labelled, kind=kind)
    if isinstance(rows, str | bytes | Mapping):
        raise _misfit(name, rows)
    if hasattr(rows, "collect"):  # a lazy frame, which warns if it is asked for its columns
        raise InputError(f"{name}: got a {type(rows).__name__}, expected its rows. Collect it.")
    if getattr(rows, "features", None) is not None and hasattr(rows, "column_names"):
        return _of_dataset(path, rows, kind)
    if hasattr(rows, "schema") and hasattr(rows, "column_names"):
        names = tuple(rows.column_names)
        return rows_of_arrow(path, rows, names, choose(name, names))
    if hasattr(rows, "columns"):
        names = tuple(map(str, rows.columns))
        columns = choose(name, names)
        values = list(zip(*(rows[column].to_list() for column in columns.names), strict=True))
        return Rows(path, "row", names, columns, range(len(values)), values)
    if not isinstance(rows, Iterable):
        raise _misfit(name, rows)
    items = list(rows)
    if items and all(isinstance(item, Mapping) for item in items):
        return rows_of_objects(path, "row", enumerate(items), choose)
    return _of_tuples(path, items, kind)


def _of_dataset(path: Path, dataset: Any, kind: str | None) -> Rows:
    columns = choose_labelled(str(path), tuple(dataset.column_names), kind)
    # Other columns may be pictures that would be decoded, and other formats give tensors.
    plain = dataset.select_columns(list(columns.names)).with_format(None)
    values = [tuple(row[name] for name in columns.names) for row in plain]
    names = tuple(dataset.column_names)
    class_names = names_of_features(dataset.features.to_dict())
    return Rows(path, "row", names, columns, range(len(values)), values, "", class_names)


def _of_tuples(path: Path, items: Sequence[Any], kind: str | None) -> Rows:
    form = None
    values = []
    for row, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise _misfit(f"{path}, row {row}", item)
        text, label = item
        is_pair = isinstance(text, tuple | list) and len(text) == 2
        if form is None:
            form = is_pair
        if is_pair != form:
            raise InputError(
                f"{path}, row {row}: got the text {text!r:.60}, expected "
                f"{'a pair of texts' if form else 'one text'} as in row 0. Train a head on single "
                "texts or on pairs."
            )
        values.append((*(text if is_pair else (text,)), label))
    kind = kind or _kind_of([value[-1] for value in values])
    columns = Columns(PAIR if form else TEXT, COLUMN_OF[kind], kind)
    return Rows(path, "row", (), columns, range(len(values)), values)


def _kind_of(labels: Sequence[Any]) -> str:
    """Lists are sets of labels, or spans; numbers of which one has decimals are scores."""
    lists = [label for label in labels if isinstance(label, list | tuple)]
    if any(isinstance(item, Mapping) for items in lists for item in items):
        return "token_label"
    if any(not isinstance(label, str) and hasattr(label, "__len__") for label in labels):
        return "multi_label"
    fractions = (isinstance(label, Real) and not isinstance(label, Integral) for label in labels)
    return "regression" if any(fractions) else "single_label"


def _misfit(place: str, got: Any) -> InputError:
    return InputError(
        f"{place}: got {got!r:.60}, a {type(got).__name__}, expected {SHOWN}. Convert it; of a "
        "dict of splits pass one."
    )
