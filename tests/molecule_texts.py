"""Molecule files that tests write."""

import gzip
from pathlib import Path


def write(tmp_path: Path, text: str, name: str = "assay.csv") -> Path:
    """The text as a file, compressed if its name ends in .gz."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path
