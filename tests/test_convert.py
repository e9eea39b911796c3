"""Weights of pretrain-gnns against a slow version of the original's forward pass, and files that are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphcl.convert import convert_pretrain_gnns
from graphcl.data.molecules import molecules_to_store

GNNS = ["gin", "gcn", "graphsage"]


def state_of(gnn: str, width: int, layers: int) -> dict[str, Tensor]:
    """A state dict of the original's shape, float64, every value drawn."""
    shapes = {"x_embedding1.weight": (120, width), "x_embedding2.weight": (3, width)}
    for i in range(layers):
        if gnn == "gin":
            shapes[f"gnns.{i}.mlp.0.weight"], shapes[f"gnns.{i}.mlp.0.bias"] = (2 * width, width), (2 * width,)
            shapes[f"gnns.{i}.mlp.2.weight"], shapes[f"gnns.{i}.mlp.2.bias"] = (width, 2 * width), (width,)
        else:
            shapes[f"gnns.{i}.linear.weight"], shapes[f"gnns.{i}.linear.bias"] = (width, width), (width,)
        shapes[f"gnns.{i}.edge_embedding1.weight"] = (6, width)
        shapes[f"gnns.{i}.edge_embedding2.weight"] = (3, width)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"batch_norms.{i}.{part}"] = (width,)
    generator = torch.Generator().manual_seed(width)
    state = {
        key: torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[-1])
        for key, shape in shapes.items()
    }
    for i in range(layers):
        state[f"batch_norms.{i}.running_var"] = state[f"batch_norms.{i}.running_var"].abs() + 0.5
        state[f"batch_norms.{i}.num_batches_tracked"] = torch.tensor(7)
    return state


def original(state: dict[str, Tensor], data: Any, gnn: str, layers: int) -> Tensor:
    """The benchmark's GNN in evaluation mode: self-loops of bond type 4 as edges, one edge at a time."""
    h = state["x_embedding1.weight"][data.x[:, 0]] + state["x_embedding2.weight"][data.x[:, 1]]
    edges = [(*ends, *kind) for ends, kind in zip(data.edge_index.T.tolist(), data.edge_attr.tolist(), strict=True)]
    edges += [(i, i, 4, 0) for i in range(len(h))]
    leaving = [sum(1 for u, *_ in edges if u == i) for i in range(len(h))]
    for i in range(layers):

        def of(name: str, i: int = i) -> Tensor:
            return state[f"gnns.{i}.{name}"]

        x = h if gnn == "gin" else h @ of("linear.weight").T + of("linear.bias")
        out = torch.zeros_like(h)
        for u, v, bond, direction in edges:
            message = x[u] + of("edge_embedding1.weight")[bond] + of("edge_embedding2.weight")[direction]
            scale = {"gin": 1.0, "gcn": (leaving[u] * leaving[v]) ** -0.5, "graphsage": 1 / leaving[v]}[gnn]
            out[v] += scale * message
        if gnn == "gin":
            out = (out @ of("mlp.0.weight").T + of("mlp.0.bias")).relu() @ of("mlp.2.weight").T + of("mlp.2.bias")
        if gnn == "graphsage":
            out = out / out.norm(dim=1, keepdim=True)
        norm = {part: state[f"batch_norms.{i}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
        h = (out - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt() * norm["weight"] + norm["bias"]
        h = h.relu() if i < layers - 1 else h
    return h


def molecules() -> Batch:
    store, _ = molecules_to_store(["C/C=C/c1ccccc1", "N[C@@H](C)C(=O)O", "[He]", "[Na+].[Cl-]", "CC#N"])
    return store.batch(torch.arange(5))


@pytest.mark.parametrize(("width", "layers"), [(300, 5), (6, 2), (4, 1)])
@pytest.mark.parametrize("gnn", GNNS)
def test_embeddings_are_the_originals(gnn, width, layers, tmp_path):
    state, data = state_of(gnn, width, layers), molecules()
    torch.save(state, tmp_path / "weights.pth")
    encoder, config = convert_pretrain_gnns(tmp_path / "weights.pth", gnn=gnn)
    assert (config.hidden, config.layers, config.features, config.virtual_node) == (width, layers, "benchmark", False)
    assert config.name == {"gin": "molecule_gin", "gcn": "molecule_gcn", "graphsage": "molecule_sage"}[gnn]
    torch.testing.assert_close(encoder.eval()(data), original(state, data, gnn, layers), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prefix", ["gnn.", "module.", "module.gnn.", "model.encoder."])
def test_prefixes_and_heads(prefix, tmp_path):
    state = {key: value.float() for key, value in state_of("gin", 4, 2).items()}
    state = {key: value.long() if "tracked" in key else value for key, value in state.items()}
    torch.save(state, tmp_path / "plain.pth", _use_new_zipfile_serialization=False)  # as torch 1.0 wrote
    head = {"graph_pred_linear.weight": torch.ones(2, 4), "projection_head.0.bias": torch.ones(4)}
    torch.save({prefix + key: value for key, value in state.items()} | head, tmp_path / "more.pth")
    plain, more = (convert_pretrain_gnns(tmp_path / name)[0].eval() for name in ("plain.pth", "more.pth"))
    assert torch.equal(plain(molecules()), more(molecules()))
    assert plain.atom.weight.dtype == torch.float32


def refused(state: Any, path: Path, message: str, gnn: str = "gin") -> None:
    torch.save(state, path)
    with pytest.raises(ValueError, match=message):
        convert_pretrain_gnns(path, gnn=gnn)


def test_other_shapes_are_refused(tmp_path):
    path, good = tmp_path / "w.pth", state_of("gin", 4, 2)
    for key, value, message in (
        (
            "x_embedding1.weight",
            torch.zeros(119, 4),
            r"x_embedding1\.weight is \[119, 4\], a gin of width 4 .* \[120, 4\]",
        ),
        ("x_embedding1.weight", torch.zeros(120), r"x_embedding1\.weight is \[120\], expected \[120, width\]"),
        ("x_embedding1.weight", torch.zeros(120, 0), r"x_embedding1\.weight is \[120, 0\]"),
        ("gnns.1.edge_embedding1.weight", torch.zeros(5, 4), r"gnns\.1\.edge_embedding1\.weight is \[5, 4\]"),
        ("gnns.0.mlp.0.bias", torch.full((8,), math.nan), r"gnns\.0\.mlp\.0\.bias .* not finite"),
        ("gnns.0.mlp.0.bias", torch.zeros(8, dtype=torch.long), r"gnns\.0\.mlp\.0\.bias \(torch\.int64\)"),
        ("gnns.0.eps", torch.zeros(1), r"gnns\.0\.eps is not part of a gin"),
        ("gnns.7.mlp.0.bias", torch.zeros(8), r"the layers have the numbers \[0, 1, 7\]"),
        ("gnn.x_embedding1.weight", torch.zeros(120, 4), r"2 tensors are called x_embedding1\.weight"),
    ):
        refused(good | {key: value}, path, message)
    for key in good:
        less = {name: value for name, value in good.items() if name != key}
        expected = "0 tensors are called" if key == "x_embedding1.weight" else key.replace(".", r"\.")
        refused(less, path, expected)
    refused(good, path, r"no gnns\.0\.linear\.bias, .* is it another gnn\?", "gcn")
    refused(state_of("gcn", 4, 2), path, r"no gnns\.0\.mlp\.0\.bias.* is it another gnn\?")


class Opener:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("opened"),)


def test_files_that_are_no_plain_tensors_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, good = tmp_path / "w.pth", state_of("gin", 4, 1)
    refused(
        good | {"more": Opener()}, path, "holds more than tensors.*, or is no .* could run code and is not opened; save"
    )
    assert not Path("opened").exists()
    refused(Data(x=torch.zeros(2, 2)), path, "holds more than tensors|holds a Data")
    refused([torch.zeros(2)], path, "holds a list, not a state dict")
    refused({1: torch.zeros(2)}, path, "holds a dict, not a state dict")
    refused({"epoch": 3, "model": good}, path, "'epoch' is a int, not a plain tensor; save the state dict")
    refused(
        good | {"gnns.0.mlp.0.bias": torch.zeros(8).to_sparse()}, path, "is a torch.sparse_coo .*, not a plain tensor"
    )
    refused({}, path, "0 tensors are called .* the file has nothing")
    for content in (b"", b"no weights", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.pth: (holds more|not readable)"):
            convert_pretrain_gnns(path)
    torch.save(good, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"w\.pth: (holds more|not readable)"):
        convert_pretrain_gnns(path)
    with pytest.raises(ValueError, match=r"gone\.pth: no such file"):
        convert_pretrain_gnns(tmp_path / "gone.pth")


def test_gat_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match=r"weights of a gat are not converted: .* known: gin, gcn, graphsage"):
        convert_pretrain_gnns(tmp_path / "w.pth", gnn="gat")
    with pytest.raises(ValueError, match="unknown gnn 'gim'; known: gin, gcn, graphsage"):
        convert_pretrain_gnns(tmp_path / "w.pth", gnn="gim")
