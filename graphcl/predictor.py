"""A fine-tuned model to predict with: an ensemble over seeds, what it was trained on, and how well it did.

The spread of its members and the similarity to what they were trained on tell how far a prediction can be trusted.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
import safetensors.torch
import torch
from pydantic import NonNegativeInt, PositiveInt, ValidationError
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.DataStructs import BitVectToBinaryText, BulkTanimotoSimilarity, CreateFromBinaryText
from torch import Tensor, nn

from graphcl import __version__, trainings
from graphcl.checkpoint import CheckpointError, fill, make_folder, write_whole
from graphcl.config import ConfigError, Strict
from graphcl.data.molecules import parse_smiles
from graphcl.data.splits import Split
from graphcl.data.store import GraphStore
from graphcl.encoders import Readout
from graphcl.evaluate.finetune import FineTuned, Model, Settings, Trained, by_rule, device_of, set_dropout, train
from graphcl.evaluate.scores import METRICS
from graphcl.evaluate.tasks import Classes, Judged, Task, make_task
from graphcl.hub import Pretrained, PretrainedConfig, make_encoder
from graphcl.process import warn_of_slow_bf16
from graphcl.read_config import config_error

MOLECULES = Settings(batch_size=32, dropout=0.5)  # as GraphCL fine-tunes on molecules
RADIUS, BITS = 2, 2048


class PredictorConfig(Strict):
    """The content of predictor.json: all that is needed to make the models again, and what they predict."""

    format: Literal[1] = 1
    model: PretrainedConfig
    kind: Literal["classification", "regression"]
    targets: tuple[str, ...]
    learned: tuple[bool, ...]  # a target that the split could not teach or score is not predicted
    classes: tuple[int, ...] = ()  # of the one target of a classification
    members: PositiveInt
    molecules: NonNegativeInt  # trained on


class Prediction(NamedTuple):
    """Of an ensemble, both [B, T] on the CPU; NaN for a target that was not learned."""

    mean: Tensor  # probability of 1, or value in the target's unit; with other classes than 0 and 1 [B, K]
    std: Tensor  # sample standard deviation over the members; NaN for one member


class Ensembled(NamedTuple):
    """How well the trainings did."""

    by_rule: FineTuned  # one score a seed
    together: Judged  # the mean of the members' predictions
    epochs: list[int]  # of each member, the one that was best on validation, from 1
    tested: dict[Literal["last", "clean"], Tensor]  # by rule [members, t, T], predictions for the rows of test, float64
    taken: int  # trainings that an earlier call had finished
    earlier: float  # their seconds
    stopped: bool  # whether patience ended one of them before its last epoch


class Predictor(nn.Module):
    """Fine-tuned models that predict together: `predict(store)`, `similarity(smiles)`, `save(folder)`.

    members: one model a seed.  centre, scale: [T] of the targets of a regression.  fingerprints: [M, 256] uint8, the
    bits of the training molecules.
    """

    centre: Tensor
    scale: Tensor
    fingerprints: Tensor

    def __init__(
        self, config: PredictorConfig, members: Iterable[Model], centre: Tensor, scale: Tensor, fingerprints: Tensor
    ) -> None:
        super().__init__()
        self.config, self.members = config, nn.ModuleList(members)
        for name, value in (("centre", centre), ("scale", scale), ("fingerprints", fingerprints)):
            self.register_buffer(name, value)
        self._training: list[Any] = []
        self._known: set[bytes] = set()
        self.eval()

    @property
    def features(self) -> Literal["benchmark", "ogb"]:
        """Which atom and bond features it reads."""
        return getattr(self.config.model.encoder, "features", "benchmark")

    def predict(self, source: GraphStore, *, batch_size: int = 512, precision: str = "32") -> Prediction:
        """Predictions for the graphs of a store, in their order.  precision: "32", or for the encoders "bf16-mixed"."""
        if precision not in ("32", "bf16-mixed"):
            raise ValueError(f"precision must be '32' or 'bf16-mixed', got {precision!r}")
        device = device_of(self)
        warn_of_slow_bf16(precision, device.type)
        found = []
        with torch.no_grad():
            for rows in torch.arange(len(source)).split(batch_size):
                batch = source.batch(rows, device)
                found.append(torch.stack([self.read_out(member(batch, precision)) for member in self.members]).cpu())
        each = torch.cat(found, dim=1)  # [members, B, T]
        std = each.std(0) if len(each) > 1 else torch.full_like(each[0], float("nan"))
        return Prediction(each.mean(0).float(), std.float())

    def read_out(self, out: Tensor) -> Tensor:
        """Outputs of a member as what they predict, float64; NaN for a target that was not learned."""
        made = predicted(out.double(), self.config, self.centre, self.scale)
        if self.config.classes and self.config.classes != (0, 1):
            return made
        learned = torch.tensor(self.config.learned, device=out.device)
        return torch.where(learned, made, float("nan"))

    def similarity(self, smiles: Sequence[str]) -> Tensor:
        """[B], the highest Tanimoto similarity of each molecule to one that was trained on: 1 for one of these.

        Of Morgan fingerprints of radius 2 in 2048 bits. Raises ValueError for what is no molecule.
        """
        if not self._training:
            self._training = [CreateFromBinaryText(row.tobytes()) for row in self.fingerprints.cpu().numpy()]
            self._known = set(map(BitVectToBinaryText, self._training))
        generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
        found = []
        for text in smiles:
            bits = generator.GetFingerprint(parse_smiles(text))
            known = BitVectToBinaryText(bits) in self._known  # else each of 30,000 is compared with all of them
            found.append(1.0 if known else max(BulkTanimotoSimilarity(bits, self._training)))
        return torch.tensor(found, dtype=torch.float32)

    def save(self, folder: str | Path) -> Path:
        """Write model.safetensors and predictor.json; `load_predictor` reads them. Returns the folder."""
        folder = Path(folder)
        make_folder(folder)
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in self.state_dict().items()}
        write_whole(folder / "model.safetensors", safetensors.torch.save(tensors, {"format": "pt"}))
        values = self.config.model_dump(mode="json")
        write_whole(folder / "predictor.json", (json.dumps(values, indent=1) + "\n").encode())
        return folder


def predicted(out: Tensor, config: PredictorConfig, centre: Tensor, scale: Tensor) -> Tensor:
    """Values in their units, or probabilities: [B, T], for one target with classes other than 0 and 1 [B, K]."""
    if config.kind == "regression":
        return centre + scale * out
    if not config.classes:
        return out.sigmoid()
    return out.softmax(1)[:, 1:] if config.classes == (0, 1) else out.softmax(1)


def train_predictor(
    start: Pretrained | PretrainedConfig,
    source: GraphStore,
    split: Split,
    *,
    metric: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    targets: Sequence[str] | None = None,
    settings: Settings = MOLECULES,
    device: torch.device | str | None = None,
    tell: Callable[[int, int, Judged], None] | None = None,
    keep: Path | None = None,
) -> tuple[Predictor, Ensembled]:
    """Fine-tune once for each seed, and keep of each the weights that are best on validation.

    start: a pretrained encoder, or from scratch the config of one.  source: molecules with SMILES; y as `finetune` has
    it.  metric: None is ROC-AUC for labels of 0 and 1, RMSE for other values.  targets: names of the columns of y.
    tell(seed, epoch, scores) is called after every epoch.  keep: folder for trainings that have ended; those that lie
    there of the same start, data, settings and seed are taken from it. Raises ValueError as `finetune` does, and
    without seeds.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different numbers, at least one, got {list(seeds)}")
    if source.y is None or source.smiles is None:
        raise ValueError(f"{source.name} has no {'labels' if source.y is None else 'SMILES'} to fine-tune on")
    settings.checked()
    y = source.y if source.y.dim() == 2 else source.y[:, None]
    names = tuple(targets) if targets is not None else tuple(f"y{i}" for i in range(y.shape[1]))
    if len(names) != y.shape[1]:
        raise ValueError(f"{len(names)} names of targets for {y.shape[1]} columns of labels: {', '.join(names)}")
    if metric is None:
        metric = "roc_auc" if bool(((y == 0) | (y == 1) | y.isnan()).all()) else "rmse"
    kept = start.config if isinstance(start, Pretrained) else start
    if kept.readout is None:
        raise ValueError("the model embeds nodes, it has no readout; to predict for molecules take a graph-level one")
    device = torch.device(device or (device_of(start) if isinstance(start, Pretrained) else "cpu"))
    task = make_task(source.y, len(source), split, metric, "the split", device, names)
    warn_of_slow_bf16(settings.precision, device.type)
    trained, taken, earlier = [], 0, 0.0
    same = "" if keep is None else training_hash(start, source, split, metric, names, settings, device)
    for seed in seeds:
        if isinstance(start, Pretrained):
            encoder = start.encoder
        else:
            with torch.random.fork_rng([]):
                torch.manual_seed(seed)
                encoder = make_encoder(start.encoder, start.in_dim, "from scratch")
        told = None if tell is None else (lambda epoch, judged, seed=seed: tell(seed, epoch, judged))
        readout = Readout(kept.readout)
        found = None
        if keep is not None:

            def make(encoder: Any = encoder, readout: Readout = readout) -> Model:
                model = Model(copy.deepcopy(encoder), readout, task.width, settings.head)
                if settings.dropout is not None:
                    set_dropout(model.encoder, settings.dropout)
                return model

            found = trainings.kept(keep, trainings.key_of(same, seed), make, device)
        if found is not None:
            one, seconds = found
            taken, earlier = taken + 1, earlier + seconds
            for epoch, judged in enumerate(one.epochs):
                if told is not None:
                    told(epoch, judged)
        else:
            began = time.perf_counter()
            one = train(encoder, readout, source, task, settings, seed=seed, device=device, tell=told)
            if keep is not None:
                trainings.keep(keep, trainings.key_of(same, seed), one, time.perf_counter() - began)
        trained.append(one)
    config = PredictorConfig(
        model=kept,
        kind="classification" if metric in METRICS else "regression",
        targets=names,
        learned=tuple(place in task.usable for place in range(len(names))),
        classes=tuple(task.classes.tolist()) if isinstance(task, Classes) and len(names) == 1 else (),
        members=len(trained),
        molecules=len(task.train),
    )
    none = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    centre, scale = none if isinstance(task, Classes) else (task.centre, task.scale)
    smiles = [source.smiles[i] for i in task.train.tolist()]
    predictor = Predictor(config, [one.model for one in trained], centre, scale, fingerprints(smiles)).to(device)
    val = len(split.val)
    tested: dict[Literal["last", "clean"], Tensor] = {
        "last": torch.stack([predictor.read_out(one.last_out[val:]).cpu() for one in trained]),
        "clean": torch.stack([predictor.read_out(one.best_out[val:]).cpu() for one in trained]),
    }
    scores = by_rule(trained, metric, named=not settings.freeze)
    best, stopped = [one.best + 1 for one in trained], any(len(one.epochs) < settings.epochs for one in trained)
    return predictor, Ensembled(scores, _together(trained, task), best, tested, taken, earlier, stopped)


def training_hash(
    start: Pretrained | PretrainedConfig,
    source: GraphStore,
    split: Split,
    metric: str,
    targets: Sequence[str],
    settings: Settings,
    device: torch.device,
) -> str:
    """A hash of all that a training depends on but its seed: start, data, split, settings, versions, threads."""
    encoder: Any = start.encoder if isinstance(start, Pretrained) else nn.Identity()
    config = start.config if isinstance(start, Pretrained) else start
    weights, dropout = encoder.state_dict(), [one.p for one in encoder.modules() if isinstance(one, nn.Dropout)]
    here = (__version__, torch.__version__, device.type, torch.get_num_threads())
    asked = (config.model_dump_json(), dropout, metric, tuple(targets), settings)
    arrays = (source.x, source.src, source.dst, source.edge_attr, source.node_ptr, source.edge_ptr, source.y)
    return trainings.key_of(*here, *asked, tuple(source.smiles or ()), *arrays, *split, *weights, *weights.values())


def _together(trained: Sequence[Trained], task: Task) -> Judged:
    """Scores of the mean prediction, of the epochs that are best on validation."""
    out = torch.stack([one.best_out.double() for one in trained])  # [members, v + t, width]
    if isinstance(task, Classes):
        one_task = task.tasks.shape[1] == 1
        out = out.log_softmax(2).logsumexp(0) if one_task else out.sigmoid().mean(0).logit(eps=1e-12)
    else:
        out = out.mean(0)
    return task.judge(out, also=True)


def fingerprints(smiles: Sequence[str]) -> Tensor:
    """Bits of the molecules' Morgan fingerprints, [M, 256] uint8."""
    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    rows = [bytearray(BitVectToBinaryText(generator.GetFingerprint(parse_smiles(text)))) for text in smiles]
    return torch.stack([torch.frombuffer(row, dtype=torch.uint8) for row in rows])


def load_predictor(folder: str | Path) -> Predictor:
    """What `Predictor.save` wrote, on the CPU. Raises ValueError naming what is missing or damaged."""
    path = Path(folder) / "predictor.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no fine-tuned model (predictor.json); `graphcl finetune` makes one, and `graphcl embed` "
            "takes pretrained ones"
        )
    try:
        config = PredictorConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise config_error(error, str(path), lambda place: list(PredictorConfig.model_fields)) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error!s:.200}") from None
    t, made = len(config.targets), config.model
    if made.readout is None or len(config.learned) != t:
        raise ConfigError(f"{path}: a readout and one entry of `learned` for each of {t} targets are needed")
    width = len(config.classes) if config.classes else t
    members = [
        Model(make_encoder(made.encoder, made.in_dim, str(path)), Readout(made.readout), width)
        for _ in range(config.members)
    ]
    many = t if config.kind == "regression" else 1
    predictor = Predictor(
        config,
        members,
        torch.zeros(many, dtype=torch.float64),
        torch.ones(many, dtype=torch.float64),
        torch.zeros(config.molecules, BITS // 8, dtype=torch.uint8),
    )
    weights = path.with_name("model.safetensors")
    try:
        with safetensors.safe_open(weights, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is missing or damaged ({error}); fine-tune again, or copy it again") from None
    fill(predictor, tensors, str(weights))
    return predictor.eval()
