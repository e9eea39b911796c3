"""A GraphStore as a folder of memory-mapped files: written in chunks, opened in milliseconds, checked.

    meta.json                what the folder is, and of every array its type, shape, bytes and SHA-256
    x.npy src.npy ...        the arrays, each a header of 128 bytes and the numbers
    smiles.npy smiles_ptr.npy  texts as UTF-8 bytes, and where each begins (the same for names)

A store is written to a temporary folder beside its place and renamed when everything is on the disk, so a folder of the
right name is a whole store. A build holds a lock on its temporary folder; what dead builds left, the next one removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from graphcl.data.locked_folder import locked_folder, remove_leftovers, sync_folder, umask
from graphcl.data.store import GraphStore

FORMAT, VERSION = "graphcl-store", 2
REQUIRED = {"x", "src", "dst", "node_ptr", "edge_ptr"}
TEXTS = ("smiles", "names")
KNOWN = REQUIRED | {"edge_attr", "y", *TEXTS, *(f"{key}_ptr" for key in TEXTS)}
_INTEGERS = [np.dtype(name).str for name in ("u1", "i2", "i4", "i8")]  # each holds what those before it hold
_TYPES = {*_INTEGERS, *(np.dtype(name).str for name in ("f2", "f4", "f8"))}
_HEADER = 128  # bytes
_BLOCK = 1 << 23  # bytes that are read or converted at a time
_SMALL = 1 << 26  # bytes of a store that is verified whenever it is opened as a data set: a tenth of a second


class Texts(Sequence[str]):
    """Strings that stay in their file until they are asked for.

    letters: UTF-8 bytes [T].  ptr: int64 [B + 1], text i is letters[ptr[i] : ptr[i + 1]].
    """

    def __init__(self, letters: NDArray[np.uint8], ptr: NDArray[np.int64]) -> None:
        self.letters, self.ptr = letters, ptr

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(f"no text {i}, there are {len(self)}")
        i %= len(self)
        return self.letters[self.ptr[i] : self.ptr[i + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts({len(self)} strings)"


class _Column:
    """One `.npy` file that grows by rows; its integers are widened when a chunk needs it."""

    def __init__(self, path: Path, dtype: str, tail: tuple[int, ...]) -> None:
        self.path, self.dtype, self.tail, self.rows = path, dtype, tail, 0
        self.file = path.open("w+b")
        self.file.write(bytes(_HEADER))
        self.sum = hashlib.sha256()

    def append(self, array: NDArray[Any]) -> None:
        if array.dtype.str != self.dtype:
            wider = max(self.dtype, array.dtype.str, key=_INTEGERS.index)
            if wider != self.dtype:
                self._widen(wider)
            array = array.astype(wider)
        self.rows += len(array)
        self._write(array)

    def _write(self, array: NDArray[Any]) -> None:
        if array.size:
            numbers = np.ascontiguousarray(array).data.cast("B")
            self.sum.update(numbers)
            self.file.write(numbers)

    def _widen(self, dtype: str) -> None:
        narrow, held = self.file, np.dtype(self.dtype)
        self.path.unlink()  # the open file can still be read
        self.file = self.path.open("w+b")
        self.file.write(bytes(_HEADER))
        self.dtype, self.sum = dtype, hashlib.sha256()
        narrow.seek(_HEADER)
        while part := narrow.read(_BLOCK):
            self._write(np.frombuffer(part, held).astype(dtype))
        narrow.close()

    def finish(self) -> dict[str, Any]:
        shape = (self.rows, *self.tail)
        self.file.seek(0)
        self.file.write(_header(self.dtype, shape))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        size = math.prod(shape) * np.dtype(self.dtype).itemsize
        return {"dtype": self.dtype, "shape": list(shape), "bytes": size, "sha256": self.sum.hexdigest()}


class StoreWriter:
    """Write a store to a new folder chunk by chunk; no more than a chunk is in memory.

        with StoreWriter("zinc", name="zinc") as writer:
            for chunk in chunks:  # GraphStores, or lists of PyG graphs
                writer.append(chunk)
        store = GraphStore.open("zinc")

    The folder appears when the block ends, whole, or not at all if it raises.
    Raises FileExistsError if the folder is there already, OSError if it cannot be written.
    """

    def __init__(self, folder: str | Path, *, name: str = "graphs") -> None:
        self.folder, self.name, self.graphs = Path(folder), name, 0
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} is there already; remove it or give another folder")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder.parent)
        self._building, self._lock = locked_folder(self.folder.parent)
        self._columns: dict[str, _Column] = {}
        self._open = True

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
        elif self._open:
            self.close()

    def append(self, chunk: GraphStore | Iterable[Data]) -> None:
        """Graphs to be written after those that are there; an empty list is none.

        All chunks have the same attributes, of the same widths, float ones of the same type; integers are widened.
        Raises ValueError if the chunk does not fit or `check()` refuses it (the writer can go on without it), OSError
        if the disk is full (the build is gone).
        """
        self._must_be_open()
        chunk = chunk if isinstance(chunk, GraphStore) else list(chunk)
        if not len(chunk):
            return
        try:
            graphs = chunk if isinstance(chunk, GraphStore) else GraphStore.from_graphs(chunk, self.name)
            arrays = self._arrays(graphs.check())
            self._check_fit(arrays)
        except ValueError as error:
            raise ValueError(f"the chunk that begins with graph {self.graphs}: {error}") from None
        try:
            for key, array in arrays.items():
                if key not in self._columns:
                    column = _Column(self._building / f"{key}.npy", array.dtype.str, array.shape[1:])
                    self._columns[key] = column
                    if key.endswith("_ptr"):
                        column.append(np.zeros(1, np.int64))
                self._columns[key].append(array)
        except BaseException:
            self.discard()
            raise
        self.graphs += len(graphs)

    def _arrays(self, chunk: GraphStore) -> dict[str, NDArray[Any]]:
        arrays = {}
        for key in ("x", "src", "dst", "edge_attr", "y"):
            value = getattr(chunk, key)
            if value is not None:
                if value.dtype == torch.bfloat16:
                    raise ValueError(f"{self.name}: {key} is torch.bfloat16, which files cannot hold; make it float32")
                arrays[key] = value.detach().cpu().numpy()
        for key in ("node_ptr", "edge_ptr"):
            arrays[key] = getattr(chunk, key).numpy()[1:] + self._end(key)
        for key in TEXTS:
            texts = getattr(chunk, key)
            if texts is not None:
                for row, text in enumerate(texts):
                    if not isinstance(text, str):
                        raise ValueError(f"{key}[{row}] must be a string, got {text!r}; '' stands for none")
                letters = [text.encode("utf-8", "surrogatepass") for text in texts]
                arrays[key] = np.frombuffer(b"".join(letters), np.uint8)
                arrays[f"{key}_ptr"] = np.cumsum([len(text) for text in letters], dtype=np.int64) + self._end(key)
        return arrays

    def _end(self, pointer: str) -> int:
        rows = {"node_ptr": "x", "edge_ptr": "src"}.get(pointer, pointer)
        return self._columns[rows].rows if rows in self._columns else 0

    def _check_fit(self, arrays: dict[str, NDArray[Any]]) -> None:
        if not self._columns:
            return
        if differing := arrays.keys() ^ self._columns.keys():
            key = min(differing, key=len)
            has, had = ("has", "have none") if key in arrays else ("has no", "have it")
            raise ValueError(f"{self.name}: it {has} {key}, those before {had}; give it to all or to none")
        for key, array in arrays.items():
            column = self._columns[key]
            integers = array.dtype.str in _INTEGERS and column.dtype in _INTEGERS
            if array.shape[1:] != column.tail or not (integers or array.dtype.str == column.dtype):
                raise ValueError(
                    f"{self.name}: {key} is {array.dtype} of width {list(array.shape[1:])}, before it was "
                    f"{np.dtype(column.dtype)} of width {list(column.tail)}; all must be alike"
                )

    def close(self) -> None:
        """Bring everything to the disk and give the folder its name.

        Raises ValueError if no graph was appended, FileExistsError if another process built the folder meanwhile.
        """
        self._must_be_open()
        try:
            if not self.graphs:
                raise ValueError(f"{self.name}: no graphs to write; {self.folder} is not made")
            arrays = {key: column.finish() for key, column in self._columns.items()}
            meta = {"format": FORMAT, "version": VERSION, "name": self.name, "graphs": self.graphs, "arrays": arrays}
            with (self._building / "meta.json").open("w", encoding="utf-8") as file:
                json.dump(meta, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._building)
            self._building.chmod(0o777 & ~umask())  # mkdtemp makes it private
            try:
                os.rename(self._building, self.folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise FileExistsError(f"{self.folder} was built by another process meanwhile; open that one") from None
            sync_folder(self.folder.parent)
        except BaseException:
            self.discard()
            raise
        self._end_build()

    def discard(self) -> None:
        """Give up: remove what was written. After `close` it does nothing."""
        if not self._open:
            return
        for column in self._columns.values():
            with contextlib.suppress(OSError):  # what is still in its buffer may find no room
                column.file.close()
        shutil.rmtree(self._building, ignore_errors=True)
        self._end_build()

    def _end_build(self) -> None:
        self._open = False
        if self._lock is not None:
            os.close(self._lock)

    def _must_be_open(self) -> None:
        if not self._open:
            raise ValueError(f"{self.folder}: the writer is closed; make another one")


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of an `.npy` file, version 1, filled up to the same length always."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    return start + text.ljust(_HEADER - 11).encode("latin1") + b"\n"


def read_store(folder: Path) -> dict[str, Any]:
    """Arrays (tensors) and texts of a store, memory mapped: sizes and headers are checked, no numbers are read.

    Raises ValueError naming the file that is missing, foreign, truncated or of a newer version.
    """
    meta = _read_meta(folder)
    arrays = {key: _mapped(folder, key, entry) for key, entry in meta["arrays"].items()}
    parts: dict[str, Any] = {"name": meta["name"]}
    for key in TEXTS:
        if key in arrays:
            parts[key] = Texts(arrays.pop(key), arrays.pop(f"{key}_ptr"))
    return parts | {key: torch.from_numpy(array) for key, array in arrays.items()}


def _mapped(folder: Path, key: str, entry: dict[str, Any]) -> NDArray[Any]:
    path, shape = folder / f"{key}.npy", tuple(entry["shape"])
    try:
        with path.open("rb") as file:
            header, size = file.read(_HEADER), os.fstat(file.fileno()).st_size - _HEADER
    except OSError as error:
        raise ValueError(f"{path}: missing or not readable ({error}); delete {folder} and build it again") from None
    if size != entry["bytes"] or header != _header(entry["dtype"], shape):
        raise ValueError(
            f"{path}: truncated or another file: {max(size, 0)} bytes of numbers, meta.json says {entry['bytes']} "
            f"({np.dtype(entry['dtype'])} {list(shape)}); delete {folder} and build it again"
        )
    if size == 0:  # nothing that could be mapped
        return np.zeros(shape, entry["dtype"])
    # Copy on write: the tensors are writable, as torch wants them, and the file stays as it is.
    return np.asarray(np.memmap(path, entry["dtype"], mode="c", offset=_HEADER, shape=shape))


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder} is not a saved GraphStore: meta.json: {error}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{folder} is not a saved GraphStore: meta.json does not say 'format': {FORMAT!r}")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{folder} has store version {meta.get('version')!r}, this graphcl reads {VERSION}; "
            "delete it and build it again, or update graphcl"
        )
    arrays, again = meta.get("arrays"), f"delete {folder} and build it again"
    if not isinstance(arrays, dict) or not REQUIRED <= arrays.keys() <= KNOWN:
        raise ValueError(f"{path}: 'arrays' must name {', '.join(sorted(REQUIRED))} and no unknown array; {again}")
    for key, entry in arrays.items():
        if not _is_entry(key, entry):
            raise ValueError(f"{path}: {key}: no dtype, shape, bytes and sha256 that fit one another; {again}")
    graphs = meta.get("graphs")
    pairs = all((key in arrays) == (f"{key}_ptr" in arrays) for key in TEXTS)
    lengths = {tuple(entry["shape"]) for key, entry in arrays.items() if key.endswith("_ptr")}
    if not isinstance(graphs, int) or lengths != {(graphs + 1,)} or not pairs or not isinstance(meta.get("name"), str):
        raise ValueError(f"{path}: 'name', 'graphs' and the pointers do not fit one another; {again}")
    return meta


def _is_entry(key: str, entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"dtype", "shape", "bytes", "sha256"} <= entry.keys():
        return False
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _TYPES or not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        return False
    if not all(type(length) is int and length >= 0 for length in shape):
        return False
    wanted = _TYPES
    if key in ("src", "dst"):
        wanted = set(_INTEGERS)
    elif key.endswith("_ptr"):
        wanted = {_INTEGERS[-1]}
    elif key in TEXTS:
        wanted = {_INTEGERS[0]}
    return dtype in wanted and entry["bytes"] == math.prod(shape) * np.dtype(dtype).itemsize


def verify_files(folder: Path) -> None:
    """Read every array and compare it with its checksum. Raises ValueError naming the file that differs."""
    for key, entry in _read_meta(folder)["arrays"].items():
        _mapped(folder, key, entry)
        path, found = folder / f"{key}.npy", hashlib.sha256()
        with path.open("rb") as file:
            file.seek(_HEADER)
            while part := file.read(_BLOCK):
                found.update(part)
        if found.hexdigest() != entry["sha256"]:
            raise ValueError(f"{path}: the checksum is not that of meta.json; delete {folder} and build it again")


def open_checked(folder: Path) -> GraphStore:
    """Open a store, and verify it where that is cheap or there is a reason: up to 64 MB always, above that if a file
    was changed after the store was built (meta.json is written last).

    Raises ValueError as `GraphStore.open`, `verify` and `check` do.
    """
    store = GraphStore.open(folder)
    paths = list(folder.glob("*.npy"))
    built = (folder / "meta.json").stat().st_mtime_ns
    if sum(path.stat().st_size for path in paths) <= _SMALL or any(p.stat().st_mtime_ns > built for p in paths):
        store.verify().check()  # checksums tell nothing of a store that was made to harm
    return store
