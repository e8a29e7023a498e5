"""A signature is a schema: what is taken, what is converted, and what the refusals say."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NewType, Optional, Union

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ganzoo.errors import PluginError
from ganzoo.options import MISSING, check_options, options_of, parse_value

if TYPE_CHECKING:
    from somewhere import Unknown

Positive = NewType("Positive", float)


@dataclass(frozen=True, kw_only=True)
class Table:
    size: int
    ratio: float = 0.5


class Plain(nn.Module):
    def __init__(self, *, gamma: float = 10.0, steps: int = 1, mode: Literal["sum", "mean"] = "mean") -> None:
        super().__init__()


class Inherits(Plain):
    pass


class Bare(nn.Module):
    pass


def taking(annotation: Any, default: Any = MISSING) -> Any:
    """Return a function with one option of this type."""

    def function(*, option=None):
        return option

    function.__annotations__ = {"option": annotation}
    function.__kwdefaults__ = None if default is MISSING else {"option": default}
    return function


def take(annotation: Any, value: Any) -> Any:
    return check_options("plugin 'x'", taking(annotation), {"option": value})["option"]


def refusal(annotation: Any, value: Any) -> str:
    with pytest.raises(PluginError) as caught:
        take(annotation, value)
    return str(caught.value).removeprefix("plugin 'x' option 'option' must be ")


def test_the_signature_is_read() -> None:
    options = options_of(Plain)
    assert list(options) == ["gamma", "steps", "mode"]
    assert (options["gamma"].annotation, options["gamma"].default, options["gamma"].required) == (float, 10.0, False)
    assert options["mode"].type_text == "one of 'sum', 'mean'"
    assert options_of(Inherits) == options
    assert list(options_of(Table)) == ["size", "ratio"]
    assert options_of(Table)["size"].required
    assert options_of(taking(int))["option"].default is MISSING


def test_a_class_without_a_constructor_has_no_options() -> None:
    assert options_of(Bare) == {}
    assert options_of(type("Empty", (), {})) == {}
    with pytest.raises(PluginError, match=r"^loss 'x' has no option 'a'; it has none, so leave it out$"):
        check_options("loss 'x'", Bare, {"a": 1})


def test_options_must_be_keyword_only() -> None:
    class Positional:
        def __init__(self, gamma: float = 1.0) -> None: ...

    class Anything:
        def __init__(self, **options: Any) -> None: ...

    for wrong in (Positional, Anything, lambda *values: None, lambda a: None):
        with pytest.raises(PluginError, match="is not keyword-only; options must be"):
            options_of(wrong)
    with pytest.raises(
        PluginError, match=r"loss 'x' cannot be used: parameter 'gamma' of .*Positional is not keyword-only"
    ):
        check_options("loss 'x'", Positional, {})
    with pytest.raises(PluginError, match="cannot be read"):
        options_of(3)


def test_types_only_checkers_know_are_any() -> None:
    def function(*, unknown: Unknown, gamma: float = 1.0) -> None: ...

    options = options_of(function)
    assert (options["unknown"].annotation, options["gamma"].annotation) == (Any, float)


def test_partials_and_objects_are_read_too() -> None:
    class Callable:
        def __call__(self, *, gamma: Positive) -> None: ...

    def function(*, gamma: float, more: int = 1) -> None: ...

    assert options_of(functools.partial(function, gamma=3.0))["gamma"].default == 3.0
    assert options_of(functools.partial(function, gamma=3.0))["more"].annotation is int
    assert check_options("x", Callable(), {"gamma": 1}) == {"gamma": 1.0}


def test_errors_name_culprit_and_remedy() -> None:
    what = "regularizer 'x'"
    with pytest.raises(PluginError, match=r"^regularizer 'x' has no option 'gama'; did you mean 'gamma'\?$"):
        check_options(what, Plain, {"gama": 1})
    with pytest.raises(PluginError, match=r"^regularizer 'x' has no option 'zzz'; its options are gamma, steps, mode$"):
        check_options(what, Plain, {"zzz": 1})
    with pytest.raises(PluginError, match=r"^regularizer 'x' option 'gamma' must be a number, not 'ten' \(text\)$"):
        check_options(what, Plain, {"gamma": "ten"})
    with pytest.raises(PluginError, match=r"must be one of 'sum', 'mean', not 'maen' \(text\); did you mean 'mean'\?$"):
        check_options(what, Plain, {"mode": "maen"})
    with pytest.raises(PluginError, match=r"^\[train\] lacks the required 'size' \(a whole number\); give it a value$"):
        check_options("[train]", Table, {"ratio": 1})


def test_only_what_is_given_is_returned() -> None:
    assert check_options("x", Plain, {}) == {}
    values = check_options("x", Plain, {"gamma": 3})
    assert values == {"gamma": 3.0}
    assert type(values["gamma"]) is float


TAKEN = [
    (bool, True, True),
    (int, 3, 3),
    (float, 3, 3.0),
    (str, "text", "text"),
    (Positive, 2, 2.0),
    (Literal["a", 1, True], True, True),
    (list, [1, "a"], [1, "a"]),
    (list[float], [1, 2.5], [1.0, 2.5]),
    (Sequence[int], [1, 2], [1, 2]),
    (tuple, [1, 2], (1, 2)),
    (tuple[int, ...], [], ()),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[()], [], ()),
    (list[tuple[int, float]], [[1, 2]], [(1, 2.0)]),
    (dict, {"a": 1}, {"a": 1}),
    (dict[str, float], {"a": 1}, {"a": 1.0}),
    (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}),
    (float | None, 1, 1.0),
    (Optional[str], None, None),  # noqa: UP045
    (Union[int, str], "a", "a"),  # noqa: UP007
    (float | int, 1, 1),
    (int | float, 1.5, 1.5),
    (bool | float, True, True),
    (float | list[float], [1], [1.0]),
    (float | Table, Table(size=1), Table(size=1)),
    (Path, "a/b", Path("a/b")),
    (Any, object, object),
    (object, 3, 3),
    ("float", 1, 1.0),
    ([1, 2], 3, 3),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), TAKEN, ids=str)
def test_taken(annotation: Any, value: Any, expected: Any) -> None:
    result = take(annotation, value)
    assert result == expected
    assert type(result) is type(expected)


REFUSED = [
    (bool, 1, "true or false, not 1 (whole number)"),
    (bool, "true", "true or false, not 'true' (text)"),
    (int, True, "a whole number, not True (true or false)"),
    (int, 1.0, "a whole number, not 1.0 (number)"),
    (float, True, "a number, not True (true or false)"),
    (float, float("nan"), "a finite number, not nan (number)"),
    (float | None, float("-inf"), "a finite number, not -inf (number)"),
    (str, 3, "text, not 3 (whole number)"),
    (str, None, "text, not None (nothing)"),
    (Literal[1, 2], True, "one of 1, 2, not True (true or false)"),
    (Literal["a"] | None, 1, "one of 'a', not 1 (whole number)"),
    (list[float], [1, "a"], "a list, each a number, not [1, 'a'] (list)"),
    (list[float], "abc", "a list, each a number, not 'abc' (text)"),
    (tuple[float, float], [1], "a list of 2, each a number, not [1] (list)"),
    (tuple[int, str], [1, 2], "a list of 2, in turn a whole number, text, not [1, 2] (list)"),
    (tuple[int, ...], 1, "a list, each a whole number, not 1 (whole number)"),
    (dict[str, float], {"a": "b"}, "a table, each value a number, not {'a': 'b'} (table)"),
    (dict, [], "a table, not [] (list)"),
    (float | str, [], "a number or text, not [] (list)"),
    (Table, {"size": 1}, "of type Table, not {'size': 1} (table)"),
    (str, ["x" * 200], f"text, not ['{'x' * 75}... (list)"),
    (float, 16**5000, "a number, not one too large to print (whole number)"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), REFUSED, ids=lambda value: str(type(value)))
def test_refused(annotation: Any, value: Any, expected: str) -> None:
    assert refusal(annotation, value) == expected


values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
annotations = st.recursive(
    st.sampled_from([bool, int, float, str, Any, list, dict, tuple, Path, Literal["a", 1], Table]),
    lambda inner: (
        st.builds(lambda a: list[a], inner) | st.builds(lambda a, b: a | b if Any not in (a, b) else a, inner, inner)
    ),
    max_leaves=4,
)


@given(annotations, values)
def test_any_value_is_taken_or_refused_in_one_line(annotation: Any, value: Any) -> None:
    once, complaint = None, ""
    try:
        once = take(annotation, value)
    except PluginError as error:
        complaint = str(error)
    if complaint:
        assert "\n" not in complaint
    else:
        assert take(annotation, once) == once


@given(st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.lists(st.integers()))
def test_toml_values_are_parsed(value: Any) -> None:
    parsed = parse_value(tomli_w.dumps({"value": value}).partition("=")[2])
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.text())
def test_any_text_is_some_value(text: str) -> None:
    parse_value(text)


@pytest.mark.parametrize(
    "text", ["", "spectral", "a b", "True", "#fff", "2026-01-01", "07:30:00", "1\nb = 2", "[1", "9" * 5000, "[" * 5000]
)
def test_other_text_is_text(text: str) -> None:
    assert parse_value(f" {text} ") == text


def test_some_values() -> None:
    assert parse_value("1e-4") == 1e-4
    assert parse_value('["D", "G"]') == ["D", "G"]
    assert parse_value("{ from = 1, to = 0 }") == {"from": 1, "to": 0}
    assert parse_value('"1"') == "1"
