"""Checkpoints: bit-exact, refused when anything is wrong with them, never executed, never half-written."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.regularizers.lecam import LeCam
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from safetensors.torch import load_file, save, save_file

from ganzoo import checkpoint
from ganzoo.errors import CheckpointError, ResourceError, RunFailed
from ganzoo.testing.tiny import Onlooker

PROVENANCE = {"recipe": "x = 1\n", "plugins": [], "data": {"fingerprint": "f", "samples": 40}}
OPTIMIZERS = [
    {"name": "adam", "lr": 1e-3, "betas": [0.5, 0.9]},
    {"name": "adam", "lr": 1e-3, "amsgrad": True},
    {"name": "adamw", "lr": 1e-3},
    {"name": "rmsprop", "lr": 1e-3, "momentum": 0.5, "centered": True},
    {"name": "sgd", "lr": 1e-2, "momentum": 0.9},
    {"name": "sgd", "lr": 1e-2},
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "it.safetensors"


@pytest.fixture
def written(make, path):
    """A checkpoint after two rounds."""
    trainer = make(loss=NonSaturating)
    trainer.fit(Onlooker(rounds=2))
    checkpoint.write(path, trainer, PROVENANCE)
    return path


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


def rewrite(path, *, tensors=None, **changes):
    """Write the file anew with other tensors or another header; the hash is that of the tensors."""
    header = json.loads(header_of(path)[checkpoint.KEY])
    tensors = load_file(path) if tensors is None else tensors
    header = {**header, "sha256": checkpoint._digest(tensors), **changes}
    save_file(tensors, path, metadata={checkpoint.KEY: json.dumps(header)})


def refused(path, message):
    """Read and expect one sentence, soon."""
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: "-".join(map(str, one.values())))
def test_what_is_written_is_read_and_goes_on_bit_exactly(make, path, optimizer):
    def build():
        rules = {"norm": SpectralNorm, "lecam": LeCam}
        return make(loss=NonSaturating, regularizers=rules, raw={"optimizer": optimizer, "train": {"samples": 80}})

    whole, first, second = build(), build(), build()
    whole.fit(Onlooker())
    first.fit(Onlooker(rounds=4))
    checkpoint.write(path, first, PROVENANCE)
    tensors, counters, provenance = checkpoint.read(path)
    assert provenance == PROVENANCE
    saved, _ = checkpoint.state_of(first)
    assert tensors.keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in tensors.items())
    checkpoint.restore(second, tensors, counters)
    second.fit(Onlooker())
    expected, actual = checkpoint.state_of(whole), checkpoint.state_of(second)
    assert expected[1] == actual[1]
    assert expected[0].keys() == actual[0].keys()
    different = [key for key, value in expected[0].items() if not torch.equal(value, actual[0][key])]
    assert different == []


def test_equal_states_give_equal_files(make, tmp_path):
    files = []
    for name in ("one", "two"):
        trainer = make(loss=NonSaturating)
        trainer.fit(Onlooker(rounds=3))
        checkpoint.write(tmp_path / name, trainer, PROVENANCE)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_memory_layouts_survive(make, path):
    """What the optimizer keeps lies in memory as its parameter does, channels last too."""

    def build():
        return make(loss=NonSaturating)

    first, second = build(), build()
    weight = first.nets["D"].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    first.fit(Onlooker(rounds=2))
    checkpoint.write(path, first, PROVENANCE)
    checkpoint.restore(second, *checkpoint.read(path)[:2])
    for one, two in zip(first.players["D"].parameters, second.players["D"].parameters, strict=True):
        old, new = first.players["D"].optimizer.state[one], second.players["D"].optimizer.state[two]
        assert old.keys() == new.keys()
        assert one.stride() == two.stride()
        assert {key: value.stride() for key, value in old.items()} == {key: value.stride() for key, value in new.items()}


@pytest.mark.parametrize("cut", [0, 4, 8, 100, 0.5, 0.99, -1])
def test_a_truncated_file_is_refused(written, cut):
    data = written.read_bytes()
    written.write_bytes(data[: int(cut * len(data)) if isinstance(cut, float) else cut])
    refused(written, "is damaged|is no safetensors file")


@pytest.mark.parametrize("where", [0.3, 0.5, 0.9, 0.99999])
def test_a_flipped_bit_among_the_tensors_is_noticed(written, where):
    data = bytearray(written.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    data[8 + length + int(where * (len(data) - 8 - length))] ^= 16
    written.write_bytes(data)
    refused(written, "is damaged: its content does not match its hash")


@pytest.mark.parametrize("position", [3, 9, 200, 2000])
def test_a_flipped_bit_in_the_header_is_an_error_of_ours_or_harmless(written, position):
    data = bytearray(written.read_bytes())
    data[position] ^= 1
    written.write_bytes(data)
    try:
        checkpoint.read(written)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("length", [2**63, 2**40, 20_000_000])
def test_a_header_that_claims_to_be_huge_is_refused_unread(written, length):
    written.write_bytes(struct.pack("<Q", length) + written.read_bytes()[8:])
    refused(written, "is no safetensors file")


class Canary:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("maker", ["pickle", "torch"])
def test_a_pickle_in_disguise_is_refused_and_not_run(tmp_path, maker):
    canary, source, path = tmp_path / "sang", tmp_path / "it.pt", tmp_path / "it.safetensors"
    if maker == "pickle":
        source.write_bytes(pickle.dumps(Canary(canary)))
        pickle.loads(source.read_bytes())
    else:
        torch.save({"weights": Canary(canary)}, source)
        torch.load(source, weights_only=False)
    source.rename(path)
    assert canary.exists(), "this bird does not sing, so the test would prove nothing"
    canary.unlink()
    refused(path, "is no safetensors file|is damaged")
    assert not canary.exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "it.safetensors"
    path.write_bytes(save({"weight": torch.ones(3)}, metadata=metadata))
    refused(path, "was not written by ganzoo")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', "[" * 100_000])
def test_a_damaged_header_of_ours_is_refused(tmp_path, text):
    path = tmp_path / "it.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata={checkpoint.KEY: text})
    refused(path, "has a damaged header")


def test_a_newer_schema_is_refused(written):
    rewrite(written, schema=checkpoint.SCHEMA + 1)
    refused(written, f"has schema {checkpoint.SCHEMA + 1}, not {checkpoint.SCHEMA}; upgrade ganzoo")


@pytest.mark.parametrize("place", ["missing.safetensors", "."])
def test_what_is_not_there_or_no_file_is_refused(tmp_path, place):
    refused(tmp_path / place, "cannot be read")


def changed(tensors, key, value):
    tensors = dict(tensors)
    del tensors[key]
    return tensors if value is None else {**tensors, **value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("net/D/head.bias", None, "'net/D/head.bias' is in one of them only"),
        ("net/D/head.bias", {"net/D/head.bios": torch.ones(1)}, "is in one of them only"),
        ("net/D/head.bias", {"net/D/head.bias": torch.ones(2)}, r"'net/D/head.bias' is torch.float32\(2,\), not"),
        ("net/D/head.bias", {"net/D/head.bias": torch.ones(1).half()}, "is torch.float16"),
        ("optimizer/G/0/exp_avg", {"optimizer/G/0/exp_avg": torch.ones(3)}, r"'optimizer/G/0/exp_avg' is \(3,\), not"),
        ("optimizer/G/0/step", {"optimizer/G/99/step": torch.ones(())}, "belongs to none of the parameters"),
        ("optimizer/G/0/step", {"optimizer/G/x/step": torch.ones(())}, "belongs to none of the parameters"),
    ],
)
def test_tensors_of_other_networks_do_not_fit(make, written, key, value, message):
    rewrite(written, tensors=changed(load_file(written), key, value))
    tensors, counters, _ = checkpoint.read(written)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.restore(make(loss=NonSaturating), tensors, counters)


@pytest.mark.parametrize(
    "counters", [{}, {"samples": "x"}, {"samples": 1, "rounds": 1, "turns": {"D": 1}, "plain": {}}, []]
)
def test_counters_of_other_players_do_not_fit(make, written, counters):
    rewrite(written, counters=counters)
    tensors, read, _ = checkpoint.read(written)
    with pytest.raises(CheckpointError, match="its counters are not those of these players"):
        checkpoint.restore(make(loss=NonSaturating), tensors, read)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_written(make, written, value):
    before = written.read_bytes()
    trainer = make(loss=NonSaturating)
    with torch.no_grad():
        trainer.nets["G"].body[0].bias[1] = value
    with pytest.raises(RunFailed, match=r"tensor 'net/G/body.0.bias' is not finite at 0 samples; lower the learning rate"):
        checkpoint.write(written, trainer, PROVENANCE)
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


def test_a_place_that_cannot_be_written_is_said(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"cannot be written: .*; make room or choose another --run folder"):
        checkpoint.write(tmp_path / "file" / "it.safetensors", make(loss=NonSaturating), PROVENANCE)


def test_a_full_disk_leaves_the_old_checkpoint_whole(make, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=False, capture_output=True, text=True
    ) if sys.platform == "linux" else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip() if mounted else sys.platform}")
    try:
        path = disk / "it.safetensors"
        trainer = make(loss=NonSaturating)
        checkpoint.write(path, trainer, PROVENANCE)
        before = path.read_bytes()
        assert 2 * len(before) < 512 * 1024, "the disk must have room for one checkpoint"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(b"x" * (free - len(before) // 2))
        trainer.round()
        with pytest.raises(ResourceError, match=r"\([\d,]+ bytes\) cannot be written: No space left on device"):
            checkpoint.write(path, trainer, PROVENANCE)
        assert path.read_bytes() == before
        assert sorted(os.listdir(disk)) == ["filler", "it.safetensors"]
        (disk / "filler").unlink()
        checkpoint.write(path, trainer, PROVENANCE)
        assert checkpoint.read(path)[1]["rounds"] == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


WRITER = """
import itertools, pathlib, sys
from ganzoo.checkpoint import write_atomically

path = pathlib.Path(sys.argv[1])
contents = [letter * int(sys.argv[2]) for letter in (b"a", b"b")]
for number in itertools.count():
    write_atomically(path, contents[number % 2])
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    path, size = tmp_path / "it.safetensors", 20_000_000
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(size)], stdout=subprocess.PIPE, text=True)
    try:
        for step in range(40):
            assert writer.stdout.readline(), "the writer has died"
            time.sleep(0.0007 * step)
            os.kill(writer.pid, signal.SIGSTOP)  # what lies there now is what a kill would leave
            content = path.read_bytes()
            assert (len(content), content.count(content[:1])) == (size, size)
            os.kill(writer.pid, signal.SIGCONT)
    finally:
        writer.kill()
        writer.communicate()
    content = path.read_bytes()
    assert (len(content), content.count(content[:1])) == (size, size)
