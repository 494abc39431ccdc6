"""The names of classes that Hugging Face datasets keep as numbers, from what goes with a table.

`features` is the JSON that datasets writes of its columns' types, into Parquet files as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ClassNames = dict[str, tuple[str, ...]]
"""Column -> the names that the numbers in it stand for, in order."""


def names_of_metadata(metadata: Mapping[bytes, bytes] | None) -> ClassNames:
    """Of an Arrow schema's metadata; none if no such dataset wrote it."""
    try:
        return names_of_features(json.loads((metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def names_of_features(features: object) -> ClassNames:
    """Of columns of class labels, and of lists of such."""
    found = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        names = _names(feature)
        if names is not None:
            found[column] = names
    return found


def _names(feature: Any) -> tuple[str, ...] | None:
    if isinstance(feature, list) and len(feature) == 1:  # a list of them, in earlier versions
        (feature,) = feature
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
        return None
    return _names(feature.get("feature", feature.get("label")))  # in a list, or in a span
