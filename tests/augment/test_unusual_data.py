"""Data as other transforms leave it: edges not graph by graph, attributes as long as something else, sparse edges."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import AddSelfLoops, ToSparseTensor

from augment import (
    AdaptiveDropEdges,
    AdaptiveMaskFeatures,
    DropBonds,
    DropFeatures,
    DropNodes,
    MaskEdgeAttributes,
    OneOf,
    PerturbEdges,
    PPRDiffusion,
)


def path(n: int, number: int = 0) -> Data:
    ends = torch.arange(n - 1)
    ends = torch.stack([ends, ends + 1])
    edge_index = torch.cat([ends, ends.flip(0)], dim=1)
    return Data(x=torch.ones(n, 2), edge_index=edge_index, edge_attr=torch.full((2 * n - 2, 1), float(number)))


def looped() -> Batch:
    """Four paths of 5 edges whose 6 loops PyG puts behind all edges of the batch: 11 undirected pairs in each."""
    batch = Batch.from_data_list([path(6, number) for number in range(1, 5)])
    return AddSelfLoops(attr="edge_attr", fill_value=9.0)(batch)


def pairs_of(edge_index: torch.Tensor) -> list[int]:
    """Undirected pairs, loops among them, of each of the four paths."""
    pairs = {(min(u, v), max(u, v)) for u, v in edge_index.T.tolist()}
    return [sum(u // 6 == number for u, _ in pairs) for number in range(4)]


@pytest.mark.usefixtures("way")
def test_the_share_is_that_of_every_graph_though_edges_are_mixed():
    assert pairs_of(looped().edge_index) == [11] * 4
    for view in (DropBonds(0.5), PerturbEdges(0.5), OneOf([DropBonds(0.5)])):
        assert pairs_of(view(looped()).edge_index) == [5] * 4
    out = MaskEdgeAttributes(0.5)(looped())
    assert pairs_of(out.edge_index[:, out.edge_attr[:, 0] == 0]) == [6] * 4


@pytest.mark.usefixtures("way")
def test_new_edges_take_attributes_of_their_own_graph_though_edges_are_mixed():
    out = PerturbEdges(0.0, 1.0)(looped())
    own = out.edge_index[0] // 6 + 1
    assert ((out.edge_attr[:, 0] == own) | (out.edge_attr[:, 0] == 9)).all() and out.num_edges > looped().num_edges


def test_attributes_of_as_many_edges_as_graphs_follow_their_edges():
    first = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1], [1, 2]]), w=torch.tensor([5, 6]))
    second = Data(
        x=torch.ones(2, 1), edge_index=torch.zeros(2, 0, dtype=torch.long), w=torch.zeros(0, dtype=torch.long)
    )
    first.y, second.y = torch.tensor([1]), torch.tensor([0])
    batch = Batch.from_data_list([first, second])  # two edges, two graphs
    for view, left in ((DropBonds(1.0), 0), (DropBonds(0.5), 1), (PerturbEdges(0.0, 1.0), 4)):
        out = view(batch.clone())
        assert out.num_edges == len(out.w) == left and out.y.tolist() == [1, 0], view
    assert "w" not in PPRDiffusion()(batch.clone()) and PPRDiffusion()(batch.clone()).y.tolist() == [1, 0]
    single = Batch.from_data_list(
        [Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([k])) for k in (0, 1)]
    )
    assert DropBonds(1.0)(single).y.tolist() == [0, 1]  # one edge a graph: they may be of either, and y is of graphs


def test_edges_that_are_a_sparse_matrix_are_refused():
    data = ToSparseTensor()(path(6))
    for view in (PerturbEdges(0.5), DropBonds(0.5), AdaptiveDropEdges(0.5), OneOf([PerturbEdges(0.5)])):
        with pytest.raises(
            ValueError, match=r"'adj_t' is a sparse matrix, whose edges no view changes; use edge_index"
        ):
            view(data)
    assert DropFeatures(1.0)(data).x.count_nonzero() == 0


def test_features_that_are_true_or_false_stay_so():
    data = path(6)
    data.x = torch.ones(6, 3, dtype=torch.bool)
    for view in (DropFeatures(0.5), DropFeatures(0.5, mode="entry"), AdaptiveMaskFeatures(0.5), DropNodes(0.2)):
        assert view(data.clone()).x.dtype == torch.bool
    assert not DropFeatures(1.0)(data.clone()).x.any()
