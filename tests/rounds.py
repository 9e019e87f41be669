"""How often a test does what it does: seldom in the suite, often in `make proof P=kills`, which sets PROOF_ROUNDS."""

from __future__ import annotations

import os

__all__ = ["rounds"]


def rounds(number: int) -> int:
    """`number` in the suite; in a proof as many times as much as PROOF_ROUNDS says."""
    return number * int(os.environ.get("PROOF_ROUNDS", "1"))
