"""The optimizers that a recipe may name: PyTorch's own, with their own options, fused where the device has it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .errors import RecipeError, did_you_mean

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
ENGINE = {"params", "lr", "foreach", "fused", "capturable", "differentiable", "maximize"}  # not a recipe's business


def build(
    name: str, options: Mapping[str, Any], parameters: Iterable[nn.Parameter], lr: float, *, recorded: bool = False
) -> torch.optim.Optimizer:
    """Return the named optimizer over these parameters; RecipeError for an unknown name, option or type.

    The steps of a `recorded` one may be replayed from a CUDA graph: its counters and its learning rate lie on the device.
    """
    if name not in OPTIMIZERS:
        raise RecipeError(
            f"optimizer {name!r} is not known{did_you_mean(name, OPTIMIZERS)}; there are: {', '.join(OPTIMIZERS)}"
        )
    kind = OPTIMIZERS[name]
    known = inspect.signature(kind).parameters
    allowed = [key for key in known if key not in ENGINE]
    given: dict[str, Any] = {}
    for key, value in options.items():
        if key not in allowed:
            raise RecipeError(
                f"optimizer {name!r} has no option {key!r}{did_you_mean(key, allowed)} (it has: lr, {', '.join(allowed)})"
            )
        given[key] = _number(f"optimizer {name!r} option {key!r}", value)
        count = len(known[key].default) if isinstance(known[key].default, tuple) else 0
        if count != (len(value) if isinstance(value, list | tuple) else 0):  # torch would take three betas and fail later
            what = f"a list of {count} numbers" if count else "a single value"
            raise RecipeError(f"optimizer {name!r} option {key!r} must be {what}, not {value!r}")
    if "fused" in known:
        given["fused"] = True
    parameters = list(parameters)
    if recorded and "capturable" in known:
        given["capturable"] = True
    rate = torch.tensor(lr, device=parameters[0].device) if recorded else lr
    try:
        return kind(parameters, lr=rate, **given)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"optimizer {name!r}: {error}; correct it in [optimizer]") from None


def _number(what: str, value: Any) -> Any:
    if isinstance(value, list | tuple):  # torch refuses betas of whole numbers
        return tuple(_number(what, entry) for entry in value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return float(value)
    raise RecipeError(f"{what} must be a finite number, a list of them, true or false, not {value!r}")
