"""Where is computed: what is chosen, what is refused, and what moving does to samples."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ganzoo
from ganzoo import checkpoint
from ganzoo.device import KNOWN, Device, DeviceError, available, native_bf16
from ganzoo.runs import RunFolder

CPU = Device(torch.device("cpu"))
MISSING = [kind for kind in KNOWN if kind != "auto" and kind not in available()]

TINY = """\
data = { name = "fashion-mnist-10k", size = 16 }
architecture = { name = "dcgan", width = 8 }
loss = { name = "hinge" }
regularizer = [{ name = "r1", every = 2 }, { name = "spectral-norm" }]
optimizer = { name = "adam", lr = 1e-3 }
train = { batch = 16, samples = 320, ema = 0.9, checkpoint = 80, PRECISION }
"""


def test_the_processor_is_always_there_and_last():
    assert available()[-1] == "cpu"
    assert Device.choose("cpu", "fp32") == CPU
    assert Device.choose("cpu:0", "fp32").device.type == "cpu"
    assert Device.choose("auto").device.type == available()[0]


@pytest.mark.parametrize(("precision", "bf16"), [("fp32", False), ("bf16", True), ("auto", native_bf16(CPU.device))])
def test_precision_is_as_asked_for_or_as_the_hardware_has_it(precision, bf16):
    device = Device.choose("cpu", precision)
    assert device.bf16 is bf16
    with device.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if bf16 else torch.float32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cdua", "device 'cdua' is not known; did you mean 'cuda'"),
        ("gpu9", "device 'gpu9' is not known.*there are: auto, cpu, cuda, xpu, mps"),
        ("", "is not known"),
        ("cpu:x", "device 'cpu:x' does not exist; count from cpu:0"),
        ("cpu:1", "does not exist"),
        ("cpu:-1", "does not exist"),
        ("auto:0", "does not exist"),
    ],
)
def test_a_device_that_is_none_is_refused(name, message):
    with pytest.raises(DeviceError, match=message) as caught:
        Device.choose(name)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", MISSING)
def test_a_device_that_is_not_here_is_refused_and_another_named(kind):
    with pytest.raises(DeviceError, match=f"device '{kind}' is not available here; use --device {available()[0]} or auto"):
        Device.choose(kind)


def test_bytes_become_minus_one_to_one_exactly():
    values = CPU.move(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)).flatten()
    assert values.dtype == torch.float32
    assert (values[0], values[255]) == (-1.0, 1.0)
    torch.testing.assert_close(values, torch.arange(256) / 127.5 - 1, rtol=0, atol=1e-6)


def test_what_is_no_image_of_bytes_keeps_its_values():
    for x in (torch.randn(3, 2, 4, 4), torch.randn(5, 7), torch.arange(9)):
        assert torch.equal(CPU.move(x), x)


def test_images_and_convolutions_are_channels_last():
    x = CPU.move(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert x.is_contiguous(memory_format=torch.channels_last)
    net = CPU.place(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5, 2)))
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[2].weight.is_contiguous()


def test_memory_used_is_told():
    assert 10_000_000 < CPU.peak_bytes() < 10**12


@pytest.mark.gpu
@pytest.mark.skipif(available()[0] != "cuda", reason="there is no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_resumes_and_its_checkpoint_opens_on_the_processor(tmp_path, precision):
    (tmp_path / "tiny.toml").write_text(TINY.replace("PRECISION", f'precision = "{precision}"'), encoding="utf-8")
    run = tmp_path / "run"
    ganzoo.train(str(tmp_path / "tiny.toml"), run=run, device="cuda")
    folder = RunFolder(run)
    newest, older = folder.checkpoints()
    newest.unlink()
    model = ganzoo.train(str(tmp_path / "tiny.toml"), run=run, device="cuda")  # goes on from the older one
    assert folder.checkpoints() == [newest, older]
    assert checkpoint.read(newest)[1]["samples"] == 320
    here = ganzoo.load(run, "cpu").sample(4)
    torch.testing.assert_close(model.sample(4), here, rtol=0, atol=0.05 if precision == "bf16" else 5e-3)
