"""Standard input, output and error: there, whatever whoever started us has closed."""

from __future__ import annotations

import os
import sys

__all__ = ["fill_streams"]

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill_streams() -> None:
    """Open those of the three that are closed on /dev/null, as Postfix's programs do.

    Before anything else is opened: a file of ours would get such a number, and be taken for standard output later.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    for number, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
