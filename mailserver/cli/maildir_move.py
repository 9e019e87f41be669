"""Moves an account's Maildir to another name, while mail is being delivered into it.

The two names are exchanged in one step (renameat2(2)).  The old name is then a link to the new place.  A delivery that has the
Maildir open goes on writing into it.  Mail still on its way under the old name arrives there, too: from a session that got 250
at RCPT before, or in the queue.  So the link stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Sequence

from mailserver.cli.output import EX_IOERR, Unable, plain
from mailserver.cli.purge import as_keeper_of
from mailserver.mail.durable import sync_directory

__all__ = ["Moves", "leads_to_another"]

RENAME_EXCHANGE = 2
AT_FDCWD = -100
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class Moves:
    """Those that were made, from the old path to the new one, so that they can be taken back.  `data`: as for `as_keeper_of`.

    `stay` is set where an earlier try has come so far that nothing may be taken back: both names have their accounts.
    """

    def __init__(self, data: str) -> None:
        self.stay = False
        self._data = data
        self._made: list[tuple[str, str, bool]] = []  # and whether the new path led to the old one before

    @property
    def links(self) -> Sequence[str]:
        """The old paths."""
        return [old for old, _, _ in self._made]

    def make(self, old: str, new: str) -> None:
        """One more; one that is made already (an earlier try was cut off) is taken as it is.  Raises `Unable`."""
        if old == new:
            return
        try:
            with as_keeper_of(self._data, *map(os.path.dirname, (old, new))):
                led = os.path.islink(new) and os.path.realpath(new) == os.path.realpath(old)
                _move(old, new, self._data)
        except OSError as error:
            raise Unable(f"{plain(old)}: {_why(error)}", EX_IOERR) from error
        self._made.append((old, new, led))

    def were_made(self, pairs: Sequence[tuple[str, str]]) -> bool:
        """Whether an earlier try has made all of these moves."""
        with as_keeper_of(self._data, *{os.path.dirname(path) for pair in pairs for path in pair}):
            return all(_is_made(old, new) for old, new in pairs)

    def take_back(self) -> None:
        """Undo the moves, the last first.  Raises `Unable`."""
        while self._made and not self.stay:
            old, new, led = self._made.pop()
            try:
                with as_keeper_of(self._data, *map(os.path.dirname, (old, new))):
                    _exchange(old, new)
                    if led:
                        _lead(new, _target(old, new))
                    else:
                        os.unlink(new)
                    _sync(old, new)
            except OSError as error:
                raise Unable(f"{plain(new)} could not be moved back to {plain(old)}: {_why(error)}", EX_IOERR) from error


def leads_to_another(path: str, others: Iterable[str]) -> str:
    """The Maildir among `others` that is the one at `path`, where either is a link, "" for none: two accounts would share it.

    What a link of their folders brings together is the administrator's will.
    """
    real, is_link = os.path.realpath(path), os.path.islink(path)
    alike = [other for other in others if other != path and (is_link or os.path.islink(other))]
    return next((other for other in alike if os.path.realpath(other) == real), "")


def _move(old: str, new: str, data: str) -> None:
    _make_above(new)
    if _is_made(old, new):
        return
    target = _target(new, old)
    had_link = os.path.islink(new)
    if had_link and os.path.realpath(new) != os.path.realpath(old) and os.readlink(new) != target:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    if not os.path.lexists(old):
        _make_above(old)
        with contextlib.suppress(FileExistsError):  # its first mail is quicker
            os.mkdir(old, 0o700)
            if os.geteuid() == 0:
                owner = os.stat(data)
                os.chown(old, owner.st_uid, owner.st_gid, follow_symlinks=False)
    if had_link:  # the account had this name before, or an earlier try was cut off here: the name is missing at no time
        _lead(new, target)
    else:
        os.symlink(target, new)
    try:
        _exchange(old, new)
    except OSError:
        os.unlink(new)
        raise
    _sync(old, new)


def _is_made(old: str, new: str) -> bool:
    return os.path.islink(old) and os.path.realpath(old) == os.path.realpath(new) and not os.path.islink(new)


def _target(path: str, other: str) -> str:
    """The target that a link at `other` needs to lead to `path`."""
    return os.path.basename(path) if os.path.dirname(path) == os.path.dirname(other) else path


def _lead(link: str, target: str) -> None:
    """Replace a link's target atomically."""
    draft = os.path.join(os.path.dirname(link), f".renamed-{os.path.basename(link)}"[:255])  # a name that no user can have
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    os.symlink(target, draft)
    os.rename(draft, link)


def _exchange(one: str, other: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    try:
        call = library.renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), one) from None
    here = ctypes.c_int(AT_FDCWD)
    if call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(RENAME_EXCHANGE)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


def _make_above(path: str) -> None:
    """The folders above, each for its owner alone (`os.makedirs` would open the upper ones)."""
    folder = os.path.dirname(path)
    if os.path.isdir(folder):
        return
    _make_above(folder)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    sync_directory(os.path.dirname(folder))


def _sync(*paths: str) -> None:
    for folder in {os.path.dirname(path) for path in paths}:
        sync_directory(folder)


def _why(error: OSError) -> str:
    if error.errno == errno.EEXIST:
        return f"cannot be moved, {plain(str(error.filename))} is there already: nothing was changed"
    if error.errno == errno.EXDEV:
        return "cannot be moved to another file system: stop the server, copy it, and say --mail-stays; nothing was changed"
    if error.errno in CANNOT_EXCHANGE:
        return "its file system cannot exchange two names: stop the server, move it, and say --mail-stays; nothing was changed"
    return f"could not be moved: {error.strerror or error}"
