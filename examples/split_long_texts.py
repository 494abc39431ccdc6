"""Reads a text longer than the encoder does: as a whole in windows, and passage by passage."""

import sys

from bitheads import Engine

PRAISE = "The first act is a joy, and the cast is wonderful. "
BLAME = "The last hour is dull, badly cut, and far too long. "
PASSAGES = [PRAISE * 50, BLAME * 70]


def main(bundle: str = "bundles/all-MiniLM-L6-v2") -> None:
    text = "".join(PASSAGES)
    with Engine.load(bundle) as engine:
        # Cut: what is past the encoder's maximum length is not read, which `stats` counts.
        # Split: every window is a row of the encoder's, and heads read the tokens of all.
        for long_texts in ("cut", "split"):
            features = engine.encode([text], long_texts=long_texts)
            answer = engine.predict_features(features, ["sentiment"])["sentiment"]
            print(
                f"{long_texts}: {answer.top[0]} {answer.probabilities.max():.2f}, "
                f"{features.num_tokens[0]} tokens, windows: {features.stats.num_windows}, "
                f"truncated: {features.stats.num_truncated}"
            )
        for passage, label in zip(
            PASSAGES, engine.predict(PASSAGES, ["sentiment"])["sentiment"].top, strict=True
        ):
            print(f"{passage[:40]}...: {label}")


if __name__ == "__main__":
    main(*sys.argv[1:])
