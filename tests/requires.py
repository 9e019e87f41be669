"""What a test needs from the system: skipped at a desk that lacks it, failed where CI=true."""

from __future__ import annotations

import importlib.util
import os
import shutil

from twisted.trial.unittest import FailTest, SkipTest

__all__ = ["require_module", "require_root", "require_tool"]

SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def require_tool(name: str) -> str:
    """Return the path of the program `name`, also from the sbin folders.  Without it: fail in CI, skip elsewhere."""
    path = shutil.which(name, path=SEARCHED)
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        raise FailTest(f"{name} is not installed; .ci/run has to install it")
    raise SkipTest(f"{name} is not installed")


def require_module(name: str) -> None:
    """Return where a library of the extra ``test`` is installed.  Else: fail in CI, skip elsewhere."""
    if importlib.util.find_spec(name) is not None:
        return
    if os.environ.get("CI") == "true":
        raise FailTest(f"{name} is not installed")
    raise SkipTest(f"{name} is not installed: make setup")


def require_root(what: str) -> None:
    """Return where the tests run as root, as `what` takes.  Else: fail in CI, skip elsewhere."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        raise FailTest(f"{what} takes root")
    raise SkipTest(f"{what} takes root")
