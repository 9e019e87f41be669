"""Postfix's configuration on the disk: asked of its own ``postconf`` where that is installed, else read here.

Passwords and members of aliases are in the tables; nothing is written, and no map of another program is asked.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mailserver.moving.postfix_defaults import DEFAULTS
from mailserver.moving.postfix_files import (
    Service,
    alias_lines,
    expanded,
    main_lines,
    master_services,
    table_lines,
    words,
)
from mailserver.moving.reckoning import Reckoning

__all__ = ["Line", "NoPostfix", "PostfixSource"]

FILES = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash"})
SUFFIXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag", "sdbm": ".pag"}
SECONDS = 30
LIVE = "it is asked each time, so nothing here can list it"


class NoPostfix(Exception):
    """There is no configuration of Postfix, or it cannot be read.  The message says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table.  `where` is its file and number, for people."""

    key: str
    value: str
    where: str


class PostfixSource:
    """The configuration in `directory`.  `root` is put before every path in it: "" for this host's own files.

    Raises `NoPostfix`.
    """

    def __init__(self, directory: str, reckoning: Reckoning, *, root: str = "") -> None:
        self.directory, self.root, self.reckoning = os.path.abspath(directory), root.rstrip("/"), reckoning
        try:
            self.written: dict[str, str] = main_lines(_text(os.path.join(directory, "main.cf")))
        except OSError as error:
            raise NoPostfix(f"{error.filename}: {error.strerror}") from error
        self.defaults: Mapping[str, str] = {**DEFAULTS, **_own_names(), "config_directory": self.directory}
        self.unknown: frozenset[str] = frozenset()
        self._ask_postconf()
        if "mydomain" not in self.written:
            self.defaults = {**self.defaults, "mydomain": self["myhostname"].partition(".")[2] or "localdomain"}
        self.services = self._services()

    def __getitem__(self, name: str) -> str:
        """The value that is in force, with other parameters put in."""
        return self._in_force(name, {})

    def raw(self, name: str) -> str:
        """As it is written, else the default."""
        return self.written.get(name, self.defaults.get(name, ""))

    def words(self, name: str) -> list[str]:
        """A list."""
        return words(self[name])

    def is_yes(self, name: str) -> bool:
        """A parameter that is yes or no."""
        return self[name].lower() == "yes"

    def is_set(self, name: str) -> bool:
        """It is written, and says something else than the default."""
        return name in self.written and self.written[name] != self.defaults.get(name, None)

    def carried(self, name: str, where: str) -> None:
        """A parameter stands in the new configuration now; of one that is not set nothing is told."""
        if self.is_set(name):
            self.reckoning.carried(name, self.raw(name), where)

    def value_for(self, service: Service, name: str) -> str:
        """The value for one service, whose ``-o`` counts first."""
        return (
            expanded(service.options[name], lambda one: self._in_force(one, {}))
            if name in service.options
            else self[name]
        )

    def path(self, path: str) -> str:
        """Where a file of the configuration is."""
        path = path.replace("\0", "")  # which no file has in its name
        whole = path if path.startswith("/") else os.path.join(self.directory, path)
        return whole if not self.root or whole.startswith(self.root + "/") else self.root + whole

    def first_line(self, value: str) -> str:
        """A value that may be a file whose first line it is, as ``myorigin = /etc/mailname``."""
        if not value.startswith("/"):
            return value
        try:
            return (_text(self.path(value)).split() or [""])[0]
        except OSError:
            return ""

    def lines(self, parameter: str, spec: str, *, aliases: bool = False) -> Iterator[Line]:
        """The lines of one map, ``hash:/etc/postfix/virtual``.  What cannot be listed is told to the reckoning."""
        bare = re.sub(r"^(proxy|maildrop|fail):", "", spec)
        kind, colon, rest = bare.partition(":")
        if not colon:
            kind, rest = "hash", bare
        if kind == "inline":
            for one in words(rest.strip().removeprefix("{").removesuffix("}")):
                key, _, value = one.strip("{} \t").partition("=")
                yield Line(key.strip().lower(), value.strip(), spec)
            return
        if kind == "static":
            yield Line("*", rest.strip("{} "), spec)
            return
        if kind == "nis" and not self.is_set(parameter):
            return  # Postfix's own default, which says nothing where there is no NIS
        if kind not in FILES:
            why = f"{kind}: {'patterns have no equal here' if kind in ('regexp', 'pcre') else LIVE}"
            self.reckoning.left(
                parameter, spec, why, _INSTEAD.get(parameter, "write what it says into the new configuration by hand")
            )
            return
        path = self.path(rest)
        try:
            text = self._source(parameter, kind, path)
        except (OSError, UnicodeError, NoPostfix) as error:
            why = getattr(error, "strerror", None) or str(error)
            self.reckoning.left(
                parameter, spec, f"{path} cannot be read: {why}", "make it readable and run the import again"
            )
            return
        read = (
            ((n, name, ", ".join(found)) for n, name, found in alias_lines(text))
            if aliases and ":" in text
            else table_lines(text)
        )
        seen: set[str] = set()
        for number, key, value in read:
            where = f"{path}:{number}"
            if key in seen:
                self.reckoning.left(
                    f"{parameter}: {where}", key, "the key is there twice, and Postfix takes the first", "remove it"
                )
                continue
            seen.add(key)
            yield Line(key, value, where)

    def maps(self, parameter: str, *, aliases: bool = False) -> list[Line]:
        """All lines of all maps of a parameter; of several with one key the first holds."""
        found: dict[str, Line] = {}
        for spec in self.words(parameter):
            for line in self.lines(parameter, spec, aliases=aliases):
                found.setdefault(line.key, line)
        return list(found.values())

    def listed(self, parameter: str) -> list[str]:
        """A list of names in which ``/file`` and ``type:table`` may stand."""
        found = []
        for word in self.words(parameter):
            if word.startswith("/"):
                try:
                    found += [
                        one
                        for line in _text(self.path(word)).splitlines()
                        if not line.startswith("#")
                        for one in words(line)
                    ]
                except (OSError, UnicodeError) as error:
                    self.reckoning.left(parameter, word, f"cannot be read: {error}", "add what it lists by hand")
            elif re.match(r"[a-z]+:.*/|inline:|static:", word):
                found += [line.key for line in self.lines(parameter, word)]
            else:
                found.append(word)
        return found

    def _in_force(self, name: str, over: Mapping[str, str]) -> str:
        return expanded(over.get(name, self.raw(name)), lambda one: self.raw(one))

    def _ask_postconf(self) -> None:
        """Values and defaults as Postfix itself has them, where it is there to be asked."""
        written, defaults = self._postconf("-n"), self._postconf("-d")
        if written is None or defaults is None:
            return
        known = main_lines(written)
        self.unknown = frozenset(self.written) - frozenset(known)
        self.written |= {name: value for name, value in known.items() if name in self.written}
        self.defaults = main_lines(defaults) | {"config_directory": self.directory}

    def _postconf(self, flags: str) -> str | None:
        command = ["postconf", "-c", self.directory, flags]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "surrogateescape")

    def _services(self) -> list[Service]:
        try:
            return master_services(_text(os.path.join(self.directory, "master.cf")))
        except OSError as error:
            self.reckoning.left(
                "master.cf", "", f"cannot be read: {error.strerror}", "say in [[listen]] where the server listens"
            )
            return []

    def _source(self, parameter: str, kind: str, path: str) -> str:
        """The text from which the map was made; where that is gone, what Postfix's own postmap finds in it."""
        compiled = path + SUFFIXES.get(kind, "")
        if os.path.exists(path) or kind == "texthash" or not os.path.exists(compiled):
            text = _text(path)
            if (
                kind != "texthash"
                and os.path.exists(compiled)
                and os.stat(path).st_mtime > os.stat(compiled).st_mtime + 1
            ):
                why = f"{path} was changed after {compiled} was made: its newer text is taken, which Postfix does not have yet"
                self.reckoning.carried(f"{parameter}: {path}", kind, why)
            return text
        if shutil.which("postmap") is None:
            raise NoPostfix(f"there is only {compiled}, and no postmap to read it")
        command = ["postmap", "-c", self.directory, "-s", f"{kind}:{path}"]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        if done.returncode:
            raise NoPostfix(done.stderr.decode("utf-8", "replace").strip() or "postmap failed")
        return done.stdout.decode("utf-8")


_INSTEAD = {
    "virtual_mailbox_maps": 'where the mailboxes stand in a database, see [accounts] use = "sql" or "ldap" (docs/accounts.md)',
    "virtual_alias_maps": "list the aliases and add them: mailserver alias add; by convention: [[domain.….pattern]]",
    "alias_maps": "list the aliases and add them: mailserver alias add",
}


def _own_names() -> dict[str, str]:
    """What Postfix takes for this host's name where main.cf says none."""
    name = socket.gethostname()
    host = name if "." in name else f"{name}.localdomain"
    return {"myhostname": host, "mydomain": host.partition(".")[2]}


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
