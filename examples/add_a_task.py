"""Trains a head on a table of labelled texts and asks it at once: the encoder stays as it is."""

import csv
import sys
import tempfile
from itertools import product
from pathlib import Path

from bitheads import Engine
from bitheads.training.heads.config import FitConfig, HeadConfig
from bitheads.training.heads.train_head import train_head

WHAT = ["the server", "my phone", "the heating", "our database", "the front door", "the printer"]
SAID = {
    "urgent": ["{} is down, we cannot work", "help, {} is on fire", "fix {} right now, please"],
    "later": [
        "{} could be a bit faster",
        "some day {} may want a new colour",
        "{} is fine, thanks",
    ],
}


def write_table(path: Path, what: list[str]) -> Path:
    """A table as `bitheads train-head` reads it: a header, and a row per text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "text"])
        for label, patterns in SAID.items():
            table.writerows([label, p.format(thing)] for p, thing in product(patterns, what))
    return path


def main(bundle: str = "bundles/all-MiniLM-L6-v2") -> None:
    with tempfile.TemporaryDirectory() as folder, Engine.load(bundle) as engine:
        config = HeadConfig(
            task="urgency",
            train=write_table(Path(folder, "train.csv"), WHAT[:4]),
            dev=write_table(Path(folder, "dev.csv"), WHAT[4:]),
            output=Path(folder, "urgency.safetensors"),
        )
        metrics = train_head(engine, config, FitConfig(batch_size=8)).head.metrics
        print(f"accuracy on dev: {metrics['dev_accuracy']:.2f}")
        engine.add_head(config.output)
        for text in ("the lights went out, come at once", "a nicer font would be good"):
            answer = engine.predict([text], ["urgency"])["urgency"]
            print(f"{text}: {answer.top[0]} {answer.probabilities.max():.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
