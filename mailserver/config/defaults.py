"""Values that a command needs without the schema, which takes its time to import."""

from __future__ import annotations

__all__ = ["EXPIRE_SECONDS", "SYSTEM_FOLDERS"]

EXPIRE_SECONDS = 432000.0  # RFC 5321 section 4.5.4.1: at least 4 to 5 days
SYSTEM_FOLDERS = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run /sbin /sys /tmp /usr /usr/bin /usr/lib "
    "/usr/local /usr/share /var /var/lib /var/log /var/mail /var/run /var/spool /var/tmp".split()
)
"""Folders in which no server keeps its data: each is the system's."""
