"""One account of the accounts file, and how its table is read."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailserver.authentication.app_passwords import SCOPES, AppPassword
from mailserver.authentication.passwords import is_hash
from mailserver.config.values import domain_name, fingerprint, mail_address
from mailserver.sasl.scram_keys import decode_scram_keys

__all__ = ["Account", "Password", "account_of", "certificate_marks", "normal_certificate", "normal_sender"]

KEYS = ("disabled", "password", "scram", "cram_md5", "senders", "certificates", "app_password")
APP_PASSWORD_KEYS = ("password", "scopes", "expires")
APP_PASSWORD_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")

Tell = Callable[..., None]  # called with a sentence, and the keys below the table


@dataclass(frozen=True, slots=True)
class Password:
    """What is kept of a password: its hash, its SCRAM keys (RFC 5803), and the sealed password for CRAM-MD5."""

    hash: str | None
    scram: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One account: its address as the file has it, and what it can log in with.

    `password`, `scram` and `secret` are as in `Password`.  `senders` are addresses, or ``@`` and a domain, that it may send as
    besides its own.  `certificates` are SHA-256 fingerprints, or addresses in certificates, that log in to it.  A `disabled`
    account keeps all that, and nobody can log in.
    """

    address: str
    password: str | None = None
    scram: str | None = None
    secret: str | None = None
    senders: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    app_passwords: tuple[AppPassword, ...] = ()
    disabled: bool = False

    @property
    def for_logins(self) -> Account:
        """The account as a login sees it.  A disabled one still gets mail, and has no credentials."""
        return Account(self.address, senders=self.senders, disabled=True) if self.disabled else self


def account_of(name: str, table: Mapping[str, Any], tell: Tell) -> Account:
    """The account that a table describes.  `tell` is called with a sentence for each fault."""
    for key in table:
        if key not in KEYS:
            tell(f"is not a key of an account; those there are: {', '.join(KEYS)}", key)
    hash = _text(table, "password", tell)
    if hash is not None and not is_hash(hash):
        tell("is not a hash; `mailserver user password` makes one", "password")
    scram = _text(table, "scram", tell)
    if scram is not None:
        try:
            decode_scram_keys(scram)
        except ValueError:
            tell("are no SCRAM keys; `mailserver user password` makes them", "scram")
    secret = _text(table, "cram_md5", tell)
    senders = _texts(table, "senders", normal_sender, tell)
    certificates = _texts(table, "certificates", normal_certificate, tell)
    disabled = table.get("disabled", False)
    if not isinstance(disabled, bool):
        tell("must be true or false", "disabled")
        disabled = True
    app_passwords = tuple(_app_passwords(table.get("app_password", {}), tell))
    return Account(name, hash, scram, secret, senders, certificates, app_passwords, disabled)


def normal_sender(text: str) -> str:
    """The normal form of a sender: an address, or ``@`` and a domain.  Raises ValueError."""
    return "@" + domain_name(text[1:]) if text.startswith("@") else str(mail_address(text))


def normal_certificate(text: str) -> str:
    """The normal form of a certificate's mark: a fingerprint, or an address.  Raises ValueError."""
    return str(mail_address(text)) if "@" in text else fingerprint(text)


def certificate_marks(fingerprint: str, emails: Sequence[str]) -> list[str]:
    """The marks of a certificate: its fingerprint, then its addresses.

    A text without an @ is left out, since it could look like a fingerprint.
    """
    return [fingerprint, *[email.lower() for email in emails if "@" in email]]


def _app_passwords(tables: Any, tell: Tell) -> list[AppPassword]:
    if not isinstance(tables, dict):
        tell('is a table of tables: [account."…".app_password."phone"]', "app_password")
        return []
    found = []
    for name, table in tables.items():
        place = ("app_password", name)
        if not isinstance(table, dict) or APP_PASSWORD_NAME.fullmatch(name) is None:
            tell("must be a table with a name of 1 to 64 characters", *place)
            continue
        for key in table:
            if key not in APP_PASSWORD_KEYS:
                tell(f"is not a key of an app password; those there are: {', '.join(APP_PASSWORD_KEYS)}", *place, key)
        hash, scopes, expires = table.get("password"), table.get("scopes", list(SCOPES)), table.get("expires")
        if not isinstance(hash, str) or not is_hash(hash):
            tell("needs a hash; `mailserver user app-password add` makes one", *place)
        if not isinstance(scopes, list) or not scopes or not set(map(str, scopes)) <= set(SCOPES):
            tell(f"must be a list of these: {', '.join(SCOPES)}", *place, "scopes")
        elif expires is not None and (not isinstance(expires, datetime.date) or isinstance(expires, datetime.datetime)):
            tell("must be a date, such as 2027-01-01, without quotes", *place, "expires")
        else:
            found.append(AppPassword(name, str(hash), tuple(map(str, scopes)), expires))
    return found


def _text(table: Mapping[str, Any], key: str, tell: Tell) -> str | None:
    value = table.get(key)
    if value is None or isinstance(value, str):
        return value
    tell("must be text", key)
    return None


def _texts(table: Mapping[str, Any], key: str, normal: Callable[[str], str], tell: Tell) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        tell("must be a list of texts", key)
        return ()
    found = []
    for index, value in enumerate(values):
        try:
            found.append(normal(value))
        except ValueError as error:
            tell(str(error), key, index)
    return tuple(found)
