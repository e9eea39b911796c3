import graphs
import networkx as nx
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from graphcl.evaluate.link import Links, hide_edges, link_dot, link_hadamard

both = pytest.mark.parametrize("score", [link_dot, link_hadamard])


def communities(groups: int = 4, size: int = 12, seed: int = 0) -> Data:
    network = nx.random_partition_graph([size] * groups, 0.5, 0.02, seed=seed)
    edges = to_undirected(torch.tensor(list(network.edges())).T)
    return Data(edge_index=edges, num_nodes=groups * size, edge_attr=edges.T.sum(1, keepdim=True).float())


def pairs(links: Links, *parts: str) -> list[tuple[int, int]]:
    return [tuple(pair) for part in parts for pair in getattr(links, part).tolist()]


def test_every_edge_goes_to_one_part_and_the_hidden_ones_are_hidden():
    data = communities()
    left, links = hide_edges(data, seed=1)
    whole = {tuple(sorted(edge)) for edge in data.edge_index.T.tolist()}
    shared = pairs(links, "train", "val", "test")
    assert len(shared) == len(set(shared)) and set(shared) == whole
    assert len(links.test) == round(0.1 * len(whole)) and len(links.val) == round(0.05 * len(whole))
    assert {tuple(sorted(edge)) for edge in left.edge_index.T.tolist()} == set(pairs(links, "train"))
    assert left.num_edges == 2 * len(links.train) and left.num_nodes == data.num_nodes
    assert torch.equal(left.edge_attr, left.edge_index.T.sum(1, keepdim=True).float())  # what belongs to an edge stays


def test_pairs_that_are_none():
    data = communities()
    _, links = hide_edges(data, seed=2)
    whole = {tuple(sorted(edge)) for edge in data.edge_index.T.tolist()}
    held_out = pairs(links, "val_none", "test_none")
    assert len(held_out) == len(set(held_out)) == len(links.val) + len(links.test) and not whole & set(held_out)
    train = pairs(links, "train_none")
    assert len(train) == len(set(train)) == len(links.train) and not set(pairs(links, "train")) & set(train)
    assert all(u < v for u, v in held_out + train)


def test_train_pairs_know_nothing_of_the_hidden_edges():
    """In an all but complete graph nearly every pair that is no edge of what is left is a hidden one."""
    network = nx.complete_graph(12)
    network.remove_edges_from([(0, i) for i in range(1, 12)])
    data = Data(edge_index=to_undirected(torch.tensor(list(network.edges())).T), num_nodes=12)
    _, links = hide_edges(data, val=0.05, test=0.1)
    assert set(pairs(links, "train_none")) & set(pairs(links, "val", "test"))


@pytest.mark.parametrize(
    ("edges", "undirected"),
    [
        ([(0, 0), (0, 1), (2, 2), (2, 3), (3, 4)], True),
        ([(0, 1), (0, 1), (1, 2), (0, 1), (2, 3), (2, 2), (2, 2)], True),
        ([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 0)], False),
        ([(0, 1), (5, 6), (6, 7)], True),
    ],
    ids=["self-loops", "multi-edges", "directed", "isolated nodes"],
)
def test_odd_graphs(edges, undirected):
    data = graphs.make_graph(8, edges, undirected=undirected)
    left, links = hide_edges(data, val=0.2, test=0.2)
    assert left.edge_attr.shape[0] == left.num_edges < data.num_edges
    gone = set(pairs(links, "val", "test"))
    assert gone and not gone & {tuple(sorted(edge)) for edge in left.edge_index.T.tolist()}
    loops = (data.edge_index[0] == data.edge_index[1]).sum()
    assert (left.edge_index[0] == left.edge_index[1]).sum() == loops
    assert all(u != v for part in links for u, v in part.tolist())


def test_seeded():
    data = communities()
    a, b, c = (hide_edges(data, seed=seed)[1] for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and not torch.equal(a.test, c.test)


@both
def test_communities_are_told_from_chance(score):
    data = communities(size=20)
    _, links = hide_edges(data)
    group = torch.eye(4)[torch.arange(80) // 20] + 0.1 * torch.randn(80, 4)
    scores = score(group, None, links)
    assert scores.mean > 0.85 and scores.also["average_precision"][0] > 0.75
    assert 0.25 < score(torch.randn(80, 4), None, links).mean < 0.75
    assert score(group, None, links, metric="average_precision").values == scores.also["average_precision"]
    several = score(group, None, [links, hide_edges(data, seed=1)[1]])
    assert len(several.values) == len(several.valid) == len(several.also["average_precision"]) == 2
    assert scores.protocol in ("link-dot/clean/1", "link-hadamard/clean/1")


def test_dot_product_ranks_pair_by_pair():
    data = communities()
    _, links = hide_edges(data)
    z = torch.randn(48, 3).double()
    wins = [
        float(z[a] @ z[b] > z[c] @ z[d]) for a, b in links.test.tolist() for c, d in links.test_none.tolist()
    ]  # AUC: how often an edge comes before a pair that is none
    assert link_dot(z, None, links).mean == pytest.approx(sum(wins) / len(wins))


@both
def test_turning_the_test_labels_round_turns_the_score_round(score):
    data = communities(size=16)
    _, links = hide_edges(data)
    z = torch.randn(64, 4)
    honest = score(z, None, links)
    turned = score(z, None, links._replace(test=links.test_none, test_none=links.test))
    assert turned.valid == honest.valid and turned.mean == pytest.approx(1 - honest.mean)


@both
def test_mistakes_are_told(score):
    data = communities()
    _, links = hide_edges(data)
    with pytest.raises(ValueError, match="embeddings have 40 rows; are the links of another graph"):
        score(torch.randn(40, 3), None, links)
    with pytest.raises(ValueError, match="no links given; make them with"):
        score(torch.randn(48, 3), None, [])
    with pytest.raises(ValueError, match="metric must be one of roc_auc, average_precision, got 'accuracy'"):
        score(torch.randn(48, 3), None, links, metric="accuracy")
    with pytest.raises(ValueError, match=r"links.val must be \[n, 2\] with n > 0, got \(0, 2\)"):
        score(torch.randn(48, 3), None, links._replace(val=links.val[:0]))


def test_graphs_that_cannot_be_shared_out_are_told():
    two = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=9)
    with pytest.raises(ValueError, match="2 undirected edges cannot be shared out"):
        hide_edges(two)
    whole = Data(edge_index=to_undirected(torch.tensor(list(nx.complete_graph(6).edges())).T), num_nodes=6)
    with pytest.raises(ValueError, match="3 pairs without an edge are needed, the graph has 0; hide fewer edges"):
        hide_edges(whole)
    for shares in ({"val": 0.0}, {"test": 1.0}, {"val": 0.5, "test": 0.5}):
        with pytest.raises(ValueError, match="val and test must be shares > 0 of sum < 1"):
            hide_edges(two, **shares)
