"""The re-implementations that the benchmark measures against compute what they say."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv
from torch_geometric.utils import to_undirected

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))

import peers

from graphcl.encoders import MoleculeGIN
from graphcl.objectives import graphcl_code, infonce, ntxent, queue_infonce

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def molecule(n: int, seed: int) -> Data:
    """A random tree of n >= 2 atoms with a few more bonds."""
    rng = np.random.default_rng(seed)
    pairs = {(int(rng.integers(i)), i) for i in range(1, n)}
    pairs |= {(i, i + 2) for i in range(0, n - 2, 3)}
    edges = to_undirected(torch.tensor(sorted(pairs)).t())
    return Data(
        x=torch.stack([torch.arange(n), torch.from_numpy(rng.integers(3, size=n))], 1),  # atom i is of type i
        edge_index=edges,
        edge_attr=torch.stack([edges.min(0).values % 4, edges.max(0).values % 3], 1),
    )


MOLECULES = [molecule(n, seed) for seed, n in enumerate([2, 5, 17, 30])]


def check_is_induced(view: Data, whole: Data) -> None:
    """The view's edges are those of `whole` between its nodes, with their attributes."""
    kept = view.x[:, 0]  # the type of an atom is its number
    assert len(kept.unique()) == len(kept)
    expected = {
        (u, v, *bond)
        for (u, v), bond in zip(whole.edge_index.t().tolist(), whole.edge_attr.tolist(), strict=True)
        if {u, v} <= set(kept.tolist())
    }
    ends = kept[view.edge_index].t().tolist()
    assert {(u, v, *bond) for (u, v), bond in zip(ends, view.edge_attr.tolist(), strict=True)} == expected


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("whole", MOLECULES[1:])
def test_chem_drop_keeps_exact_counts(whole, rate):
    view = peers.chem_drop_nodes(whole, rate, RNG)
    if view is not whole:
        assert view.num_nodes == whole.num_nodes - int(rate * whole.num_nodes)
        check_is_induced(view, whole)


@pytest.mark.parametrize("whole", MOLECULES)
def test_chem_subgraph_is_a_star(whole):
    for keep in (0.2, 0.8):
        view = peers.chem_subgraph(whole, keep, RNG)
        if view is whole:
            continue
        check_is_induced(view, whole)
        assert view.num_nodes <= int(keep * whole.num_nodes) + 1
        degrees = torch.zeros(view.num_nodes).index_add_(0, view.edge_index[0], torch.ones(view.num_edges))
        assert degrees.max() == view.num_nodes - 1  # one node is next to all others


def test_chem_drop_of_everything_leaves_the_graph():
    assert peers.chem_drop_nodes(MOLECULES[0], 0.5, RNG) is MOLECULES[0]


def test_chem_perturb_replaces_edges_and_forgets_attributes():
    whole = MOLECULES[3]
    view = peers.chem_perturb_edges(whole, 0.25, RNG)
    assert view.edge_index.shape == whole.edge_index.shape and torch.equal(view.edge_attr, whole.edge_attr)
    old = set(map(tuple, whole.edge_index.t().tolist()))
    kept = whole.num_edges - int(0.25 * whole.num_edges)
    assert set(map(tuple, view.edge_index[:, :kept].t().tolist())) <= old
    assert int(view.edge_index.max()) < whole.num_nodes


def test_chem_mask_writes_the_mean():
    whole = MOLECULES[3]
    view = peers.chem_mask_nodes(whole, 0.2, RNG)
    changed = (view.x != whole.x.float()).any(1)
    assert int(changed.sum()) == int(0.2 * whole.num_nodes)
    torch.testing.assert_close(view.x[changed], whole.x.float().mean(0).expand(int(changed.sum()), 2))


def test_chem_gnn_is_our_molecule_gin():
    torch.manual_seed(0)
    theirs, ours = peers.ChemGNN(width=16, layers=3).double(), MoleculeGIN(16, layers=3).double()
    with torch.no_grad():
        ours.atom.weight.copy_(theirs.atom.weight)
        ours.chirality.weight.copy_(theirs.chirality.weight)
        for layer, conv in zip(ours.layers, theirs.convs, strict=True):
            layer.conv.bond.weight.copy_(conv.bond.weight)
            layer.conv.direction.weight.copy_(conv.direction.weight)
            layer.conv.nn.load_state_dict(conv.mlp.state_dict())
    batch = Batch.from_data_list(MOLECULES)
    torch.testing.assert_close(ours(batch), theirs.nodes(batch), rtol=1e-9, atol=1e-9)


def test_in_memory_items_and_batches_are_the_graphs():
    dataset = peers.InMemory(MOLECULES)
    expected = Batch.from_data_list([MOLECULES[i] for i in (2, 0)])
    got = peers.collated(dataset, [2, 0])
    assert torch.equal(got.x, expected.x) and torch.equal(got.edge_index, expected.edge_index)
    augmented = peers.Augmented(MOLECULES, lambda data: peers.chem_drop_nodes(data, 0.2, RNG))
    assert [augmented[i].num_nodes for i in range(4)] == [2, 4, 14, 24]
    assert [augmented[i].num_nodes for i in range(4)] == [2, 4, 14, 24]  # the items themselves stay whole


def test_chem_epoch_trains():
    torch.manual_seed(0)
    dataset = peers.Augmented(MOLECULES, lambda data: peers.chem_drop_nodes(data, 0.2, RNG))
    model = peers.ChemGNN(width=8, layers=2)
    before = model.atom.weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    peers.chem_epoch(DataLoader(dataset, 2), DataLoader(dataset, 2), model, optimizer)
    assert not torch.equal(before, model.atom.weight)
    assert all(p.isfinite().all() for p in model.parameters())


def test_tu_views_after_the_relabel_loop():
    plain = [Data(x=m.x[:, :1].float(), edge_index=m.edge_index) for m in MOLECULES]
    dataset = peers.Augmented(plain, lambda data: peers.tu_pair(data, RNG))
    seen = set()
    for batch, other in DataLoader(dataset, 4):
        view = peers.tu_relabel(other)
        for i, whole in enumerate(MOLECULES):
            kept = view.x[view.batch == i, 0].long().tolist()
            first = int((view.batch < i).sum())
            local = view.edge_index[:, view.batch[view.edge_index[0]] == i] - first
            ends = torch.tensor(kept)[local].t().tolist() if local.numel() else []
            old = whole.edge_index.t().tolist()
            assert sorted(ends) == sorted(pair for pair in old if set(pair) <= set(kept))
            seen.add(len(kept))
        assert torch.equal(batch.x, torch.cat([data.x for data in plain]))
    assert seen  # something was compared


def test_tu_and_masks_epochs_train():
    for epoch, wrap in (
        (peers.tu_epoch, lambda graphs: peers.Augmented(graphs, lambda data: peers.tu_pair(data, RNG))),
        (peers.masks_epoch, peers.InMemory),
    ):
        torch.manual_seed(0)
        graphs = [Data(x=F.one_hot(m.x[:, 0], 30).float(), edge_index=m.edge_index) for m in MOLECULES]
        model = peers.PooledGIN(30, hidden=8, layers=2)
        before = model.convs[0].nn[0].weight.detach().clone()
        epoch(DataLoader(wrap(graphs), 4), model, torch.optim.Adam(model.parameters(), lr=1e-2), CPU)
        assert not torch.equal(before, model.convs[0].nn[0].weight)
        assert all(p.isfinite().all() for p in model.parameters())


def test_masks_views_cut_edges_and_keep_nodes():
    batch = Batch.from_data_list([Data(x=m.x.float(), edge_index=m.edge_index) for m in MOLECULES])
    old = set(map(tuple, batch.edge_index.t().tolist()))
    for choice in peers.MASKS_CHOICES:
        x, edge_index = choice(batch.x, batch.edge_index)
        assert x.shape == batch.x.shape
        assert set(map(tuple, edge_index.t().tolist())) <= old
    assert torch.equal(peers.masks_drop_nodes(batch.x, batch.edge_index, 0.0)[1], batch.edge_index)
    assert peers.masks_drop_nodes(batch.x, batch.edge_index, 1.0)[1].numel() == 0
    assert peers.masks_drop_edges(batch.x, batch.edge_index, 1.0)[1].numel() == 0
    assert not peers.masks_hide_columns(batch.x, batch.edge_index, 1.0)[0].any() and batch.x.any()
    walked = peers.masks_walk(batch.x, batch.edge_index)[1]  # 1000 walks see all of 54 nodes
    assert torch.equal(walked, batch.edge_index)
    one = peers.masks_walk(batch.x, batch.edge_index, starts=1, length=2)[1]
    assert len(one.unique()) <= 3


PAIR = tuple(torch.randn(2, 23, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def gradients(loss, *inputs):
    inputs = [z.clone().requires_grad_() for z in inputs]
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@pytest.mark.parametrize("tau", [0.1, 0.5])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (peers.masks_infonce, infonce),
        (peers.dense_infonce, infonce),
        (peers.graphcl_loss, graphcl_code),
    ],
)
def test_losses_are_the_plain_formulas(theirs, ours, tau):
    got, expected = (gradients(lambda a, b, loss=loss: loss(a, b, tau), *PAIR) for loss in (theirs, ours))
    torch.testing.assert_close(got, expected)


def test_masks_with_intraview_negatives_count_the_row_itself():
    z1, z2 = PAIR
    tau, loss = 0.4, 0.0
    for a, b in ((z1, z2), (z2, z1)):
        for i in range(len(a)):
            others = [torch.exp(F.cosine_similarity(a[i], row, dim=0) / tau) for row in (*b, *a)]  # a[i] among them
            loss = loss - torch.log(others[i] / sum(others)) / (2 * len(a))
    torch.testing.assert_close(peers.masks_infonce(z1, z2, tau, intraview=True), loss)
    assert peers.masks_infonce(z1, z2, tau, intraview=True) > ntxent(z1, z2, tau)  # which leaves it out


def test_moco_loss_is_the_queue_loss():
    q, k = (F.normalize(z) for z in PAIR)
    queue = F.normalize(torch.randn(50, 7, dtype=torch.float64))
    torch.testing.assert_close(peers.moco_loss(q, k, queue.t().contiguous(), 0.07), queue_infonce(q, k, queue, 0.07))


def test_scatter_sum_is_gin_without_itself():
    edge_index, x = MOLECULES[3].edge_index, torch.randn(30, 4, dtype=torch.float64)
    expected = GINConv(torch.nn.Identity())(x, edge_index) - x
    torch.testing.assert_close(peers.scatter_sum(x, edge_index), expected)


def test_grace_epoch_trains():
    data = Data(x=F.one_hot(MOLECULES[3].x[:, 0], 30).float(), edge_index=MOLECULES[3].edge_index)
    model = peers.GraceGCN(30, 8)
    before = model.convs[0].lin.weight.detach().clone()
    peers.masks_grace_epoch(data, model, torch.optim.Adam(model.parameters(), lr=1e-2))
    assert not torch.equal(before, model.convs[0].lin.weight)
