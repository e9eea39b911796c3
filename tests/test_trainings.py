"""A fine-tuning that was stopped goes on with the trainings that are missing, and ends as if it had never been."""

import io
import json
import pickle

import pytest
import torch

from graphcl import cli_molecules, predictor, trainings
from graphcl.config_encoders import MoleculeGIN as MoleculeGINConfig
from graphcl.data.molecules import molecules_to_store
from graphcl.data.splits import Split
from graphcl.encoders import MoleculeGIN, Readout
from graphcl.evaluate.finetune import Settings, set_dropout
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
    tuned(tmp_path, seeds=(0,), settings=FAST._replace(dropout=None))
    other, dropping = pretrained(), pretrained()
    set_dropout(dropping.encoder, 0.7)
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
        {"source": STORE._like(edge_attr=(STORE.edge_attr + 1).clamp(max=3))},
        {"start": dropping, "settings": FAST._replace(dropout=None)},
        {"settings": FAST._replace(patience=2)},
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
    state = torch.load(path, weights_only=True)
    flipped = bytearray(good)
    flipped[good.index(state["model"]["head.weight"].numpy().tobytes())] ^= 255
    for content, said in (
        (good[: len(good) // 2], "truncated, or no checkpoint at all"),
        (pickle.dumps(print), "truncated, or no checkpoint at all"),
        (bytes(flipped), "damaged"),
        (saved([state]), "not a checkpoint of graphcl"),
        (saved(print), "holds more than tensors and plain values, refused unread"),
        (saved({key: value for key, value in state.items() if key != "seconds"}), "'seconds'"),
        (saved(state | {"model": {}}), "Error.s. in loading state_dict for Model: Missing key"),
        (saved(state | {"scores": [[1.0]]}), "Judged.*missing 3 required"),
    ):
        path.write_bytes(content)
        trained.clear()
        with pytest.warns(UserWarning, match=f"{path.name} is not used, that training begins anew: {said}"):
            again, _ = tuned(tmp_path, seeds=(0,))
        assert trained == [0] and path.read_bytes() != content
        assert torch.equal(again.members[0].head.weight, whole.members[0].head.weight)


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_what_is_taken_leaves_the_random_state_alone(tmp_path):
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        tuned(tmp_path, seeds=(0,))
        drawn.append(torch.rand(1))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("settings", [{"precise_norm": True}, {"freeze": True, "dropout": None}, {"patience": 1}])
def test_trainings_of_all_kinds_are_taken_as_they_were(tmp_path, trained, settings):
    y = torch.tensor([[float(len(text))] for text in CHAINS])
    asked = {"source": STORE._like(y=y), "settings": FAST._replace(**settings), "seeds": (0, 1)}
    whole, found = tuned(tmp_path, **asked)
    trained.clear()
    again, other = tuned(tmp_path, **asked)
    assert trained == [] and (other.taken, found.taken) == (2, 0)
    assert found.by_rule == other.by_rule and found.together == other.together and found.stopped == other.stopped
    for one, two in zip(whole.predict(STORE), again.predict(STORE), strict=True):
        assert torch.equal(one, two)


def test_a_training_that_cannot_be_kept_is_told_and_not_lost(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.warns(UserWarning, match="if this run is stopped, that training is lost"):
        _, found = tuned(tmp_path / "file", seeds=(0,))
    assert found.taken == 0 and len(found.epochs) == 1


def test_keys_tell_tensors_and_values_apart():
    x = torch.arange(4)
    keys = [trainings.key_of(*parts) for parts in ((x,), (x.float(),), (x.view(2, 2),), (x + 1,), (x, 1), (x, "1"), ())]
    keys += [trainings.key_of(one) for one in (x.bfloat16(), x.bool(), x[:0], x[0])]
    assert len(set(keys)) == len(keys) and trainings.key_of(x, 1) == trainings.key_of(x.clone(), 1)


def assay_of(place):
    """A small encoder and an assay there, and the command to fine-tune the one on the other."""
    save_pretrained(place / "small", pretrained().encoder, config=CONFIG.encoder, readout="mean", card=CARD)
    rows = [f"{text},{int('N' in text)}" for text in CHAINS]
    (place / "assay.csv").write_text("\n".join(["smiles,amine", *rows]) + "\n", encoding="utf-8")
    asked = ["finetune", "small", "assay.csv", "--target", "amine", "--split", "random", "--quiet", "--no-baselines"]
    return [*asked, "--epochs", "2", "--seeds", "2", "--threads", "1"]


def test_the_command_goes_on(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = assay_of(tmp_path)
    code, text = command(*asked, "-o", "whole")
    assert code == 0, text
    assert not (tmp_path / "whole/trainings").exists()
    code, text = command(*asked, "-o", "model", "--resume")
    assert code == 2 and "nothing to resume: model holds no training that had ended" in text
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
    for other in (["--lr", "0.1"], ["--epochs", "3"]):
        code, text = command(*asked, *other, "-o", "model", "--resume")
        assert code == 2 and "the trainings in model/trainings are of other options, data, versions" in text
    assert calls == [0, 1] and len(list((tmp_path / "model/trainings").iterdir())) == 1
    code, text = command(*asked, "-o", "model", "--resume")
    assert code == 0 and calls == [0, 1, 1] and "1 of 2 trainings had ended before" in text, text
    code, text = command(*asked, "-o", "model", "--resume")
    assert code == 2 and "nothing to resume: model holds a finished model" in text
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("whole", "model")]
    assert names[0] == names[1] and "trainings" not in names[0]
    for name in ("predictions.csv", "model.safetensors", "report.md"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


@pytest.mark.parametrize("name", ["notes.txt", "best.pt", "0123456789abcdef.pt.txt", ""])
def test_trainings_that_are_not_ours_stay(tmp_path, name):
    file = tmp_path / "mine/trainings" / name  # without a name the place of the folder is taken by a file
    file.parent.mkdir(parents=True)
    file.write_text("precious", encoding="utf-8")
    for given in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        with pytest.raises(ValueError, match="mine holds something else than a fine-tuned model"):
            cli_molecules.check_folder(tmp_path / "mine", **given)
    cli_molecules.clear_trainings(tmp_path / "mine")
    assert file.read_text(encoding="utf-8") == "precious"


def test_a_resumed_run_replaces_no_model_that_came_meanwhile(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = assay_of(tmp_path)
    train = predictor.train

    def stopped(*args, **keywords):
        if keywords["seed"] == 1:
            raise RuntimeError("the power went")
        return train(*args, **keywords)

    def meanwhile(*args, **keywords):
        (tmp_path / "model/report.md").write_text("of another process", encoding="utf-8")
        return train(*args, **keywords)

    monkeypatch.setattr(predictor, "train", stopped)
    assert command(*asked, "-o", "model")[0] == 2
    monkeypatch.setattr(predictor, "train", meanwhile)
    code, text = command(*asked, "-o", "model", "--resume")
    assert code == 2 and "report.md was written while this model trained" in text
    assert (tmp_path / "model/report.md").read_text(encoding="utf-8") == "of another process"
    (tmp_path / "model/report.md").unlink()
    monkeypatch.setattr(predictor, "train", train)
    assert command(*asked, "-o", "model", "--resume")[0] == 0
    monkeypatch.setattr(predictor, "train", stopped)  # and one that began with --overwrite replaces the model of before
    assert command(*asked, "-o", "model", "--overwrite", "--epochs", "3", "--scratch")[0] == 2
    assert (tmp_path / "model/predictor.json").is_file()
    monkeypatch.setattr(predictor, "train", train)
    code, text = command(*asked, "-o", "model", "--resume", "--epochs", "3", "--scratch")
    assert code == 0 and "1 of 4 trainings had ended before" in text, text
    assert json.loads((tmp_path / "model/report.json").read_text(encoding="utf-8"))["settings"]["epochs"] == 3
