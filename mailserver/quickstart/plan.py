"""Which steps there are for what is asked, on this host; and what forbids them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailserver.accounts.table import AccountsFile, key_of
from mailserver.config.fault import ConfigurationError
from mailserver.doctor.own_network import is_ours
from mailserver.processes.identity import as_owner_of
from mailserver.quickstart.configuration_text import configuration_text, is_the_sample, read_if_there
from mailserver.quickstart.ledger import QuickLedger, StepRecord
from mailserver.quickstart.own_steps import (
    CertificateStep,
    FirstAccountStep,
    NextKeyStep,
    SigningKeysStep,
    SystemUserStep,
)
from mailserver.quickstart.steps import FileStep, FolderStep, Marks, QuickStep
from mailserver.quickstart.system_files import (
    UNIT_NAME,
    UNIT_PLACES,
    WEB_UNIT_NAME,
    start_line,
    unit_text,
    web_unit_text,
)
from mailserver.quickstart.wishes import HouseWishes, WrongWish

__all__ = ["DATA_MODE", "KEYS_MODE", "EnabledStep", "QuickHost", "config_folder_mode", "forbid", "steps_of", "this_host"]

# As debian/mailserver.postinst and docs/operating.md have them; others may pass through data only to sendmail's folder in it.
DATA_MODE, OPEN_DATA_MODE, KEYS_MODE, CONFIG_MODE = 0o700, 0o711, 0o700, 0o755
COMMAND_SECONDS = 60
CONFIGURATION, UNIT, WEB_UNIT = "configuration", "unit", "web unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickHost:
    """The host.  `run` runs one of its programs, or raises OSError with its words; `has_systemd`: a unit is of use here."""

    uid: int
    home: str
    twistd: str
    program: str
    has_systemd: bool
    systemd_runs: bool
    has_ipv6: bool
    has_web_unit: bool = False
    run: Callable[[Sequence[str]], None]
    unit_places: Sequence[str] = UNIT_PLACES


def this_host() -> QuickHost:
    """The host that this runs on."""
    runs = os.path.isdir("/run/systemd/system")
    programs = os.path.dirname(sys.executable)
    own = os.path.join(programs, "mailserver")
    on_path = shutil.which("mailserver")
    return QuickHost(
        uid=os.geteuid(), home=os.path.expanduser("~"), twistd=os.path.join(programs, "twistd"),
        program="mailserver" if on_path is not None and os.path.realpath(on_path) == os.path.realpath(own) else own,
        has_systemd=runs or (shutil.which("systemctl") is not None and os.path.isdir(UNIT_PLACES[0])), systemd_runs=runs,
        has_ipv6=is_ours("::"), run=_run, has_web_unit=runs and shutil.which("systemd-sysusers") is not None,
    )  # fmt: skip


def _run(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(110, f"gives no answer within {COMMAND_SECONDS} s", words[0]) from None
    if done.returncode:
        raise OSError(5, f"ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}", " ".join(words))


def config_folder_mode(wishes: HouseWishes) -> int:
    """Of the configuration's folder, where it is made."""
    return CONFIG_MODE if wishes.user else 0o700


def steps_of(wishes: HouseWishes, host: QuickHost, ledger: QuickLedger | None, password: Callable[[], str]) -> list[QuickStep]:
    """In the order in which they are taken: the configuration comes last, so that whoever finds it finds all that it names."""

    def owner() -> tuple[int, int]:
        if not wishes.user:
            return os.geteuid(), os.getegid()
        try:
            entry = pwd.getpwnam(wishes.user)
        except KeyError:
            return -1, -1  # not made yet
        return entry.pw_uid, entry.pw_gid

    is_told = ledger is None or FirstAccountStep.name not in ledger.since_done
    data_mode = OPEN_DATA_MODE if wishes.local_programs else DATA_MODE
    steps: list[QuickStep] = []
    if wishes.user:
        steps.append(SystemUserStep(wishes.user, (wishes.data, wishes.keys), host.run))
        if wishes.with_web and not wishes.with_web_unit:
            steps.append(SystemUserStep(f"{wishes.user}-web", (), host.run, "Mail server, web pages"))
    steps += [
        FolderStep("data folder", wishes.data, data_mode, owner),
        FolderStep("keys folder", wishes.keys, KEYS_MODE, owner),
        SigningKeysStep(wishes.keys, wishes.domain),
        CertificateStep(wishes.data, wishes.hostname),
        *([NextKeyStep(wishes.keys)] if wishes.with_acme else []),
        FirstAccountStep(wishes.accounts, wishes.data, wishes.address, password, is_told=is_told),
    ]
    steps += _unit_steps(wishes, host, ledger)
    steps.append(FileStep(CONFIGURATION, wishes.config, configuration_text(wishes), may_replace=is_the_sample))
    if ledger is not None and EnabledStep.name in ledger.steps:
        steps.append(EnabledStep(wishes, host))
    return steps


def _unit_steps(wishes: HouseWishes, host: QuickHost, ledger: QuickLedger | None) -> list[QuickStep]:
    """The units, but for those that the package has brought and that start the same."""
    wanted = [(UNIT, UNIT_NAME, unit_text(wishes, host.twistd))] if wishes.user else []
    if wishes.user and wishes.with_web_unit:
        wanted.append((WEB_UNIT, WEB_UNIT_NAME, web_unit_text(host.twistd)))
    begun = {} if ledger is None else ledger.steps
    return [
        UnitStep(step, os.path.join(host.unit_places[0], name), text, host)
        for step, name, text in wanted
        if step in begun or (host.has_systemd and start_line(_unit_there(host, name)) != start_line(text))
    ]


class UnitStep(FileStep):
    """The unit, which systemd is told of."""

    def __init__(self, name: str, path: str, text: str, host: QuickHost) -> None:
        super().__init__(name, path, text)
        self._host = host
        self._unit = os.path.basename(path)

    def make(self, before: Marks) -> Marks:
        """Put it in place."""
        marks = super().make(before)
        if self._host.systemd_runs:
            self._host.run(["systemctl", "daemon-reload"])
        return marks

    def undo(self, record: StepRecord) -> str:
        """Take it away; nothing starts it any more."""
        if self._host.systemd_runs:
            self._host.run(["systemctl", "disable", "--quiet", self._unit])
        why = super().undo(record)
        if self._host.systemd_runs:
            self._host.run(["systemctl", "daemon-reload"])
        return why


class EnabledStep:
    """The service starts with the host: ``--start`` has said so."""

    name = "enabled"
    words = "the service starts with the host"

    def __init__(self, wishes: HouseWishes, host: QuickHost) -> None:
        self._units = [UNIT_NAME, *([WEB_UNIT_NAME] if wishes.with_web_unit else [])]
        self._host = host

    def is_there(self) -> bool:
        """What a person has changed since stays changed."""
        return True

    def found(self) -> Marks:
        """Nothing that is of use later."""
        return {}

    def make(self, before: Marks) -> Marks:
        """Nothing: the command does it, when all else is told."""
        return {}

    def undo(self, record: StepRecord) -> str:
        """It does so no more, and is stopped."""
        if self._host.systemd_runs:
            self._host.run(["systemctl", "disable", "--quiet", "--now", *self._units])
        return ""


def _unit_there(host: QuickHost, name: str) -> str:
    """The text of the unit that systemd would take, "" where there is none."""
    paths = [os.path.join(place, name) for place in host.unit_places]
    return next((read_if_there(path) for path in paths if os.path.exists(path)), "")


def forbid(wishes: HouseWishes, host: QuickHost, ledger: QuickLedger | None) -> None:
    """Raises `WrongWish` where somebody else has made what would be made; OSError where it cannot be looked at."""
    begun = {} if ledger is None else ledger.steps
    if _is_below(wishes.config, wishes.data) or _is_below(wishes.config, wishes.keys):
        raise WrongWish(f"{wishes.config}: the configuration cannot be in a folder of the server's, who could change it then")
    if _is_below(wishes.keys, wishes.data) or _is_below(wishes.data, wishes.keys):
        raise WrongWish(f"{wishes.keys}: keys belong into no copy of {wishes.data}: say another --keys")
    if CONFIGURATION not in begun and os.path.lexists(wishes.config) and not is_the_sample(read_if_there(wishes.config)):
        words = "`mailserver domain add` and `mailserver user add` change it, and `mailserver check` looks at it"
        raise WrongWish(f"{wishes.config} is there already, and no quickstart has made it: nothing was touched; {words}")
    for step in _unit_steps(wishes, host, ledger):
        path = os.path.join(host.unit_places[0], UNIT_NAME if step.name == UNIT else WEB_UNIT_NAME)
        if step.name not in begun and os.path.lexists(path):
            raise WrongWish(f"{path} is there already, and starts something else: nothing was touched")
    if FirstAccountStep.name not in begun and os.path.exists(wishes.accounts):
        try:
            with as_owner_of(wishes.data):
                known = key_of(wishes.address) in AccountsFile(wishes.accounts, wishes.data).read()
        except ConfigurationError as error:
            raise WrongWish(str(error)) from None
        if known:
            why = f"{wishes.accounts} has the account {wishes.address} already, and no quickstart has made it"
            raise WrongWish(f"{why}: nothing was touched; say another address, or `mailserver user remove` it")


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder.rstrip("/")
