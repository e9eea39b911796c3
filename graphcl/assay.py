"""An assay: molecules with measured targets -> split, fine-tuned ensemble, baseline, report, predictions.

They come from a file, or by name from OGB with its split and its Evaluator's score.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphcl.by_target import ADVICE, check_counts, counts, said, scores_by_target, table_of_targets
from graphcl.checkpoint import make_folder, write_whole
from graphcl.config import near
from graphcl.data.catalogue import DATASETS
from graphcl.data.molecule_files import named, read_molecules, task_kinds, write_rejected
from graphcl.data.molecules import MoleculeFeatures, Rejected
from graphcl.data.ogb import OgbMolecules, ogb_molecules, ogb_scores
from graphcl.data.scaffolds import random_scaffold_split, scaffold_split
from graphcl.data.splits import Split, random_split
from graphcl.data.store import GraphStore
from graphcl.evaluate.baselines import ecfp_of_store
from graphcl.evaluate.finetune import Settings
from graphcl.evaluate.probe import linear_probe
from graphcl.evaluate.ridge import ridge
from graphcl.evaluate.scores import METRICS, NAMES, PLAIN, RANKED, Scores
from graphcl.evaluate.tasks import VALUE_METRICS, Judged
from graphcl.hub import Pretrained, PretrainedConfig
from graphcl.molecule_tables import TableWriter
from graphcl.predictor import Ensembled, Predictor, train_predictor, training_hash
from graphcl.runlog import write_environment
from graphcl.trainings import check_there, key_of

SPLITS = ("scaffold", "random_scaffold", "random")
RATIOS = (0.8, 0.1, 0.1)
CLASSES = 10  # so many whole values may be meant as classes
FILES = {
    *("predictor.json", "model.safetensors", "report.json", "report.md", "environment.json"),
    *("predictions.csv", "rejected.csv"),
}
RULES = {"last": "paper: last epoch", "clean": "clean: best epoch on validation"}
STOPPED = "last epoch before --patience stopped it"
HEADS = NAMES | {"ogb_rocauc": "OGB ROC-AUC", "ogb_ap": "OGB AP", "ogb_rmse": "OGB RMSE"}  # ogb_: by OGB's Evaluator


class Assay(NamedTuple):
    """The molecules of a file or of a set of OGB with their labels, and the rows that are none."""

    path: Path  # of OGB the name of the set
    store: GraphStore  # y: [B, T], NaN where unknown
    rejected: list[Rejected]
    targets: tuple[str, ...]
    kind: Literal["classification", "regression"]
    metric: str  # unless another is asked for
    ids: str | None  # column that names the rows
    ogb: OgbMolecules | None = None  # the whole set that it is


class Tuned(NamedTuple):
    """What `tune` made."""

    predictor: Predictor
    split: Split  # rows of the assay's store
    report: dict[str, Any]


def read_assay(
    path: str | Path,
    targets: Sequence[str],
    *,
    smiles: str | None = None,
    ids: str | None = None,
    features: MoleculeFeatures = "benchmark",
    strict: bool = False,
    progress: bool = False,
) -> Assay:
    """The assay of a molecule file; see `read_molecules` for the columns.

    Targets whose known values are all 0 or 1 are classified, others regressed. Raises ValueError for a target with
    fewer than two different values, with two that are not 0 and 1, and for targets of both kinds.
    """
    path = Path(path)
    if not targets or len(set(targets)) < len(targets):
        raise ValueError(
            f"targets must be different columns of {path}, at least one (--target NAME), got "
            f"{', '.join(targets) or 'none'}"
        )
    columns = ["id", "smiles", "split", *value_columns(targets), "reason", *targets]
    for name in targets:
        if columns.count(name) > 1:
            raise ValueError(
                f"{path}: target {name!r} is the name of a column of predictions.csv; rename it in the file"
            )
    store, rejected = read_molecules(
        path, smiles=smiles, targets=targets, ids=ids, features=features, strict=strict, progress=progress
    )
    assert store.y is not None
    for name, y in zip(targets, store.y.unbind(1), strict=True):
        values = y[~y.isnan()].unique().tolist()
        if len(values) < 2:
            only = f"{values[0]:g} wherever it is known" if values else "empty in every row with a molecule"
            raise ValueError(f"{path}: target {name!r} is {only}; there is nothing to learn from it, leave it out")
        if -1 in values and set(values) <= {-1, 0, 1}:
            written = ", ".join(f"{value:g}" for value in values)
            raise ValueError(
                f"{path}: target {name!r} has only the values {written}; write the two classes as 0 and 1, and leave "
                "the cell empty where nothing is known"
            )
        if 2 < len(values) <= CLASSES and all(value.is_integer() for value in values):
            written = ", ".join(f"{value:g}" for value in values)
            warnings.warn(
                f"{path}: target {name!r} has only the values {written} and is learned as a number (regression); if "
                "they are classes, make a column of 0 and 1 for each",
                stacklevel=2,
            )
        if len(values) == 2 and values != [0, 1]:
            low, high = values
            raise ValueError(
                f"{path}: target {name!r} has two values, {low:g} and {high:g}; write 0 and 1 for two classes"
            )
    kinds = dict(zip(targets, task_kinds(store.y), strict=True))
    if len(set(kinds.values())) > 1:
        shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"{path}: targets of both kinds, {shown}; fine-tune one model for each kind")
    kind = next(iter(kinds.values()))
    metric = "roc_auc" if kind == "classification" else "rmse"
    return Assay(path, store, rejected, tuple(targets), kind, metric, ids)


def read_ogb(
    name: str,
    targets: Sequence[str] = (),
    *,
    features: MoleculeFeatures = "ogb",
    strict: bool = False,
    progress: bool = False,
) -> Assay:
    """The assay that a set of OGB ("ogbg-molhiv", ...) is; see `ogb_molecules` for features and rows.

    targets: names of some; none: all. Raises ValueError for targets that it does not have, and as `ogb_molecules` does.
    """
    data, entry = ogb_molecules(name, features, strict=strict, progress=progress), DATASETS[name]
    assert data.store.y is not None
    for target in targets:
        if target not in data.targets:
            near_ones = near(target, data.targets)
            raise ValueError(f"{name} has no target {target!r}{near_ones}; targets: {several(data.targets)}")
    columns = [place for place, target in enumerate(data.targets) if not targets or target in targets]
    store = data.store._like(y=data.store.y[:, columns]) if targets else data.store
    kind: Literal["classification", "regression"] = "classification" if entry.classes else "regression"
    chosen = tuple(data.targets[place] for place in columns)
    return Assay(Path(name), store, data.rejected, chosen, kind, entry.metric, None, data)


def check_split(how: str | None, of_ogb: str | None = None) -> str:
    """The split by its name in the report; None: OGB's own for its set `of_ogb`, scaffold for a file."""
    if of_ogb is not None:
        if how is not None:
            raise ValueError(
                f"{of_ogb} comes with OGB's own split, which its scores are for, got --split {how}; leave it out, or "
                "for another split fine-tune on its mapping/mol.csv.gz, which is a molecule file"
            )
        return "ogb"
    if how is not None and how not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {how!r}{near(how, SPLITS)}")
    return how or "scaffold"


def split_assay(assay: Assay, how: str, seed: int) -> Split:
    """80 % train, 10 % validation, 10 % test of the molecules with a label; seed: of the random ones.

    how: what `check_split` gives. OGB's split is as it is, but for the rows that are no molecules.
    """
    assert assay.store.y is not None and assay.store.smiles is not None
    if how == "ogb":
        assert assay.ogb is not None
        return assay.ogb.split
    rows = (~assay.store.y.isnan()).any(1).nonzero()[:, 0]
    smiles = [assay.store.smiles[i] for i in rows.tolist()]
    if check_split(how) == "random":
        split = random_split(len(rows), seed, ratios=RATIOS)[0]
    else:
        split = scaffold_split(smiles, RATIOS) if how == "scaffold" else random_scaffold_split(smiles, seed, RATIOS)
    return Split(*(rows[part] for part in split))


def tune(
    assay: Assay,
    starts: dict[str, Pretrained | PretrainedConfig],
    *,
    split: str | None = None,
    split_seed: int = 0,
    metric: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    settings: Settings,
    baselines: bool = True,
    device: torch.device | str | None = None,
    tell: Callable[[str, int, int, Judged], None] | None = None,
    keep: Path | None = None,
) -> Tuned:
    """Fine-tune from each start (name -> pretrained encoder, or config to begin from scratch); the first one is kept.

    split: one of `SPLITS`, or None as in `check_split`.  metric: None is the assay's.  keep: as in `train_predictor`;
    ValueError if all that lies there is of other options or data.
    The report has for each start the scores by both rules, mean and standard deviation over the seeds, and those of the
    ensemble, of a set of OGB also by its Evaluator; with `baselines` ECFP4 under logistic regression (values: ridge).
    """
    began = time.perf_counter()
    how = check_split(split, None if assay.ogb is None else assay.ogb.name)
    metric = metric or assay.metric
    if (metric in METRICS) != (assay.kind == "classification"):
        fitting = "roc_auc, prc_auc or accuracy" if assay.kind == "classification" else "rmse or mae"
        raise ValueError(f"{assay.path}: metric {metric!r} is not for a {assay.kind}; use {fitting}")
    parts = split_assay(assay, how, split_seed)
    assert assay.store.y is not None
    labels = counts(assay.store.y, assay.targets, parts, classes=assay.kind == "classification")
    check_counts(labels, metric, str(assay.path), ADVICE if assay.ogb is None else "OGB's split is as it is")
    beside = [baseline(assay, parts, metric)] if baselines else []  # first: what can fail must not fail at the end
    rows: list[dict[str, Any]] = []
    best: dict[str, list[int]] = {}
    by_target: dict[str, Any] = {}
    kept: Predictor | None = None
    taken, earlier = 0, 0.0
    if keep is not None:
        on = torch.device(device or "cpu")
        same = [training_hash(one, assay.store, parts, metric, assay.targets, settings, on) for one in starts.values()]
        check_there(keep, {key_of(one, seed) for one in same for seed in seeds})
    for name, start in starts.items():
        told = None if tell is None else (lambda seed, epoch, judged, name=name: tell(name, seed, epoch, judged))
        predictor, found = train_predictor(
            start,
            assay.store,
            parts,
            metric=metric,
            seeds=seeds,
            targets=assay.targets,
            settings=settings,
            device=device,
            tell=told,
            keep=keep,
        )
        taken, earlier = taken + found.taken, earlier + found.earlier
        kept = kept or predictor
        best[name] = found.epochs
        scored = rows_of(name, found, metric, assay.ogb if scored_by_ogb(assay) else None)
        if found.stopped:
            scored[0]["rule"] = STOPPED
        rows += scored
        measures = [metric, *(other for other in alike(metric) if other != metric)]
        by_target[name] = scores_by_target(assay.store.y, assay.targets, parts.test, found.tested["clean"], measures)
    assert kept is not None
    report = {
        "assay": assay.path.name,
        "kind": assay.kind,
        "targets": list(assay.targets),
        "molecules": len(assay.store),
        "rejected": len(assay.rejected),
        "unlabelled": len(assay.store) - sum(len(numbers) for numbers in parts),
        "split": {"kind": how, "seed": None if how in ("ogb", "scaffold") else split_seed}
        | {part: len(numbers) for part, numbers in parts._asdict().items()},
        "left_out": [name for name, one in zip(assay.targets, kept.config.learned, strict=True) if not one],
        "metric": metric,
        "ogb": None if assay.ogb is None else about_ogb(assay, assay.ogb),
        "scores": rows + beside,
        "counts": labels,
        "by_target": by_target,
        "seeds": list(seeds),
        "taken": taken,
        "settings": settings._asdict(),
        "best_epochs": best,
        "seconds": round(earlier + time.perf_counter() - began, 1),
    }
    return Tuned(kept, parts, report)


def rows_of(name: str, found: Ensembled, metric: str, ogb: OgbMolecules | None) -> list[dict[str, Any]]:
    """Rows of the report: by the two rules, and of the ensemble if there is one."""
    last, clean = (row_of(name, RULES[rule], getattr(found.by_rule, rule)) for rule in ("last", "clean"))
    together = {metric: [value] for metric, value in ({metric: found.together.test} | found.together.also).items()}
    ensemble: dict[str, Any] = {"model": f"{name}, ensemble", "rule": RULES["clean"], "scores": together}
    if ogb is not None:
        mean = found.tested["clean"].mean(0, keepdim=True)
        for row, made in ((last, found.tested["last"]), (clean, found.tested["clean"]), (ensemble, mean)):
            row["scores"] |= {f"ogb_{metric}": values for metric, values in ogb_scores(ogb, made).items()}
    return [last, clean, *([ensemble] if len(found.epochs) > 1 else [])]


def row_of(name: str, rule: str, scores: Scores) -> dict[str, Any]:
    """A row of the report: each metric with its value under every seed."""
    found = {scores.metric: scores.values, **scores.also}
    return {"model": name, "rule": rule, "scores": {metric: list(values) for metric, values in found.items()}}


def scored_by_ogb(assay: Assay) -> bool:
    """OGB's Evaluator takes all targets of a set or none."""
    return assay.ogb is not None and assay.targets == assay.ogb.targets


def about_ogb(assay: Assay, ogb: OgbMolecules) -> dict[str, Any]:
    """What the report says of the Evaluator: whether it scores, rows of the test part, how many are no molecules."""
    missing = len(ogb.test) - len(ogb.split.test)
    return {"scored": scored_by_ogb(assay), "targets": len(ogb.targets), "test": len(ogb.test), "no_molecule": missing}


def baseline(assay: Assay, split: Split, metric: str) -> dict[str, Any]:
    """ECFP4 in 2048 bits under logistic regression or ridge regression, whose strength is chosen on validation."""
    assert assay.store.y is not None
    x, rule = ecfp_of_store(assay.store), "clean: strength chosen on validation"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* are left out of the mean")  # fine-tuning tells their names
        if assay.kind == "classification":
            # Each metric chooses its own strength.
            found = {name: linear_probe(x, assay.store.y, split, metric=name).values for name in alike(metric)}
            scores = {name: list(values) for name, values in found.items()}
            return {"model": "ECFP4 + logistic regression", "rule": rule, "scores": scores}
        row = row_of("ECFP4 + ridge regression", rule, ridge(x, assay.store.y, split, metric=metric))
    return row | {"scores": {key: values for key, values in row["scores"].items() if key in ("rmse", "mae")}}


def alike(metric: str) -> tuple[str, ...]:
    """The metrics that stand in one table with it, itself among them."""
    return next((tuple(kind) for kind in (RANKED, VALUE_METRICS) if metric in kind), (metric,))


def shown(metric: str, values: Sequence[float]) -> str:
    """`71.20 ± 0.80`: mean and sample standard deviation, in percent but for errors."""
    one = Scores("", metric, tuple(values), ())
    by = 1 if plain(metric) else 100
    digits = ".2f" if by == 100 else ".3f" if 0.01 <= abs(one.mean) < 1e5 or one.mean == 0 else ".3g"
    return f"{by * one.mean:{digits}}" + f" ± {by * one.std:{digits}}" * (len(values) > 1)


def plain(metric: str) -> bool:
    """Whether it is printed as it is, and not in percent."""
    return metric.removeprefix("ogb_") in PLAIN


def several(names: Sequence[str]) -> str:
    """Names in a line, the first twenty of many."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the scores on test."""
    metrics = list(dict.fromkeys(metric for row in report["scores"] for metric in row["scores"]))
    head = ["model", "rule", *(f"{HEADS[metric]}{'' if plain(metric) else ' (%)'}" for metric in metrics)]
    return head, [
        [row["model"], row["rule"], *(shown(m, row["scores"][m]) if m in row["scores"] else "" for m in metrics)]
        for row in report["scores"]
    ]


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    head, rows = table(report)
    split = report["split"]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items() if value is not None)
    left_out = report["left_out"]
    how = "OGB's own" if split["kind"] == "ogb" else split["kind"]
    parts = ", ".join(f"{part} {split[part]:,}" for part in Split._fields)
    unlabelled = f", {report['unlabelled']:,} without a label" if report["unlabelled"] else ""
    kinds = "Inactive + active" if report["kind"] == "classification" else "Values"
    labels = [f"{kinds}: {said(numbers)}." for numbers in report["counts"].values()]
    each = table_of_targets(report, shown, HEADS)
    in_units = report["kind"] == "regression" and len(report["targets"]) > 1
    seeds = len(report["seeds"])
    over = f"mean ± standard deviation over {seeds} seeds of the training" if seeds > 1 else "of one training"
    kept = "The saved model is the ensemble. In predictions.csv uncertainty is the standard deviation over its members,"
    if seeds == 1:
        kept = "The saved model is one training. In predictions.csv uncertainty is empty, as that takes several seeds;"
    paragraphs = [
        f"# {several(report['targets'])} of {report['assay']}",
        f"{report['kind'].capitalize()}, {report['molecules']:,} molecules ({report['rejected']:,} rows are none), "
        f"{how} split: {parts}{unlabelled}.",
        *(labels if len(labels) == 1 else []),
        *([f"Left out, as the split cannot teach or score them: {several(left_out)}."] if left_out else []),
        f"Scores on test, {over} on one split:",
        "\n".join(lines),
        *(["Errors are means over the targets, each in its own unit; look at the targets one by one."] * in_units),
        *(["By target, the epoch that is best on validation:", "\n".join(each)] if each else []),
        *([told_of_ogb(report["ogb"])] if report["ogb"] else []),
        f"{kept} similarity is the highest Tanimoto similarity to a training molecule (Morgan fingerprints, radius 2).",
        f"Settings: {settings}.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def told_of_ogb(ogb: dict[str, Any]) -> str:
    """A sentence on the score of OGB's Evaluator."""
    if not ogb["scored"]:
        return f"OGB's Evaluator gives no score here: it takes all {ogb['targets']} targets together."
    return (
        f"OGB's figures are by its Evaluator on all {ogb['test']:,} rows of its test part; rows that are no molecules "
        f"({ogb['no_molecule']:,} of them), and targets left out, count with the mean of the train labels."
    )


def write_folder(folder: str | Path, assay: Assay, tuned: Tuned) -> None:
    """Write the model, report.json, report.md, environment.json, predictions.csv and rejected.csv."""
    folder = Path(folder)
    make_folder(folder)
    write_predictions(folder / "predictions.csv", assay, tuned)
    write_rejected(folder / "rejected.csv", assay.rejected)
    write_whole(folder / "report.json", (json.dumps(tuned.report, indent=1) + "\n").encode())
    write_whole(folder / "report.md", markdown(tuned.report).encode())
    write_environment(folder, seconds=tuned.report["seconds"])
    tuned.predictor.save(folder)  # last: a folder that has it is complete


def value_columns(targets: Sequence[str]) -> list[str]:
    """Names of the columns of `values`."""
    return [column for name in targets for column in (f"{name}_predicted", f"{name}_uncertainty")] + ["similarity"]


def values(predictor: Predictor, store: GraphStore, precision: str = "32") -> Tensor:
    """[B, 2 T + 1]: prediction and uncertainty of each target, and the similarity to the training molecules."""
    assert store.smiles is not None
    found = predictor.predict(store, precision=precision)
    pairs = torch.stack([found.mean, found.std], dim=2).flatten(1)
    return torch.cat([pairs, predictor.similarity(store.smiles)[:, None]], dim=1)


def write_predictions(path: Path, assay: Assay, tuned: Tuned) -> None:
    """A row for every row of the assay's file: id, smiles, split, targets, predictions, reason if it is no molecule."""
    store, count = assay.store, len(assay.store) + len(assay.rejected)
    assert store.smiles is not None and store.names is not None and store.y is not None
    refused = {one.row: one for one in assay.rejected}
    rows = [row for row in range(count) if row not in refused]  # of the file, one for each molecule
    ids, smiles, parts = [""] * count, [""] * count, [""] * count
    reasons: list[str | None] = [None] * count
    for place, row in enumerate(rows):
        ids[row], smiles[row] = store.names[place], store.smiles[place]
    for row, one in refused.items():
        ids[row], smiles[row], reasons[row] = named([one.id], [row], assay.ids)[0], one.smiles, one.reason
    for part, numbers in tuned.split._asdict().items():
        for place in numbers.tolist():
            parts[rows[place]] = part
    columns = value_columns(assay.targets)
    numbers = np.full((count, len(assay.targets) + len(columns)), np.nan, dtype=np.float32)
    numbers[rows] = torch.cat([store.y.float(), values(tuned.predictor, store)], dim=1).numpy()
    with TableWriter(path, ("id", "smiles", "split"), (*assay.targets, *columns)) as writer:
        writer.append((ids, smiles, parts), numbers, reasons)
