"""From a name to a recipe: every recipe of the zoo, compositions, files, and the names that are refused."""

from __future__ import annotations

import re

import pytest

from ganzoo import assemble
from ganzoo.changing import settings
from ganzoo.config import difference, read_toml
from ganzoo.errors import DataError, PluginError, RecipeError
from ganzoo.options import check_options
from ganzoo.recipe import values_at
from ganzoo.registry import Record, Registry, registry
from ganzoo.zoo import NAME, Request, entries, resolve

ENTRIES = {entry.name: entry for entry in entries(registry())}
PRESETS = [(name, preset) for name, entry in ENTRIES.items() for preset in read_toml(entry.path).get("presets", {})]
OURS = "ganzoo-toolkit"

TINY = """\
summary = "as small as can be"
data = { name = "fashion-mnist-10k", size = 16 }
architecture = { name = "dcgan", width = 2 }
loss = { name = "hinge" }
optimizer = { name = "adam", lr = 1e-3 }
"""


def ask(name, **request):
    return resolve(name, Request(**request), registry())


def check_all_options(recipe):
    """Let each plugin's signature judge the options that a recipe gives it."""
    known = registry()
    given = {
        "architecture": recipe.architecture.options,
        "loss": recipe.loss.options,
        "game": recipe.game.options if recipe.game else {},
        "dataset": recipe.data.options,
        "reader": {**recipe.data.options, "path": recipe.data.path},
    }
    regularizers = {part.name: part.options for part in recipe.regularizers}
    for record in assemble.records(recipe, known):
        options = regularizers[record.name] if record.kind == "regularizer" else given[record.kind]
        options = values_at(settings(recipe.name, record.name, options), 0.0)  # schedules where they begin
        check_options(str(record), known.load(record.kind, record.qualified), options)


def test_the_zoo_is_not_empty():
    assert len(ENTRIES) >= 8
    assert not any(name.startswith("_") for name in ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_recipe_resolves_and_its_plugins_take_its_options(name):
    recipe = ask(name)
    assert NAME.fullmatch(recipe.name)
    assert recipe.game is not None, "a zoo recipe says which game it is"
    check_all_options(recipe)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_resolves_and_its_plugins_take_its_options(name, preset):
    recipe = ask(name, presets=(preset,))
    assert recipe.name == f"{name}+{preset}"
    assert difference(ask(name).raw, recipe.raw) != []
    check_all_options(recipe)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_recipe_can_be_read_on_one_screen_and_says_where_it_is_from(name):
    text = ENTRIES[name].path.read_text(encoding="utf-8")
    raw = read_toml(ENTRIES[name].path)
    written = [line for line in text.splitlines() if line.strip()]
    assert len(written) < 50, f"{name}: {len(written)} lines; defaults live in the plugins, so leave them out"
    assert re.fullmatch(r".+ \(.+ \d{4}, arXiv:\d{4}\.\d{4,5}\)", raw["summary"]), raw["summary"]
    assert raw["tier"]
    assert "reference" in raw["presets"]
    provenance = raw["provenance"]
    assert {"paper", "source", "published", "deviation"} <= provenance.keys() <= {
        *("paper", "source", "published", "deviation", "parameters", "expected_failures")
    }  # fmt: skip
    assert provenance["paper"] in raw["summary"]
    if "parameters" in provenance:
        assert {"G", "D", "at", "source"} == provenance["parameters"].keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_every_recipe_survives_the_run_folder(name, tmp_path):
    recipe = ask(name)
    (tmp_path / "recipe.toml").write_text(recipe.toml(), encoding="utf-8")
    again = ask(str(tmp_path / "recipe.toml"))
    assert again.raw == recipe.raw
    assert again.name == name


def test_a_composition_with_a_loss_and_a_regularizers_strength():
    recipe = ask("dcgan", loss="hinge", regularizers=("r1=10",))
    assert recipe.loss.name == "hinge"
    assert [(part.name, part.weight, part.options) for part in recipe.regularizers] == [("r1", 1.0, {"gamma": 10})]
    assert recipe.name == "dcgan+hinge+r1"
    assert recipe.origin["regularizer.r1.gamma"] == "--regularizer"
    assert recipe.origin["loss.name"] == "--loss"


def test_a_number_is_the_weight_of_a_regularizer_that_declares_no_strength():
    (part,) = ask("dcgan", regularizers=("gradient-penalty=3",)).regularizers
    assert (part.weight, part.options) == (3.0, {})


def test_a_regularizer_that_the_recipe_has_is_changed_and_not_doubled():
    (part,) = ask("dcgan-wgangp", regularizers=("gradient-penalty=3",)).regularizers
    assert part.weight == 3.0


@pytest.mark.parametrize(
    ("name", "architecture", "loss"),
    [
        ("resnet", "resnet", "non-saturating"),
        ("mlp", "mlp", "non-saturating"),
        ("resnet-hinge", "resnet", "hinge"),
        ("mlp-least-squares", "mlp", "least-squares"),
        (f"{OURS}:mlp", f"{OURS}:mlp", "non-saturating"),
    ],
)
def test_names_without_a_recipe_are_composed(name, architecture, loss):
    recipe = ask(name)
    assert (recipe.architecture.name, recipe.loss.name) == (architecture, loss)
    assert recipe.name == name.replace(":", ".")
    assert recipe.data.name
    check_all_options(recipe)


def test_a_package_may_be_named_wherever_a_plugin_is():
    recipe = ask("dcgan", loss=f"{OURS}:hinge", regularizers=(f"{OURS}:r1=2",))
    assert recipe.name == f"dcgan+{OURS}.hinge+{OURS}.r1"
    assert recipe.regularizers[0].options == {"gamma": 2}
    assert ask(f"{OURS}:dcgan").name == "dcgan"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dcgn", "there is no recipe 'dcgn'; did you mean 'dcgan'"),
        ("dcgan-hnge", "there is no recipe 'dcgan-hnge'"),
        ("quite-something-else", r"there is no recipe .* \(see: ganzoo list\)"),
        ("", "there is no recipe ''"),
        ("../dcgan", "there is no recipe '../dcgan'"),
        ("dcgan\x1b[31m", "there is no recipe"),
        ("dcgan/hinge", "there is no recipe"),
        ("missing.toml", "recipe missing.toml cannot be read"),
        ("no/such/folder.toml", "cannot be read"),
    ],
)
def test_names_that_mean_nothing_are_refused(name, message):
    with pytest.raises(RecipeError, match=message):
        ask(name)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"presets": ("referense",)}, RecipeError, "did you mean 'reference'"),
        ({"regularizers": ("r11",)}, PluginError, "did you mean 'r1'"),
        ({"sets": ("train.batch",)}, RecipeError, "write --set KEY=VALUE"),
        ({"sets": ("trian.batch=3",)}, RecipeError, "did you mean 'train'"),
        ({"sets": ("train.batch=three",)}, RecipeError, "'batch' must be a whole number, not 'three'"),
        ({"sets": ("train.batch=nan",)}, RecipeError, "'batch' must be a whole number"),
        ({"sets": ("regularizer.r1=5",)}, RecipeError, "has no regularizer 'r1'"),
        ({"regularizers": ("r1",), "sets": ("regularizer.r1=5",)}, RecipeError, "'regularizer.r1' must be a table"),
        ({"values": {"architecture.width": None}}, RecipeError, "cannot be written as TOML"),
        ({"data": "~nobody-of-this-name/pictures"}, RecipeError, "names the home of no user"),
        ({"data": "./bytes\udcff"}, RecipeError, "cannot be written as TOML"),
        ({"loss": "a/b"}, RecipeError, "cannot name a folder"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(request_, error, message):
    with pytest.raises(error, match=message):
        ask("dcgan", **request_)


def test_what_is_asked_for_last_wins():
    asked = {"presets": ("reference",), "sets": ("train.batch=4", "train.seed=1"), "values": {"train.ema": 0.5}, "seed": 9}
    recipe = ask("dcgan", **asked)
    assert (recipe.train.batch, recipe.train.ema, recipe.train.seed, recipe.data.name) == (4, 0.5, 9, "cifar10")
    origin = [recipe.origin[key] for key in ("train.batch", "train.ema", "train.seed", "data.name", "loss.name")]
    assert origin == ["--set train.batch", "the caller", "--seed", "preset reference", f"recipe {OURS}:dcgan"]


def test_set_takes_values_in_the_syntax_of_toml():
    recipe = ask("dcgan", sets=('train.turns=["D","D","G"]', "optimizer.lr={from=1e-3,to=0.0}", "data.name = emoji32"))
    assert recipe.train.turns == ("D", "D", "G")
    assert recipe.optimizer.options["lr"] == {"from": 1e-3, "to": 0.0}
    assert recipe.data.name == "emoji32"


def test_data_is_a_path_where_there_is_one_and_a_name_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    here = ask("dcgan", data="pictures").data
    assert (here.name, here.path, here.options) == ("", str(tmp_path / "pictures"), {"size": 32})
    assert ask("dcgan", data="emoji32").data.name == "emoji32"
    looks = ask("dcgan", data="./elsewhere")
    assert looks.data.path == str(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="does not exist"):
        assemble.records(looks, registry())
    with pytest.raises(PluginError, match="there is no dataset 'emoji23'; did you mean 'emoji32'"):
        assemble.records(ask("dcgan", data="emoji23"), registry())


def test_a_file_is_a_recipe_named_after_itself_or_as_it_says(tmp_path):
    (tmp_path / "mine.toml").write_text(TINY, encoding="utf-8")
    recipe = ask(str(tmp_path / "mine.toml"), sets=("train.batch=4",))
    assert (recipe.name, recipe.train.batch) == ("mine", 4)
    assert recipe.origin["loss.name"] == str(tmp_path / "mine.toml")
    (tmp_path / "named.toml").write_text(f'name = "yours"\n{TINY}', encoding="utf-8")
    assert ask(str(tmp_path / "named.toml")).name == "yours"


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/b", "..", ".hidden", "a b", "-x", "a\\u001b", "x" * 101, "a\\n"])
def test_a_recipe_cannot_name_a_folder_elsewhere(tmp_path, name):
    (tmp_path / "it.toml").write_text(f'name = "{name}"\n{TINY}', encoding="utf-8")
    with pytest.raises(RecipeError, match="cannot name a folder"):
        ask(str(tmp_path / "it.toml"))


def test_a_recipe_that_two_packages_offer_must_be_qualified():
    (record,) = registry().of("zoo")
    both = Registry([*registry().records, Record("zoo", "other", record.module, "", "other-zoo", "1.0")])
    with pytest.raises(RecipeError, match="several packages; say which: 'ganzoo-toolkit:gan' and 'other-zoo:gan'"):
        resolve("gan", Request(), both)
    assert resolve("other-zoo:gan", Request(), both).origin["loss.name"] == "recipe other-zoo:gan"


def test_run_names_say_what_was_asked_for(tmp_path):
    (tmp_path / "my photos").mkdir()
    request = Request(data=str(tmp_path / "my photos"), loss="hinge", regularizers=("r1=2",), seed=3)
    assert resolve("dcgan", request, registry()).name == "dcgan+my_photos+hinge+r1+seed3"


def test_a_number_for_a_regularizer_that_pays_nothing_is_refused():
    with pytest.raises(RecipeError, match="'diffaugment' pays no penalty"):
        resolve("dcgan", Request(regularizers=("diffaugment=2",)), registry())
