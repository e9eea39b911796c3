"""Embeddings to a file: one row an item, in the original order, with its id."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.store import GraphStore


def write_embeddings(path: Path, z: Tensor, source: Data | GraphStore) -> None:
    """Write z [n, D] to .npz (`id` [n], `embedding` [n, D]) or .parquet (columns id, e0, e1 ...).

    The ids are the names that the source gives its items (`names`), else their positions. The file is whole or absent.
    """
    names = getattr(source, "names", None)
    ids = np.asarray(names) if names is not None else np.arange(len(z))
    values = z.numpy()
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            if path.suffix == ".npz":
                np.savez_compressed(file, id=ids, embedding=values)
            else:
                columns = {"id": pa.array(ids)} | {f"e{i}": pa.array(values[:, i]) for i in range(values.shape[1])}
                pq.write_table(pa.table(columns), file)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error}; is the disk full or the folder read-only?") from error
