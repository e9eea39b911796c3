"""`graphcl benchmark`: the processes that run a benchmark file, and how far they are."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from graphcl.benchmark import Row, Rows, by_key, checked_jobs, open_tasks, rows_of, work
from graphcl.benchmark_config import SOME_FAILED, Job, load_benchmark
from graphcl.ledger import Ledger
from graphcl.process import usable_cores

PROCESS_MB = 1500.0  # what a process is expected to take where no row says


# --- the command ------------------------------------------------------------------------------------------------------


def run_benchmark(path: Path, results: Path, count: int | None, *, retry: bool, quiet: bool) -> list[Row]:
    """Run what the results file lacks, `count` processes at a time; returns the rows that belong to the file.

    One process of several is this same command with `--jobs 1 --quiet`, so one that is killed takes nothing with it.
    """
    benchmark, ledger = load_benchmark(path), Ledger(results)
    jobs = checked_jobs(benchmark)
    dropped = ledger.drop_failed() if retry else 0
    before = ledger.rows()
    todo = [job for job in jobs if open_tasks(job, by_key(before))]
    killed = ledger.unfinished()  # last, or one that kills its process would keep all others from their turn
    todo.sort(key=lambda job: killed.index(job.hash) if job.hash in killed else -1)
    count = min(count or fitting_jobs(before), max(len(todo), 1))
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(jobs, ledger, count, done), daemon=True)
    if not quiet:
        again = f" ({dropped} failed rows again)" * bool(dropped)
        head = f"{benchmark.name}: {len(todo)} of {len(jobs)} trainings to do{again}, {count} at a time; {results}"
        print(head, file=sys.stderr, flush=True)
        last = "; ".join(job.place for job in todo if job.hash in killed)
        if last:
            print(f"begun before, and killed (out of memory?); now last: {last}", file=sys.stderr, flush=True)
        watcher.start()
    try:
        if count == 1:
            work(todo, ledger)
        else:
            start_workers(path, results, count)
    finally:
        done.set()
        if watcher.is_alive():
            watcher.join()
    return [row for _, _, row in rows_of(jobs, by_key(ledger.rows()))]


def start_workers(path: Path, results: Path, count: int) -> None:
    """Run `count` commands of one thread to their end; on Ctrl-C end them all."""
    command = [sys.executable, "-m", "graphcl", "benchmark", str(path), "--results", str(results)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    workers = [
        # In a session of its own, so that Ctrl-C reaches it once and from here.
        subprocess.Popen([*command, "--jobs", "1", "--quiet"], env=os.environ | threads, start_new_session=True)
        for _ in range(count)
    ]
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    bad = [code for code in codes if code not in (0, SOME_FAILED)]
    if bad:
        how = f"was ended by signal {-bad[0]}" if bad[0] < 0 else f"ended with exit code {bad[0]}"
        memory = f"; if memory ran out, go on with fewer: --jobs {max(count // 2, 1)}" if bad[0] == -9 else ""
        raise RuntimeError(f"{len(bad)} of {count} processes did not finish, the first {how}{memory}")


# --- memory -----------------------------------------------------------------------------------------------------------


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory in MB that processes may still take: of the machine, and of this container (cgroup v2)."""
    free = math.inf
    with suppress(OSError):
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) / 2**10
    with suppress(OSError, ValueError):  # no cgroup v2, or no limit ("max")
        limit, held = (int((cgroup / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free = min(free, (limit - held) / 2**20)
    return free


def fitting_jobs(rows: Sequence[Row]) -> int:
    """Processes at once: as many as there are cores, and as fit into memory; one where a GPU does the work."""
    if torch.cuda.is_available():
        return 1
    each = max([PROCESS_MB, *(row["peak_memory_mb"] for row in rows)])
    return max(1, int(min(usable_cores(), free_memory() / each)))


# --- progress ---------------------------------------------------------------------------------------------------------


def watch(jobs: Sequence[Job], ledger: Ledger, count: int, done: threading.Event) -> None:
    """Show how far the file is, whoever fills it: a line for each row that comes, and a bar or (in a log) a count."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    total = sum(len(job.tasks) for job in jobs)
    seen: set[str] | None = None
    looked: tuple[int, int] | None = None
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=total, left="")
        while True:
            last, now = done.is_set(), written(ledger.path)
            if now != looked:
                looked, rows = now, by_key(ledger.rows())
                lines = [f"{job.place}, {task.column}: {outcome(row)}" for job, task, row in rows_of(jobs, rows)]
                seconds = time_left(jobs, rows, count)
                left = f"about {spoken(seconds)} left" if seconds else ""
                new = [line for line in lines if line not in seen] if seen is not None else []
                for number, line in enumerate(new, len(lines) - len(new) + 1):
                    far = "" if console.is_terminal else f" ({number} of {total}{', ' * bool(left)}{left})"
                    bar.console.print(line + far, highlight=False, markup=False, soft_wrap=True)
                seen = set(lines)
                bar.update(shown, completed=len(lines), left=left)
            if last:
                return
            done.wait(1.0)


def written(path: Path) -> tuple[int, int]:
    """Size and time of a file, which is read again only when they have changed; zeros where there is none yet."""
    with suppress(OSError):
        state = path.stat()
        return state.st_size, state.st_mtime_ns
    return 0, 0


def outcome(row: Row) -> str:
    """The scores of a row in words, or its error."""
    if "error" in row:
        return f"failed: {row['error']['class']}: {row['error']['message']}"
    metric, mean = next(iter(row["score"]["mean"].items()))
    beside = f" (untrained {row['untrained']['mean'][metric]:.4f})" if "untrained" in row else ""
    return f"{metric} {mean:.4f}{beside}, {row['seconds'] + row['score_seconds']:.0f} s"


def time_left(jobs: Sequence[Job], rows: Rows, count: int) -> float:
    """Seconds until all is done, by what rows of the same method and data took, else of the same data, else of any."""
    known = [row for row in rows.values() if "error" not in row]
    each = [
        typical(known, "seconds", job) + len(tasks) * typical(known, "score_seconds", job)
        for job in jobs
        if (tasks := open_tasks(job, rows))
    ]
    return max(sum(each) / count, max(each, default=0.0))


def typical(rows: Sequence[Row], field: str, job: Job) -> float:
    """Mean of a field over the rows most like the job; 0 if there are none."""
    same_data = [row for row in rows if row["data"] == job.data]
    same = [row for row in same_data if row["row"] == job.row]
    return statistics.fmean([row[field] for row in same or same_data or rows] or [0.0])


def spoken(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
