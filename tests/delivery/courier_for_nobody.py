"""The courier's program with a user table of the test's own: each argument ``name:uid:gid:home`` is a user."""

from __future__ import annotations

import pwd
import sys

from mailserver.delivery.courier import main


def entry(text: str) -> pwd.struct_passwd:
    name, uid, gid, home = text.split(":")
    return pwd.struct_passwd((name, "x", int(uid), int(gid), "", home, "/bin/sh"))


if __name__ == "__main__":
    *users, template, uid_min, number = sys.argv[1:]
    table = {user.pw_name: user for user in map(entry, users)}
    main([template, uid_min, number], lookup=table.__getitem__)
