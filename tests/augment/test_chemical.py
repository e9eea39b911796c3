"""The chemical views against NetworkX and RDKit, and bonds that keep their attributes in every view."""

import math
from collections import Counter

import graphs
import networkx as nx
import pytest
import torch
from augment_references import bridges_by_hand, network_by_hand, ring_systems_by_hand, side_chains_by_hand
from hypothesis import HealthCheck, given, settings
from rdkit import Chem
from torch_geometric.data import Batch

from augment import (
    AUGMENTATIONS,
    DropBonds,
    DropLeaf,
    DropSideChain,
    MaskAtoms,
    MaskAttributes,
    MaskEdgeAttributes,
    OneOf,
    PerturbEdges,
    RingSubgraph,
)
from augment._rings import rings_of
from augment._segments import graphs_of
from graphcl.data.molecules import molecules_to_store
from graphcl.data.sources import load_data

any_batch = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def batch_of(*smiles):
    store, rejected = molecules_to_store(list(smiles), name="small")
    assert not rejected
    batch = store.batch(torch.arange(len(smiles)))
    batch.n_id = torch.arange(batch.num_nodes)
    return batch


@pytest.fixture(scope="module")
def bbbp():
    """The bundled molecules, every tenth: salts, chirality, rings in chains, and all."""
    store = load_data("bbbp")
    rows = torch.arange(0, len(store), 10)
    batch = store.batch(rows)
    batch.n_id = torch.arange(batch.num_nodes)
    batch.smiles = [store.smiles[row] for row in rows]
    return batch


def kept(out, before):
    """Local numbers of the nodes of every graph that are left."""
    graph = before.batch[out.n_id]
    local = out.n_id - before.ptr[graph]
    return [set(part.tolist()) for part in local.split(torch.bincount(graph, minlength=before.num_graphs).tolist())]


# --- rings ------------------------------------------------------------------------------------------------------------


@any_batch
@given(batch=graphs.batches(), seed=graphs.seeds)
def test_bridges_are_those_of_networkx(way, batch, seed):
    rings = rings_of(batch, graphs_of(batch), graphs.generator(seed))
    network = network_by_hand(batch.edge_index, batch.num_nodes)
    found = rings.edges[:, rings.walk.up[rings.bridge]].T.tolist()
    assert len(found) == len({frozenset(edge) for edge in found})
    assert {frozenset(edge) for edge in found} == bridges_by_hand(network)
    systems = [system for system in ring_systems_by_hand(network) if len(system) > 1]
    assert set(rings.ring_nodes.nonzero().view(-1).tolist()) == set().union(*systems)


@any_batch
@given(batch=graphs.batches(), seed=graphs.seeds)
def test_the_walk_numbers_what_lies_below_a_node_one_after_another(way, batch, seed):
    rings = rings_of(batch, graphs_of(batch), graphs.generator(seed))
    pre, size, up = (part.tolist() for part in rings.walk)
    trees = nx.DiGraph()
    trees.add_nodes_from(range(batch.num_nodes))
    trees.add_edges_from((rings.edges[:, e].sum().item() - v, v) for v, e in enumerate(up) if e >= 0)
    network = network_by_hand(batch.edge_index, batch.num_nodes)
    assert sum(e < 0 for e in up) == nx.number_connected_components(network)
    for v in trees:
        below = nx.descendants(trees, v) | {v}
        assert size[v] == len(below)
        assert {pre[w] for w in below} == set(range(pre[v], pre[v] + size[v]))
    assert (batch.batch[rings.walk.pre.argsort()].diff() >= 0).all(), "graph by graph"


def test_a_chain_and_a_ladder_of_thousands(way):
    """As many rounds of pointer jumping as the nodes need, in one graph."""
    chain = graphs.make_graph(3000, graphs.path(3000))
    rings = rings_of(chain, graphs_of(chain), None)
    assert rings.bridge.sum() == 2999 and rings.walk.size.sort().values.tolist() == list(range(1, 3001))
    ladder = [(i, i + 2) for i in range(2998)] + [(i, i + 1) for i in range(0, 3000, 2)]
    ladder = graphs.make_graph(3000, ladder)
    assert not rings_of(ladder, graphs_of(ladder), None).bridge.any()


def test_bonds_in_rings_are_those_of_rdkit(way, bbbp):
    rings = rings_of(bbbp, graphs_of(bbbp), None)
    bridges = {frozenset(edge) for edge in rings.edges[:, rings.walk.up[rings.bridge]].T.tolist()}
    for start, smiles in zip(bbbp.ptr[:-1].tolist(), bbbp.smiles, strict=True):
        for bond in Chem.MolFromSmiles(smiles).GetBonds():
            ends = frozenset((bond.GetBeginAtomIdx() + start, bond.GetEndAtomIdx() + start))
            assert (ends not in bridges) == bond.IsInRing(), smiles


# --- leaves and side chains -------------------------------------------------------------------------------------------


def test_a_leaf_hangs_on_one_bond():
    batch = batch_of("Clc1ccccc1", "c1ccccc1", "CO", "C", "[Na+].[Cl-]", "CC(C)(C)C")
    for seed in range(5):
        out = DropLeaf(99, generator=graphs.generator(seed))(batch)
        assert kept(out, batch) == [{1, 2, 3, 4, 5, 6}, set(range(6)), {0}, {0}, {0, 1}, {1}]
    one = [kept(DropLeaf(generator=graphs.generator(seed))(batch), batch)[5] for seed in range(400)]
    often = Counter(frozenset(set(range(5)) - nodes) for nodes in one)
    assert set(often) == {frozenset({leaf}) for leaf in (0, 2, 3, 4)}
    assert all(abs(count - 100) < 5 * math.sqrt(400 * 0.25 * 0.75) for count in often.values())


@any_batch
@given(batch=graphs.batches(), seed=graphs.seeds)
def test_as_many_leaves_go_as_there_are(way, batch, seed):
    out = DropLeaf(2, generator=graphs.generator(seed))(batch)
    for graph, nodes in zip(batch.to_data_list(), kept(out, batch), strict=True):
        network = network_by_hand(graph.edge_index, graph.num_nodes)
        leaves = {v for v in network if network.degree(v) == 1}
        pairs = sum(
            all(network.degree(v) == 1 for v in part) for part in nx.connected_components(network) if len(part) > 1
        )
        gone = set(network) - nodes
        assert gone <= leaves and len(gone) == min(2, len(leaves) - pairs)


@any_batch
@given(batch=graphs.batches(), seed=graphs.seeds)
@pytest.mark.parametrize("at_most", [0.25, 1.0])
def test_a_side_chain_is_one_of_those_that_networkx_cuts(way, at_most, batch, seed):
    out = DropSideChain(at_most, generator=graphs.generator(seed))(batch)
    for graph, nodes in zip(batch.to_data_list(), kept(out, batch), strict=True):
        network = network_by_hand(graph.edge_index, graph.num_nodes)
        chains = side_chains_by_hand(network, at_most)
        gone = frozenset(set(network) - nodes)
        assert any(gone in fit for fit in chains) if chains else not gone


@pytest.mark.parametrize("smiles", ["CCCc1ccc(O)cc1CC(N)=O", "CC(C)CC1CCC2(CC1)CC2C", "[Na+].CCCC(=O)[O-]"])
def test_every_side_chain_goes_as_often(way, smiles):
    batch = batch_of(*[smiles] * 1000)
    out = DropSideChain(0.4, generator=graphs.generator(0))(batch)
    one = batch[0]
    network = network_by_hand(one.edge_index, one.num_nodes)
    chains = side_chains_by_hand(network, 0.4)
    assert len(chains) > 2
    often = Counter(frozenset(set(network) - nodes) for nodes in kept(out, batch))
    p = 1 / len(chains)
    for fit in chains:
        assert abs(sum(often[part] for part in fit) - 1000 * p) < 5 * math.sqrt(1000 * p * (1 - p))


def test_a_molecule_keeps_its_rings_when_a_side_chain_goes(bbbp):
    out = DropSideChain(0.5, generator=graphs.generator(1))(bbbp)
    in_rings = rings_of(bbbp, graphs_of(bbbp), None).ring_nodes.nonzero().view(-1)
    assert torch.isin(in_rings, out.n_id).all()
    assert out.num_nodes < bbbp.num_nodes


@pytest.mark.parametrize("leaves", [-1, 0.5, True, "two"])
def test_a_wrong_number_of_leaves_is_refused(leaves):
    with pytest.raises(ValueError, match=r"leaves must be an integer >= 0, got"):
        DropLeaf(leaves)


# --- subgraphs of whole rings -----------------------------------------------------------------------------------------


def assert_whole_rings(graph, nodes, keep):
    network = network_by_hand(graph.edge_index, graph.num_nodes)
    systems = ring_systems_by_hand(network)
    inside = [system for system in systems if system & nodes]
    assert all(system <= nodes for system in inside), "a ring is cut"
    target = max(round(keep * graph.num_nodes), 1)
    assert len(nodes) >= target
    touched = [part & nodes for part in nx.connected_components(network) if part & nodes]
    whole = [part for part in touched if part in list(nx.connected_components(network))]
    assert len(touched) - len(whole) <= 1 and all(nx.is_connected(network.subgraph(part)) for part in touched)

    def could_be_last(system):
        rest = nodes - system
        return len(rest) < target and all(
            nx.number_connected_components(network.subgraph(part - system)) <= 1 for part in touched if part - system
        )

    assert any(could_be_last(system) for system in inside), "more is kept than is needed"


@any_batch
@given(batch=graphs.batches(), seed=graphs.seeds)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.8])
def test_a_ring_subgraph_is_connected_and_just_large_enough(way, keep, batch, seed):
    out = RingSubgraph(keep, generator=graphs.generator(seed))(batch)
    for graph, nodes in zip(batch.to_data_list(), kept(out, batch), strict=True):
        assert_whole_rings(graph, nodes, keep)


def test_no_ring_of_a_molecule_is_opened(way, bbbp):
    out = RingSubgraph(0.5, generator=graphs.generator(0))(bbbp)
    for graph, nodes in zip(bbbp.to_data_list(), kept(out, bbbp), strict=True):
        assert_whole_rings(graph, nodes, 0.5)


def test_a_ring_subgraph_starts_anywhere(way):
    smiles = "CCc1ccccc1O"
    batch = batch_of(*[smiles] * 2000)
    often = Counter(frozenset(nodes) for nodes in kept(RingSubgraph(0.0, generator=graphs.generator(0))(batch), batch))
    systems = ring_systems_by_hand(network_by_hand(batch[0].edge_index, batch[0].num_nodes))
    assert set(often) == {frozenset(system) for system in systems}
    assert all(abs(count - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75) for count in often.values())


# --- atoms and bonds --------------------------------------------------------------------------------------------------


def test_masked_atoms_hide_their_bonds(bbbp):
    out = MaskAtoms(0.25, generator=graphs.generator(0))(bbbp)
    hidden = out.x[:, 0] == 119
    assert [int(part.sum()) for part in hidden.split(bbbp.ptr.diff().tolist())] == [
        round(0.25 * n) for n in bbbp.ptr.diff().tolist()
    ]
    assert (out.x[hidden] == torch.tensor([119, 0])).all() and out.x[~hidden].equal(bbbp.x[~hidden])
    touched = hidden[bbbp.edge_index].any(0)
    assert (out.edge_attr[touched] == torch.tensor([5, 0])).all()
    assert out.edge_attr[~touched].equal(bbbp.edge_attr[~touched])
    assert MaskAtoms(bond=None)(bbbp).edge_attr is bbbp.edge_attr
    narrow = bbbp.clone()
    narrow.x, narrow.edge_attr = narrow.x[:, 0], narrow.edge_attr[:, 0]
    assert set(MaskAtoms(1.0)(narrow).x.tolist()) == {119} and set(MaskAtoms(1.0)(narrow).edge_attr.tolist()) == {5}


def test_masked_columns_of_their_own(bbbp):
    out = MaskAtoms(1.0, (7, 2), (3, 1))(bbbp)
    assert (out.x == torch.tensor([7, 2])).all() and (out.edge_attr == torch.tensor([3, 1])).all()
    with pytest.raises(ValueError, match="category has 3 ids, x has 2 columns"):
        MaskAtoms(1.0, (7, 2, 1))(bbbp)


@pytest.mark.parametrize("category", [1.5, (), (1, "a"), "none"])
def test_a_mask_that_is_no_category_is_refused(category):
    with pytest.raises(ValueError, match="category must be an integer or one for each column, got"):
        MaskAtoms(atom=category)
    with pytest.raises(ValueError, match="category must be an integer or one for each column, got"):
        MaskAtoms(bond=category)


def test_an_exact_number_of_bonds_goes(bbbp):
    out = DropBonds(0.25, generator=graphs.generator(0))(bbbp)
    before = torch.bincount(bbbp.batch[bbbp.edge_index[0]], minlength=bbbp.num_graphs) // 2
    after = torch.bincount(out.batch[out.edge_index[0]], minlength=bbbp.num_graphs) // 2
    assert (before - after).tolist() == [round(0.25 * bonds) for bonds in before.tolist()]


SETTINGS = {
    "perturb_edges": lambda g: PerturbEdges(0.3, 0.3, generator=g),
    "mask_attributes": lambda g: MaskAttributes(0.3, "category", (119, 0), generator=g),
    "mask_edge_attributes": lambda g: MaskEdgeAttributes(0.3, "category", (5, 0), generator=g),
    "drop_features": None,  # of floating point features, not of categories
    "adaptive_mask_features": None,
    "one_of": lambda g: OneOf([RingSubgraph(0.5, generator=g), PerturbEdges(0.3, 0.3, generator=g)], generator=g),
}
FOR_MOLECULES = [name for name in AUGMENTATIONS if SETTINGS.get(name, True)]


@pytest.mark.parametrize("name", FOR_MOLECULES)
def test_bond_attributes_follow_their_bonds(way, name, bbbp):
    """Looked up by the atoms at both ends; in the code published with GraphCL they stay behind when nodes go."""
    out = SETTINGS.get(name, lambda g: AUGMENTATIONS[name](generator=g))(graphs.generator(0))(bbbp)
    if name in ("ppr_diffusion", "heat_diffusion"):
        assert "edge_attr" not in out, "bonds that are replaced have no attributes"
        return
    known = dict(zip(map(tuple, bbbp.edge_index.T.tolist()), bbbp.edge_attr.tolist(), strict=True))
    found = dict(zip(map(tuple, out.n_id[out.edge_index].T.tolist()), out.edge_attr.tolist(), strict=True))
    assert len(found) == out.num_edges
    old = {ends for ends in found if ends in known}
    for ends, attributes in found.items():
        assert found[ends[::-1]] == attributes, "the two directions differ"
        if ends in old and attributes != known[ends]:
            assert name in ("mask_atoms", "mask_edge_attributes") and attributes == [5, 0]
    assert (old == set(found)) == (name not in ("perturb_edges", "one_of"))
    assert len(old) > 0.4 * len(known)


def test_views_go_on_from_one_another():
    batch = batch_of("CCCc1ccc(O)cc1CC(N)=O", "C1CC1CCC2CC2", "C", "[Na+].[Cl-]")
    for seed in range(20):
        out = batch
        for view in (DropSideChain, RingSubgraph, DropLeaf, DropSideChain):
            out = view(generator=graphs.generator(seed))(out)
        assert (out.ptr.diff() > 0).all()
        again = Batch.from_data_list(out.to_data_list())
        assert again.edge_index.equal(out.edge_index) and again.edge_attr.equal(out.edge_attr)
