"""docs/troubleshooting.md has every message, and none that nobody raises."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from bitheads.engine import errors
from bitheads.engine.serve.errors import of_engine

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
VARIES = "\N{HORIZONTAL ELLIPSIS}"
OURS = re.compile(r"(\w+Error|_refuse)$")
NEVER = {"no way to compute the encoder was given."}
"""What no caller can bring about."""

NOT_SHOWN = {
    "AttributeError",
    "MemoryError",
    "OSError",
    "PermissionError",
    "RuntimeError",
    "TypeError",
    "ValueError",
}
"""Raised for others of our own functions, which make one of our errors of them, or at a caller
of the kernels' binding."""


def template(node: ast.expr) -> str:
    """A message with the ellipsis for what differs from case to case."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(value.value) if isinstance(value, ast.Constant) else VARIES for value in node.values
        )
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return VARIES


def raised() -> dict[str, str]:
    """Message -> where it is raised, of every error that a user can meet."""
    found = {}
    for top in ("engine", "export", "training"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                call = node.exc if isinstance(node, ast.Raise) else node
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                    continue
                name = call.func.id
                if not OURS.match(name) or name in NOT_SHOWN:
                    continue
                at = 1 if name == "_refuse" else 0
                if len(call.args) <= at:
                    continue
                message = template(call.args[at])
                if name == "_refuse":
                    message = f"encoder {VARIES}: {message}"
                # Those of HTTP have codes; an error that only wraps another has its message.
                wraps = message in (f"encoder {VARIES}: {VARIES}", f"head {VARIES}: {VARIES}")
                if name != "HttpError" and says_what(message) and not wraps:
                    found[message] = f"{path.relative_to(ROOT)}:{call.lineno}"
    return found


def shown() -> list[str]:
    """The messages in the page."""
    return [code for code in re.findall(r"`([^`\n]+)`", PAGE) if VARIES in code]


def says_what(message: str) -> bool:
    """Whether enough of it is always the same: `...: got ..., expected ...` could be anything."""
    same = re.sub(r"\b(got|expected)\b|[^a-z]", "", message, flags=re.IGNORECASE)
    return len(same) >= 4 or not message.startswith(VARIES)


def matches(pattern: str, message: str) -> bool:
    literal = [re.escape(part) for part in re.split(rf" ?{VARIES} ?", pattern)]
    return re.match(".*?".join(literal), message, re.DOTALL) is not None


def test_there_are_messages() -> None:
    assert len(raised()) > 250
    assert len(shown()) > 150


def test_every_message_is_there() -> None:
    patterns = [pattern for pattern in shown() if says_what(pattern)]
    left = {
        message: where
        for message, where in raised().items()
        if message not in NEVER and not any(matches(pattern, message) for pattern in patterns)
    }
    assert left == {}


def test_every_message_is_raised() -> None:
    messages = [*raised()]
    stale = [
        pattern
        for pattern in shown()
        if says_what(pattern) and not any(matches(pattern, message) for message in messages)
    ]
    assert stale == []


def test_every_code_of_the_server_is_there() -> None:
    codes = set()
    for path in (ROOT / "engine" / "serve").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "HttpError":
                status, code = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    codes.add((status.value, code.value))
    for kind in (errors.UnknownTaskError, errors.SpecMismatchError, errors.InputError):
        made = of_engine(kind("x"))
        codes.add((made.status, made.code))
    rows = re.findall(r"^\| (\d{3}) \| ([^|]+) \|", PAGE, re.MULTILINE)
    said = {(int(status), code) for status, cell in rows for code in re.findall(r"`(\w+)`", cell)}
    assert codes <= said


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """Of each error of the package its parent and its place, in the docstring of engine.errors."""
    assert errors.__doc__ is not None
    drawn, path = [], []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^([ │├└─]*)(\w+Error)\b", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        path = [*path[:depth], found[2]]
        drawn.append((found[2], path[-2] if depth else None))
    defined = {"BitheadsError": None}
    for top in ("engine", "export", "training"):
        for file in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    defined[node.name] = ast.unparse(node.bases[0]) if node.bases else None
    ours = {"BitheadsError"}
    while more := {name for name, base in defined.items() if base in ours} - ours:
        ours |= more
    assert dict(drawn) == {
        name: defined[name] if name != "BitheadsError" else None for name in ours
    }
    assert len(drawn) == len(ours)
