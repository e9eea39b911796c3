"""Ensembles: what they predict, how unsure they are, how far from what they know; saved and loaded unchanged."""

import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.DataStructs import TanimotoSimilarity

from graphcl import process
from graphcl.checkpoint import CheckpointError
from graphcl.config import ConfigError
from graphcl.config_encoders import MoleculeGIN as MoleculeGINConfig
from graphcl.data.molecules import molecules_to_store
from graphcl.data.splits import Split
from graphcl.encoders import MoleculeGIN, Readout
from graphcl.evaluate.finetune import Settings
from graphcl.hub import ModelCard, Pretrained, PretrainedConfig
from graphcl.predictor import load_predictor, train_predictor

CONFIG = PretrainedConfig(encoder=MoleculeGINConfig(name="molecule_gin", hidden=16, layers=2), readout="mean")
FAST = Settings(epochs=3, batch_size=16, lr=0.01)
CHAINS = ["C" * (1 + i % 9) + ("N", "O", "S", "P", "[Si]")[i % 5] + "C" * (i // 10) for i in range(60)]
SPLIT = Split(torch.arange(40), torch.arange(40, 50), torch.arange(50, 60))


def nitrogen() -> torch.Tensor:
    return torch.tensor([["N" in text] for text in CHAINS]).float()


def carbons() -> torch.Tensor:
    return torch.tensor([[100.0 + 10 * text.count("C")] for text in CHAINS])


def store(y):
    made, rejected = molecules_to_store(CHAINS, y)
    assert not rejected
    return made


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(0)
    card = ModelCard(about="a small one", method="graphcl", data="chains")
    return Pretrained(MoleculeGIN(16, layers=2), Readout("mean"), CONFIG, card).eval()


@pytest.fixture(scope="module")
def classifier(pretrained):
    return train_predictor(pretrained, store(nitrogen()), SPLIT, seeds=(0, 1, 2), targets=["amine"], settings=FAST)


def test_mean_and_spread_are_those_of_the_members(classifier):
    predictor, found = classifier
    source = store(None)
    mean, std = predictor.predict(source, batch_size=7)
    batch = source.batch(torch.arange(60))
    with torch.no_grad():
        each = torch.stack([member(batch).softmax(1)[:, 1:] for member in predictor.members])
    torch.testing.assert_close(mean, each.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, each.std(0), rtol=1e-3, atol=1e-5)
    assert mean.shape == (60, 1) and bool(((mean >= 0) & (mean <= 1)).all())
    assert len({tuple(member.head.weight.flatten().tolist()) for member in predictor.members}) == 3
    assert len(found.by_rule.last.values) == len(found.epochs) == 3 and all(1 <= epoch <= 3 for epoch in found.epochs)
    assert set(found.together.also) == {"prc_auc"} and 0 <= found.together.test <= 1


def test_the_score_of_the_ensemble_is_that_of_its_predictions(classifier):
    from sklearn.metrics import roc_auc_score

    predictor, found = classifier
    mean = predictor.predict(store(None)).mean[SPLIT.test, 0]
    assert found.together.test == pytest.approx(roc_auc_score(nitrogen()[SPLIT.test, 0], mean))


def test_predictions_for_the_test_rows_have_the_scores_of_their_rule(pretrained):
    from sklearn.metrics import roc_auc_score

    y = nitrogen()
    _, found = train_predictor(pretrained, store(y), SPLIT, seeds=(0, 1, 2), settings=FAST._replace(epochs=6))
    for rule in ("last", "clean"):
        assert found.tested[rule].shape == (3, 10, 1) and found.tested[rule].dtype == torch.float64
        scores = [roc_auc_score(y[SPLIT.test, 0], made[:, 0]) for made in found.tested[rule]]
        assert list(getattr(found.by_rule, rule).values) == pytest.approx(scores)
    assert not torch.equal(found.tested["last"], found.tested["clean"])
    values = carbons()
    predictor, found = train_predictor(pretrained, store(values), SPLIT, seeds=(0, 1), settings=FAST)
    for rule in ("last", "clean"):
        errors = (found.tested[rule] - values[SPLIT.test]).square().mean((1, 2)).sqrt()
        assert list(getattr(found.by_rule, rule).values) == pytest.approx(errors.tolist())
    mean = predictor.predict(store(None)).mean[SPLIT.test]
    torch.testing.assert_close(found.tested["clean"].mean(0).float(), mean, rtol=1e-4, atol=1e-4)


def test_one_member_tells_no_spread(pretrained):
    predictor, _ = train_predictor(pretrained, store(nitrogen()), SPLIT, seeds=[5], settings=FAST)
    assert predictor.predict(store(None)).std.isnan().all() and predictor.config.targets == ("y0",)


def test_values_come_in_their_own_unit(pretrained):
    y = carbons()
    y[::7] = float("nan")
    settings = Settings(epochs=40, batch_size=16, lr=0.01)
    predictor, found = train_predictor(pretrained, store(y), SPLIT, seeds=(0, 1), settings=settings)
    assert predictor.config.kind == "regression" and found.by_rule.clean.metric == "rmse"
    mean = predictor.predict(store(None)).mean
    known = ~y.isnan()
    wrong = (mean - y)[known].square().mean().sqrt()
    assert wrong < y[known].std()  # better than a guess
    error = (mean - y)[SPLIT.test][known[SPLIT.test]].square().mean().sqrt()
    assert found.together.test == pytest.approx(error.item(), rel=1e-3)
    assert found.together.also["mae"] <= found.together.test


def test_a_target_that_cannot_be_learned_is_not_predicted(pretrained):
    y = torch.cat([nitrogen(), torch.zeros(60, 1), 1 - nitrogen()], dim=1)
    with pytest.warns(UserWarning, match="tasks constant of 3 are left out of the mean"):
        predictor, found = train_predictor(
            pretrained, store(y), SPLIT, seeds=(0, 1), settings=FAST, targets=["n", "constant", "other"]
        )
    mean, std = predictor.predict(store(None))
    assert predictor.config.learned == (True, False, True)
    assert mean[:, 1].isnan().all() and not mean[:, [0, 2]].isnan().any() and not std[:, [0, 2]].isnan().any()
    assert math.isfinite(found.together.test)


def test_from_scratch_every_member_begins_elsewhere():
    settings = Settings(epochs=1, batch_size=16, lr=1e-12)
    predictor, _ = train_predictor(CONFIG, store(nitrogen()), SPLIT, seeds=(0, 1), settings=settings)
    first, second = (member.encoder.atom.weight for member in predictor.members)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    again, _ = train_predictor(CONFIG, store(nitrogen()), SPLIT, seeds=(0, 1), settings=settings)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in predictor.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_similarity_is_the_largest_to_a_training_molecule(classifier):
    predictor, _ = classifier
    asked = [*CHAINS[:3], *CHAINS[40:45], "c1ccccc1", "[Na+].[Cl-]"]
    generator = GetMorganGenerator(radius=2, fpSize=2048)
    bits = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in CHAINS[:40]]
    wanted = [
        max(TanimotoSimilarity(generator.GetFingerprint(Chem.MolFromSmiles(text)), one) for one in bits)
        for text in asked
    ]
    assert predictor.similarity(asked).tolist() == pytest.approx(wanted)
    assert predictor.similarity(asked)[:3].tolist() == [1, 1, 1]


def test_saved_and_loaded_it_predicts_the_same(classifier, tmp_path, pretrained):
    predictor, _ = classifier
    predictor.save(tmp_path / "model")
    loaded = load_predictor(tmp_path / "model")
    source = store(None)
    for ours, theirs in zip(predictor.predict(source), loaded.predict(source), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(predictor.similarity(CHAINS), loaded.similarity(CHAINS))
    assert loaded.config == predictor.config and not loaded.training
    values, _ = train_predictor(pretrained, store(carbons()), SPLIT, seeds=(0, 1), settings=FAST)
    values.save(tmp_path / "values")
    np.testing.assert_array_equal(load_predictor(tmp_path / "values").predict(source).mean, values.predict(source).mean)


def test_damaged_folders_are_named(classifier, tmp_path):
    with pytest.raises(
        ConfigError, match=r"holds no fine-tuned model \(predictor.json\); `graphcl finetune` makes one"
    ):
        load_predictor(tmp_path)
    folder = classifier[0].save(tmp_path / "model")
    weights, config = folder / "model.safetensors", folder / "predictor.json"
    kept, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_predictor(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_predictor(folder)
    weights.write_bytes(kept)
    for change, said in (
        ({"members": 2}, "is of another model"),
        ({"member": 2}, "unknown key 'member'; did you mean 'members'"),
        ({"members": 0}, "members"),
        ({"learned": []}, "one entry of `learned` for each of 1 targets"),
    ):
        config.write_text(json.dumps(json.loads(text) | change))
        with pytest.raises(ValueError, match=said):
            load_predictor(folder)
    config.write_text("{")
    with pytest.raises(ConfigError, match="not readable as JSON"):
        load_predictor(folder)
    safetensors.torch.save_file({"x": torch.ones(1)}, weights)
    config.write_text(text)
    with pytest.raises(CheckpointError, match="is of another model"):
        load_predictor(folder)


def test_half_precision_predicts_nearly_the_same(classifier, monkeypatch):
    predictor, source = classifier[0], store(None)
    mean = predictor.predict(source).mean
    monkeypatch.setattr(process, "multiplies_bf16", lambda: False)
    with pytest.warns(UserWarning, match="bf16-mixed on a CPU without bfloat16 instructions"):
        low = predictor.predict(source, precision="bf16-mixed").mean
    assert not torch.equal(mean, low) and bool((mean - low).abs().max() < 0.05)
    with pytest.raises(ValueError, match="precision must be '32' or 'bf16-mixed', got '16'"):
        predictor.predict(source, precision="16")


def test_mistakes_are_told(pretrained):
    source = store(nitrogen())
    for seeds in ([], [1, 1]):
        with pytest.raises(ValueError, match="seeds must be different numbers, at least one"):
            train_predictor(pretrained, source, SPLIT, seeds=seeds)
    with pytest.raises(ValueError, match="2 names of targets for 1 columns of labels: a, b"):
        train_predictor(pretrained, source, SPLIT, targets=["a", "b"])
    with pytest.raises(ValueError, match="has no labels to fine-tune on"):
        train_predictor(pretrained, store(None), SPLIT)
    with pytest.raises(ValueError, match="embeds nodes, it has no readout"):
        train_predictor(CONFIG.model_copy(update={"readout": None}), source, SPLIT)
    with pytest.raises(ValueError, match="epochs must be > 0, got 0"):
        train_predictor(pretrained, source, SPLIT, settings=Settings(epochs=0))
