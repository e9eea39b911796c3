"""torch.compile takes the model whole: no graph break in encoders, heads and losses, the same values and gradients."""

import functools

import pytest
import torch
from small_methods import WIDTH, encoder, graphs, nodes
from torch_geometric.data import Data

from augment import DropNodes, MaskAttributes
from graphcl.data.molecules import molecules_to_store
from graphcl.encoders import GCN, GIN, SAGE, MoleculeGIN, Readout
from graphcl.heads import mlp
from graphcl.methods import BGRL, GRACE, GraphCL, MoCo
from graphcl.objectives import infonce, ntxent
from graphcl.trainer import compiled

METHODS = {
    "graphcl": lambda: GraphCL(GIN(WIDTH, 8, layers=2), Readout("sum"), DropNodes(0.2), MaskAttributes(0.2)),
    "moco": lambda: MoCo(GIN(WIDTH, 8, layers=2), DropNodes(0.2), MaskAttributes(0.2), Readout("mean"), queue=16),
    "grace": lambda: GRACE(encoder(), MaskAttributes(0.2), MaskAttributes(0.2), proj_dim=8),
    "bgrl": lambda: BGRL(encoder(), MaskAttributes(0.2), MaskAttributes(0.2), pred_hidden=8),
}


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(method, batch):
    torch.manual_seed(0)
    method.zero_grad()
    loss = method.loss(batch)["loss"]
    loss.backward()
    return loss.detach(), [p.grad for p in method.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "name", ["graphcl", "grace", *(pytest.param(n, marks=pytest.mark.slow) for n in ("moco", "bgrl"))]
)
def test_a_compiled_method_has_the_same_loss_and_gradients(name, fresh, monkeypatch):
    torch.manual_seed(1)
    method = METHODS[name]()
    batch = nodes() if getattr(method, "readout", None) is None else graphs()
    method.eval()  # batch norm would move its statistics between the two
    loss, plain = gradients(method, batch)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    with compiled(method, True):
        again, fast = gradients(method, batch)  # fullgraph: a graph break would raise
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize("objective", [infonce, pytest.param(ntxent, marks=pytest.mark.slow)])
def test_the_whole_model_step_is_one_graph(objective, fresh):
    model, readout, project = GIN(WIDTH, 8, layers=2), Readout("sum"), mlp(16, 16, 16)

    def step(view1: Data, view2: Data) -> torch.Tensor:
        z1, z2 = (project(readout(model(view), view)) for view in (view1, view2))
        return objective(z1, z2, 0.2)

    batch = graphs()
    view1, view2 = DropNodes(0.2)(batch), MaskAttributes(0.2)(batch)
    whole = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(view1, view2), step(view1, view2))
    whole(view1, view2).backward()
    assert all(p.grad is not None for p in [*model.layers.parameters(), *project.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gin", "gcn", "sage", "molecule_gin"])
def test_inductor_compiles_the_encoders(kind, fresh):
    if kind == "molecule_gin":
        model, data = MoleculeGIN(16, layers=2), molecules_to_store(["CCO", "c1ccccc1", "C"])[0].batch(torch.arange(3))
    else:
        model, data = {"gin": GIN, "gcn": GCN, "sage": SAGE}[kind](WIDTH, 8), graphs()
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(data), model(data), rtol=1e-4, atol=1e-5)
