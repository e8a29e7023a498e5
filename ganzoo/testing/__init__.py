"""Contract checks for plugin authors: the same functions that ganzoo's own plugins are tested by.

`check_loss(MyLoss)` raises ContractError at the first broken promise; `checks("loss", MyLoss)` lists them one by one,
and `parametrize_with_checks` gives each a test of its own. `check_plugin("my-package")` looks at all that an installed
package brings, as `ganzoo check my-package` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checking import Check, Result, checks, results
from .contract import ContractError
from .packages import check_plugin, check_recipe
from .tiny import Factory, TinyArchitecture, TinyLoss, tiny_data, tiny_trainer

__all__ = [
    "Check",
    "ContractError",
    "Result",
    "TinyArchitecture",
    "TinyLoss",
    "check_architecture",
    "check_dataset",
    "check_extractor",
    "check_game",
    "check_loss",
    "check_plugin",
    "check_recipe",
    "check_regularizer",
    "checks",
    "parametrize_with_checks",
    "results",
    "tiny_data",
    "tiny_trainer",
]


def _run(kind: str, plugin: Factory) -> None:
    for check in checks(kind, plugin):
        if not check.excuse:
            check.run()


def check_architecture(plugin: Factory) -> None:
    """Raise ContractError at the first promise that an architecture breaks."""
    _run("architecture", plugin)


def check_loss(plugin: Factory) -> None:
    """Raise ContractError at the first promise that a loss breaks."""
    _run("loss", plugin)


def check_regularizer(plugin: Factory) -> None:
    """Raise ContractError at the first promise that a regularizer breaks."""
    _run("regularizer", plugin)


def check_game(plugin: Factory) -> None:
    """Raise ContractError at the first promise that a game breaks."""
    _run("game", plugin)


def check_dataset(data: Any) -> None:
    """Raise ContractError at the first promise that an opened dataset breaks."""
    _run("dataset", data)


def check_extractor(plugin: Factory) -> None:
    """Raise ContractError at the first promise that a feature extractor breaks."""
    _run("extractor", plugin)


def parametrize_with_checks(kind: str, plugins: Mapping[str, Factory]) -> Any:
    """Return a pytest decorator that runs a test with each `check` of each plugin, under a readable id.

    A promise with an excuse becomes an expected failure that shows its reason.
    """
    import pytest

    cases = [
        pytest.param(
            check,
            id=f"{name}-{check.promise}",
            marks=[pytest.mark.xfail(reason=check.excuse, raises=ContractError, strict=True)] if check.excuse else [],
        )
        for name, plugin in plugins.items()
        for check in checks(kind, plugin)
    ]
    return pytest.mark.parametrize("check", cases)
