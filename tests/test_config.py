"""Recipes: what is refused and how, schedules, presets, overrides, and the round trip through TOML."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganzoo.config import Draft, difference, parse_number, read_toml
from ganzoo.errors import PluginError, RecipeError
from ganzoo.recipe import Schedule, value_at

BASE = {
    "data": {"name": "squares"},
    "architecture": {"name": "small"},
    "loss": {"name": "plain"},
    "optimizer": {"name": "adam", "lr": 1e-3},
}


def finish(**tables):
    return Draft("it", {**copy.deepcopy(BASE), **tables}, "a test").finish()


def draft(**tables):
    return Draft("it", {**copy.deepcopy(BASE), **tables}, "a test")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"trian": {}}, "unknown key 'trian'; did you mean 'train'"),
        ({"train": {"bacth": 8}}, r"\[train\] has no option 'bacth'; did you mean 'batch'"),
        ({"latent": {"sise": 8}}, r"\[latent\] has no option 'sise'; did you mean 'size'"),
        ({"latent": {"prior": "uniforme"}}, "'prior' must be one of 'normal', 'uniform'.*did you mean 'uniform'"),
        ({"latent": {"size": 0}}, "latent.size must be at least 1, not 0"),
        ({"train": 5}, r"'train' must be a table, not 5; write \[train\]"),
        ({"train": {"batch": "8"}}, "'batch' must be a whole number, not '8'"),
        ({"train": {"batch": 8.0}}, "'batch' must be a whole number"),
        ({"train": {"batch": True}}, "'batch' must be a whole number"),
        ({"train": {"batch": 0}}, "train.batch must be at least 1, not 0"),
        ({"train": {"batch": -4}}, "train.batch must be at least 1, not -4"),
        ({"train": {"samples": 0}}, "train.samples must be at least 1"),
        ({"train": {"keep": 0}}, "train.keep must be at least 1"),
        ({"train": {"log": -1}}, "train.log must be 0"),
        ({"train": {"workers": -1}}, r"train.workers must be 'auto', 0 \(none\) or a number of processes"),
        ({"train": {"workers": "many"}}, "'workers' must be one of 'auto' or a whole number, not 'many'"),
        ({"train": {"workers": True}}, "'workers' must be one of 'auto' or a whole number"),
        ({"train": {"accumulate": 3, "batch": 64}}, "train.accumulate=3 must divide train.batch=64"),
        ({"train": {"accumulate": 4, "batch": 8}, "stages": [{"samples": 8, "batch": 6}]}, "must divide stages.0.batch=6"),
        ({"train": {"precision": "fp16"}}, "'precision' must be one of 'auto', 'fp32', 'tf32', 'bf16'"),
        ({"train": {"turns": "DG"}}, "'turns' must be a list"),
        ({"train": {"ema": math.nan}}, "'train.ema' must be a finite number"),
        ({"train": {"ema": 1.0}}, r"train.ema must lie in \[0, 1\)"),
        ({"train": {"ema": -0.1}}, r"train.ema must lie in \[0, 1\)"),
        ({"train": {"ema": {"from": 0.5, "to": 1.5}}}, r"train.ema must lie in \[0, 1\)"),
        ({"stages": 0}, r"write each stage as \[\[stages\]\]"),
        ({"stages": {"samples": 8}}, r"write each stage as \[\[stages\]\]"),
        ({"stages": [7]}, "'stages.0' must be a table"),
        ({"stages": [{"samples": 8, "size": 0}]}, "stages.0.size must be at least 1"),
        ({"stages": [{"samples": 8, "batch": 0}]}, "stages.0.batch must be at least 1"),
        ({"stages": [{"size": 8}]}, "lacks the required 'samples'"),
        ({"loss": {}}, r"\[loss\] has no name"),
        ({"loss": {"name": 3}}, r"\[loss\] has no name"),
        ({"data": {}}, "needs either a name or a path"),
        ({"data": {"name": "a", "path": "b"}}, "needs either a name or a path"),
        ({"regularizer": {"a": {}}}, r"write each regularizer as \[\[regularizer\]\]"),
        ({"regularizer": [{"weight": 1.0}]}, "has no name"),
        ({"regularizer": [{"name": "a"}, {"name": "a"}]}, "has regularizer 'a' twice; keep one"),
        ({"regularizer": [{"name": "a", "every": 0}]}, "'every' as a whole number of turns from 1 on"),
        ({"regularizer": [{"name": "a", "every": True}]}, "'every' as a whole number of turns from 1 on"),
        ({"regularizer": [{"name": "a", "weight": math.inf}]}, "'regularizer.a.weight' must be a finite number"),
        ({"regularizer": [{"name": "a", "weight": 10**400}]}, "'regularizer.a.weight' must be a finite number"),
        ({"architecture": {"name": "small", "width": None}}, "cannot be written as TOML"),
        ({"data": {"path": "\udcff"}}, "cannot be written as TOML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence_that_names_the_culprit(tables, message):
    with pytest.raises(RecipeError, match=message) as caught:
        finish(**tables)
    assert "\n" not in str(caught.value)


def test_what_the_recipe_does_not_say_has_a_default():
    recipe = finish()
    assert (recipe.train.batch, recipe.train.samples, recipe.latent.size, recipe.game) == (64, 300_000, 128, None)
    assert recipe.optimizer.options == {"lr": 1e-3}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"from": 1.0, "to": 0.0}, [1.0, 0.75, 0.5, 0.25, 0.0]),
        ({"from": 0, "to": 4, "shape": "cosine"}, [2 * (1 - math.cos(math.pi * s)) for s in (0, 0.25, 0.5, 0.75, 1)]),
        ({"from": 1.0, "to": 0.0, "begin": 0.5}, [1.0, 1.0, 1.0, 0.5, 0.0]),
        ({"from": 1.0, "to": 0.0, "end": 0.5}, [1.0, 0.5, 0.0, 0.0, 0.0]),
        ({"from": 0.0, "to": 8.0, "begin": 0.25, "end": 0.75}, [0.0, 0.0, 4.0, 8.0, 8.0]),
    ],
)
def test_schedules_have_their_closed_form(table, expected):
    schedule = parse_number("it", table, "optimizer.lr")
    assert isinstance(schedule, Schedule)
    assert [value_at(schedule, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(expected)


def test_a_plain_number_is_the_same_at_any_time():
    assert parse_number("it", 3, "x") == 3.0
    assert value_at(3.0, 0.7) == 3.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"from": 1.0}, "needs both a 'from' and a 'to'"),
        ({"start": 1.0, "to": 0.0}, "has no 'start'"),
        ({"from": 1.0, "to": 0.0, "shap": "linear"}, "has no 'shap'; did you mean 'shape'"),
        ({"from": 1.0, "to": 0.0, "shape": "cosin"}, "did you mean 'cosine'"),
        ({"from": 1.0, "to": 0.0, "begin": 0.5, "end": 0.5}, "0 <= begin < end <= 1"),
        ({"from": 1.0, "to": 0.0, "end": 1.5}, "0 <= begin < end <= 1"),
        ({"from": math.nan, "to": 0.0}, "finite number"),
        (True, "finite number"),
        ("1e-3", "finite number"),
        (None, "finite number"),
        (-math.inf, "finite number"),
        (10**400, "finite number"),
        pytest.param(10**5000, "finite number", id="too-long-to-print"),
    ],
)
def test_what_is_no_number_and_no_schedule_is_refused(value, message):
    with pytest.raises(RecipeError, match=message):
        parse_number("it", value, "optimizer.lr")


def test_presets_are_merged_over_the_recipe():
    made = draft(presets={"large": {"train": {"batch": 128}, "architecture": {"width": 9}}}, train={"batch": 8, "seed": 3})
    made.preset("large")
    recipe = made.finish()
    assert recipe.name == "it+large"
    assert (recipe.train.batch, recipe.train.seed) == (128, 3)
    assert recipe.architecture.options == {"width": 9}
    assert (recipe.origin["train.batch"], recipe.origin["train.seed"]) == ("preset large", "a test")
    assert "presets" not in recipe.raw


def test_a_preset_reaches_a_regularizer_by_its_name():
    made = draft(presets={"strong": {"regularizer": {"a": {"weight": 7.0}}}}, regularizer=[{"name": "a", "every": 2}])
    made.preset("strong")
    (part,) = made.finish().regularizers
    assert (part.name, part.weight, part.every) == ("a", 7.0, 2)


def test_a_preset_replaces_a_schedule_as_a_whole():
    made = draft(
        presets={"flat": {"train": {"ema": {"from": 0.1, "to": 0.2}}}}, train={"ema": {"from": 0, "to": 0.5, "end": 0.5}}
    )
    made.preset("flat")
    assert made.finish().train.ema == Schedule(start=0.1, stop=0.2)


@pytest.mark.parametrize(
    ("presets", "name", "message"),
    [
        ({"reference": {}}, "referense", r"no preset 'referense'; did you mean 'reference'\? \(it has: reference\)"),
        ({}, "reference", r"\(it has: none\)"),
        ({"large": {"trian": {}}}, "large", "preset large has an unknown key 'trian'; did you mean 'train'"),
        ({"large": 3}, "large", "'presets.large' must be a table"),
    ],
)
def test_a_preset_that_is_unknown_or_wrong_is_refused(presets, name, message):
    with pytest.raises(RecipeError, match=message):
        draft(presets=presets).preset(name)


@pytest.mark.parametrize(
    ("key", "value", "at"),
    [
        ("train.batch", 16, lambda recipe: recipe.train.batch),
        ("regularizer.a.weight", 2.5, lambda recipe: recipe.regularizers[0].weight),
        ("regularizer.a.gamma", 4, lambda recipe: recipe.regularizers[0].options["gamma"]),
        ("stages.1.size", 32, lambda recipe: recipe.stages[1].size),
        ("optimizer.G.lr", 0.5, lambda recipe: recipe.optimizer.options["G"]["lr"]),
        ("game.name", "other", lambda recipe: recipe.game.name),
        ("train.ema.to", 0.25, lambda recipe: recipe.train.ema.stop),
    ],
)
def test_any_key_can_be_set(key, value, at):
    made = draft(
        regularizer=[{"name": "a"}], stages=[{"samples": 8}, {"samples": 8}], train={"ema": {"from": 0.5, "to": 0.9}}
    )
    made.set(key, value, "--set")
    recipe = made.finish()
    assert at(recipe) == value
    assert recipe.origin[key] == "--set"


def test_a_run_of_stages_is_as_long_as_they_are():
    stages = [{"samples": 20, "size": 4}, {"samples": 30, "size": 8}]
    assert finish(stages=stages).train.samples == 50
    assert finish(stages=stages, train={"samples": 50}).train.samples == 50
    with pytest.raises(RecipeError, match=r"its stages have 50 samples and train.samples says 60; leave train.samples out"):
        finish(stages=stages, train={"samples": 60})


@pytest.mark.parametrize(("total", "shares"), [(500, [200, 300]), (7, [2, 5]), (50, [20, 30]), (3, [1, 2])])
def test_stages_share_the_samples_that_are_asked_for(total, shares):
    made = draft(stages=[{"samples": 20, "size": 4}, {"samples": 30, "size": 8}])
    made.set("train.samples", total, "--set")
    recipe = made.finish()
    assert [stage.samples for stage in recipe.stages] == shares
    assert (recipe.train.samples, recipe.origin["train.samples"]) == (total, "--set")
    assert [stage["samples"] for stage in recipe.raw["stages"]] == shares  # what a run folder keeps
    made.set("stages.0.samples", 9, "--set")
    assert made.finish().train.samples == 9 + shares[1]


def test_a_preset_may_bring_stages_or_another_length():
    stages = [{"samples": 20, "size": 4}, {"samples": 30, "size": 8}]
    presets = {"grown": {"stages": stages}, "longer": {"train": {"samples": 500}}}
    made = draft(train={"samples": 64}, presets=presets)
    made.preset("grown")
    assert made.finish().train.samples == 50
    made.preset("longer")
    recipe = made.finish()
    assert [stage.samples for stage in recipe.stages] == [200, 300]
    assert (recipe.train.samples, recipe.origin["train.samples"]) == (500, "preset longer")


@pytest.mark.parametrize(
    ("total", "message"),
    [
        (1, "1 samples are too few for the 2 stages"),
        (-5, "too few"),
        (2.5, "must be a whole number, not 2.5"),
        (True, "must be a whole number"),
        ("9", "must be a whole number"),
    ],
)
def test_samples_that_stages_cannot_share_are_refused(total, message):
    made = draft(stages=[{"samples": 20}, {"samples": 30}])
    with pytest.raises(RecipeError, match=message):
        made.set("train.samples", total, "--set")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("regularizer.other.gamma", "has no regularizer 'other'; add it with --regularizer other"),
        ("regularizer.clipp1.gamma", "has no regularizer 'clipp1'; did you mean 'clip1'"),
        ("trian.batch", "'trian.batch' is no key of a recipe; did you mean 'train'"),
        ("train", "write TABLE.KEY=VALUE"),
        ("stages.2.size", "has 1 stages, so 'stages.2.size' names none"),
        ("stages.x.size", "names none of them; count from 0"),
        ("stages.0", "is a whole stage"),
        ("train.batch.size", "goes through 'batch', which is a value"),
    ],
)
def test_a_key_that_is_not_there_cannot_be_set(key, message):
    made = draft(regularizer=[{"name": "clip1"}], stages=[{"samples": 8}], train={"batch": 8})
    with pytest.raises(RecipeError, match=message):
        made.set(key, 1, "--set")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("regularizer.a", 5, "'regularizer.a' must be a table"),
        ("train.bacth", 5, "did you mean 'batch'"),
        ("train.batch", math.nan, "must be a whole number"),
    ],
)
def test_what_is_set_is_checked_like_the_rest(key, value, message):
    made = draft(regularizer=[{"name": "a"}])
    made.set(key, value, "--set")
    with pytest.raises(RecipeError, match=message):
        made.finish()


def full():
    """A recipe that uses everything a recipe has."""
    return finish(
        summary="all of it",
        tier="none",
        regularizer=[{"name": "a", "weight": {"from": 1, "to": 0}, "every": 4, "gamma": 2}, {"name": "b"}],
        game={"name": "duel", "D": {"depth": 3}},
        optimizer={"name": "adam", "lr": 1e-3, "betas": (0.5, 0.9), "G": {"lr": {"from": 1e-3, "to": 0.0}}},
        train={"turns": ("D", "D", "G"), "ema": {"from": 0.5, "to": 0.9, "shape": "cosine"}},
        stages=[{"samples": 100, "size": 8}, {"samples": 200, "turns": ["D", "G"]}],
        provenance={"paper": "x", "parameters": {"G": 5}},
    )


def test_the_resolved_recipe_is_a_recipe_that_resolves_to_the_same(tmp_path):
    first = full()
    (tmp_path / "recipe.toml").write_text(first.toml(), encoding="utf-8")
    raw = read_toml(tmp_path / "recipe.toml")
    second = Draft(raw["name"], raw, "a test").finish()
    assert second.raw == first.raw
    assert second.toml() == first.toml()
    assert difference(raw, {"name": "it", **first.raw}) == []
    for part in ("data", "architecture", "loss", "regularizers", "game", "latent", "train", "stages"):
        assert getattr(first, part) == getattr(second, part)
    assert second.optimizer.options == {**first.optimizer.options, "betas": [0.5, 0.9]}  # a tuple became a list


def test_every_value_has_an_origin():
    origin = full().origin
    assert {"data.name", "train.turns", "regularizer.a.gamma", "optimizer.G.lr", "game.D.depth", "stages"} <= origin.keys()
    assert set(origin.values()) == {"a test"}


def test_putting_a_table_forgets_the_origins_of_the_old_one():
    made = draft(loss={"name": "plain", "margin": 1.0})
    made.put("loss", {"name": "other"}, "--loss")
    recipe = made.finish()
    assert recipe.loss.options == {}
    assert recipe.origin["loss.name"] == "--loss"
    assert "loss.margin" not in recipe.origin


def test_difference_names_each_changed_key_with_both_values():
    old, new = full().raw, full().raw
    changed = copy.deepcopy(dict(new))
    changed["train"]["turns"] = ["D", "G"]
    changed["regularizer"][0]["gamma"] = 3
    del changed["stages"][0]["size"]
    changed["loss"]["margin"] = 1
    assert sorted(difference(old, changed)) == [
        "loss.margin: None -> 1",
        "regularizer.a.gamma: 2 -> 3",
        "stages.0.size: 8 -> None",
        "train.turns: ['D', 'D', 'G'] -> ['D', 'G']",
    ]
    assert difference(old, changed, ignore=("train.turns", "loss.margin", "stages.0.size", "regularizer.a.gamma")) == []


def file_of(tmp_path, data):
    path = tmp_path / "it.toml"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf[train]\nbatch = 8\n", b"[train]\r\nbatch = 8\r\n", b"[train]\nbatch = 8"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path, data):
    assert read_toml(file_of(tmp_path, data)) == {"train": {"batch": 8}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a = 'x\x00y'", "is not valid TOML"),
        (b"a = ", "is not valid TOML"),
        (b"<html></html>", "is not valid TOML"),
        (b"a = " + b"1" * 5000, "is not valid TOML"),
        (b"a = '\xff'", "is not text in UTF-8"),
        (b"PK\x03\x04\x00\x00\xff\xfe", "is not text in UTF-8"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "is nested too deeply"),
        (b"#" * 1_000_001, "has 1,000,001 bytes; a recipe is at most 1,000,000"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, data, message):
    with pytest.raises(RecipeError, match=message):
        read_toml(file_of(tmp_path, data))


def test_dotted_keys_can_be_too_deep_too(tmp_path):
    raw = read_toml(file_of(tmp_path, b"data" + b".a" * 5000 + b" = 1"))
    with pytest.raises(RecipeError, match="is nested too deeply"):
        Draft("it", raw, "a test")


@pytest.mark.parametrize("path", ["missing.toml", ".", "a\0.toml"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, path):
    with pytest.raises(RecipeError, match="recipe"):
        read_toml(tmp_path / path)


KEYS = st.sampled_from(
    [
        *("name", "summary", "data", "architecture", "loss", "regularizer", "game", "latent", "optimizer", "train"),
        *("stages", "presets", "provenance", "from", "to", "shape", "begin", "weight", "every", "samples", "batch"),
        *("turns", "ema", "size", "prior", "path", "lr", "G", "tier", "accumulate", "seed"),
    ]
) | st.text(max_size=4)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(st.characters(), max_size=6)
    | st.sampled_from(["linear", "normal", "fp32", "D", "G"])
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
GOOD = st.fixed_dictionaries({key: st.just(value) for key, value in BASE.items()})


def only_our_errors(raw):
    try:
        recipe = Draft("it", raw, "a test").finish()
    except (RecipeError, PluginError):
        return
    again = Draft("it", recipe.raw, "a test").finish()
    assert again.raw == recipe.raw


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_any_tables_give_a_recipe_or_one_of_our_errors(raw):
    only_our_errors(raw)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(GOOD, st.dictionaries(KEYS, JSON, max_size=3))
def test_any_tables_over_a_good_recipe_give_a_recipe_or_one_of_our_errors(good, more):
    only_our_errors({**good, **more})


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(["train", "latent", "optimizer", "regularizer.a", "stages.0", "data"]), KEYS, JSON)
def test_any_value_can_be_tried_at_any_key(table, key, value):
    made = draft(regularizer=[{"name": "a"}], stages=[{"samples": 8}])
    with contextlib.suppress(RecipeError, PluginError):
        made.set(f"{table}.{key}", value, "--set")
        only_our_errors(made.finish().raw)
