"""The form that a message has in a Maildir: trace fields of the final delivery in front, lines that end with LF.

A content that came with BODY=BINARYMIME (RFC 3030) stays as it is, CRLF and all: its line ends are data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from mailserver.mail.address import Address

__all__ = ["Body", "delivery_fields", "field_lines", "local_form"]

CONTROLS = dict.fromkeys((*range(32), *range(127, 160), 0x2028, 0x2029))


def delivery_fields(
    sender: Address | None, final: Address, original: Address, *, binary: bool = False, lines: bytes = b""
) -> bytes:
    """Return-Path (RFC 5321 section 4.4), Delivered-To, and X-Original-To where an alias stood between; then `lines`, each with
    its CRLF."""
    fields = f"Return-Path: <{'' if sender is None else _one_line(sender)}>\nDelivered-To: {_one_line(final)}\n"
    if original is not final and original != final:
        fields += f"X-Original-To: {_one_line(original)}\n"
    octets = _encoded(fields, binary)
    return octets + (lines if binary else lines.replace(b"\r\n", b"\n")) if lines else octets


def field_lines(*fields: tuple[str, Address | None], binary: bool = False) -> bytes:
    """Header fields that hold an address in angle brackets."""
    lines = [f"{name}: <{'' if address is None else _one_line(address)}>\n" for name, address in fields]
    return _encoded("".join(lines), binary)


def local_form(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The octets with LF for CRLF, also where a piece ends between the two."""
    held = b""
    for piece in pieces:
        if held:
            piece = held + piece
        held = b"\r" if piece.endswith(b"\r") else b""
        yield (piece[:-1] if held else piece).replace(b"\r\n", b"\n")
    if held:
        yield held


class Body:
    """A content in its local form, which is made once for all the files it goes into.

    `pieces` gives the octets as they came; `in_memory` says that they are few enough to be kept.
    """

    def __init__(self, pieces: Callable[[], Iterable[bytes]], *, binary: bool, in_memory: bool) -> None:
        self._pieces = pieces
        self._binary = binary
        self._whole: bytes | None = None
        self._whole_lf = 0
        self._in_memory = in_memory

    def write(self, fd: int, fields: bytes) -> tuple[int, int]:
        """Write `fields`, whole lines, and the content.  Raises OSError; the file may then hold a part.

        Returns the file's octets, and how many they are with each LF that stands alone counted as CRLF.
        """
        if self._in_memory:
            if self._whole is None:
                self._whole = b"".join(self._local())
                self._whole_lf = _lone_lf(self._whole)
            _write_all(fd, [fields, self._whole])
            octets = len(fields) + len(self._whole)
            return octets, octets + _lone_lf(fields) + self._whole_lf
        _write_all(fd, [fields])
        octets, lone_lf, after_cr = len(fields), _lone_lf(fields), False
        for piece in self._local():
            _write_all(fd, [piece])
            octets += len(piece)
            lone_lf += _lone_lf(piece) - (after_cr and piece.startswith(b"\n"))
            after_cr = piece.endswith(b"\r") if piece else after_cr
        return octets, octets + lone_lf

    def _local(self) -> Iterable[bytes]:
        return self._pieces() if self._binary else local_form(self._pieces())


def _lone_lf(piece: bytes) -> int:
    """How many LF have no CR in front."""
    return piece.count(b"\n") - (piece.count(b"\r\n") if b"\r" in piece else 0)


def _write_all(fd: int, pieces: list[bytes]) -> None:
    left = sum(map(len, pieces)) - os.writev(fd, pieces)
    if not left:
        return
    rest = memoryview(b"".join(pieces))[-left:]  # a full disk takes a part, then says so
    while rest:
        rest = rest[os.write(fd, rest) :]


def _one_line(address: Address) -> str:
    """No address that was parsed holds a control character; one that was made up by a plugin must not write fields of its own."""
    text = str(address)
    return text if text.isprintable() else text.translate(CONTROLS)


def _encoded(fields: str, binary: bool) -> bytes:
    octets = fields.encode("utf-8", "replace")
    return octets.replace(b"\n", b"\r\n") if binary else octets
