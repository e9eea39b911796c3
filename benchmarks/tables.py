"""Write tables of README.md, docs/performance.md and docs/results.md, and a line of each config, from results/.

    python benchmarks/tables.py

A test checks that they are current.
"""

from __future__ import annotations

import json
import re
from statistics import mean

import shipped
from record import RESULTS, ROOT, read

from graphcl.report import Report, control, line_of, load_report, shown, unique, usual_seeds

PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "results.md")


def tables() -> dict[str, str]:
    """Markdown of each table whose results are there."""
    made = {}
    if "quickstart" in shipped.measured():
        made["quickstart"] = quickstart(shipped.measured()["quickstart"])
    if read("node-level"):
        made["nodes"] = nodes(load_report("node-level", RESULTS / "node-level.jsonl"))
    if read("epochs"):
        made["epochs"] = epochs(read("epochs"))
    if (RESULTS / "bench.json").exists():
        result = json.loads((RESULTS / "bench.json").read_text())
        made |= {"bench": bench(result), "growth": growth(result)}
    if (RESULTS / "bench-same-memory.json").exists():
        made["bench-same-memory"] = bench(json.loads((RESULTS / "bench-same-memory.json").read_text()), short=True)
    if read("molecules-finetune"):
        made["molecules-gains"] = gains(load_report("molecules-finetune", RESULTS / "molecules-finetune.jsonl"))
    if read("molecules-size"):
        made["molecules-size"] = by_size(read("molecules-size"))
    return made


SIX = ("bbbp", "sider", "tox21", "toxcast", "hiv", "muv")  # whose averages are published


def gains(report: Report) -> str:
    """Points of ROC-AUC that fine-tuned weights are above the network from scratch, over the seeds that both have."""
    lines, seeds = [], dict.fromkeys(SIX, "")
    for protocol, rule in (("finetune-last/clean", "last epoch"), ("finetune/clean", "best on validation")):
        entries = report.entries(protocol, "roc_auc")
        for method in unique(name for name, _ in entries):
            found = {}
            for data in SIX:
                entry = entries.get((method, data))
                scratch = control(entries, entry) if entry else {}
                shared = sorted(entry.values.keys() & scratch.keys()) if entry else []
                if entry and shared:
                    found[data] = 100 * mean(mean(entry.values[seed]) - mean(scratch[seed]) for seed in shared)
                    seeds[data] = f"{len(shared)}"
            if found:
                whole = f"{mean(found.values()):+.1f}" if len(found) == len(SIX) else ""
                cells = [f"{found[data]:+.1f}" if data in found else "" for data in SIX]
                lines.append(line_of([f"`{method}`", rule, *cells, whole]).replace("| -", "| −"))
    head = [line_of(["method", "epoch", *SIX, "mean"]), "|---" * (3 + len(SIX)) + "|"]
    return "\n".join([*head, line_of(["", "seeds", *seeds.values(), ""]), *lines])


def by_size(rows: list[dict]) -> str:
    """Scores of the frozen probe by the molecules that each method has seen."""
    metrics = {row["data"]: row["metric"] for row in rows}
    heads = [f"{name}, {metric.upper().replace('_', '-')}" for name, metric in metrics.items()]
    lines = [line_of(["method", "molecules seen", *heads]), "|---" * (2 + len(heads)) + "|"]
    for method, seen in dict.fromkeys((row["method"], row["seen"]) for row in rows):
        score = {row["data"]: row["score"] for row in rows if (row["method"], row["seen"]) == (method, seen)}
        shares = {name: 100 * value if metrics[name] == "roc_auc" else value for name, value in score.items()}
        cells = [
            f"{shares[name]:.{1 if metrics[name] == 'roc_auc' else 3}f}" if name in score else "" for name in metrics
        ]
        lines.append(line_of([f"`{method}`", f"{seen:,}", *cells]))
    return "\n".join([*lines, "", "![score by molecules seen](../results/molecules-size.png)"])


def quickstart(result: dict) -> str:
    """Scores, time and memory of the quickstart."""
    lines = ["| embedding | test accuracy (%), 10 splits with 20 labels a class |", "|---|---|"]
    for name, score in result["scores"].items():
        lines.append(f"| {name} | {100 * score['mean']:.1f} ± {100 * score['std']:.1f} |")
    lines += [
        "",
        f"Measured by `python benchmarks/shipped.py`: {result['seconds']:.0f} s of training, "
        f"{result['whole_seconds']:.0f} s with scores and pictures, {result['peak_memory_mb']:,} MB at the peak, "
        f"{result['threads']} threads ({result['machine']}; [results/configs.jsonl](results/configs.jsonl)).",
    ]
    return "\n".join(lines)


def nodes(report: Report) -> str:
    """Methods x data sets, with each method's own encoder untrained beside it."""
    entries = report.entries("linear/clean", "accuracy")
    methods, data = unique(name for name, _ in entries), unique(one for _, one in entries)
    seeds = usual_seeds(entries)
    lines = [line_of(["method", *(head for one in data for head in (one, "untrained"))])]
    lines.append("|---" * (1 + 2 * len(data)) + "|")
    for method in methods:
        cells = [f"`{method}`"]
        for one in data:
            entry = entries.get((method, one))
            sides = (entry.values, entry.untrained) if entry else ({}, {})
            cells += [shown(side, "accuracy", seeds) if side else "" for side in sides]
        lines.append(line_of(cells))
    note = f"Over {seeds} seed{'s' * (seeds > 1)} where no other number stands; in brackets over the splits of a seed."
    return "\n".join([*lines, "", note])


def epochs(rows: list[dict]) -> str:
    """Seconds of an epoch."""
    lines = ["| config | data | epoch (s, 1 thread) | items a second |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| `{row['config']}` | {row['data']} | {row['seconds']:.3f} | {row['items'] / row['seconds']:,.0f} |"
        )
    return "\n".join(lines)


def bench(result: dict, short: bool = False) -> str:
    """Ratios of `graphcl bench`, what they must be, and the machine's limits; `short`: no limits."""
    head = ["row", "what", "on", "ratio", "needs", "aims at", "holds", "of the machine's limit"]
    lines: list[list[str]] = []
    elsewhere: dict[str, list[str]] = {}
    for row in result["rows"]:
        sign, holds = "≤" if row["at_most"] else "≥", {None: "", True: "yes", False: "**no**"}[row["ok"]]
        bounds = ["" if row[key] is None else f"{sign} {row[key]:g}" for key in ("floor", "stretch")]
        cells = [f"`{row['name']}`", row["what"], row["data"], f"{row['ratio']:.3g} x", *bounds, holds]
        cells.append(f"{row['of_limit']:.0%} of {row['limit']}" if "limit" in row else "")
        lines.append(cells[:-1] if short else cells)
        if (row["machine"], row["device"]) != (result["machine"], result["device"]):
            elsewhere.setdefault(f"{row['machine']}, {row['device']}", []).append(f"`{row['name']}`")
    limits = [
        f"{name} {value / 1e9:,.1f} {'GFLOP/s' if 'gemm' in name else 'GB/s'}"
        for name, value in result["limits"].items()
    ]
    machine = f"{result['machine']}, {result['device']}" + (f"; {', '.join(limits)}" if not short else "")
    for name, rows in elsewhere.items():
        machine += f". Measured on another machine, {name}: {', '.join(rows)}"
    columns = head[:-1] if short else head
    return "\n".join([line_of(columns), "|---" * len(columns) + "|", *map(line_of, lines), "", f"{machine}."])


def growth(result: dict) -> str:
    """Time and memory of an epoch by the size of the data."""
    series = {row["name"]: row["details"] for row in result["rows"] if "details" in row}
    lines = ["| row | items | epoch (s) | MB before | MB more |", "|---|---|---|---|---|"]
    for name, rows in series.items():
        for row in rows:
            figures = [f"{row[key]:,.0f}" for key in ("before_mb", "more_mb")]
            lines.append(f"| `{name}` | {row['items']:,} | {row['seconds']:.3g} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", "![time and memory](../results/growth.png)"]) if series else ""


def filled(text: str) -> str:
    """A page with its tables as results/ has them."""
    for name, table in tables().items():
        pattern = rf"(<!-- results: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text, flags=re.S)
    return text


def headed(name: str, text: str) -> str:
    """A config whose first lines end with its own time and score, if they were measured as it is now."""
    row = shipped.measured().get(name)
    head = re.match(r"(?:#[^\n]*\n)*", text)[0]  # type: ignore[index] # it matches nothing as well
    own = re.sub(r"# \d+ s, \d+ threads of [^\n]*\n", "", head) + (f"{shipped.line(row)}\n" if row else "")
    return own + text[len(head) :]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    for path in shipped.FOLDER.glob("*.yaml"):
        path.write_text(headed(path.stem, path.read_text(encoding="utf-8")), encoding="utf-8")
