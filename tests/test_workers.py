"""Reading ahead: it changes when samples are read and by whom, and nothing else; and whatever ends, all ends with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from ganzoo_plugins.datasets.images import ImageDataset, image_folder
from PIL import Image

from ganzoo import ahead, checkpoint
from ganzoo.ahead import Course, one_ahead, workers_for
from ganzoo.data import Feed
from ganzoo.device import Device
from ganzoo.errors import DataError, ResourceError
from ganzoo.testing.tiny import Onlooker, tiny_data, tiny_trainer

CPU = Device.choose("cpu", "fp32")
COUNT = 40  # samples of tiny_data


def feed(workers=0, dataset=None):
    return Feed(dataset or tiny_data(classes=2), CPU, 5, workers)


def equal(one, two):
    return torch.equal(one.real, two.real) and torch.equal(one.cond["label"], two.cond["label"])


# -- what is expected next ------------------------------------------------------------------------------------------


def requests(course, count):
    return [request for request, _ in zip(course, range(count), strict=False)]


def test_a_course_strides_on():
    assert requests(Course(5, 4, 8), 3) == [(5, 4), (13, 4), (21, 4)]
    assert Course(5, 4, 8).after() == Course(13, 4, 8)


@pytest.mark.parametrize(
    ("position", "count", "stride"),
    [
        (24, 8, 16),  # one of two ranks: 8 came last, 24 now
        (500, 8, 492),
        (16, 4, 4),  # a stage with another batch
        (8, 8, 8),  # the same again
        (0, 8, 8),  # going back
    ],
)
def test_another_request_turns_the_course(position, count, stride):
    assert Course(8, 8, 8).after().turned(position, count) == Course(position, count, stride)


def test_the_next_one_is_under_way_before_one_is_handed_out():
    sent = []

    def send(item):
        sent.append(item)
        return -item

    stream = one_ahead(iter(range(1, 100)), send)
    assert sent == []
    assert next(stream) == -1
    assert sent == [1, 2]
    assert next(stream) == -2
    assert sent == [1, 2, 3]


# -- how many -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "cores", "expected"),
    [(0, 16, 0), (499, 16, 0), (500, 16, 0), (501, 16, 8), (501, 6, 3), (501, 1, 1), (501, 64, 8)],
)
def test_auto_is_for_files_that_memory_will_not_hold(stored, cores, expected, monkeypatch):
    monkeypatch.setattr(ahead, "free_memory", lambda: 1000)
    monkeypatch.setattr(ahead, "cores", lambda: cores)
    data = tiny_data()
    data.stored = stored
    assert workers_for(data, "auto") == expected
    assert workers_for(data, 0) == 0
    assert workers_for(data, 5) == 5


def test_a_dataset_that_says_nothing_is_held_in_memory():
    assert workers_for(object(), "auto") == 0
    assert workers_for(tiny_data(), "auto") == 0


# -- the same samples -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_orphans():
    before = multiprocessing.active_children()
    yield
    assert multiprocessing.active_children() == before


@pytest.mark.usefixtures("no_orphans")
def test_workers_bring_the_same_batches_in_any_order_of_requests():
    alone, helped = feed(), feed(2)
    state = torch.get_rng_state()
    asked = [(0, 8), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8)]  # over the end of an epoch
    asked += [(48, 5), (53, 5), (58, 5)]  # a stage with another batch
    asked += [(63, 4), (71, 4), (79, 4), (87, 4)]  # one of two ranks
    asked += [(3, 4), (7, 4), (7, 4), (11, 100)]  # going back, the same again, more than an epoch
    for request in asked:
        assert equal(helped.batch(*request), alone.batch(*request)), request
    assert torch.equal(torch.get_rng_state(), state)
    assert len(multiprocessing.active_children()) == 2
    helped.close()
    assert multiprocessing.active_children() == []
    helped.close()
    assert alone.close() is None


def digest(trainer):
    return {name: value.clone() for name, value in checkpoint.state_of(trainer)[0].items()}


@pytest.mark.usefixtures("no_orphans")
def test_training_is_the_same_with_workers_and_when_it_goes_on_with_them():
    def training(workers):
        stages = [{"samples": 52, "size": 8}, {"samples": 44, "batch": 11}]  # neither is a whole number of epochs
        raw = {"train": {"workers": workers, "batch": 8, "samples": 96}, "stages": stages}
        return tiny_trainer(raw=raw, data=tiny_data(classes=2))

    expected, first, second = training(0), training(1), training(1)
    expected.fit(Onlooker())
    first.fit(Onlooker(3))
    assert first.samples % COUNT
    assert len(multiprocessing.active_children()) == 1
    first.feed.close()
    tensors, counters = checkpoint.state_of(first)
    checkpoint.restore(second, tensors, counters)
    second.fit(Onlooker())
    second.feed.close()
    assert second.samples == expected.samples
    wanted, found = digest(expected), digest(second)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    for name in ("a/1", "a/2", "a/3", "b/4", "b/5"):
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(path)
    return str(tmp_path / "pictures")


def test_pictures_in_a_file_are_opened_again_where_they_are_unpickled(pictures):
    for _ in range(2):  # decoded just now, and found in the cache
        data = image_folder(path=pictures, size=128, labels=True)
        assert data.stored == data.samples.nbytes == 5 * 3 * 128 * 128
        sent = bytes(ForkingPickler.dumps(data))
        assert len(sent) < 4096
        again = ForkingPickler.loads(sent)
        assert isinstance(again, ImageDataset)
        assert again.samples.data_ptr() != data.samples.data_ptr()
        assert torch.equal(again.samples, data.samples)
        assert equal(again.batch(torch.tensor([4, 0])), data.batch(torch.tensor([4, 0])))
        assert (again.spec, again.fingerprint, again.notes) == (data.spec, data.fingerprint, data.notes)
        assert again.stored == data.stored


def test_pictures_in_memory_are_stored_nowhere(pictures):
    data = image_folder(path=pictures, size=128, cache=False)
    assert data.stored == 0
    assert torch.equal(ForkingPickler.loads(bytes(ForkingPickler.dumps(data))).samples, data.samples)


@pytest.mark.usefixtures("pictures")
def test_a_file_larger_than_memory_can_be_mapped(tmp_path):
    from ganzoo_plugins.datasets._decoded import mapped

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    place = tmp_path / "samples.npy"
    with open(place, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2 * memory,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2 * memory)  # a hole, which takes no room on the disk
    assert mapped(place)[-1] == 0


# -- what goes wrong ------------------------------------------------------------------------------------------------

MODULE = """
import os
from ganzoo.testing.tiny import tiny_data

class Broken:
    def __init__(self, after):
        self.inner, self.after = tiny_data(classes=2), after
        self.spec, self.fingerprint, self.calls = self.inner.spec, self.inner.fingerprint, 0
    def __len__(self):
        return len(self.inner)
    def batch(self, index):
        self.calls += 1
        if self.calls > self.after:
            raise KeyError("page 7")
        return self.inner.batch(index)
"""


@pytest.mark.usefixtures("no_orphans")
def test_a_dataset_that_cannot_travel_is_one_sentence():
    data = tiny_data(classes=2)
    data.transform = lambda x: x
    with pytest.raises(DataError, match=r"^dataset TensorDataset cannot be handed .* train.workers=0.*__reduce__"):
        feed(1, data).batch(0, 8)


@pytest.mark.usefixtures("no_orphans")
def test_an_error_in_a_worker_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "made_up_dataset.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from made_up_dataset import Broken

    one = feed(1, Broken(after=2))
    one.batch(0, 8)
    one.batch(8, 8)
    with pytest.raises(DataError, match=r"cannot be read \(KeyError: 'page 7'\).*train.workers=0$") as caught:
        one.batch(16, 8)
    assert "\n" not in str(caught.value)
    one.close()


@pytest.mark.usefixtures("no_orphans")
def test_a_killed_worker_ends_the_run_with_one_sentence():
    one = feed(1)
    one.batch(0, 8)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ResourceError, match=rf"^worker {worker.pid}, .*SIGKILL.*train.workers=0$") as caught:
        all(one.batch(position, 8) for position in range(8, 800, 8))  # some were read before
    assert "\n" not in str(caught.value)
    one.close()


@pytest.mark.usefixtures("no_orphans")
def test_workers_end_although_a_traceback_holds_them():
    one = feed(1)
    one.batch(0, 8)
    held = one._workers._batches
    (worker,) = multiprocessing.active_children()
    one.close()
    assert not worker.is_alive()
    del held


def test_the_handler_of_dead_children_is_as_it_was():
    before = signal.getsignal(signal.SIGCHLD)
    one = feed(1)
    one.batch(0, 8)
    assert signal.getsignal(signal.SIGCHLD) == before
    one.close()


# -- whole runs -----------------------------------------------------------------------------------------------------

RECIPE = """\
summary = "as small as can be"
[data]
name = "fashion-mnist-10k"
size = 16
[architecture]
name = "dcgan"
width = 2
[loss]
name = "non-saturating"
[latent]
size = 8
[optimizer]
name = "adam"
lr = 1e-3
betas = [0.5, 0.9]
[train]
batch = 8
samples = 80
precision = "fp32"
"""
SCRIPT = "from ganzoo import train\n"
CALL = 'train("tiny.toml", run="script", device="cpu", settings={"train.workers": 2})\n'
TRAIN = ("train", "tiny.toml", "--device", "cpu", "--set")
CONSOLE_RUN = (str(Path(sys.executable).with_name("ganzoo")), *TRAIN)
MODULE_RUN = (sys.executable, "-m", "ganzoo", *TRAIN)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "guarded.py").write_text(f'{SCRIPT}\nif __name__ == "__main__":\n    {CALL}', encoding="utf-8")
    (tmp_path / "bare.py").write_text(SCRIPT + CALL, encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(home):
    """The function that starts a command in a process group of its own; what still runs at the end of a test is killed."""
    started = []

    def begin(*command):
        environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "PYTHONWARNINGS": "error"}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def training(start, home):
    """A run with one worker that has played its first rounds and will not end by itself."""
    endless = ("train.samples=100_000_000", "--set", "train.log=8", "--set", "train.workers=1", "--run", "long")
    process, log = start(*MODULE_RUN, *endless), home / "long" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.05)
    return process


def left_of(process):
    """Return what of a process group has not ended soon after its leader; the dead may wait a while to be buried."""
    command = ["ps", "-ww", "-A", "-o", "pgid=", "-o", "stat=", "-o", "args="]
    deadline = time.monotonic() + 5
    while True:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        members = [words for words in (line.split(maxsplit=2) for line in lines) if words[0] == str(process.pid)]
        alive = [words for words in members if not words[1].startswith("Z")]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.1)


@pytest.mark.slow
def test_every_way_to_start_works_with_workers(start, home):
    ways = {
        "none": (*MODULE_RUN, "train.workers=0", "--run", "none"),
        "console": (*CONSOLE_RUN, "train.workers=2", "--run", "console"),
        "module": (*MODULE_RUN, "train.workers=2", "--run", "module"),
        "script": (sys.executable, "guarded.py"),
    }
    weights = []
    for name, command in ways.items():
        process = start(*command)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, (name, errors)
        assert left_of(process) == [], name
        weights.append(checkpoint.read(next((home / name / "checkpoints").glob("*80.safetensors")))[0])
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(start):
    process = start(sys.executable, "bare.py")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert 'ended with exit code 1; let a script train under `if __name__ == "__main__":`' in errors.splitlines()[-1]
    assert left_of(process) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_leaves_a_checkpoint_and_no_process(number, code, training, home):
    os.killpg(training.pid, number)
    _, errors = training.communicate(timeout=120)
    assert training.returncode == code, errors
    assert "all saved" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert len(list((home / "long" / "checkpoints").glob("*.safetensors"))) == 1
    assert left_of(training) == []


@pytest.mark.slow
def test_a_worker_killed_in_a_run_ends_it_with_one_sentence(training):
    command = ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(training.pid)]
    children = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (worker,) = [line.split()[0] for line in children if "spawn_main" in line]
    os.kill(int(worker), signal.SIGKILL)
    _, errors = training.communicate(timeout=120)
    assert training.returncode == ResourceError.exit_code, errors
    assert f"error: worker {worker}, which read data ahead, was ended by SIGKILL" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert left_of(training) == []


# -- devices --------------------------------------------------------------------------------------------------------


def test_nothing_is_copied_ahead_to_a_processor():
    assert not CPU.copies_aside
    assert next(feed()._reading(Course(0, 8, 8))).real.dtype == torch.uint8


def test_a_dataset_held_on_the_device_needs_no_workers(monkeypatch):
    held = tiny_data(classes=2)
    monkeypatch.setattr("ganzoo.data._held", lambda dataset, device: held)
    one = feed(2)
    assert equal(one.batch(0, 8), feed().batch(0, 8))
    assert multiprocessing.active_children() == []


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_copied_ahead_are_the_same(workers, monkeypatch):
    monkeypatch.setattr("ganzoo.data.HELD", 0.0)  # no dataset is small enough to be held on the device
    one, alone = Feed(tiny_data(classes=2), Device.choose("auto", "fp32"), 5, workers), feed()
    assert one._copies
    for position in range(0, 800, 8):
        found, expected = one.batch(position, 8), alone.batch(position, 8)
        assert found.real.device.type == one.device.device.type
        torch.testing.assert_close(found.real.cpu(), expected.real)
        assert torch.equal(found.cond["label"].cpu(), expected.cond["label"])
    one.close()
