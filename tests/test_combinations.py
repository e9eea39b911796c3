"""Every shipped config trains two steps on its bundled data; methods, encoders and views go together in any mixture."""

import random
from functools import cache

import pytest
import torch

from graphcl import METHODS, build, embed, fit, load_config, load_data
from graphcl.data.catalogue import BUNDLED
from graphcl.data.splits import make_splits
from graphcl.data.store import GraphStore
from graphcl.read_config import config_names, models, parse_config


@cache
def data_of(name, features, normalize):
    return load_data(name, features=features, normalize=normalize)


def small(data):
    """A piece of the data, so that two steps take no time."""
    if isinstance(data, GraphStore):
        return data.subset(torch.arange(0, len(data), len(data) // 60))
    return data.subgraph(torch.arange(data.num_nodes) < 300)


@pytest.mark.parametrize("name", config_names())
def test_shipped_config_trains_on_bundled_data(name):
    config = load_config(name, ["train.max_steps=2"])
    assert config.data.name in BUNDLED, "its home must need no download"
    assert config.name == name
    data = data_of(config.data.name, config.data.features, config.data.normalize)
    run = build(config, data)
    summary = fit(run, progress=False)
    assert summary["steps"] == 2
    z = embed(run.method, run.data)
    assert len(z) == run.loader.num_items and z.isfinite().all()
    assert run.split and all(len(part) for split in run.split for part in split)


@pytest.mark.parametrize("kind", ["public", "random", "few", "kfold", "scaffold"])
def test_every_kind_of_split(kind):
    name = {"public": "cora", "scaffold": "bbbp"}.get(kind, "imdb-binary")
    data = data_of(name, "given", False)
    splits = make_splits(data, kind, seed=0, repeats=3, per_class=5)
    for train, val, test in splits:
        rows = torch.cat([train, val, test])
        assert len(rows.unique()) == len(rows)


def mixtures(count=60):
    """A fixed sample of level x method x encoder x view."""
    draw = random.Random(0)
    views = sorted(set(models("views")) - {"mask_edge_attributes", "mask_atoms"})
    made = []
    for level in ("node", "graph"):
        methods = sorted(name for name, method in METHODS.items() if level in method.levels)
        # One takes molecules alone, one graphs that are wider than the ego networks here.
        methods = [name for name in methods if name not in {"attribute_masking", "context_prediction"}]
        encoders = sorted(name for name in models("encoder") if not name.startswith("molecule"))
        # AD-GCL refuses GAT, which reads no edge weights: tests/methods/test_adgcl.py
        pairs = [(m, e) for m in methods for e in encoders if (m, e) != ("adgcl", "gat")]
        every = [(level, m, e, v) for m, e in pairs for v in views]
        made += draw.sample(every, count // 2)
    return [pytest.param(*mixture, id="-".join(mixture)) for mixture in made]


@pytest.mark.parametrize(("level", "method", "encoder", "view"), mixtures())
def test_method_encoder_and_view_go_together(level, method, encoder, view):
    transform = {"name": view}
    if view == "one_of":
        transform["views"] = [{"name": "drop_nodes"}, {"name": "perturb_edges", "add": 0.1}]
    if view == "mask_attributes":
        transform["mode"] = "mean"
    settings = {"name": method}
    if "queue" in models("method")[method].model_fields:
        settings["queue"] = 32
    if method == "pcl":
        settings |= {"clusters": [2, 3], "warmup_epochs": 0}
    config = parse_config(
        {
            "name": "mixture",
            "data": {"name": "given", "batch_size": 32 if level == "graph" else None},
            "encoder": {"name": encoder, "hidden": 8},
            "readout": "mean" if level == "graph" else None,
            "method": settings,
            "views": [[transform]] * models("method")[method].views,
            "train": {"epochs": 2, "max_steps": 3},
        }
    )
    data = small(data_of("imdb-binary", "degree", False) if level == "graph" else data_of("cora", "given", True))
    data.y = None
    run = build(config, data)
    assert torch.tensor(fit(run, progress=False)["loss"]).isfinite()
    assert embed(run.method, run.data).isfinite().all()
