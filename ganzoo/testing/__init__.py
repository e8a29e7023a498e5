"""Contract checks for plugin authors: the same functions that ganzoo's own plugins are tested by.

`check_loss(MyLoss)` raises ContractError at the first broken promise; `checks("loss", MyLoss)` lists them one by one,
and `parametrize_with_checks` gives each a test of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import promises
from .promises import ContractError
from .tiny import Factory, TinyArchitecture, TinyLoss, tiny_data, tiny_trainer

__all__ = [
    "Check",
    "ContractError",
    "TinyArchitecture",
    "TinyLoss",
    "check_architecture",
    "check_dataset",
    "check_game",
    "check_loss",
    "check_regularizer",
    "checks",
    "parametrize_with_checks",
    "tiny_data",
    "tiny_trainer",
]

COMMON = (promises.documented, promises.options_are_typed)
TRAINING = (
    promises.only_the_acting_player_moves,
    promises.resume_is_bit_exact,
    promises.accumulation_equals_the_batch,
    promises.trains_in_bf16,
)
ALONE: Mapping[str, tuple[Callable[[Any], None], ...]] = {
    "architecture": (
        promises.builds_somewhere,
        promises.samples_fit_the_spec,
        promises.logits_are_one_row_a_sample,
        promises.gradients_reach_everything,
        promises.discriminator_is_differentiable_twice,
        promises.one_sample_works,
        promises.state_round_trip,
        promises.runs_in_bf16,
    ),
    "loss": (promises.both_sides_are_scalars,),
    "regularizer": (promises.penalties_are_scalars, promises.views_keep_the_shape),
    "game": (promises.teams_own_the_networks,),
}
TRAINED: Mapping[str, Callable[[Factory], promises.Build]] = {
    "architecture": promises.as_architecture,
    "loss": promises.as_loss,
    "regularizer": promises.as_regularizer,
    "game": promises.as_game,
}
OPENED = (promises.batches_fit_the_spec, promises.samples_stand_at_their_index)


@dataclass(frozen=True)
class Check:
    """One promise of one plugin."""

    kind: str
    promise: str  # such as resume-is-bit-exact
    says: str  # the promise in a sentence
    run: Callable[[], None]
    excuse: str = ""  # why the plugin says that it cannot keep it: its class attribute `expected_failures`


def checks(kind: str, plugin: Factory) -> Iterator[Check]:
    """Yield every promise of an architecture, loss, regularizer or game (its class), or of an opened dataset."""
    excuses: Mapping[str, str] = getattr(plugin, "expected_failures", {})

    def check(promise: Callable[[Any], None], subject: Callable[[], Any]) -> Check:
        name = promise.__name__.replace("_", "-")
        return Check(kind, name, (promise.__doc__ or "").strip(), lambda: promise(subject()), excuses.get(name, ""))

    if kind == "dataset":
        yield from (check(promise, lambda: plugin) for promise in OPENED)
        return
    yield from (check(promise, lambda: plugin) for promise in (*COMMON, *ALONE[kind]))
    yield from (check(promise, lambda: TRAINED[kind](plugin)) for promise in TRAINING)


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
