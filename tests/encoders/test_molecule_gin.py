"""MoleculeGIN against the sums that the benchmark's encoder makes, and its input checks."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv

from graphcl.encoders import MoleculeGIN, Readout, aggregate
from graphcl.encoders.molecule_inputs import BONDS, DIRECTIONS, SELF_LOOP
from graphcl.encoders.molecule_layers import BondConv


def molecules() -> Batch:
    """A ring with a tail, one atom alone, and two unbound atoms."""
    bonds = [(0, 1, 3, 0), (1, 2, 3, 0), (2, 0, 3, 0), (2, 3, 0, 1), (3, 4, 1, 0)]
    both = [(u, v, t, d) for a, b, t, d in bonds for u, v in ((a, b), (b, a))]
    table = torch.tensor(both)
    first = Data(
        x=torch.tensor([[5, 0], [5, 0], [6, 0], [5, 1], [7, 0]]), edge_index=table[:, :2].T, edge_attr=table[:, 2:]
    )
    empty = {"edge_index": torch.empty(2, 0, dtype=torch.long), "edge_attr": torch.empty(0, 2, dtype=torch.long)}
    alone, pair = Data(x=torch.tensor([[25, 0]]), **empty), Data(x=torch.tensor([[10, 0], [16, 2]]), **empty)
    return Batch.from_data_list([first, alone, pair])


def by_hand(encoder: Any, data: Any) -> list[Tensor]:
    """Every layer's output: self-loops of bond type 4 added as edges, one edge at a time."""
    h, outs = encoder.atom.weight[data.x[:, 0]] + encoder.chirality.weight[data.x[:, 1]], []
    loops = [(i, i, SELF_LOOP, 0) for i in range(len(h))]
    edges = [(*pair, *kind) for pair, kind in zip(data.edge_index.T.tolist(), data.edge_attr.tolist(), strict=True)]
    for i, layer in enumerate(encoder.layers):
        total = torch.zeros_like(h)
        for u, v, bond, direction in edges + loops:
            total[v] += h[u] + layer.conv.bond.weight[bond] + layer.conv.direction.weight[direction]
        first, _, second = layer.conv.nn
        h = (total @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
        h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
        h = h.relu() if i < len(encoder.layers) - 1 else h
        outs.append(h)
    return outs


def test_it_is_the_benchmarks_encoder():
    data, encoder = molecules(), MoleculeGIN(6, layers=3).double().train()
    torch.testing.assert_close(encoder(data), by_hand(encoder, data)[-1].detach())
    cat = MoleculeGIN(6, layers=3, jk="cat").double().train()
    torch.testing.assert_close(cat(data), torch.cat(by_hand(cat, data), dim=1).detach())
    assert (encoder(data) < 0).any()  # no ReLU after the last layer


class PlainBondConv(GINConv):
    """As one writes it with PyG: a message for every bond."""

    propagate_type: ClassVar[dict[str, Any]] = {"x": Tensor, "bond": Tensor, "weight": Tensor}

    def __init__(self, width: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)))
        self.bond, self.direction = nn.Embedding(BONDS, width), nn.Embedding(DIRECTIONS, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        bond = self.bond(edge_attr[:, 0]) + self.direction(edge_attr[:, 1])
        out = self.propagate(edge_index, x=x, bond=bond, weight=weight)
        return self.nn(out + x + self.bond.weight[SELF_LOOP] + self.direction.weight[0])

    def message(self, x_j: Tensor, bond: Tensor, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1) * (x_j + bond)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("edges", ["molecules", "any", "none"])
def test_the_convolution_is_what_one_writes_with_pyg(edges, weighted):
    data = molecules()
    edge_index, edge_attr = data.edge_index, data.edge_attr
    if edges == "any":  # loops, repeated edges, all categories, no order
        edge_index = torch.randint(8, (2, 60))
        edge_attr = torch.stack([torch.arange(60) % BONDS, torch.randint(DIRECTIONS, (60,))], dim=1)
    if edges == "none":
        edge_index, edge_attr = edge_index[:, :0], edge_attr[:0]
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(edge_index.size(1), dtype=torch.float64, requires_grad=weighted)
    weight = weight if weighted else torch.ones_like(weight)
    fast, plain = BondConv(5).double(), PlainBondConv(5).double()
    plain.load_state_dict(fast.state_dict())
    up = torch.randn(8, 5, dtype=torch.float64)
    got, wanted = fast(x, edge_index, edge_attr, weight if weighted else None), plain(x, edge_index, edge_attr, weight)
    torch.testing.assert_close(got, wanted)
    for out, conv in ((got, fast), (wanted, plain)):
        inputs = [x, *conv.parameters(), *([weight] if weighted else [])]
        grads = torch.autograd.grad((out * up).sum(), inputs)
        if conv is fast:
            kept = grads
    torch.testing.assert_close(kept, grads)


def test_counts_are_made_once_a_view_and_never_for_another(monkeypatch):
    data, encoder = molecules(), MoleculeGIN(6, layers=3).eval()
    made = []
    of_edges = aggregate.CSR.of_edges
    monkeypatch.setattr(aggregate.CSR, "of_edges", lambda *args: made.append(args) or of_edges(*args))
    encoder(data).sum().backward()
    encoder(data)
    assert len(made) == 1
    data.edge_attr = data.edge_attr.flip(0)
    assert torch.equal(encoder(data), encoder(data.clone()))
    data.edge_attr[0] = 2
    assert torch.equal(encoder(data), encoder(data.clone()))
    data.edge_weight = torch.rand(data.num_edges)
    assert torch.equal(encoder(data), encoder(data.clone()))
    data.edge_weight *= 0.5
    assert torch.equal(encoder(data), encoder(data.clone()))


def test_negative_categories_are_refused():
    data = molecules()
    for column in (0, 1):
        wrong = data.clone()
        wrong.edge_attr[0, column] = -1
        with pytest.raises(ValueError, match="edge_attr has a category that the molecule encoders do not know"):
            MoleculeGIN(6, layers=1)(wrong)


def test_the_tables_have_the_benchmarks_rows():
    encoder = MoleculeGIN()
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert shapes["atom.weight"] == (120, 300) and shapes["chirality.weight"] == (3, 300)
    for i in range(5):
        assert shapes[f"layers.{i}.conv.bond.weight"] == (6, 300)
        assert shapes[f"layers.{i}.conv.direction.weight"] == (3, 300)
        assert shapes[f"layers.{i}.conv.nn.0.weight"] == (600, 300)
        assert shapes[f"layers.{i}.conv.nn.2.weight"] == (300, 600)


def test_every_feature_is_read():
    data, encoder = molecules(), MoleculeGIN(6, layers=2).double().eval()
    plain = encoder(data)
    for key, column in (("x", 0), ("x", 1), ("edge_attr", 0), ("edge_attr", 1)):
        changed = data.clone()
        changed[key] = data[key].clone()
        changed[key][0, column] = 2
        assert not torch.equal(encoder(changed), plain)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_will_do(dtype):
    data, encoder = molecules(), MoleculeGIN(6, layers=2).double()
    narrow = data.clone()
    narrow.x, narrow.edge_attr = data.x.to(dtype), data.edge_attr.to(dtype)
    assert torch.equal(encoder(narrow), encoder(data))


def test_masked_and_unknown_categories_have_rows_of_their_own():
    data, encoder = molecules(), MoleculeGIN(6, layers=2).double()
    data.x, data.edge_attr = data.x.clone(), data.edge_attr.clone()
    data.x[0, 0], data.x[1, 0], data.edge_attr[0, 0] = 118, 119, 5
    encoder(data).sin().sum().backward()
    assert (encoder.atom.weight.grad[118:] != 0).any(dim=1).all()
    assert (encoder.layers[0].conv.bond.weight.grad[5] != 0).any()


def test_unknown_categories_are_named():
    data = molecules()
    for key, column, value in (
        ("x", 0, 120),
        ("x", 1, 3),
        ("x", 0, -1),
        ("edge_attr", 0, BONDS),
        ("edge_attr", 1, DIRECTIONS),
    ):
        wrong = data.clone()
        wrong[key] = data[key].clone()
        wrong[key][0, column] = value
        known = "atom 0 to 119, chirality 0 to 2" if key == "x" else "bond 0 to 5, direction 0 to 2"
        with pytest.raises(ValueError, match=f"^{key} has a category that .* do not know; known: {known}$"):
            MoleculeGIN(6, layers=2)(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"read x as 2 integer columns \(atom, chirality\), got nothing; .* the encoder gin"),
        ({"x": torch.zeros(8, 2)}, r"read x as .*, got torch\.float32 of shape \(8, 2\)"),
        (
            {"x": torch.zeros(8, 9, dtype=torch.long)},
            r"read x as .*, got torch\.int64 of shape \(8, 9\); encoder\.features=ogb reads these; or read molecules",
        ),
        ({"x": torch.zeros(8, dtype=torch.long)}, r"read x as .*, got torch\.int64 of shape \(8,\)"),
        ({"edge_attr": None}, r"read edge_attr as 2 integer columns \(bond, direction\), got nothing"),
        ({"edge_attr": torch.zeros(10, 2)}, r"read edge_attr as .*, got torch\.float32 of shape \(10, 2\)"),
    ],
)
def test_other_features_are_refused_with_the_way_out(change, message):
    data = molecules()
    for key, value in change.items():
        data[key] = value
    with pytest.raises(ValueError, match=message):
        MoleculeGIN(6, layers=2)(data)


def test_pretraining_shape_learns_atoms_from_their_surroundings():
    data, encoder = molecules(), MoleculeGIN(16, layers=2)
    target = data.x[:, 0].clone()
    data.x = data.x.clone()
    data.x[2, 0] = 119  # one masked atom, told by its bonds
    head = nn.Linear(encoder.out_dim, 120)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.02)
    for _ in range(60):
        loss = nn.functional.cross_entropy(head(encoder(data)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert head(encoder(data)).argmax(dim=1).tolist() == target.tolist()
    assert Readout("mean")(encoder(data), data).shape == (3, 16)
