"""The checks themselves: each kind of mistake is named by one broken promise, in one sentence that says what to mend."""

from __future__ import annotations

import ast
import json
import os
import random
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ganzoo_plugins.games.adversarial import Adversarial
from ganzoo_plugins.losses.hinge import Hinge
from ganzoo_plugins.regularizers.r1 import R1
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ganzoo import testing
from ganzoo.api import Architecture, Extractor, Loss, PluginError, Regularizer, TensorDataset
from ganzoo.cli.commands import cli
from ganzoo.registry import registry
from ganzoo.testing import ContractError, check_plugin, check_recipe, checks, results
from ganzoo.testing.checking import CHAPTERS
from ganzoo.testing.imports import imported
from ganzoo.testing.tiny import TinyDiscriminator, TinyGenerator, TinyLoss, tiny_data

ROOT = Path(__file__).parents[1]


def broken(kind, plugin):
    return [one for one in results("it", checks(kind, plugin)) if one.result == "broken"]


class Right(Architecture):
    """Small networks without a mistake (Somebody 2026)."""

    def generator(self, spec):
        if spec.shape[-1] != 16:
            raise PluginError("architecture 'right' makes 16 pixels")
        return TinyGenerator(spec)

    def discriminator(self, spec):
        if spec.shape[-1] != 16:
            raise PluginError("architecture 'right' judges 16 pixels")
        return TinyDiscriminator(spec)


class Twice(TinyGenerator):
    def forward(self, z, label=None):
        return super().forward(z, label) * 2


class Louder(Right):
    """Samples that leave the range (Somebody 2026)."""

    def generator(self, spec):
        return Twice(spec)


class Column(TinyDiscriminator):
    def forward(self, x, label=None):
        return super().forward(x, label).logits[:, None, None]


class Columns(Right):
    """Logits with an axis too many (Somebody 2026)."""

    def discriminator(self, spec):
        super().discriminator(spec)
        return Column(spec)


class Doubled(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient.clone().mul_(2)


class OnceDiscriminator(TinyDiscriminator):
    def forward(self, x, label=None):
        return super().forward(Doubled.apply(x), label)


class Once(Right):
    """A backward that works in place and so cannot be differentiated (Somebody 2026)."""

    def discriminator(self, spec):
        super().discriminator(spec)
        return OnceDiscriminator(spec)


class Idle(Right):
    """A parameter that nothing uses (Somebody 2026)."""

    def generator(self, spec):
        net = super().generator(spec)
        net.idle = nn.Parameter(torch.zeros(3))
        return net


class NoisyGenerator(TinyGenerator):
    def forward(self, z, label=None):
        noise = np.random.standard_normal(z.shape) if self.training else np.zeros(z.shape)
        return super().forward(z + torch.as_tensor(noise, dtype=z.dtype), label)


class Noisy(Right):
    """Noise from numpy's global generator (Somebody 2026)."""

    def generator(self, spec):
        return NoisyGenerator(spec)


class UnseededGenerator(TinyGenerator):
    def forward(self, z, label=None):
        noise = np.random.default_rng().standard_normal(z.shape) if self.training else np.zeros(z.shape)
        return super().forward(z + torch.as_tensor(noise, dtype=z.dtype), label)


class Unseeded(Right):
    """Noise from a generator that nobody seeds (Somebody 2026)."""

    def generator(self, spec):
        return UnseededGenerator(spec)


class NormedDiscriminator(TinyDiscriminator):
    def __init__(self, spec):
        super().__init__(spec)
        self.conv = nn.Sequential(self.conv, nn.BatchNorm2d(8))


class Normed(Right):
    """A discriminator that mixes samples (Somebody 2026)."""

    expected_failures: ClassVar = {"accumulation-equals-the-batch": "batch norm"}

    def discriminator(self, spec):
        super().discriminator(spec)
        return NormedDiscriminator(spec)


class Raising(Right):
    """Networks that raise an error of nobody's making (Somebody 2026)."""

    def discriminator(self, spec):
        raise KeyError("width")


class Sum(Regularizer):
    """A penalty for each sample in place of their mean (Somebody 2026)."""

    def penalty(self, duel):
        return duel.input_gradient("real").square().sum(1)


class Root(Regularizer):
    """A norm whose slope at zero is infinite (Somebody 2026)."""

    def penalty(self, duel):
        return duel.input_gradient("real").square().sum(1).sqrt().mean()


class Jitter(Regularizer):
    """A view with Python's generator (Somebody 2026)."""

    def view(self, x):
        return x * random.uniform(0.9, 1.1)


class Meddler(Regularizer):
    """Shrinks the generator in every turn (Somebody 2026)."""

    side = "both"

    def __init__(self):
        super().__init__()
        self.nets = []

    def prepare(self, net):
        self.nets.append(net)

    @torch.no_grad()
    def after_step(self, nets):
        for net in self.nets:
            for parameter in net.parameters():
                parameter.mul_(0.99)


class Untyped(Loss):
    """An option without an annotation (Somebody 2026)."""

    discriminator, generator = TinyLoss.discriminator, TinyLoss.generator

    def __init__(self, *, height=1.0):
        super().__init__()
        self.height = height


class Unkept(Untyped):
    """An option that is not stored (Somebody 2026)."""

    def __init__(self, *, height: float = 1.0):
        Loss.__init__(self)


class Unfit(Untyped):
    """A default that is not what its annotation says (Somebody 2026)."""

    def __init__(self, *, height: int = 0.5):
        Loss.__init__(self)
        self.height = height


class Unsourced(TinyLoss):
    """A loss that somebody made up."""


class Undocumented(TinyLoss):
    pass


class Positional(TinyLoss):
    """An option that may be given by position (Somebody 2026)."""

    def __init__(self, height: float = 1.0):
        super().__init__()
        self.height = height


class Forgetful(TinyLoss):
    """State in a Python attribute (Somebody 2026)."""

    def __init__(self):
        super().__init__()
        self.k = 0.0

    def discriminator(self, real, fake):
        return super().discriminator(real, fake) * (1 + self.k)

    def observe(self, real, fake):
        self.k = self.k + float(real.mean()) ** 2


class Vector(TinyLoss):
    """A loss for each sample (Somebody 2026)."""

    def generator(self, fake, real):
        return nn.functional.softplus(-fake)


class Homeless(Adversarial):
    """A network that no player owns (Somebody 2026)."""

    roles: ClassVar = {"G": "generator", "D": "discriminator", "E": "encoder"}


class Chancy(Adversarial):
    """Turns that follow numpy's global generator (Somebody 2026)."""

    def play(self, nets, batch, z, acting):
        return super().play(nets, batch, z * float(np.random.uniform(0.5, 1)), acting)


MISTAKES = [
    ("architecture", Louder, "samples-fit-the-spec", r"expected samples in \[-1, 1\]; found 1\.\d+"),
    ("architecture", Columns, "logits-are-one-row-a-sample", r"expected finite logits \[4\].*found \(4, 1, 1\)"),
    ("architecture", Once, "discriminator-is-differentiable-twice", r"found RuntimeError: .*once_differentiable"),
    ("architecture", Idle, "gradients-reach-everything", r"every parameter of the generator; found none for \['idle'\]"),
    ("architecture", Noisy, "randomness-is-seeded", r"numpy's global generator to be left alone"),
    ("architecture", Unseeded, "randomness-is-seeded", r"expected the same numbers from the same seed"),
    ("architecture", Normed, "samples-are-judged-alone", r"found a discriminator that mixes samples"),
    ("architecture", Raising, "builds-somewhere", r"found KeyError: 'width'"),
    ("regularizer", Sum, "penalties-are-scalars", r"expected a finite scalar penalty, or None; found \(4,\)"),
    ("regularizer", Root, "penalties-are-scalars", r"expected finite gradients of a flat discriminator"),
    ("regularizer", Jitter, "randomness-is-seeded", r"Python's `random` to be left alone"),
    ("regularizer", Meddler, "only-the-acting-player-moves", r"a turn of 'D' to leave 'G' alone; found a change"),
    ("loss", Untyped, "options-are-typed", r"expected an annotation of option 'height'; found none"),
    ("loss", Unkept, "options-are-typed", r"expected option 'height' kept as an attribute"),
    ("loss", Unfit, "options-are-typed", r"'height' must be a whole number, not 0.5"),
    ("loss", Positional, "options-are-keyword-only", r"'height' of Positional is not keyword-only"),
    ("loss", Unsourced, "documented", r"expected a source in the docstring"),
    ("loss", Undocumented, "documented", r"expected a docstring whose first line"),
    ("loss", Forgetful, "state-lives-in-buffers", r"found others: some state is in no buffer"),
    ("loss", Vector, "both-sides-are-scalars", r"expected a finite scalar from 'generator'; found \(6,\)"),
    ("game", Homeless, "teams-own-the-networks", r"expected teams that own \['D', 'E', 'G'\]; found \['D', 'G'\]"),
    ("game", Chancy, "randomness-is-seeded", r"numpy's global generator to be left alone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "plugin", "promise", "sentence"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_mistake_is_named_by_one_promise(kind, plugin, promise, sentence):
    found = broken(kind, plugin)
    assert [one.promise for one in found] == [promise], found
    assert re.search(sentence, found[0].found), found[0].found
    assert "(see docs/writing-plugins.md, " in found[0].found


@pytest.mark.parametrize(
    ("kind", "plugin"), [("architecture", Right), ("loss", Hinge), ("regularizer", R1), ("game", Adversarial)]
)
def test_what_is_right_breaks_no_promise(kind, plugin):
    assert {one.result for one in results("it", checks(kind, plugin))} == {"ok"}
    getattr(testing, f"check_{kind}")(plugin)


def test_promises_wait_for_what_they_presuppose():
    found = {one.promise: one for one in results("it", checks("game", Homeless))}
    assert found["resume-is-bit-exact"].result == "unchecked"
    assert found["resume-is-bit-exact"].found == "waits for teams-own-the-networks"
    with pytest.raises(ContractError, match="teams that own"):
        testing.check_game(Homeless)


def test_an_excuse_is_shown_and_must_be_true():
    found = {one.promise: (one.result, one.found) for one in results("it", checks("architecture", Normed))}
    assert found["accumulation-equals-the-batch"] == ("unchecked", "waits for samples-are-judged-alone")

    class Excused(Normed):
        """Says so (Somebody 2026)."""

        expected_failures: ClassVar = {**Normed.expected_failures, "samples-are-judged-alone": "batch norm mixes"}

    found = {one.promise: (one.result, one.found) for one in results("it", checks("architecture", Excused))}
    assert found["samples-are-judged-alone"] == ("excused", "batch norm mixes")
    assert found["accumulation-equals-the-batch"] == ("excused", "batch norm")
    assert {result for result, _ in found.values()} == {"ok", "excused"}

    class Modest(Hinge):
        """Excuses what it can do (Somebody 2026)."""

        expected_failures: ClassVar = {"trains-in-bf16": "never tried"}

    (one,) = broken("loss", Modest)
    assert (one.promise, one.found) == (
        "trains-in-bf16", "it is kept, though expected_failures says 'never tried'; take that out"
    )  # fmt: skip


# -- datasets and extractors ------------------------------------------------------------------------------------------


def outside():
    data = tiny_data(classes=2)
    data.labels = data.labels + 1
    return data


def brightest():
    class Relative(TensorDataset):
        def batch(self, index):
            batch = super().batch(index)
            batch.real = batch.real.float() / batch.real.max() * 2 - 1
            return batch

    data = tiny_data()
    return Relative(data.samples)


def shuffled():
    class Shuffled(TensorDataset):
        def batch(self, index):
            batch = super().batch(index)
            batch.real = batch.real.flip(-1) if random.random() < 2 else batch.real
            return batch

    return Shuffled(tiny_data().samples)


@pytest.mark.parametrize(
    ("data", "promise", "sentence"),
    [
        (outside, "batches-fit-the-spec", "expected int64 labels from 0 to 1; found torch.int64, 2"),
        (brightest, "samples-stand-at-their-index", "expected sample 1 to be the same in every batch"),
        (shuffled, "randomness-is-seeded", "Python's `random` to be left alone"),
    ],
)
def test_a_dataset_s_mistake_is_named(data, promise, sentence):
    (found,) = broken("dataset", data())
    assert found.promise == promise
    assert sentence in found.found


class Pooled(Extractor):
    """Mean colours, through weights that are always the same (Somebody 2026)."""

    id = "pooled@01234567"

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)
        nn.init.ones_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.eval()

    def forward(self, images):
        return self.linear(images.float().mean((2, 3)) / 255)


class Centred(Pooled):
    """Features that follow from the whole batch (Somebody 2026)."""

    def forward(self, images):
        features = super().forward(images)
        return features - features.mean(0)


class Anonymous(Pooled):
    """An id without a hash (Somebody 2026)."""

    id = "pooled"


class Drawn(Pooled):
    """Weights of chance under one id (Somebody 2026)."""

    def __init__(self):
        super().__init__()
        nn.init.normal_(self.linear.weight)


class Awake(Pooled):
    """An extractor in training mode (Somebody 2026)."""

    def __init__(self):
        super().__init__()
        self.train()


class Flat(Pooled):
    """Features without an axis for the samples (Somebody 2026)."""

    def forward(self, images):
        return super().forward(images).flatten()


class Drawing(Pooled):
    """An extractor that draws (Somebody 2026)."""

    def forward(self, images):
        torch.rand(1)
        return super().forward(images)


@pytest.mark.parametrize(
    ("plugin", "promise", "sentence"),
    [
        (Centred, "features-follow-from-one-image", "the same features alone as in a batch"),
        (Awake, "features-follow-from-one-image", "expected an extractor in eval mode"),
        (Anonymous, "identity-names-the-weights", "expected an id with a hash of the weights; found 'pooled'"),
        (Drawn, "identity-names-the-weights", "expected the same features under the same id"),
        (Flat, "features-are-rows", "expected float features [4, F]; found torch.float32 (20,)"),
        (Drawing, "features-draw-nothing", "expected torch's generator left alone"),
    ],
)
def test_an_extractor_s_mistake_is_named(plugin, promise, sentence):
    (found,) = broken("extractor", plugin)
    assert found.promise == promise
    assert sentence in found.found


def test_an_extractor_without_a_mistake():
    testing.check_extractor(Pooled)
    assert not broken("extractor", Pooled)


# -- imports ----------------------------------------------------------------------------------------------------------

SOURCES = {
    "fine": "import torch\nfrom ganzoo.api import Loss\n",
    "loud": "print('welcome to loud 1.0')",
    "louder": "import sys; sys.stderr.write('careful!')",
    "exits": "import sys; sys.exit(3)",
    "dies": "import os; os._exit(7)",
    "raises": "raise OSError('no such weights')",
    "lacks": "import no_such_package_anywhere.inner",
    "moves": "import os; os.chdir('/')",
    "sets": "import os; os.environ['OMP_NUM_THREADS'] = '1'",
    "filters": "import warnings; warnings.simplefilter('ignore')",
    "seeds": "import torch; torch.manual_seed(3)",
    "halves": "import torch; torch.set_default_dtype(torch.float64)",
    "threads": "import torch; torch.set_num_threads(torch.get_num_threads() + 1)",
    "hangs": "import time; time.sleep(60)",
    "last": "",
}
SAID = {
    "fine": "",
    "loud": "bad_loud prints 'welcome to loud 1.0'",
    "louder": "bad_louder prints 'careful!'",
    "exits": "bad_exits calls sys.exit(3)",
    "dies": "bad_dies ends the process (exit status 7: it printed nothing)",
    "raises": "bad_raises raises OSError: no such weights",
    "lacks": "bad_lacks needs the package 'no_such_package_anywhere', which is not installed; declare it",
    "moves": "bad_moves changes the current folder",
    "sets": "bad_sets changes environment variables",
    "filters": "bad_filters changes the filters of warnings",
    "seeds": "bad_seeds changes the state of torch's generator",
    "halves": "bad_halves changes torch's default dtype",
    "threads": "bad_threads changes torch's number of threads",
    "hangs": "bad_hangs did not finish within 2 s",
    "last": "",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the import path of this process and its children; the registry is read anew, before and after."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    monkeypatch.undo()
    registry(refresh=True)


def test_what_an_import_does_is_named(folder):
    for name, source in SOURCES.items():
        (folder / f"bad_{name}.py").write_text(source)
    assert imported([f"bad_{name}" for name in SOURCES], seconds=2) == {f"bad_{name}": text for name, text in SAID.items()}


def package(folder, sources, entry_points):
    info = folder / "mistaken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: mistaken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for name, source in sources.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(source)
    registry(refresh=True)


PLAIN = '''
from ganzoo.testing import TinyLoss

class Plain(TinyLoss):
    """A loss that is as it should be (Somebody 2026)."""

class Needy(TinyLoss):
    """A loss with an option that must be given (Somebody 2026)."""

    def __init__(self, *, height: float) -> None:
        super().__init__()
        self.height = height

def absent(*, split: str = "train"):
    """Data that is not on this machine (Somebody 2026)."""
    from ganzoo.api import DataError

    raise DataError("dataset 'absent' is not here; download it")
'''
POINTS = """[ganzoo.losses]
plain = mistaken_plain:Plain
needy = mistaken_plain:Needy
loud = mistaken_loud:Plain
no-loss = mistaken_plain:absent
[ganzoo.datasets]
absent = mistaken_plain:absent
[ganzoo.zoo]
mistaken = mistaken_zoo
"""
RECIPE = """summary = "R1 before batch norm"
[data]
name = "fashion-mnist-10k"
size = 32
[architecture]
name = "mlp"
[loss]
name = "hinge"
[[regularizer]]
name = "r1"
[optimizer]
name = "adam"
lr = 1e-4
"""


@pytest.fixture
def mistaken(folder):
    sources = {
        "mistaken_plain.py": PLAIN,
        "mistaken_loud.py": f"print('hello')\n{PLAIN}",
        "mistaken_zoo/__init__.py": "",
        "mistaken_zoo/mixed.toml": RECIPE,
        "mistaken_zoo/right.toml": RECIPE.replace('"mlp"', '"mlp"\ndiscriminator_norm = "none"'),
    }
    package(folder, sources, POINTS)
    return folder


def test_a_whole_package_is_checked(mistaken):
    found = list(check_plugin("mistaken"))
    wrong = {(one.kind, one.name, one.promise): one.found for one in found if one.result == "broken"}
    assert set(wrong) == {
        ("loss", "loud", "import-is-quiet-and-quick"),
        ("loss", "no-loss", "entry-point-fits-its-kind"),
        ("recipe", "mixed", "penalised-samples-are-judged-alone"),
    }
    assert "mistaken_loud prints 'hello'" in wrong["loss", "loud", "import-is-quiet-and-quick"]
    assert "is no subclass of ganzoo.api.Loss" in wrong["loss", "no-loss", "entry-point-fits-its-kind"]
    mixed = wrong["recipe", "mixed", "penalised-samples-are-judged-alone"]
    assert "found 'r1' before network 'D', which mixes samples" in mixed
    unchecked = {one.name: one.found for one in found if one.result == "unchecked"}
    assert "functools.partial(Needy, height=...)" in unchecked["needy"]
    assert unchecked["absent"] == "dataset 'absent' is not here; download it"
    assert ("package", "mistaken", "listing-imports-nothing", "ok", "") in [
        (one.kind, one.name, one.promise, one.result, one.found) for one in found
    ]
    assert [one.result for one in check_recipe("mistaken:right")] == ["ok"] * 3


def test_broken_entry_points_are_named(folder):
    package(folder, {}, "[ganzoo.losses]\nBad Name = m:A\n")
    (one,) = [one for one in check_plugin("mistaken") if one.result == "broken"]
    assert one.promise == "entry-points-are-valid"


# -- the command ------------------------------------------------------------------------------------------------------


def ask(*arguments):
    return CliRunner().invoke(cli, ["check", *arguments], standalone_mode=False)


def test_the_command_prints_a_table(mistaken):
    done = ask("loss:plain")
    assert done.return_value == 0, done.output
    assert done.output.splitlines()[0].split() == ["kind", "name", "promise", "result", "found"]
    assert "12 ok, 0 broken, 0 excused" in done.output


def test_the_command_says_what_is_broken_and_where_to_read_more(mistaken):
    done = ask("mixed", "--json")
    assert done.return_value == 4
    document = json.loads(done.output)
    assert (document["target"], document["broken"]) == ("mixed", 1)
    (one,) = [one for one in document["results"] if one["result"] == "broken"]
    assert one["promise"] == "penalised-samples-are-judged-alone"
    assert one["found"].endswith("(see docs/writing-plugins.md, A regularizer)")


def test_the_command_takes_a_recipe_s_file(mistaken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("mine.toml")  # short, so that the table does not break what was found
    path.write_text(RECIPE.replace('"r1"', '"r1"\nevery = 4'))
    assert ask(str(path)).return_value == 4
    path.write_text(RECIPE.replace("hinge", "hindge"))
    done = ask(str(path))
    assert done.return_value == 4
    assert "did you mean 'hinge'" in done.output


def test_the_command_takes_a_package_s_folder(mistaken, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("ganzoo.testing.packages.check_plugin", lambda name, seconds: asked.append((name, seconds)) or [])
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text("[project]\nname = 'Mistaken'\n")
    for target in (source, source / "pyproject.toml", "mistaken", "Mistaken"):
        assert ask(str(target), "--seconds", "5").return_value == 0
    assert asked == [("mistaken", 5.0)] * 4
    (source / "pyproject.toml").write_text("[project]\nname = 'elsewhere'\n")
    with pytest.raises(PluginError, match=r"'elsewhere' is not installed.*; run: pip install -e "):
        raise ask(str(source)).exception
    (source / "pyproject.toml").write_text("[tool.x]\n")
    with pytest.raises(PluginError, match="names no project"):
        raise ask(str(source)).exception


def test_the_command_suggests_a_name():
    with pytest.raises(PluginError, match="there is no 'hindge'; did you mean 'hinge'"):
        raise ask("hindge").exception


def test_the_guide_has_every_chapter_that_a_check_points_to():
    chapters = set(CHAPTERS.values())
    for path in (ROOT / "ganzoo" / "testing").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("require", "Blame", "ContractError"):
                last = node.args[-1]
                chapters |= {last.value} if isinstance(last, ast.Constant) else set()
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHAPTER":
                chapters.add(ast.literal_eval(node.value))
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "writing-plugins.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert chapters <= set(headings), chapters - set(headings)


def test_data_that_is_not_here_breaks_no_promise(folder):
    (folder / "far.toml").write_text(RECIPE.replace('name = "fashion-mnist-10k"', f'path = "{folder / "nowhere"}"'))
    (one,) = check_recipe(str(folder / "far.toml"))
    assert (one.result, one.promise) == ("unchecked", "parts-fit-together")
