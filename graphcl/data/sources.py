"""`load_data`: a name or a path into one graph (Data) or many (GraphStore).

Where a named data set comes from, in this order: the package itself (bundled); the read-only root GRAPHCL_DATA, whose
raw files lie as PyG lays them out (`Planetoid/Cora/raw/...`, `TUDataset/MUTAG/raw/...` or `raw.tar.xz`); the download
that PyG itself uses, into GRAPHCL_CACHE (default ~/.cache/graphcl). Processed stores always go to GRAPHCL_CACHE.

Planetoid's raw files are pickles. They are read by PyG's reader, and only from the two roots above: what lies there can
run code on this machine, as with PyG itself. Nothing else is unpickled.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
import warnings
import zipfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import Amazon, Coauthor, MoleculeNet, Planetoid, TUDataset, WebKB, WikiCS
from torch_geometric.io import read_npz as read_pyg_npz
from torch_geometric.io import read_planetoid_data
from torch_geometric.utils import coalesce, to_undirected

from graphcl.data.cache import cache_folder, cached, store_place
from graphcl.data.catalogue import Entry, find
from graphcl.data.features import MADE, Features, prepared
from graphcl.data.files import read_csv_folder, read_graphml, read_graphml_folder, read_npz
from graphcl.data.store import GraphStore
from graphcl.data.store_file import open_checked
from graphcl.data.tu import read_tu

if TYPE_CHECKING:
    from graphcl.data.molecules import MoleculeFeatures

_FOLDERS = {
    "planetoid": "Planetoid",
    "amazon": "Amazon",
    "coauthor": "Coauthor",
    "wikics": "WikiCS",
    "webkb": "WebKB",
    "tu": "TUDataset",
    "molecule": "MoleculeNet",
}
MOLECULE_FILES = (*(f".{kind}{end}" for kind in ("smi", "txt", "csv", "tsv", "sdf") for end in ("", ".gz")), ".parquet")
_TIMEOUT = 60  # seconds without an answer
_TU = "tu 1"  # to be raised with every change of what tu.py reads


def load_data(
    name: str | Path,
    *,
    features: Features = "given",
    normalize: bool = False,
    smiles: str | None = None,
    targets: Sequence[str] = (),
    ids: str | None = None,
) -> Data | GraphStore:
    """The data set `name` (see `graphcl datasets`), or data of one's own at a path.

    Paths: a molecule file (.smi, .csv, .tsv, .sdf, each also .gz, or .parquet); a folder of `.graphml` files, of
    `edges.csv`, of TU text files, or a saved GraphStore; a `.graphml` or `.npz` file.  features: see `with_features`;
    of molecules `given` is the benchmark's 2 + 2 categories and `ogb` OGB's 9 + 3, which `ogbg-mol*` always has.
    normalize: scale every node's given features to sum 1.
    smiles, targets, ids: columns of a molecule file, see `read_molecules`. Its y is [B] for one target, classes (-1:
    missing) if all known values are 0 or 1, else float (NaN: missing); for several it is float [B, T].
    Raises ValueError, in one line that names the place and the way out; also where there is no network.
    """
    found = find(str(name))
    if not isinstance(found, Path) and Path(name).exists():
        warnings.warn(f"{name} is read as the known set; what lies here under that name is ./{name}", stacklevel=2)
    of_molecules: MoleculeFeatures = "ogb" if features == "ogb" else "benchmark"
    if isinstance(found, Path) and found.is_file() and found.name.lower().endswith(MOLECULE_FILES):
        source: Data | GraphStore = _molecule_file(found, smiles, targets, ids, of_molecules)
    elif smiles is not None or targets or ids is not None:
        raise ValueError(f"{name}: data.smiles, data.targets and data.ids are for molecule files; leave them out here")
    elif isinstance(found, Path):
        source = _read_path(found)
    elif found.kind == "molecule":
        source = _molecules(found, of_molecules)
    elif found.kind == "ogb":
        from graphcl.data.ogb import ogb_store  # rdkit

        source = ogb_store(found.name)
    else:
        source = _read_named(found)
    if (isinstance(found, Path) or isinstance(source, Data)) and features in MADE and source.num_features:
        warnings.warn(
            f"{name}: data.features={features} replaces the {source.num_features} features of its nodes; "
            "data.features=given trains on them",
            stacklevel=2,
        )
    return prepared(source, features, normalize)


def _read_path(path: Path) -> Data | GraphStore:
    if path.suffix == ".npz" and path.is_file():
        return read_npz(path)
    if path.suffix == ".graphml" and path.is_file():
        return read_graphml(path)
    if path.is_dir():
        if (path / "meta.json").is_file():
            return open_checked(path)
        if (path / "edges.csv").is_file():
            return read_csv_folder(path)
        if any(path.glob("*.graphml")):
            return read_graphml_folder(path)
        tu = [*path.glob("*_graph_indicator.txt"), *path.glob("raw/*_graph_indicator.txt")]
        if tu:
            prefix = tu[0].name.removesuffix("_graph_indicator.txt")
            texts = sorted(tu[0].parent.glob(f"{prefix}_*.txt"))
            return cached(store_place(prefix, texts, _TU), prefix, lambda _: [read_tu(tu[0].parent, prefix)])
    raise ValueError(
        f"{path}: no data that is known here; give a folder of .graphml files, a folder with edges.csv, a folder of TU "
        "text files, a saved GraphStore, an .npz or .graphml file, or a molecule file: .smi .csv .tsv .sdf .parquet"
    )


def _read_named(entry: Entry) -> Data | GraphStore:
    if entry.name == "cora":
        return _bundled_cora()
    if entry.name == "imdb-binary":
        return _bundled_imdb()
    raw = _raw_folder(entry)
    if entry.kind == "tu" and raw.is_file():
        return cached(store_place(entry.name, [raw], _TU), entry.name, lambda _: [_packed_tu(raw, entry.canonical)])
    if entry.kind == "tu":
        texts = sorted(raw.glob("*.txt"))
        return cached(store_place(entry.name, texts, _TU), entry.name, lambda _: [read_tu(raw, entry.canonical)])
    try:
        return _one_graph(entry, raw)
    except Exception as error:  # PyG's readers raise whatever a damaged file makes them raise
        raise ValueError(
            f"{raw}: not readable as {entry.name!r} ({type(error).__name__}: {error!s:.200}); fetch the files again"
        ) from error


def _one_graph(entry: Entry, raw: Path) -> Data:
    if entry.kind == "planetoid":
        return read_planetoid_data(str(raw), entry.canonical)
    if entry.kind == "webkb":
        return _webkb(raw, entry.canonical)
    if entry.kind == "wikics":
        return _wikics(raw / "data.json")
    return read_pyg_npz(str(raw / _raw_names(entry)[0]))  # np.load as it is by default: no pickles


# --- bundled ----------------------------------------------------------------------------------------------------------


def _arrays(name: str) -> dict[str, np.ndarray]:
    with (files("graphcl.data") / "bundled" / name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _bundled_cora() -> Data:
    """As PyG's Planetoid gives it; words and edges lie as counts a row and column numbers."""
    z = _arrays("cora.npz")
    nodes, words = len(z["y"]), int(z["num_words"])
    x = torch.zeros(nodes, words)
    rows = np.repeat(np.arange(nodes), z["words_of"])
    x[torch.from_numpy(rows), torch.from_numpy(z["word"].astype(np.int64))] = 1.0
    dst = np.repeat(np.arange(nodes), z["degree"])
    part = torch.from_numpy(z["part"])  # 1 train, 2 val, 3 test
    return Data(
        x=x,
        edge_index=torch.from_numpy(np.stack([z["src"].astype(np.int64), dst])),
        y=torch.from_numpy(z["y"].astype(np.int64)),
        train_mask=part == 1,
        val_mask=part == 2,
        test_mask=part == 3,
    )


def _bundled_imdb() -> GraphStore:
    """As PyG's TUDataset gives it; every undirected edge lies there once."""
    z = _arrays("imdb-binary.npz")
    node_ptr = np.concatenate([[0], z["num_nodes"].cumsum(dtype=np.int64)])
    graph = np.repeat(np.arange(len(z["y"])), z["num_edges"])
    both = np.stack([np.concatenate([graph, graph]), np.r_[z["dst"], z["src"]], np.r_[z["src"], z["dst"]]])
    graph, dst, src = both[:, np.lexsort(both[::-1])]
    return GraphStore(
        torch.zeros(int(node_ptr[-1]), 0),
        torch.from_numpy(src),
        torch.from_numpy(dst),
        torch.from_numpy(node_ptr),
        torch.from_numpy(np.concatenate([[0], np.bincount(graph).cumsum()])),
        y=torch.from_numpy(z["y"].astype(np.int64)),
        name="IMDB-BINARY",
    )


# --- raw files: under GRAPHCL_DATA, or downloaded ---------------------------------------------------------------------


def _raw_names(entry: Entry) -> list[str]:
    """The files that make up the raw data (of a TU set those that every set has)."""
    name = entry.canonical
    return {
        "planetoid": [f"ind.{name.lower()}.{part}" for part in ("x", "tx", "allx", "y", "ty", "ally", "graph")]
        + [f"ind.{name.lower()}.test.index"],
        "amazon": [f"amazon_electronics_{name.lower()}.npz"],
        "coauthor": [f"ms_academic_{'phy' if name == 'Physics' else 'cs'}.npz"],
        "wikics": ["data.json"],
        "webkb": ["out1_node_feature_label.txt", "out1_graph_edges.txt"]
        + [f"{name}_split_0.6_0.2_{i}.npz" for i in range(10)],
        "tu": [f"{name}_A.txt", f"{name}_graph_indicator.txt"],
        "molecule": [f"{name}.csv"],
    }[entry.kind]


def _urls(entry: Entry) -> list[str]:
    """Where PyG downloads the raw files from."""
    names = _raw_names(entry)
    if entry.kind == "webkb":
        return [f"{WebKB.url}/new_data/{entry.canonical}/{name}" for name in names[:2]] + [
            f"{WebKB.url}/splits/{name}" for name in names[2:]
        ]
    if entry.kind == "tu":
        return [f"{TUDataset.url}/{entry.canonical}.zip"]
    if entry.kind == "molecule":
        return [MoleculeNet.url.format(MoleculeNet.names[entry.name][1])]
    base = {"planetoid": Planetoid.url, "amazon": Amazon.url, "coauthor": Coauthor.url, "wikics": WikiCS.url}[
        entry.kind
    ]
    return [f"{base.rstrip('/')}/{name}" for name in names]


def _place(entry: Entry) -> Path:
    """The data set's folder below a root."""
    folder = Path(_FOLDERS[entry.kind])
    if entry.kind == "wikics":
        return folder
    return folder / (entry.name if entry.kind == "molecule" else entry.canonical)


def _raw_folder(entry: Entry) -> Path:
    """Folder of the raw files (or the raw.tar.xz of a TU set), downloaded if need be."""
    place = _place(entry)
    given = os.environ.get("GRAPHCL_DATA")
    if given and not Path(given).is_dir():
        raise ValueError(
            f"GRAPHCL_DATA={given} is no folder; unset it, or give the folder that holds {place.parts[0]}/"
        )
    roots = [Path(given)] if given else []
    for root in [*roots, cache_folder()]:
        if all((root / place / "raw" / name).is_file() for name in _raw_names(entry)):
            return root / place / "raw"
        if entry.kind == "tu" and (root / place / "raw.tar.xz").is_file():
            return root / place / "raw.tar.xz"
    looked = f"looked in {given}/{place}/raw and downloaded" if given else "downloaded"
    return _download(entry, cache_folder() / place / "raw", looked)


def _download(entry: Entry, target: Path, looked: str) -> Path:
    """Fetch the raw files into a new folder beside `target`, then rename it: a killed download leaves no half set."""
    urls = _urls(entry)
    fetching = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fetching = Path(tempfile.mkdtemp(dir=target.parent, prefix=".download."))
        for url in urls:
            fetched = fetching / url.rsplit("/", 1)[-1]
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, fetched.open("wb") as file:
                shutil.copyfileobj(answer, file)
            if fetched.suffix == ".zip":
                _unzip_texts(fetched, entry.canonical)
            elif fetched.suffix == ".gz":
                with gzip.open(fetched) as packed, fetched.with_suffix("").open("wb") as file:
                    shutil.copyfileobj(packed, file)
        missing = [name for name in _raw_names(entry) if not (fetching / name).is_file()]
        if missing:
            raise OSError(f"no {', '.join(missing)} in what came")
        if target.is_dir():
            shutil.rmtree(target)  # incomplete, or it would have been read
        fetching.chmod(0o755)  # mkdtemp makes it private
        os.rename(fetching, target)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"data set {entry.name!r}: {looked} from {urls[0]}, which failed: {error}; connect to the network, put the "
            f"raw files into {target}, or set GRAPHCL_DATA to a folder that has them in {_place(entry)}/raw"
        ) from None
    finally:
        if fetching is not None:
            shutil.rmtree(fetching, ignore_errors=True)
    return target


def _unzip_texts(archive: Path, prefix: str) -> None:
    """The `<prefix>_*.txt` files of a TU archive, wherever in it they lie, into the folder of the archive."""
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = Path(member.filename).name
            if name.startswith(f"{prefix}_") and name.endswith(".txt"):
                with packed.open(member) as source, (archive.parent / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    archive.unlink()


# --- readers ----------------------------------------------------------------------------------------------------------


def _packed_tu(archive: Path, prefix: str) -> GraphStore:
    """A TU set from its `raw.tar.xz`, unpacked for the moment of reading."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive, "r:xz") as packed:
                packed.extractall(folder, filter="data")  # no absolute paths, no links out of the folder
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise ValueError(f"{archive}: damaged: {error}; fetch it again") from None
        return read_tu(Path(folder) / "raw", prefix)


def _webkb(raw: Path, name: str) -> Data:
    """As PyG's WebKB gives it: directed edges, ten public splits."""
    lines = (raw / "out1_node_feature_label.txt").read_text(encoding="utf-8").splitlines()[1:]
    cells = [line.split("\t") for line in lines]
    x = torch.tensor([[float(value) for value in words.split(",")] for _, words, _ in cells])
    edges = np.loadtxt(raw / "out1_graph_edges.txt", dtype=np.int64, skiprows=1, ndmin=2)
    data = Data(
        x=x,
        edge_index=coalesce(torch.from_numpy(edges).t().contiguous(), num_nodes=len(x)),
        y=torch.tensor([int(label) for _, _, label in cells]),
    )
    splits = [np.load(raw / f"{name}_split_0.6_0.2_{i}.npz", allow_pickle=False) for i in range(10)]
    for part in ("train_mask", "val_mask", "test_mask"):
        data[part] = torch.stack([torch.from_numpy(split[part]).bool() for split in splits], dim=1)
    return data


def _wikics(path: Path) -> Data:
    """As PyG's WikiCS gives it, undirected, with twenty public splits."""
    values = json.loads(path.read_text(encoding="utf-8"))
    ends = [(i, j) for i, links in enumerate(values["links"]) for j in links]
    data = Data(
        x=torch.tensor(values["features"], dtype=torch.float32),
        edge_index=to_undirected(torch.tensor(ends).t().contiguous(), num_nodes=len(values["labels"])),
        y=torch.tensor(values["labels"]),
    )
    for part, key in (
        ("train", "train_masks"),
        ("val", "val_masks"),
        ("test", "test_mask"),
        ("stopping", "stopping_masks"),
    ):
        mask = torch.tensor(values[key], dtype=torch.bool)
        data[f"{part}_mask"] = mask.t().contiguous() if mask.dim() == 2 else mask
    return data


def _molecules(entry: Entry, features: MoleculeFeatures) -> GraphStore:
    """y: [B] classes (int64) or values (float) for one task, [B, T] float for several, NaN: not measured."""
    folder = files("graphcl.data") / "bundled" if entry.bundled else _raw_folder(entry)
    path = Path(str(folder)) / _raw_names(entry)[0]
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file))
    _, _, _, smiles, targets = MoleculeNet.names[entry.name]
    columns = header[targets] if isinstance(targets, slice) else [header[targets]]
    store = _read_molecules(path, entry.name, header[smiles], columns, None, features)
    assert store.y is not None
    if entry.tasks > 1:
        return store
    y = store.y[:, 0]
    return store._like(y=y.nan_to_num(nan=-1).long() if entry.classes else y)


def _molecule_file(
    path: Path, smiles: str | None, targets: Sequence[str], ids: str | None, features: MoleculeFeatures
) -> GraphStore:
    store = _read_molecules(path, None, smiles, targets, ids, features)
    if store.y is None:
        return store
    unknown = store.y.isnan().all(dim=0).tolist()
    if any(unknown):
        raise ValueError(f"{path}: column {targets[unknown.index(True)]!r} has no value at all; leave that target out")
    if len(targets) > 1:
        return store
    from graphcl.data.molecule_files import task_kinds

    y = store.y[:, 0]
    return store._like(y=y.nan_to_num(nan=-1).long() if task_kinds(y) == ["classification"] else y)


def _read_molecules(
    path: Path,
    name: str | None,
    smiles: str | None,
    targets: Sequence[str],
    ids: str | None,
    features: MoleculeFeatures,
) -> GraphStore:
    from graphcl.data.molecule_files import read_molecules, rejected_beside  # rdkit

    store, rejected = read_molecules(
        path,
        smiles=smiles,
        targets=targets,
        ids=ids,
        features=features,
        progress=sys.stderr.isatty(),
        name=name,
    )
    if rejected:
        one = rejected[0]
        listed = f"; all are listed in {rejected_beside(store.folder)}" if store.folder else ""
        warnings.warn(
            f"{path.name}: {len(rejected)} of {len(store) + len(rejected)} rows are no molecules and are left out, "
            f"the first is line {one.line}, {one.smiles!r}: {one.reason}{listed}",
            stacklevel=4,
        )
    return store
