"""File names: what an address or a configuration may put into a path, and in which form.

Three kinds of names are made here, and nothing else in the delivery joins text into a path:

* the Maildir's path, from a template such as ``{data}/mail/{domain}/{user}``;
* a folder below the inbox, after Maildir++: ``.lists.python``, each part in the modified UTF-7 of RFC 3501 section 5.1.3;
* a message's file, ``{seconds}.{id}_{number}.{host},S={octets},W={octets with CRLF}``, the number being that of the mailbox:
  what stands before the host is the same for every attempt and for every recipient that shares the mailbox, so that a repeated
  delivery finds it again; the sizes save Dovecot and Courier from asking the disk for them.
"""

from __future__ import annotations

import base64
import os.path
import re
import zlib
from collections.abc import Mapping

__all__ = [
    "PathTemplate",
    "TemplateError",
    "encoded_part",
    "file_name",
    "folder_name",
    "marker_in",
    "marker_of",
    "number_of_mailbox",
    "resized",
    "sized",
]

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = ("data", "domain", "home", "user")
ENCODED = re.compile("[\x00-\x1f\x7f-\x9f/%\\\\\u2028\u2029\ud800-\udfff]")
ENCODED_IN_FOLDER = re.compile("[\x00-\x1f\x7f-\x9f/.%\\\\\u2028\u2029\ud800-\udfff]")
NOT_PRINTABLE_ASCII = re.compile("[^ -~]+")
SIZES = re.compile(r",S=[0-9]+,W=[0-9]+")
HOST_CHARACTERS = 120  # a name may have 255 octets; the sizes, the flags and the draft's number need room, too
HOST_REPLACED = {"/": r"\057", ":": r"\072"}  # as the Maildir specification writes them


class TemplateError(ValueError):
    """The path template cannot be used.  The message says why."""


class PathTemplate:
    """Where a mailbox's Maildir lies.

    `template` is an absolute path once ``{data}`` is put in, or begins with ``{home}``.  Raises `TemplateError`.
    """

    def __init__(self, template: str, *, data_directory: str) -> None:
        for name in PLACEHOLDER.findall(template):
            if name not in PLACEHOLDERS:
                raise TemplateError(f"{{{name}}} is none of {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}")
        if "\0" in template or ".." in template.split("/"):
            raise TemplateError('".." and NUL have no place in the path')
        if not template.startswith(("/", "{data}/", "{home}/")):
            raise TemplateError("the path must begin with /, {data}/ or {home}/")
        if "{data}" in template[1:] or "{home}" in template[1:]:
            raise TemplateError("{data} and {home} stand only at the beginning")
        self.needs_home = template.startswith("{home}")
        self._template = template.removeprefix("{home}").replace("{data}", data_directory.rstrip("/"))
        if "{user}" not in template and not self.needs_home:
            raise TemplateError("without {user} or {home} all users would share one Maildir")
        fixed = PLACEHOLDER.split(self._template)[0]
        self.root = fixed[: fixed.rfind("/")] or "/"
        self.depth = self._template.rstrip("/").count("/", len(self.root.rstrip("/")))  # of the Maildirs below the root
        self.path(user="user", domain="example.org", home="/home/user")

    def path(self, *, user: str, domain: str, home: str = "") -> str:
        """The Maildir's path.  Raises `TemplateError` where it would leave `root` (or `home`): that would be our own fault."""
        values: Mapping[str, str] = {"user": encoded_part(user), "domain": encoded_part(domain)}
        inner = PLACEHOLDER.sub(lambda match: values[match[1]], self._template)
        root = home.rstrip("/") if self.needs_home else self.root
        path = root + inner if self.needs_home else inner
        inside = root if root.endswith("/") else root + "/"
        if not root.startswith("/") or os.path.normpath(path) != path.rstrip("/") or not path.startswith(inside):
            raise TemplateError("the path would leave the mail's root")
        return path.rstrip("/")


def encoded_part(text: str) -> str:
    """One component of a path, whatever `text` holds.  Different texts give different components.

    A leading dot is encoded too: no user can be ``..``, nor look like another user's folder.
    """
    part = ENCODED.sub(_percent, text)
    if part.startswith("."):
        part = "%2E" + part[1:]
    return part or "%"


def folder_name(folder: tuple[str, ...]) -> str:
    """The directory of a folder below the inbox, "" for the inbox itself."""
    return "".join(["." + _modified_utf7(ENCODED_IN_FOLDER.sub(_percent, part) or "%") for part in folder])


def file_name(seconds: float, id: str, number: int, host: str) -> str:
    """The name of a message's file; it depends on nothing that a second attempt would not know again."""
    return f"{int(seconds)}{marker_of(id, number)}{host}"


def marker_of(id: str, number: int) -> str:
    """The part of a file's name that says which message it is, and which copy of it."""
    return f".{id}_{number}."


def number_of_mailbox(user: str) -> int:
    """The number in the names of a mailbox's files: at most nine digits.

    Whichever recipient brings a message to a Maildir, it has one name there.  The domain is not in it: where a path is made
    of the user alone, the Maildir is that of several domains.
    """
    return zlib.crc32(user.encode("utf-8", "surrogatepass")) % 1_000_000_000


def marker_in(name: str) -> str:
    """The marker in a file's name, "" where it has none."""
    parts = name.split(".", 2)
    return f".{parts[1]}." if len(parts) == 3 else ""


def sized(name: str, octets: int, with_crlf: int) -> str:
    """The name with the file's sizes, after Maildir++ (S) and Dovecot (W)."""
    return f"{name},S={octets},W={with_crlf}"


def resized(name: str, octets: int, with_crlf: int) -> str:
    """The name of a file that another one replaces: it keeps its flags, and its sizes become those of the new one.

    Mail of older versions has no sizes in its name and gets none: it is found under the name that mail programs know.
    """
    return SIZES.sub(f",S={octets},W={with_crlf}", name, count=1)


def host_part(hostname: str) -> str:
    """The host as it may stand in a file's name, cut where a longer one would leave no room for the rest of it."""
    return "".join([HOST_REPLACED.get(character, character) for character in encoded_part(hostname)])[:HOST_CHARACTERS]


def _percent(match: re.Match[str]) -> str:
    return "".join([f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogatepass")])


def _modified_utf7(text: str) -> str:
    """RFC 3501 section 5.1.3: ``&`` is ``&-``, what is not printable ASCII goes into base64 of UTF-16BE with ``,`` for ``/``."""
    return NOT_PRINTABLE_ASCII.sub(_base64_run, text.replace("&", "&-"))


def _base64_run(match: re.Match[str]) -> str:
    octets = base64.b64encode(match[0].encode("utf-16-be")).rstrip(b"=")
    return "&" + octets.replace(b"/", b",").decode("ascii") + "-"
