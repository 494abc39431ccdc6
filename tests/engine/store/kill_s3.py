"""A command on a store in a bucket, to be killed with -9: a line after each file that changed.

kill_s3.py append|replace|compact|delete URI LEASE_S
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from store_cases import make_features, make_ids, make_spec

from bitheads.engine.store import FeatureStore, StoreWriter, compact, delete, lease
from bitheads.engine.store.folder import Aside, Folder

PARTS, PART_TEXTS = 6, 40
GONE = make_ids(200)[::7]


def append(store: FeatureStore) -> None:
    with StoreWriter(store, "skip") as writer:
        for part in range(PARTS):
            features = make_features(make_spec(), PART_TEXTS, seed=part)
            writer.append(make_ids(PART_TEXTS, part * PART_TEXTS), features)
            writer.flush()


def replace(store: FeatureStore) -> None:
    with StoreWriter(store, "replace") as writer:
        for part in (1, 3):
            features = make_features(make_spec(), PART_TEXTS, seed=50 + part)
            writer.append(make_ids(PART_TEXTS, part * PART_TEXTS), features)
            writer.flush()
        writer.append(make_ids(1), make_features(make_spec(), 1, seed=60))


RUNS: dict[str, Callable[[FeatureStore], Any]] = {
    "append": append,
    "replace": replace,
    "compact": compact,
    "delete": lambda store: delete(store, GONE),
}


def telling(do: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        done = do(*arguments)
        print("changed", flush=True)
        return done

    return call


def main(command: str, uri: str, lease_s: str) -> None:
    lease.LEASE_S = float(lease_s)
    Aside.publish = telling(Aside.publish)  # type: ignore[method-assign]
    Folder.remove = telling(Folder.remove)  # type: ignore[method-assign]
    RUNS[command](FeatureStore(uri, make_spec()))


if __name__ == "__main__":
    main(*sys.argv[1:])
