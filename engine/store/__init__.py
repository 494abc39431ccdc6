"""The feature store: codes of texts as Parquet files in a folder, on a disk or in a cloud.

from bitheads.engine.store import FeatureStore

store = FeatureStore("features")
for rows in store.scan():
    rows.ids, rows.features

docs/store.md has the format, and how other programs read it.
"""

from bitheads.engine.process.install import how_to_install

try:
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"bitheads.engine.store needs pyarrow, which cannot be loaded ({error}). Type: "
        f"{how_to_install('store')}"
    ) from error

from bitheads.engine.store.compact import compact
from bitheads.engine.store.delete import Deleted, DeletedAnswers, DeletedPart, delete
from bitheads.engine.store.embedding_column import EmbeddingColumn
from bitheads.engine.store.part import Part
from bitheads.engine.store.read_answers import Answers
from bitheads.engine.store.store import FeatureStore, Rows, StoreInfo
from bitheads.engine.store.text_hash import hash_of
from bitheads.engine.store.verify import verify
from bitheads.engine.store.verify_answers import verify_answers
from bitheads.engine.store.writer import StoreWriter

__all__ = [
    "Answers",
    "Deleted",
    "DeletedAnswers",
    "DeletedPart",
    "EmbeddingColumn",
    "FeatureStore",
    "Part",
    "Rows",
    "StoreInfo",
    "StoreWriter",
    "compact",
    "delete",
    "hash_of",
    "verify",
    "verify_answers",
]
