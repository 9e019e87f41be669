"""Make the sdist, the wheel and their bill of materials: ``python -m release.dist [FOLDER]``, or ``make dist``.

The same tree, with the same SOURCE_DATE_EPOCH and the same setuptools, gives the same octets, whoever builds, when and where.
What would differ is taken away first: the files are those that git knows (the checkout's folder may hold anything), in a folder
of their own, with one time and two modes; and the sdist, whose times, owners and order setuptools leaves to chance, is packed
anew.  The wheel is built from the unpacked sdist, so that both hold the same.

Without SOURCE_DATE_EPOCH the time is that of the last commit, and where there is no git, that of setup.cfg, which an sdist keeps.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from configparser import ConfigParser
from pathlib import Path

from release import sbom

ROOT = Path(__file__).resolve().parent.parent
MADE = shutil.ignore_patterns("*.egg-info", "_trial_temp*", "__pycache__", "dropin.cache", ".*_cache", ".hypothesis", ".coverage")
MADE_AT_THE_TOP = {".git", ".venv", ".peers", "dist", "build", "sandbox", "proofs"}
BACKEND = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def version(root: Path = ROOT) -> str:
    """The one place that says it is setup.cfg; an installed server asks importlib.metadata."""
    setup = ConfigParser()
    setup.read(root / "setup.cfg")
    return setup["metadata"]["version"]


def epoch(root: Path = ROOT) -> int:
    """Seconds since 1970: https://reproducible-builds.org/specs/source-date-epoch/."""
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    if (root / ".git").exists():
        shown = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=root, capture_output=True, text=True, check=True)
        return int(shown.stdout)
    return int((root / "setup.cfg").stat().st_mtime)


def copy_source(root: Path, target: Path, seconds: int) -> None:
    """The tree as it would be after a fresh checkout, with one time and without what the builder's umask does to modes."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target / name)
    else:

        def made(folder: str, names: list[str]) -> set[str]:
            return MADE(folder, names) | (MADE_AT_THE_TOP if folder == str(root) else set())

        shutil.copytree(root, target, ignore=made, dirs_exist_ok=True)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (seconds, seconds))


def packed_anew(sdist: bytes, seconds: int) -> bytes:
    """The same members in the order of their names, all of one time, of nobody in particular, with two modes."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist), mode="r:gz") as old,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=seconds) as octets,
        tarfile.open(fileobj=octets, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            content = old.extractfile(member) if member.isfile() else None
            member.mtime, member.uid, member.gid, member.uname, member.gname = seconds, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, content)
    return packed.getvalue()


def build(target: Path, *, root: Path = ROOT, seconds: int | None = None) -> list[Path]:
    """Sdist, wheel, SBOM and SHA256SUMS in `target`; the files in this order."""
    seconds = epoch(root) if seconds is None else seconds
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tree, out = Path(name) / "tree", Path(name) / "out"
        tree.mkdir()
        out.mkdir()
        copy_source(root, tree, seconds)
        run_backend("build_sdist", tree, out, seconds)
        (sdist,) = out.glob("*.tar.gz")
        sdist.write_bytes(packed_anew(sdist.read_bytes(), seconds))
        # By tar: early 3.11s do not know extractall's filter, later Pythons warn where it is absent.
        subprocess.run(["tar", "-xzf", sdist, "--no-same-owner", "-C", name], check=True)
        run_backend("build_wheel", Path(name) / sdist.name.removesuffix(".tar.gz"), out, seconds)
        (wheel,) = out.glob("*.whl")
        made = [Path(shutil.copy(path, target)) for path in (sdist, wheel)]
    bill = target / f"mailserver-{version(root)}.cdx.json"
    bill.write_text(sbom.bill(sbom.locked(root / "release" / "requirements.lock"), version(root), seconds))
    made.append(bill)
    sums = target / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made))
    return [*made, sums]


def run_backend(hook: str, tree: Path, out: Path, seconds: int) -> None:
    """A hook of PEP 517 in a process of its own, as setuptools keeps what it has seen; the umask decides no mode."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(seconds), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", BACKEND, hook, str(out)],
        cwd=tree, env=environment, capture_output=True, text=True, umask=0o022, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise SystemExit(f"{hook} failed:\n{ran.stderr[-4000:]}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="release.dist", description="Make the sdist, the wheel and the bill of materials.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist")
    for path in build(parser.parse_args(arguments).folder.resolve()):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
