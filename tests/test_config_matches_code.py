"""The config models and the classes that they configure have the same settings, with the same defaults."""

import inspect

import pytest

from augment import AUGMENTATIONS
from graphcl.config import Strict
from graphcl.encoders import ENCODERS
from graphcl.methods import METHODS
from graphcl.read_config import models

PAIRS = [
    (kind, name, classes)
    for kind, classes in (("method", METHODS), ("encoder", ENCODERS), ("views", AUGMENTATIONS))
    for name in sorted({*classes, *models(kind)})
]


def settings_of(model: type[Strict]) -> dict[str, object]:
    fields = {name: field for name, field in model.model_fields.items() if name != "name"}
    return {name: inspect.Parameter.empty if field.is_required() else field.default for name, field in fields.items()}


def arguments_of(kind: str, made: type) -> dict[str, object]:
    """Arguments that are settings: keyword-only ones of a method, all but the generator of a view, and of an encoder
    all but the width of the features."""
    parameters = dict(inspect.signature(made).parameters)
    if kind == "method":
        return {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    return {name: p.default for name, p in parameters.items() if name not in {"generator", "in_dim"}}


@pytest.mark.parametrize(("kind", "name", "classes"), PAIRS, ids=[f"{kind}-{name}" for kind, name, _ in PAIRS])
def test_settings_and_defaults_are_the_same(kind, name, classes):
    assert name in classes, f"graphcl/config_*.py has a model for {kind} {name!r}, the code has no class"
    assert name in models(kind), f"the code has {kind} {name!r}, graphcl/config_*.py has no model for it"
    assert arguments_of(kind, classes[name]) == settings_of(models(kind)[name])


@pytest.mark.parametrize(("kind", "name", "classes"), PAIRS, ids=[f"{kind}-{name}" for kind, name, _ in PAIRS])
def test_the_class_has_the_name_of_its_model(kind, name, classes):
    assert classes[name].__name__ == models(kind)[name].__name__


@pytest.mark.parametrize("name", METHODS)
def test_the_config_knows_how_many_views_a_method_takes(name):
    takes = [part for part in inspect.signature(METHODS[name]).parameters if part in {"view", "view1", "view2"}]
    assert models("method")[name].views == len(takes)
