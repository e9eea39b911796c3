"""graphcl: graph contrastive learning. Names are imported when first used, so that `import graphcl` needs no torch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "load_config": "graphcl.read_config",
    "Config": "graphcl.config",
    "ConfigError": "graphcl.config",
    "build": "graphcl.builder",
    "load_run": "graphcl.builder",
    "fit": "graphcl.trainer",
    "Run": "graphcl.state",
    "load_data": "graphcl.data.sources",
    "GraphStore": "graphcl.data.store",
    "Loader": "graphcl.data.loaders",
    "Split": "graphcl.data.splits",
    "embed": "graphcl.evaluate.embed",
    "linear_probe": "graphcl.evaluate.probe",
    "knn": "graphcl.evaluate.knn",
    "Method": "graphcl.methods.method",
    "METHODS": "graphcl.methods",
    "load_pretrained": "graphcl.hub",
    "list_pretrained": "graphcl.hub",
    "save_pretrained": "graphcl.hub",
    "ModelCard": "graphcl.hub",
    "ENCODERS": "graphcl.encoders",
    "GraphEmbedder": "graphcl.estimators",
    "NodeEmbedder": "graphcl.estimators",
    "GraphClassifier": "graphcl.estimator_predictors",
    "GraphRegressor": "graphcl.estimator_predictors",
    "NodeClassifier": "graphcl.estimator_predictors",
}
__all__ = [*_WHERE, "augment"]


def __getattr__(name: str) -> Any:
    if name == "augment":
        return importlib.import_module("graphcl.augment")
    if name not in _WHERE:
        raise AttributeError(f"module 'graphcl' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
