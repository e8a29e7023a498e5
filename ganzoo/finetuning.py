"""Weights of another training to begin with: what of them fits, by name and shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .checkpoint import read, read_header
from .errors import CheckpointError
from .sampling import find_checkpoint
from .world import World

SHOWN = 6  # names of tensors that a note repeats


@dataclass(frozen=True)
class Beginning:
    """The networks of a checkpoint, and what a new training says of where it began; `notes` tells what fitted."""

    path: str
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, place: str, world: World) -> Beginning:
        """Read a run folder's newest checkpoint, or a checkpoint; of a launch the leading process does it for all.

        Raises CheckpointError where there is none, or it is damaged.
        """
        with world.led() as leads:
            found = _read(place) if leads else None
        path, about = world.leaders(found and found[:2])
        return cls(path, about, world.leaders_tensors(found and found[2]))

    def fill(self, nets: Mapping[str, nn.Module]) -> None:
        """Copy what fits into networks of the same names: averaged weights where there are some, else those as trained.

        Raises CheckpointError where nothing fits.
        """
        fitted = [self._fill(network, net) for network, net in nets.items()]
        if not any(fitted):
            raise CheckpointError(
                f"nothing in {self.path} fits networks {', '.join(sorted(nets))}: no tensor has name and shape of one of "
                "theirs; set train.init to a training with the same architecture"
            )

    def _fill(self, network: str, net: nn.Module) -> int:
        given = self._given(network)
        wanted = {key: (tuple(value.shape), value.dtype) for key, value in net.state_dict().items()}
        fitting = {key: value for key, value in given.items() if wanted.get(key) == (tuple(value.shape), value.dtype)}
        net.load_state_dict(fitting, strict=False)
        note = f"{network} begins with {len(fitting)} of its {len(wanted)} tensors from {self.path}"
        others = [key for key in wanted if key not in fitting]
        if others:
            told = ", ".join(_told(key, wanted[key][0], given) for key in others[:SHOWN])
            note += f"; anew begin {told}" + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
        self.notes.append(note)
        still = [key for key in others if key in dict(net.named_parameters()) and not net.get_parameter(key).requires_grad]
        if still:
            self.notes.append(f"warning: {network} begins anew with {', '.join(still[:SHOWN])} and never trains it")
        return len(fitting)

    def _given(self, network: str) -> Mapping[str, Tensor]:
        return dict(_below(f"ema/{network}/", self.tensors)) or dict(_below(f"net/{network}/", self.tensors))


def _read(place: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    path = find_checkpoint(Path(place).expanduser())
    tensors, counters, _ = read(path)
    about = {"sha256": read_header(path)["sha256"], "samples": counters.get("samples")}
    return str(path), about, {key: value for key, value in tensors.items() if key.startswith(("net/", "ema/"))}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield from ((key.removeprefix(prefix), value) for key, value in tensors.items() if key.startswith(prefix))


def _told(key: str, shape: tuple[int, ...], given: Mapping[str, Tensor]) -> str:
    there = f"{list(given[key].shape)} there" if key in given else "not there"
    return f"{key} {list(shape)} ({there})"
