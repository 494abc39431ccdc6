"""A frozen dataclass from a TOML file: its fields are the keys, and its types and defaults hold."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from bitheads.training.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Config = TypeVar("Config")


def read_config(path: Path, kind: type[Config]) -> Config:
    """Reads the file as a `kind`, a dataclass whose every field has a default.

    A field may be a bool, int, float, string or enum, or None where the key is left out, a tuple
    of them (an array in the file), a mapping of names to them, or another dataclass (tables).

    Raises ConfigError for a file that is not TOML, for keys that the dataclass does not have, and
    for values of another type. What the dataclass raises for values out of range gets the file's
    name.
    """
    values = read_toml(path)
    try:
        return make_config(kind, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a file. Raises ConfigError for one that is not TOML."""
    try:
        # With a byte order mark, too, which editors write and TOML does not have.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Name a TOML file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error}). Correct that line.") from error


def make_config(kind: type[Config], values: Mapping[str, Any], table: str = "") -> Config:
    """Makes a `kind` of a table's values; see `read_config`, also for what it raises.

    Args:
        table: its name, "" for the file itself.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    prefix = f"{table}." if table else ""
    if unknown := sorted(set(values) - set(names)):
        raise ConfigError(
            f"got the unknown keys {', '.join(prefix + name for name in unknown)}, expected some "
            f"of {', '.join(names)}. Correct or remove them."
        )
    converted = {
        name: _converted(value, hints[name], prefix + name) for name, value in values.items()
    }
    try:
        return kind(**converted)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def _converted(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _converted(value, hint, name)
    if origin is tuple and isinstance(value, list):
        return tuple(_converted(item, arguments[0], name) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {key: _converted(item, arguments[1], f"{name}.{key}") for key, item in value.items()}
    if is_dataclass(hint) and isinstance(value, dict):
        return make_config(hint, value, name)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, Enum):
        words = [word.value for word in hint]
        if value not in words:
            raise ConfigError(f"{name}: got {value!r}, expected one of {words}.")
        return hint(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:  # not isinstance: true is no number
        shown = {tuple: "an array", Mapping: "a table"}.get(
            origin
        ) or f"a value of type {hint.__name__}"
        raise ConfigError(f"{name}: got {value!r}, expected {shown}.")
    return value
