"""Whole steps on fake tensors: nothing is read from the device, or made elsewhere; sizes may depend on the data."""

import copy

import numpy as np
import pytest
import torch
from device_guards import device_clean, to_meta
from small_methods import WIDTH, encoder, graphs, molecules, nodes

from augment import Compose, DropFeatures, DropNodes, PerturbEdges, ShuffleNodes, Subgraph
from graphcl.data.store import GraphStore
from graphcl.encoders import GCN, GIN, MoleculeGIN, Readout
from graphcl.methods import BGRL, DGI, GRACE, AttributeMasking, ContextPrediction, GraphCL, InfoGraph, MoCo


def gin():
    """Without batch norm, whose check for a single node cannot be traced where a view sets the number of nodes."""
    return GIN(WIDTH, 8, layers=1, batch_norm=False)


def node_views():
    return [Compose([PerturbEdges(drop, exact=False), DropFeatures(rate)]) for drop, rate in ((0.2, 0.3), (0.4, 0.4))]


STEPS = {
    "graphcl": lambda: GraphCL(gin(), Readout("sum"), DropNodes(0.1), Subgraph(0.8)),
    "moco": lambda: MoCo(gin(), DropNodes(0.1), PerturbEdges(0.2), Readout("sum"), queue=16, proj_dim=8),
    "grace": lambda: GRACE(encoder(), *node_views(), proj_dim=8),
    "bgrl": lambda: BGRL(encoder(), *node_views(), pred_hidden=8),
    "dgi": lambda: DGI(GCN(WIDTH, 8, layers=1, sparse_input=True), ShuffleNodes()),
    "infograph": lambda: InfoGraph(gin(), Readout("mean")),
    "attribute_masking": lambda: AttributeMasking(MoleculeGIN(8, layers=1), Readout("mean"), mask_edges=True),
    "context_prediction": lambda: ContextPrediction(gin(), gin(), Readout("mean"), context_size=2),
}


def gathered(store, places, batch, mode):
    """`batch` with its tensors gathered on the device, from a store that lies there; where, is known on the CPU."""
    there, batch = copy.copy(store), copy.copy(batch)
    there_is = [key for key in ("x", "src", "dst", "edge_attr", "y") if getattr(store, key) is not None]
    vars(there).update({key: to_meta(getattr(store, key), mode) for key in there_is})
    vars(batch._store)["_mapping"] = there._gather(*places)
    return batch


@pytest.mark.parametrize("name", STEPS)
def test_a_whole_step_stays_on_its_device(name):
    method = STEPS[name]()
    many = getattr(method, "readout", None) is not None
    many_graphs = molecules() if name == "attribute_masking" else graphs()
    store, rows = GraphStore.from_graphs(many_graphs.to_data_list()), np.arange(3)
    places = rows, store._places(store.node_ptr, rows), store._places(store.edge_ptr, rows)
    batch, graph = store.batch(torch.from_numpy(rows)), nodes()
    with device_clean() as mode:
        method = to_meta(method, mode)
        batch = gathered(store, places, batch, mode) if many else to_meta(graph, mode)
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        values = method.loss(batch)
        values["loss"].backward()
        optimizer.step()
        method.after_step(0.5)
        for key, tensor in [*values.items(), *method.named_parameters(), *method.named_buffers()]:
            assert tensor.device.type == "meta", key
        trained = [p for key, p in method.named_parameters() if p.requires_grad and not key.endswith("token")]
        assert all(p.grad is not None and p.grad.device.type == "meta" for p in trained)
