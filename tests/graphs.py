"""Graphs for the tests: odd ones by hand, random ones (hypothesis), and real ones that need no download.

Every graph carries ids that say where a row came from, unique in a batch: `n_id [N]`, `edge_id [E]` for each directed
edge, `edge_pair [E]` for both directions of a pair, `graph_id [1]`. Rows of `x` and `pos` are made from `n_id`, rows of
`edge_attr` from `edge_pair`, so a row in the wrong place is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import networkx as nx
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

FEATURES = ("float", "double", "integer", "none")


def make_graph(
    n: int,
    edges: Iterable[tuple[int, int]],
    *,
    undirected: bool = True,
    features: str = "float",
    edge_features: str = "float",
    number: int = 0,
    first_node: int = 0,
    first_edge: int = 0,
) -> Data:
    """Graph of n nodes with the given pairs (both directions if undirected, except self-loops), in the order given.

    features: of x, one of FEATURES; edge_features: "float", "integer" or "none", equal in both directions of a pair.
    """
    directed = []  # (source, target, pair)
    for k, (u, v) in enumerate(edges, start=first_edge):
        directed.append((u, v, k))
        if undirected and u != v:
            directed.append((v, u, k))
    src, dst, pair_id = torch.tensor(directed, dtype=torch.long).view(-1, 3).T.contiguous()
    n_id = torch.arange(first_node, first_node + n)
    data = Data(edge_index=torch.stack([src, dst]))
    if features == "none":
        data.num_nodes = n
    else:
        data.x = rows(n_id, 3, features)
    if edge_features != "none":
        data.edge_attr = rows(pair_id, 2, edge_features)
    data.edge_id = torch.arange(first_edge, first_edge + len(directed))
    data.edge_pair = pair_id
    data.n_id = n_id
    data.pos = rows(n_id, 2, "double")
    data.train_mask = n_id % 3 == 0
    data.y = torch.tensor([number % 2])
    data.graph_id = torch.tensor([number])
    data.smiles = "C" * (number + 1)
    return data


def rows(ids: Tensor, width: int, kind: str) -> Tensor:
    """[len(ids), width], a function of the ids: never zero, different for ids below 997 (integers: below 97)."""
    columns = torch.arange(1, width + 1)
    if kind == "integer":
        return (ids.view(-1, 1) * columns) % 97 + 1
    value = ((ids.view(-1, 1) * columns) % 997 + 1).double() / 100
    return value if kind == "double" else value.float()


def batch_of(shapes: Sequence[tuple[int, Sequence[tuple[int, int]], bool]], **options: str) -> Batch:
    """Batch of graphs (n, edges, undirected), with ids that are unique in the batch."""
    graphs, node, edge = [], 0, 0
    for number, (n, edges, undirected) in enumerate(shapes):
        graph = make_graph(n, edges, undirected=undirected, number=number, first_node=node, first_edge=edge, **options)
        graphs.append(graph)
        node, edge = node + n, edge + max(graph.num_edges, 1)
    return Batch.from_data_list(graphs)


def path(n: int) -> list[tuple[int, int]]:
    return [(i, i + 1) for i in range(n - 1)]


def ring(n: int) -> list[tuple[int, int]]:
    return [*path(n), (n - 1, 0)]


def odd_batches() -> dict[str, Batch]:
    """Batches that have broken augmentation code before, by what is odd about them."""
    ordinary = [(7, ring(7), True), (4, path(4), True), (9, [(0, i) for i in range(1, 9)], True)]
    return {
        "ordinary": batch_of(ordinary),
        "one graph": batch_of([(6, ring(6), True)]),
        "one-node graphs": batch_of([(1, [], True), (5, path(5), True), (1, [], True)]),
        "only one-node graphs": batch_of([(1, [], True)] * 3),
        "one-node graph with a loop": batch_of([(1, [(0, 0)], True), (3, path(3), True)]),
        "isolated nodes": batch_of([(8, [(0, 1), (5, 6)], True), (4, [(2, 3)], True), (6, ring(3), True)]),
        "no edges": batch_of([(4, [], True), (3, [], True), (1, [], True)]),
        "some without edges": batch_of([(4, [], True), (5, ring(5), True), (3, [], True)]),
        "self-loops": batch_of([(4, [(0, 0), (0, 1), (2, 2), (2, 3)], True), (3, [(1, 1)], True)]),
        "multi-edges": batch_of(
            [(4, [(0, 1), (0, 1), (1, 2), (0, 1), (2, 3), (2, 2), (2, 2)], True), (3, path(3), True)]
        ),
        "directed": batch_of([(5, path(5), False), (4, [(0, 1), (1, 0), (2, 3), (3, 0), (0, 1)], False)]),
        "directed and undirected": batch_of(
            [(5, path(5), False), (6, ring(6), True), (3, [(2, 0), (0, 2), (0, 1)], False)]
        ),
        "as many nodes as edges": batch_of([(4, [(0, 1), (2, 3)], True), (6, path(4), True)]),
        "as many edges as graphs": batch_of([(5, [(0, 1)], False), (4, [(2, 3)], False), (3, [(1, 1)], False)]),
        "float64": batch_of(ordinary, features="double"),
        "no features": batch_of(ordinary, features="none"),
        "integer features": batch_of(ordinary, features="integer", edge_features="integer"),
        "no edge features": batch_of(ordinary, edge_features="none"),
    }


def sorted_edges(data: Data, by: str = "source") -> Data:
    """The same graph with its edges, and what belongs to them, in the order of (source, target), or by "target"."""
    first, second = data.edge_index if by == "source" else data.edge_index.flip(0)
    order = (first * int(data.num_nodes) + second).argsort(stable=True)
    out = data.clone()
    for key in ("edge_attr", "edge_id", "edge_pair"):
        if key in data:
            out[key] = data[key][order]
    out.edge_index = data.edge_index[:, order]
    return out


@st.composite
def shapes(draw: st.DrawFn, max_nodes: int = 9) -> tuple[int, list[tuple[int, int]], bool]:
    """(n, edges, undirected): any graph at all, with self-loops and repeated edges."""
    n = draw(st.integers(1, max_nodes))
    node = st.integers(0, n - 1)
    return n, draw(st.lists(st.tuples(node, node), max_size=2 * max_nodes)), draw(st.booleans())


@st.composite
def batches(draw: st.DrawFn, features: Sequence[str] = FEATURES, max_graphs: int = 5) -> Batch:
    """Any batch; in two thirds the edges of each graph are sorted, by source as PyG's or by target as the store's."""
    batch = batch_of(
        draw(st.lists(shapes(), min_size=1, max_size=max_graphs)),
        features=draw(st.sampled_from(list(features))),
        edge_features=draw(st.sampled_from(["float", "integer", "none"])),
    )
    by = draw(st.sampled_from(["source", "target", None]))
    return batch if by is None else Batch.from_data_list([sorted_edges(graph, by) for graph in batch.to_data_list()])


seeds = st.integers(0, 2**31)
rates = st.one_of(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.floats(0, 1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def real_networks() -> dict[str, nx.Graph]:
    """Social networks that NetworkX carries; all connected, nodes numbered from 0."""
    return {
        "karate": nx.convert_node_labels_to_integers(nx.karate_club_graph()),
        "davis": nx.convert_node_labels_to_integers(nx.davis_southern_women_graph()),
        "miserables": nx.convert_node_labels_to_integers(nx.les_miserables_graph()),
        "florentine": nx.convert_node_labels_to_integers(nx.florentine_families_graph()),
    }


def from_networkx(network: nx.Graph, number: int = 0) -> Data:
    """The undirected network as Data, edges sorted, with ids and features."""
    return sorted_edges(make_graph(len(network), list(network.edges()), number=number))


def to_networkx(data: Data) -> nx.MultiDiGraph:
    """Every directed edge as it stands, keyed by its position."""
    network = nx.MultiDiGraph()
    network.add_nodes_from(range(int(data.num_nodes)))
    network.add_edges_from((u, v, k) for k, (u, v) in enumerate(data.edge_index.T.tolist()))
    return network


def copies(graph: Data, times: int) -> Batch:
    """The same graph over and over: one batch shows the distribution of a random view."""
    return Batch.from_data_list([graph] * times)


def read_tu(root: Path, name: str, limit: int = 200) -> list[Data]:
    """The first graphs of a raw TU set: one-hot node labels as x, one-hot edge labels as edge_attr."""
    folder = root / "TUDataset" / name / "raw"

    def table(part: str) -> Tensor:
        lines = (folder / f"{name}_{part}.txt").read_text().split()
        return torch.tensor([[int(value) for value in line.strip(",").split(",")] for line in lines if line.strip(",")])

    pairs = table("A").flatten().view(-1, 2) - 1
    graph_of, y = table("graph_indicator").flatten() - 1, table("graph_labels").flatten()
    x = torch.nn.functional.one_hot(table("node_labels").flatten()).float()
    has_edge_labels = (folder / f"{name}_edge_labels.txt").is_file()
    kinds = torch.nn.functional.one_hot(table("edge_labels").flatten()).float() if has_edge_labels else None
    graphs = []
    for number in range(min(limit, len(y))):
        nodes, edges = (graph_of == number).nonzero().flatten(), (graph_of[pairs[:, 0]] == number).nonzero().flatten()
        graph = Data(x=x[nodes], edge_index=pairs[edges].T - nodes[0], y=y[number : number + 1])
        graph.n_id, graph.edge_id, graph.graph_id = nodes, edges, torch.tensor([number])
        if kinds is not None:
            graph.edge_attr = kinds[edges]
        graphs.append(graph)
    return graphs
