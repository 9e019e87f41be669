"""The launcher's program with a user table of the test's own: each argument ``name:uid:gid:home`` is a user."""

from __future__ import annotations

import sys

from mailserver.delivery.launcher import main
from tests.delivery.courier_for_nobody import entry

if __name__ == "__main__":
    *users, launch, number = sys.argv[1:]
    table = {user.pw_name: user for user in map(entry, users)}
    main([launch, number], lookup=table.__getitem__)
