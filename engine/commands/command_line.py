"""How every command line of the project ends, and what it says until then.

It ends with an exit code, and one line instead of a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from bitheads.engine.errors import BitheadsError
from bitheads.engine.process.any_text import print_any_text


def exit_code(run: Callable[[], None], interrupted: str = "interrupted") -> int:
    """Runs a command: 0 if it ends well, 1 for an error of ours, 130 for Ctrl-C.

    Args:
        interrupted: what is said after Ctrl-C.
    """
    print_any_text()
    try:
        run()
    except BitheadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0


def say(message: str) -> None:
    """Prints a line of progress on standard error, at once."""
    print(message, file=sys.stderr, flush=True)


def leave(code: int) -> NoReturn:
    """Ends the process; after Ctrl-C at once.

    Threads of a library that was stopped in its work, such as TensorRT's, may live on for a
    moment, and crash when the process is taken down around them.
    """
    if code == 130:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
