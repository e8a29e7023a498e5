"""The command line: exit codes, what goes where, what is imported, and every command once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner
from PIL import Image

import ganzoo
from ganzoo import assemble
from ganzoo.cli.commands import COMMANDS, cli
from ganzoo.cli.start import main
from ganzoo.registry import GROUPS, registry

TINY = """\
summary = "as small as can be"
data = { name = "fashion-mnist-10k", size = 16 }
architecture = { name = "dcgan", width = 2 }
loss = { name = "hinge" }
latent = { size = 8 }
optimizer = { name = "adam", lr = 1e-3 }
train = { batch = 8, samples = 48, ema = 0.5, precision = "fp32" }
"""
QUICK = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONWARNINGS": "error"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    ganzoo.train(str(folder / "tiny.toml"), run=folder / "run", device="cpu")
    return folder / "run"


def ask(*arguments, code=0):
    """Run a command in this process, as `ganzoo` does."""
    result = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    assert (result.return_value or 0) == code
    return result


def ganzoo_command(*arguments, environment=None, **more):
    """Run `python -m ganzoo` in a process of its own."""
    command = [sys.executable, "-m", "ganzoo", *map(str, arguments)]
    return subprocess.run(
        command, env={**QUICK, **(environment or {})}, capture_output=True, text=True, check=False, timeout=120, **more
    )


def exits(capsys, monkeypatch, *arguments):
    """Run `ganzoo` in this process; return exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["ganzoo", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return caught.value.code, shown.out, shown.err


# -- help and lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=lambda one: " ".join(one) or "ganzoo")
def test_every_command_has_help_with_every_option_explained(arguments):
    text = ask(*arguments, "--help").output
    assert text.startswith("Usage: ")
    assert ask(*arguments, "-h").output == text
    for name in COMMANDS if not arguments else ():
        assert f"  {name} " in text
    command = cli.get_command(None, arguments[0]) if arguments else cli
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{parameter.name} has no help"


def test_version():
    assert ask("--version").output.strip() == f"ganzoo, version {ganzoo.__version__}"


def test_list_shows_recipes_and_plugins_of_every_kind():
    text = ask("list").output
    for name in ("dcgan-wgangp", "gradient-penalty", "fashion-mnist-10k", "ganzoo-toolkit"):
        assert name in text
    assert text.splitlines()[0].split() == ["kind", "name", "summary", "package"]


@pytest.mark.parametrize("kind", ["losses", "loss"])
def test_list_of_one_kind(kind):
    rows = ask("list", kind).output.splitlines()[1:]
    assert {row.split()[0] for row in rows} == {"loss"}
    assert {row.split()[1] for row in rows} == {record.name for record in registry().of("loss")}


def test_list_as_json_is_one_document_with_everything():
    found = json.loads(ask("list", "--json").output)
    assert found["problems"] == []
    kinds = {row["kind"] for row in found["plugins"]}
    assert kinds == {"recipe", *GROUPS} - {"zoo"}
    for row in found["plugins"]:
        assert set(row) == {"kind", "name", "summary", "distribution", "version"}
        assert row["summary"], row["name"]


# -- show -----------------------------------------------------------------------------------------------------------


def test_show_tells_the_origin_of_every_value():
    rows = json.loads(ask("show", "dcgan-wgangp", "--set", "train.batch=32", "--json").output)["values"]
    origin = {row["key"]: row["origin"] for row in rows}
    value = {row["key"]: row["value"] for row in rows}
    assert (value["train.batch"], origin["train.batch"]) == ("32", "--set train.batch")
    assert (value["regularizer.gradient-penalty.weight"], value["loss.name"]) == ("10.0", "wasserstein")
    assert origin["loss.name"] == "recipe ganzoo-toolkit:dcgan-wgangp"
    assert origin["train.keep"] == "default of ganzoo"
    assert origin["architecture.kernel"].startswith("default of ganzoo-toolkit")
    table = ask("show", "dcgan-wgangp").output
    assert "recipe ganzoo-toolkit:dcgan-wgangp" in table
    assert "Gulrajani" in table


@pytest.mark.parametrize("name", ["gan-r1", "dcgan", "sngan", "mlp-hinge"])
def test_show_as_toml_is_a_recipe(name, home):
    text = ask("show", name, "--toml").output
    assert tomllib.loads(text)["name"] == name
    (home / "again.toml").write_text(text, encoding="utf-8")
    assert ask("show", "again.toml", "--toml").output == text


def test_show_a_plugin_with_its_options_and_its_paper():
    text = ask("show", "r1").output
    assert "regularizer r1 of ganzoo-toolkit" in text
    assert "arXiv:1801.04406" in text
    assert "gamma" in text
    found = json.loads(ask("show", "r1", "--json").output)
    assert found["options"] == [{"name": "gamma", "type": "float", "default": "10.0"}]
    assert (found["kind"], len(found["sha256"])) == ("regularizer", 64)
    assert "networks that most small GANs" in ask("show", "dcgan", "--kind", "architecture").output


# -- train ----------------------------------------------------------------------------------------------------------


def test_dry_run_shows_recipe_and_cost_and_writes_nothing(home):
    text = ask("train", "tiny.toml", "--device", "cpu", "--dry-run").output
    for part in ('name = "tiny"', "parameters: D ", "measured on cpu (fp32)", "to finish: "):
        assert part in text
    found = json.loads(ask("train", "tiny.toml", "--device", "cpu", "--dry-run", "--json").output)
    assert found["recipe"]["train"]["batch"] == 8
    assert found["stages"][0]["samples_per_round"] == 8
    assert sorted(os.listdir(home)) == ["tiny.toml"]


def test_train_reports_to_standard_error_and_gives_json_on_standard_output(home):
    result = ask("train", "tiny.toml", "--device", "cpu", "--json")
    found = json.loads(result.stdout)
    assert (found["samples"], found["already_finished"]) == (48, False)
    assert (home / found["grid"]).is_file()
    assert "tiny: D " in result.stderr
    assert "48/48 samples (100%)" in result.stderr
    again = ask("train", "tiny.toml", "--device", "cpu")
    assert again.stdout == ""
    assert "is finished (48 samples); use --fresh to train anew" in again.stderr
    assert sorted(os.listdir(home)) == ["runs", "tiny.toml"]


# -- sample ---------------------------------------------------------------------------------------------------------


def test_sample_draws_a_grid_into_the_run(trained):
    place = ask("sample", str(trained), "--device", "cpu", "-n", "9").output.strip()
    assert place == str(trained / "samples-seed0.png")
    with Image.open(place) as picture:
        assert picture.text["recipe"] == "tiny"
        assert picture.width == picture.height


def test_sample_draws_a_folder_of_pictures_that_do_not_depend_on_the_count(trained, tmp_path):
    for count in (2, 5):
        ask("sample", str(trained), "--device", "cpu", "-n", str(count), "--seed", "3", "--out", str(tmp_path / str(count)))
    assert sorted(os.listdir(tmp_path / "5")) == [f"{number:06d}.png" for number in range(5)]
    for number in range(2):
        with Image.open(tmp_path / f"2/{number:06d}.png") as one, Image.open(tmp_path / f"5/{number:06d}.png") as two:
            assert (one.size, one.mode) == ((16, 16), "L")
            assert one.tobytes() == two.tobytes()
            assert one.text["index"] == str(number)


def test_sample_walks_between_samples(trained, tmp_path):
    strips = ask("sample", str(trained), "--device", "cpu", "--interpolate", "--out", str(tmp_path / "walk.png"), "--json")
    assert json.loads(strips.output) == {
        "written": str(tmp_path / "walk.png"),
        "samples": 80,
        "seed": 0,
        "checkpoint": str(trained / "checkpoints" / "000000000048.safetensors"),
    }
    with Image.open(tmp_path / "walk.png") as picture:
        assert picture.width > picture.height


# -- doctor and completion ------------------------------------------------------------------------------------------


def test_doctor_as_json(home):
    result = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False, catch_exceptions=False)
    findings = json.loads(result.output)
    assert {"name", "status", "text", "remedy"} == set(findings[0])
    assert {"ok"} <= {finding["status"] for finding in findings} <= {"ok", "warning", "problem"}
    assert result.return_value == int(any(finding["status"] == "problem" for finding in findings))
    assert all(finding["remedy"] for finding in findings if finding["status"] != "ok")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    text = ask("completion", shell).output
    assert "_GANZOO_COMPLETE" in text
    assert shell in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ganzoo ", set(COMMANDS)),
        ("ganzoo train dcgan", {"dcgan", "dcgan-wgangp"}),
        ("ganzoo train dcgan --loss h", {"hinge"}),
        ("ganzoo train dcgan --regularizer gradient-p", {"gradient-penalty"}),
        ("ganzoo train dcgan --data emo", {"emoji32"}),
    ],
)
def test_completion_knows_commands_recipes_and_plugins(capsys, monkeypatch, words, expected):
    parts = words.split(" ")
    monkeypatch.setenv("_GANZOO_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(parts) - 1))
    code, out, _ = exits(capsys, monkeypatch)
    assert code == 0
    assert {line.partition(",")[2] for line in out.splitlines()} == expected


# -- exit codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "there is no command 'trian'; did you mean 'train'?"),
        (["quite-else"], 2, "there is no command 'quite-else'; there are: train, sample"),
        (["train", "dcgan", "--sede", "3"], 2, "No such option '--sede'"),
        (["train"], 2, "Missing argument"),
        (["train", "dcgan", "--seed", "-1"], 2, "'--seed'"),
        (["list", "loses"], 2, "there is no kind 'loses'; did you mean 'losses'"),
        (["sample", "missing"], 2, "'missing' does not exist"),
        (["train", "tiny.toml", "--device", "cdua"], 2, "device 'cdua' is not known; did you mean 'cuda'"),
        (["train", "dcgn"], 3, "there is no recipe 'dcgn'; did you mean 'dcgan'?"),
        (["show", "dcgan", "--preset", "huge"], 3, "has no preset 'huge'"),
        (["train", "tiny.toml", "--set", "train.bacth=3"], 3, "did you mean 'batch'"),
        (["train", "tiny.toml", "--set", "train.batch"], 3, "write --set KEY=VALUE"),
        (["train", "tiny.toml", "--data", "./missing"], 3, "does not exist"),
        (["train", "tiny.toml", "--set", "optimizer.name='adma'"], 3, "did you mean 'adam'"),
        (["train", "tiny.toml", "--set", "optimizer.G=3"], 3, "optimizer.G"),
        (["train", "tiny.toml", "--set", "train.turns=['D','E']"], 3, "'E' in turns is no player"),
        (["train", "tiny.toml", "--loss", "hing"], 4, "there is no loss 'hing'; did you mean 'hinge'?"),
        (["train", "tiny.toml", "--set", "architecture.widht=3"], 4, "has no option 'widht'; did you mean 'width'?"),
        (["show", "r1", "--kind", "loss"], 4, "'r1' is a regularizer, not a loss"),
        (["sample", "."], 5, "holds no checkpoint"),
        (["sample", "tiny.toml"], 5, "is no safetensors file"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_an_exit_code(home, capsys, monkeypatch, arguments, code, message):
    found, out, err = exits(capsys, monkeypatch, *arguments)
    assert (found, out) == (code, "")
    assert message in " ".join(err.split())


def test_a_diverged_run_exits_with_1(home, capsys, monkeypatch):
    code, out, err = exits(capsys, monkeypatch, "train", "tiny.toml", "--device", "cpu", "--set", "optimizer.lr=1e30")
    assert (code, out) == (1, "")
    assert "lower the learning rate" in err


def test_a_full_place_exits_with_7(home, capsys, monkeypatch):
    (home / "file").write_text("")
    code, _, err = exits(capsys, monkeypatch, "train", "tiny.toml", "--device", "cpu", "--run", "file/run")
    assert code == 7
    assert "choose another --run folder" in err


def test_memory_that_runs_out_exits_with_7(home, capsys, monkeypatch):
    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr(assemble, "dataset", full)
    code, _, err = exits(capsys, monkeypatch, "train", "tiny.toml", "--device", "cpu")
    assert code == 7
    assert "batch 8 does not fit into memory" in err


def test_control_characters_of_a_name_do_not_reach_the_terminal(home, capsys, monkeypatch):
    code, _, err = exits(capsys, monkeypatch, "train", "x\x1b[31mred\x07")
    assert code == 3
    assert "\x1b" not in err
    assert "\x07" not in err


# -- processes of their own -----------------------------------------------------------------------------------------


def test_the_module_is_the_command(home):
    done = ganzoo_command("train", "dcgn")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: there is no recipe 'dcgn'; did you mean 'dcgan'? (see: ganzoo list)\n"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error(arguments):
    command = [sys.executable, "-m", "ganzoo", *arguments]
    with subprocess.Popen(command, env=QUICK, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as lister:
        lister.stdout.close()  # before the first line is written
        assert lister.stderr.read() == b""
    assert lister.returncode in (0, 1)


def test_no_colour_where_none_is_wanted():
    wanted = ganzoo_command("list", environment={"FORCE_COLOR": "1"})
    unwanted = ganzoo_command("list", environment={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    plain = ganzoo_command("list")
    assert "\x1b[" in wanted.stdout
    assert not any(code in unwanted.stdout for code in ("\x1b[3", "\x1b[9"))
    assert "\x1b" not in plain.stdout
    assert [done.returncode for done in (wanted, unwanted, plain)] == [0, 0, 0]


@pytest.fixture
def without_torch(tmp_path):
    """An environment in which importing torch fails."""
    (tmp_path / "stub" / "torch").mkdir(parents=True)
    (tmp_path / "stub" / "torch" / "__init__.py").write_text("raise ImportError('torch was imported')")
    return {"PYTHONPATH": str(tmp_path / "stub")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "--json"],
        ["completion", "bash"],
        ["train", "--help"],
        ["train", "dcgn"],
    ],
    ids=" ".join,
)
def test_torch_is_not_imported_where_nothing_is_computed(arguments, without_torch):
    done = ganzoo_command(*arguments, environment=without_torch)
    assert done.returncode == (3 if "dcgn" in arguments else 0), done.stderr
    assert "torch was imported" not in done.stderr


def test_the_stub_above_would_notice(without_torch):
    done = ganzoo_command("show", "r1", environment=without_torch)
    assert "torch was imported" in done.stderr
