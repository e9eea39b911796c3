import math

import pytest
import torch
from small_methods import encoder, graphs, molecules

from graphcl.data.molecules import molecules_to_store
from graphcl.encoders import MoleculeGIN
from graphcl.encoders.readout import Readout
from graphcl.methods import AttributeMasking
from graphcl.methods.attribute_masking import hidden


def small(**settings):
    torch.manual_seed(0)
    return AttributeMasking(MoleculeGIN(8, layers=2), Readout("mean"), **settings)


def choosing(method, atoms):
    """The method, hiding just these atoms."""
    method.choose = lambda data: torch.zeros(data.num_nodes, dtype=torch.bool).index_fill(0, torch.tensor(atoms), True)
    return method


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.5, 1.0])
def test_as_many_atoms_of_every_molecule_are_hidden_as_in_the_authors_code(rate):
    data = molecules([1, 2, 6, 7, 13, 20, 500])
    masked = small(rate=rate).choose(data)
    counts = torch.zeros(7, dtype=torch.long).index_add(0, data.batch, masked.long())
    assert counts.tolist() == [min(int(n * rate + 1), n) for n in (1, 2, 6, 7, 13, 20, 500)]


def test_every_atom_is_hidden_as_often():
    data, method = molecules([10]), small()
    torch.manual_seed(1)
    often = sum(method.choose(data).double() for _ in range(2000))
    assert (often - 400).abs().max() < 5 * math.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.parametrize("mask_edges", [False, True])
def test_loss_by_hand(mask_edges):
    """One masked atom, one bond at a time: -log softmax of the true type, mean over atoms plus mean over bonds."""
    data = molecules()
    atoms = [0, 2, 5, 7, 8, 12]
    method = choosing(small(mask_edges=mask_edges), atoms).double()
    parts = method.loss(data)

    seen = data.clone()
    seen.x[atoms] = torch.tensor([119, 0])
    bonds = [e for e, (u, v) in enumerate(data.edge_index.T.tolist()) if u in atoms or v in atoms]
    if mask_edges:
        seen.edge_attr[bonds] = torch.tensor([5, 0])
    h = method.encoder(seen)
    rows = [method.atom_type(h[i]).log_softmax(0) for i in atoms]
    wanted = -sum(row[data.x[i, 0]] for row, i in zip(rows, atoms, strict=True)) / len(atoms)
    hits = [row.argmax().item() == data.x[i, 0].item() for row, i in zip(rows, atoms, strict=True)]
    if mask_edges:
        pairs = {tuple(sorted(data.edge_index[:, e].tolist())): data.edge_attr[e, 0] for e in bonds}
        rows = [(method.bond_type(h[u] + h[v]).log_softmax(0), kind) for (u, v), kind in pairs.items()]
        wanted = wanted - sum(row[kind] for row, kind in rows) / len(rows)
        hit = [row.argmax() == kind for row, kind in rows]
        assert parts["bond_accuracy"].item() == pytest.approx(sum(hit).item() / len(hit))
    assert torch.allclose(parts["loss"].double(), wanted, atol=1e-5)  # logits are float32
    assert parts["accuracy"].item() == pytest.approx(sum(hits) / len(hits))


def test_hidden_types_do_not_reach_the_encoder():
    """Other types, chiralities and bonds of what is hidden give the same embeddings."""
    seen = []
    method = choosing(small(mask_edges=True), [1, 3])
    method.encoder.register_forward_hook(lambda module, inputs, h: seen.append(h.detach()))
    data = molecules()
    method.loss(data)
    other = data.clone()
    other.x[[1, 3]] = torch.tensor([[40, 1], [17, 2]])
    touched = torch.isin(data.edge_index, torch.tensor([1, 3])).any(0)
    other.edge_attr[touched] = torch.tensor([2, 1])
    method.loss(other)
    assert torch.equal(*seen)


def test_it_learns_what_the_bonds_tell():
    """Atoms of type 6 have double bonds, of type 7 single ones: the type follows from the bond that is left."""
    store, _ = molecules_to_store(["C=C", "NN"] * 20, name="pairs")
    data = store.batch(torch.arange(40))
    method = small(rate=0.0)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        parts = method.loss(data)
        parts["loss"].backward()
        optimizer.step()
    assert parts["accuracy"] == 1.0


@pytest.mark.parametrize("mask_edges", [False, True])
@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [2], [1, 300]])
def test_odd_sizes(sizes, mask_edges):
    method = small(mask_edges=mask_edges)
    parts = method.loss(molecules(sizes))
    parts["loss"].backward()
    assert all(value.isfinite() for value in parts.values())
    heads = [method.atom_type] + ([method.bond_type] if mask_edges else [])
    assert all(head.weight.grad is not None for head in heads), "DDP waits for the gradient of every parameter"


def test_every_column_becomes_its_masked_category():
    codes = torch.tensor([[7, 2], [8, 1]], dtype=torch.uint8)
    assert hidden(codes, torch.tensor([True, False]), "x").tolist() == [[119, 0], [8, 1]]
    assert hidden(codes, torch.tensor([True, False]), "edge_attr").tolist() == [[5, 0], [8, 1]]
    assert codes.tolist() == [[7, 2], [8, 1]]


@pytest.mark.parametrize("mask_edges", [False, True])
def test_with_the_features_of_ogb(mask_edges):
    smiles = ["CCO", "c1ccccc1[N+](=O)[O-]", "C", "C/C=C/[C@H](F)Cl"]
    data = molecules_to_store(smiles, features="ogb", name="few")[0].batch(torch.arange(4))
    torch.manual_seed(0)
    encoder = MoleculeGIN(8, layers=2, features="ogb")
    method = choosing(AttributeMasking(encoder, Readout("mean"), mask_edges=mask_edges), list(range(data.num_nodes)))
    seen = []
    encoder.register_forward_hook(lambda module, inputs, h: seen.append(inputs[0]))
    assert method.loss(data)["loss"].isfinite()
    assert seen[0].x.unique(dim=0).tolist() == [[119, 5, 12, 12, 10, 6, 6, 2, 2]]
    if mask_edges:
        assert seen[0].edge_attr.unique(dim=0).tolist() == [[5, 6, 2]]
    else:
        assert seen[0].edge_attr.equal(data.edge_attr)


def test_what_is_no_molecule_is_refused():
    method = AttributeMasking(encoder(), Readout())
    with pytest.raises(
        ValueError, match=r"needs x as integer categories of atoms in 2 or 9 columns, got torch.float32 of shape"
    ):
        method.loss(graphs())
    data = molecules()
    data.edge_attr = None
    with pytest.raises(
        ValueError, match=r"needs edge_attr as integer categories of bonds in 2 or 3 columns, got nothing"
    ):
        small().loss(data)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\], got"):
        small(rate=rate)
