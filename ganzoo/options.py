"""Options of a plugin: the keyword-only parameters of its constructor are the schema of what a recipe may say."""

from __future__ import annotations

import collections.abc
import datetime
import functools
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, Union

from .errors import PluginError, did_you_mean

__all__ = ["MISSING", "Option", "check_options", "options_of", "parse_value"]

SHOWN = 80  # characters of a wrong value that an error repeats


@dataclass(frozen=True)
class Option:
    """One option: its name, its resolved type (Any where that is unknown), and its default or MISSING."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Must a recipe give it?"""
        return self.default is MISSING

    @property
    def type_text(self) -> str:
        """What a value must be, in words: "a number", "text", "one of 'a', 'b'"."""
        return _describe(self.annotation)

    def accepts(self, value: Any) -> bool:
        """Is a value of the type that it asks for?"""
        try:
            _convert(self.annotation, value)
        except _MismatchError:
            return False
        return True


def options_of(obj: Any) -> dict[str, Option]:
    """Return the options of a class or function in the order of its signature; PluginError if one is not keyword-only."""
    function, parameters = _parameters(obj)
    options: dict[str, Option] = {}
    for parameter in parameters:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            label = getattr(obj, "__qualname__", type(obj).__qualname__)
            raise PluginError(
                f"parameter {parameter.name!r} of {label} is not keyword-only; options must be, so put a '*' first"
            )
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        options[parameter.name] = Option(parameter.name, _resolved(function, parameter), default)
    return options


def check_options(what: str, obj: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values as the types that `obj` asks for; `what` names it in the PluginError otherwise raised."""
    try:
        known = options_of(obj)
    except PluginError as error:
        raise PluginError(f"{what} cannot be used: {error}") from None
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            listed = f"; its options are {', '.join(known)}" if known else "; it has none, so leave it out"
            raise PluginError(f"{what} has no option {name!r}{did_you_mean(name, known) or listed}")
        try:
            values[name] = _convert(known[name].annotation, value)
        except _MismatchError:
            raise PluginError(f"{what} option {name!r} must be {_complaint(known[name].annotation, value)}") from None
    missing = [option for option in known.values() if option.required and option.name not in values]
    if missing:
        listed = " and ".join(f"{option.name!r} ({option.type_text})" for option in missing)
        raise PluginError(f"{what} lacks the required {listed}; give {'it' if len(missing) == 1 else 'each'} a value")
    return values


def parse_value(text: str) -> Any:
    """Return what VALUE in --set KEY=VALUE means: a TOML value where the text is one, else the text itself."""
    text = text.strip()
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # ValueError: bad TOML, and numbers of thousands of digits
        return text
    # a line break could smuggle in more keys; and no option is a date, but a name may look like one
    unfit = list(table) != ["value"] or isinstance(table["value"], datetime.date | datetime.time)
    return text if unfit else table["value"]


def _parameters(obj: Any) -> tuple[Any, list[inspect.Parameter]]:
    """Return the function that takes the options, and its parameters without self."""
    function = obj.__init__ if inspect.isclass(obj) else obj
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise PluginError(f"the parameters of {obj!r} cannot be read; write its constructor in Python") from None
    if not inspect.isclass(obj):
        return function, parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    # a class without a constructor of its own inherits (*args, **kwargs) from object or a framework's base class
    if "__init__" not in vars(obj) and all(parameter.kind in variable for parameter in parameters[1:]):
        return function, []
    return function, parameters[1:]


def _resolved(function: Any, parameter: inspect.Parameter) -> Any:
    """Return the type of one parameter: one by one, so that a name only type checkers know spoils no other option."""
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__globals__"):  # an object with __call__
        function = inspect.unwrap(type(function).__call__)
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hint = typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}))[parameter.name]
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
    return hint if isinstance(hint, Hashable) else Any


class _MismatchError(Exception):
    """A value is not what its option asks for."""


def _convert(annotation: Any, value: Any) -> Any:
    annotation = _plain(annotation)
    return _CONVERTERS.get(typing.get_origin(annotation) or annotation, _instance)(annotation, value)


def _plain(annotation: Any) -> Any:
    """Look through NewType and `type X = ...`."""
    while (inner := getattr(annotation, "__supertype__", getattr(annotation, "__value__", None))) is not None:
        annotation = inner
    return annotation


def _expect(accepted: bool, value: Any) -> Any:
    if not accepted:
        raise _MismatchError
    return value


def _number(annotation: Any, value: Any) -> float:
    _expect(isinstance(value, int | float) and not isinstance(value, bool), value)
    try:
        number = float(value)
    except OverflowError:
        raise _MismatchError from None
    return float(_expect(math.isfinite(number), number))


def _list(annotation: Any, value: Any) -> list[Any]:
    _expect(isinstance(value, list | tuple), value)
    inner = (typing.get_args(annotation) or (Any,))[0]
    return [_convert(inner, entry) for entry in value]


def _tuple(annotation: Any, value: Any) -> tuple[Any, ...]:
    _expect(isinstance(value, list | tuple), value)
    inner = typing.get_args(annotation)
    if (not inner and annotation != tuple[()]) or inner[1:] == (Ellipsis,):
        return tuple(_convert(inner[0] if inner else Any, entry) for entry in value)
    _expect(len(inner) == len(value), value)
    return tuple(_convert(kind, entry) for kind, entry in zip(inner, value, strict=True))


def _table(annotation: Any, value: Any) -> dict[Any, Any]:
    _expect(isinstance(value, Mapping), value)
    key, inner = typing.get_args(annotation) or (Any, Any)
    return {_convert(key, name): _convert(inner, entry) for name, entry in value.items()}


def _union(annotation: Any, value: Any) -> Any:
    results = []
    for member in typing.get_args(annotation):
        try:
            results.append(_convert(member, value))
        except _MismatchError:
            continue
    _expect(bool(results), value)
    # a whole number stays one where the union has both kinds of number
    return next((result for result in results if type(result) is type(value)), results[0])


def _literal(annotation: Any, value: Any) -> Any:
    # types are compared too: True == 1
    return _expect(any(type(value) is type(choice) and value == choice for choice in typing.get_args(annotation)), value)


def _instance(annotation: Any, value: Any) -> Any:
    """Accept instances of a class; what is not understood (protocols, type variables) is the plugin's to check."""
    try:
        return _expect(isinstance(value, typing.get_origin(annotation) or annotation), value)
    except TypeError:
        return value


_CONVERTERS: dict[Any, Callable[[Any, Any], Any]] = {
    Any: lambda annotation, value: value,
    bool: lambda annotation, value: _expect(isinstance(value, bool), value),
    int: lambda annotation, value: _expect(isinstance(value, int) and not isinstance(value, bool), value),
    float: _number,
    str: lambda annotation, value: _expect(isinstance(value, str), value),
    Path: lambda annotation, value: Path(_expect(isinstance(value, str | Path), value)),
    list: _list,
    collections.abc.Sequence: _list,
    tuple: _tuple,
    dict: _table,
    collections.abc.Mapping: _table,
    Union: _union,
    types.UnionType: _union,
    Literal: _literal,
}
_WORDS: dict[Any, str] = {
    Any: "any value",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    list: "a list",
    collections.abc.Sequence: "a list",
    tuple: "a list",
    dict: "a table",
    collections.abc.Mapping: "a table",
    type(None): "nothing",
}


def _describe(annotation: Any) -> str:
    """Return in words what a value must be."""
    annotation = _plain(annotation)
    origin, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(repr(choice) for choice in inner)}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(member) for member in inner if member is not type(None)))
    words = _WORDS.get(origin, f"of type {getattr(origin, '__name__', origin)}")
    if words == "a table" and inner:
        return f"a table, each value {_describe(inner[1])}"
    if words != "a list" or not inner:
        return words
    same = len(set(inner)) == 1 or inner[1] is Ellipsis
    count = f" of {len(inner)}" if origin is tuple and Ellipsis not in inner else ""
    return f"a list{count}, " + (f"each {_describe(inner[0])}" if same else f"in turn {', '.join(map(_describe, inner))}")


def _complaint(annotation: Any, value: Any) -> str:
    """Return "a number, not 'ten' (text)", with the closest choice where there is one."""
    expected = _describe(annotation)
    if isinstance(value, float) and not math.isfinite(value):
        expected = expected.replace("a number", "a finite number")
    try:
        shown = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        shown = "one too large to print"
    kind = _WORDS.get(type(value), type(value).__name__).removeprefix("a ")
    close = did_you_mean(value, _choices(annotation)) if isinstance(value, str) else ""
    return f"{expected}, not {shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + '...'} ({kind}){close}"


def _choices(annotation: Any) -> list[str]:
    annotation = _plain(annotation)
    if typing.get_origin(annotation) is Literal:
        return [choice for choice in typing.get_args(annotation) if isinstance(choice, str)]
    return [choice for member in typing.get_args(annotation) for choice in _choices(member)]
