"""Units become entries: everything that a leaderboard says of a model, so that anybody can check it."""

from __future__ import annotations

import json
import math
import platform
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..checkpoint import read_header
from ..fidelity import VERSION
from ..flops import FlopCounter
from ..runs import RunFolder
from ..sampling import Model
from .config_hash import config_sha256
from .entry import seal
from .latents import latents
from .protocol import Protocol
from .reference import Reference, Split
from .scoring import Lens, floors
from .sources import Baseline, ModelSource

Units = Mapping[str, Sequence[Mapping[str, Any]]]  # extractor id -> units in the order of the seeds
COPIES = -3.0  # C_T below which samples are closer to the training data than unseen ones
NEAR = 10.0  # points of AuthPct below the held-out value; plain samples are close to much, but rarely to one image alone


def model_entry(
    source: ModelSource, units: Units, found: Sequence[Lens], reference: Reference, protocol: Protocol
) -> dict[str, Any]:
    """Return the sealed entry of a trained model."""
    header = read_header(source.path)
    provenance, counters = header["provenance"], header["counters"]
    raw = tomllib.loads(provenance["recipe"])
    model = source.model(protocol)
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in model.nets.items()}
    judges = model.game.discriminators
    about = {
        "name": model.recipe.name,
        "summary": model.recipe.summary,
        "recipe": provenance["recipe"],
        "config_sha256": config_sha256(raw),
        "plugins": provenance["plugins"],
        "params_g": sum(count for name, count in parameters.items() if name not in judges),
        "params_d": sum(count for name, count in parameters.items() if name in judges),
        "macs_g": macs(source.model(protocol)),
        "imagenet_pretrained": bool(raw.get("provenance", {}).get("imagenet_pretrained", False)),
    }
    checkpoint = {
        "sha256": source.sha256,
        "bytes": source.path.stat().st_size,
        "format": "safetensors",
        "weights": protocol.weights,
        "samples": int(counters["samples"]),
        "selection": "last",
        "url": None,
    }
    engine = provenance["engine"]
    training = {
        "seed": model.recipe.train.seed,
        "images_seen": int(counters["samples"]),
        "rounds": int(counters["rounds"]),
        "wall_s": _training_seconds(source.path, int(counters["samples"])),
        "device": str(engine["device"]),
        "precision": str(engine["precision"]),
        "threads": int(engine["threads"]),
        "command": f"ganzoo train {model.recipe.name}.toml  (the recipe of this entry)",
        "tuning_trials": None,
    }
    speeds = [unit["sample_ms"] for group in units.values() for unit in group if unit.get("sample_ms")]
    speed = min(speeds, default=None)  # of a machine that did other things too, the least is nearest to the truth
    parts = {"kind": "model", "model": about, "checkpoint": checkpoint, "training": training}
    return _entry(parts, units, found, reference, protocol, speed)


def baseline_entry(
    source: Baseline, units: Units, found: Sequence[Lens], reference: Reference, protocol: Protocol
) -> dict[str, Any]:
    """Return the sealed entry of a baseline."""
    about = {
        "name": source.name,
        "summary": source.summary,
        "recipe": "",
        "config_sha256": config_sha256({}),
        "plugins": [],
        "params_g": 0,
        "params_d": 0,
        "macs_g": None,
        "imagenet_pretrained": False,
    }
    parts = {"kind": "baseline", "model": about, "checkpoint": None, "training": None}
    return _entry(parts, units, found, reference, protocol, None)


def failed_entry(
    name: str, reason: str, recipe: str, found: Sequence[Lens], reference: Reference, protocol: Protocol
) -> dict[str, Any]:
    """Return the entry of a model that could not be trained, opened or drawn from."""
    raw = tomllib.loads(recipe)
    about = {
        "name": name,
        "summary": str(raw.get("summary", "")),
        "recipe": recipe,
        "config_sha256": config_sha256(raw),
        "plugins": [],
        "params_g": 0,
        "params_d": 0,
        "macs_g": None,
        "imagenet_pretrained": False,
    }
    parts = {"kind": "model", "model": about, "checkpoint": None, "training": None}
    return _entry(parts, {}, found, reference, protocol, None, reason)


def _entry(
    parts: Mapping[str, Any],
    units: Units,
    found: Sequence[Lens],
    reference: Reference,
    protocol: Protocol,
    speed: float | None,
    reason: str = "",
) -> dict[str, Any]:
    all_units = [unit for group in units.values() for unit in group]
    bad = [unit for unit in all_units if unit["status"] != "scored"]
    status = "failed" if reason else bad[0]["status"] if bad else "scored"
    first = next(iter(units.values()), ())
    scores: dict[str, Any] = {}
    for lens in found if status == "scored" else ():
        scores |= _scores(lens, units[lens.id], reference)
    return seal(
        {
            "schema": "ganzoo.entry/1",
            **parts,
            "status": status,
            "reason": reason or (str(bad[0]["reason"]) if bad else ""),
            "flags": _flags(all_units, scores, found) if parts["kind"] == "model" and status == "scored" else [],
            "dataset": _dataset(reference),
            "protocol": _protocol(protocol),
            "extractors": [_extractor(lens) for lens in found],
            "samples": {
                "n": int(first[0]["samples"]) if first else 0,
                "stream_sha256": {str(unit["seed"]): unit["stream_sha256"] for unit in first if "stream_sha256" in unit},
                "witness_png": [unit["witness_png"] for unit in first[:1] if "witness_png" in unit],
            },
            "scores": scores,
            "env": environment(found),
            "timing": {
                "sample_ms_per_img": None if speed is None else round(speed, 4),
                "benchmark_s": round(sum(unit.get("seconds", 0.0) for unit in all_units), 2) if all_units else None,
            },
            "reported": {"paper_value": _published(parts), "source": _source_of(parts)},
            "verified": [],
        }
    )


def _extractor(lens: Lens) -> dict[str, Any]:
    return {
        "id": lens.id,
        "name": lens.name,
        "layer": str(getattr(lens.extractor, "layer", "features")),
        "dim": int(lens.sides.real.values.shape[1]),
        "ranks": lens.ranks,
        "metric": lens.metric,
    }


def _scores(lens: Lens, units: Sequence[Mapping[str, Any]], reference: Reference) -> dict[str, Any]:
    """Return means over seeds, their errors, and what each must be read beside."""
    found: dict[str, Any] = {}
    for name in units[0]["scores"]:
        values = [unit["scores"][name]["value"] for unit in units]
        errors = [unit["scores"][name]["se"] for unit in units]
        whole = all(value is not None for value in values)
        metric = lens.metric if name == "FD" else name
        score = {
            "mean": math.fsum(values) / len(values) if whole else None,
            "se": _error(values, errors) if whole else None,
            "per_seed": values,
            "per_seed_se": errors,
            "note": next((unit["scores"][name]["note"] for unit in units if unit["scores"][name]["note"]), ""),
        }
        if name == "FD":
            floor, measured = floors(lens, int(units[0]["samples"]), len(reference.train))
            score |= {"floor_theory": floor, "floor_measured": measured}
        if name in lens.heldout:
            score["heldout"] = lens.heldout[name]
        found[f"{metric}/{lens.id}"] = score
    return found


def _error(values: Sequence[float], errors: Sequence[float | None]) -> float | None:
    """Return the standard error of the mean over seeds: the larger of what each seed says and what their spread says."""
    count = len(values)
    spread = torch.tensor(values, dtype=torch.float64).std().item() / math.sqrt(count) if count > 1 else 0.0
    known = [error for error in errors if error is not None]
    within = math.sqrt(math.fsum(error**2 for error in known)) / count if len(known) == count else 0.0
    return max(spread, within) or None


def _flags(units: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], found: Sequence[Lens]) -> list[str]:
    flags = ["collapsed"] if any(unit.get("collapsed") for unit in units) else []
    judge = next(lens for lens in found if lens.ranks)
    copying, authentic = scores.get(f"C_T/{judge.id}", {}), scores.get(f"AuthPct/{judge.id}", {})
    unseen, found_authentic = authentic.get("heldout"), authentic.get("mean")
    if unseen is not None and found_authentic is not None:
        close = copying.get("mean") is not None and copying["mean"] < COPIES
        if found_authentic < unseen / 2 or (close and found_authentic < unseen - NEAR):
            flags.append("memorises")
    return flags


def _dataset(reference: Reference) -> dict[str, Any]:
    def about(split: Split) -> dict[str, Any]:
        return {"split": split.name, "n": len(split), "pixels_sha256": split.pixels_sha256}

    return {
        "name": reference.name,
        **about(reference.train),
        "shape": list(reference.train.shape),
        "fingerprint": reference.train.data.fingerprint,
        "heldout": about(reference.test) if reference.test else None,
    }


def _protocol(protocol: Protocol) -> dict[str, Any]:
    return {
        "id": protocol.id,
        "sha256": protocol.sha256,
        "samples": protocol.samples,
        "seeds": list(protocol.seeds),
        "latents": protocol.latents,
        "labels": protocol.labels,
        "weights": protocol.weights,
        "norm": protocol.norm,
        "truncation": protocol.truncation or None,
        "batch": protocol.batch,
        "precision": "fp32",
        "overrides": list(protocol.overrides),
    }


def environment(found: Sequence[Lens]) -> dict[str, Any]:
    """Return what the numbers were computed with."""
    device = next(iter(found[0].extractor.parameters()), torch.empty(0)).device.type if found else "cpu"
    return {
        "ganzoo": __version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "torch_fidelity": VERSION,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": 1,
        "tf32": False,
    }


def _published(parts: Mapping[str, Any]) -> str | None:
    return _provenance(parts).get("published")


def _source_of(parts: Mapping[str, Any]) -> str | None:
    return _provenance(parts).get("source")


def _provenance(parts: Mapping[str, Any]) -> dict[str, str]:
    raw = tomllib.loads(parts["model"]["recipe"]).get("provenance", {})
    return {key: value for key, value in raw.items() if isinstance(value, str)}


def macs(model: Model) -> int:
    """Return the multiplications of drawing one sample, those of the gradients along which it is drawn included."""
    z = latents(0, 1, model.recipe.latent.size, model.recipe.latent.prior, 0)
    with FlopCounter() as counter:  # torch's own breaks off where a sample is drawn along D's gradient
        model.decode(z, model.labels(1))
    return int(counter.total) // 2


def _training_seconds(checkpoint: Path, samples: int) -> float | None:
    """Return how long a run took, by the speeds in its log; None for a checkpoint without its run folder."""
    log = RunFolder(checkpoint.parent.parent).log_file
    if not log.is_file():
        return None
    seconds, before = 0.0, 0
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("images_per_second") and before < entry["samples"] <= samples:
            seconds += (entry["samples"] - before) / entry["images_per_second"]
            before = entry["samples"]
    return round(seconds, 1) if before else None
