"""Data of one's own: GraphML, NetworkX, `.npz`, CSV edge lists. No pickles; every mistake names its place.

For all of them: features must be finite and become float32; a missing label is -1 (NaN among values that are no
classes); repeated edges are merged, the first one's attributes stay; self loops stay; features and edges may be absent.
"""

from __future__ import annotations

import csv
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError, fromstring

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.labels import label_array, label_text, plain_float, targets
from graphcl.data.store import GraphStore


def from_networkx(graphs: Iterable[nx.Graph], y: Any = None, name: str = "networkx") -> GraphStore:
    """Store of NetworkX graphs; undirected edges go in both directions.

    Numeric node attributes, in alphabetical order, are the features, numeric edge attributes edge_attr; text is left
    out with a warning, and so is a node attribute `y`, which would be a label.
    y: [B] or [B, T]; without it the graphs' own attribute `y` (`graph.graph["y"]`) is taken.
    """
    listed = list(graphs)
    places = [f"{name}: graph {i}" for i in range(len(listed))]
    store = GraphStore.from_graphs(_graphs(listed, places), name)
    if y is None and any("y" in graph.graph for graph in listed):
        y = targets(
            [label_text(graph.graph.get("y"), place) for graph, place in zip(listed, places, strict=True)], name
        )
    if y is not None:
        y = label_array(np.asarray(y), f"{name}: y")
        if len(y) != len(store):
            raise ValueError(f"{name}: {len(y)} labels for {len(store)} graphs; give one each, -1 where unknown")
        store = store._like(y=y)
    return store


def read_graphml_folder(folder: Path) -> GraphStore:
    """Store of the `.graphml` files of a folder, in the order of their names (`store.names`).

    Labels: `labels.csv` (file name, label), or else the graph attribute `y` in the files.
    """
    paths = sorted(folder.glob("*.graphml"))
    graphs = [_graphml(path) for path in paths]
    store = GraphStore.from_graphs(_graphs(graphs, [str(path) for path in paths]), str(folder))
    store.names = [path.stem for path in paths]
    if (folder / "labels.csv").is_file():
        place = {name: i for i, name in enumerate(store.names)}
        return store._like(y=_labels_csv(folder / "labels.csv", place, suffix=".graphml"))
    if any("y" in graph.graph for graph in graphs):
        return store._like(y=targets([str(graph.graph.get("y", "")) for graph in graphs], f"{folder}: y"))
    return store


def read_graphml(path: Path) -> Data:
    """One graph from a `.graphml` file; the node attribute `y` is the label, `data.names` the nodes' ids."""
    graph = _graphml(path)
    places = [[values.get(key) for key in ("x", "y")] for _, values in graph.nodes(data=True)]
    if all(isinstance(place, float) for each in places for place in each) and any(y % 1 for _, y in places):
        warnings.warn(
            f"{path}: the node attributes x and y look like places in a drawing, as Gephi writes them, and are read as "
            "a feature and the label; write the file without positions, sizes and colours, or rename what is meant",
            stacklevel=2,
        )
    labels = [str(values.pop("y", "")) for _, values in graph.nodes(data=True)]
    data = _graph_data(graph, str(path))
    if any(labels):
        data.y = targets(labels, f"{path}: node attribute y")
    data.names = [str(node) for node in graph.nodes]
    return data


def read_npz(path: Path) -> Data:
    """One graph from an `.npz`. Edges are directed as given: for an undirected graph give both directions.

    Arrays: edge_index [2, E] or src and dst [E]; where there are any: x [N, F], y [N], edge_attr [E, Fe], num_nodes,
    and train_mask, val_mask, test_mask ([N] or [N, k] bool).
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not readable as plain arrays (.npz without pickled objects): {error}") from None
    known = {"edge_index", "src", "dst", "x", "y", "edge_attr", "train_mask", "val_mask", "test_mask", "num_nodes"}
    if arrays.keys() - known:
        raise ValueError(f"{path}: unknown arrays {sorted(arrays.keys() - known)}; known: {', '.join(sorted(known))}")
    if "src" in arrays and "dst" in arrays and "edge_index" not in arrays:
        if arrays["src"].shape != arrays["dst"].shape or arrays["src"].ndim != 1:
            raise ValueError(f"{path}: src {arrays['src'].shape} and dst {arrays['dst'].shape} must both be [E]")
        arrays["edge_index"] = np.stack([arrays["src"], arrays["dst"]])
    ends = arrays.get("edge_index")
    if ends is None or ends.ndim != 2 or len(ends) != 2 or ends.dtype.kind not in "iu":
        got = "nothing" if ends is None else f"{ends.dtype} {ends.shape}"
        raise ValueError(f"{path}: edge_index must be integers [2, E] (or src and dst [E]), got {got}")
    ends = ends.astype(np.int64)
    x = _float_array(arrays["x"], f"{path}: x") if "x" in arrays else None
    for key in ("y", "train_mask", "val_mask", "test_mask"):
        if key in arrays and arrays[key].ndim == 0:
            raise ValueError(f"{path}: {key} is the single value {arrays[key].item()!r}; give one a node")
    sizes: dict[str, int] = {
        key: len(arrays[key]) for key in ("x", "y", "train_mask", "val_mask", "test_mask") if key in arrays
    }
    if "num_nodes" in arrays:
        sizes["num_nodes"] = _count(arrays["num_nodes"], f"{path}: num_nodes")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{path}: the arrays disagree on the number of nodes: {sizes}")
    nodes = next(iter(sizes.values())) if sizes else int(ends.max(initial=-1)) + 1
    edge_attr = _float_array(arrays["edge_attr"], f"{path}: edge_attr") if "edge_attr" in arrays else None
    if edge_attr is not None and len(edge_attr) != ends.shape[1]:
        raise ValueError(f"{path}: edge_attr has {len(edge_attr)} rows for {ends.shape[1]} edges")
    data = _node_data(ends, nodes, x, edge_attr, str(path))
    if "y" in arrays:
        data.y = label_array(arrays["y"], f"{path}: y")
    for part in ("train_mask", "val_mask", "test_mask"):
        if part in arrays:
            if arrays[part].dtype != bool:
                raise ValueError(f"{path}: {part} must be bool [N] or [N, k], got {arrays[part].dtype}")
            data[part] = torch.from_numpy(arrays[part])
    return data


def read_csv_folder(folder: Path) -> Data:
    """One graph from `edges.csv` with `features.csv` and `labels.csv` where there are any; each has a header line.

    edges.csv: two columns of node names, further columns numbers (edge_attr); every line is an undirected edge.
    features.csv: node name, then numbers.  labels.csv: node name, label (whole numbers, values, or text, numbered in
    alphabetical order; empty, NA, nan ...: unknown).  Nodes come in the order of features.csv, or else of labels.csv
    and then edges.csv; `data.names` has their names.
    """
    edges = _csv_rows(folder / "edges.csv", least=2)
    features = _csv_rows(folder / "features.csv", least=2) if (folder / "features.csv").is_file() else None
    listed = folder / ("features.csv" if features is not None else "labels.csv")
    place: dict[str, int] = {}
    if listed.is_file():
        rows = _csv_rows(listed, least=2) if features is None else features
        place = {name: i for i, name in enumerate(_named_once(rows, listed))}
    ends, values = [], []
    for line, cells in edges:
        for node in cells[:2]:
            if node not in place:
                if features is not None:
                    raise ValueError(f"{folder / 'edges.csv'}: line {line}: node {node!r} is not in features.csv")
                place[node] = len(place)
        ends.append((place[cells[0]], place[cells[1]]))
        values.append(_cells(cells[2:], f"{folder / 'edges.csv'}: line {line}"))
    one_way = np.sort(np.array(ends, dtype=np.int64).reshape(-1, 2).T, axis=0)  # b,a repeats a,b: the first one stays
    other_way = one_way[::-1, one_way[0] != one_way[1]]
    attr = np.array(values, dtype=np.float32).reshape(len(ends), -1) if edges and values[0] else None
    if attr is not None:
        attr = np.concatenate([attr, attr[one_way[0] != one_way[1]]])
    x = None
    if features is not None:
        numbers = [_cells(cells[1:], f"{folder / 'features.csv'}: line {line}") for line, cells in features]
        x = np.array(numbers, dtype=np.float32)
    data = _node_data(np.concatenate([one_way, other_way], axis=1), len(place), x, attr, str(folder))
    if (folder / "labels.csv").is_file():
        data.y = _labels_csv(folder / "labels.csv", place)
    data.names = list(place)
    return data


def _graphml(path: Path) -> nx.Graph:
    try:
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can blow a small file up to any size
            raise ValueError("it has a DOCTYPE, which GraphML does not need; remove it")
        graphs = sum(child.tag.rpartition("}")[2] == "graph" for child in fromstring(text))
        if graphs > 1:  # networkx would give the first alone
            raise ValueError(f"it has {graphs} graphs; give each a file of its own, all in one folder")
        graph = nx.read_graphml(path)
    except (OSError, ParseError, ValueError, KeyError, IndexError, TypeError, nx.NetworkXException) as error:
        raise ValueError(f"{path}: not readable as GraphML: {error!s:.300}") from None
    for key, every in (("node_default", graph.nodes), ("edge_default", graph.edges)):
        for *_, values in every(data=True):
            values.update(graph.graph.get(key, {}) | values)
    for _, _, values in graph.edges(data=True):
        values.pop("id", None)  # the edge's own name in the file, no attribute
    return graph


def _graphs(graphs: Sequence[nx.Graph], places: Sequence[str]) -> list[Data]:
    """The graphs of one set, which must have the same attributes: columns are told apart by their order alone."""
    datas = [_graph_data(graph, place) for graph, place in zip(graphs, places, strict=True)]
    _tell_of_labels(graphs, places)
    for what, rows_of in (("node", _node_rows), ("edge", _edge_rows)):
        names = {
            place: _names(rows_of(graph))[0] for graph, place in zip(graphs, places, strict=True) if rows_of(graph)
        }
        for place in names:
            if names[place] != names[first := next(iter(names))]:
                raise ValueError(
                    f"{place} has the {what} attributes {names[place]}, but {first} has {names[first]}; "
                    "give all graphs the same numbers"
                )
    width = next((data.edge_attr.shape[1] for data in datas if data.edge_attr is not None), 0)
    for data in datas:
        if width and data.num_edges == 0:
            data.edge_attr = torch.zeros(0, width)
    return datas


def _graph_data(graph: nx.Graph, where: str) -> Data:
    """x, edge_index and edge_attr of a NetworkX graph. The node attribute `y` is a label and no feature."""
    if not isinstance(graph, nx.Graph):
        raise ValueError(f"{where} is a {type(graph).__name__}; a networkx graph is needed")
    place = {node: i for i, node in enumerate(graph.nodes)}
    ends = np.array([(place[u], place[v]) for u, v in graph.edges()], dtype=np.int64).reshape(-1, 2).T
    attr = _attributes(_edge_rows(graph), [f"edge {u!r} - {v!r}" for u, v in graph.edges()], where)
    if not graph.is_directed():
        both = ends[0] != ends[1]
        ends = np.concatenate([ends, ends[::-1, both]], axis=1)
        attr = None if attr is None else np.concatenate([attr, attr[both]])
    x = _attributes(_node_rows(graph), [f"node {node!r}" for node in place], where)
    return _node_data(ends, len(place), x, attr, where)


def _tell_of_labels(graphs: Sequence[nx.Graph], places: Sequence[str]) -> None:
    having = [
        place
        for graph, place in zip(graphs, places, strict=True)
        if any("y" in values for _, values in graph.nodes(data=True))
    ]
    if having:
        warnings.warn(
            f"{having[0]}: the node attribute y is taken for a label and left out of the features (in {len(having)} "
            "graphs); rename it if it is a feature. The label of a whole graph is the graph's own attribute y",
            stacklevel=3,
        )


def node_attributes(graph: nx.Graph) -> list[Any]:
    """The node attributes of a NetworkX graph that become its features, in the order of the columns."""
    return _names(_node_rows(graph))[0]


def _node_rows(graph: nx.Graph) -> list[dict[Any, Any]]:
    return [{key: value for key, value in values.items() if key != "y"} for _, values in graph.nodes(data=True)]


def _edge_rows(graph: nx.Graph) -> list[dict[Any, Any]]:
    return [values for _, _, values in graph.edges(data=True)]


def _names(rows: Sequence[dict[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """The attributes that are numbers in all rows, in alphabetical order, and the others."""
    keys = sorted({key for row in rows for key in row}, key=str)
    text = [
        key for key in keys if any(key in row and not isinstance(row[key], int | float | np.number) for row in rows)
    ]
    return [key for key in keys if key not in text], text


def _attributes(rows: Sequence[dict[Any, Any]], owners: Sequence[str], where: str) -> np.ndarray | None:
    """[rows, attributes] of the numeric attributes in alphabetical order; None if there are none."""
    keys, text = _names(rows)
    if text:
        warnings.warn(f"{where}: attributes {text} are no numbers and are left out", stacklevel=2)
    for row, owner in zip(rows, owners, strict=True):
        for key in keys:
            if key not in row:
                raise ValueError(f"{where}: {owner} has no attribute {key!r}, others have; give it to all or to none")
            if not _finite(row[key]):
                raise ValueError(f"{where}: {owner}: attribute {key!r} is {row[key]}; features must be finite")
    return np.array([[row[key] for key in keys] for row in rows], dtype=np.float32) if keys else None


def _node_data(ends: np.ndarray, nodes: int, x: np.ndarray | None, attr: np.ndarray | None, where: str) -> Data:
    """One graph with its edges checked, sorted and merged."""
    if nodes == 0:
        raise ValueError(f"{where}: the graph has no nodes")
    outside = ((ends < 0) | (ends >= nodes)).any(axis=0)
    if outside.any():
        edge = int(outside.argmax())
        raise ValueError(f"{where}: edge {edge} is {ends[:, edge].tolist()}, but nodes are numbered 0 to {nodes - 1}")
    key, first = np.unique(ends[0] * nodes + ends[1], return_index=True)
    if len(key) < ends.shape[1]:
        warnings.warn(f"{where}: {ends.shape[1] - len(key)} repeated edges are merged", stacklevel=2)
    return Data(
        x=torch.zeros(nodes, 0) if x is None else torch.from_numpy(x),
        edge_index=torch.from_numpy(np.stack([key // nodes, key % nodes])),
        edge_attr=None if attr is None else torch.from_numpy(attr[first]),
    )


def _count(value: np.ndarray, where: str) -> int:
    if value.ndim or value.dtype.kind not in "iuf" or not 0 <= value < 2**63 or value != np.floor(value):
        got = f"{value.dtype} {value.shape}" if value.ndim else repr(value.item())
        raise ValueError(f"{where} must be one whole number, got {got}; leave it out if x or y has a row for each node")
    return int(value)


def _float_array(values: np.ndarray, where: str) -> np.ndarray:
    """[rows, columns] float32, finite."""
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise ValueError(f"{where} must be numbers [rows, columns], got {values.dtype} {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{where}[{row}, {column}] is {values[row, column]}; features must be finite")
    return values


def _labels_csv(path: Path, place: dict[str, int], suffix: str = "") -> Tensor:
    """Labels [N] in the order of `place`; unlisted ones are unknown."""
    texts = [""] * len(place)
    rows = _csv_rows(path, least=2)
    _named_once(rows, path, suffix)
    for line, cells in rows:
        name = cells[0].removesuffix(suffix)
        if name not in place:
            raise ValueError(f"{path}: line {line}: {cells[0]!r} is not in the data")
        if len(cells) != 2:
            raise ValueError(f"{path}: line {line}: {len(cells)} columns, a name and a label are needed")
        texts[place[name]] = cells[1]
    return targets(texts, str(path))


def _named_once(rows: Sequence[tuple[int, list[str]]], path: Path, suffix: str = "") -> list[str]:
    """The names in the first column, without their suffix."""
    lines: dict[str, int] = {}
    for line, cells in rows:
        name, what = cells[0].removesuffix(suffix), "graph" if suffix else "node"
        if name in lines:
            raise ValueError(
                f"{path}: line {line}: {what} {name!r} is listed twice, first on line {lines[name]}; keep one"
            )
        lines[name] = line
    return list(lines)


def _finite(number: float) -> bool:
    return bool(abs(number) <= np.finfo(np.float32).max)  # false for NaN too


def _cells(cells: Sequence[str], where: str) -> list[float]:
    numbers = []
    for cell in cells:
        try:
            number = plain_float(cell)
        except ValueError:
            raise ValueError(f"{where}: {cell!r} is not a number") from None
        if not _finite(number):
            raise ValueError(f"{where}: {cell!r} is not finite; fill or drop it first")
        numbers.append(number)
    return numbers


def _csv_rows(path: Path, least: int) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line after the header; all as wide as the header, and at least `least` columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)  # else a quote that is not closed takes the rest of the file
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{path}: not readable as CSV: {error}; look for a quote that is not closed") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as CSV: {error}") from None
    if not rows:
        raise ValueError(f"{path}: empty; the first line must name the columns")
    width = len(rows[0][1])
    if width < least:
        raise ValueError(f"{path}: {width} columns, at least {least} are needed (separated by commas)")
    for line, cells in rows[1:]:
        if len(cells) != width:
            raise ValueError(f"{path}: line {line}: {len(cells)} columns, the header has {width}")
    return rows[1:]
