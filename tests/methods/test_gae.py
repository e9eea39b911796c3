import pytest
import torch
from small_methods import WIDTH, Neighbours, graphs, nodes, sample
from torch_geometric.data import Data

from graphcl.encoders.readout import Readout
from graphcl.methods import GAE
from graphcl.methods.gae import edges_of, random_pairs


def by_hand(z, edge_index, other, true):
    """Binary cross-entropy of sigmoid(z_u . z_v), one pair at a time: mean over the edges, mean over the non-edges."""
    edges = [-torch.sigmoid(z[u] @ z[v]).log() for u, v in edge_index.T.tolist()]
    ends = zip(other.tolist(), edge_index[1].tolist(), true.tolist(), strict=True)
    pairs = [-(1 - torch.sigmoid(z[u] @ z[v])).log() for u, v, is_true in ends if not is_true]
    return sum(edges) / len(edges) + sum(pairs) / len(pairs)


@pytest.mark.parametrize("make", [nodes, graphs])
def test_loss_by_hand(make):
    data, method = make(), GAE(Neighbours()).double()
    data.x = data.x.double()
    torch.manual_seed(1)
    other, true = random_pairs(data, data.edge_index[1])
    torch.manual_seed(1)
    values = method.loss(data)
    z = method.encoder(data).detach()
    assert torch.allclose(values["loss"], by_hand(z, data.edge_index, other, true))
    assert values["kl"] == 0


def test_random_pairs_stay_in_their_graph_and_know_the_edges():
    data = graphs()
    edges = set(map(tuple, data.edge_index.T.tolist()))
    seen = set()
    for _ in range(50):
        other, true = random_pairs(data, data.edge_index[1])
        assert torch.equal(data.batch[other], data.batch[data.edge_index[1]])
        for u, v, is_true in zip(other.tolist(), data.edge_index[1].tolist(), true.tolist(), strict=True):
            assert is_true == (u == v or (u, v) in edges)
            seen.add((u, v))
    wanted = {
        (u, v) for v in set(data.edge_index[1].tolist()) for u in (data.batch == data.batch[v]).nonzero()[:, 0].tolist()
    }
    assert seen == wanted  # every node of the graph is drawn, the last one too


def test_kl_by_hand():
    """ELBO of one graph over its N^2 pairs: sum_i KL(q_i | N(0, 1)) / N^2; of several, over the pairs of all."""
    for data in (nodes(5), graphs([3, 1, 4])):
        data.x = data.x.double()
        method = GAE(Neighbours(3), variational=True).double()
        h = method.encoder(data)
        total = 0.0
        for mean, logvar in zip(method.mean(h).flatten(), method.logvar(h).flatten(), strict=True):
            total = total - 0.5 * (1 + logvar - mean**2 - logvar.exp())
        sizes = [graph.num_nodes for graph in data.to_data_list()] if "batch" in data else [5]
        wanted = total / sum(n * n for n in sizes)
        assert torch.allclose(method.loss(data)["kl"], wanted)


def test_embedding_of_the_variational_one_is_the_mean():
    method, data = GAE(Neighbours(3), variational=True), nodes()
    assert torch.equal(method.encode(data), method.mean(method.encoder(data)))
    pooled = GAE(Neighbours(3), Readout("sum")).encode(graphs())
    assert pooled.shape == (8, 3)


@pytest.mark.parametrize(
    "edges",
    [torch.zeros(2, 0, dtype=torch.long), torch.tensor([[0], [0]]), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])],
    ids=["no edges", "a loop only", "no pair that is not an edge"],
)
@pytest.mark.parametrize("variational", [False, True])
def test_graphs_with_nothing_to_tell_apart(edges, variational):
    data = Data(x=torch.randn(2, WIDTH), edge_index=edges)
    method = GAE(Neighbours(3), variational=variational)
    loss = method.loss(data)["loss"]
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.encoder.parameters())


def test_graphs_without_edges_in_a_batch():
    method = GAE(Neighbours(3))
    assert method.loss(graphs([1, 1, 1]))["loss"] == 0
    assert method.loss(graphs([1, 5, 1]))["loss"] > 0


def test_of_a_sample_the_edges_into_the_seeds_count():
    data = sample(4)
    assert set(edges_of(data)[1].tolist()) == {0, 1, 2, 3}
    assert edges_of(data).shape[1] == int((data.edge_index[1] < 4).sum())
    assert torch.equal(edges_of(nodes()), nodes().edge_index)
