"""What is wrong with a configuration, said so that it can be put right: file, line, key and a sentence."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.lines import BARE_KEY, KeyPath
from mailserver.config.options import Options, keys_of

__all__ = ["ConfigurationError", "Fault", "close_to", "key_text", "sentences"]

WANTED = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_short": "must have at least {min_length} of them",
    "too_long": "must have at most {max_length} of them",
}


def key_text(path: KeyPath) -> str:
    """``listen[0].endpoint``, ``domain."example.org".aliases``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False))
    return text


def sentences(
    error: ValidationError, model: type[Options], table: Mapping[str, Any], also_known: type[Options] | None = None
) -> list[tuple[KeyPath, str]]:
    """The key path and a sentence for each fault in `table`, which `model` has refused.

    `also_known` has further keys that could have been meant at the top of the table.
    """
    found = []
    for detail in error.errors(include_url=False):
        path, value = _path_in(detail["loc"], table, missing=detail["type"] == "missing")
        if detail["type"] == "too_short" and len(value) >= detail["ctx"]["min_length"]:
            continue  # pydantic does not count elements that are faulty themselves
        owners = (_class_at(model, path[:-1]), also_known if len(path) == 1 else None)
        known = [name for owner in owners if owner is not None for name in keys_of(owner)]
        found.append((path, _sentence(detail, path, known)))
    return found


def close_to(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'endpoint'?``, or "" where nothing is near."""
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _sentence(detail: Any, path: KeyPath, known: Sequence[str]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return "is not a key that is known here" + close_to(str(path[-1]), known)
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"must be one of: {choices}" + close_to(str(detail["input"]), choices.split(", "))
    if kind in WANTED:
        return WANTED[kind].format(**context)
    return str(detail["msg"][:1].lower() + detail["msg"][1:])


def _path_in(location: Sequence[str | int], table: Any, missing: bool) -> tuple[KeyPath, Any]:
    """The path and what stands there.  Follows the data, to drop what pydantic adds (validators' names, "[key]")."""
    path: list[str | int] = []
    for part in location:
        if isinstance(table, Mapping) and part in table:
            table = table[str(part)]
        elif isinstance(table, list) and isinstance(part, int) and part < len(table):
            table = table[part]
        elif missing and isinstance(table, Mapping):
            return (*path, part), None
        else:
            break
        path.append(part)
    return tuple(path), table


def _class_at(annotation: Any, path: KeyPath) -> type[Options] | None:
    """The table class that a key path leads to, for the names that could have been meant."""
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, Options):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            arguments = typing.get_args(annotation)
            annotation = arguments[1 if typing.get_origin(annotation) is dict else 0] if arguments else None
        while typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
            annotation = typing.get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, Options) else None
