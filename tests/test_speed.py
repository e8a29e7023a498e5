"""`ganzoo speed`: operations counted right, medians and ratios of given lists, whole output; no time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.r1 import R1
from torch import nn

from ganzoo.cli.commands import cli
from ganzoo.cli.speed import NEXT_KEY, TIER, _usual
from ganzoo.cli.start import main
from ganzoo.device import Device
from ganzoo.errors import RunFailed
from ganzoo.flops import FlopCounter
from ganzoo.game import Duel
from ganzoo.registry import registry
from ganzoo.speed import peak, rounds
from ganzoo.speed.figures import Part, Round, parts, ratios, speeds, spread, steady, unmeasured
from ganzoo.speed.measure import hardware, measure, processor
from ganzoo.speed.rounds import counted, lazy, measured, race, timed
from ganzoo.zoo import Request, entries, resolve

TINY = """\
summary = "as small as can be"
data = { name = "fashion-mnist-10k", size = 16 }
architecture = { name = "dcgan", width = 2 }
loss = { name = "hinge" }
latent = { size = 8 }
optimizer = { name = "adam", lr = 1e-3 }
train = { batch = 8, samples = 4800, ema = 0.5, precision = "fp32" }
"""
SMALL = {
    "matrix product": [peak.product(8), peak.product(16)],
    "convolution": [peak.convolution(2, 3, 8, 3, 1, batch=2), peak.convolution(2, 4, 8, 4, 2, batch=2)],
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of its own with the recipe in it, on a machine whose peak is found in no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ganzoo.speed.measure.PEAK_SECONDS", 0.002)
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return tmp_path


def ask(*arguments):
    """Run `ganzoo speed` in this process."""
    return CliRunner().invoke(cli, ("speed", *arguments), standalone_mode=False, catch_exceptions=False)


def exits(capsys, monkeypatch, *arguments):
    """Run `ganzoo speed` as a shell does; return exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["ganzoo", "speed", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr()
    assert shown.out == ""
    return caught.value.code, shown.err


def flops(run) -> int:
    with FlopCounter() as counter:
        run()
    return counter.total


# -- operations counted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "one_pass"),
    [
        (nn.Linear(5, 7), (3, 5), 2 * 3 * 5 * 7),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8), 2 * 2 * 6 * 64 * 4 * 9),
        (nn.Conv2d(4, 6, 4, stride=2, padding=1), (2, 4, 8, 8), 2 * 2 * 6 * 16 * 4 * 16),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 8, 8), 2 * 2 * 6 * 64 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (2, 4, 8, 8), 2 * 2 * 4 * 64 * 6 * 16),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2), (2, 4, 8, 8), 2 * 2 * 4 * 64 * 3 * 16),
        (nn.Conv1d(4, 6, 5), (2, 4, 12), 2 * 2 * 6 * 8 * 4 * 5),
        (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 5), 2 * 2 * 3 * 24 * 2 * 8),
    ],
    ids=lambda one: str(one) if isinstance(one, nn.Module) else "",
)
def test_forward_backward_and_double_backward_cost_what_a_hand_count_says(layer, shape, one_pass):
    x = torch.randn(shape, requires_grad=True)
    assert flops(lambda: layer(x)) == one_pass
    assert flops(lambda: layer(x).sum().backward()) == 3 * one_pass, "forward, the input's gradient, the weight's"
    assert flops(lambda: layer(x.detach()).sum().backward()) == 2 * one_pass, "nobody asks for the input's gradient"
    made = layer(x)
    incoming = torch.randn_like(made, requires_grad=True)
    (slope,) = torch.autograd.grad(made, x, incoming, create_graph=True)
    assert flops(lambda: slope.sum().backward()) == 2 * one_pass, "for the incoming gradient and for the weight"


def test_a_matrix_times_a_vector_and_batches_of_matrices_count():
    matrix, vector = torch.randn(3, 5), torch.randn(5)
    assert flops(lambda: matrix @ vector) == 2 * 3 * 5
    assert flops(lambda: torch.addmv(torch.randn(3), matrix, vector)) == 2 * 3 * 5
    assert flops(lambda: torch.bmm(torch.randn(2, 3, 5), torch.randn(2, 5, 7))) == 2 * 2 * 3 * 5 * 7
    assert flops(lambda: (matrix + 1).relu().sum()) == 0


def test_layers_count_under_inference_mode_too():
    linear, conv = nn.Linear(5, 7), nn.Conv2d(4, 6, 3)
    with torch.inference_mode():
        assert flops(lambda: linear(torch.randn(3, 5))) == 2 * 3 * 5 * 7
        assert flops(lambda: conv(torch.randn(2, 4, 8, 8))) == 2 * 2 * 6 * 36 * 4 * 9


def test_a_penalty_with_its_own_forward_costs_four_passes_a_layer_less_the_weightless_ones():
    """Forward, its gradient for the input, then for the weight and for the next gradient.

    The last layer's incoming gradient is made of ones, whose gradient nobody asks for.
    """
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4))
    net = nn.Sequential(*layers, nn.Flatten(0))
    duel = Duel(net, torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16))
    first, middle, last = 2 * 2 * 4 * 64 * 3 * 16, 2 * 2 * 8 * 16 * 4 * 16, 2 * 2 * 1 * 1 * 8 * 16
    assert flops(lambda: GradientPenalty().penalty(duel).backward()) == 4 * (first + middle + last) - last


def hand_count(batch: int = 8) -> dict[str, int]:
    """What a round of the smallest networks costs: G is linear, 8-32-256, D a convolution and linear, 32-16-1."""
    g = [2 * batch * 8 * 32, 2 * batch * 32 * 256]
    d = [2 * batch * 8 * 64 * 9, 2 * batch * 32 * 16, 2 * batch * 16 * 1]
    weights, inputs = sum(d), sum(d[1:])  # D's first layer has no need of its input's gradient
    return {
        "D": sum(g) + 2 * (sum(d) + weights + inputs),  # fakes are made once; real and fake are judged
        "G": sum(d) + sum(d) + sum(g) + g[1],  # the same fakes, judged by a D that is not trained
    }


def test_a_round_costs_what_a_hand_count_says(make):
    found = counted(make())
    expected = hand_count()
    assert dict(found.parts) == {"data": 0, **expected, "after": 0}
    assert found.total == sum(expected.values())


def test_counting_changes_nothing_of_the_training(make):
    one, other = make(), make()
    counted(one)
    other.round()
    for name, value in one.nets["D"].state_dict().items():
        assert torch.equal(value, other.nets["D"].state_dict()[name]), name


# -- rounds ---------------------------------------------------------------------------------------------------------


def test_a_meter_is_read_around_the_round_and_each_of_its_parts(make):
    trainer = make(raw={"train": {"turns": ["D", "D", "G"]}})
    before, ticks = trainer.span, count()
    found = measured(trainer, lambda: float(next(ticks)))
    assert [name for name, _ in found.parts] == ["data", "D", "D", "G", "after"]
    assert {value for _, value in found.parts} == {1.0}
    assert (found.total, found.samples) == (2 * len(found.parts) + 1, 16)
    assert trainer.span is before


def test_the_parts_take_at_most_the_round(make):
    trainer = make()
    for _ in range(3):
        one = timed(trainer)
        assert 0 < sum(value for _, value in one.parts) <= one.total


def test_lazy_phases_are_named_as_their_spans_are_and_come_when_they_are_asked_for(make):
    trainer = make(regularizers={"it": R1}, raw={"regularizer": {"it": {"every": 16}}, "train": {"turns": ["D", "D", "G"]}})
    assert lazy(trainer) == {"D/it": 2 / 16}
    assert "D/it" in dict(timed(trainer).parts)
    assert "D/it" not in dict(timed(trainer).parts)
    assert "D/it" in dict(counted(trainer).parts)
    (found,) = race([trainer], 2, 60.0)
    assert ["D/it" in dict(one.parts) for one in found] == [True, False]


def test_trainers_play_by_turns_and_at_least_one_round(make, monkeypatch):
    played = []
    trainers = [make(), make(), make()]
    monkeypatch.setattr(rounds, "timed", lambda trainer: played.append(trainers.index(trainer)) or Round(1.0, 8))
    assert [len(mine) for mine in race(trainers, 2, 60.0)] == [2, 2, 2]
    assert played == [0, 1, 2, 0, 1, 2]
    assert [len(mine) for mine in race(trainers, 5, 1e-9)] == [1, 1, 1]


# -- figures --------------------------------------------------------------------------------------------------------

ROUNDS = [
    Round(11.0, 10, (("data", 1.0), ("D", 2.0), ("D", 4.0), ("D/lazy", 3.0))),
    Round(10.0, 10, (("data", 2.0), ("D", 3.0), ("D", 4.0))),
    Round(9.0, 10, (("data", 1.0), ("D", 3.0), ("D", 5.0))),
]


def test_parts_are_medians_of_turns_and_of_rounds():
    assert parts(ROUNDS, {"D/lazy": 0.5}) == [
        Part("data", 1.0, 1.0, 1.0),
        Part("D", 2.0, 3.5, 7.0),
        Part("D/lazy", 0.5, 3.0, 1.5),
    ]


def test_a_lazy_phase_is_spread_over_all_rounds():
    assert steady(ROUNDS, {"D/lazy": 0.5}) == [9.5, 11.5, 10.5]
    assert steady(ROUNDS, {}) == [11.0, 10.0, 9.0]
    assert speeds(ROUNDS, {}) == [10 / 11, 1.0, 10 / 9]


def test_a_lazy_phase_of_recorded_rounds_costs_what_makes_them_longer():
    """G/path comes every second round and D/r1, which is never alone, every fourth: they cost 2 and 5 of 10."""
    found = [Round(17.0, 8, due=("D/r1", "G/path")), Round(10.0, 8), Round(12.0, 8, due=("G/path",))]
    found += [Round(30.0, 8), Round(10.0, 8)]  # another process was busy: the median of its kind does not follow
    share = 5.0 / 4 + 2.0 / 2
    assert unmeasured(found) == pytest.approx({"D/r1": 5.0, "G/path": 2.0})
    assert steady(found, {"D/r1": 0.25, "G/path": 0.5}) == pytest.approx([10 + share] * 3 + [30 + share, 10 + share])


def test_phases_that_the_rounds_cannot_tell_apart_count_as_they_came():
    together = [Round(17.0, 8, due=("D/r1", "G/path")), Round(10.0, 8)]
    assert unmeasured(together) == {"D/r1": 0.0, "G/path": 0.0}
    assert steady(together, {"D/r1": 0.25, "G/path": 0.25}) == [17.0, 10.0]
    assert unmeasured([Round(17.0, 8, due=("D/r1",))]) == {"D/r1": 0.0}


def test_ratios_are_those_of_neighbours():
    found = ratios([1.0, 10.0, 4.0, 2.0, 1.0], [2.0, 10.0, 2.0, 6.0, 4.0])
    assert (found.least, found.lower, found.median, found.upper, found.most) == (0.5, 1.0, 2.0, 3.0, 4.0)
    assert set(vars(spread([3.0])).values()) == {3.0}


# -- the machine's peak ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [work for works in SMALL.values() for work in works], ids=lambda work: work.name)
def test_what_the_peak_is_measured_with_costs_what_it_says(work):
    one, other = (torch.randn(shape) for shape in work.shapes)
    assert flops(lambda: work.run(one, other)) == work.flops


def test_the_fastest_is_found_and_too_large_work_is_not_begun(monkeypatch):
    begun = []

    def times(work, device, seconds):
        begun.append(work.name)
        return [{"slow": 2.0, "fast": 1.0, "small": 1.0}[work.name]]

    monkeypatch.setattr(peak, "_times", times)
    sizes = {"slow": 100, "fast": 150, "small": 1, "huge": 100_000}
    works = [peak.Work(name, ((1,), (1,)), torch.mul, size) for name, size in sizes.items()]
    found = peak.fastest(works, Device.choose("cpu", "fp32"), 40.0)
    assert found == peak.Rate("fast", 150.0)
    assert begun == ["slow", "fast", "small"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peak_has_every_kind_and_the_better_of_two_is_kept(precision):
    found = peak.measure(Device.choose("cpu", precision), 0.001, SMALL)
    assert set(found) == set(peak.KINDS)
    for kind, rate in found.items():
        assert rate.flops_per_second > 0
        assert rate.name in {work.name for work in SMALL[kind]}
    one = {"a": peak.Rate("one", 3.0), "b": peak.Rate("one", 1.0)}
    other = {"a": peak.Rate("other", 2.0), "b": peak.Rate("other", 4.0)}
    assert peak.better(one, other) == {"a": one["a"], "b": other["b"]}
    assert peak.larger(peak.better(one, other)) == "b"


# -- the command ----------------------------------------------------------------------------------------------------


def test_json_is_one_whole_document_and_nothing_is_written(home):
    result = ask("tiny.toml", "--device", "cpu", "--rounds", "2", "--compare", "train.batch=4,train.turns=['D', 'D', 'G']",
                 "--json")  # fmt: skip
    found = json.loads(result.stdout)
    assert "measuring tiny.toml, train.batch=4" in result.stderr
    assert set(found) == {"hardware", "recipes"}
    assert found["hardware"] == hardware("cpu")
    assert set(found["hardware"]) == {"device", "processor", "threads", "torch", "ganzoo"}
    (recipe,) = found["recipes"]
    assert (recipe["recipe"], recipe["device"]) == ("tiny", "cpu")
    assert recipe["memory_bytes"] > 0
    assert set(recipe["peaks"]) == {"fp32"}
    one, other = recipe["variants"]
    assert (one["name"], one["samples_per_round"], one["rounds"], one["precision"]) == ("as it is", 8, 2, "fp32")
    assert (other["name"], other["samples_per_round"]) == ("train.batch=4,train.turns=['D', 'D', 'G']", 8)
    assert set(one["ratio"].values()) == {1.0}
    assert other["ratio"]["least"] <= other["ratio"]["median"] <= other["ratio"]["most"]
    assert [part["name"] for part in one["parts"]] == ["data", "D", "G", "after"]
    assert [part["turns"] for part in other["parts"]] == [1, 2, 1, 1]
    for variant in (one, other):
        best = max(rate["flops_per_second"] for rate in recipe["peaks"]["fp32"].values())
        assert variant["flops_per_round"] == sum(part["flops_per_round"] for part in variant["parts"]) > 0
        assert variant["peak_share"] == pytest.approx(variant["flops_per_round"] / variant["seconds_per_round"] / best)
        assert 0 < variant["data_share"] < 1
        assert variant["images_per_second"]["least"] <= variant["images_per_second"]["most"]
        assert isinstance(variant["first_round_seconds"], float)
    assert sorted(os.listdir(home)) == ["tiny.toml"]


def test_tables_show_everything(home):
    text = ask("tiny.toml", "--device", "cpu", "--rounds", "1", "--compare", "train.precision=bf16").stdout
    shown = ("tiny A (as it is): fp32, 8 samples a round, rounds measured: 1", "tiny B (train.precision=bf16): bf16",
             "ms a turn", "GFLOP", "of the peak", "ratio to A", "read them as no difference", "first round", "memory",
             "machine: device cpu", "fp32, the peak: ", "bf16, the peak: ", "beside it: ")  # fmt: skip
    for part in shown:
        assert part in text, part
    assert text.count("read them as no difference") == 1
    alone = ask("tiny.toml", "--device", "cpu", "--rounds", "1").stdout
    assert "ratio to A" not in alone
    assert "tiny: fp32" in alone


def test_waiting_for_data_is_marked_above_its_limit(home, monkeypatch):
    monkeypatch.setattr("ganzoo.cli.speed.WAITING", 0.0)
    assert "% !" in ask("tiny.toml", "--device", "cpu", "--rounds", "1").stdout
    monkeypatch.setattr("ganzoo.cli.speed.WAITING", 1.0)
    assert "!" not in ask("tiny.toml", "--device", "cpu", "--rounds", "1").stdout


def test_without_a_name_the_recipes_for_any_machine_are_measured():
    known = registry()
    tiers = {entry.qualified: resolve(entry.qualified, Request(), known).raw.get("tier") for entry in entries(known)}
    assert _usual(known) == [name for name, tier in tiers.items() if tier == TIER] != []


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("train.batch=8", ["train.batch=8"]),
        ("train.batch=8,loss.name=hinge", ["train.batch=8", "loss.name=hinge"]),
        ('train.turns=["D", "G"], train.batch=8', ['train.turns=["D", "G"]', " train.batch=8"]),
        ("optimizer.lr={from = 1.0, to = 0.0},train.ema=0", ["optimizer.lr={from = 1.0, to = 0.0}", "train.ema=0"]),
    ],
)
def test_settings_of_a_variant_are_told_apart_from_lists(text, settings):
    assert NEXT_KEY.split(text) == settings


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["no-such-recipe"], 3, "there is no recipe 'no-such-recipe'"),
        (["tiny.toml", "--compare", "train.bach=3"], 3, "did you mean 'batch'?"),
        (["tiny.toml", "--compare", "train.batch"], 3, "--set 'train.batch' has no value"),
        (["tiny.toml", "--rounds", "0"], 2, "'--rounds': 0 is not in the range x>=1"),
        (["tiny.toml", "--seconds", "0"], 2, "'--seconds': 0.0 is not in the range x>0"),
        (["tiny.toml", "--device", "toaster"], 2, "device 'toaster' is not known"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(home, capsys, monkeypatch, arguments, code, sentence):
    found, shown = exits(capsys, monkeypatch, *arguments)
    assert found == code
    assert sentence in shown
    assert "Traceback" not in shown


def test_of_a_recipe_of_stages_the_longest_is_measured(monkeypatch):
    seen = []

    def spy(trainer):
        progress = trainer.plan.at(trainer.samples, trainer.rounds)[0]
        seen.append((progress.stage, progress.size))
        return counted(trainer)

    monkeypatch.setattr("ganzoo.speed.measure.counted", spy)
    sizes = {f"stages.{number}.size": size for number, size in enumerate((4, 16, 8, 8))}
    lengths = {"stages.1.samples": 900, "train.samples": 1000}  # the second is the longest then
    small = {"data.size": 16, "architecture.channel_base": 64, "latent.size": 8, "train.batch": 4}
    values = {**{f"stages.{number}.samples": 100 for number in (0, 2, 3)}, **sizes, **lengths, **small}
    known = registry()
    measure({"as it is": resolve("progan", Request(values=values), known)}, known, "cpu", 1, 0.1)
    assert seen == [(1, 16)]


def test_a_training_that_diverges_is_no_speed(home):
    known = registry()
    recipe = resolve("tiny.toml", Request(sets=("optimizer.lr=1e38",)), known)
    with pytest.raises(RunFailed, match="became"):
        measure({"as it is": recipe}, known, "cpu", 3, 60.0)


def test_help_imports_no_torch():
    program = "import sys; sys.argv = ['ganzoo', 'speed', '--help']\nfrom ganzoo.cli.start import _run\n"
    program += "code = _run(); assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--compare" in done.stdout


def test_the_processor_has_a_name(tmp_path):
    table = tmp_path / "cpuinfo"
    table.write_text("processor\t: 0\nmodel name\t: Some CPU 3\n", encoding="utf-8")
    assert processor(table) == "Some CPU 3"
    assert processor(tmp_path / "none")


def test_convolutions_of_the_peak_are_those_that_were_asked_for():
    x, weight = torch.randn(2, 2, 8, 8), torch.randn(4, 2, 4, 4)
    made = peak.convolution(2, 4, 8, 4, 2, batch=2).run(x, weight)
    assert torch.equal(made, F.conv2d(x, weight, stride=2, padding=1))
    assert made.shape == (2, 4, 4, 4)


def test_peaks_are_measured_as_rounds_multiply(monkeypatch):
    """On CUDA, float32 convolutions would be rounded otherwise."""
    inside = []

    @contextmanager
    def numerics(device):
        inside.append(True)
        yield
        inside.pop()

    seen = []
    monkeypatch.setattr(Device, "numerics", numerics)
    work = peak.Work("nothing", ((1,), (1,)), lambda one, other: seen.append(bool(inside)), 1)
    peak.measure(Device(torch.device("cpu")), 0.0, {"matrix product": [work]})
    assert seen
    assert all(seen)
