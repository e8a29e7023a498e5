"""Which promises each kind of plugin makes, in the order in which they are worth looking at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import DataError
from . import conduct, extractors, promises, training
from .contract import Blame, ContractError
from .tiny import Factory

Promise = Callable[[Any], None]
Group = tuple[Promise, ...]
CHAPTERS: Mapping[str, str] = {  # kind -> section of the guide
    kind: f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}"
    for kind in ("architecture", "loss", "regularizer", "game", "dataset", "reader", "extractor", "recipe")
}

# steps: where a promise of one is broken, those of later steps would only repeat it
COMMON: tuple[Group, ...] = (
    (promises.documented, promises.options_are_typed),  # on these, nothing else depends
    (promises.options_are_keyword_only,),
)
FUNCTION: tuple[Group, ...] = (  # what opens a dataset; data need not come from a paper
    (promises.summarised, promises.options_are_typed),
    (promises.options_are_keyword_only,),
)
TRAINING: tuple[Group, ...] = (
    (training.only_the_acting_player_moves,),
    (training.resume_is_bit_exact, training.accumulation_equals_the_batch, training.trains_in_bf16),
)
ALONE: Mapping[str, tuple[Group, ...]] = {
    "architecture": (
        (promises.builds_somewhere,),
        (conduct.randomness_is_seeded, promises.samples_fit_the_spec, promises.logits_are_one_row_a_sample),
        (
            promises.gradients_reach_everything,
            promises.discriminator_is_differentiable_twice,
            promises.one_sample_works,
            promises.samples_are_judged_alone,
            promises.state_round_trip,
            promises.runs_in_bf16,
        ),
    ),
    "loss": ((promises.both_sides_are_scalars,), (conduct.randomness_is_seeded,), (conduct.state_lives_in_buffers,)),
    "regularizer": (
        (promises.penalties_are_scalars, promises.views_keep_the_shape),
        (conduct.randomness_is_seeded,),
        (conduct.state_lives_in_buffers,),
    ),
    "game": ((promises.teams_own_the_networks,), (conduct.randomness_is_seeded,)),
    "dataset": ((promises.batches_fit_the_spec, promises.samples_stand_at_their_index, conduct.randomness_is_seeded),),
    "extractor": (
        (extractors.features_are_rows,),
        (conduct.randomness_is_seeded,),
        (
            extractors.features_follow_from_one_image,
            extractors.identity_names_the_weights,
            extractors.features_draw_nothing,
            extractors.fitting_is_repeatable,
        ),
    ),
}
TRAINED: Mapping[str, Callable[[Factory], training.Build]] = {
    "architecture": training.as_architecture,
    "loss": training.as_loss,
    "regularizer": training.as_regularizer,
    "game": training.as_game,
}
# what a promise is given where that is not the plugin itself
SUBJECTS: Mapping[tuple[Promise, str], Callable[[Any], Any]] = {
    (conduct.randomness_is_seeded, "architecture"): conduct.of_networks,
    (conduct.randomness_is_seeded, "loss"): conduct.of_loss,
    (conduct.randomness_is_seeded, "regularizer"): conduct.of_regularizer,
    (conduct.randomness_is_seeded, "game"): conduct.of_game,
    (conduct.randomness_is_seeded, "dataset"): conduct.of_dataset,
    (conduct.randomness_is_seeded, "extractor"): extractors.of_extractor,
    (conduct.state_lives_in_buffers, "loss"): conduct.loss_life,
    (conduct.state_lives_in_buffers, "regularizer"): conduct.regularizer_life,
}


@dataclass(frozen=True)
class Check:
    """One promise of one plugin."""

    kind: str
    promise: str  # such as resume-is-bit-exact
    says: str  # the promise in a sentence
    run: Callable[[], None]  # raises ContractError where it is broken
    excuse: str = ""  # why the plugin says that it cannot keep it: its class attribute `expected_failures`
    step: int = 0  # 0 stands on its own; each later one presupposes all before it


@dataclass(frozen=True)
class Result:
    """What became of one promise of one thing."""

    kind: str
    name: str
    promise: str
    result: Literal["ok", "broken", "excused", "unchecked"]
    found: str = ""


def named(promise: Promise) -> str:
    """Return a promise's name: that of its function, in kebab-case."""
    return promise.__name__.replace("_", "-")


def check_of(kind: str, promise: Promise, subject: Callable[[], Any], *, excuse: str = "", step: int = 0) -> Check:
    """Return a promise about something that is built only when it is looked at."""
    says = (promise.__doc__ or "").strip().split("\n")[0]

    def run() -> None:
        with Blame(says, CHAPTERS[kind]):
            promise(subject())

    return Check(kind, named(promise), says, run, excuse, step)


def checks(kind: str, plugin: Factory) -> Iterator[Check]:
    """Yield every promise of an architecture, loss, regularizer, game or extractor (its class), or of an opened dataset."""
    alone = [*([()] if kind == "dataset" else COMMON), *ALONE[kind]]
    yield from _checks(kind, plugin, alone, TRAINING if kind in TRAINED else ())


def function_checks(kind: str, function: Factory) -> Iterator[Check]:
    """Yield what the function of a dataset or reader promises before anything is opened."""
    yield from _checks(kind, function, FUNCTION, ())


def _checks(kind: str, plugin: Any, alone: Sequence[Group], trained: Sequence[Group]) -> Iterator[Check]:
    excuses: Mapping[str, str] = getattr(plugin, "expected_failures", {})
    for step, group in enumerate((*alone, *trained)):
        for promise in group:
            adapt = SUBJECTS.get((promise, kind), _itself) if step < len(alone) else TRAINED[kind]
            subject = functools.partial(adapt, plugin)
            yield check_of(kind, promise, subject, excuse=excuses.get(named(promise), ""), step=step)


def _itself(plugin: Any) -> Any:
    return plugin


def results(name: str, todo: Iterable[Check]) -> Iterator[Result]:
    """Look at promises one by one; after a broken one, those that presuppose it stay unchecked."""
    broken: Check | None = None
    for check in todo:
        if broken is not None and check.step > broken.step > 0:
            yield Result(check.kind, name, check.promise, "unchecked", f"waits for {broken.promise}")
            continue
        result = _result(name, check)
        if result.result == "broken" and (broken is None or not broken.step):
            broken = check
        yield result


def _result(name: str, check: Check) -> Result:
    try:
        check.run()
    except ContractError as error:
        if check.excuse:
            return Result(check.kind, name, check.promise, "excused", check.excuse)
        return Result(check.kind, name, check.promise, "broken", str(error))
    except DataError as error:  # data that is not on this machine
        return Result(check.kind, name, check.promise, "unchecked", str(error))
    if check.excuse:
        found = f"it is kept, though expected_failures says {check.excuse!r}; take that out"
        return Result(check.kind, name, check.promise, "broken", found)
    return Result(check.kind, name, check.promise, "ok")
