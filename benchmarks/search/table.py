"""Search: what is found by what is kept of a text, and times of indexes."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import duration, size, source, table

PAGE = "docs/search.md"

KEPT = {
    "int8": ("int8 embeddings, all compared", 8.0),
    "signs": ("signs of the embedding (`ubinary`), Hamming distance", 1.0),
    "signs, then the float query": (
        "signs, the nearest {candidates} compared with the float query",
        1.0,
    ),
    "signs, then int8": ("signs, the nearest {candidates} compared by int8 embeddings", 9.0),
    "signs, then float32": ("signs, the nearest {candidates} compared by float32 embeddings", 33.0),
    "majority": ("majority of the tokens' codes, Hamming distance", 1.0),
    "majority, then float32": (
        "majority of the codes, the nearest {candidates} compared by float32 embeddings",
        33.0,
    ),
}
"""Way of benchmarks.search.ways -> in words, and bits per number that a text's row has."""


def found(stored: dict[str, Any]) -> str:
    """A row per way to search."""
    result = stored["result"]
    rows = []
    for way, recall in result["recall"].items():
        words, bits = KEPT[way]
        name = words.format(candidates=result["candidates"])
        rows.append([name, size(bits * result["dim"] / 8), f"{recall:.1%}"])
    nearest = result["nearest"]
    lines = [
        *table(["of each text", "kept", f"of the {nearest} nearest"], rows),
        "",
        f"{result['bundle']}, {result['texts']:,} texts of {result['characters']:.0f} characters "
        f"on average ({result['source']}), {result['queries']:,} others as queries. The "
        f"{nearest} nearest are those by the cosine of float32 embeddings, "
        f"{size(4 * result['dim'])} per text. One bit per number is {size(result['dim'] / 8)}.",
    ]
    return "\n".join([*lines, source(stored)])


def times(stored: dict[str, Any]) -> str:
    """A row per index."""
    result = stored["result"]
    timed, dim = result["timed"], result["dim"]
    indexes = timed["indexes"]
    rows = []
    for name, index in indexes.items():
        is_float = name == "IndexFlatIP"
        rows.append(
            [
                f"{name} ({'float32' if is_float else 'signs'})",
                f"{index['rows']:,}",
                size(dim * 4 if is_float else dim / 8),
                "" if is_float else f"{index['recall']:.1%}",
                duration(index["us"]),
                f"{duration(index['us_min'])} to {duration(index['us_max'])}",
            ]
        )
    versions = ", ".join(f"{name} {version}" for name, version in timed["versions"].items())
    flat, floats = indexes["IndexBinaryFlat"], indexes["IndexFlatIP"]
    per_row = floats["us"] / floats["rows"] / (flat["us"] / flat["rows"])
    lines = [
        *table(
            ["index", "rows", "per row", "of the 10 nearest by signs", "a query", "from, to"], rows
        ),
        "",
        f"One query at a time on one core, which wants {result['candidates']} rows by signs, "
        f"{result['nearest']} by floats; the median and the extremes of all rounds ({versions}). "
        f"A row of signs takes 1/{per_row:.0f} of the "
        f"time of a row of floats. Comparing the {result['candidates']} rows with the float query "
        f"in NumPy takes {duration(timed['rescoring']['us'])} more. The rows are the texts' above "
        f"over and over, each time with {timed['flipped']:.0%} of the bits turned over: what an "
        "index finds of other collections is other. Of rows at one distance any is right.",
    ]
    return "\n".join([*lines, source(stored)])


BLOCKS = (Block("search", found, page=PAGE), Block("search_times", times, page=PAGE))
