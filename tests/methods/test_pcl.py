import math

import pytest
import torch
from references import cosine, moco_by_hand
from small_methods import Rows, graphs, identity, make, nodes, train

from graphcl.data.loaders import Loader
from graphcl.data.store import GraphStore
from graphcl.encoders.readout import Readout
from graphcl.methods import PCL
from graphcl.methods.pcl import cluster, concentration, proto_nce


def small(items=12, **settings):
    settings = {"clusters": (2, 3), "queue": 9, "proj_dim": 4, "warmup_epochs": 0, **settings}
    return PCL(Rows(), identity, identity, items, **settings)


def proto_by_hand(q, centroids, phi, assigned):
    """Li et al. 2020 (PCL, arXiv:2005.04966), eq. 11, the prototypes' part: -log exp(v.c_s / phi_s) / sum_j exp(v.c_j /
    phi_j), c_s the prototype of v's own cluster."""
    total = 0.0
    for row, own in zip(q, assigned.tolist(), strict=True):
        f = [(cosine(row, c) / p).exp() for c, p in zip(centroids, phi, strict=True)]
        total = total - (f[own] / sum(f)).log()
    return total / len(q)


def phi_by_hand(features, assigned, k, tau):
    """Eq. 12: sum_z |v_z - c| / (Z log(Z + 10)) with c the mean of the cluster; then, as in the paper and its code,
    the largest for clusters of one, clipped to the 10th and 90th percentile, scaled to mean tau."""
    phi = []
    for j in range(k):
        members = [v for v, a in zip(features, assigned.tolist(), strict=True) if a == j]
        centre = sum(members) / len(members)
        width = sum(math.dist(v.tolist(), centre.tolist()) for v in members)
        phi.append(width / (len(members) * math.log(len(members) + 10)) if len(members) > 1 else None)
    phi = torch.tensor([max(p for p in phi if p is not None) if p is None else p for p in phi])
    ordered = phi.sort().values

    def percentile(share):
        place = share * (k - 1)
        low = int(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, k - 1)] - ordered[low])

    phi = phi.clamp(percentile(0.1), percentile(0.9))
    return phi * tau / phi.mean()


def test_concentration_by_hand():
    features = torch.nn.functional.normalize(torch.randn(30, 4), dim=-1)
    assigned = torch.cat([torch.arange(5), torch.randint(4, (25,))])  # cluster 4 has one item
    centre = torch.stack([features[assigned == j].mean(0) for j in range(5)])
    phi = concentration(features, centre, assigned, 0.3)
    assert torch.allclose(phi, phi_by_hand(features, assigned, 5, 0.3), atol=1e-6)
    assert torch.allclose(phi.mean(), torch.tensor(0.3), atol=1e-6)


def test_proto_nce_by_hand():
    q, centroids = torch.randn(7, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    centroids = torch.nn.functional.normalize(centroids, dim=-1)
    phi, assigned = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64), torch.randint(3, (7,))
    assert torch.allclose(proto_nce(q, centroids, phi, assigned), proto_by_hand(q, centroids, phi, assigned))
    padded = torch.cat([centroids, torch.zeros(1, 4, dtype=torch.float64)])  # an empty cluster changes nothing
    phi = torch.cat([phi, phi[:1]])
    assert torch.allclose(proto_nce(q, padded, phi, assigned), proto_by_hand(q, centroids, phi[:3], assigned))


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_equal_items_and_empty_clusters_give_a_finite_loss():
    features = torch.nn.functional.normalize(torch.ones(8, 4), dim=-1).clone()
    features[0] = torch.tensor([1.0, 0, 0, 0])
    for k in (2, 5):
        assigned, centroids, phi = cluster(features, k, 0.2)
        assert (phi >= 0.02 - 1e-9).all() and phi.isfinite().all()
        assert proto_nce(features, centroids, phi, assigned).isfinite()
    pairs = torch.nn.functional.normalize(torch.randn(20, 4), dim=-1)
    pairs[:6:2] = pairs[1:6:2]  # three of ten clusters are two equal items
    assigned = torch.arange(20) // 2
    centre = (pairs[::2] + pairs[1::2]) / 2
    phi = concentration(pairs, centre, assigned, 0.2)
    assert torch.allclose(phi[:3], torch.full((3,), 0.02)) and (phi[3:] > 0.02).all()
    assigned, centroids, phi = cluster(torch.eye(4), 4, 0.2)  # every item its own cluster
    assert torch.allclose(phi, torch.full((4,), 0.2)) and sorted(assigned.tolist()) == [0, 1, 2, 3]


def test_clusters_of_planted_groups_are_found():
    group = torch.arange(30) % 3
    features = torch.nn.functional.normalize(torch.eye(4)[group] + 0.05 * torch.randn(30, 4), dim=-1)
    assigned, centroids, _ = cluster(features, 3, 0.2)
    assert all(len(assigned[group == j].unique()) == 1 for j in range(3)) and len(assigned.unique()) == 3
    assert torch.allclose(centroids.norm(dim=-1), torch.ones(3))
    assert ((features @ centroids.T).argmax(1) == assigned).all()


def test_loss_is_the_sum_of_both_parts_by_hand():
    method, data = small(tau=0.3).double(), nodes(12)
    data.x = data.x.double()
    method.before_epoch([data], 0)
    method.loss(data)
    keys = torch.nn.functional.normalize(method.key_project(method.key_encoder(data)).detach(), dim=-1)[-9:]
    method.after_step(0.5)
    values = method.loss(data)
    q = method.project(method.encoder(data)).detach()
    k = method.key_project(method.key_encoder(data)).detach()
    instance = moco_by_hand(q, k, keys, 0.3, list(range(12)), list(range(3, 12)))
    parts = zip(method.centroids.split([2, 3]), method.phi.split([2, 3]), method.assigned, strict=True)
    proto = sum(proto_by_hand(q, c, phi, assigned) for c, phi, assigned in parts) / 2
    assert torch.allclose(values["instance"], instance) and torch.allclose(values["proto"], proto)
    assert torch.allclose(values["loss"], instance + proto)


def test_e_step_clusters_the_momentum_embeddings_in_data_set_order():
    method = PCL(Rows(), identity, identity, 8, Readout(), clusters=(2,), queue=8, proj_dim=4, warmup_epochs=0)
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.zero_()  # the encoder itself is of no use to it
    whole = graphs()
    features = method.key_project(Readout()(method.key_encoder(whole), whole)).detach()
    torch.manual_seed(3)
    wanted = cluster(torch.nn.functional.normalize(features, dim=-1), 2, method.tau)
    pieces = Loader(GraphStore.from_graphs(whole.to_data_list()), 3).in_order()
    torch.manual_seed(3)
    method.before_epoch(pieces, 0)
    for expected, found in zip(wanted, (method.assigned[0], method.centroids, method.phi), strict=True):
        assert torch.allclose(expected, found, atol=1e-6)


def test_no_prototypes_in_the_warm_up():
    method, data = small(warmup_epochs=2), nodes(12)
    for epoch in (0, 1):
        method.before_epoch([data], epoch)
        assert method.loss(data)["proto"] == 0 and not method.centroids.any()
    method.before_epoch([data], 2)
    assert method.loss(data)["proto"] > 0


def test_e_step_comes_from_torchs_generator_and_leaves_the_mode():
    data, found = nodes(), []
    for seed in (3, 3):
        method = make("pcl")
        method.train()
        torch.manual_seed(seed)
        method.before_epoch([data], 0)
        assert method.training and method.key_encoder.training
        found.append((method.assigned.clone(), method.phi.clone(), torch.rand(())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_run_that_is_resumed_in_an_epoch_uses_the_saved_clusters():
    method, data = make("pcl"), nodes()
    train(method, data, 2)
    other = make("pcl", seed=4)
    other.load_state_dict(method.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(method.buffers(), other.buffers(), strict=True))
    assert {"assigned", "centroids", "phi", "queue.items", "queue.ids"} <= set(method.state_dict())


def test_more_clusters_than_items():
    with pytest.raises(ValueError, match=r"clusters must be at most the 4 items of the data, got 40"):
        PCL(Rows(), identity, identity, 4)
