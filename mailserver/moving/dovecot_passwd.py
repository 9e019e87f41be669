"""Dovecot's passwd-file: who has which password, in which scheme (doc.dovecot.org: Passwd-file, Password Schemes).

    alice@example.org:{SHA512-CRYPT}$6$…:5000:5000::/var/vmail/alice::userdb_quota_rule=*:storage=1G

A hash that the server can compare is kept as it is, and renewed with the next log-in.  A password in the clear is hashed.  Of all
other schemes nothing is kept: the account gets its mail, and needs a new password.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailserver.authentication.passwords import is_comparable

__all__ = ["PasswdLine", "passwd_lines"]

SCHEME = re.compile(r"\{([A-Za-z0-9-]+)(?:\.(b64|base64|hex))?\}", re.IGNORECASE)
CLEAR = frozenset({"PLAIN", "CLEARTEXT", "CLEAR", "PLAIN-TRUNC"})
CRYPTS = frozenset({"CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT", "ARGON2", "ARGON2I", "ARGON2ID"})
SALTED = {"SSHA": "SSHA", "SSHA256": "SSHA256", "SSHA512": "SSHA512"}
NEVER = frozenset({"nologin", "nologin=y", "nologin=yes"})


@dataclass(frozen=True, slots=True)
class PasswdLine:
    """One user.  Of `hash` (as the accounts file keeps it) and `clear` (the password itself) one is given, or neither; then `why`
    says why.  `is_disabled`: nobody may log in.  `extra` are fields that are not carried over.
    """

    number: int
    user: str
    hash: str = ""
    clear: str = ""
    why: str = ""
    is_disabled: bool = False
    extra: tuple[str, ...] = ()


def passwd_lines(text: str, *, scheme: str = "CRYPT") -> Iterator[PasswdLine]:
    """The lines that name a user.  `scheme` is that of passwords without one."""
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.rstrip("\r")
        if not bare.strip() or bare.startswith(("#", ":")):
            continue
        user, _, rest = bare.partition(":")
        password, fields = _divided(rest)
        extra = tuple(fields[5].split()) if len(fields) > 5 else ()
        is_disabled = any(one.lower() in NEVER for one in extra)
        kept = tuple(one for one in extra if one.lower() not in NEVER and not one.lower().startswith("userdb_"))
        hash, clear, why = _password(password, scheme)
        yield PasswdLine(number, user.strip(), hash, clear, why, is_disabled, kept)


def _divided(rest: str) -> tuple[str, list[str]]:
    """The password, and the fields behind it.  A hash has no colon in it; one in the clear cannot have one either."""
    password, _, behind = rest.partition(":")
    return password, behind.split(":", 5)


def _password(text: str, scheme: str) -> tuple[str, str, str]:
    """Hash, password in the clear, and why there is neither."""
    match = SCHEME.match(text)
    name, encoding, value = (
        (match[1].upper(), match[2] or "", text[match.end() :]) if match else (scheme.upper(), "", text)
    )
    if not value:
        return "", "", "it has no password"
    if name in CLEAR:
        clear = _decoded(value, encoding) if encoding else value.encode("utf-8", "surrogateescape")
        try:
            return (
                "",
                clear.decode("utf-8") if clear is not None else "",
                "" if clear else "its password cannot be read",
            )
        except UnicodeDecodeError:
            return "", "", "its password is not UTF-8"
    found = ""
    if name in CRYPTS:
        found = value if value.startswith("$") else ""
    elif name in SALTED:
        octets = _decoded(value, encoding or "b64")
        found = "" if octets is None else f"{{{SALTED[name]}}}{base64.b64encode(octets).decode('ascii')}"
    if found and is_comparable(found):
        return found, "", ""
    what = found.split("$")[1] if found.startswith("$") and found.count("$") > 1 else ""
    return "", "", f"the scheme {name}{f' (${what}$)' if what else ''} is not known here, or its hash is malformed"


def _decoded(value: str, encoding: str) -> bytes | None:
    try:
        if encoding.lower() == "hex":
            return bytes.fromhex(value)
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return None
