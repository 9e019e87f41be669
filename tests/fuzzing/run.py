"""One target for a while, in a process of its own: with atheris, which sees what the octets reach, else with changes by chance.

    python -m tests.fuzzing.run TARGET SECONDS FOLDER

New inputs are kept in FOLDER (files); what raised stands in FOLDER/../TARGET.crash-….  The exit status is not 0 where something raised.
"""

from __future__ import annotations

import hashlib
import logging
import random
import sys
import time
import traceback
from pathlib import Path

OCTETS_MOST = 4096


def seeds(name: str, folder: Path) -> None:
    """The corpus as files."""
    from tests.fuzzing.targets import corpus

    folder.mkdir(parents=True, exist_ok=True)
    for octets in corpus(name):
        (folder / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)


def with_atheris(name: str, seconds: int, folder: Path) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=["mailserver"]):
        from tests.fuzzing.targets import TARGETS
    seeds(name, folder)
    options = [f"-max_total_time={seconds}", f"-max_len={OCTETS_MOST}", "-timeout=20", "-rss_limit_mb=1024", "-verbosity=0",
               "-print_final_stats=1", f"-artifact_prefix={folder.parent / name}."]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder)], TARGETS[name])
    atheris.Fuzz()


def by_chance(name: str, seconds: int, folder: Path) -> int:
    """Members of the corpus with pieces changed, doubled, taken away or taken from others."""
    from tests.fuzzing.targets import TARGETS, corpus

    chance, known, tried = random.Random(), corpus(name), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        octets = changed(chance, chance.choice(known), chance.choice(known))
        tried += 1
        try:
            TARGETS[name](octets)
        except Exception:
            folder.parent.mkdir(parents=True, exist_ok=True)
            (folder.parent / f"{name}.crash-{hashlib.sha256(octets).hexdigest()[:16]}").write_bytes(octets)
            traceback.print_exc()
            return 1
    print(f"stat::number_of_executed_units: {tried}", file=sys.stderr)
    return 0


def changed(chance: random.Random, octets: bytes, other: bytes) -> bytes:
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(octets))
        end = min(len(octets), start + chance.choice((0, 1, 2, 8, 64)))
        piece = octets[start:end]
        place = chance.randint(0, len(other))
        new = chance.choice(
            (b"", piece * 2, bytes([chance.randrange(256)]), other[place : place + 16], chance.randbytes(chance.randint(1, 8)))
        )
        octets = (octets[:start] + new + octets[end:])[:OCTETS_MOST]
    return octets


def main(name: str, seconds: str, folder: str) -> int:
    logging.disable()
    try:
        import atheris  # noqa: F401  built for few platforms
    except ImportError:
        return by_chance(name, int(seconds), Path(folder))
    with_atheris(name, int(seconds), Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
