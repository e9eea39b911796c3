"""What the molecule sets under GRAPHCL_DATA are read as: a hash of the arrays and SMILES of their stores.

    python benchmarks/stores.py       writes results/stores.json

Two versions of the readers that give these hashes make the same rows of the studies on these sets (results/same.txt).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

from graphcl.data.sources import load_data
from graphcl.data.store import GraphStore

FILE = Path(__file__).parent.parent / "results" / "stores.json"
SETS = ("bbbp", "esol", "sider", "lipo", "tox21", "toxcast", "hiv", "muv")


def digest(store: GraphStore) -> str:
    """Of types, shapes and numbers of the arrays, and of the SMILES."""
    found = hashlib.sha256()
    for key in ("x", "src", "dst", "edge_attr", "y", "node_ptr", "edge_ptr"):
        array = getattr(store, key).contiguous().numpy()
        found.update(f"{key} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    found.update("\n".join(store.smiles or []).encode())
    return found.hexdigest()[:16]


def main() -> None:
    """Write the hashes of all sets."""
    import record  # beside this file

    with tempfile.TemporaryDirectory() as empty:
        os.environ["GRAPHCL_CACHE"] = empty  # a store that is kept tells nothing about the readers of now
        hashes = {name: digest(load_data(name)) for name in SETS}  # type: ignore[arg-type]
    whole = {"hashes": hashes, "rdkit": version("rdkit"), **record.where(), "commit": record.COMMIT}
    FILE.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
