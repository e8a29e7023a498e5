"""Entries of a leaderboard: one JSON file for each model, sealed by a hash and checked without opening a checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from .config_hash import config_sha256

SCHEMA = "ganzoo.entry/1"
UNSEALED = ("entry_sha256", "timing", "verified")  # what the hash leaves out: measured times, and what others add
HEX = re.compile(r"[0-9a-f]{64}")
KINDS = ("model", "baseline")
STATUS = ("scored", "diverged", "failed")
SLUG = re.compile(r"[^A-Za-z0-9._+-]+")
CLOSE = 1e-9  # relative difference that a mean of decimal numbers may have
LIMIT = 4_000_000  # bytes of a file; anything larger is no entry

TEXT, COUNT, FLAG = (str,), (int,), (bool,)
NUMBER, TEXTS = (int, float), (list,)
SHAPE: Mapping[str, Any] = {  # every field of an entry, with the types that it may have
    "schema": TEXT, "kind": TEXT, "status": TEXT, "reason": TEXT, "flags": TEXTS, "entry_sha256": TEXT, "verified": (list,),
    "model": {
        "name": TEXT, "summary": TEXT, "recipe": TEXT, "config_sha256": TEXT, "plugins": (list,), "params_g": COUNT,
        "params_d": COUNT, "macs_g": (int, type(None)), "imagenet_pretrained": FLAG,
    },
    "checkpoint": {
        "sha256": TEXT, "bytes": COUNT, "format": TEXT, "weights": TEXT, "samples": COUNT, "selection": TEXT,
        "url": (str, type(None)),
    },
    "training": {
        "seed": COUNT, "images_seen": COUNT, "rounds": COUNT, "wall_s": (int, float, type(None)), "device": TEXT,
        "precision": TEXT, "threads": COUNT, "command": TEXT, "tuning_trials": (int, type(None)),
    },
    "dataset": {"name": TEXT, "split": TEXT, "n": COUNT, "shape": (list,), "pixels_sha256": TEXT, "fingerprint": TEXT,
                "heldout": (dict, type(None))},
    "protocol": {
        "id": TEXT, "sha256": TEXT, "samples": COUNT, "seeds": (list,), "latents": TEXT, "labels": TEXT, "weights": TEXT,
        "norm": TEXT, "truncation": (int, float, type(None)), "batch": COUNT, "precision": TEXT, "overrides": TEXTS,
    },
    "extractors": (list,),
    "samples": {"n": COUNT, "stream_sha256": (dict,), "witness_png": TEXTS},
    "scores": (dict,),
    "env": {
        "ganzoo": TEXT, "torch": TEXT, "torchvision": TEXT, "torch_fidelity": TEXT, "numpy": TEXT, "python": TEXT,
        "os": TEXT, "device": TEXT, "threads": COUNT, "tf32": FLAG,
    },
    "timing": {"sample_ms_per_img": (int, float, type(None)), "benchmark_s": (int, float, type(None))},
    "reported": {"paper_value": (str, type(None)), "source": (str, type(None))},
}  # fmt: skip
EXTRACTOR: Mapping[str, Any] = {"id": TEXT, "name": TEXT, "layer": TEXT, "dim": COUNT, "ranks": FLAG, "metric": TEXT}
SCORE: Mapping[str, Any] = {
    "mean": (int, float, type(None)), "se": (int, float, type(None)), "per_seed": (list,), "per_seed_se": (list,),
    "note": TEXT,
}  # fmt: skip
SCORE_MORE = ("floor_theory", "floor_measured", "heldout")
EMPTY = ("checkpoint", "training")  # null for a baseline or a model without a checkpoint


def canonical_sha256(entry: Mapping[str, Any]) -> str:
    """Return the hash of everything in an entry but times, verifications and the hash itself."""
    kept = {key: value for key, value in entry.items() if key not in UNSEALED}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with its hash."""
    return {**entry, "entry_sha256": canonical_sha256(entry)}


def read(path: Path) -> dict[str, Any]:
    """Return the entry of a file; DataError where it is no JSON object."""
    try:
        if path.stat().st_size > LIMIT:
            raise DataError(f"{path} has more than {LIMIT:,} bytes; an entry is smaller")
        entry = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is no JSON; an entry is what `ganzoo benchmark` writes as *.entry.json") from None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        raise DataError(f"{path} is no entry of schema {SCHEMA}; it is written by `ganzoo benchmark`")
    return entry


def text(entry: Mapping[str, Any]) -> str:
    """Return the entry as its file has it."""
    return json.dumps(entry, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def place(entry: Mapping[str, Any]) -> Path:
    """Return where an entry lies in a leaderboard: dataset, protocol, name with its hash's beginning."""
    data, protocol = entry["dataset"], entry["protocol"]
    folder = _slug(str(data["name"])) or str(data["pixels_sha256"])[:8]
    custom = f"-{str(protocol['sha256'])[:8]}" if protocol["overrides"] else ""  # each change is another protocol
    return Path(folder, _slug(str(protocol["id"]).replace("/", "-")) + custom, f"{stem(entry)}.entry.json")


def stem(entry: Mapping[str, Any]) -> str:
    """Return the beginning of an entry's file name, and of its pictures': of a model, with its checkpoint's hash."""
    name = _slug(str(entry["model"]["name"])) or "model"
    return f"{name}-{entry['checkpoint']['sha256'][:8]}" if entry["checkpoint"] else name


def _slug(name: str) -> str:
    return SLUG.sub("_", name).strip("._")[:80]


def lint(entry: Mapping[str, Any], where: str) -> list[str]:
    """Return everything that is wrong with an entry, each as one sentence; whether its numbers are true, `verify` tells."""
    shape = [f"{where}: {problem}" for problem in _shape(entry, SHAPE, "")]
    if shape:
        return shape  # what has another form cannot be looked into
    return [f"{where}: {problem}" for check in CHECKS for problem in check(entry)]


def _shape(table: Any, shape: Mapping[str, Any], path: str) -> Iterator[str]:
    for key in sorted(table.keys() - shape.keys()):
        yield f"there is an unknown field {path + key!r}"
    for key, kind in shape.items():
        name = path + key
        if key not in table:
            yield f"field {name!r} is missing"
        elif isinstance(kind, Mapping):
            if table[key] is None and name in EMPTY:
                continue
            if isinstance(table[key], dict):
                yield from _shape(table[key], kind, f"{name}.")
            else:
                yield f"field {name!r} must be an object"
        elif not isinstance(table[key], kind) or (isinstance(table[key], bool) and bool not in kind):
            yield f"field {name!r} must be {' or '.join(one.__name__ for one in kind)}, not {type(table[key]).__name__}"
        elif isinstance(table[key], float) and not math.isfinite(table[key]):
            yield f"field {name!r} is not finite"


def _seals(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["schema"] != SCHEMA:
        yield f"the schema is {entry['schema']!r}, not {SCHEMA!r}"
        return
    try:
        matches = entry["entry_sha256"] == canonical_sha256(entry)
    except ValueError:
        yield "a number is not finite"
        return
    if not matches:
        yield "entry_sha256 does not match the content: the entry was edited"


def _hashes(entry: Mapping[str, Any]) -> Iterator[str]:
    found = {
        "model.config_sha256": entry["model"]["config_sha256"],
        "dataset.pixels_sha256": entry["dataset"]["pixels_sha256"],
        "protocol.sha256": entry["protocol"]["sha256"],
        **{f"samples.stream_sha256.{seed}": value for seed, value in entry["samples"]["stream_sha256"].items()},
    }
    if entry["checkpoint"]:
        found["checkpoint.sha256"] = entry["checkpoint"]["sha256"]
    for name, value in found.items():
        if not isinstance(value, str) or not HEX.fullmatch(value):
            yield f"{name} is no SHA-256"


def _recipe(entry: Mapping[str, Any]) -> Iterator[str]:
    try:
        raw = tomllib.loads(entry["model"]["recipe"])
    except (ValueError, RecursionError):
        yield "model.recipe is no TOML"
        return
    if config_sha256(raw) != entry["model"]["config_sha256"]:
        yield "model.config_sha256 is not that of model.recipe"


def _states(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["kind"] not in KINDS:
        yield f"kind {entry['kind']!r} is none of {', '.join(KINDS)}"
    if entry["status"] not in STATUS:
        yield f"status {entry['status']!r} is none of {', '.join(STATUS)}"
    if (entry["status"] == "scored") != bool(entry["scores"]):
        yield f"status is {entry['status']!r} and there are {len(entry['scores'])} scores"
    if entry["status"] != "scored" and not entry["reason"]:
        yield "there is no reason why it has no scores"
    if entry["kind"] == "model" and entry["status"] == "scored" and not (entry["checkpoint"] and entry["training"]):
        yield "a scored model must name its checkpoint and training"
    if entry["checkpoint"] and entry["checkpoint"]["format"] != "safetensors":
        yield "checkpoint.format is not safetensors, and nothing else is opened"


def _extractors(entry: Mapping[str, Any]) -> Iterator[str]:
    for one in entry["extractors"]:
        if not isinstance(one, dict):
            yield "an extractor is no object"
            return
        yield from _shape(one, EXTRACTOR, "extractors.")
    known = {f"@{one.get('id')}": one for one in entry["extractors"]}
    if sum(bool(one.get("ranks")) for one in entry["extractors"]) > 1:
        yield "more than one extractor ranks"
    for key in entry["scores"]:
        metric, _, name = key.partition("/")
        if f"@{name}" not in known:
            yield f"score {key!r} is of an extractor that is not listed"
            continue
        if metric == "FID" and known[f"@{name}"].get("metric") != "FID":
            yield f"score {key!r} is called FID, which is reserved for the verified network"


def _scores(entry: Mapping[str, Any]) -> Iterator[str]:
    seeds = entry["protocol"]["seeds"]
    for key, score in entry["scores"].items():
        if not isinstance(score, dict):
            yield f"score {key!r} is no object"
            continue
        known = {name: score[name] for name in score if name not in SCORE_MORE}
        problems = list(_shape(known, SCORE, f"scores.{key}."))
        yield from problems
        if problems:
            continue
        numbers = [*score["per_seed"], *score["per_seed_se"], *(score.get(name) for name in SCORE_MORE)]
        if not all(one is None or (isinstance(one, int | float) and math.isfinite(one)) for one in numbers):
            yield f"score {key!r} has a number that is not finite"
            continue
        if entry["kind"] == "model" and len(score["per_seed"]) != len(seeds):
            yield f"score {key!r} has {len(score['per_seed'])} seeds, the protocol {len(seeds)}"
        yield from _mean(key, score)
        if score["se"] is not None and score["se"] < 0:
            yield f"score {key!r} has a negative error"


def _mean(key: str, score: Mapping[str, Any]) -> Iterator[str]:
    """A minimum over seeds cannot pass for a mean."""
    values = score["per_seed"]
    if score["mean"] is None:
        if not score["note"]:
            yield f"score {key!r} has no value and no note that says why"
        return
    if not values or None in values:
        yield f"score {key!r} has a mean but not all of its seeds"
        return
    mean = math.fsum(values) / len(values)
    if not math.isclose(score["mean"], mean, rel_tol=CLOSE, abs_tol=1e-12):
        yield f"score {key!r} is {score['mean']!r}, but the mean over its seeds is {mean!r}"


CHECKS: tuple[Callable[[Mapping[str, Any]], Iterator[str]], ...] = (
    _seals, _hashes, _recipe, _states, _extractors, _scores,
)  # fmt: skip
