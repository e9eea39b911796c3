"""What is seen of a run: metrics.jsonl, the progress bar, the wish to stop, environment.json."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from graphcl.checkpoint import CheckpointError, write_whole


class NonFiniteLoss(RuntimeError):
    """The loss, or a weight, became nan or infinite. Nothing was saved since it did."""


class Metrics:
    """metrics.jsonl, one line an optimizer step, and TensorBoard where asked for.

    The values stay on the device until `flush`, which costs one transfer for all steps since the last; a loss that is
    not finite is found there. The lines hold no time of day, so that a repeated run writes the same bytes.
    """

    def __init__(self, fabric: Fabric, folder: Path | None, tensorboard: bool = False) -> None:
        self.fabric, self.path = fabric, folder / "metrics.jsonl" if folder else None
        self.pending: list[tuple[dict[str, Any], dict[str, Tensor], str, list[Tensor]]] = []
        self.sums: dict[str, float] = {}  # of this epoch
        self.count = 0
        self.loss = math.nan
        self.checkpoint: Path | None = None  # the newest, for the message of NonFiniteLoss
        self.board = _summary_writer(folder) if tensorboard and folder and fabric.is_global_zero else None

    def add(self, head: Mapping[str, Any], parts: Mapping[str, Tensor], batch: int, batches: Sequence[Any]) -> None:
        """Remember one step: `head` are plain values, `parts` scalars on the device, `batch` the first's number."""
        place = f"batch {batch}" if len(batches) == 1 else f"batches {batch} to {batch + len(batches) - 1}"
        ids = [ids for one in batches if (ids := _ids(one)) is not None]
        self.pending.append((dict(head), dict(parts), place, ids))

    def flush(self) -> None:
        """Bring the values over, and write them. Raises NonFiniteLoss, once the lines of the good steps are written."""
        if not self.pending:
            return
        pending, self.pending = self.pending, []
        stacked = torch.stack([value for _, parts, _, _ in pending for value in parts.values()])
        if self.fabric.world_size > 1:
            stacked = cast(Tensor, self.fabric.all_reduce(stacked, reduce_op="mean"))
        values = iter(stacked.tolist())
        lines: list[dict[str, Any]] = []
        for head, parts, place, ids in pending:
            row = head | {key: next(values) for key in parts}
            bad = next((key for key in parts if _is_loss(key) and not math.isfinite(row[key])), None)
            if bad is not None:
                self._write(lines)
                ours = not torch.stack(list(parts.values())).isfinite().all()  # stacked is the mean over the processes
                where = f"epoch {head['epoch']}, {place}{_shortened(ids)}" if ours else "in another process"
                raise NonFiniteLoss(
                    f"{bad} is {row[bad]} at step {head['step']} ({where}). {self.last_good()} Usual ways out: "
                    "lower train.lr, set train.clip=1, raise method.tau, look for nan or huge values in the features"
                )
            for key in parts:
                self.sums[key] = self.sums.get(key, 0.0) + row[key]
            self.count += 1
            self.loss = row["loss"]
            lines.append({key: value if math.isfinite(value) else None for key, value in row.items()})
        self._write(lines)

    def means(self) -> dict[str, float]:
        """Mean of each value over the steps of this epoch, which ends with the call."""
        means = {key: value / self.count for key, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def last_good(self) -> str:
        """Where to go on from, in words."""
        if self.checkpoint is None:
            return "No checkpoint was written before it."
        return f"The last good checkpoint is {self.checkpoint}."

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the file is synced to disk first."""
        size = 0
        if self.path and self.fabric.is_global_zero:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
                size = file.tell()
        return {"sums": self.sums, "count": self.count, "loss": self.loss, "bytes": size}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: lines written after it are cut off."""
        self.sums, self.count, self.loss = dict(state["sums"]), state["count"], state["loss"]
        if self.path and self.fabric.is_global_zero:
            size = self.path.stat().st_size if self.path.exists() else 0
            if size < state["bytes"]:
                warnings.warn(f"{self.path} is shorter than it was at the checkpoint; lines are missing", stacklevel=2)
            else:
                os.truncate(self.path, state["bytes"])

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self.path is None or not self.fabric.is_global_zero:
            return
        try:
            with open(self.path, "ab") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        except OSError as error:
            raise CheckpointError(
                f"{self.path} could not be written: {error.strerror}. {self.last_good()} "
                "Make room and go on with --resume"
            ) from None
        if self.board is None:
            return
        for line in lines:
            for key, value in line.items():
                if key not in {"step", "epoch"} and value is not None:
                    self.board.add_scalar(key, value, line["step"])


def _is_loss(key: str) -> bool:
    return key == "loss" or key.endswith(".loss")


def _ids(batch: Any) -> Tensor | None:
    """Data-set-wide ids of a batch: of its graphs, or of the nodes of one graph."""
    graphs = getattr(batch, "graph_id", None)
    return graphs if graphs is not None else getattr(batch, "n_id", None)


def _shortened(ids: Sequence[Tensor]) -> str:
    if not ids:
        return ""
    numbers = torch.cat([one.reshape(-1) for one in ids])
    text = ", ".join(map(str, numbers[:8].tolist()))
    return f", ids {text}" if len(numbers) <= 8 else f", {len(numbers)} ids {text}, ..."


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "run.tensorboard is set but TensorBoard is not installed; pip install graphcl[tensorboard], or leave it off"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))


class StopSignal:
    """While open, the first Ctrl-C only sets `asked`, and the loop stops at a good place; a second one stops at once.

    SIGTERM asks too, since that is what torchrun (on Ctrl-C) and batch systems send.
    """

    def __init__(self, active: bool) -> None:
        self.active = active and threading.current_thread() is threading.main_thread()
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if self.active:
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


class Progress:
    """A bar with throughput, loss and time left; where standard error is no terminal, a line each tenth of the run."""

    def __init__(self, active: bool, total: int, done: int, unit: str) -> None:
        self.total, self.done, self.unit = total, done, unit
        self.console = Console(stderr=True)
        self.lines = active and not self.console.is_terminal
        self.started, self.items = time.perf_counter(), 0
        columns = (
            "[bold]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            "{task.fields[rate]}",
            "{task.fields[loss]}",
        )
        self.bar = Bar(
            *(TextColumn(column) if isinstance(column, str) else column for column in columns),
            TimeRemainingColumn(),
            console=self.console,
            disable=not active or self.lines,
        )
        self.task = self.bar.add_task("", total=total, completed=done, rate="", loss="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, step: int, epoch: int, items: int, loss: float) -> None:
        """One more step, of `items` graphs or nodes; `loss` is the last one known."""
        self.items += items
        seconds = time.perf_counter() - self.started
        rate = f"{self.items / max(seconds, 1e-9):,.0f} {self.unit}/s"
        known = "" if math.isnan(loss) else f"loss {loss:.4f}"
        if self.lines and step * 10 // self.total > (step - 1) * 10 // self.total:
            left = seconds / max(step - self.done, 1) * (self.total - step)
            print(f"step {step}/{self.total}  epoch {epoch}  {rate}  {known}  {left:.0f} s left", file=sys.stderr)
        self.bar.update(self.task, completed=step, description=f"epoch {epoch}", rate=rate, loss=known)


def write_environment(folder: Path | str, **figures: Any) -> None:
    """Write `folder`/environment.json: commit, versions, hardware, and the `figures` given (seed, seconds, ...)."""
    cuda = torch.cuda.is_available()
    values = {
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: version_of(name) for name in ("graphcl", "torch", "torch-geometric", "lightning-fabric", "numpy")},
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if cuda else None,
        **figures,
    }
    write_whole(Path(folder) / "environment.json", json.dumps(values, indent=2).encode() + b"\n")


def _commit() -> str | None:
    """The commit of graphcl's own checkout, "+" after it if files are changed; None when installed from elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or not ours to read
        return None


def version_of(package: str) -> str | None:
    """Installed version of a package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
