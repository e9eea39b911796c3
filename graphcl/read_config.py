"""Reading a configuration: YAML and `key=value` overrides into graphcl.config.Config, with errors one can act on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from graphcl.config import Config, ConfigError, Encoder, MethodConfig, Strict, View, near

MAX_DEPTH = 40  # nesting that a config may have; deeper files are refused before they exhaust the stack


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader that refuses a key given twice, aliases, and nesting beyond MAX_DEPTH."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError(
                f"line {self.peek_event().start_mark.line + 1}: YAML aliases (*name) are not used in configs"
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"nested more than {MAX_DEPTH} levels deep; a config needs about six")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConfigError(f"line {key_node.start_mark.line + 1}: key {key!r} is not text")
            if key in seen:
                raise ConfigError(
                    f"line {key_node.start_mark.line + 1}: key {key!r} was given already in line {seen[key]}"
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML as data. Refuses Python tags, keys given twice, aliases and bottomless nesting; names `where`."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message = re.sub(r"\s+", " ", str(error)).replace('in "<unicode string>", ', "")
        raise ConfigError(f"{where}: not readable as YAML: {message}") from None


def config_folder() -> Path:
    """Where the shipped configs lie: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def config_names() -> list[str]:
    """Names of the shipped configs."""
    return _names(config_folder())


def benchmark_names() -> list[str]:
    """Names of the shipped benchmark files."""
    return _names(config_folder() / "benchmarks")


def find_config(name: str) -> Path:
    """Path of a config, given its name (`grace`) or its path (`my/own.yaml`)."""
    return _find(name, config_folder(), "config")


def find_benchmark(name: str) -> Path:
    """Path of a benchmark file, given its name (`graphs`) or its path (`my/study.yaml`)."""
    return _find(name, config_folder() / "benchmarks", "benchmark")


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _find(name: str, folder: Path, what: str) -> Path:
    path, shipped = Path(name), _names(folder)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"no {what} file {name!r}; give a path to a YAML file or one of: {', '.join(shipped)}")
        return path
    if name in shipped:
        return folder / f"{name}.yaml"
    raise ConfigError(f"no {what} {name!r}{near(name, shipped)}; shipped: {', '.join(shipped)}")


def pretrained_names() -> list[str]:
    """Names of the encoders that ship with the package."""
    return sorted(path.parent.name for path in _pretrained().glob("*/config.json"))


def find_pretrained(name: str | Path) -> Path:
    """Folder of a pretrained encoder: a shipped name, a folder of `save_pretrained`, or a run folder."""
    folder, shipped = Path(name).expanduser(), pretrained_names()
    own = (folder / "config.json").is_file() or (folder / "config.yaml").is_file()
    if own and isinstance(name, str) and name in shipped:
        raise ConfigError(f"{name} ships with graphcl, and is a folder here; for the folder write ./{name}")
    if own:
        return folder
    if str(name) in shipped:
        return _pretrained() / str(name)
    if (folder / "predictor.json").is_file():
        raise ConfigError(
            f"{folder} is a fine-tuned model, not an encoder; predict with it: graphcl predict {folder} FILE"
        )
    raise ConfigError(
        f"no pretrained encoder {str(name)!r}{near(str(name), shipped)}; shipped: {', '.join(shipped) or 'none'}; "
        "or give a run folder of `graphcl pretrain`, or a folder with config.json and model.safetensors"
    )


def _pretrained() -> Path:
    return Path(__file__).parent / "pretrained"


def run_config(folder: Path) -> Path:
    """The config.yaml of a run folder."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not a run folder: it has no config.yaml; give the folder that `graphcl pretrain` made"
        )
    return path


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The keys of a YAML file; ConfigError if it cannot be read or is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a {what} is a mapping of keys, got {type(values).__name__}")
    return values


def load_config(name: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Config from a shipped name or a path, with `key=value` overrides (`train.epochs=5`, `views.0.0.rate=0.2`).

    Raises ConfigError, one readable line a mistake.
    """
    path = find_config(str(name))
    values = read_mapping(path, "config")
    # Names first: another encoder or method does not inherit settings that it does not have.
    overrides = list(overrides)
    for override in sorted(overrides, key=lambda text: text.partition("=")[0] not in {"encoder.name", "method.name"}):
        _apply(values, override)
        key = override.partition("=")[0]
        if key in {"encoder.name", "method.name"}:
            kind = key.removesuffix(".name")
            named = models(kind).get(str(values[kind]["name"]))
            if named is not None:
                values[kind] = {field: value for field, value in values[kind].items() if field in named.model_fields}
    return parse_config(values, str(path), overrides)


def parse_config(values: Mapping[str, Any], where: str = "config", overrides: Sequence[str] = ()) -> Config:
    """Config from plain values; the errors begin with `where`, or with the override that brought the value."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise config_error(error, where, overrides=overrides) from None


def config_error(
    error: ValidationError,
    where: str,
    fields_at: Callable[[list[str]], list[str]] | None = None,
    overrides: Sequence[str] = (),
) -> ConfigError:
    """The mistakes in readable words, one a line. fields_at: the keys known at a place; none: of a Config."""
    items = error.errors()
    for item in items:
        if item["type"] == "boolean":  # Strict tells it of the whole section
            item["loc"], item["input"] = (*item["loc"], item["ctx"]["key"]), item["ctx"]["value"]
    # What is wrong inside a list is not counted among its items: that there are too few is then no mistake of its own.
    inside = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    told = [item for item in items if item["type"] != "too_short" or item["loc"] not in inside]
    return ConfigError(
        "\n".join(_readable(item, _origin(item, where, overrides), fields_at or _fields_at) for item in told)
    )


def _origin(item: Any, where: str, overrides: Sequence[str]) -> str:
    """The last override that set the place of the mistake, or what the place is in; else `where`."""
    place = ".".join(_untagged([str(part) for part in item["loc"]]))
    if item["type"] == "union_tag_invalid":  # pydantic tells the place that has the wrong name
        place += ".name"
    for override in reversed(overrides):
        key = override.partition("=")[0]
        if place == key or place.startswith(f"{key}."):
            return f"override {override!r:.200}"
    return where


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value, such as train.epochs=5")
    *parents, last = key.split(".")
    place: Any = values
    for depth, part in enumerate(parents):
        if isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        elif isinstance(place, list):
            place = place[_index(part, place, override)]
        else:
            raise ConfigError(f"override {override!r}: {'.'.join(parents[:depth])} is a value, it has no keys")
    value = read_yaml(text, f"override {override!r}") if text else None
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list):
        place[_index(last, place, override)] = value
    else:
        raise ConfigError(f"override {override!r}: {'.'.join(parents)} is a value, it has no keys")


def _index(part: str, items: list[Any], override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"override {override!r}: {part!r} is no place in a list of {len(items)}; they count from 0")
    return int(part)


_KINDS: dict[str, Any] = {"encoder": Encoder, "method": MethodConfig, "views": View}


def models(kind: str) -> dict[str, type[Strict]]:
    """The models that `name` chooses from in `encoder`, `method` or `views`, by name."""
    union = get_args(_KINDS[kind])[0]
    return {get_args(model.model_fields["name"].annotation)[0]: model for model in get_args(union)}


_SHAPES = {"tuple_type": "a list: [one, two]"} | dict.fromkeys(
    ("dict_type", "model_type", "model_attributes_type"), "keys with values: {key: value}"
)


def _readable(item: Any, where: str, fields_at: Callable[[list[str]], list[str]]) -> str:
    """One pydantic error as `file: place: what is wrong; the way out`."""
    loc = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        *place, key = loc
        fields = fields_at(place)
        hint = near(key, fields) or (f"; known: {', '.join(fields)}" if fields else "")
        return f"{where}: {_place(place)}unknown key {key!r}{hint}"
    if item["type"] == "union_tag_invalid":
        known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
        tag = item["ctx"]["tag"]
        return f"{where}: {_place(loc)}unknown name {tag!r}{near(tag, known) or '; known: ' + ', '.join(known)}"
    if item["type"] == "union_tag_not_found":
        return f"{where}: {_place(loc)}no `name` given (got {item['input']!r:.60})"
    if item["type"] == "missing":
        return f"{where}: {_place(loc[:-1])}key {loc[-1]!r} is missing"
    if item["type"] == "value_error":
        return f"{where}: {_place(loc)}{item['ctx']['error']}"
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] in _SHAPES:
        message = f"should be {_SHAPES[item['type']]}"
    if item["type"] == "string_type":
        message = "should be text; what YAML reads as a number, yes or no needs quotes of its own: '\"2024\"'"
    return f"{where}: {_place(loc[:-1])}{loc[-1] if loc else 'config'}: {message}, got {item['input']!r:.80}"


def _place(loc: list[str]) -> str:
    """`train: ` from ["train"]; a union's tag (encoder.gcn) is left out of the path."""
    kept = _untagged(loc)
    return f"{'.'.join(kept)}: " if kept else ""


def _untagged(loc: list[str]) -> list[str]:
    return [part for i, part in enumerate(loc) if not (i and _is_tag(loc, i))]


def _is_tag(loc: list[str], i: int) -> bool:
    return (loc[0] in {"encoder", "method"} and i == 1) or (
        loc[0] == "views" and not loc[i].isdigit() and loc[i] in models("views")
    )


def _fields_at(place: list[str]) -> list[str]:
    """Keys that are known at a place of the config."""
    if not place:
        return list(Config.model_fields)
    if place[0] in _KINDS:
        tags = [part for part in place if part in models(place[0])]
        return list(models(place[0])[tags[-1]].model_fields) if tags else []
    section: Any = Config
    for part in place:
        section = section.model_fields[part].annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)
