"""What a recipe may say of an optimizer, and what is refused before a round is played."""

from __future__ import annotations

import pytest
import torch

from ganzoo.errors import RecipeError
from ganzoo.optimizers import OPTIMIZERS, build


def made(name, lr=1e-3, **options):
    return build(name, options, [torch.nn.Parameter(torch.ones(3))], lr)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_built_and_steps(name):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = build(name, {}, [parameter], 0.1)
    parameter.sum().backward()
    optimizer.step()
    assert (parameter < 1).all()


def test_options_become_what_torch_takes():
    optimizer = made("adam", betas=[0, 1e-3], eps=1, amsgrad=True)
    group = optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.0, 1e-3), 1.0, True)


@pytest.mark.parametrize(
    ("name", "lr", "options", "message"),
    [
        ("adma", 1e-3, {}, "'adma' is not known; did you mean 'adam'"),
        ("adam", 1e-3, {"beta": [0.5, 0.9]}, "has no option 'beta'; did you mean 'betas'"),
        ("adam", 1e-3, {"fused": True}, "has no option 'fused'"),
        ("adam", 1e-3, {"betas": [0.5]}, "'betas' must be a list of 2 numbers"),
        ("adam", 1e-3, {"betas": [0.5, 0.9, 0.99]}, "'betas' must be a list of 2 numbers"),
        ("adam", 1e-3, {"betas": 0.5}, "'betas' must be a list of 2 numbers"),
        ("adam", 1e-3, {"eps": [1e-8]}, "'eps' must be a single value"),
        ("adam", 1e-3, {"eps": "1e-8"}, "must be a finite number"),
        ("adam", 1e-3, {"eps": float("nan")}, "must be a finite number"),
        ("adam", 1e-3, {"eps": 10**400}, "must be a finite number"),
        ("adam", 1e-3, {"betas": [0.5, 1.5]}, "Invalid beta"),
        ("adam", -1e-3, {}, "Invalid learning rate"),
        ("sgd", 1e-3, {"nesterov": True}, "Nesterov momentum requires a momentum"),
    ],
)
def test_what_torch_would_not_take_is_an_error_of_the_recipe(name, lr, options, message):
    with pytest.raises(RecipeError, match=message):
        made(name, lr, **options)
