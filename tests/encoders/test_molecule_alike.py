"""Like atoms computed once: the kinds against a refinement by tuples, rows and gradients against the plain layers."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from augment import DropNodes, MaskAttributes, TwoViews
from graphcl.data.molecules import molecules_to_store
from graphcl.encoders import MoleculeGIN, molecule_alike
from graphcl.encoders.inputs import NodeNorm
from graphcl.encoders.molecule_alike import Kinds, counted_norm, like_atoms, worth_it
from graphcl.encoders.molecule_inputs import FEATURES
from graphcl.encoders.molecule_layers import bond_counts, csr_of

SMILES = ["CCO", "CCCCCCO", "c1ccccc1O", "c1ccccc1CCN", "C", "[Na+].[Cl-]", "CC(C)(C)C", "C[C@H](N)C(=O)O", "F/C=C/F"]


def molecules(features: str = "benchmark") -> Batch:
    return molecules_to_store(SMILES * 3, features=features)[0].batch(torch.arange(3 * len(SMILES)))


def any_graph(seed: int = 0) -> Data:
    """Loops, repeated edges in no order, atoms without edges; few categories, so that many atoms are alike."""
    generator = torch.Generator().manual_seed(seed)
    return Data(
        x=torch.randint(2, (40, 2), generator=generator),
        edge_index=torch.randint(30, (2, 35), generator=generator),
        edge_attr=torch.randint(2, (35, 2), generator=generator),
    )


def one_atom() -> Data:
    empty = {"edge_index": torch.empty(2, 0, dtype=torch.long), "edge_attr": torch.empty(0, 2, dtype=torch.long)}
    return Data(x=torch.tensor([[5, 0]]), **empty)


def alike_pair() -> Data:
    return Batch.from_data_list([one_atom(), one_atom()])


GRAPHS = {"molecules": molecules, "any": any_graph, "one": one_atom, "pair": alike_pair}


def kinds_of(data: Any, depth: int, features: str = "benchmark") -> tuple[Tensor, list[Kinds]]:
    columns, like = FEATURES[features], torch.zeros((), dtype=torch.float64)
    csr = csr_of(data.edge_index, data.num_nodes, loops=True)
    counts = bond_counts(csr, data.edge_attr, None, like, columns, "sum")
    return like_atoms(data.x, csr, data.edge_attr, counts, depth)


def refined(data: Any, depth: int, features: str) -> list[list[int]]:
    """A number for every layer and atom, by the multisets of atoms and of bonds that come into it."""
    loop = FEATURES[features].loop
    atoms = [tuple(row) for row in data.x.tolist()]
    into: list[list[tuple[int, tuple[int, ...]]]] = [[(i, loop)] for i in range(len(atoms))]
    for (u, v), bond in zip(data.edge_index.T.tolist(), data.edge_attr.tolist(), strict=True):
        into[v].append((u, tuple(bond)))
    names: dict[Any, int] = {}
    colour = [names.setdefault(atom, len(names)) for atom in atoms]
    rounds = []
    for _ in range(depth):
        names = {}
        seen = []
        for entries in into:
            neighbours = Counter(colour[u] for u, _ in entries)
            bonds = Counter((k, code) for _, bond in entries for k, code in enumerate(bond))
            seen.append((frozenset(neighbours.items()), frozenset(bonds.items())))
        colour = [names.setdefault(what, len(names)) for what in seen]
        rounds.append(colour)
    return rounds


@pytest.mark.parametrize("features", FEATURES)
def test_kinds_are_those_of_colour_refinement(features):
    graphs = [molecules(features)]
    graphs += [any_graph(seed) for seed in range(5)] if features == "benchmark" else []
    for data in graphs:
        start, kinds = kinds_of(data, 4, features)
        assert len(start) == len(data.x.unique(dim=0))
        below = None
        for kind, wanted in zip(kinds, refined(data, 4, features), strict=True):
            pairs = set(zip(kind.of.tolist(), wanted, strict=True))
            assert len(pairs) == len(set(wanted)) == len(kind.sizes)
            assert kind.sizes.tolist() == torch.bincount(kind.of).tolist()
            assert kind.csr.rowptr.size(0) == len(kind.sizes) + 1 and len(kind.bonds) == len(kind.sizes)
            assert below is None or kind.csr.width == len(below.sizes)
            below = kind
        assert len(kinds[-1].sizes) < data.num_nodes


def found(encoder: MoleculeGIN, data: Any) -> list[Tensor]:
    """Rows, gradients of all parameters, and the buffers after it."""
    encoder = copy.deepcopy(encoder)
    torch.manual_seed(3)  # of dropout
    out = encoder(data)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out).cos()
    grads = torch.autograd.grad((out * weight).sum(), list(encoder.parameters()), allow_unused=True)
    missing = [torch.zeros_like(p) for p in encoder.parameters()]
    return [out, *(m if g is None else g for g, m in zip(grads, missing, strict=True)), *encoder.buffers()]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("mode", ["train", "eval", "dropout"])
@pytest.mark.parametrize("jk", ["last", "cat"])
def test_rows_gradients_and_statistics_are_those_of_the_plain_layers(monkeypatch, jk, mode, graph):
    data = GRAPHS[graph]()
    torch.manual_seed(0)
    encoder = MoleculeGIN(8, layers=3, jk=jk, dropout=0.5 if mode == "dropout" else 0.0).double().train(mode != "eval")
    for norm in (module for module in encoder.modules() if isinstance(module, NodeNorm)):
        nn.init.uniform_(norm.module.weight, 0.5, 2)
        nn.init.normal_(norm.module.bias)
        nn.init.uniform_(norm.module.running_var, 0.5, 2)
    plain = found(encoder, data)
    asked = []
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    monkeypatch.setattr("graphcl.encoders.molecule.like_atoms", lambda *a: asked.append(a[-1]) or like_atoms(*a))
    for fast, slow in zip(found(encoder, data), plain, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-9)
    assert asked == [1 if mode == "dropout" else 3]  # dropout tells all atoms apart


def test_ogbs_features_too(monkeypatch):
    data = molecules("ogb")
    torch.manual_seed(0)
    encoder = MoleculeGIN(8, layers=3, features="ogb").double()
    plain = found(encoder, data)
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    for fast, slow in zip(found(encoder, data), plain, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-9)


def test_in_half_precision_it_is_as_near_as_the_plain_layers(monkeypatch):
    view = TwoViews(DropNodes(0.2), MaskAttributes(0.3, mode="category", category=[119, 0]))
    encoder = MoleculeGIN(64, layers=5)
    for data in view(molecules()):
        exact, errors = copy.deepcopy(encoder).double()(data), []
        for fewest in (0, 1 << 60):
            monkeypatch.setattr(molecule_alike, "FEWEST", fewest)
            with torch.autocast("cpu", torch.bfloat16):
                errors.append((copy.deepcopy(encoder)(data) - exact).abs().mean().item())
        assert errors[0] < 1.5 * errors[1] < 0.1


def test_the_norm_counts_rows_as_often_as_they_occur():
    torch.manual_seed(0)
    of = torch.randint(5, (23,), dtype=torch.int32)
    of[:5] = torch.arange(5)
    kind = Kinds(None, None, torch.bincount(of).double(), of)  # type: ignore[arg-type]
    norm = NodeNorm(3).double()
    nn.init.normal_(norm.module.weight)
    rows = (100 + torch.randn(5, 3, dtype=torch.float64)).requires_grad_()
    other = copy.deepcopy(norm)
    fast, slow = kind.spread(counted_norm(norm, rows, kind)), other(rows[of.long()])
    torch.testing.assert_close(fast, slow)
    for one, two in zip(norm.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two)
    weight = torch.randn_like(fast)
    for one, two in zip(
        torch.autograd.grad((fast * weight).sum(), [rows, *norm.parameters()]),
        torch.autograd.grad((slow * weight).sum(), [rows, *other.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_the_norm_is_exact_in_half_precision():
    """Rows far from 0, as autocast gives them: the statistics stay float32."""
    torch.manual_seed(0)
    of = torch.cat([torch.arange(200), torch.randint(200, (100,))]).int()
    kind = Kinds(None, None, torch.bincount(of).float(), of)  # type: ignore[arg-type]
    norm, rows = NodeNorm(8), (10 + torch.randn(200, 8)).bfloat16()
    exact = copy.deepcopy(norm).double()
    wanted = exact(rows.double()[of.long()])
    with torch.autocast("cpu", torch.bfloat16):
        got = kind.spread(counted_norm(norm, rows, kind))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), wanted, rtol=2**-8, atol=1e-4)
    for one, two in zip(norm.buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-5, atol=1e-5)


def test_second_derivatives_are_those_of_the_plain_layers(monkeypatch):
    data, encoder = molecules(), MoleculeGIN(4, layers=2).double()
    weight, found_twice = encoder.layers[0].conv.nn[0].weight, []
    for fewest in (0, 1 << 60):
        monkeypatch.setattr(molecule_alike, "FEWEST", fewest)
        (first,) = torch.autograd.grad(encoder(data).pow(3).sum(), weight, create_graph=True)
        found_twice += torch.autograd.grad(first.square().sum(), weight)
    assert found_twice[0].norm() > 0
    torch.testing.assert_close(*found_twice, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("key", ["x", "edge_attr"])
def test_it_is_made_once_for_the_very_tensors(monkeypatch, key):
    made = []
    monkeypatch.setattr(molecule_alike, "_grouped", lambda c, f=molecule_alike._grouped: made.append(1) or f(c))
    data = molecules()
    kinds_of(data, 2)
    kinds_of(data, 2)
    assert len(made) == 3
    data[key] = data[key].clone()
    kinds_of(data, 2)
    assert len(made) == 6
    data[key][0, 0] = 3  # written to: not the same any more
    _, kinds = kinds_of(data, 2)
    assert len(made) == 9
    assert [kind.of.tolist() for kind in kinds] == [kind.of.tolist() for kind in kinds_of(data.clone(), 2)[1]]
    kinds_of(data, 3)  # of another depth
    assert len(made) == 16
    sources = [weakref.ref(tensor) for tensor in (data.x, data.edge_index, data.edge_attr)]
    del data, kinds
    gc.collect()
    assert [source() for source in sources] == [None] * 3


def test_one_batch_serves_encoders_of_every_kind(monkeypatch):
    data = molecules()
    torch.manual_seed(0)
    encoders = [
        MoleculeGIN(8, layers=3, dropout=p).to(dtype) for p in (0, 0.5) for dtype in (torch.float, torch.double)
    ]
    encoders.append(copy.deepcopy(encoders[-1]).eval())
    encoders.append(copy.deepcopy(encoders[1]))
    encoders[-1].layers[1].finish[2].p = 0.5  # that of the first stays 0
    plain = [found(encoder, data) for encoder in encoders]
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    for encoder, wanted in zip(encoders, plain, strict=True):
        for fast, slow in zip(found(encoder, data)[:1], wanted[:1], strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)


def test_where_atoms_are_not_alike_or_too_few_it_is_not_looked_for(monkeypatch):
    def never(*_: Any) -> Any:
        raise AssertionError("looked for like atoms")

    monkeypatch.setattr("graphcl.encoders.molecule.like_atoms", never)
    data = molecules()
    MoleculeGIN(8, layers=2)(data)  # too little to do
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    MoleculeGIN(8, layers=2, virtual_node=True)(data)
    weighted = data.clone()
    weighted.edge_weight = torch.rand(data.num_edges)
    MoleculeGIN(8, layers=2)(weighted)
    assert not worth_it(MoleculeGIN(8), data.x.to("meta"), 8)
    with pytest.raises(AssertionError, match="looked for"):
        MoleculeGIN(8, layers=2)(data)


@pytest.mark.parametrize(("key", "value"), [("x", -1), ("x", 120), ("edge_attr", 6), ("edge_attr", -1)])
def test_unknown_categories_are_refused_here_too(monkeypatch, key, value):
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    data = molecules()
    data[key] = data[key].clone()
    data[key][-1, 0] = value
    with pytest.raises(ValueError, match=f"{key} has a category that the molecule encoders do not know"):
        MoleculeGIN(8, layers=2)(data)


def changed(name: str, encoder: MoleculeGIN) -> MoleculeGIN:
    layer = encoder.layers[0]
    if name == "norm":
        layer.finish[0] = nn.BatchNorm1d(8)
    elif name == "dropout":
        layer.finish[2] = nn.Identity()
    elif name == "finish":
        layer.finish = nn.Identity()
    elif name == "hook":
        layer.conv.register_forward_hook(lambda *_: torch.zeros(molecules().num_nodes, 8))
    elif name == "pre-hook":
        layer.finish[1].register_forward_pre_hook(lambda _, rows: (rows[0] + 1,))
    return encoder


@pytest.mark.parametrize("name", ["norm", "dropout", "finish", "hook", "pre-hook"])
def test_what_users_change_in_a_layer_counts(monkeypatch, name):
    torch.manual_seed(0)
    encoder, data = changed(name, MoleculeGIN(8, layers=2)), molecules()
    plain = copy.deepcopy(encoder)(data)
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    assert torch.equal(encoder(data), plain)


def test_parameters_may_be_other_tensors(monkeypatch):
    monkeypatch.setattr(molecule_alike, "FEWEST", 0)
    encoder, data = MoleculeGIN(8, layers=2), molecules()
    others = {name: 2 * parameter.detach() for name, parameter in encoder.named_parameters()}
    got = torch.func.functional_call(copy.deepcopy(encoder), others, (data,))
    encoder.load_state_dict(others, strict=False)
    torch.testing.assert_close(got, encoder(data))
