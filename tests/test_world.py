"""Several processes train as one: the same state as a single process has, one that writes, and an end when one is lost."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ganzoo import checkpoint
from ganzoo.device import Device, DeviceError
from ganzoo.errors import RankLost, UsageError
from ganzoo.runs import RunFolder
from ganzoo.sync_batch_norm import SyncBatchNorm, synchronise
from ganzoo.world import World, _alive, _wait, joined, patience

SCRIPT = Path(__file__).parent / "several_processes.py"
SEVERAL = runpy.run_path(str(SCRIPT))
TRAINING = (
    *("gan", "--set", "data.size=16", "--set", "train.batch=8", "--set", "train.samples=1600", "--device", "cpu"),
    *("--set", "train.precision=fp32", "--set", "train.checkpoint=80", "--set", "train.grid=800", "--set", "train.keep=50"),
)  # fmt: skip


def torchrun(*words: str, **more) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **more)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """The folder that two processes filled."""
    folder = tmp_path_factory.mktemp("several")
    process = torchrun(str(SCRIPT), str(folder))
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return folder


def found(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"{rank}.json").read_text())


@pytest.mark.parametrize("name", SEVERAL["CASES"])
def test_two_processes_train_as_one_does(several, name):
    state, terms = SEVERAL["trained"](SEVERAL["CASES"][name], Device.choose("cpu", "fp32"))
    shared = load_file(several / f"{name}.safetensors")
    assert shared.keys() == state.keys()
    for key, value in state.items():
        close = 1e-5 if key.startswith("optimizer/") else 1e-6  # of momenta, which hold gradients much larger than weights
        torch.testing.assert_close(shared[key], value, rtol=close, atol=close, msg=lambda text, key=key: f"{key}: {text}")
    for rank in (0, 1):  # a report is the mean over all, wherever it is read
        reported = found(several, rank)["terms"][name]
        assert {term: reported[term] for term in terms} == pytest.approx(terms, rel=1e-4, abs=1e-5)


def test_a_gradient_that_is_not_finite_moves_nobody_and_is_named(several):
    for rank in (0, 1):
        outcome = found(several, rank)["not finite"]
        assert not outcome["moved"]
        assert outcome["error"].startswith("RunFailed: term 'D/gradient' became nan")


def test_weights_that_drift_apart_are_noticed(several):
    for rank in (0, 1):
        assert "process 1 of this launch holds other weights than process 0" in found(several, rank)["drift"]


def test_batch_norm_over_all_refuses_a_double_backward(several):
    for rank in (0, 1):
        assert found(several, rank)["double backward"].startswith(
            "RecipeError: train.sync_batch_norm has no double backward"
        )


def test_what_the_leader_does_first_and_sends(several):
    for rank in (0, 1):
        outcome = found(several, rank)["led"]
        assert outcome["first"] == rank
        assert outcome["sent"] == {"a": [0, 1, 2], "b": [[1.0, 1.0], [1.0, 1.0]]}
        assert outcome["leader"] == 7
    assert found(several, 0)["led"]["failed"] == "GanzooError: no"
    assert found(several, 1)["led"]["failed"].startswith("PeerFailed: the leading process of this launch failed")


def test_a_process_that_is_slower_is_waited_for_and_one_that_fails_is_everyones_end(several):
    assert [found(several, rank)["own pace"]["slow"] for rank in (0, 1)] == ["", ""]
    assert found(several, 0)["own pace"]["failed"].startswith("PeerFailed: process 1 of this launch failed")
    assert found(several, 1)["own pace"]["failed"] == "GanzooError: no"


def test_who_has_joined_already_stays_with_the_same_processes(several):
    for rank in (0, 1):
        assert found(several, rank)["joined again"] == [rank, 2]


@pytest.mark.parametrize("name", SEVERAL["DRAWINGS"])
def test_samples_that_two_processes_draw_are_those_of_one(several, name):
    alone = SEVERAL["drawing"](name, World())
    assert found(several, 0)["drawings"][name] == alone
    assert found(several, 1)["drawings"][name]["features"] == []  # what is drawn is kept by the leading process alone


def test_samples_that_are_not_finite_on_one_process_are_so_for_both(several):
    for rank in (0, 1):
        assert found(several, rank)["drawings"]["diverges"]["reason"] == "not finite at 140"


def test_a_task_that_fails_on_one_process_ends_so_for_both_and_the_next_one_is_done(several):
    for rank in (0, 1):
        assert found(several, rank)["tasks"] == ["task 0 failed (ZeroDivisionError: on process 1)", ""]


def test_values_come_in_the_order_of_ranks(several):
    for rank in (0, 1):
        assert found(several, rank)["everyone"] == [0, 1]
        assert found(several, rank)["rows"] == [0.0, 0.0, 1.0, 1.0]


def test_a_batch_that_cannot_be_shared_is_refused(several):
    assert "2 processes cannot share a batch of 7 equally" in found(several, 0)["uneven"]


def states(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(RunFolder(folder).checkpoints()[0])[0]


def children_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    while not RunFolder(folder).checkpoints():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of a launch in /proc")
def test_a_dead_process_ends_all_and_the_same_command_goes_on(tmp_path):
    """Killed, told to stop, begun again: the end is bit for bit that of an undisturbed launch."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    out, _ = torchrun("-m", "--", "ganzoo", "train", *TRAINING, "--run", str(whole)).communicate(timeout=300)
    assert RunFolder(whole).state()["state"] == "finished", out
    assert out.count("done in") == 1

    process = torchrun("-m", "--", "ganzoo", "train", *TRAINING, "--run", str(broken))
    wait_for_checkpoint(broken, process)
    os.kill(children_of(process)[1], signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert RunFolder(broken).state()["state"] != "finished"

    process = torchrun("-m", "--", "ganzoo", "train", *TRAINING, "--run", str(broken))
    before = len(RunFolder(broken).checkpoints())
    while len(RunFolder(broken).checkpoints()) <= before and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert RunFolder(broken).state()["state"] in ("interrupted", "finished"), out

    process = torchrun("-m", "--", "ganzoo", "train", *TRAINING, "--run", str(broken))
    out, _ = process.communicate(timeout=300)
    assert RunFolder(broken).state()["state"] == "finished", out
    one, two = states(whole), states(broken)
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_alone_nothing_is_exchanged():
    with joined() as world:
        assert world == World()
        assert world.leads
        with world.led() as leads:
            assert leads
        x = torch.ones(3)
        assert world.average([x]) is None
        assert torch.equal(world.sum(x), x)
        assert torch.equal(world.share(x), x)
        assert torch.equal(world.gather(x), x)
        assert world.everyone("it") == ["it"]
        assert world.leaders("it") == "it"
        assert world.leaders_tensors({"x": x})["x"] is x
        assert world.leader_first(lambda: 5) == 5


def test_parts_of_a_batch_are_equal_and_in_order():
    x = torch.arange(6)
    assert [World(rank, 3).share(x).tolist() for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]


class Table(dict):
    """A store of texts as torchrun has it, within one process."""

    def add(self, key, amount):
        self[key] = self.get(key, 0) + amount
        return self[key]

    def set(self, key, value):
        self[key] = value.encode()

    def check(self, keys):
        return all(key in self for key in keys)


def test_a_leader_that_gives_no_sign_of_life_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("GANZOO_PATIENCE", "1")
    with pytest.raises(RankLost, match="was silent for 1 s"):
        _wait(Table(), "it", pause=lambda seconds: time.sleep(0.2))


def test_a_leader_that_shows_signs_of_life_is_waited_for_as_long_as_it_takes(monkeypatch):
    monkeypatch.setenv("GANZOO_PATIENCE", "1")
    table, pauses = Table(), []

    def pause(seconds):
        pauses.append(seconds)
        time.sleep(0.3)
        table.add("it/beat", 1)
        if len(pauses) == 6:  # longer than anybody's patience
            table.set("it/outcome", "done")

    _wait(table, "it", pause=pause)
    assert len(pauses) == 6


def test_a_leader_that_fails_tells(monkeypatch):
    table = Table()
    with pytest.raises(ValueError, match="it"), _alive(table, "it"):
        raise ValueError("it")
    with pytest.raises(RankLost, match="failed and says why"):
        _wait(table, "it")


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan"])
def test_a_patience_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv("GANZOO_PATIENCE", text)
    with pytest.raises(UsageError, match="GANZOO_PATIENCE="):
        patience()


@pytest.mark.parametrize(("plain", "shape"), [(torch.nn.BatchNorm1d, (6, 3)), (torch.nn.BatchNorm2d, (6, 3, 4, 5))])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_over_one_process_is_batch_norm(plain, shape, momentum):
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(plain(3, momentum=momentum)) for _ in range(2)]
    synchronised = synchronise(layers[1], World())
    assert isinstance(synchronised[0], SyncBatchNorm)
    for _ in range(3):
        x = torch.randn(shape, requires_grad=True) * 3 + 1
        made, expected = synchronised(x), layers[0](x)
        torch.testing.assert_close(made, expected)
        grads = [torch.autograd.grad(y.sin().sum(), x, retain_graph=True)[0] for y in (made, expected)]
        torch.testing.assert_close(*grads)
    torch.testing.assert_close(synchronised.state_dict(), layers[0].state_dict())
    torch.testing.assert_close(synchronised.eval()(x), layers[0].eval()(x))


def test_gpus_are_given_out_one_to_each_process(monkeypatch):
    for name, value in (("available", lambda: ["cuda", "cpu"]), ("native_bf16", lambda device: True)):
        monkeypatch.setattr(f"ganzoo.device.{name}", value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(Device.choose("auto", "auto", World(3, 4, 1)).device) == "cuda:1"
    with pytest.raises(DeviceError, match="launch no more than 2 processes"):
        Device.choose("cuda", "auto", World(2, 3, 2))
    with pytest.raises(DeviceError, match="each takes its own: use cuda"):
        Device.choose("cuda:0", "auto", World(1, 2, 1))
