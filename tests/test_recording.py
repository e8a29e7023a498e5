"""Recorded rounds: the same training as playing every round, with a recorder of this file's where there is no GPU."""

from __future__ import annotations

import time

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.regularizers.diffaugment import DiffAugment
from ganzoo_plugins.regularizers.r1 import R1

from ganzoo import checkpoint, optimizers
from ganzoo.device import Device, DeviceError
from ganzoo.players import Rule
from ganzoo.recipe import Schedule, Train
from ganzoo.recording import RecordedRounds, reason_against
from ganzoo.speed.rounds import counted, measured, rewind
from ganzoo.testing.tiny import tiny_data, tiny_trainer
from ganzoo.trainer import Trainer

CPU = torch.device("cpu")


class Repeats:
    """A recorder that does the work again where a graph would be replayed: on the places that it was recorded with."""

    def __init__(self) -> None:
        self.warmed = self.recorded = self.replayed = 0

    def warm(self, work):
        self.warmed += 1
        return work()

    def record(self, work):
        self.recorded += 1

        def replay():
            self.replayed += 1
            work()

        return replay


def build(device=None, **more) -> Trainer:
    raw = {
        "regularizer": {"r1": {"every": 3}},
        "train": {"turns": ["D", "D", "G"], "samples": 800},
        "optimizer": {"lr": {"from": 1e-2, "to": 0.0}},
        **more,
    }
    parts = {"r1": R1, "augment": DiffAugment}
    return tiny_trainer(loss=NonSaturating, regularizers=parts, raw=raw, data=tiny_data(classes=2), device=device)


def test_replayed_rounds_train_to_the_same_bits():
    """Samples, latents, labels, learning rates and the due lazy phases reach a recording; terms come out of it."""
    plain, recorded = build(), build()
    recorder = Repeats()
    recorded._rounds = RecordedRounds(recorded.play, recorder)
    for _ in range(12):
        terms = []
        for trainer in (plain, recorded):
            trainer.round()
            terms.append(trainer.report().terms)
        assert terms[0] == terms[1]
    one, two = (checkpoint.state_of(trainer)[0] for trainer in (plain, recorded))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert recorder.warmed == recorder.recorded == 3  # turns 0 to 5 of D make three kinds of rounds
    assert recorder.replayed == 12 - 3


def test_who_times_the_parts_of_a_round_is_not_heard_while_one_is_recorded(monkeypatch):
    """Waiting for the device would end the recording: what is timed then is the round, its data and what comes after."""
    recorder = Repeats()
    monkeypatch.setattr("ganzoo.trainer.GraphRecorder", lambda device: recorder)
    monkeypatch.setattr("ganzoo.trainer.reason_against", lambda *parts: "")
    trainer = build(Device(CPU, records=True))
    for _ in range(6):  # the lazy phase's rounds are recorded later than the others
        names = [name for name, _ in measured(trainer, time.perf_counter).parts]
        assert names == ["data", "after"]
    assert recorder.replayed > 0


def test_a_recorded_round_is_counted_as_it_is_played_and_says_which_lazy_phases_it_has(monkeypatch):
    """R1 comes every third turn of D and there are two in a round: in rounds 0, 1, 3 and 4, and so on."""
    monkeypatch.setattr("ganzoo.trainer.GraphRecorder", lambda device: Repeats())
    monkeypatch.setattr("ganzoo.trainer.reason_against", lambda *parts: "")
    recorded, plain = build(Device(CPU, records=True)), build()
    assert (recorded.replays, plain.replays) == (True, False)
    assert counted(recorded) == counted(plain)
    assert recorded.replays
    for trainer in (recorded, plain):
        rewind(trainer)
    dues = [measured(recorded, time.perf_counter).due for _ in range(5)]
    assert dues == [("D/r1",), ("D/r1",), (), ("D/r1",), ("D/r1",)]
    assert measured(plain, time.perf_counter).due == ()


def test_a_stage_with_another_batch_is_another_recording():
    stages = {"train": {"turns": ["D", "G"]}, "stages": [{"samples": 32}, {"samples": 64, "batch": 4}]}
    plain, recorded = build(**stages), build(**stages)
    recorder = Repeats()
    recorded._rounds = RecordedRounds(recorded.play, recorder)
    for _ in range(12):
        plain.round()
        recorded.round()
    assert recorder.replayed > 0
    one, two = (checkpoint.state_of(trainer)[0] for trainer in (plain, recorded))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_what_changes_with_time_is_played_as_ever_and_told():
    trainer = tiny_trainer(loss=NonSaturating, device=Device(CPU, records=True))
    assert trainer._rounds == trainer.play
    assert trainer.notes() == ["rounds are not recorded but played as ever: TinyGenerator changes with time"]
    assert trainer.notes() == []


def test_what_makes_a_replay_differ_from_a_round():
    rising = Rule("r1", "D", R1(), Schedule(start=0.0, stop=1.0))
    assert reason_against([], [rising]) == "the weight of 'r1' changes with time"
    assert "several processes" in reason_against([], [], processes=2)
    assert reason_against([], [Rule("r1", "D", R1())]) == ""


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_the_rate_of_a_recorded_optimizer_lies_on_the_device(name):
    parameters = [torch.nn.Parameter(torch.ones(3))]
    optimizer = optimizers.build(name, {}, parameters, 0.5, recorded=True)
    (group,) = optimizer.param_groups
    assert isinstance(group["lr"], torch.Tensor)
    assert group.get("capturable", True)


def test_what_only_cuda_has_is_refused_elsewhere():
    with pytest.raises(DeviceError, match=r"train\.graphs means CUDA graphs, which cpu has not"):
        Device.for_training("cpu", Train(graphs="on"))
    with pytest.raises(DeviceError, match="precision 'tf32' is a way of CUDA's"):
        Device.choose("cpu", "tf32")


@pytest.mark.parametrize(("layout", "last"), [("auto", True), ("channels_last", True), ("contiguous", False)])
def test_the_layout_of_images_is_a_setting(layout, last):
    device = Device.for_training("cpu", Train(memory_format=layout))
    moved = device.move(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert moved.is_contiguous(memory_format=torch.channels_last) is last
    net = device.place(torch.nn.Conv2d(3, 4, 3))
    assert net.weight.is_contiguous(memory_format=torch.channels_last) is last


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_cuda_graphs_train_as_played_rounds_do(bf16):
    pair = [build(Device(torch.device("cuda"), bf16, records=records)) for records in (False, True)]
    for _ in range(12):
        for trainer in pair:
            trainer.round()
    one, two = (checkpoint.state_of(trainer)[0] for trainer in pair)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_exact_on_cuda_unless_tf32_is_asked_for(tf32):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with Device(torch.device("cuda"), tf32=tf32).numerics():
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
