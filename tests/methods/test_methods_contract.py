"""What every method keeps to, whatever it computes."""

import copy
import importlib
import inspect
import math
from pathlib import Path

import pytest
import torch
from small_methods import METHODS as SMALL
from small_methods import batch_for, keep, make, nodes, sample, train

from augment import (
    Compose,
    DropFeatures,
    DropNodes,
    Identity,
    MaskAttributes,
    OneOf,
    PerturbEdges,
    ShuffleNodes,
    Subgraph,
)
from graphcl.methods import METHODS
from graphcl.methods.method import Method
from graphcl.methods.rows import matched

ROOT = Path(__file__).parents[2]
NODE_LEVEL = ["moco on nodes", "grace", "bgrl", "dgi", "gae", "pcl"]


def state(method):
    return {key: value.clone() for key, value in method.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name_everywhere(name):
    assert any(key.split(" ")[0].strip(",") == name for key in SMALL), "add it to tests/small_methods.py"
    for path in (f"graphcl/methods/{name}.py", f"configs/{name}.yaml", f"tests/methods/test_{name}.py"):
        assert (ROOT / path).is_file(), f"{path} is missing"
    text = (ROOT / f"graphcl/methods/{name}.py").read_text(encoding="utf-8")
    assert METHODS[name].__module__ == f"graphcl.methods.{name}"
    for line in ("Paper:   ", "Loss:    ", f"Config:  configs/{name}.yaml", "Differs: "):
        assert f"\n{line}" in inspect.getmodule(METHODS[name]).__doc__, f"{name}.py: no line {line!r}"
    assert len(text.splitlines()) <= 150, f"{name}.py is longer than a page one reads at once"
    assert set(METHODS[name].levels) <= {"node", "graph"} and METHODS[name].levels


@pytest.mark.parametrize("path", sorted(ROOT.glob("graphcl/methods/*.py")), ids=lambda path: path.stem)
def test_a_method_with_a_file_is_listed(path):
    module = importlib.import_module(f"graphcl.methods.{path.stem}".removesuffix(".__init__"))
    own = {value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__}
    methods = {one for one in own if issubclass(one, Method)} - {Method}
    missing = sorted(one.__name__ for one in methods - set(METHODS.values()))
    assert not missing, f"{missing}: add a line to METHODS in graphcl/methods/__init__.py"


@pytest.mark.parametrize("name", SMALL)
def test_it_overfits(name):
    method = make(name)
    history = train(method, batch_for(method), 40)
    start = 1 if "queue" in dict(method.named_children()) else 0  # an empty queue has nothing to contrast with
    first, last = history[start]["loss"], sum(row["loss"] for row in history[-5:]) / 5
    assert last < first - 0.15 * abs(first), f"{first} -> {last}"


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_run(name):
    runs = []
    for _ in range(2):
        method = make(name)
        history = train(method, batch_for(method), 3)
        runs.append((history, state(method)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_method_goes_on_as_the_one_that_was_saved(name):
    method = make(name)
    batch = batch_for(method)
    train(method, batch, 3)
    other = make(name, seed=1)
    other.load_state_dict(method.state_dict())
    for group in method.groups():
        torch.manual_seed(5)
        wanted = method.loss(batch, group)["loss"]
        torch.manual_seed(5)
        assert torch.equal(other.loss(batch, group)["loss"], wanted)


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_twice_is_the_same_number(name):
    method = make(name)
    batch = batch_for(method)
    train(method, batch, 2)
    method.train()
    for group in method.groups():
        values = []
        for _ in range(2):
            torch.manual_seed(5)
            values.append(method.loss(batch, group)["loss"])
        assert torch.equal(*values)


@pytest.mark.parametrize("name", SMALL)
def test_the_batch_stays_as_it_was(name):
    method = make(name)
    batch = batch_for(method)
    keys = list(batch.keys())
    tensors = {key: value for key, value in batch.to_dict().items() if torch.is_tensor(value)}
    before = {key: (value, value.clone(), value._version) for key, value in tensors.items()}
    train(method, batch, 2)
    method.encode(batch)
    assert list(batch.keys()) == keys
    for key, (tensor, values, version) in before.items():
        assert batch[key] is tensor and torch.equal(tensor, values) and tensor._version == version, key


@pytest.mark.parametrize("name", SMALL)
def test_encode_gives_one_row_an_item_and_changes_nothing(name):
    method = make(name)
    batch = batch_for(method)
    train(method, batch, 2)
    before, random = state(method), torch.get_rng_state()
    method.eval()
    with torch.no_grad():
        h = method.encode(batch)
    rows = batch.num_nodes if getattr(method, "readout", None) is None else batch.num_graphs
    assert h.shape == (rows, method.encoder.out_dim) and h.isfinite().all()
    assert same(before, state(method)) and torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", SMALL)
def test_a_validation_loss_changes_nothing(name):
    method = make(name)
    batch = batch_for(method)
    train(method, batch, 2)
    before = state(method)
    method.eval()
    with torch.no_grad():
        for group in method.groups():
            assert method.loss(batch, group)["loss"].isfinite()
    queued = getattr(method, "fresh", [])
    assert not queued and not method.training and not any(module.training for module in method.modules())
    assert same(before, state(method))


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16(name):
    method = make(name)
    assert all(value["loss"] == value["loss"] for value in train(method, batch_for(method), 3, autocast=True))
    for key, value in method.state_dict().items():
        assert not value.is_floating_point() or (value.dtype == torch.float32 and value.isfinite().all()), key


@pytest.mark.parametrize("name", SMALL)
def test_labels_are_not_looked_at(name):
    method = make(name)
    assert not method.needs_labels
    batch = batch_for(method)
    assert (batch.y == -1).all()  # the Loader hid them
    wanted = train(method, batch, 2)
    bare = copy.copy(batch)
    bare.y = torch.full_like(batch.y, 10**6)
    assert train(make(name), bare, 2) == wanted


@pytest.mark.parametrize("name", SMALL)
def test_every_trainable_parameter_belongs_to_one_player_and_learns(name):
    method = make(name)
    batch = batch_for(method)
    train(method, batch, 1)
    owned = [id(p) for own in method.groups().values() for p in own if p.requires_grad]
    assert sorted(owned) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    for group, own in method.groups().items():
        method.zero_grad()
        values = method.loss(batch, group)
        assert all(value.dim() == 0 for value in values.values())
        values["loss"].backward()
        names = {id(p): key for key, p in method.named_parameters()}
        idle = [names[id(p)] for p in own if p.requires_grad and p.grad is None]
        assert all(key.endswith("token") for key in idle), idle  # the mask token: nothing is masked here


@pytest.mark.parametrize("name", SMALL)
def test_frozen_copies_get_no_gradient(name):
    method = make(name)
    train(method, batch_for(method), 2)
    for key, parameter in method.named_parameters():
        if key.startswith(("key_", "target")):
            assert not parameter.requires_grad and parameter.grad is None, key


@pytest.mark.parametrize("name", NODE_LEVEL)
def test_of_a_neighbour_sample_only_the_seeds_count(name):
    """Context nodes without an edge to the rest cannot matter."""
    method = make(name).eval()
    batch = sample(6)
    batch.edge_index = batch.edge_index[:, (batch.edge_index < 6).all(0)]
    assert method.encode(batch).shape == (6, method.encoder.out_dim)
    alone = keep(list(range(6)))(nodes())
    if name == "gae":  # draws its pairs from the whole sample
        assert method.loss(batch)["loss"].isfinite()
        return
    for view in ("view", "view1", "view2"):
        if hasattr(method, view):
            setattr(method, view, lambda data: data)
    assert torch.allclose(method.loss(batch)["loss"], method.loss(alone)["loss"], atol=1e-6)


@pytest.mark.parametrize("name", ["moco on nodes", "grace", "bgrl", "pcl"])
def test_a_batch_without_ids_is_refused_readably(name):
    batch = nodes()
    del batch["n_id"]
    with pytest.raises(ValueError, match=r"the batch has no n_id; take batches from graphcl's Loader"):
        make(name).loss(batch)


def test_rows_of_views_that_lack_different_nodes_are_matched_by_id():
    data = nodes(9)
    data.n_id = torch.tensor([40, 7, 12, 3, 99, 5, 61, 8, 22])
    data1, data2 = keep([8, 0, 1, 2, 5])(data), keep([5, 7, 2, 0, 4])(data)
    z1, z2, ids = matched(data1.x, data1, data2.x, data2)
    assert ids.tolist() == [40, 12, 5]
    assert torch.equal(z1, data.x[[0, 2, 5]]) and torch.equal(z2, z1)


def test_views_without_a_node_in_common():
    method = make("grace")
    method.view1, method.view2 = keep([0, 1, 2]), keep([5, 6])
    with pytest.raises(ValueError, match="the two views have no node in common; let them drop fewer nodes"):
        method.loss(nodes())


@pytest.mark.parametrize("name", ["moco on nodes", "grace", "bgrl", "pcl"])
def test_node_dropping_views_pair_a_node_with_itself(name):
    """Dropping, then reordering what is left, changes nothing for an encoder that looks at one node at a time."""
    data = nodes(16)
    lone = data.clone()
    lone.edge_index = lone.edge_index[:, :0]
    method = make(name)
    method.view1, method.view2 = keep([3, 1, 15, 7, 9]), keep([0, 7, 3, 2, 1, 15, 9])
    dropped = method.loss(lone)["loss"]
    method.view1 = method.view2 = lambda data: keep([3, 1, 15, 7, 9])(data)
    assert torch.allclose(dropped, method.loss(lone)["loss"], atol=1e-6)


TAKES_VIEWS = [made for made in METHODS.values() if {"view", "view1"} & inspect.signature(made).parameters.keys()]
REAL = [
    [DropNodes(0.3)],
    [Subgraph(0.7)],
    [PerturbEdges(0.3, 0.2), DropFeatures(0.3)],
    [MaskAttributes(0.3), ShuffleNodes()],
    [OneOf([DropNodes(0.3), PerturbEdges(0.3), Identity()])],
]


@pytest.mark.parametrize("views", REAL, ids=lambda views: views[0].__class__.__name__)
@pytest.mark.parametrize("name", [name for name in SMALL if METHODS[name.split(" ")[0].strip(",")] in TAKES_VIEWS])
def test_with_the_views_of_augment(name, views):
    method = make(name)
    for view in ("view", "view1", "view2"):
        if hasattr(method, view):
            setattr(method, view, Compose(views))
    batch = batch_for(method)
    for values in train(method, batch, 2):
        assert all(math.isfinite(value) for value in values.values())
    if getattr(method, "readout", None) is None:
        assert method.loss(sample(6))["loss"].isfinite()
