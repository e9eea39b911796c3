"""Stores that were made from raw files, kept under GRAPHCL_CACHE for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from graphcl.data.store import GraphStore
from graphcl.data.store_file import VERSION, StoreWriter, open_checked


def cache_folder() -> Path:
    """GRAPHCL_CACHE, or ~/.cache/graphcl."""
    return Path(os.environ.get("GRAPHCL_CACHE") or Path.home() / ".cache" / "graphcl").expanduser()


def store_place(name: str, raw: Sequence[Path], reader: str) -> Path:
    """Folder in the cache of what `reader` (its name, version and settings) makes of the raw files.

    Raw files of another place, size or time, another reader or version of the store's format make another store.
    """
    state = hashlib.sha256(f"{reader}\n{VERSION}\n".encode())
    for path in raw:
        status = path.stat()
        state.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return cache_folder() / "stores" / f"{name}-{state.hexdigest()[:16]}"


def cached(folder: Path, name: str, build: Callable[[Path | None], Iterable[GraphStore]]) -> GraphStore:
    """The store in `folder` of the cache, or built there from the chunks of `build(folder)`.

    build: what it writes beside the folder by its last chunk is there when the store is. It is called with None where
    the cache cannot be written, and the store is then in memory alone.
    """
    if folder.is_dir():
        try:
            return open_checked(folder)
        except ValueError as error:
            warnings.warn(f"the cache is damaged and is made again: {error}", stacklevel=3)
            shutil.rmtree(folder, ignore_errors=True)
    try:
        with StoreWriter(folder, name=name) as writer:
            for chunk in build(folder):
                writer.append(chunk)
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker
            warnings.warn(
                f"{name} is not kept for next time, {folder.parent} cannot be written: {error}; set GRAPHCL_CACHE",
                stacklevel=3,
            )
            return GraphStore.concat(list(build(None)))
    return GraphStore.open(folder)
