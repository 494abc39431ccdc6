"""Lines of JSON on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(*values: Any) -> None:
    """Lines of JSON on standard output, in UTF-8 whatever its encoding is (RFC 8259)."""
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # replaced by something that takes text alone
        sys.stdout.writelines(lines)
    else:
        # Half a character, as a file's name may have, is then an escape of JSON's.
        binary.writelines(line.encode("utf-8", "backslashreplace") for line in lines)
    sys.stdout.flush()
