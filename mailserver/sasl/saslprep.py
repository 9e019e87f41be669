"""SASLprep (RFC 4013): one form for what people type as user names and passwords.

SCRAM wants it (RFC 5802 section 2.2), while the hashes of passwords use its successor, OpaqueString (RFC 8265).  For printable
ASCII, and for nearly all else that a keyboard gives, both leave the same text.
"""

from __future__ import annotations

import stringprep
import unicodedata

__all__ = ["saslprep"]

PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, stored: bool = False) -> str:
    """The prepared text.  Raises ValueError for what may not stand in one.

    `stored` strings hold no code points that Unicode 3.2 had not assigned; in queries they may (RFC 3454 section 7).
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c)  # section 2.1
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)  # section 2.2
    for c in prepared:  # section 2.3
        if any(is_prohibited(c) for is_prohibited in PROHIBITED):
            raise ValueError(f"U+{ord(c):04X} may not stand in a name or a password")
        if stored and stringprep.in_table_a1(c):
            raise ValueError(f"U+{ord(c):04X} is not assigned in Unicode 3.2")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 section 6: what holds right-to-left text is right-to-left from end to end."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return
    if any(stringprep.in_table_d2(c) for c in text):
        raise ValueError("text of both directions")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("right-to-left text begins and ends with a right-to-left character")
