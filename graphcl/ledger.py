"""A results file: one JSON line a run, that several processes can fill at once; and where a run was made.

Imports torch in `where` alone.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CODE = ("augment", "graphcl", "configs", "benchmarks")  # what a result depends on
KEY = {"hash", "protocol", "version"}
PROBES = ("numpy", "scipy", "scikit-learn", "numba")  # what scores are computed with, where they are installed
APPEND = 0  # byte of the lock file that is held while the results file, or the lock file itself, is written


class Ledger:
    """The rows of a results file (.jsonl). Locks lie beside it in a hidden file: one byte for each run under way.

    Such locks end with the process that holds them, however it ends; the key of its run, a line of the lock file, stays
    if the process was killed. Linux and macOS.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # One descriptor for life: closing any descriptor of a file ends all locks that the process has on it.
        self.locks = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first. A last line that was cut off does not count."""
        return read_rows(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row as one whole line, in one write."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self._held(APPEND):
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                cut = _whole(self.path)
                if cut < os.fstat(file).st_size:
                    os.ftruncate(file, cut)
                if os.write(file, line) < len(line):
                    raise OSError(
                        errno.ENOSPC, "could not be written whole; make room and run it again", str(self.path)
                    )
            finally:
                os.close(file)

    def drop_failed(self) -> int:
        """Take out the rows of failed runs, so that they are run again. Returns how many there were."""
        with self._held(APPEND):
            rows = self.rows()
            kept = [row for row in rows if "error" not in row]
            if len(kept) < len(rows):
                whole = self.path.with_name(f".{self.path.name}.tmp")
                whole.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
                os.replace(whole, self.path)
        return len(rows) - len(kept)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether the run `key` (hexadecimal) is ours for the time; False where another process has it."""
        with self._held(APPEND):
            ours = self._take(key)
            if ours:
                self._mark([*(other for other in self._marks() if other != key), key])
        try:
            yield ours
        finally:
            if ours:
                with self._held(APPEND):
                    self._mark([other for other in self._marks() if other != key])
                    self._leave(key)

    def unfinished(self) -> list[str]:
        """Keys of runs that were begun and whose process was killed, the last begun last. Not to be asked in a run."""
        with self._held(APPEND):
            found = [key for key in self._marks() if self._take(key)]
            for key in found:
                self._leave(key)
        return found

    def _take(self, key: str) -> bool:
        with suppress(OSError):
            fcntl.lockf(self.locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(key))
            return True
        return False

    def _leave(self, key: str) -> None:
        fcntl.lockf(self.locks, fcntl.LOCK_UN, 1, _byte(key))

    def _marks(self) -> list[str]:
        text = os.pread(self.locks, os.fstat(self.locks).st_size, 0).decode("ascii", "replace")
        return re.findall("^[0-9a-f]+$", text, re.MULTILINE)

    def _mark(self, keys: list[str]) -> None:
        text = "".join(f"{key}\n" for key in keys).encode("ascii")
        os.pwrite(self.locks, text, 0)
        os.ftruncate(self.locks, len(text))

    @contextmanager
    def _held(self, byte: int) -> Iterator[None]:
        fcntl.lockf(self.locks, fcntl.LOCK_EX, 1, byte)
        try:
            yield
        finally:
            fcntl.lockf(self.locks, fcntl.LOCK_UN, 1, byte)


def _byte(key: str) -> int:
    return 1 + int(key, 16) % 2**60


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file, oldest first; none if it is not there. ValueError names a line that is no row."""
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # after the last line break: nothing, or half a line
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object: {line[:60]!r}; take the line out")
        if not row.keys() >= KEY:
            raise ValueError(f"{path}: line {number} is no row of a benchmark; choose another file with --results")
        rows.append(row)
    return rows


def _whole(path: Path) -> int:
    """Bytes up to the last line break; what comes after was cut off in writing."""
    text = path.read_bytes()
    return text.rfind(b"\n") + 1


@functools.cache
def where() -> dict[str, Any]:
    """Commit of the code (with + where files differ from it), versions, hardware, threads. As the process started."""
    import torch

    from graphcl.runlog import processor, version_of

    return {
        "commit": commit(),
        "torch": torch.__version__,
        "pyg": version_of("torch-geometric"),
        **{name: version_of(name) for name in PROBES},
        "python": platform.python_version(),
        "machine": processor(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The short commit of graphcl's own checkout, "+" after it if code or configs differ; None when installed."""
    if not (ROOT / ".git").exists():
        return None
    try:
        changed = git("status", "--porcelain", "--", *CODE)
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.SubprocessError):  # no git, or not ours to read
        return None


def git(*arguments: str) -> str:
    """What git says of graphcl's own checkout."""
    ask = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    return subprocess.run(ask, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
