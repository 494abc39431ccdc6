"""What the README says about latency, memory and precisions on a CPU."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import duration, size, source


def latency(stored: dict[str, Any]) -> str:
    """Percentiles, and the first answer of a process."""
    result = stored["result"]
    rows = ["| one short text | p50 | p95 | p99 |", "|---|---:|---:|---:|"]
    names = {"predict": f"`predict`, {result['tasks']} tasks"}
    for name, percentiles in result["us"].items():
        cells = " | ".join(duration(percentiles[p]) for p in ("p50", "p95", "p99"))
        rows.append(f"| {names.get(name, name)} | {cells} |")
    first, later = result["start"]["first"], result["start"]["later"]
    rows += [
        "",
        f"{result['text_tokens']} tokens, {result['encoder']}, {result['backend']}, "
        f"{result['threads']} threads, {result['calls']} calls of each in turn. At p50 everything "
        f"but the encoder takes {duration(result['added_us'])}. From the start of a process to its "
        f"first answer: {first['first_answer_s']:.2f} s with an empty cache folder "
        f"({first['import_s']:.2f} s importing, {first['load_s']:.2f} s loading), then "
        f"{later['first_answer_s']:.2f} s ({later['load_s']:.2f} s loading).",
    ]
    return "\n".join([*rows, source(stored)])


def memory(stored: dict[str, Any]) -> str:
    """Peak memory by number of texts."""
    result = stored["result"]
    rows = [
        "| texts | a call | tokens | codes of a call | after loading | peak | times the second |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in result["runs"].items():
        cells = [
            *(f"{found[count]:,}" for count in ("texts", "texts_a_call", "tokens")),
            *(size(found[n]) for n in ("code_bytes_a_call", "loaded_rss_bytes", "peak_rss_bytes")),
            f"{result['times_warm'][name]:.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    backend = result["runs"]["few"]["backend"]
    rows += [
        "",
        f"Texts of mixed lengths ({result['data']}), {backend}, {result['threads']} threads, a "
        "process each, read from a file as they are needed; the codes of a call are part of the "
        "peak. The second is the first, five times over: what is taken once is kept.",
    ]
    return "\n".join([*rows, source(stored)])


def accuracy_by_precision(stored: dict[str, Any]) -> str:
    """Test accuracy of the shipped heads, and what the last precision costs on average."""
    result = stored["result"]
    names = [name for name in next(iter(result.values())) if name != "texts"]
    rows = [
        "| task | texts | " + " | ".join(names) + " |",
        "|---|---:|" + "---:|" * len(names),
    ]
    for task, found in result.items():
        cells = " | ".join(f"{100 * found[name]:.1f}" for name in names)
        rows.append(f"| {task} | {found['texts']:,} | {cells} |")
    means = [100 * sum(found[name] for found in result.values()) / len(result) for name in names]
    rows.append("| **mean** | | " + " | ".join(f"**{mean:.2f}**" for mean in means) + " |")
    return "\n".join([*rows, source(stored)])
