"""Where and how precisely to compute: device choice, precision, memory layout."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from .convolutions import products_pay, small_map_products
from .errors import GanzooError, did_you_mean
from .main_memory import free_memory
from .recipe import Train
from .world import ALONE, World

ORDER = ("cuda", "xpu", "mps")  # what "auto" prefers before the processor
KNOWN = ("auto", "cpu", *ORDER)
OWN_PEAK = Path("/proc/self/clear_refs")  # where Linux takes the wish to forget a process's peak
Net = TypeVar("Net", bound=nn.Module)


class DeviceError(GanzooError):
    """A device that is not there, or a precision that it does not have."""

    exit_code = 2


def available() -> list[str]:
    """Return the kinds of devices that can be used here, best first."""
    found = {"cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind in ORDER if found[kind]] + ["cpu"]


def native_bf16(device: torch.device) -> bool:
    """Does the hardware compute in bfloat16 itself, rather than emulate it more slowly than float32?"""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        if hasattr(torch.cpu, "get_capabilities"):
            capabilities = torch.cpu.get_capabilities()
            return any(capabilities.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # torch 2.10
    return device.type == "xpu"


def _own_memory(entry: str) -> int | None:
    """Return the bytes of an entry of this process's table; None where the system has no such table."""
    table = Path("/proc/self/status")
    found = re.search(rf"{entry}:\s+(\d+) kB", table.read_text()) if table.exists() else None
    return int(found[1]) * 1024 if found else None


def _own(device: torch.device, number: str, count: int, world: World) -> int:
    """Return the number of the GPU that belongs to this process of a launch."""
    if number:
        raise DeviceError(f"device '{device}' is one for all; of several processes each takes its own: use {device.type}")
    if world.local >= count:
        raise DeviceError(f"this machine has {count} of {device.type!r}; launch no more than {count} processes on it")
    return world.local


@dataclass(frozen=True)
class Device:
    """A device with the precision that a run uses on it."""

    device: torch.device
    bf16: bool = False
    tf32: bool = False  # may CUDA round what it multiplies in float32 to 10 bits? Otherwise float32 is exact
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"  # of images
    compiles: bool = False  # are costs run through torch.compile?
    records: bool = False  # are rounds replayed from CUDA graphs?
    world: World = ALONE  # the processes that train together, each on a device of its own

    @classmethod
    def choose(cls, name: str = "auto", precision: str = "auto", world: World = ALONE) -> Device:
        """Take the best device there is, or the one that is asked for; DeviceError says what is there instead.

        Of a launch's processes on one machine each takes a GPU of its own.
        """
        kind, _, number = name.partition(":")
        here = available()
        if kind not in KNOWN:
            raise DeviceError(f"device {name!r} is not known{did_you_mean(kind, KNOWN)}; there are: {', '.join(KNOWN)}")
        if kind != "auto" and kind not in here:
            raise DeviceError(f"device {name!r} is not available here; use --device {here[0]} or auto")
        counts = {"cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}
        count = counts[kind]() if kind in counts else int(kind != "auto")
        if number and (not number.isdecimal() or int(number) >= count):
            raise DeviceError(f"device {name!r} does not exist; count from {kind}:0 (see: ganzoo doctor)")
        device = torch.device(here[0] if kind == "auto" else name)
        if world.size > 1 and device.type in counts:
            device = torch.device(device.type, _own(device, number, counts[device.type](), world))
        if precision == "tf32" and device.type != "cuda":
            raise DeviceError(f"precision 'tf32' is a way of CUDA's to multiply, not of {device.type}'s; use fp32 or auto")
        low = precision == "bf16" or (precision == "auto" and native_bf16(device))
        return cls(device, low, precision == "tf32", world=world)

    @classmethod
    def for_training(cls, name: str, train: Train, world: World = ALONE) -> Device:
        """Take a device as `choose` does, with what a recipe says of how to compute there."""
        device = cls.choose(name, train.precision, world)
        if train.graphs == "on" and device.device.type != "cuda":
            raise DeviceError(f"train.graphs means CUDA graphs, which {device.device.type} has not; set it to off")
        # auto turns neither on before a gain with the same training was measured, see decision 0015
        return replace(device, compiles=train.compile == "on", records=train.graphs == "on", layout=train.memory_format)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which networks run."""
        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextmanager
    def numerics(self) -> Iterator[None]:
        """Enter the context in which whole rounds are played: float32 is multiplied as was asked for."""
        if self.device.type != "cuda":
            yield
            return
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self.tf32
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before

    @contextmanager
    def training(self) -> Iterator[None]:
        """Enter the context in which networks run that are being trained: autocast, and cheaper gradients."""
        pays = products_pay(torch.bfloat16 if self.bf16 else torch.float32)
        exchange = pays and self.device.type == "cpu" and not self.compiles
        products = small_map_products() if exchange else nullcontext()
        with self.autocast(), products:
            yield

    def place(self, net: Net) -> Net:
        """Move a network here, with image convolutions in channels-last layout."""
        net.to(self.device)
        if self.channels_last and any(parameter.ndim == 4 for parameter in net.parameters()):
            net.to(memory_format=torch.channels_last)
        return net

    def move(self, x: Tensor) -> Tensor:
        """Move samples here, images in channels-last layout; bytes become [-1, 1]."""
        layout = torch.channels_last if self.channels_last and x.ndim == 4 else torch.preserve_format
        x = x.to(self.device, memory_format=layout, non_blocking=x.is_pinned())
        return x.float().div_(127.5).sub_(1.0) if x.dtype == torch.uint8 else x

    @property
    def precision(self) -> str:
        """What numbers are multiplied in: bf16, tf32 or fp32."""
        return "bf16" if self.bf16 else "tf32" if self.tf32 else "fp32"

    @property
    def channels_last(self) -> bool:
        """Is that the layout of images? By itself where it is the faster one."""
        return self.layout == "channels_last" or (self.layout == "auto" and self.device.type in ("cpu", "cuda", "xpu"))

    @property
    def copies_aside(self) -> bool:
        """Does it copy from pinned memory while it computes?"""
        return self.device.type in ("cuda", "xpu")

    def peak_bytes(self) -> int:
        """Return the most memory used so far: of the device, or of this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if (peak := _own_memory("VmHWM")) is not None:
            return peak
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def forget_peak(self) -> None:
        """Let the peak begin anew with what is held now; where the system has no way to, it stays the most so far."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        elif OWN_PEAK.exists():
            OWN_PEAK.write_text("5", encoding="ascii")  # Linux's number for it

    def reachable_bytes(self, sharing: int = 1) -> int:
        """Return the most that this process could hold now, in the measure of the peak; so many share a CPU's memory."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
        held = _own_memory("VmRSS")
        return free_memory() // sharing + (self.peak_bytes() if held is None else held)

    @property
    def tells_memory(self) -> bool:
        """Is its peak known, and what is left?"""
        return self.device.type in ("cpu", "cuda")

    def synchronize(self) -> None:
        """Wait until everything queued here is done; for timing."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
