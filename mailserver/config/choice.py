"""Which configuration file is read: never one of the current folder, which may be anybody's.

In this order: the one that is named; ``$MAILSERVER_CONFIG``, unless the program runs with another's rights; the installed one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.ownership import foreign_owner, writable_by_others

__all__ = ["INSTALLED", "VARIABLE", "chosen_path", "insist"]

INSTALLED = "/etc/mailserver/mailserver.toml"
VARIABLE = "MAILSERVER_CONFIG"


def chosen_path(
    named: str | None,
    *,
    say: Callable[[str], object],
    environment: Mapping[str, str] | None = None,
) -> str:
    """The file's absolute path.  `say` is called with what a person should know about the choice.

    `environment` is None where it is not trusted.  Raises `ConfigurationError` for a file that root must not use, and where no
    file is named and none installed.
    """
    if named is not None:
        path = os.path.abspath(named)
        insist(path, is_named=True, say=say)
        return path
    path = (environment or {}).get(VARIABLE, "") if _is_itself() else ""
    if path:
        say(f"the configuration is {path} (${VARIABLE})")
    elif not os.path.exists(INSTALLED):
        words = f"is not there; --config FILE or ${VARIABLE} names another; `twistd -n mailserver --sandbox DIR` makes one to try"
        raise ConfigurationError([Fault(INSTALLED, 1, "", words)])
    path = os.path.abspath(path or INSTALLED)
    insist(path, is_named=False, say=say)
    return path


def insist(path: str, *, is_named: bool, say: Callable[[str], object]) -> None:
    """As root, refuse a file that others could have written, since it says what root does.  Raises `ConfigurationError`.

    A file of another user that was named by hand is accepted with a warning.
    """
    if os.geteuid() != 0:
        return
    try:
        why, whose = writable_by_others(path), foreign_owner(path)
    except OSError:
        return  # who reads it says what is wrong
    if why or (whose and not is_named):
        raise ConfigurationError([Fault(path, 1, "", f"is not root's alone, and root does what it says: {why or whose}")])
    if whose:
        say(f"{path} is not root's alone: {whose}, who can change what root does by it")


def _is_itself() -> bool:
    """Whether the program runs with its caller's own rights.  Only then is the environment trusted."""
    return os.getuid() == os.geteuid() and os.getgid() == os.getegid()
