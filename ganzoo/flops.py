"""Counting the arithmetic that really runs: convolutions and matrix products as they are dispatched, in every backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def _convolution(x: Tensor, weight: Tensor, made: Sequence[int], transposed: bool) -> int:
    """Operations of a convolution; the weight has [out, in / groups, ...], a transposed one [in, out / groups, ...]."""
    wide = prod(x.shape) if transposed else prod(made)  # each number of this map meets weight[i] once
    return 2 * wide * prod(weight.shape[1:])


def _forward(args: Sequence[Any], made: Tensor) -> int:
    return _convolution(args[0], args[1], made.shape, bool(args[6]))


def _backward(args: Sequence[Any], made: Sequence[Tensor | None]) -> int:
    """Either gradient costs what the forward pass does; `made` says which were computed."""
    gradient, x, weight, transposed = args[0], args[1], args[2], bool(args[7])
    return _convolution(x, weight, gradient.shape, transposed) * sum(one is not None for one in made[:2])


def _matrix_vector(matrix: Tensor) -> int:
    return 2 * matrix.numel()


# torch's own formulas forget that a group sees its own channels only, and have none for a matrix times a vector
COUNTED: Mapping[Any, Callable[[Sequence[Any], Any], int]] = {
    aten.convolution: _forward,
    aten._convolution: _forward,
    aten.convolution_backward: _backward,
    aten.mv: lambda args, made: _matrix_vector(args[0]),
    aten.addmv: lambda args, made: _matrix_vector(args[1]),
}


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations of convolutions and matrix products while it is active; one multiply-add is two."""

    def __init__(self) -> None:
        super().__init__()
        self.by_function: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Operations so far."""
        return sum(self.by_function.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function and count it."""
        packet = func._overloadpacket
        if packet not in COUNTED and packet not in flop_registry:  # under inference_mode linear and conv2d come whole
            with self:
                inner = func.decompose(*args, **(kwargs or {}))
            if inner is not NotImplemented:
                return inner
        made = func(*args, **(kwargs or {}))
        if packet in COUNTED:
            self.by_function[str(packet)] += COUNTED[packet](args, made)
        elif packet in flop_registry:
            self.by_function[str(packet)] += int(flop_registry[packet](*args, **(kwargs or {}), out_val=made))
        return made
