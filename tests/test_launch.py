"""The supervisor outside of a training: which deaths are tried again, from where, and what a signal does."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch.distributed.run import get_args_parser

from ganzoo import launch
from ganzoo.cli.commands import cli
from ganzoo.errors import RunInUse
from ganzoo.jobs import run_recipe
from ganzoo.launch import command_line, ending, supervise
from ganzoo.registry import registry
from ganzoo.runs import RunFolder
from ganzoo.zoo import Request, resolve

SETS = ["data.size=16", "train.batch=8", "train.precision=fp32", "train.samples=4000", "train.checkpoint=400"]
LONG = "train.samples=400000"  # who is to be stopped on the way must not be done before
RARE = "train.checkpoint=400000"  # only at the end of that
QUICK = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONWARNINGS": "error"}
QUICK.pop("TORCHELASTIC_RUN_ID", None)


def started(place, *arguments, sets=SETS):
    """Start `ganzoo train gan` under a supervisor, in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "ganzoo", "train", "gan", "--device", "cpu", "--run", str(place), *arguments]
    command += [word for one in sets for word in ("--set", one)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests run in a shell's background ignore it
    try:
        return subprocess.Popen(
            command, env=QUICK, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(found, process, limit=120):
    """Return what is found as soon as there is something."""
    deadline = time.monotonic() + limit
    while not (result := found()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result


def kill(folder, number=signal.SIGKILL):
    os.kill(folder.state()["pid"], number)


def ended(process):
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


# -- real trainings -------------------------------------------------------------------------------------------------


def test_killed_twice_it_goes_on_to_the_same_bits(tmp_path):
    recipe = resolve("gan", Request(sets=SETS), registry())
    run_recipe(recipe, registry(), tmp_path / "whole", "cpu")
    folder = RunFolder(tmp_path / "killed")
    process = started(folder.path, "--retries", "2", "--json")
    first = wait_for(folder.checkpoints, process)[0]
    kill(folder)
    wait_for(lambda: folder.state()["state"] == "running" and folder.checkpoints()[0] > first, process)
    kill(folder)
    code, out, err = ended(process)
    assert code == 0, err
    assert json.loads(out)["samples"] == 4000  # one document, of the try that came to the end
    assert "try 1 of at most 3 ended: killed by signal 9" in err
    assert "try 2 of at most 3 ended: killed by signal 9" in err
    assert err.count("the next try goes on from") == err.count("going on at") == 2
    whole, killed = RunFolder(tmp_path / "whole").checkpoints()[0], folder.checkpoints()[0]
    assert (whole.name, whole.read_bytes()) == (killed.name, killed.read_bytes())


def test_killed_before_its_first_checkpoint_it_is_not_tried_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = started(folder.path, "--retries", "3", sets=[*SETS, LONG, RARE])
    wait_for(lambda: folder.state().get("state") == "running", process)
    kill(folder)
    code, _, err = ended(process)
    assert code == 128 + signal.SIGKILL
    assert "try 1 of at most 4 ended: killed by signal 9" in err
    assert "it saved no checkpoint, so it is not tried again" in err
    assert "try 2" not in err
    assert folder.checkpoints() == []


def test_divergence_is_not_tried_again_though_there_are_checkpoints(tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = started(folder.path, "--retries", "3", sets=[*SETS, "optimizer.lr={from=0.0, to=1e25}", "train.checkpoint=8"])
    code, _, err = ended(process)
    assert code == folder.state()["exit_code"] == 1
    assert folder.checkpoints()
    assert folder.state()["reason"] in err
    assert "it is not tried again, since it would end in the same way" in err
    assert "try 2" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_supervisors_group_reaches_the_training_once_and_ends_all(tmp_path, number):
    folder = RunFolder(tmp_path / "run")
    process = started(folder.path, "--retries", "3", sets=[*SETS, LONG])
    wait_for(folder.checkpoints, process)
    os.killpg(process.pid, number)  # what a terminal does at Ctrl-C
    code, _, err = ended(process)
    assert code == 128 + number
    assert f"stopped by {number.name} at" in err
    assert "all saved" in err  # a second SIGINT would have stopped it in the middle of a round
    assert "try" not in err
    assert folder.state()["state"] == "interrupted"


@pytest.mark.slow
def test_a_launch_of_two_that_lost_one_goes_on_to_the_same_bits(tmp_path):
    two = ["--torchrun", "--standalone --nproc-per-node 2"]
    whole = started(tmp_path / "whole", *two)
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    folder = RunFolder(tmp_path / "killed")
    process = started(folder.path, "--retries", "1", *two)
    wait_for(folder.checkpoints, process)
    kill(folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "try 1 of at most 2 ended: a process of the launch died" in err
    first, second = RunFolder(tmp_path / "whole").checkpoints()[0], folder.checkpoints()[0]
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())


@pytest.mark.slow
def test_a_launch_that_is_told_to_end_saves_and_has_the_signals_code(tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = started(folder.path, "--retries", "1", "--torchrun", "--standalone --nproc-per-node 2", sets=[*SETS, LONG])
    wait_for(folder.checkpoints, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert folder.state()["state"] == "interrupted"
    assert "try 1 of" not in err


# -- children that die as they are told -----------------------------------------------------------------------------

CHILD = """\
import json, os, pathlib, signal, sys
run, log = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1] + ".log")
number = len(log.read_text().splitlines()) + 1 if log.exists() else 1
with log.open("a") as file:
    file.write(json.dumps(sys.argv[2:]) + "\\n")
def save(samples):
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / f"{samples:012d}.safetensors").write_text(str(number))
def tell(state, **more):
    run.mkdir(exist_ok=True)
    (run / "run.json").write_text(json.dumps({"state": state, "try": number, **more}))
def die(number):
    os.kill(os.getpid(), number)
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """The function that supervises a child of a few lines; it returns exit code, what was said, arguments of the tries."""
    run = tmp_path / "run"

    def supervised(script, retries=3, torchrun=None, fresh=False):
        def command(arguments, options=None):
            return [sys.executable, "-c", CHILD + script, str(run), *arguments]

        monkeypatch.setattr(launch, "command_line", command)
        said: list[str] = []
        code = supervise(run, ["--", "gan"], retries=retries, torchrun=torchrun, fresh=fresh, say=said.append)
        log = Path(f"{run}.log")
        tries = [json.loads(line) for line in log.read_text().splitlines()]
        log.unlink()
        return code, said, tries

    return supervised


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT"])
def test_a_death_by_a_signal_that_nobody_sent_through_us_is_tried_again(play, name):
    code, said, tries = play(f"save(number)\nnumber > 1 or die(signal.{name})")
    assert code == 0
    assert len(tries) == 2
    assert "killed by signal" in said[0]
    assert said[1].endswith("000000000001.safetensors")


@pytest.mark.parametrize("code", [7, 8])
def test_memory_disk_and_a_lost_rank_are_tried_again_after_a_new_checkpoint(play, code):
    script = (
        f"tell('failed', exit_code={code}, reason='the reason') or number > 1 or save(9)\nsys.exit({code} * (number < 3))"
    )
    found, said, tries = play(script)
    assert found == code
    assert len(tries) == 2, "the second try saved nothing new"
    assert said[0] == "try 1 of at most 4 ended: the reason"
    assert said[-1].startswith("it saved no checkpoint")


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6])
def test_what_would_end_in_the_same_way_is_not_tried_again(play, code):
    found, said, tries = play(f"save(number)\nsys.exit({code})")
    assert (found, len(tries)) == (code, 1)
    assert said == [
        f"try 1 of at most 4 ended: exit code {code}",
        "it is not tried again, since it would end in the same way",
    ]


def test_the_number_of_retries_is_kept_and_the_exit_code_is_the_last_ones(play):
    code, said, tries = play("save(number)\ndie(signal.SIGKILL if number < 3 else signal.SIGSEGV)", retries=2)
    assert (code, len(tries)) == (128 + signal.SIGSEGV, 3)
    assert said[-1].startswith("no try is left; the same command goes on from ")
    assert said[-1].endswith("000000000003.safetensors")


@pytest.mark.parametrize("state", ["interrupted", "finished"])
def test_a_run_that_somebody_stopped_or_that_is_done_is_left_alone(play, state):
    code, said, tries = play(f"save(number) or tell('{state}')\ndie(signal.SIGKILL)")
    assert (code, said, len(tries)) == (128 + signal.SIGKILL, [], 1)


def test_fresh_is_for_the_first_try_only_and_the_old_runs_checkpoint_is_no_progress(play):
    code, _, tries = play("save(number)\nnumber > 1 or die(signal.SIGKILL)", fresh=True)
    assert (code, tries) == (0, [["--fresh", "--", "gan"], ["--", "gan"]])
    code, said, tries = play("die(signal.SIGKILL)", fresh=True)  # before it set the earlier run aside
    assert (code, len(tries)) == (128 + signal.SIGKILL, 1)
    assert said[-1].startswith("it saved no checkpoint")


def test_a_smaller_checkpoint_than_before_is_progress_where_the_run_began_anew(play):
    play("save(800)")
    script = "import shutil\nnumber > 1 or shutil.rmtree(run / 'checkpoints')\nsave(400 * number)\nnumber > 1 or die(9)"
    code, _, tries = play(script, fresh=True)
    assert (code, len(tries)) == (0, 2)


def test_torchruns_exit_code_is_read_from_run_json(play):
    failed = "save(number) or tell('failed', exit_code=3, reason='the data changed')\nsys.exit(1)"
    code, said, tries = play(failed, torchrun=[])
    assert (code, len(tries)) == (3, 1)
    assert said[0].endswith("ended: the data changed")
    lost = "save(number) or tell('running')\nsys.exit(number < 2)"
    code, said, tries = play(lost, torchrun=[])  # what the earlier run wrote is not this one's
    assert (code, len(tries)) == (0, 2)
    assert said[0].endswith("ended: a process of the launch died")


def test_run_json_of_an_earlier_run_says_nothing_of_this_one(play):
    play("tell('failed', exit_code=3, reason='long ago')\nsys.exit(3)")
    code, said, tries = play("save(5)\nnumber > 1 or sys.exit(1)", torchrun=[])
    assert (code, len(tries)) == (0, 2)
    assert "long ago" not in said[0]


def test_a_folder_that_somebody_took_meanwhile_is_left_to_them(play, tmp_path):
    import platform

    folder = RunFolder(tmp_path / "run")
    script = f"save(number) or tell('running', pid=1, host={platform.node()!r})\nsys.exit(1)"
    with folder.locked(), pytest.raises(RunInUse, match="is in use by process 1"):
        play(script, torchrun=[])
    assert len(Path(f"{folder.path}.log").read_text().splitlines()) == 1


def test_a_signal_between_two_tries_ends_them(play, monkeypatch):
    monkeypatch.setattr(launch, "_free", lambda folder, standing: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    code, said, _ = play("save(number)\nnumber == 1 and die(signal.SIGKILL)\nimport time\ntime.sleep(60)")
    assert code == 128 + signal.SIGTERM
    assert len([text for text in said if text.startswith("try")]) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_as_the_child_dies_ends_the_tries(play):
    code, said, tries = play("save(number)\nos.kill(os.getppid(), signal.SIGTERM)\ndie(signal.SIGKILL)")
    assert (code, said, len(tries)) == (128 + signal.SIGKILL, [], 1)


@pytest.mark.parametrize(
    ("returned", "told", "passed", "code"),
    [
        (1, {"state": "interrupted"}, signal.SIGTERM, 143),  # torchrun returns 1 when it was stopped
        (1, {"state": "interrupted", "exit_code": 130}, 0, 130),
        (1, {"state": "failed", "exit_code": 7}, signal.SIGINT, 7),
        (-9, {}, signal.SIGTERM, 137),
    ],
)
def test_what_ends_after_a_signal_is_not_mendable_and_has_its_code(returned, told, passed, code):
    end = ending(returned, told, torchrun=True, passed=passed)
    assert (end.code, end.mendable) == (code, False)


# -- the command line -----------------------------------------------------------------------------------------------


def test_the_command_that_would_be_run():
    train = ["ganzoo", "train", "--fresh", "--run=here", "--", "gan"]
    assert command_line(train[2:]) == [sys.executable, "-m", *train]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--max-restarts", "0"]
    command = command_line(train[2:], ["--nnodes", "2"])
    assert command == [sys.executable, *launcher, "-m", "--", *train]
    read = get_args_parser().parse_args(command[3:])
    assert [read.training_script, *read.training_script_args] == train
    assert (read.module, read.nnodes, read.max_restarts) == (True, "2", 0)


def asked(monkeypatch, *arguments):
    """Return what the supervisor is given for a command line, and the command's exit code."""
    given = {}

    def supervise(place, arguments, **more):
        given.update(place=place, arguments=arguments, **more)
        return 5

    monkeypatch.setattr(launch, "supervise", supervise)
    code = CliRunner().invoke(cli, ["train", *arguments], standalone_mode=False, catch_exceptions=False).return_value
    return given, code


def test_the_child_gets_everything_that_was_typed_but_the_supervisors_own(monkeypatch):
    line = "gan --retries=2 --torchrun '--nnodes 2 --rdzv-endpoint \"a host:1\"' --set data.size=16 --set=train.batch=8"
    given, code = asked(monkeypatch, *shlex.split(line + " --fresh --seed 3 --json --run=here"))
    assert code == 5
    assert given["torchrun"] == ["--nnodes", "2", "--rdzv-endpoint", "a host:1"]
    assert (given["retries"], given["fresh"], given["place"]) == (2, True, Path("here"))
    sets = ["--set=data.size=16", "--set=train.batch=8", "--seed=3"]
    assert given["arguments"] == [*sets, "--run=here", "--json", "--", "gan"]
    again, _ = asked(monkeypatch, "--retries", "1", *given["arguments"])
    assert again["arguments"] == given["arguments"]
    assert (again["torchrun"], again["fresh"]) == (None, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--retries -1", "-1 is not in the range"),
        ("--retries 1 --dry-run", "--dry-run measures in this process"),
        ("--torchrun '--nnodes \"2'", "cannot be split as a shell would"),
        ("--torchrun '--max_restarts=3'", "use --retries N"),
        ("--torchrun '--max-re 3'", "use --retries N"),
    ],
)
def test_usage_errors(line, message):
    result = CliRunner().invoke(cli, ["train", "gan", *shlex.split(line)])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("line", ["--retries 1", "--torchrun ''"])
def test_a_process_that_torchrun_started_supervises_none(monkeypatch, line):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    result = CliRunner().invoke(cli, ["train", "gan", *shlex.split(line)])
    assert result.exit_code == 2
    assert "torchrun has started this process already; leave --retries and --torchrun out" in result.output


def test_the_child_does_not_look_for_modules_in_the_current_folder_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert launch._environment()["PYTHONSAFEPATH"] == "1"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert "PYTHONSAFEPATH" not in launch._environment()
