"""Prove without a GPU that code stays on one device.

Every tensor is fake and lies on `meta`; what would copy to the host, or make a tensor elsewhere, raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

T = TypeVar("T")
aten = torch.ops.aten

FACTORIES = {
    *(torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.logspace, torch.ones, torch.zeros),
    *(torch.rand, torch.randint, torch.randn, torch.randperm, torch.scalar_tensor, torch.tensor),
    *(torch.tril_indices, torch.triu_indices),
}


class StrayTensor(AssertionError):
    """A tensor was made without `device=`, or copied to the host."""


class _NoHostSync(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default:
            if args[0].device.type == "meta":
                raise StrayTensor("a value was read from the device (.item(), .tolist(), bool(tensor), int(tensor))")
            with _disable_current_modes():  # of PyG's slice tables, which always lie on the CPU
                return func(*args)
        if func in (aten.cummax.default, aten.cummin.default):
            # torch's own fake asks whether a data-dependent size is zero.
            return torch.empty_like(args[0]), torch.empty_like(args[0], dtype=torch.long)
        if func is aten._to_copy.default and torch.device(kwargs.get("device") or "meta").type == "cpu":
            raise StrayTensor("a tensor was copied to the CPU")
        return func(*args, **kwargs)


class _NoStrayFactory(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("device") is None:
            raise StrayTensor(f"torch.{func.__name__} was called without device=")
        if func in FACTORIES:
            # torch cannot fake a factory that takes a generator for a data-dependent size; no value is drawn anyway.
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"}
        return func(*args, **kwargs)


@contextmanager
def device_clean() -> Iterator[FakeTensorMode]:
    """Within it a host sync, a factory without `device=`, and a mix of devices raise.

    What a data-dependent size needs (`nonzero`, masks) is allowed. Build inputs and BatchNorm modules before, and bring
    them in with `to_meta(value, mode)`. Values are never computed: only shapes, types and devices can be asserted.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with mode, _NoHostSync(), _NoStrayFactory():
        yield mode


def to_meta(value: T, mode: FakeTensorMode) -> T:
    """Fake copy on `meta` of a tensor, a PyG Data or Batch (its slice tables stay on the CPU, as in PyG).

    A module is changed in place.
    """

    def fake(tensor: Tensor) -> Tensor:
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(fake(tensor.data), requires_grad=tensor.requires_grad)
        shape = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return mode.from_tensor(shape, static_shapes=True)  # only sizes that depend on data are symbols

    with _disable_current_modes():
        if isinstance(value, Tensor):
            return fake(value)  # type: ignore[return-value]
        if isinstance(value, nn.Module):
            for module in value.modules():
                for name, parameter in module._parameters.items():
                    module._parameters[name] = None if parameter is None else fake(parameter)  # type: ignore[assignment]
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else fake(buffer)
            return value
        return value.clone().apply(fake)  # type: ignore[attr-defined]
