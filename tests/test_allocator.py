"""Keeping memory: said by glibc's own answer, and seen in a process that does not ask the system for pages again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from ganzoo import allocator

FAULTS = """
import resource, sys
import torch
from ganzoo.allocator import keep_memory
assert sys.argv[1] == "plain" or keep_memory()
torch.set_num_threads(1)
def large():
    torch.zeros(10_000_000)  # 40 MB, which glibc maps anew by itself
for _ in range(15):  # until the heap has grown
    large()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    large()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_freed_is_not_asked_for_again():
    faults = {}
    for mode in ("plain", "kept"):
        done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert faults["kept"] < faults["plain"] / 10


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocator.keep_memory() is False
