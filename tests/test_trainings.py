"""A fine-tuning that was stopped goes on with the trainings that are missing, and ends as if it had never been."""

import pickle

import pytest
import torch

from graphcl import cli_molecules, predictor, trainings
from graphcl.config_encoders import MoleculeGIN as MoleculeGINConfig
from graphcl.data.molecules import molecules_to_store
from graphcl.data.splits import Split
from graphcl.encoders import MoleculeGIN, Readout
from graphcl.evaluate.finetune import Settings
from graphcl.hub import ModelCard, Pretrained, PretrainedConfig, save_pretrained
from graphcl.predictor import train_predictor

CONFIG = PretrainedConfig(encoder=MoleculeGINConfig(name="molecule_gin", hidden=8, layers=2), readout="mean")
CARD = ModelCard(about="a small one", method="graphcl", data="chains")
FAST = Settings(epochs=3, batch_size=16, lr=0.01, dropout=0.2)
CHAINS = ["C" * (1 + i % 9) + ("N", "O", "S", "P", "[Si]")[i % 5] + "C" * (i // 10) for i in range(60)]
SPLIT = Split(torch.arange(40), torch.arange(40, 50), torch.arange(50, 60))
STORE, _ = molecules_to_store(CHAINS, torch.tensor([["N" in text, "S" in text] for text in CHAINS]).float())


def pretrained():
    torch.manual_seed(0)
    return Pretrained(MoleculeGIN(8, layers=2), Readout("mean"), CONFIG, CARD).eval()


def tuned(keep=None, **changes):
    asked = {"start": pretrained(), "source": STORE, "split": SPLIT, "seeds": (0, 1, 2), "settings": FAST} | changes
    return train_predictor(asked.pop("start"), asked.pop("source"), asked.pop("split"), keep=keep, **asked)


@pytest.fixture
def trained(monkeypatch):
    """The seeds that were trained."""
    seeds, train = [], predictor.train

    def told(*args, seed, **keywords):
        seeds.append(seed)
        return train(*args, seed=seed, **keywords)

    monkeypatch.setattr(predictor, "train", told)
    return seeds


def stop_at(seed):
    def tell(one, epoch, judged):
        if (one, epoch) == (seed, 1):
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("start", ["pretrained", "scratch"])
def test_a_stopped_run_ends_as_one_that_was_never_stopped(tmp_path, trained, start):
    changes = {"start": CONFIG} if start == "scratch" else {}
    whole, found = tuned(**changes)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, tell=stop_at(2), **changes)
    assert len(list(tmp_path.iterdir())) == 2
    trained.clear()
    told = []
    again, other = tuned(tmp_path, tell=lambda seed, epoch, judged: told.append((seed, epoch)), **changes)
    assert trained == [2] and told == [(seed, epoch) for seed in range(3) for epoch in range(3)]
    for one, two in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert found.by_rule == other.by_rule and found.together == other.together and found.epochs == other.epochs
    assert all(torch.equal(found.tested[rule], other.tested[rule]) for rule in ("last", "clean"))
    assert found.earlier == 0 < other.earlier
    for one, two in zip(whole.predict(STORE), again.predict(STORE), strict=True):
        assert torch.equal(one, two)


def test_trainings_of_something_else_are_not_taken(tmp_path, trained):
    tuned(tmp_path, seeds=(0,))
    y = STORE.y.clone()
    y[0] = 1 - y[0]
    other = pretrained()
    with torch.no_grad():
        next(other.encoder.parameters()).add_(1e-3)
    for changes in (
        {"settings": FAST._replace(lr=0.02)},
        {"source": STORE._like(y=y)},
        {"split": Split(SPLIT.train[1:], SPLIT.val, SPLIT.test)},
        {"start": other},
        {"start": CONFIG},
        {"metric": "prc_auc"},
        {"targets": ["a", "b"]},
        {"seeds": (1,)},
    ):
        trained.clear()
        tuned(tmp_path, **{"seeds": (0,)} | changes)
        assert len(trained) == 1, changes
    trained.clear()
    tuned(tmp_path, seeds=(0, 1))
    assert trained == []


def test_a_damaged_or_foreign_file_is_told_and_trained_again(tmp_path, trained):
    whole, _ = tuned(tmp_path, seeds=(0,))
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    for content, said in (
        (good[: len(good) // 2], "truncated, or no checkpoint at all"),
        (pickle.dumps(print), "truncated, or no checkpoint at all"),
        (b"", "truncated, or no checkpoint at all"),
    ):
        path.write_bytes(content)
        trained.clear()
        with pytest.warns(UserWarning, match=f"{path.name} is not used, that training begins anew: {said}"):
            again, _ = tuned(tmp_path, seeds=(0,))
        assert trained == [0] and path.read_bytes() != content
        assert torch.equal(again.members[0].head.weight, whole.members[0].head.weight)


def test_keys_tell_tensors_and_values_apart():
    x = torch.arange(4)
    keys = [trainings.key_of(*parts) for parts in ((x,), (x.float(),), (x.view(2, 2),), (x + 1,), (x, 1), (x, "1"), ())]
    assert len(set(keys)) == len(keys) and trainings.key_of(x, 1) == trainings.key_of(x.clone(), 1)


def test_the_command_goes_on(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = CONFIG.encoder
    save_pretrained(tmp_path / "small", pretrained().encoder, config=config, readout="mean", card=CARD)
    rows = [f"{text},{int('N' in text)}" for text in CHAINS]
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,amine", *rows]) + "\n", encoding="utf-8")
    asked = ["finetune", "small", "assay.csv", "--target", "amine", "--split", "random", "--quiet", "--no-baselines"]
    asked += ["--epochs", "2", "--seeds", "2", "--threads", "1"]
    code, text = command(*asked, "-o", "whole")
    assert code == 0, text
    assert not (tmp_path / "whole/trainings").exists()
    code, text = command(*asked, "-o", "model", "--resume")
    assert code == 2 and "nothing to resume: model holds no trainings" in text
    code, text = command(*asked, "-o", "model", "--resume", "--overwrite")
    assert code == 2 and "give one of them" in text

    train, calls = predictor.train, []

    def broken(*args, **keywords):
        calls.append(keywords["seed"])
        if calls == [0, 1]:
            raise RuntimeError("the power went")
        return train(*args, **keywords)

    monkeypatch.setattr(predictor, "train", broken)
    code, text = command(*asked, "-o", "model")
    assert code == 2 and "the power went" in text and "are kept in model/trainings: go on with --resume" in text
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["trainings"]
    code, text = command(*asked, "-o", "model")
    assert code == 2 and "model holds trainings of a run that was stopped; go on with --resume, delete" in text
    code, text = command(*asked, "-o", "model", "--resume")
    assert code == 0 and calls == [0, 1, 1], text
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("whole", "model")]
    assert names[0] == names[1] and "trainings" not in names[0]
    for name in ("predictions.csv", "model.safetensors", "report.md"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_trainings_that_are_not_ours_stay(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/trainings").mkdir(parents=True)
    (tmp_path / "mine/trainings/notes.txt").write_text("precious", encoding="utf-8")
    for given in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        with pytest.raises(ValueError, match="mine holds something else than a fine-tuned model"):
            cli_molecules.check_folder(tmp_path / "mine", **given)
    cli_molecules.clear_trainings(tmp_path / "mine")
    assert (tmp_path / "mine/trainings/notes.txt").read_text(encoding="utf-8") == "precious"
