"""Free memory: the machine's, and what the control groups of a container leave of it."""

from __future__ import annotations

import os

import pytest

from ganzoo.main_memory import free_memory

MB = 2**20
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture
def machine(tmp_path):
    """A tree like a system's with 900 MB free, and the function that adds a control group to it."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {2000 * 1024} kB\nMemAvailable:    {900 * 1024} kB\n")

    def group(path, most, now, cache, names=V2):
        folder = tmp_path / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{most}\n")
        (folder / names[1]).write_text(f"{now}\n")
        (folder / "memory.stat").write_text(f"inactive_file {cache}\ntotal_inactive_file {cache}\nfile 1\n")

    def joined(line):
        (tmp_path / "proc/self/cgroup").write_text(line)

    return tmp_path, group, joined


def test_of_this_machine_it_is_more_than_nothing_and_less_than_all():
    assert 0 < free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_where_nothing_limits_it_is_the_machine_s(machine):
    root, group, joined = machine
    assert free_memory(root) == 900 * MB
    joined("0::/user.slice\n")
    assert free_memory(root) == 900 * MB  # a group without files, as the uppermost one
    group("user.slice", "max", 5 * MB, 0)
    assert free_memory(root) == 900 * MB


def test_a_container_s_limit_counts_without_what_can_be_freed(machine):
    root, group, joined = machine
    joined("0::/docker/one\n")
    group("docker/one", 500 * MB, 300 * MB, 100 * MB)
    assert free_memory(root) == 300 * MB
    group("docker", 400 * MB, 350 * MB, 0)  # a parent that has less left
    assert free_memory(root) == 50 * MB
    group("docker/one", 500 * MB, 600 * MB, 0)
    assert free_memory(root) == 0


def test_inside_a_container_only_its_own_end_of_the_tree_is_seen(machine):
    root, group, joined = machine
    joined("0::/kubepods/of-the-host\n")
    group("", 500 * MB, 100 * MB, 0)
    assert free_memory(root) == 400 * MB


def test_the_first_version_has_a_tree_for_each_controller(machine):
    root, group, joined = machine
    joined("5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n")
    group("memory/a", 9223372036854771712, 100 * MB, 0, V1)  # its way to say: no limit
    assert free_memory(root) == 900 * MB
    group("memory/a/b", 200 * MB, 100 * MB, 20 * MB, V1)
    assert free_memory(root) == 120 * MB


def test_a_system_without_such_tables_has_all_its_memory(tmp_path):
    assert free_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
