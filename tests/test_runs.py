"""The run folder: whose it is, what is in it, and who may use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ganzoo.config import Draft
from ganzoo.errors import RecipeError, ResourceError, RunInUse
from ganzoo.runs import RunFolder

BASE = {"data": {"name": "squares"}, "architecture": {"name": "small"}, "loss": {"name": "plain"}}


def recipe(**tables):
    return Draft("it", {**BASE, "optimizer": {"name": "adam", "lr": 1e-3}, **tables}, "a test").finish()


@pytest.fixture
def folder(tmp_path):
    place = RunFolder(tmp_path / "it")
    place.path.mkdir()
    return place


def saved(folder, *samples):
    folder.checkpoint_folder.mkdir(exist_ok=True)
    for count in samples:
        folder.checkpoint_path(count).write_bytes(b"")


def test_checkpoints_are_listed_newest_first_and_pruned(folder):
    saved(folder, 5, 1000, 20)
    (folder.checkpoint_folder / ".000000000030.safetensors.77.tmp").write_bytes(b"half")
    (folder.checkpoint_folder / "notes.txt").write_text("mine")
    assert [path.name for path in folder.checkpoints()] == [f"{n:012d}.safetensors" for n in (1000, 20, 5)]
    folder.prune(2)
    assert sorted(os.listdir(folder.checkpoint_folder)) == [f"{n:012d}.safetensors" for n in (20, 1000)] + ["notes.txt"]


def test_the_lock_keeps_others_out_and_names_the_holder(folder):
    with folder.locked():
        folder.set_state("running")
        with pytest.raises(RunInUse, match=f"is in use by process {os.getpid()} on "), RunFolder(folder.path).locked():
            pass
    with RunFolder(folder.path).locked():
        pass


def test_a_killed_process_holds_nothing(folder):
    program = (
        "import os, sys; from ganzoo.runs import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked(): print(1, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(folder.path)], check=False, stdout=subprocess.PIPE)
    assert (killed.returncode, killed.stdout) == (-9, b"1\n")
    with folder.locked():
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ResourceError, match=r"cannot be used: .*; choose another"),
        RunFolder(tmp_path / "file" / "a").locked(),
    ):
        pass


def test_an_empty_folder_is_adopted_and_holds_the_recipe(folder):
    folder.adopt(recipe())
    assert folder.recipe_file.read_text(encoding="utf-8") == recipe().toml()


def test_a_folder_of_something_else_is_refused_and_left_alone(folder):
    (folder.path / "photo.jpg").write_bytes(b"")
    with pytest.raises(RecipeError, match="is not empty and holds no run; choose another --run folder"):
        folder.adopt(recipe())
    assert os.listdir(folder.path) == ["photo.jpg"]


def test_another_recipe_is_refused_and_the_difference_named(folder):
    folder.adopt(recipe())
    saved(folder, 8)
    with pytest.raises(
        RecipeError, match=r"another recipe \(train.batch: None -> 8; loss.name: 'plain' -> 'other'\)|"
    ) as caught:
        folder.adopt(recipe(loss={"name": "other"}, train={"batch": 8}))
    assert "loss.name: 'plain' -> 'other'" in str(caught.value)
    assert "train.batch: None -> 8" in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert folder.recipe_file.read_text(encoding="utf-8") == recipe().toml()


FREE = {"log": 8, "grid": 8, "checkpoint": 8, "workers": 2, "micro_batch": 4}


def test_what_changes_no_weight_may_change(folder):
    folder.adopt(recipe())
    saved(folder, 8)
    changed = recipe(summary="words", train={**FREE, "keep": 5}, provenance={"paper": "x"})
    folder.adopt(changed)
    assert folder.recipe_file.read_text(encoding="utf-8") == changed.toml()


def test_a_run_that_saved_nothing_makes_way_for_another_recipe(folder):
    """A mistyped option must not block the folder for the corrected command."""
    folder.adopt(recipe(architecture={"name": "small", "widht": 3}))
    folder.adopt(recipe())
    assert folder.recipe_file.read_text(encoding="utf-8") == recipe().toml()


def test_a_recipe_file_that_was_spoilt_is_said(folder):
    folder.recipe_file.write_text("= broken", encoding="utf-8")
    saved(folder, 8)
    with pytest.raises(RecipeError, match="is not valid TOML"):
        folder.adopt(recipe())


def test_setting_aside_renames_and_never_overwrites(folder):
    assert folder.set_aside() is None
    for number in (1, 2):
        folder.path.mkdir(exist_ok=True)
        folder.adopt(recipe())
        assert folder.set_aside() == folder.path.with_name(f"it.{number}")
    assert not folder.path.exists()
    assert (folder.path.with_name("it.1") / "recipe.toml").exists()


def test_state_tells_who_and_how(folder):
    assert folder.state() == {}
    folder.set_state("running", device="cpu")
    state = folder.state()
    assert (state["state"], state["pid"], state["device"]) == ("running", os.getpid(), "cpu")
    for text in ("", "{", "[]", "\ufffd"):
        folder.state_file.write_text(text, encoding="utf-8")
        assert folder.state() == {}


def test_the_log_is_rewound_to_a_checkpoint(folder):
    folder.rewind_log(5)
    assert not folder.log_file.exists()
    for samples in (8, 16, 24):
        folder.log({"samples": samples, "D/loss": samples / 3})
    with open(folder.log_file, "a", encoding="utf-8") as file:
        file.write('{"samples": 32, "D/lo')
    folder.rewind_log(16)
    lines = folder.log_file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"samples": n, "D/loss": n / 3} for n in (8, 16)]


@pytest.mark.parametrize("name", ["log", "set_state"])
def test_what_cannot_be_written_is_said(folder, name):
    folder.log_file.mkdir()
    folder.state_file.mkdir()
    with pytest.raises(ResourceError, match="cannot be written"):
        getattr(folder, name)({"samples": 1} if name == "log" else "running")
