"""The configuration as typed, frozen models. Imports neither torch nor the rest; graphcl/read_config.py reads files.

One model a method, an encoder and a view (config_methods.py, config_encoders.py, config_views.py); the fields are the
arguments of the class of the same name, with the same defaults (tests/test_config_matches_code.py compares the two).
`Config.dump()` is complete: it trains the same again.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from graphcl.config_base import ConfigError, Rate, Strict, near
from graphcl.config_encoders import Encoder
from graphcl.config_methods import MethodConfig
from graphcl.config_views import View

__all__ = ["Config", "ConfigError", "DataConfig", "Encoder", "MethodConfig", "Strict", "TrainConfig", "View", "near"]

NUMBER_TOO = BeforeValidator(  # YAML reads precision=32 as a number
    lambda value: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
)


class DataConfig(Strict):
    """Which data, and how it is read and split."""

    name: str
    batch_size: PositiveInt | None = Field(None, description="graphs a batch; none: everything in one batch")
    smiles: str | None = Field(
        None, description="column of the SMILES in a molecule file; none: smiles, however it is written"
    )
    targets: tuple[str, ...] = Field((), description="columns of the labels in a molecule file")
    ids: str | None = Field(None, description="column of the names in a molecule file")
    features: Literal["given", "ones", "degree", "onehot_degree", "ogb"] = "given"
    normalize: bool = Field(False, description="scale every node's features to sum 1")
    split: Literal["public", "random", "few", "scaffold", "random_scaffold", "scaffold_rate", "kfold", "rate"] = (
        "public"
    )
    ratios: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None = Field(
        None, description="shares for training, validation, test; none: 10/10/80 (random), 80/10/10 (scaffolds)"
    )
    repeats: PositiveInt = Field(1, description="splits drawn (random, few, random_scaffold, scaffold_rate) or folds")
    per_class: PositiveInt = Field(20, description="training labels a class under split: few")
    rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="share of the training labels under split: rate, scaffold_rate"
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _one_target(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("ratios", mode="before")
    @classmethod
    def _three_ratios(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, list | tuple) and len(value) == 3):
            raise PydanticCustomError("three", "should be three numbers, such as [0.8, 0.1, 0.1]")
        return value


class TrainConfig(Strict):
    """The loop."""

    epochs: PositiveInt = 200
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimizer steps")
    lr: PositiveFloat = 1e-3
    group_lr: dict[str, PositiveFloat] = Field(
        {}, description="learning rate of a named parameter group (adgcl: views)"
    )
    weight_decay: NonNegativeFloat = 0.0
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(0, description="steps over which the learning rate grows linearly from 0")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are added before a step")
    clip: PositiveFloat | None = Field(None, description="largest gradient norm")
    precision: Annotated[Literal["32", "bf16-mixed", "16-mixed"], NUMBER_TOO] = "32"
    compile: bool = Field(False, description="torch.compile the encoders and projectors; worth a try on a GPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class FineTuneConfig(Strict):
    """How an encoder is fine-tuned where a benchmark asks for it; the defaults are semi-supervised GraphCL's."""

    epochs: PositiveInt = 100
    lr: PositiveFloat = 1e-3
    batch_size: PositiveInt = 128
    freeze: bool = Field(False, description="train the head alone")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="learning rate of each layer as a share of that above it"
    )
    patience: PositiveInt | None = Field(None, description="stop after this many epochs without gain on validation")
    dropout: Rate | None = Field(None, description="of the encoder while it is fine-tuned; none: its own")
    precision: Annotated[Literal["32", "bf16-mixed"], NUMBER_TOO] = "32"
    precise_norm: bool = Field(False, description="batch norm's statistics anew over the train rows at each scoring")
    head: Literal["linear", "mlp"] = Field("linear", description="mlp: batch norm and a hidden layer, as in GraphCL's")


class EvaluateConfig(Strict):
    """How embeddings are scored, and encoders fine-tuned."""

    probe: Literal["linear", "linear-standard", "knn"] = Field(
        "linear", description="linear: on embeddings of one length; linear-standard: on standardised columns"
    )
    metric: Literal["accuracy", "roc_auc", "prc_auc", "rmse", "mae"] = "accuracy"
    finetune: FineTuneConfig = FineTuneConfig()


class RunConfig(Strict):
    """What the run leaves behind."""

    dir: str | None = Field(None, description="folder of the run; none: runs/<name>")
    checkpoint_every: PositiveInt = Field(100, description="optimizer steps between checkpoints")
    keep: PositiveInt = Field(2, description="checkpoints kept")
    log_every: PositiveInt = Field(10, description="optimizer steps between writes of metrics.jsonl")
    tensorboard: bool = False
    threads: PositiveInt | None = Field(None, description="CPU threads; none: OMP_NUM_THREADS, or all cores it may use")


class Config(Strict):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataConfig
    encoder: Encoder
    readout: Literal["sum", "mean", "max"] | None = None
    method: MethodConfig
    views: tuple[tuple[View, ...], ...] = ()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _as_many_views_as_the_method_takes(self) -> Config:
        if len(self.views) != self.method.views:
            raise ValueError(
                f"method '{self.method.name}' takes {self.method.views} views, got {len(self.views)}; "
                "`views` is a list of views, each a list of transforms (see `graphcl augmentations`)"
            )
        return self

    def dump(self) -> str:
        """YAML of every value, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
