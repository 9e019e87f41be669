"""What a run of the fuzzing has found becomes the corpus of the suite: short ones, and few.

    python -m tests.fuzzing.keep FOLDER         FOLDER is what `make proof P=fuzz` has left: proofs/fuzz

atheris keeps an input only where it reaches something that no other one does, and puts a shorter one in its place where it finds one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.fuzzing.targets import CORPORA, TARGETS, corpus

FILES_MOST, OCTETS_MOST = 100, 256  # of what is new


def main(folder: str) -> None:
    for name in TARGETS:  # what stands there already may have been a fault, and stays
        old = corpus(name)
        inputs = {path.read_bytes() for path in (Path(folder) / name).iterdir()} - set(old)
        found = sorted((one for one in inputs if len(one) <= OCTETS_MOST), key=lambda one: (len(one), one))
        new = found[: max(0, FILES_MOST - len(old))]
        texts = [octets.decode("latin-1") for octets in [*old, *new]]
        (CORPORA / f"{name}.json").write_text(json.dumps(texts, indent=1) + "\n")
        print(f"{name}: {len(old)} and {len(new)} new ones, of {len(found)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
