"""A benchmark file as typed models, and the trainings that it stands for. Imports no torch.

A file names cells (a method by its config, or a baseline), data sets, encoders, seeds and protocols; `expand` makes of
them one Job a training, each with a complete config, so that a mistake is told before anything runs.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from graphcl.config import Config, ConfigError, DataConfig, Strict, TrainConfig, near
from graphcl.data.catalogue import Entry, find
from graphcl.read_config import config_error, find_benchmark, find_pretrained, load_config, read_mapping


def _not_the_files_own(overrides: tuple[str, ...]) -> tuple[str, ...]:
    for override in overrides:
        own = {"data.name": "data", "train.seed": "seeds"}.get(override.partition("=")[0])
        if own is not None:
            a_sweep = ", a sweep by --seeds" if own == "seeds" else ""
            raise ValueError(f"override {override!r}: a benchmark says this in `{own}`{a_sweep}")
    return overrides


def _listed(value: Any) -> Any:
    """A single word or number stands for a list of it alone."""
    return [value] if type(value) in (str, int, float) else value


Listed = BeforeValidator(_listed)
Overrides = Annotated[tuple[str, ...], Listed, AfterValidator(_not_the_files_own)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[str, ...], Listed]
# Of a config's data, what a protocol may change without another training: `split`, and these.
UNTRAINED = "untrained"  # in place of the name of weights
SOME_FAILED = 3  # exit code of a benchmark of which some rows have an error; a crash of Python itself has 1
SPLIT_SETTINGS = set(DataConfig.model_fields) - {
    *("name", "batch_size", "features", "normalize", "split", "smiles", "targets", "ids")
}
SPLIT_KEYS = {f"data.{field}" for field in ("split", *SPLIT_SETTINGS)}
READ = ("edges.csv", "features.csv", "labels.csv", "*.graphml", "*_*.txt", "raw/*_*.txt")  # of a folder of data


class Cell(Strict):
    """A row of the tables: a method by its config, weights that are there already, or a baseline."""

    config: str | None = Field(None, description="shipped config or path; beside the others: whose data settings count")
    baseline: str | None = None
    pretrained: str | None = Field(None, description="a shipped encoder, or a folder; it is scored as it is")
    untrained: Literal["beside", "no", "only"] = Field(
        "beside", description="the encoder untrained: in a column beside, not at all, or as the row itself"
    )
    label: str | None = Field(None, description="name of the row; none: the baseline's, the weights' or the config's")
    overrides: Overrides = ()
    per_data: dict[str, Overrides] = Field({}, description="further overrides on single data sets")

    @model_validator(mode="after")
    def _says_what(self) -> Cell:
        if self.config is None and self.baseline is None and self.pretrained is None:
            raise ValueError("a cell needs `config` (a method), `pretrained` or `baseline`")
        if self.baseline is not None and self.pretrained is not None:
            raise ValueError("a cell is `pretrained` or a `baseline`, not both")
        if self.untrained == "only" and (self.config is None or self.baseline or self.pretrained):
            raise ValueError("untrained: only takes the encoder of `config`, without `pretrained` or `baseline`")
        return self

    @property
    def row(self) -> str:
        """Its name in the tables."""
        return self.label or self.baseline or Path(str(self.pretrained or self.config)).stem


class DataSet(Strict):
    """A data set, and what every cell does differently on it."""

    name: Name
    overrides: Overrides = ()


class Scoring(Strict):
    """A protocol, if need be on other splits than the config's; the encoder is not trained again for it."""

    name: Name
    label: str | None = Field(None, description="column name; none: the protocol's, with its overrides")
    overrides: Overrides = Field((), description="settings of the split only, such as data.per_class=5")

    @field_validator("overrides")
    @classmethod
    def _split_only(cls, overrides: Overrides) -> Overrides:
        for override in overrides:
            key = override.partition("=")[0]
            if key not in SPLIT_KEYS:
                raise ValueError(
                    f"override {override!r} of a protocol may only choose the split ({', '.join(sorted(SPLIT_KEYS))}); "
                    "what changes the training belongs to a cell, a data set or an encoder"
                )
        return overrides

    @property
    def column(self) -> str:
        """Its name in the tables."""
        return self.label or " ".join([self.name, *(text.removeprefix("data.") for text in self.overrides)])


class Limit(Strict):
    """Fewer seeds for some combinations: those that fit every list that is given. No seeds: they are left out."""

    cells: Names | None = None
    data: Names | None = None
    encoders: Names | None = None
    protocols: Names | None = None
    seeds: Annotated[tuple[Seed, ...], Listed]


def _word_is(key: str) -> Any:
    """A plain word in a list stands for a mapping of this key alone."""

    def spelled_out(values: Any) -> Any:
        values = _listed(values)
        if isinstance(values, (list, tuple)):
            return [{key: value} if isinstance(value, str) else value for value in values]
        return values

    return BeforeValidator(spelled_out)


class Benchmark(Strict):
    """A benchmark file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    about: str = Field("", description="a sentence that stands over the report")
    cells: Annotated[tuple[Cell, ...], Field(min_length=1), _word_is("config")]
    data: Annotated[tuple[DataSet, ...], Field(min_length=1), _word_is("name")]
    encoders: dict[str, Overrides] = Field({}, description="by name: overrides such as encoder.name=gin")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), Listed] = (0,)
    protocols: Annotated[tuple[Scoring, ...], Field(min_length=1), _word_is("name")]
    overrides: Overrides = Field((), description="for every cell; those of data, encoder and cell come after")
    limits: tuple[Limit, ...] = ()
    figure: Literal["points", "curves", "pairs", "strengths"] = "points"

    @model_validator(mode="after")
    def _names_fit(self) -> Benchmark:
        names = {
            "cells": [cell.row for cell in self.cells],
            "data": [data.name for data in self.data],
            "encoders": list(self.encoders),
            "protocols": [scoring.column for scoring in self.protocols],
            "seeds": list(map(str, self.seeds)),
        }
        for kind, given in names.items():
            twice = next((name for name in given if given.count(name) > 1), None)
            if twice is not None:
                way_out = "; give one of them a `label`" if kind in {"cells", "protocols"} else ""
                raise ValueError(f"{kind}: {twice!r} stands there twice{way_out}")
        for place, limit in enumerate(self.limits):
            for kind in ("cells", "data", "encoders", "protocols"):
                _known(getattr(limit, kind) or (), names[kind], f"limits.{place}.{kind}")
            _known(map(str, limit.seeds), names["seeds"], f"limits.{place}.seeds")
        for place, cell in enumerate(self.cells):
            _known(cell.per_data, names["data"], f"cells.{place}.per_data")
        return self

    def seeds_of(self, cell: str, data: str, encoder: str | None, protocol: str) -> tuple[int, ...]:
        """The seeds of one combination, under all limits that fit it."""
        kept = self.seeds
        for limit in self.limits:
            pairs = ((limit.cells, cell), (limit.data, data), (limit.encoders, encoder), (limit.protocols, protocol))
            if all(names is None or name in names for names, name in pairs):
                kept = tuple(seed for seed in kept if seed in limit.seeds)
        return kept

    def dump(self) -> str:
        """The file as YAML, without what is left at its default."""
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=120, default_flow_style=None
        )


def _known(names: Iterable[str], known: list[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{where}: {name!r} is not in this file{near(name, known) or '; it has: ' + ', '.join(known)}"
            )


@dataclass(frozen=True)
class Task:
    """One line of the results: the scores of a training (or a baseline) under one protocol."""

    protocol: str
    column: str
    config: Config  # complete, with the split that the protocol takes
    baseline: str | None
    weights: str | None = None  # name and fingerprint of a pretrained encoder, or "untrained"
    beside: bool = True  # the encoder untrained is scored too
    content: str | None = None  # fingerprint of data of one's own

    @cached_property
    def hash(self) -> str:
        """Of what defines the run. An option that is added later changes no hash, as long as it is at its default."""
        return hash_of(self.config, self.baseline, self.weights, self.beside, self.content)

    def agrees(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is this task's, and made with the defaults of today."""
        if row["hash"] != self.hash or row["protocol"] != self.protocol:
            return False
        now = self.config.model_dump(mode="json", exclude=besides(self.baseline, self.weights))
        return _same(now, row["config"])


@dataclass(frozen=True)
class Job:
    """One training, or a baseline, with all protocols that score it. Link prediction has one without its edges."""

    row: str
    data: str
    encoder: str | None
    seed: int
    baseline: str | None
    config: Config
    tasks: tuple[Task, ...]
    pretrained: str | None = None
    weights: str | None = None
    beside: bool = True
    content: str | None = None

    @cached_property
    def hash(self) -> str:
        """Of the training, whatever scores it."""
        whole = hash_of(self.config, self.baseline, self.weights, self.beside, self.content)
        hides = hides_edges(self.tasks[0].protocol)
        return hashlib.sha256(f"{whole} without edges".encode()).hexdigest()[:12] if hides else whole

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.row}{f', {self.encoder}' if self.encoder else ''} on {self.data}, seed {self.seed}"


def besides(baseline: str | None, weights: str | None = None) -> dict[str, Any]:
    """Of a config, what changes no score. A baseline takes the data and the seed alone, as do ready weights."""
    beside: dict[str, Any] = {"name": True, "run": True, "train": {"device": True}, "evaluate": {"probe": True}}
    if baseline is None and weights is None:
        return beside
    beside |= {"train": {field: True for field in TrainConfig.model_fields if field != "seed"}}
    beside |= {"method": True, "views": True}
    return beside if weights == UNTRAINED else beside | {"encoder": True, "readout": True}


def hash_of(
    config: Config,
    baseline: str | None,
    weights: str | None = None,
    beside: bool = True,
    content: str | None = None,
) -> str:
    """A short hash of a run's settings, without those at their defaults."""
    values = config.model_dump(mode="json", exclude_defaults=True, exclude=besides(baseline, weights))
    if not values.get("evaluate", True):  # nothing but the probe, which is the study's business
        del values["evaluate"]
    whole: dict[str, Any] = {"config": values, "baseline": baseline}
    whole |= {"weights": weights} if weights else {}
    whole |= {} if beside else {"untrained": False}
    whole |= {"content": content} if content else {}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache
def fingerprint(name: str) -> str:
    """`name@hash` of pretrained weights, so that better ones under the same name make new rows."""
    folder = find_pretrained(name)
    try:
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{folder}: no weights there: {error.strerror}; a run that did not end has none") from None
    return f"{folder.name}@{digest[:12]}"


def hides_edges(protocol: str) -> bool:
    """Whether it is link prediction, whose encoder is trained on its own and not on every data set."""
    return protocol.startswith("link-")


def content_of(name: str) -> str | None:
    """A short hash of the contents of data of one's own; None for a data set of the catalogue.

    Of a folder: of the names and contents of the files that are read, or of meta.json, which has the checksums of a
    saved store's arrays.
    """
    path = find(name)
    if isinstance(path, Entry):
        return None
    files, parts = [path], []
    if path.is_dir():
        store = path / "meta.json"
        files = [store] if store.is_file() else sorted(file for pattern in READ for file in path.glob(pattern))
    for file in files:
        try:
            state = file.stat()
            parts.append(f"{file.relative_to(path)} {_digest(file, state.st_size, state.st_mtime_ns)}\n")
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


@functools.cache
def _digest(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, read once as long as it has this size and time."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _same(now: Any, then: Any) -> bool:
    """Whether all that both have is equal; options may have come since."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(_same(now[key], then[key]) for key in now.keys() & then.keys())
    if isinstance(now, list) and isinstance(then, list):
        return len(now) == len(then) and all(map(_same, now, then))
    return bool(now == then)


def expand(benchmark: Benchmark) -> list[Job]:
    """All trainings of the file, first seeds first, so that what is stopped early has something of everything.

    Raises ConfigError for a config, an override or a data set that is not known.
    """
    encoders: list[str | None] = [*benchmark.encoders] or [None]
    places = [
        (data, cell, encoder)
        for data in benchmark.data
        for cell in benchmark.cells
        for encoder in ([None] if cell.baseline or cell.pretrained else encoders)
    ]
    made: list[Job] = []
    configs: dict[tuple[str, ...], Config] = {}  # read once for all seeds
    contents = {data.name: content_of(data.name) for data in benchmark.data}

    def config(data: DataSet, cell: Cell, encoder: str | None, split: Overrides, seed: int) -> Config:
        key = (data.name, cell.row, encoder or "", *split)
        if key not in configs:
            configs[key] = config_of(benchmark, cell, data, encoder, split)
        one = configs[key]
        return one.model_copy(update={"train": one.train.model_copy(update={"seed": seed})})

    for seed in benchmark.seeds:
        for data, cell, encoder in places:
            weights = UNTRAINED if cell.untrained == "only" else None
            if cell.pretrained is not None:
                weights = fingerprint(cell.pretrained)
            beside, content = cell.untrained == "beside", contents[data.name]
            tasks = tuple(
                Task(
                    scoring.name,
                    scoring.column,
                    config(data, cell, encoder, scoring.overrides, seed),
                    cell.baseline,
                    weights,
                    beside,
                    content,
                )
                for scoring in benchmark.protocols
                if seed in benchmark.seeds_of(cell.row, data.name, encoder, scoring.column)
            )
            for hides in dict.fromkeys(hides_edges(task.protocol) for task in tasks):
                of_one = tuple(task for task in tasks if hides_edges(task.protocol) is hides)
                whole = config(data, cell, encoder, (), seed)
                known = (cell.row, data.name, encoder, seed, cell.baseline, whole, of_one)
                made.append(Job(*known, cell.pretrained, weights, beside, content))
    return made


def config_of(benchmark: Benchmark, cell: Cell, data: DataSet, encoder: str | None, split: Overrides) -> Config:
    """The complete config of one combination."""
    name = cell.config or next((other.config for other in benchmark.cells if other.config), None)
    if name is None:
        kind = "baseline" if cell.baseline else "pretrained"
        raise ConfigError(
            f"{benchmark.name}: {kind} {cell.row!r} needs a config to take data settings from; give it one for "
            f"such data: {{config: dgi, {kind}: {cell.baseline or cell.pretrained}}} for nodes, else graphcl, molecules"
        )
    entry = find(data.name)  # case does not matter, and must not make another key
    return load_config(
        name,
        [
            f"data.name={json.dumps(entry.name if isinstance(entry, Entry) else data.name)}",
            *benchmark.overrides,
            *data.overrides,
            *(benchmark.encoders[encoder] if encoder else ()),
            *cell.overrides,
            *cell.per_data.get(data.name, ()),
            *split,
        ],
    )


def load_benchmark(name: str | Path) -> Benchmark:
    """Benchmark from a shipped name or a path. Raises ConfigError, one readable line a mistake."""
    path = find_benchmark(str(name))
    values = read_mapping(path, "benchmark")
    try:
        return Benchmark.model_validate(values)
    except ValidationError as error:
        raise config_error(error, str(path), fields_at) from None


def fields_at(place: list[str]) -> list[str]:
    """Keys that are known at a place of the file."""
    kinds: dict[str, type[BaseModel]] = {"cells": Cell, "data": DataSet, "protocols": Scoring, "limits": Limit}
    return list((kinds[place[0]] if place else Benchmark).model_fields)
