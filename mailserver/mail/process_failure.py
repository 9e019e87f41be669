"""What a call in another process has come to where it came to nothing.

The process imports this: it stands where little else has to be imported with it.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ProcessFailed"]


class ProcessFailed(OSError):
    """A call in another process came to nothing.

    `how` is "raised" (the function did; `kind` is the class, such as ``ValueError``), "late" (it took too long, and the process
    was killed) or "died" (the process did, or gave no answer that can be read).
    """

    def __init__(self, how: Literal["raised", "late", "died"], words: str, *, kind: str = "") -> None:
        super().__init__(words)
        self.how = how
        self.kind = kind
