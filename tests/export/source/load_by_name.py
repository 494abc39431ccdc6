"""Loads encoders by the names on standard input, as JSON; a process of its own, as huggingface_hub
reads its environment once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import load_encoder


def main() -> None:
    found = {}
    for name in json.load(sys.stdin):
        try:
            encoder = load_encoder(name)
        except ExportError as error:
            found[name] = {"error": str(error)}
            continue
        assert encoder.folder is not None
        found[name] = {
            "name": encoder.name,
            "source": encoder.source,
            "weights": encoder.weights_sha256,
            "usual_length": encoder.usual_length,
            "tokens": encoder.tokenizer("The Tide")["input_ids"],
            "files": sorted(path.name for path in Path(encoder.folder).iterdir()),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
