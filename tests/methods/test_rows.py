"""Both views in one pass, and a block of the nodes in the loss."""

import pytest
import torch
from small_methods import WIDTH, encoder, graphs, identity, keep, nodes

from augment import DropNodes, MaskAttributes
from graphcl.encoders import GIN, Readout
from graphcl.methods import BGRL, GRACE, GraphCL
from graphcl.methods.rows import both
from graphcl.objectives import ntxent


def gin(norm=False):
    return GIN(WIDTH, 8, layers=2, batch_norm=norm)


METHODS = {
    "graphcl": lambda one: GraphCL(gin(), Readout("mean"), DropNodes(0.3), MaskAttributes(0.3), one_pass=one),
    "grace": lambda one: GRACE(encoder(), DropNodes(0.3), MaskAttributes(0.3), proj_dim=8, one_pass=one),
    "bgrl": lambda one: BGRL(encoder(), DropNodes(0.3), MaskAttributes(0.3), pred_hidden=8, one_pass=one),
}


@pytest.mark.parametrize("name", METHODS)
def test_one_pass_is_two_passes_without_batch_norm(name):
    found = []
    for one in (False, True):
        torch.manual_seed(0)
        method = METHODS[name](one)
        loss = method.loss(graphs() if name == "graphcl" else nodes())["loss"]
        loss.backward()
        found.append((loss.detach(), [p.grad for p in method.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1])


def test_with_batch_norm_one_pass_has_the_statistics_of_both_views():
    batch, other = graphs(), MaskAttributes(0.5)(graphs())
    model = gin(norm=True)
    z1, z2 = both(model, batch, batch, Readout("sum"), one_pass=True)
    torch.testing.assert_close(z1, z2)
    torch.testing.assert_close(z1, both(model, batch, batch, Readout("sum"))[0])  # both views are the same graphs
    z1, _ = both(model, batch, other, Readout("sum"), one_pass=True)
    assert not torch.allclose(z1, both(model, batch, other, Readout("sum"))[0])


def test_one_pass_keeps_to_the_seeds_of_a_sample():
    data = nodes()
    data.batch_size = 3
    h1, h2 = both(encoder(), data, data, one_pass=True)
    assert h1.shape == h2.shape == (3, 16)
    torch.testing.assert_close(h1, h2)


def test_grace_contrasts_a_block():
    data = nodes()
    method = GRACE(encoder(), identity, keep(list(range(len(data.x) - 1))), proj_dim=8, block=4)
    torch.manual_seed(3)
    loss = method.loss(data)["loss"]
    torch.manual_seed(3)
    rows = torch.randperm(len(data.x) - 1)[:4]
    z1 = method.project(method.encode(data))[rows]
    z2 = method.project(method.encode(method.view2(data)))[rows]
    torch.testing.assert_close(loss, ntxent(z1, z2, method.tau))


def test_a_block_of_all_nodes_is_no_block():
    data = nodes()
    method = GRACE(encoder(), identity, identity, proj_dim=8, block=len(data.x))
    whole = method.loss(data)["loss"]
    method.block = None
    torch.testing.assert_close(method.loss(data)["loss"], whole)


def test_a_block_of_one_is_refused():
    with pytest.raises(ValueError, match="block must be at least 2 nodes, got 1; leave it out"):
        GRACE(encoder(), identity, identity, block=1)


def test_one_pass_of_a_graph_alone_with_a_readout():
    data = nodes()
    z1, z2 = both(gin(), data, data, Readout("sum"), one_pass=True)
    assert z1.shape == z2.shape == (1, 16)
    torch.testing.assert_close(z1, z2)
