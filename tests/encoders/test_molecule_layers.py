"""The molecule convolutions and encoders against the benchmark's formulas, one edge at a time, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from device_guards import device_clean, to_meta
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphcl.data.ogb import ATOM_DIMS, BOND_DIMS
from graphcl.encoders import ENCODERS, MoleculeGAT, MoleculeGIN, Readout
from graphcl.encoders.molecule_inputs import FEATURES, tables_of
from graphcl.encoders.molecule_layers import BondConv, BondGATConv, BondGCNConv, BondSAGEConv

NAMES = [name for name in ENCODERS if name.startswith("molecule")]


def codes(count: int, rows: dict[str, int]) -> Tensor:
    """[count, C] categories, each of every column's if there are enough rows."""
    generator = torch.Generator().manual_seed(count)
    columns = [
        (torch.arange(count) * (k + 1) + torch.randint(n, (1,), generator=generator)) % n
        for k, n in enumerate(rows.values())
    ]
    return torch.stack(columns, dim=1)


def molecules(features: str) -> Batch:
    """A ring with a tail, one atom alone, two unbound atoms, a pair."""
    columns = FEATURES[features]
    shapes = [(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)]), (1, []), (2, []), (2, [(0, 1)])]
    atoms, bonds, graphs = codes(10, columns.atoms), codes(6, columns.bonds), []
    for n, pairs in shapes:
        ends = torch.tensor([(u, v) for a, b in pairs for u, v in ((a, b), (b, a))], dtype=torch.long).reshape(-1, 2)
        attr, bonds = bonds[: len(pairs)].repeat_interleave(2, 0), bonds[len(pairs) :]
        graphs.append(Data(x=atoms[:n], edge_index=ends.T, edge_attr=attr))
        atoms = atoms[n:]
    return Batch.from_data_list(graphs)


def any_graph(features: str) -> Data:
    """Loops, repeated edges, both in no order, an atom without edges."""
    columns = FEATURES[features]
    ends = torch.randint(7, (2, 40), generator=torch.Generator().manual_seed(1))
    return Data(x=codes(8, columns.atoms), edge_index=ends, edge_attr=codes(40, columns.bonds))


def entries(conv: Any, data: Any, weight: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
    """(source, target, weight, bond embedding) of every edge and of every atom's own."""
    columns = conv.columns

    def embedding(kind: list[int]) -> Tensor:
        return sum(getattr(conv, name).weight[code] for name, code in zip(columns.bonds, kind, strict=True))

    edges = [
        (u, v, weight[e], embedding(data.edge_attr[e].tolist())) for e, (u, v) in enumerate(data.edge_index.T.tolist())
    ]
    one = torch.ones((), dtype=weight.dtype)
    return edges + [(i, i, one, embedding(list(columns.loop))) for i in range(data.num_nodes)]


def by_gin(conv, x, data, weight):
    out = [torch.zeros(x.size(1), dtype=x.dtype) for _ in x]
    for u, v, w, e in entries(conv, data, weight):
        out[v] = out[v] + w * (x[u] + e)
    return conv.nn(torch.stack(out))


def by_gcn(conv, x, data, weight):
    total = [torch.zeros((), dtype=x.dtype) for _ in x]
    for _, v, w, _ in entries(conv, data, weight):
        total[v] = total[v] + w
    out = [torch.zeros(x.size(1), dtype=x.dtype) for _ in x]
    for u, v, w, e in entries(conv, data, weight):
        out[v] = out[v] + w / (total[u] * total[v]).sqrt() * (conv.linear(x[u]) + e)
    return torch.stack(out)


def by_sage(conv, x, data, weight):
    out = []
    for i in range(len(x)):
        into = [(w, conv.linear(x[u]) + e) for u, v, w, e in entries(conv, data, weight) if v == i]
        mean = sum(w * m for w, m in into) / sum(w for w, _ in into)
        out.append(mean / mean.norm())
    return torch.stack(out)


def by_gat(conv, x, data, weight):
    heads, width = conv.heads, x.size(1)
    out = []
    for i in range(len(x)):
        total = conv.bias
        for k in range(heads):
            part = slice(k * width, (k + 1) * width)
            own = conv.linear(x[i])[part]
            into = [(w, (conv.linear(x[u]) + e)[part]) for u, v, w, e in entries(conv, data, weight) if v == i]
            scores = [nn.functional.leaky_relu(conv.att[k] @ torch.cat([own, m]), 0.2) for _, m in into]
            shares = [w * score.exp() for (w, _), score in zip(into, scores, strict=True)]
            total = total + sum(a * m for a, (_, m) in zip(shares, into, strict=True)) / sum(shares) / heads
        out.append(total)
    return torch.stack(out)


CONVS = {
    "gin": (BondConv, by_gin),
    "gcn": (BondGCNConv, by_gcn),
    "sage": (BondSAGEConv, by_sage),
    "gat": (BondGATConv, by_gat),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("graph", ["molecules", "any", "none"])
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", CONVS)
def test_convolutions_are_the_formulas(name, features, graph, weighted):
    make, by_hand = CONVS[name]
    data = any_graph(features) if graph == "any" else molecules(features)
    if graph == "none":
        data.edge_index, data.edge_attr = data.edge_index[:, :0], data.edge_attr[:0]
    torch.manual_seed(0)
    conv = make(4, features).double()
    x = torch.randn(data.num_nodes, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(data.num_edges, dtype=torch.float64, requires_grad=weighted)
    given = weight if weighted else None
    weight = weight if weighted else torch.ones_like(weight)
    up = torch.randn(data.num_nodes, 4, dtype=torch.float64)
    inputs = [x, *conv.parameters(), *([weight] if weighted else [])]
    got, wanted = conv(x, data.edge_index, data.edge_attr, given), by_hand(conv, x, data, weight)
    torch.testing.assert_close(got, wanted)
    grads = [torch.autograd.grad((out * up).sum(), inputs, allow_unused=True) for out in (got, wanted)]
    for fast, slow, value in zip(*grads, inputs, strict=True):
        torch.testing.assert_close(fast, torch.zeros_like(value) if slow is None else slow)


@pytest.mark.parametrize("name", CONVS)
def test_an_edge_of_weight_zero_is_no_edge(name):
    data, conv = molecules("benchmark"), CONVS[name][0](4).double()
    x = torch.randn(data.num_nodes, 4, dtype=torch.float64)
    kept = torch.arange(data.num_edges) != 3
    weight = kept.double().requires_grad_()
    got = conv(x, data.edge_index, data.edge_attr, weight)
    torch.testing.assert_close(got, conv(x, data.edge_index[:, kept], data.edge_attr[kept]))
    assert torch.autograd.grad(got.sin().sum(), weight)[0][3] != 0  # it can come back


def test_attention_stays_finite_for_large_scores():
    data, conv = molecules("benchmark"), BondGATConv(4)
    x = (1e4 * torch.randn(data.num_nodes, 4)).requires_grad_()
    weight = torch.zeros(data.num_edges, requires_grad=True)  # the highest score may be of an edge that is none
    for given in (None, weight):
        out = conv(x, data.edge_index, data.edge_attr, given)
        assert out.isfinite().all()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), [x, *conv.parameters()]))


# --- encoders ---------------------------------------------------------------------------------------------------------


def whole_by_hand(encoder: Any, data: Any, by_hand: Any) -> Tensor:
    """The encoder in training mode, with OGB's virtual node if it has one."""
    columns = FEATURES[encoder.features]
    h = sum(getattr(encoder, name).weight[data.x[:, k]] for k, name in enumerate(columns.atoms))
    weight = torch.ones(data.num_edges, dtype=h.dtype)
    virtual = [encoder.virtual for _ in range(data.num_graphs)] if encoder.virtual_node else None

    def norm(rows: Tensor) -> Tensor:
        return (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()

    for i, layer in enumerate(encoder.layers):
        last = i == len(encoder.layers) - 1
        if virtual is not None:
            h = torch.stack([row + virtual[g] for row, g in zip(h, data.batch.tolist(), strict=True)])
        inward = h
        h = norm(by_hand(layer.conv, h, data, weight))
        h = h if last else h.relu()
        if virtual is not None and not last:
            first, second = layer.update[0], layer.update[3]
            pooled = torch.stack([inward[data.batch == g].sum(0) + virtual[g] for g in range(data.num_graphs)])
            virtual = norm(second(norm(first(pooled)).relu())).relu()
    return h


@pytest.mark.parametrize("virtual_node", [False, True])
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", NAMES)
def test_encoders_are_the_formulas(name, features, virtual_node):
    torch.manual_seed(0)
    encoder = ENCODERS[name](4, layers=3, features=features, virtual_node=virtual_node).double().train()
    if virtual_node:
        nn.init.normal_(encoder.virtual)
    data = molecules(features)
    got, wanted = encoder(data), whole_by_hand(encoder, data, CONVS[name.removeprefix("molecule_")][1])
    torch.testing.assert_close(got, wanted)
    names = [key for key, _ in encoder.named_parameters() if "finish" not in key and "update" not in key]
    inputs = [encoder.get_parameter(key) for key in names]
    fast, slow = (torch.autograd.grad(out.sin().sum(), inputs, allow_unused=True) for out in (got, wanted))
    for key, one, other, value in zip(names, fast, slow, inputs, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(value) if other is None else other, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_with_a_virtual_node_layers_run_one_at_a_time(name):
    data = molecules("ogb")
    encoder = ENCODERS[name](4, layers=3, jk="cat", features="ogb", virtual_node=True).double()
    h, outs = encoder.start(data), []
    for layer in encoder.layers:
        h = layer(h, data)
        assert h.shape == (data.num_nodes + data.num_graphs, 4)
        outs.append(h[: data.num_nodes])
    assert torch.equal(encoder(data), torch.cat(outs, dim=1))


def test_a_virtual_node_ties_the_atoms_of_its_graph_and_no_others():
    data = molecules("benchmark")
    encoder = MoleculeGIN(6, layers=3, virtual_node=True).double().eval()
    other = data.clone()
    other.x = data.x.clone()
    other.x[6, 0] = 77  # one of the two unbound atoms
    changed = (encoder(other) != encoder(data)).any(dim=1)
    assert changed.tolist() == [False] * 6 + [True] * 2 + [False] * 2
    alone = torch.cat([encoder(graph) for graph in data.to_data_list()])  # Data, without batch
    torch.testing.assert_close(encoder(data), alone)


def test_one_atom_alone_trains_with_a_virtual_node():
    data = molecules("benchmark")[1]
    encoder = MoleculeGIN(6, layers=2, virtual_node=True).double().train()
    out = encoder(data)
    assert out.shape == (1, 6) and out.isfinite().all()
    out.sum().backward()
    assert encoder.virtual.grad is not None


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", NAMES)
def test_steps_wait_for_nothing(name, features):
    data = molecules(features)
    data.edge_weight = torch.rand(data.num_edges)
    encoder, readout = ENCODERS[name](4, layers=2, features=features, virtual_node=True), Readout("mean")
    with device_clean() as mode:
        data, encoder = to_meta(data, mode), to_meta(encoder, mode)
        readout(encoder(data), data).sum().backward()


def test_tables_are_ogbs_with_a_row_more():
    columns = FEATURES["ogb"]
    assert [rows - 1 for rows in columns.atoms.values()] == list(ATOM_DIMS)
    # of the bond's type two more: masked or unknown, and the self-loop
    assert [rows - 1 for rows in columns.bonds.values()] == [BOND_DIMS[0] + 1, *BOND_DIMS[1:]]
    encoder = MoleculeGIN(8, layers=1, features="ogb")
    assert tables_of(encoder, columns.atoms).shape == (sum(columns.atoms.values()), 8)


def test_every_column_of_ogb_is_read_and_its_masked_row_learns():
    columns = FEATURES["ogb"]
    data, encoder = molecules("ogb"), MoleculeGAT(4, layers=2, features="ogb").double().eval()
    plain = encoder(data)
    for key, rows in (("x", columns.atoms), ("edge_attr", columns.bonds)):
        for k, count in enumerate(rows.values()):
            other = data.clone()
            other[key] = data[key].clone()
            other[key][0, k] = (data[key][0, k] + 1) % count
            assert not torch.equal(encoder(other), plain)
    masked = data.clone()
    masked.x = torch.tensor([count - 1 for count in columns.atoms.values()]).expand(10, 9)
    encoder(masked).sin().sum().backward()
    assert all((getattr(encoder, name).weight.grad[-1] != 0).any() for name in columns.atoms)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_the_other_set_are_refused(name):
    encoder = ENCODERS[name](4, layers=1, features="ogb")
    with pytest.raises(ValueError, match=r"features='ogb' read x as 9 .* got .*\(10, 2\); .* with data\.features=ogb"):
        encoder(molecules("benchmark"))
    data = molecules("ogb")
    data.edge_attr = data.edge_attr[:, :2]
    with pytest.raises(ValueError, match=r"read edge_attr as 3 integer columns \(bond, stereo, conjugated\)"):
        encoder(data)
    data = molecules("ogb")
    data.edge_attr[0, 1] = 7
    with pytest.raises(ValueError, match=r"edge_attr has a category .* known: bond 0 to 6, stereo 0 to 6, conjugated"):
        encoder(data)
    with pytest.raises(ValueError, match="unknown features 'rdkit' of a molecule encoder; known: benchmark, ogb"):
        ENCODERS[name](4, features="rdkit")


def test_a_virtual_node_leaves_the_other_names_as_they_are():
    plain, tied = MoleculeGIN(4, layers=2), MoleculeGIN(4, layers=2, virtual_node=True)
    extra = set(tied.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(tied.state_dict())
    assert all(key == "virtual" or ".update." in key for key in extra)
    copy.deepcopy(tied).load_state_dict(tied.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(name):
    data, encoder = molecules("ogb"), ENCODERS[name](8, layers=2, features="ogb", virtual_node=True).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(data)
    torch.testing.assert_close(half.float(), encoder(data), rtol=0.05, atol=0.05)
    half.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("conv", [BondConv, BondGCNConv, BondSAGEConv, BondGATConv])
def test_bonds_and_weights_that_are_not_one_an_edge_are_refused(conv):
    data, layer = molecules("benchmark"), conv(4)
    x, attr, weight = torch.ones(10, 4), data.edge_attr, torch.ones(data.num_edges)
    for wrong in (attr[:-1], torch.cat([attr, attr])):
        with pytest.raises(ValueError, match=rf"edge_attr has {len(wrong)} rows for {data.num_edges} edges"):
            layer(x, data.edge_index, wrong)
    for wrong in (weight[:-1], torch.cat([weight, weight])):
        with pytest.raises(ValueError, match=rf"edge_weight has {len(wrong)} rows for {data.num_edges} edges"):
            layer(x, data.edge_index, attr, wrong)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_refuses_more_bonds_than_edges(name):
    data = molecules("benchmark")
    data.edge_attr = torch.cat([data.edge_attr, data.edge_attr])
    with pytest.raises(ValueError, match=f"edge_attr has {2 * data.num_edges} rows for {data.num_edges} edges"):
        ENCODERS[name](4)(data)
