"""What a config becomes: masks that fit the encoder's features, splits of assays that were not measured whole."""

from __future__ import annotations

import pytest
import torch

from graphcl import build, embed, linear_probe, load_config, load_data
from graphcl.builder import make_view
from graphcl.evaluate.compare import check_labels
from graphcl.methods.attribute_masking import MASKED
from graphcl.trainer import fit

SMALL = ["encoder.hidden=16", "encoder.layers=2", "train.max_steps=1", "data.batch_size=16"]


@pytest.mark.parametrize("features", ["benchmark", "ogb"])
def test_masks_are_the_encoders_own_whatever_features_it_reads(tmp_path, features):
    given = [f"encoder.features={features}", f"data.features={'ogb' if features == 'ogb' else 'given'}"]
    (tmp_path / "a.smi").write_text("C[C@H](N)C(=O)O\nc1ccccc1O\nCCN(C)C\n" * 6)
    config = load_config("molecules", [*SMALL, *given, f"data.name={tmp_path / 'a.smi'}"])
    run = build(config)
    fit(run, progress=False)
    assert embed(run.method, run.data).isfinite().all()

    batch = run.data.batch(torch.arange(4))
    x, bonds = (torch.tensor(MASKED[key][batch[key].size(1)]) for key in ("x", "edge_attr"))
    views = [
        {"name": "mask_attributes", "rate": 1.0, "mode": "category", "category": [119, 0]},
        {"name": "mask_attributes", "rate": 1.0, "mode": "category", "category": 119},
        {"name": "mask_atoms", "rate": 1.0},
        {"name": "one_of", "views": [{"name": "mask_atoms", "rate": 1.0}, {"name": "mask_atoms", "rate": 1.0}]},
    ]
    for view in views:
        config = load_config("quickstart-molecules", [f"views.0=[{view}]"])
        assert (make_view(config.views[0], features)(batch).x == x).all()
    bonds_alone = {"name": "mask_edge_attributes", "rate": 1.0, "mode": "category", "category": 5}
    for view in (bonds_alone, views[2]):
        config = load_config("quickstart-molecules", [f"views.0=[{view}]"])
        assert (make_view(config.views[0], features)(batch).edge_attr == bonds).all()
    own = {"name": "mask_atoms", "rate": 1.0, "atom": list(range(x.numel())), "bond": None}  # other categories stay
    config = load_config("quickstart-molecules", [f"views.0=[{own}]".replace("None", "null")])
    assert (make_view(config.views[0], features)(batch).x == torch.arange(x.numel())).all()


@pytest.mark.parametrize("split", ["scaffold", "random_scaffold"])
def test_an_assay_of_one_target_that_was_not_measured_everywhere(tmp_path, split):
    store = load_data("bbbp")
    rows = [f"{text},{'' if row % 7 == 0 else int(store.y[row])}" for row, text in enumerate(store.smiles[:400])]
    (tmp_path / "a.csv").write_text("smiles,active\n" + "\n".join(rows) + "\n")
    given = [f"data.name={tmp_path / 'a.csv'}", "data.targets=[active]", f"data.split={split}"]
    run = build(load_config("quickstart-molecules", [*SMALL, *given]))
    check_labels(run.data, run.split, "accuracy")  # of all that the command line does before it trains
    fit(run, progress=False)
    scores = linear_probe(embed(run.method, run.data), run.data.y, run.split)
    assert 0 <= scores.mean <= 1 and sum(map(len, run.split[0])) == sum(bool(row.split(",")[1]) for row in rows)
