"""Configs: what is read, what is refused, and the words with which it is refused."""

import subprocess
import sys

import pytest
import yaml

from graphcl.config import Config, ConfigError
from graphcl.read_config import config_names, find_config, load_config, models, parse_config, read_yaml

GOOD = {
    "name": "x",
    "data": {"name": "cora"},
    "encoder": {"name": "gcn"},
    "method": {"name": "grace"},
    "views": [[{"name": "drop_nodes", "rate": 0.2}], []],
}


def refused(values, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(values, "f.yaml")


def test_every_shipped_config_reads_and_dumps_whole():
    assert len(config_names()) >= 11
    for name in config_names():
        config = load_config(name)
        again = parse_config(yaml.safe_load(config.dump()))
        assert again == config


def test_overrides_reach_sections_lists_and_new_keys():
    config = load_config(
        "grace", ["train.epochs=5", "method.tau=0.2", "views.0.0.drop=0.5", "run.dir=out", "train.lr=1e-4"]
    )
    assert (config.train.epochs, config.method.tau, config.views[0][0].drop, config.run.dir) == (5, 0.2, 0.5, "out")
    assert config.train.lr == 1e-4


def test_precision_may_be_a_number():
    config = load_config("grace", ["train.precision=32", "evaluate.finetune.precision=32"])
    assert config.train.precision == config.evaluate.finetune.precision == "32"


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("train.epochs", "is not of the form key=value"),
        ("train.epochs.more=1", "train.epochs is a value, it has no keys"),
        ("views.7.0.rate=0.1", "'7' is no place in a list of 2"),
        ("train.epoch=5", "train: unknown key 'epoch'; did you mean 'epochs'?"),
        ("method.tau=0", "method: tau: input should be greater than 0, got 0"),
        ("method.tau=.nan", "tau: input should be a finite number"),
        ("views.0.0.drop=1.5", r"views.0.0: drop: input should be less than or equal to 1, got 1.5"),
        ("method.name=grce", "unknown name 'grce'; did you mean 'grace'?"),
        ("evaluate.finetune.epoch=1", "evaluate.finetune: unknown key 'epoch'; did you mean 'epochs'?"),
        ("evaluate.finetune.zzz=1", "evaluate.finetune: unknown key 'zzz'; known: epochs, lr, batch_size, freeze"),
        ("train.epochs=true", "train: epochs: should be a number, neither true nor false, got True"),
        ("train.group_lr={views: no}", "train: group_lr: should be a number, neither true nor false, got {'views': Fa"),
        ("encoder.hidden=true", "encoder: hidden: should be a number, neither true nor false, got True"),
        ("data.ratios=[1, true, 0]", "data: ratios: should be a number, neither true nor false, got [1, True, 0]"),
        ("data.ratios=[0.5,0.5]", "data: ratios: should be three numbers, such as [0.8, 0.1, 0.1], got [0.5, 0.5]"),
        ("train.precision=16", "precision: input should be '32', 'bf16-mixed' or '16-mixed'"),
        ("train=[1", "not readable as YAML"),
    ],
)
def test_bad_overrides(override, match):
    with pytest.raises(ConfigError) as caught:
        load_config("grace", [override])
    assert match in str(caught.value)


def test_another_encoder_inherits_only_what_it_has():
    assert "out" in load_config("pcl").encoder.model_dump()
    for name in ("molecule_gin", '"molecule_gin"'):  # JSON is YAML too
        config = load_config("pcl", ["encoder.hidden=16", f"encoder.name={name}"])
        assert (config.encoder.name, config.encoder.hidden) == ("molecule_gin", 16)


def test_a_mistake_is_told_where_it_was_made(tmp_path):
    for overrides, said in (
        (["train.epochs=-1"], "override 'train.epochs=-1': train: epochs: input should be greater than 0"),
        (["train.epochs=3", "method.tau=0"], "override 'method.tau=0': method: tau"),
        (["encoder.name=gnc"], "override 'encoder.name=gnc': encoder: unknown name 'gnc'; did you mean 'gin'?"),
        (["method={name: grce}"], "override 'method={name: grce}': method: unknown name 'grce'"),
        (["views.0.0.name=drop_node"], "override 'views.0.0.name=drop_node': views.0.0: unknown name 'drop_node'"),
        (["train.compile=1", "train.lr=true"], "override 'train.lr=true': train: lr: should be a number"),
        (["encoder={name: gin, hiden: 3}"], "override 'encoder={name: gin, hiden: 3}': encoder: unknown key 'hiden'"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config("grace", overrides)
        assert str(caught.value).startswith(said)
    own = tmp_path / "own.yaml"
    own.write_text(find_config("grace").read_text(encoding="utf-8").replace("tau: 0.4", "tau: -1"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml: method: tau"):
        load_config(own, ["train.epochs=3"])


def test_missing_keys_and_views():
    refused({"name": "x"}, "key 'data' is missing")
    refused({**GOOD, "views": []}, "method 'grace' takes 2 views, got 0")
    refused({**GOOD, "views": "drop_nodes"}, r"views: should be a list: \[one, two\], got 'drop_nodes'$")
    refused({**GOOD, "train": 5}, r"train: should be keys with values: \{key: value\}, got 5$")
    refused({**GOOD, "name": "../x"}, "name: string should match pattern")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_config({**GOOD, "train": {"epoch": 1, "lr": -1}}, "f.yaml")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\na: 2", "line 2: key 'a' was given already in line 1"),
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor for the tag"),
        ("[" * 10_000, "nested more than 40 levels deep"),
        ("{a: " * 10_000, "nested more than 40 levels deep"),
        ("a: &x 1\nb: *x", "aliases"),
        ("1: 2", "key 1 is not text"),
        ("a: [", "not readable as YAML"),
        ("\x00", "not readable as YAML"),
    ],
)
def test_hostile_yaml(text, match):
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "f.yaml")
    assert match in str(caught.value) and str(caught.value).startswith("f.yaml")


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match=r"no config 'grcae'; did you mean 'grace'\?"):
        load_config("grcae")
    with pytest.raises(ConfigError, match=r"no config file 'no/such.yaml'"):
        load_config("no/such.yaml")
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "bin.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="a config is a mapping of keys, got list"):
        load_config(tmp_path / "list.yaml")


def test_config_is_frozen():
    config = parse_config(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3


def test_every_choice_has_one_line_of_help():
    for kind in ("method", "encoder", "views"):
        for name, model in models(kind).items():
            assert model.__doc__ and model.__doc__.strip().endswith("."), name


def test_neither_config_nor_command_line_imports_torch():
    code = "import sys, graphcl.cli, graphcl.read_config as r, graphcl.data.catalogue as c; "
    code += "r.load_config('grace'); c.find('cora'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_json_schema_can_be_made():
    assert "properties" in Config.model_json_schema()


def test_text_that_yaml_reads_as_a_number_is_told_the_way_out():
    for override in ("data.name=2024", "run.dir=2024", "data.targets=[NO]"):
        with pytest.raises(ConfigError, match=r"should be text; .* needs quotes of its own"):
            load_config("graphcl", [override])
    assert load_config("graphcl", ['data.name="2024"']).data.name == "2024"
