"""JSON as text in ASCII, for what is written with each message.

`json.dumps` and `JSONEncoder.encode` make a new encoder of C for each call; one that is kept takes half of the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json import encoder as json_encoder
from json.encoder import encode_basestring_ascii
from typing import Any

__all__ = ["json_text"]


def json_text(*, allow_nan: bool = True, default: Callable[[object], object] | None = None) -> Callable[[Any], str]:
    """What makes text, without blanks, of a value in which nothing refers to a thing around it.

    With `allow_nan` False it raises ValueError for a number that is not finite.  `default` makes another object of one that JSON
    does not know; without it that is a TypeError.
    """
    plain = json.JSONEncoder(check_circular=False, allow_nan=allow_nan, separators=(",", ":"), default=default)
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    chunks = make(None, plain.default, encode_basestring_ascii, None, ":", ",", False, False, allow_nan)
    return lambda value: "".join(chunks(value, 0))
