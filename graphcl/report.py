"""Tables of a results file: mean and spread, paired tests, ranks; marks on what the code has left behind.

One table a protocol, so figures of different rules never stand in one column. `±` is the standard deviation over the
seeds (of their means over the folds), the number in brackets the mean over the seeds of that over the folds.
"""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

from graphcl.benchmark import RULES, checked_jobs
from graphcl.benchmark_config import Benchmark, load_benchmark
from graphcl.evaluate.scores import NAMES, PLAIN
from graphcl.ledger import read_rows
from graphcl.paired import over_seeds, paired
from graphcl.stale import cell_of, changed, newest, sources_of, split_of

Row = dict[str, Any]
LOWER_IS_BETTER = {"rmse", "mae"}
STALE = "†"
PARTS = ("row", "data", "encoder", "seed", "column", "protocol", "version", "baseline", "config", "commit")


@dataclass
class Entry:
    """One row of a table on one data set: its scores by seed, one value a fold."""

    row: str
    data: str
    metric: str
    baseline: str | None
    split: str
    values: dict[int, list[float]] = field(default_factory=dict)
    untrained: dict[int, list[float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean over the seeds and folds."""
        return over_seeds(self.values)[0]


@dataclass
class Report:
    """What a results file says: rows under today's names, by column; `missing` were not run yet, `older` left out."""

    name: str
    about: str
    figure: str
    rows: list[Row]
    missing: int
    older: int = 0

    @property
    def tables(self) -> list[tuple[str, str]]:
        """Protocol and metric of each table, in the file's order."""
        scored = [row for row in self.rows if "error" not in row]
        return list(dict.fromkeys((row["column"], metric) for row in scored for metric in row["score"]["values"]))

    def rule_of(self, column: str) -> Row:
        """A row of the column's own protocol; baselines may have brought their own."""
        rows = [row for row in self.rows if row["column"] == column]
        return next((row for row in rows if not own_rule(row)), rows[0])

    def entries(self, column: str, metric: str) -> dict[tuple[str, str], Entry]:
        """The entries of a table, by row and data set."""
        made: dict[tuple[str, str], Entry] = {}
        for row in self.rows:
            if row["column"] != column or "error" in row or metric not in row["score"]["values"]:
                continue
            name = row["row"] if row["encoder"] is None else f"{row['row']}, {row['encoder']}"
            new = Entry(name, row["data"], metric, row["baseline"], split_of(row))
            entry = made.setdefault((name, row["data"]), new)
            entry.values[row["seed"]] = row["score"]["values"][metric]
            if "untrained" in row:
                entry.untrained[row["seed"]] = row["untrained"]["values"][metric]
            entry.rows.append(row)
        return made


# --- reading ----------------------------------------------------------------------------------------------------------


def load_report(name: str, results: Path | None = None) -> Report:
    """The report of a benchmark file (its name or path; rows in results/<name>.jsonl), or of a results file alone.

    Of several rows for one thing the last counts; a results file alone gives the newest settings of each cell. Raises
    ValueError where rows of different versions of a protocol would stand together, naming them, and for a line that
    is no row.
    """
    if name.endswith(".jsonl"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no results file {name!r}; `graphcl benchmark FILE.yaml` writes one")
        rows = whole_rows(path)
        if not rows:
            raise ValueError(f"{name} has no rows; `graphcl benchmark FILE.yaml` writes them")
        kept = newest(rows)
        last = {(*cell_of(row), row["seed"]): row for row in kept}
        report = Report(path.stem, "", "points", list(last.values()), 0, len(rows) - len(kept))
    else:
        benchmark = load_benchmark(name)
        if results is not None and not results.is_file():
            raise ValueError(f"no results file {str(results)!r}; `graphcl benchmark {name}` writes one")
        path = results or Path("results") / f"{benchmark.name}.jsonl"
        rows, missing = wanted_rows(benchmark, whole_rows(path))
        report = Report(benchmark.name, benchmark.about, benchmark.figure, rows, missing)
    check_versions(report.rows)
    return report


def whole_rows(path: Path) -> list[Row]:
    """The rows of a results file. Raises ValueError for one that lacks what a report reads, with its line."""
    rows = read_rows(path)
    for number, row in enumerate(rows, 1):  # every line is one
        parts = [*PARTS, "score"] if "error" not in row else PARTS
        if missing := [repr(part) for part in parts if part not in row]:
            raise ValueError(f"{path}: line {number} has no {', '.join(missing)}, as a row of results has; take it out")
    return rows


def wanted_rows(benchmark: Benchmark, rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows that belong to the file as it is now, under its names, and how many are missing."""
    last = {(row["hash"], row["protocol"]): row for row in rows}
    found, missing = [], 0
    for job in checked_jobs(benchmark):
        for task in job.tasks:
            row = last.get((task.hash, task.protocol))
            if row is None or not task.agrees(row):
                missing += 1
            else:
                names = {"row": job.row, "data": job.data, "encoder": job.encoder, "column": task.column}
                found.append(row | names)
    return found, missing


def check_versions(rows: Sequence[Row]) -> None:
    """Refuse rows of one protocol that were scored by different versions of it."""
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        by_version: dict[int, list[str]] = {}
        for row in rows:
            if row["protocol"] == protocol:
                by_version.setdefault(row["version"], []).append(f"{row['row']} on {row['data']}, seed {row['seed']}")
        if len(by_version) > 1:
            told = []
            for version, names in sorted(by_version.items()):
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                told.append(f"version {version}: {'; '.join(names[:3])}{more}")
            raise ValueError(
                f"rows of {protocol} come from different versions of the protocol and cannot be compared "
                f"({' | '.join(told)}); run the benchmark again, it redoes the older ones"
            )


# --- figures of the entries -------------------------------------------------------------------------------------------


def sign(metric: str) -> int:
    """1 where more is better, -1 where less is."""
    return -1 if metric in LOWER_IS_BETTER else 1


def ranks(entries: dict[tuple[str, str], Entry]) -> dict[str, float]:
    """Average rank over the data sets, 1 the best, of the rows that have a figure on each; none if splits are mixed."""
    names, data = unique(key[0] for key in entries), unique(key[1] for key in entries)
    whole = [name for name in names if all((name, one) in entries for one in data)]
    if len(whole) < 2 or mixed(entries):
        return {}
    columns = [rankdata([-sign(entries[name, one].metric) * entries[name, one].mean for name in whole]) for one in data]
    return {name: statistics.fmean(float(column[i]) for column in columns) for i, name in enumerate(whole)}


def best_rival(entries: dict[tuple[str, str], Entry], entry: Entry) -> Entry | None:
    """The best other row on the same data set and split."""
    place = (entry.data, entry.split)
    others = [other for other in entries.values() if (other.data, other.split) == place and other.row != entry.row]
    return max(others, key=lambda other: sign(other.metric) * other.mean) if others else None


def control(entries: dict[tuple[str, str], Entry], entry: Entry) -> dict[int, list[float]]:
    """Values of its encoder untrained; of ready weights those of the row that is one, on the same data and split."""
    if entry.untrained or entry.baseline is not None or is_untrained(entry):
        return entry.untrained
    place = (entry.data, entry.split)
    others = (other for other in entries.values() if (other.data, other.split) == place and is_untrained(other))
    return next((other.values for other in others), {})


def is_untrained(entry: Entry) -> bool:
    """Whether it is an encoder that nothing has trained."""
    return entry.rows[0].get("weights") == "untrained"


def mixed(entries: dict[tuple[str, str], Entry]) -> list[str]:
    """Data sets on which rows have different splits."""
    splits = {(entry.data, entry.split) for entry in entries.values()}
    return [one for one in unique(key[1] for key in entries) if sum(data == one for data, _ in splits) > 1]


def unit_of(metric: str) -> int:
    """100 for shares, which are shown in percent."""
    return 1 if metric in PLAIN else 100


def unique(names: Iterable[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(names))


# --- notes ------------------------------------------------------------------------------------------------------------


def split_notes(entries: dict[tuple[str, str], Entry]) -> list[str]:
    """Which split each data set has, or each row where they differ."""
    several = mixed(entries)
    places: dict[str, list[str]] = {}
    for entry in entries.values():
        place = f"`{entry.row}` on {entry.data}" if entry.data in several else entry.data
        places.setdefault(entry.split, []).append(place)
    told = [split + f" ({', '.join(unique(at))})" * (len(places) > 1) for split, at in places.items()]
    notes = [f"Split: {'; '.join(told)}."] if any(places) else []
    if several:
        notes[0] += (
            f" Rows of different splits on {', '.join(several)}: this table has no ranks, and rows are compared with "
            "those of their own split alone."
        )
    return notes


def staleness(entry: Entry) -> list[str]:
    """The reasons of its rows."""
    reasons = (changed(row["commit"], sources_of(row)) for row in entry.rows)
    return unique([reason for reason in reasons if reason])


# --- Markdown and CSV -------------------------------------------------------------------------------------------------


def markdown(report: Report, *, fold: bool = False) -> str:
    """All tables, and what is missing or failed.  fold: the tests of each are hidden behind a line to click on."""
    parts = [report.about] if report.about else []
    parts += [table(report, *each, fold=fold) for each in report.tables]
    failed = [row for row in report.rows if "error" in row]
    if failed:
        lines = [
            f"- {row['row']} on {row['data']}, seed {row['seed']}, {row['column']}: {_error(row)}" for row in failed
        ]
        parts.append("\n".join(["Failed:", "", *lines]))
    if report.older:
        parts.append(f"{report.older} rows of older settings were left out.")
    if report.missing:
        have = f"{len(report.rows)} of {report.missing + len(report.rows)} rows are there, the others were not run yet."
        parts.append(have if report.rows else "Not measured yet.")
    return "\n\n".join(parts)


def _error(row: Row) -> str:
    message = " ".join(row["error"]["message"].split())
    return f"{row['error']['class']}: {message[:200]}"


def table(report: Report, column: str, metric: str, *, fold: bool = False) -> str:
    """One protocol: rows x data sets with each row's own encoder untrained beside, then the tests, as in `markdown`."""
    entries = report.entries(column, metric)
    rule = report.rule_of(column)
    protocol = (
        f"version {rule['version']}" if column == rule["protocol"] else f"{rule['protocol']}, version {rule['version']}"
    )
    title = f"**{column}** ({protocol}), {NAMES.get(metric, metric)}: {statement_of(rule)}."
    names, data = unique(key[0] for key in entries), unique(key[1] for key in entries)
    beside = [one for one in data if any(entries[key].untrained for key in entries if key[1] == one)]
    rank, seeds = ranks(entries), usual_seeds(entries)
    head = ["method"]
    for one in data:
        head += [one, "untrained"] if one in beside else [one]
    lines = [line_of([*head, "rank"] if rank else head), "|---" * (len(head) + bool(rank)) + "|"]
    notes: dict[str, list[str]] = {}
    for name in names:
        cells = [f"`{name}`"]
        for one in data:
            entry = entries.get((name, one))
            cells.append(shown(entry.values, entry.metric, seeds) if entry else "")
            if entry and (reasons := staleness(entry)):
                cells[-1] += f" {STALE}"
                for reason in reasons:
                    notes.setdefault(reason, []).append(f"{name} on {one}")
            if one in beside:
                cells.append(shown(entry.untrained, entry.metric, seeds) if entry and entry.untrained else "")
        lines.append(line_of([*cells, f"{rank[name]:.1f}" if name in rank else ""] if rank else cells))
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    folds = any(len(folds) > 1 for entry in entries.values() for folds in entry.values.values())
    legend = "In percent: " * (unit_of(metric) == 100) + spread + ", in brackets over the folds of a seed" * folds
    paragraphs = [title, "\n".join(lines), f"{legend[0].upper()}{legend[1:]}.", *split_notes(entries)]
    paragraphs += [f"{STALE} {reason}: {', '.join(places)}." for reason, places in notes.items()]
    for name, row in {entry.row: entry.rows[0] for entry in entries.values()}.items():
        if own_rule(row):
            paragraphs.append(f"`{name}` ({row['protocol']}, version {row['version']}): {statement_of(row)}.")
    compared = tests(entries)
    if fold and compared:
        summary = "Every row against the untrained encoder and against the best other row, with tests"
        compared = [f"<details>\n<summary>{summary}</summary>", *compared, "</details>"]
    return "\n\n".join([*paragraphs, *compared])


def statement_of(row: Row) -> str:
    """What the row's protocol does."""
    return RULES[row["protocol"]].statement if row["protocol"] in RULES else "not known any more"


def own_rule(row: Row) -> bool:
    """Whether the row scored itself, by another protocol than its column's."""
    return row["protocol"] in RULES and RULES[row["protocol"]].kind == "own"


def tests(entries: dict[tuple[str, str], Entry]) -> list[str]:
    """Each row against its own encoder untrained, and against the best rival."""
    lines = []
    for entry in entries.values():
        rival = best_rival(entries, entry)
        untrained = control(entries, entry)
        if not untrained and rival is None:
            continue
        cells = [f"`{entry.row}`", entry.data, *difference(entry, untrained)]
        cells += [f"`{rival.row}`", *difference(entry, rival.values)] if rival else ["", "", "", ""]
        lines.append(line_of(cells))
    if not lines:
        return []
    head = ["method", "data", "− untrained", "p", "pairs", "best rival", "− rival", "p", "pairs"]
    note = (
        "p: two-sided Wilcoxon signed-rank test over pairs of seed and fold. Folds share training data, so p is too "
        "small where there are few seeds."
    )
    return ["\n".join([line_of(head), "|---" * len(head) + "|", *lines]), note]


def difference(entry: Entry, other: dict[int, list[float]]) -> list[str]:
    """Mean difference, p and number of pairs, as a table has them."""
    mean, p, pairs = paired(entry.values, other)
    if not pairs:
        return ["", "", ""]
    digits = 3 if entry.metric in PLAIN else 1
    return [
        f"{unit_of(entry.metric) * mean:+.{digits}f}".replace("-", "−"),
        "" if p is None else f"{p:.2g}",
        str(pairs),
    ]


def shown(values: dict[int, list[float]], metric: str, seeds: int) -> str:
    """`77.9 ± 0.4 (2.1)`, with the number of seeds where it is not the table's."""
    mean, between, within = over_seeds(values)
    unit, digits = unit_of(metric), 3 if metric in PLAIN else 1
    text = f"{unit * mean:.{digits}f}"
    text += f" ± {unit * between:.{digits}f}" if between is not None else ""
    text += f" ({unit * within:.{digits}f})" if within is not None else ""
    return text + (f", {len(values)} seed{'s' * (len(values) > 1)}" if len(values) != seeds else "")


def usual_seeds(entries: dict[tuple[str, str], Entry]) -> int:
    """How many seeds most entries have."""
    return statistics.mode(sorted((len(entry.values) for entry in entries.values()), reverse=True))


def line_of(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_csv(report: Report) -> str:
    """Every entry with all its figures, unrounded."""
    file = io.StringIO()
    head = ["protocol", "version", "row", "data", "metric", "mean", "seed_std", "fold_std", "seeds", "folds"]
    head += ["untrained", "gain", "gain_p", "gain_pairs", "rival", "rival_gain", "rival_p", "rival_pairs", "rank"]
    head += ["split", "stale"]
    writer = csv.DictWriter(file, head, lineterminator="\n")
    writer.writeheader()
    for column, metric in report.tables:
        entries = report.entries(column, metric)
        rank = ranks(entries)
        for entry in entries.values():
            mean, between, within = over_seeds(entry.values)
            rival = best_rival(entries, entry)
            untrained = control(entries, entry)
            gain, gain_p, gain_pairs = paired(entry.values, untrained)
            lead, lead_p, lead_pairs = paired(entry.values, rival.values if rival else {})
            cells = [column, entry.rows[0]["version"], entry.row, entry.data, entry.metric, mean, between, within]
            cells += [len(entry.values), len(next(iter(entry.values.values())))]
            cells += [over_seeds(untrained)[0] if untrained else None]
            cells += [gain if gain_pairs else None, gain_p, gain_pairs]
            cells += [rival.row if rival else None, lead if lead_pairs else None, lead_p, lead_pairs]
            cells += [rank.get(entry.row), entry.split, "; ".join(staleness(entry))]
            writer.writerow(dict(zip(head, cells, strict=True)))
    return file.getvalue()


# --- blocks in documents ----------------------------------------------------------------------------------------------


def filled(text: str, report: Report, where: str = "the page") -> str:
    """A document with its blocks `<!-- report: NAME [COLUMN] --> ... <!-- end -->` written anew; others are left.

    Tests are folded: there are as many lines of them as there are scores. Raises ValueError, naming `where`, if there
    is nothing to write into a block, or no block.
    """
    if not report.rows:
        raise ValueError(f"{report.name} has no rows yet, so {where} is left as it is; `graphcl benchmark` writes them")

    def block(found: re.Match[str]) -> str:
        tables = [table(report, *each, fold=True) for each in report.tables if each[0] == found[2]]
        if found[2] and not tables:
            known = ", ".join(dict.fromkeys(column for column, _ in report.tables))
            raise ValueError(
                f"{where}: block '{report.name} {found[2]}': there is no column {found[2]!r}; have: {known}"
            )
        return f"{found[1]}{(chr(10) * 2).join(tables) if found[2] else markdown(report, fold=True)}\n{found[3]}"

    pattern = rf"(<!-- report: {re.escape(report.name)}(?: ([^\n]+?))? -->\n).*?(<!-- end -->)"
    text, number = re.subn(pattern, block, text, flags=re.S)
    if not number:
        raise ValueError(f"{where} has no block `<!-- report: {report.name} -->` with an `<!-- end -->` to be filled")
    return text


def unmarked(text: str) -> str:
    """Without the marks of staleness, which move with every commit."""
    return re.sub(rf" {STALE}(?= \|)|\n\n{STALE} [^\n]*", "", text)
