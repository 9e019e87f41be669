"""What the start asks of the host: folders of our own, a Python that the server's user may run, and memory in order."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

from twisted.logger import Logger

from mailserver.authentication.sealing import KeyPlace, make_folder
from mailserver.config import Configuration
from mailserver.mail.durable import make_directory
from mailserver.plugins.life import StartError

__all__ = ["COLLECTOR_THRESHOLDS", "look_at_privileges", "make_folders", "settle_memory"]

COLLECTOR_THRESHOLDS = (20_000, 20, 20)  # objects; measured in docs/performance.md
log = Logger()


def make_folders(configuration: Configuration, owner: tuple[int, int]) -> None:
    """The data folder and that of the keys, where they are missing; root gives them to the server's `owner`.  Raises OSError."""
    data = configuration.data
    if not os.path.isdir(data):
        make_directory(data)
        if os.geteuid() == 0 and owner != (-1, -1):
            os.chown(data, *owner, follow_symlinks=False)
    keeps_keys = getattr(configuration.accounts.options, "recoverable", False) or configuration.by_acme is not None
    if os.geteuid() == 0 and keeps_keys:
        make_folder(KeyPlace(configuration.keys_path, data), *owner)


def look_at_privileges(*, in_sandbox: bool) -> None:
    """After root has been given up.  Raises `StartError` where the user that is left cannot run the processes beside us."""
    if not os.access(sys.executable, os.X_OK):
        raise StartError(
            f"the user {os.geteuid()} may not run {sys.executable}: install into a Python that everybody may read, "
            "not one in root's home"
        )
    if os.geteuid() == 0 and not in_sandbox:
        log.warn("the server keeps root's rights: give it a user of its own (twistd --uid --gid, or the systemd unit)")


def settle_memory() -> None:
    """What was made until now stays: the collector need not look at it again, and may look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; the start used more than the server needs
    if give_back is not None:
        give_back(0)
