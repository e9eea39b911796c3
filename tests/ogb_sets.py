"""Small data sets as OGB's archives have them on the disk."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

from graphcl.data.molecules import parse_smiles
from graphcl.data.ogb import ogb_arrays

SMILES = ["CCO", "c1ccccc1", "[He]", "C/C=C/C", "N[C@@H](C)C(=O)O", "[Na+].[Cl-]", "CC#N", "O=C=O", "CS(C)(=O)=O", "C"]
SPLIT = ([0, 2, 4, 5, 6, 9], [1, 3], [7, 8])


def rows(path: Path, lines: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def molecule(text: str):
    """Its arrays; those of water for what RDKit refuses, as OGB's RDKit was another."""
    try:
        return ogb_arrays(parse_smiles(text))
    except ValueError:
        return ogb_arrays(parse_smiles("O"))


def write_set(
    root: Path,
    name: str,
    labels: list[list],
    mapping: bool = True,
    *,
    smiles: Sequence[str] = SMILES,
    split: Sequence[Sequence[int]] = SPLIT,
    columns: Sequence[str] = (),
) -> Path:
    """SMILES as OGB's archives have them: every bond once, labels empty where missing.  columns: names of labels."""
    folder = root / name.replace("-", "_")
    arrays = [molecule(text) for text in smiles]
    once = [(a.edges[:, a.edges[0] < a.edges[1]], a.edge_attr[a.edges[0] < a.edges[1]]) for a in arrays]
    rows(folder / "raw" / "node-feat.csv.gz", [row for a in arrays for row in a.x.tolist()])
    rows(folder / "raw" / "edge.csv.gz", [pair for edges, _ in once for pair in edges.T.tolist()])
    rows(folder / "raw" / "edge-feat.csv.gz", [row for _, attr in once for row in attr.tolist()])
    rows(folder / "raw" / "num-node-list.csv.gz", [[len(a.x)] for a in arrays])
    rows(folder / "raw" / "num-edge-list.csv.gz", [[edges.shape[1]] for edges, _ in once])
    rows(folder / "raw" / "graph-label.csv.gz", labels)
    for part, chosen in zip(("train", "valid", "test"), split, strict=True):
        rows(folder / "split" / "scaffold" / f"{part}.csv.gz", [[row] for row in chosen])
    if mapping:
        cells = labels if columns else [[] for _ in smiles]
        table = [[*y, text, f"mol{i}"] for i, (y, text) in enumerate(zip(cells, smiles, strict=True))]
        rows(folder / "mapping" / "mol.csv.gz", [[*columns, "smiles", "mol_id"], *table])
    (folder / "RELEASE_v1.txt").write_text("v1\n", encoding="utf-8")
    return folder
