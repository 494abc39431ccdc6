"""Keeps the features of texts in a store and answers a task for all of them: no encoder runs."""

import sys
import tempfile
from collections import Counter

from bitheads import Engine
from bitheads.engine.store import FeatureStore, StoreWriter

TEXTS = {
    "a1": "What a lovely film.",
    "a2": "The plot makes no sense.",
    "a3": "An hour too long, and not one line worth keeping.",
    "a4": "I laughed, I cried, I went again.",
}


def main(bundle: str = "bundles/all-MiniLM-L6-v2") -> None:
    with tempfile.TemporaryDirectory() as folder, Engine.load(bundle) as engine:
        features = engine.encode(list(TEXTS.values()))
        store = FeatureStore(f"{folder}/features", engine.spec)
        with StoreWriter(store) as writer:
            writer.append(list(TEXTS), features)

        # Another day, another program, and a task that nobody had thought of:
        store = FeatureStore(f"{folder}/features")
        print(f"{len(store)} texts, {store.info().bytes} bytes")
        counts: Counter[str | None] = Counter()
        for rows in store.scan():
            answers = engine.predict_features(rows.features, ["sentiment"])["sentiment"]
            counts.update(answers.top)
            for name, label in zip(rows.ids.to_pylist(), answers.top, strict=True):
                print(name, label)
        print(dict(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
