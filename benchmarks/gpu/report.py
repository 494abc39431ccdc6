"""The report for people: what was measured, what was not and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.pages.markdown import table

Rows = list[list[str]]


def render(record: Mapping[str, Any]) -> str:
    """A stored result (benchmarks.record) as Markdown."""
    result = record["result"]
    machine = result["machine"]
    smi = machine.get("nvidia_smi") or {}
    lines = [
        f"# bitheads on {machine['name']}",
        "",
        f"{record['date']}, commit {record['commit']}, `{record['command']}`.",
        "",
        f"- GPU: {machine['name']}, compute capability {machine['compute_capability']}, "
        f"{machine['memory_gb']} GB",
        f"- driver: {smi.get('driver_version', 'unknown')}, CUDA {machine['cuda_of_driver']}; "
        f"power limit {smi.get('power.limit', 'unknown')}",
        f"- host: {record['cores']} cores of {record['cpu']}, Python {record['python']}",
        "- versions: " + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()),
    ]
    for name, encoder in result["encoders"].items():
        lines += ["", f"## {name}"]
        lines += _section("Plan", encoder.get("plan"), _plan)
        lines += _contenders(encoder.get("speed"))
        lines += _section("Accuracy", encoder.get("accuracy"), _accuracy)
        lines += _section("Share of pool_and_pack", encoder.get("share"), _share)
        lines += _section("Heads by number of tasks", encoder.get("heads"), _heads)
    lines += _section("pool_and_pack beside a copy", result.get("kernels"), _kernels)
    if missing := not_measured(result):
        lines += ["", "## Not measured", "", *(f"- {line}" for line in missing)]
    return "\n".join(lines) + "\n"


def not_measured(tree: Any, path: Sequence[str] = ()) -> list[str]:
    """A line for each measurement that was skipped or failed, with its reason."""
    if not isinstance(tree, Mapping):
        return []
    if tree.get("status") in ("skipped", "failed"):
        return [f"**{', '.join(path)}** {tree['status']}: {tree['reason']}"]
    found = []
    for name, value in tree.items():
        step = () if name in ("result", "encoders", "contenders") else (str(name).strip(),)
        found += not_measured(value, (*path, *step))
    return found


def measured(outcome: Any) -> Any:
    """The result of a measurement, or None if there is none."""
    if isinstance(outcome, Mapping) and outcome.get("status") == "measured":
        return outcome["result"]
    return None


def _section(title: str, outcome: Any, show: Callable[[Any], list[str]]) -> list[str]:
    result = measured(outcome)
    return [] if result is None else ["", f"### {title}", "", *show(result)]


def _plan(plan: Mapping[str, Any]) -> list[str]:
    built = "found" if plan["build_s"] is None else f"built in {plan['build_s']:.0f} s"
    return [
        f"{plan['flavour']} {plan['version']}, {plan['mb']} MB, {built}; profiles "
        + "; ".join(plan["profiles"])
    ]


def _contenders(outcomes: Mapping[str, Any] | None) -> list[str]:
    results = {name: r for name, o in (outcomes or {}).items() if (r := measured(o))}
    if not results:
        return []
    rows: Rows = []
    for name, result in results.items():
        for length, ms in result["latency"].items():
            row = [name, length, *(f"{ms[f'p{q}_ms']:.3g}" for q in (50, 95, 99))]
            rows.append([*row, f"{result['load_s']:.3g}", f"{result['first_call_s']:.3g}"])
    lines = [
        "", "### One text, all heads", "",
        *table(["", "tokens", "p50 ms", "p95 ms", "p99 ms", "load s", "first call s"], rows),
    ]  # fmt: skip
    rows = []
    for name, result in results.items():
        for texts, by_budget in result["throughput"].items():
            for budget, outcome in by_budget.items():
                if (r := measured(outcome)) is None:
                    continue
                numbers = [
                    r["texts_per_s"],
                    r["tokens_per_s"],
                    r["tokens_per_s_without_tokenizing"],
                ]
                rows.append([name, texts, budget, *(f"{number:,.0f}" for number in numbers)])
    head = ["", "texts", "tokens per call", "texts/s", "tokens/s", "tokens/s without tokenizing"]
    return [*lines, "", "### Many texts, all heads", "", *table(head, rows)]


def _accuracy(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, outcome in result["contenders"].items():
        r = measured(outcome)
        if r is None or "same_label" not in r:
            continue
        signs = f"{r['sign_agreement']:.3%}" if "sign_agreement" in r else ""
        worst = f"{r['same_label_of_worst_task']:.1%} ({r['worst_task']})"
        rows.append([name, signs, f"{r['same_label']:.2%}", worst])
    head = ["", "signs as in torch fp32", "same label as the CPU", "worst task"]
    return [f"{result['texts']} texts, {result['tasks']} tasks.", "", *table(head, rows)]


def _share(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{result['share']:.1%} of the encoder's time, which is "
        f"{result['encoder_ns_per_token']:,.0f} ns per token ({result['tokens']:,} tokens)."
    ]


def _heads(result: Mapping[str, Any]) -> list[str]:
    rows = [
        [tasks, f"{r['ms']:.3g}", f"{r['ns_per_token']:.3g}", f"{r['ns_per_token_and_task']:.3g}"]
        for tasks, outcome in result.items()
        if (r := measured(outcome))
    ]
    return table(["tasks", "ms per call", "ns per token", "ns per token and task"], rows)


def _kernels(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for shape, outcome in result.items():
        if (r := measured(outcome)) is None:
            continue
        rows.append(
            [f"{shape}: copy", f"{r['copy_us']:,.0f}", f"{r['copy_gb_per_s']:,.0f}", "1.00"]
        )
        for mode, m in r["modes"].items():
            row = [f"{m['us']:,.0f}", f"{m['gb_per_s']:,.0f}", f"{m['times_a_copy']:.2f}"]
            rows.append([f"{shape}: {mode}", *row])
    return table(["", "us", "GB/s read and written", "times a copy"], rows)
