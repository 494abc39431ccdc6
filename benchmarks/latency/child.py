"""One process of `python -m benchmarks latency`: from nothing to the first answer.

Nothing of the project is imported before the clock runs.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Loads a bundle as a user would and answers one text with all heads."""
    begun_s = time.monotonic()
    from bitheads import Engine

    imported_s = time.monotonic()
    engine = Engine.load(request["bundle"], threads=request["threads"])
    loaded_s = time.monotonic()
    engine.predict([request["text"]])
    answered_s = time.monotonic()
    return {
        "answered_s": answered_s,
        "import_s": imported_s - begun_s,
        "load_s": loaded_s - imported_s,
        "predict_s": answered_s - loaded_s,
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
