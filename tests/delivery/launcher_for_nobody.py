"""The launcher's program with a user table of the test's own: nobody, whose home is said in the commands' environment, and root."""

from __future__ import annotations

import pwd
import sys

from mailserver.delivery import launcher
from mailserver.delivery.launcher import Launch, main

NOBODY = pwd.getpwnam("nobody")


def account_for(launch: Launch, user: str, lookup: object) -> pwd.struct_passwd:
    home = launch.environment["TEST_HOME"]
    table = {
        "nobody": pwd.struct_passwd((*NOBODY[:5], home, NOBODY[6])),
        "root": pwd.struct_passwd(("root", "x", 0, 0, "", home, "/bin/sh")),
    }
    return real_account_for(launch, user, table.__getitem__)


if __name__ == "__main__":
    real_account_for = launcher.account_for
    launcher.account_for = account_for
    main(sys.argv[1:])
