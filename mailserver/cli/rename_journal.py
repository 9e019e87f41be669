"""Which renames are under way, or were cut off: `renames.json` in the data folder.

From the first step on that touches what components keep, until nothing of it is left under the old name, the names stand here.
Meanwhile nobody else gets one of them: he would have another user's contacts and entries.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping

from mailserver.accounts.table import account_key
from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.mail.durable import replace_file, sync_directory
from mailserver.processes.identity import as_owner_of

__all__ = ["RenameJournal"]

JOURNAL = "renames.json"
OCTETS_MOST = 64 << 20


class RenameJournal:
    """New names by old ones: addresses as they are compared, or ``@domain``.  Raises `Unable`.

    Who changes it holds the lock of renames.  Without a data folder nothing is kept, as there is nothing that could follow.
    """

    def __init__(self, data: str) -> None:
        self._data = data
        self._path = os.path.join(data, JOURNAL)

    def read(self) -> dict[str, str]:
        """Those that are not finished."""
        try:
            with as_owner_of(self._data), open(self._path, encoding="utf-8") as file:
                found = json.loads(file.read(OCTETS_MOST))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unable(f"{self._path}: {error.strerror or error}", EX_IOERR) from error
        except (ValueError, RecursionError) as error:
            raise Unable(f"{self._path} is damaged: {error}", EX_IOERR) from error
        if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
            raise Unable(f"{self._path} is damaged: it has no names", EX_IOERR)
        return found

    def has(self, accounts: Mapping[str, str]) -> bool:
        """All of these are under way, or were cut off."""
        found = self.read()
        return bool(accounts) and all(found.get(old) == new for old, new in accounts.items())

    def begin(self, accounts: Mapping[str, str]) -> None:
        """From here on they are.  Refused where one of the names is another rename's."""
        found = self.read()
        others = {old: new for old, new in found.items() if accounts.get(old) != new}
        for one in (*accounts, *accounts.values()):
            _refuse(one, others)
        self._write({**found, **accounts})

    def end(self, accounts: Mapping[str, str]) -> None:
        """They are finished, or were taken back."""
        found = self.read()
        self._write({old: new for old, new in found.items() if accounts.get(old) != new})

    def check_free(self, address: str) -> None:
        """That nobody's records can become those of a new account of this name."""
        name = account_key(address)
        _refuse(name, self.read())

    def _write(self, names: Mapping[str, str]) -> None:
        if not os.path.isdir(self._data):
            return
        try:
            with as_owner_of(self._data):
                if names:
                    replace_file(self._path, json.dumps(dict(names), indent=1) + "\n", lambda fd: None)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._path)
                        sync_directory(self._data)
        except OSError as error:
            raise Unable(f"{self._path}: {error.strerror or error}", EX_IOERR) from error


def _refuse(name: str, others: Mapping[str, str]) -> None:
    domain = f"@{name.rpartition('@')[2]}"
    for old, new in others.items():
        if name in (old, new) or domain in (old, new) or (name.startswith("@") and (old.endswith(name) or new.endswith(name))):
            what = "domain" if old.startswith("@") else "user"
            words = f"mailserver {what} rename {plain(old.removeprefix('@'))} {plain(new.removeprefix('@'))}"
            raise Unable(f"{plain(name)} is part of a rename that was not finished: say  {words}  once more")
