"""Makes the part that takes in the steps of all roads, and writes the log."""

from __future__ import annotations

import os

from mailserver.config import Configuration
from mailserver.mail.dns_road import STEP
from mailserver.observe import LogFile, RoadStore, Steps

__all__ = ["DAY_SECONDS", "ROADS", "make_steps"]

ROADS = "explain.db"
DAY_SECONDS = 86_400.0


def make_steps(configuration: Configuration, log_file: LogFile) -> Steps:
    log = configuration.log
    return Steps(
        write=log_file.write,
        roads=RoadStore(os.path.join(configuration.data, ROADS), retention_seconds=log.retention_days * DAY_SECONDS),
        form=log.format,
        log_steps=log.level in ("debug", "info"),
        log_passes=log.level == "debug",
        addresses=log.addresses,
        mail_folders=_mail_folders(configuration),
        only_on_roads=frozenset({STEP}),
        only_counted=frozenset({"settled"}),  # it follows from `delivered` within a second
    )


def _mail_folders(configuration: Configuration) -> list[str]:
    """The folders below which paths name users: where the deliveries' templates put their first user, and the data's own."""
    folders = [os.path.join(configuration.data, "mail")]
    for table in (configuration.delivery, configuration.relay):
        path = getattr(table.options, "path", None)
        if isinstance(path, str):
            fixed = path.replace("{data}", configuration.data.rstrip("/")).partition("{")[0]
            folders.append(os.path.dirname(fixed))
    return [folder for folder in folders if len(folder) > 1]
