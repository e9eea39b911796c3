"""Run a benchmark file: every training once, scored by every protocol, one JSON line for each in results/<name>.jsonl.

What the results file has is not run again, so a benchmark that was stopped or killed goes on where it was, and several
processes (or several commands) can fill one file: each training is claimed by a lock before it starts. One that fails
is recorded with its error, and the others go on.
"""

from __future__ import annotations

import copy
import math
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.benchmark_config import SPLIT_SETTINGS, Benchmark, Job, Task, expand
from graphcl.builder import build, cuda_of, prepare
from graphcl.config import Config, ConfigError, near
from graphcl.data.cache import cache_folder
from graphcl.data.catalogue import Entry, find
from graphcl.data.splits import Split, make_splits
from graphcl.data.store import GraphStore
from graphcl.encoders import Readout
from graphcl.evaluate.baselines import BASELINES, Baseline
from graphcl.evaluate.embed import embed
from graphcl.evaluate.finetune import STATEMENTS, FineTuned, finetune
from graphcl.evaluate.link import Links, hide_edges
from graphcl.evaluate.protocols import PROTOCOLS, Protocol
from graphcl.evaluate.ridge import ERRORS
from graphcl.evaluate.scores import METRICS, Scores
from graphcl.evaluate.tasks import FINE_TUNING_METRICS
from graphcl.hub import Frozen, load_pretrained, make_encoder
from graphcl.ledger import Ledger, where
from graphcl.methods import METHODS
from graphcl.trainer import fit

Row = dict[str, Any]
Rows = dict[tuple[str, str, int], Row]
Score = Callable[[Task], dict[str, Any]]
FINE_TUNING = [
    Protocol(id, finetune, statement, "encoder", ("node", "graph"), FINE_TUNING_METRICS)  # type: ignore[arg-type] # of three Scores
    for id, statement in STATEMENTS.items()
]
NAMED = PROTOCOLS | {one.name: one for one in FINE_TUNING}  # what a benchmark file can name
OWN = [
    Protocol(one.id, one.score, one.statement, "own", one.levels, (*METRICS, *ERRORS) if one.values else (*METRICS,))
    for one in BASELINES.values()
    if one.score
]
RULES = NAMED | {one.name: one for one in OWN}  # and how baselines score themselves


def checked_jobs(benchmark: Benchmark) -> list[Job]:
    """The trainings of the file, once all its names are known to exist and to fit. Raises ConfigError.

    A baseline that scores itself has its own protocol, and stands in the columns of the same rule (clean or paper).
    """
    for scoring in benchmark.protocols:
        _check_name("protocol", scoring.name, NAMED, benchmark.name)
    for cell in benchmark.cells:
        if cell.baseline is not None:
            _check_name("baseline", cell.baseline, BASELINES, benchmark.name)
    fitting = []
    for job in expand(benchmark):
        tasks = job.tasks
        if job.baseline is not None:
            tasks = tuple(own for task in tasks if (own := _of_baseline(task, BASELINES[job.baseline])) is not None)
        elif (
            job.pretrained is None
            and METHODS[job.config.method.name].needs_labels
            and any(task.config != job.config for task in tasks)
        ):
            raise ConfigError(
                f"{benchmark.name}: {job.row!r} trains on labels, so its protocols cannot take other splits than its "
                "config; put the split into the overrides of the cell"
            )
        _check_levels(job, tasks, benchmark.name)
        if tasks:
            fitting.append(replace(job, tasks=tasks))
    return fitting


def _check_name(kind: str, name: str, known: Iterable[str], where: str) -> None:
    if name not in known:
        hint = near(name, known) or f"; known: {', '.join(known)}"
        raise ConfigError(f"{where}: unknown {kind} {name!r}{hint}")


def _of_baseline(task: Task, baseline: Baseline) -> Task | None:
    """The task as the baseline does it; None where it cannot: without an encoder, or under another rule."""
    protocol = RULES[task.protocol]
    if baseline.score is None:
        return task if protocol.kind in {"classes", "values"} else None
    own = baseline.id.rpartition("/")[0]
    rule = own.rpartition("/")[2]
    # Two papers have two rules; all that is clean chooses on the validation rows of the same splits.
    kinds = {"classes", "encoder"} if rule == "clean" else {"classes"}
    scored = protocol.metrics[0] in METRICS
    if baseline.values:
        kinds, scored = {*kinds, "values"}, True
    fits = task.protocol.endswith(f"/{rule}") and protocol.kind in kinds
    return replace(task, protocol=own) if fits and scored else None


def _check_levels(job: Job, tasks: Sequence[Task], where: str) -> None:
    entry = find(job.data)
    for task in tasks:
        levels = RULES[task.protocol].levels
        if job.baseline is not None:
            levels = tuple(level for level in BASELINES[job.baseline].levels if level in levels)
        if isinstance(entry, Entry) and entry.level not in levels:
            what = f"baseline {job.baseline!r} under " if job.baseline else ""
            raise ConfigError(
                f"{where}: {what}protocol {task.column!r} is for {' and '.join(levels)}s, {job.data} has "
                f"{entry.level}s; leave it out with limits: [{{cells: [{job.row}], data: [{job.data}], seeds: []}}]"
            )


# --- what is there ----------------------------------------------------------------------------------------------------


def by_key(rows: Sequence[Row]) -> Rows:
    """The last row of every key: hash of the config, protocol, version of the protocol."""
    return {(row["hash"], row["protocol"], row["version"]): row for row in rows}


def row_of(task: Task, rows: Rows) -> Row | None:
    """The row of a task under today's protocol and today's defaults, if it was run."""
    row = rows.get((task.hash, task.protocol, RULES[task.protocol].version))
    return row if row is not None and task.agrees(row) else None


def open_tasks(job: Job, rows: Rows) -> list[Task]:
    """Its tasks that were not run yet."""
    left = [task for task in job.tasks if row_of(task, rows) is None]
    return list({(task.hash, task.protocol): task for task in left}.values())  # one row may stand in several columns


def rows_of(jobs: Sequence[Job], rows: Rows) -> Iterator[tuple[Job, Task, Row]]:
    """The rows that belong to the jobs, in their order."""
    for job in jobs:
        for task in job.tasks:
            if (row := row_of(task, rows)) is not None:
                yield job, task, row


# --- the work ---------------------------------------------------------------------------------------------------------


def work(jobs: Sequence[Job], ledger: Ledger) -> None:
    """Run what is open and not claimed by another process, until nothing is. One thread."""
    torch.set_num_threads(1)
    where()  # the commit is that of the code as it was loaded, not as it is when the first row is written
    with threadpool_limits(limits=1):
        ran = True
        while ran:  # again, for what another process had claimed and then left
            ran = False
            for job in jobs:
                if not open_tasks(job, by_key(ledger.rows())):
                    continue
                with ledger.claim(job.hash) as ours:
                    # Between the look and the claim another process may have finished it.
                    if ours and (tasks := open_tasks(job, by_key(ledger.rows()))):
                        ran = True
                        run_job(job, tasks, ledger)


def run_job(job: Job, tasks: Sequence[Task], ledger: Ledger) -> None:
    """Train once, then append a row for each task: its scores, or the error."""
    reset_peak_memory()
    score, training = watched("seconds", lambda: baseline(job) if job.baseline else encoders(job, tasks))
    for task in tasks:
        values: dict[str, Any] | None = None
        scoring: dict[str, Any] = {}
        if score is not None:
            values, scoring = watched("score_seconds", lambda task=task: score(task))  # type: ignore[misc]
        ledger.append(
            {"row": job.row, "data": job.data, "encoder": job.encoder, "seed": job.seed}
            | {"protocol": task.protocol, "column": task.column, "version": RULES[task.protocol].version}
            | (values or {})
            | training
            | scoring
            | {"peak_memory_mb": round(peak_memory()), "when": datetime.now(UTC).isoformat(timespec="seconds")}
            | where()
            | {
                "hash": task.hash,
                "baseline": task.baseline,
                "weights": task.weights,
                "config": task.config.model_dump(mode="json"),
            }
        )


def watched(name: str, act: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What `act` gives, and for the row: its seconds under `name`, its warnings, and the error that ended it."""
    facts: dict[str, Any] = {}
    result, begun = None, time.perf_counter()
    with warnings.catch_warnings(record=True) as heard:
        try:
            result = act()
        except Exception as error:
            facts["error"] = {"class": type(error).__name__, "message": str(error)}
    facts[name] = round(time.perf_counter() - begun, 3)
    if heard:
        texts = {f"{one.category.__name__}: {one.message}" for one in heard}
        facts["warnings"] = sorted(text.replace(str(cache_folder()), "GRAPHCL_CACHE") for text in texts)
    return result, facts


def baseline(job: Job) -> Score:
    """What scores the job's baseline for a task."""
    one, data = BASELINES[str(job.baseline)], prepare(job.config, None)
    z = one.embed(data) if one.embed is not None else None

    def score(task: Task) -> dict[str, Any]:
        if z is not None:
            return {"score": plain(probe(task, data, z))}
        assert one.score is not None
        settings = {"metric": metric_of(task), "seed": task.config.train.seed}
        return {"score": plain(one.score(data, splits_for(task, data), **settings))}

    return score


@dataclass
class Encoded:
    """An encoder with the data set and its embeddings; `links` if edges were hidden from it."""

    data: Data | GraphStore
    links: Links | None
    encoder: nn.Module
    readout: nn.Module | None
    z: Tensor


def encoders(job: Job, tasks: Sequence[Task]) -> Score:
    """Train the job's encoder, or load it; returns what scores it, and the same encoder untrained, for a task."""
    hide = {task.protocol: RULES[task.protocol].kind == "links" for task in tasks}
    encoded = {
        hidden: ready(job, hidden) if job.weights else encode(job.config, hidden, beside=job.beside)
        for hidden in sorted(set(hide.values()))
    }
    tuned: dict[tuple[str, str], FineTuned] = {}  # three protocols read one fine-tuning

    def score(task: Task) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, one in encoded[hide[task.protocol]].items():
            if RULES[task.protocol].kind == "encoder":
                key = (name, task.hash)
                if key not in tuned:
                    tuned[key] = tune(task, one)
                values[name] = plain(next(made for made in tuned[key] if made.protocol == RULES[task.protocol].id))
            else:
                values[name] = plain(probe(task, one.data, one.z, one.links))
        return values

    return score


def encode(config: Config, hidden: bool, *, beside: bool = True) -> dict[str, Encoded]:
    """Train an encoder; for link prediction on a graph without the edges that are asked for."""
    data, links = prepare(config, None), None
    if hidden:
        if not isinstance(data, Data):
            raise ValueError(f"link prediction is for one graph, {config.data.name} has {len(data)}")
        data, links = hide_edges(data, seed=config.train.seed)
    run = build(config, data)

    def now() -> Encoded:
        encoder: Any = copy.deepcopy(run.method.encoder)
        readout: Any = copy.deepcopy(getattr(run.method, "readout", None))
        return Encoded(run.data, links, encoder, readout, embed(run.method, run.data))

    untrained = {"untrained": now()} if beside else {}
    fit(run, progress=False)
    return {"score": now()} | untrained


def ready(job: Job, hidden: bool) -> dict[str, Encoded]:
    """An encoder that needs no training here: pretrained weights and a new one of their shape, or a new one alone."""
    if hidden:
        raise ValueError("link prediction hides edges, which weights from elsewhere may have seen; train on the graph")
    data = prepare(job.config, None)
    if job.pretrained is None:
        torch.manual_seed(job.config.train.seed)
        encoder: Any = make_encoder(job.config.encoder, data.num_features, job.place)
        readout = Readout(job.config.readout) if job.config.readout else None
        return {"score": encoded(data, encoder, readout, job.config)}
    model = load_pretrained(job.pretrained)
    made = {"score": encoded(data, model.encoder, model.readout, job.config)}
    if job.beside:
        torch.manual_seed(job.config.train.seed)
        new = make_encoder(model.config.encoder, model.config.in_dim, job.place)
        made["untrained"] = encoded(data, new, model.readout, job.config)
    return made


def encoded(data: Data | GraphStore, encoder: Any, readout: nn.Module | None, config: Config) -> Encoded:
    """With the embeddings that the encoder gives."""
    return Encoded(data, None, encoder, readout, embed(Frozen(encoder, readout), data, device=cuda_of(config)))


def splits_for(task: Task, data: Data | GraphStore) -> list[Split]:
    """The splits that a task asks for."""
    config = task.config
    settings = config.data.model_dump(include=SPLIT_SETTINGS)
    return make_splits(data, config.data.split, seed=config.train.seed, **settings)


def metric_of(task: Task) -> str:
    """What the config asks for if the protocol has it, else the protocol's own."""
    wanted, known = task.config.evaluate.metric, RULES[task.protocol].metrics
    return wanted if wanted != "accuracy" and wanted in known else known[0]


def probe(task: Task, data: Data | GraphStore, z: Tensor, links: Links | None = None) -> Scores:
    """Scores of embeddings under the task's protocol."""
    rule = RULES[task.protocol]
    split: Any = links if rule.kind == "links" else splits_for(task, data) if rule.needs_split else None
    return rule.score(z, data.y, split, metric=metric_of(task), seed=task.config.train.seed)


def tune(task: Task, one: Encoded) -> FineTuned:
    """Scores of fine-tuning, which leaves the encoder as it is."""
    return finetune(
        one.encoder,
        one.readout,
        one.data,
        splits_for(task, one.data),
        metric=metric_of(task),
        seed=task.config.train.seed,
        device=cuda_of(task.config),
        **task.config.evaluate.finetune.model_dump(),
    )


def plain(scores: Scores) -> dict[str, Any]:
    """Scores as a row keeps them; None for a validation value that is not defined."""
    values = {scores.metric: scores.values, **scores.also}
    if not all(math.isfinite(value) for folds in values.values() for value in folds):
        raise ValueError(f"{scores.name}: the score is not defined on every split, got {values}")
    return {
        "mean": {metric: statistics.fmean(folds) for metric, folds in values.items()},
        "values": {metric: list(folds) for metric, folds in values.items()},
        "valid": [value if math.isfinite(value) else None for value in scores.valid],
    }


# --- memory -----------------------------------------------------------------------------------------------------------


def reset_peak_memory() -> None:
    """Begin to measure anew, where the system lets us."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> float:
    """Most memory of this process in MB since the last reset: on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
