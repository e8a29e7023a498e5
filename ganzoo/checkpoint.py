"""Checkpoints: one safetensors file each, written atomically, verified when read; nothing in them is ever executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import CheckpointError, ResourceError, RunFailed
from .trainer import Trainer

KEY = "ganzoo.checkpoint"
TENSORS = "ganzoo.tensors"
SCHEMA = 1
HEADER_LIMIT = 16_000_000  # bytes; a hostile header is refused before it is parsed


def state_of(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a trainer's whole state: tensors by name, and counters with what optimizers keep as plain numbers."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in trainer.modules().items():
        tensors |= {f"{prefix}/{key}": value for key, value in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for name, player in trainer.players.items():
        for number, entries in player.optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                where = f"optimizer/{name}/{number}/{key}"
                if isinstance(value, Tensor):
                    tensors[where] = value
                elif value is not None:
                    plain[where] = value
    counters = {
        "samples": trainer.samples,
        "rounds": trainer.rounds,
        "turns": {n: p.turns for n, p in trainer.players.items()},
    }
    return tensors, {**counters, "plain": plain}


def fingerprint(trainer: Trainer) -> str:
    """Return a hash of a trainer's whole state: the same on all processes that train together."""
    tensors, counters = state_of(trainer)
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return hashlib.sha256(f"{_digest(whole)} {json.dumps(counters, sort_keys=True)}".encode()).hexdigest()


def restore(trainer: Trainer, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """Put a state into a trainer built from the same recipe; CheckpointError where the two do not fit."""
    try:
        plain, samples, rounds = dict(counters["plain"]), int(counters["samples"]), int(counters["rounds"])
        turns = {name: int(counters["turns"][name]) for name in trainer.players}
    except (KeyError, TypeError, ValueError):
        raise CheckpointError("checkpoint and recipe do not fit: its counters are not those of these players") from None
    for prefix, module in trainer.modules().items():
        load_module(module, prefix, tensors)
    for name, player in trainer.players.items():
        _restore_optimizer(player.optimizer, f"optimizer/{name}/", tensors, plain)
        player.turns = turns[name]
    trainer.samples, trainer.rounds = samples, rounds


def load_module(module: torch.nn.Module, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors under a prefix into a module; every name and shape must match."""
    expected = module.state_dict()
    given = {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
    for key in expected.keys() ^ given.keys():
        raise CheckpointError(f"checkpoint and recipe do not fit: tensor '{prefix}/{key}' is in one of them only")
    for key, value in given.items():
        if value.shape != expected[key].shape or value.dtype != expected[key].dtype:
            raise CheckpointError(
                f"checkpoint and recipe do not fit: tensor '{prefix}/{key}' is {value.dtype}{tuple(value.shape)}, "
                f"not {expected[key].dtype}{tuple(expected[key].shape)}"
            )
    module.load_state_dict(given)


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    parameters = [(entry, group) for group in optimizer.param_groups for entry in group["params"]]
    optimizer.state.clear()
    for where, value in {**tensors, **plain}.items():
        if where.startswith(prefix):
            number, _, key = where.removeprefix(prefix).partition("/")
            if not number.isdecimal() or int(number) >= len(parameters):
                raise CheckpointError(f"checkpoint and recipe do not fit: {where!r} belongs to none of the parameters")
            parameter, group = parameters[int(number)]
            if isinstance(value, Tensor) and value.shape == parameter.shape:  # in the parameter's own memory layout
                value = torch.empty_like(parameter, requires_grad=False, dtype=value.dtype).copy_(value)
            elif isinstance(value, Tensor) and value.ndim:
                raise CheckpointError(
                    f"checkpoint and recipe do not fit: {where!r} is {tuple(value.shape)}, not {tuple(parameter.shape)}"
                )
            elif isinstance(value, Tensor) and group.get("fused"):  # a fused step counts on the device
                value = value.to(parameter.device)
            optimizer.state[parameter][key] = value


def write(path: Path, trainer: Trainer, provenance: Mapping[str, Any]) -> None:
    """Write a checkpoint: temporary file, fsync, rename, so that a crash leaves the old files or the new one, whole.

    Raises RunFailed for weights that are not finite and ResourceError where the disk is full.
    """
    tensors, counters = state_of(trainer)
    tensors = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise RunFailed(f"tensor {key!r} is not finite at {trainer.samples:,} samples; lower the learning rate")
    header = {"schema": SCHEMA, "counters": counters, "provenance": provenance, "sha256": _digest(tensors)}
    # One key only: safetensors writes several in an order of chance, and equal runs must give equal files.
    write_atomically(path, save(tensors, metadata={KEY: json.dumps(header, sort_keys=True)}))


def write_atomically(path: Path, data: bytes) -> None:
    """Put bytes into a file so that a crash leaves either the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ResourceError(
            f"{path} ({len(data):,} bytes) cannot be written: {error.strerror}; make room or choose another --run folder"
        ) from error
    if os.name == "posix":  # the rename itself is on disk only when its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return tensors, counters and provenance of a checkpoint; CheckpointError for anything but a whole one of ours."""
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error}); use an older one") from None
    if _digest(tensors) != header["sha256"]:
        raise CheckpointError(f"checkpoint {path} is damaged: its content does not match its hash; use an older one")
    return tensors, header["counters"], header["provenance"]


def read_header(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, after checking its bounds and without reading any tensor."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(HEADER_LIMIT, path.stat().st_size):
            raise CheckpointError(f"checkpoint {path} is no safetensors file, and ganzoo reads nothing else")
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error.strerror}); check the path") from None
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error}); use an older one") from None
    if KEY not in metadata:
        raise CheckpointError(f"checkpoint {path} was not written by ganzoo; it has no recipe to build networks from")
    try:
        header = json.loads(metadata[KEY])
        complete = isinstance(header, dict) and {"schema", "counters", "provenance", "sha256"} <= header.keys()
    except (ValueError, RecursionError):
        complete = False
    if not complete:
        raise CheckpointError(f"checkpoint {path} has a damaged header; use an older one")
    if header["schema"] != SCHEMA:
        raise CheckpointError(f"checkpoint {path} has schema {header['schema']!r}, not {SCHEMA}; upgrade ganzoo")
    return dict(header)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write tensors with a few facts about them, and the hash of their content, as `read_tensors` wants them."""
    whole = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    header = json.dumps({**facts, "sha256": _digest(whole)}, sort_keys=True)
    write_atomically(path, save(whole, metadata={TENSORS: header}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what `write_tensors` wrote; CheckpointError for anything but a whole file of it."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(TENSORS, "{}"))
            # copies: what is mapped from the file would change with it after it was checked
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None
    if not isinstance(facts, dict) or facts.pop("sha256", "") != _digest(tensors):
        raise CheckpointError(f"{path} is damaged: its content does not match its hash")
    return tensors, facts


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()
