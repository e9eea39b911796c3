"""Pretrained encoders as folders: what goes in comes out, and what is wrong is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from test_convert import state_of
from torch_geometric.data import Data
from typer.testing import CliRunner

import graphcl
from graphcl.builder import build
from graphcl.checkpoint import CheckpointError
from graphcl.cli import app
from graphcl.config import ConfigError
from graphcl.encoders import GIN, MoleculeGIN
from graphcl.evaluate.embed import embed
from graphcl.hub import ModelCard, list_pretrained, load_pretrained, save_pretrained, write_card
from graphcl.read_config import load_config, parse_config
from graphcl.trainer import fit

SMALL = ["encoder.hidden=16", "encoder.layers=2", "train.max_steps=2", "data.batch_size=32"]
CARD = ModelCard(about="a small one", method="graphcl", data="bbbp", items=64, hours=0.1, scores={"bbbp probe": 0.5})


@pytest.fixture(scope="module")
def molecules():
    return graphcl.load_data("bbbp")


@pytest.fixture
def saved(tmp_path):
    config = load_config("quickstart-molecules", SMALL).encoder
    encoder = MoleculeGIN(16, layers=2)
    folder = save_pretrained(tmp_path / "small", encoder, config=config, readout="mean", card=CARD)
    return folder, encoder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, molecules):
    config = load_config("quickstart-molecules", SMALL)
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = build(config, molecules)
    fit(run, folder, progress=False)
    (folder / "config.yaml").write_text(config.dump(), encoding="utf-8")
    return folder, run


def test_a_saved_encoder_comes_back_as_it_was_but_for_half_precision(saved, molecules):
    folder, encoder = saved
    model = load_pretrained(folder)
    assert model.card == CARD
    assert (model.features, model.reads_molecules, model.readout.kind) == ("benchmark", True, "mean")
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(model.encoder.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    batch = molecules.batch(torch.arange(20))
    ours = model.encode(batch)
    encoder.eval()
    torch.testing.assert_close(ours, model.readout(encoder(batch), batch), rtol=0.02, atol=0.02)
    assert embed(model, molecules).shape == (len(molecules), 16)


def test_weights_are_half_the_size_and_statistics_are_not(saved):
    folder, _ = saved
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    assert tensors["layers.0.conv.nn.0.weight"].dtype == torch.float16
    running = [name for name in tensors if "running" in name]
    assert running
    assert {tensors[name].dtype for name in running} == {torch.float32}


def test_full_precision_is_exact(tmp_path):
    encoder = MoleculeGIN(16, layers=2)
    config = load_config("quickstart-molecules", SMALL).encoder
    model = load_pretrained(
        save_pretrained(tmp_path / "full", encoder, config=config, readout="mean", card=CARD, half=False)
    )
    for name, value in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)


def test_a_run_folder_needs_no_export(run_folder, molecules):
    folder, run = run_folder
    model = load_pretrained(folder)
    assert torch.equal(embed(model, molecules), embed(run.method, molecules))
    assert (model.card.method, model.card.data, model.card.items) == ("graphcl", "bbbp", 64)


def test_an_encoder_made_for_a_width_keeps_it(tmp_path):
    config = parse_config(load_config("graphcl", ["encoder.hidden=8"]).model_dump()).encoder
    save_pretrained(tmp_path / "gin", GIN(5, hidden=8), config=config, readout="sum", card=CARD, in_dim=5)
    assert load_pretrained(tmp_path / "gin").config.in_dim == 5
    meta = json.loads((tmp_path / "gin" / "config.json").read_text())
    (tmp_path / "gin" / "config.json").write_text(json.dumps(meta | {"in_dim": None}))
    with pytest.raises(ConfigError, match="`in_dim` is missing"):
        load_pretrained(tmp_path / "gin")


def test_an_exported_encoder_reads_data_as_it_was_trained(tmp_path):
    config = load_config("graphcl", ["data.features=degree", "encoder.hidden=8", "train.max_steps=2"])
    run = build(config)
    fit(run, tmp_path / "run", progress=False)
    (tmp_path / "run" / "config.yaml").write_text(config.dump(), encoding="utf-8")
    export = ["export", str(tmp_path / "run"), "-o", str(tmp_path / "ready"), "--full"]
    assert CliRunner().invoke(app, export).exit_code == 0
    assert load_pretrained(tmp_path / "ready").config.features == "degree"
    written = ["embed", str(tmp_path / "ready"), "--data", "imdb-binary", "-o", str(tmp_path / "z.npz")]
    result = CliRunner().invoke(app, written)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "z.npz") as found:
        assert np.array_equal(found["embedding"], embed(run.method, run.data).numpy())


def test_the_encoder_of_a_run_needs_no_data_but_for_its_width(tmp_path, monkeypatch):
    config = load_config("graphcl", ["encoder.hidden=8", "train.max_steps=2"])
    run = build(config)
    fit(run, tmp_path / "run", progress=False)
    (tmp_path / "run" / "config.yaml").write_text(config.dump(), encoding="utf-8")
    wanted = embed(run.method, run.data)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("graphcl.builder.load_data", lambda **asked: pytest.fail("the data were read"))
        model = load_pretrained(tmp_path / "run")
    assert model.config.in_dim == run.data.num_features and torch.equal(embed(model, run.data), wanted)
    for damage, said in (
        ("{", "not readable as JSON"),
        ("[1]", "not what a run writes"),
        ('{"num_features": "7"}', "not"),
    ):
        (tmp_path / "run" / "environment.json").write_text(damage)
        with pytest.raises(ConfigError, match=rf"environment\.json: {said}.*; delete it"):
            load_pretrained(tmp_path / "run")
    (tmp_path / "run" / "environment.json").unlink()  # then the data tell it
    assert torch.equal(embed(load_pretrained(tmp_path / "run"), run.data), wanted)


def test_a_method_of_both_levels_embeds_what_it_was_trained_on(tmp_path):
    parts = ["data.features=given", "data.split=public", "data.batch_size=null", "method.queue=16", "encoder.hidden=8"]
    config = load_config("moco", [*parts, "data.repeats=1", "train.max_steps=1", "data.name=cora"])
    assert config.readout is not None
    torch.manual_seed(0)
    ends = torch.randint(0, 40, (2, 120))
    masks = {f"{part}_mask": torch.arange(40) % 3 == i for i, part in enumerate(("train", "val", "test"))}
    run = build(config, Data(x=torch.randn(40, 5), edge_index=ends, y=torch.arange(40) % 2, **masks))
    fit(run, tmp_path / "run", progress=False)
    (tmp_path / "run" / "config.yaml").write_text(config.dump(), encoding="utf-8")
    model = load_pretrained(tmp_path / "run")
    assert model.readout is None and model.config.readout is None
    assert torch.equal(embed(model, run.data), embed(run.method, run.data))


def test_export_writes_the_encoder_of_a_run(run_folder, tmp_path, molecules):
    folder, run = run_folder
    result = CliRunner().invoke(app, ["export", str(folder), "-o", str(tmp_path / "mine"), "--about", "my words"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    model = load_pretrained(tmp_path / "mine")
    assert model.card.about == "my words"
    torch.testing.assert_close(embed(model, molecules), embed(run.method, molecules), rtol=0.05, atol=0.05)
    again = CliRunner().invoke(app, ["export", str(folder), "-o", str(tmp_path / "mine")])
    assert "holds an encoder already; replace it with --overwrite" in str(again.exception)
    assert load_pretrained(tmp_path / "mine").card.about == "my words"
    replaced = CliRunner().invoke(app, ["export", str(folder), "-o", str(tmp_path / "mine"), "--overwrite", "--full"])
    assert replaced.exit_code == 0
    assert torch.equal(embed(load_pretrained(tmp_path / "mine"), molecules), embed(run.method, molecules))
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "predictor.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a fine-tuned model, not an encoder; predict with it: graphcl predict"):
        load_pretrained(tmp_path / "tuned")
    save_pretrained(tmp_path / "mine", run.method.encoder, config=run.config.encoder, readout="mean", card=CARD)
    shown = CliRunner().invoke(app, ["pretrained", str(tmp_path / "mine")])
    assert "a small one" in shown.output


def test_the_command_converts_weights_of_the_benchmark(tmp_path):
    torch.save(state_of("gin", 8, 2), tmp_path / "theirs.pth")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "theirs.pth"), "-o", str(tmp_path / "ours")])
    assert result.exit_code == 0, result.output
    model = load_pretrained(tmp_path / "ours")
    assert (model.config.encoder.name, model.config.encoder.hidden, len(model.encoder.layers)) == ("molecule_gin", 8, 2)
    assert "theirs.pth" in model.card.about


def test_weights_too_large_for_half_precision_are_converted_in_full(tmp_path):
    state = state_of("gin", 8, 2)
    state["x_embedding1.weight"][3, 2] = 1e6
    torch.save(state, tmp_path / "theirs.pth")
    args = ["convert", str(tmp_path / "theirs.pth"), "-o", str(tmp_path / "ours")]
    with pytest.raises(CheckpointError, match=r"atom.weight holds values .* in float16; save with --full"):
        CliRunner().invoke(app, args, catch_exceptions=False)
    assert not (tmp_path / "ours").exists()
    result = CliRunner().invoke(app, [*args, "--full"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert load_pretrained(tmp_path / "ours").encoder.atom.weight[3, 2] == 1e6


def test_what_ships_is_small_listed_and_loads(molecules):
    names = list_pretrained()
    assert names, "no weights ship with the package"
    for name in names:
        model = load_pretrained(name)
        assert sum(p.numel() for p in model.encoder.parameters()) * 2 < 4 * 2**20
        assert embed(model, [molecules[i] for i in range(8)]).shape == (8, model.encoder.out_dim)
        assert model.card.items
        assert model.card.scores
    for command in ("pretrained", "methods"):
        assert all(name in CliRunner().invoke(app, [command]).output for name in names)


@pytest.mark.parametrize("damage", ["truncated", "missing", "other", "pickle"])
def test_damaged_weights_are_refused_by_name(saved, damage):
    folder, _ = saved
    path = folder / "model.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "missing":
        path.unlink()
    elif damage == "other":
        path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    else:
        torch.save({"a": 1}, path)
    with pytest.raises(CheckpointError, match="safetensors"):
        load_pretrained(folder)


def test_a_damaged_config_or_card_is_named(saved):
    folder, _ = saved
    text = (folder / "config.json").read_text()
    for bad, words in (("{", "not readable as JSON"), (text.replace('"mean"', '"mode"'), "readout")):
        (folder / "config.json").write_text(bad)
        with pytest.raises(ConfigError, match=words):
            load_pretrained(folder)
    (folder / "config.json").write_text(text)
    (folder / "README.md").write_text("no card")
    with pytest.raises(ConfigError, match="model card"):
        load_pretrained(folder)


def test_an_unknown_name_says_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"no pretrained encoder 'nothing'.*shipped: .*run folder"):
        load_pretrained("nothing")
    with pytest.raises(ConfigError, match="no pretrained encoder"):
        load_pretrained(tmp_path)


def test_a_folder_that_has_a_shipped_name_is_not_mistaken_for_it(saved, tmp_path, monkeypatch):
    shutil.copytree(saved[0], tmp_path / "graphcl-zinc250k")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"ships with graphcl, and is a folder here; .* write \./graphcl-zinc250k"):
        load_pretrained("graphcl-zinc250k")
    for name in ("./graphcl-zinc250k", Path("graphcl-zinc250k")):
        assert load_pretrained(name).config == load_pretrained(saved[0]).config


def test_a_card_is_written_anew_without_touching_the_weights(saved):
    folder, _ = saved
    before = (folder / "model.safetensors").read_bytes()
    write_card(folder, CARD.model_copy(update={"scores": {"tox21 probe": 0.7}}))
    assert load_pretrained(folder).card.scores == {"tox21 probe": 0.7}
    assert (folder / "model.safetensors").read_bytes() == before


def test_weights_that_half_precision_cannot_hold_are_not_written(tmp_path):
    encoder = MoleculeGIN(16, layers=2)
    with torch.no_grad():
        encoder.atom.weight[3, 2] = 1e6
    config = load_config("quickstart-molecules", SMALL).encoder
    with pytest.raises(CheckpointError, match=r"atom.weight.*half=False"):
        save_pretrained(tmp_path / "big", encoder, config=config, readout="mean", card=CARD)
    assert not (tmp_path / "big").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    config = load_config("quickstart-molecules", SMALL).encoder
    with pytest.raises(CheckpointError, match="something else"):
        save_pretrained(tmp_path, MoleculeGIN(16, layers=2), config=config, readout="mean", card=CARD)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_encoder_of_a_variational_run_is_not_taken_for_the_whole(tmp_path):
    run = build(load_config("gae", ["method.variational=true", "encoder.hidden=8", "train.max_steps=1"]))
    fit(run, tmp_path / "run", progress=False)
    (tmp_path / "run" / "config.yaml").write_text(run.config.dump(), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run: method\.variational=true embeds by a head that is no part of the enc"):
        load_pretrained(tmp_path / "run")
