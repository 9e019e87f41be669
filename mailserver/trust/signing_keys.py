"""The keys with which the mail of our domains is signed, on the disk.

    KEYS/dkim/example.org/s20261130r.pem      a key, mode 0400
    KEYS/dkim/example.org/selectors.json      what each is for
    KEYS/dkim/changes                         written anew with each change: who has read the keys looks at it

A domain has an RSA key and an Ed25519 key that sign (`active`), and the two that will (`next`), whose records are published
ahead.  After a rotation the former ones are `retired`: they sign no more, and their records are wanted until mail that is on
its way has arrived.  All functions block, and raise OSError.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mailserver.mail.durable import locked_directory, make_directory, replace_file
from mailserver.trust.dkim_key import PrivateKey, read_private_key

__all__ = ["DomainKeys", "SigningKey", "changes_of", "make_keys", "read_keys", "rotate_keys"]

FOLDER, STATES_FILE, CHANGES_FILE = "dkim", "selectors.json", "changes"
KINDS = ("rsa", "ed25519")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
DOMAIN = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")

State = Literal["next", "active", "retired"]


class NoKeys(OSError):
    """What stands there cannot be used; the words say what."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key.  `since` is when it came into its state, in seconds since the epoch."""

    selector: str
    kind: str
    state: State
    since: float
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class DomainKeys:
    """The keys of a domain (lower case, A-labels), in the order in which they were made."""

    domain: str
    keys: tuple[SigningKey, ...]

    def in_state(self, state: State) -> tuple[SigningKey, ...]:
        """Those in this state."""
        return tuple([one for one in self.keys if one.state == state])

    def name_of(self, key: SigningKey) -> str:
        """Where its record stands in the DNS."""
        return f"{key.selector}._domainkey.{self.domain}"


def changes_of(keys_directory: str) -> object:
    """Something that is another thing after each change, None where there are no keys.  Never raises."""
    try:
        found = os.stat(os.path.join(keys_directory, FOLDER, CHANGES_FILE))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_keys(keys_directory: str) -> Mapping[str, DomainKeys]:
    """All domains' keys.  Raises `NoKeys`, with the file's name, for one that cannot be read: none is left out in silence."""
    folder = os.path.join(keys_directory, FOLDER)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return {}
    domains = [name for name in names if DOMAIN.fullmatch(name) and os.path.isdir(os.path.join(folder, name))]
    return {domain: _read_domain(folder, domain) for domain in domains if os.path.exists(_states_path(folder, domain))}


def make_keys(keys_directory: str, domain: str, *, now: float) -> DomainKeys:
    """The first keys of a domain: two that sign at once, and the next two.  Raises FileExistsError where it has some."""
    if DOMAIN.fullmatch(domain) is None:
        raise NoKeys(f"{domain!r} is no domain name in lower case and A-labels")
    folder = os.path.join(keys_directory, FOLDER)
    make_directory(folder)
    with locked_directory(folder, "the keys"):
        if os.path.exists(_states_path(folder, domain)):
            raise FileExistsError(f"{domain} has keys already")
        make_directory(os.path.join(folder, domain))
        keys = _made((), "active", now)
        keys += _made(keys, "next", now)
        return _kept(folder, DomainKeys(domain, tuple(keys)), former=())


def rotate_keys(keys_directory: str, domain: str, *, now: float, retired_seconds: float) -> DomainKeys:
    """The next keys sign from now on, others are made to follow them.  Those that were retired long enough ago are removed.

    Raises FileNotFoundError for a domain without keys.
    """
    folder = os.path.join(keys_directory, FOLDER)
    with locked_directory(folder, "the keys"):
        former = _read_domain(folder, domain)
        states: Mapping[State, State] = {"next": "active", "active": "retired", "retired": "retired"}
        keys = [
            replace(one, state=states[one.state], since=one.since if one.state == "retired" else now)
            for one in former.keys
            if one.state != "retired" or now - one.since < retired_seconds
        ]
        keys += _made(keys, "next", now)
        found = _kept(folder, DomainKeys(domain, tuple(keys)), former.keys)
        for one in former.keys:
            if all(one.selector != kept.selector for kept in found.keys):
                os.unlink(_key_path(folder, domain, one.selector))
        return found


def _made(others: Sequence[SigningKey], state: State, now: float) -> list[SigningKey]:
    taken = {one.selector for one in others}
    day = time.strftime("%Y%m%d", time.gmtime(now))
    made = []
    for kind in KINDS:
        name = next(name for n in range(1000) if (name := f"s{day}{kind[0]}{n or ''}") not in taken)
        made.append(SigningKey(name, kind, state, now, PrivateKey.generate(kind)))
    return made


def _kept(folder: str, found: DomainKeys, former: Sequence[SigningKey]) -> DomainKeys:
    """Write it down: first the keys, then what they are for, then that there was a change.

    A file of a new key's name that stands there already is of somebody who was killed before he came to the second step.
    """
    known = {one.selector for one in former}
    for key in found.keys:
        if key.selector not in known:
            path = _key_path(folder, found.domain, key.selector)
            replace_file(path, key.key.pem.decode(), lambda fd: os.fchmod(fd, 0o400))
    states = [{"selector": k.selector, "kind": k.kind, "state": k.state, "since": k.since} for k in found.keys]
    replace_file(_states_path(folder, found.domain), json.dumps(states, indent=1) + "\n", _for_its_owner)
    replace_file(os.path.join(folder, CHANGES_FILE), f"{time.time_ns()}\n", _for_its_owner)
    return found


def _for_its_owner(fd: int) -> None:
    os.fchmod(fd, 0o600)


def _read_domain(folder: str, domain: str) -> DomainKeys:
    path = _states_path(folder, domain)
    with open(path, encoding="utf-8") as file:
        text = file.read(1 << 20)
    try:
        states: Any = json.loads(text)
        keys = tuple([_read_key(folder, domain, one) for one in states])
    except (ValueError, TypeError, KeyError) as error:
        raise NoKeys(f"{path} cannot be read: {error}") from error
    return DomainKeys(domain, keys)


def _read_key(folder: str, domain: str, state: Any) -> SigningKey:
    selector, since = state["selector"], float(state["since"])
    if NAME.fullmatch(selector) is None or state["state"] not in ("next", "active", "retired"):
        raise ValueError("a selector or its state is not what it must be")
    path = _key_path(folder, domain, selector)
    with open(path, "rb") as file:
        pem = file.read(1 << 16)
    try:
        key = read_private_key(pem)
    except ValueError as error:
        raise NoKeys(f"{path}: {error}") from error
    return SigningKey(selector, key.kind, state["state"], since, key)


def _states_path(folder: str, domain: str) -> str:
    return os.path.join(folder, domain, STATES_FILE)


def _key_path(folder: str, domain: str, selector: str) -> str:
    return os.path.join(folder, domain, f"{selector}.pem")
