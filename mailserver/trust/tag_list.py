"""The tag=value lists of DKIM, DMARC and ARC (RFC 6376 section 3.2).

    tag-list  =  tag-spec *( ";" tag-spec ) [ ";" ]
    tag-spec  =  [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]

Names are case-sensitive.  A name that is there twice makes the whole list invalid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["TagFault", "parse_tags"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
VALUE = re.compile(r"[!-:<-~ \t\r\n]*")
TAGS_MOST = 100


class TagFault(ValueError):
    """The text is no tag list, or a tag's value is not what it must be."""


def parse_tags(text: str) -> Mapping[str, str]:
    """The values by their names, in the order of the text, without the white space around them.  Raises `TagFault`."""
    found: dict[str, str] = {}
    specs = text.split(";")
    if not specs[-1].strip(" \t\r\n"):
        del specs[-1]
    if len(specs) > TAGS_MOST:
        raise TagFault(f"more than {TAGS_MOST} tags")
    for spec in specs:
        name, equals, value = spec.partition("=")
        name, value = name.strip(" \t\r\n"), value.strip(" \t\r\n")
        if not equals or NAME.fullmatch(name) is None:
            raise TagFault(f"no tag: {spec.strip()[:40]!r}")
        if name in found:
            raise TagFault(f"the tag {name} is there twice")
        if VALUE.fullmatch(value) is None:
            raise TagFault(f"the value of {name} holds what no value has")
        found[name] = value
    return found
