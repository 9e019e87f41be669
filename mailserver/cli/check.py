"""``mailserver check``: everything that can be known to be wrong before the server starts."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
import tempfile
from dataclasses import asdict
from typing import Any

from mailserver.accounts.realm import CheckerError, make_checker
from mailserver.assembly import StartError, make_router, proxies_of
from mailserver.cli.accounts import reading
from mailserver.cli.check_tls import look_at_tls
from mailserver.cli.offline import NotNow, finished, offline_services
from mailserver.cli.output import as_json, say
from mailserver.cli.plugins import plugin_faults
from mailserver.config import Configuration, ConfigurationError, Fault, Options, load
from mailserver.config.endpoints import bare_endpoint, split_endpoint
from mailserver.config.faults import key_text
from mailserver.config.lines import lines_of
from mailserver.config.options import keys_of
from mailserver.config.ownership import why_not_of
from mailserver.config.schema import Component
from mailserver.control_client import ControlError, NoServer, ask
from mailserver.interfaces import IComponent
from mailserver.plugins import Catalogue, PluginError, build_component, discover
from mailserver.root_reading import plan_of

__all__ = ["add_to"]

BARE_LF_PREFIX = {4: 24, 6: 64}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    check = commands.add_parser("check", parents=[common], help=summary)
    check.set_defaults(run=check_configuration)


def check_configuration(options: argparse.Namespace) -> int:
    """Print all faults.  1 where there are some; warnings alone are 0."""
    catalogue = discover()
    look = _Look(options.config)
    configuration = look.configuration(catalogue)
    if configuration is not None:
        look.at_components(configuration, catalogue)
        look.at_checkers(configuration)
        look.at_certificates(configuration)
        look.at_bare_lf(configuration)
        look.at_data(configuration.data)
        look.at_ports(configuration)
        look.at_root()
    look.at_plugins(catalogue)
    if options.json:
        as_json({"faults": [asdict(fault) for fault in look.faults], "warnings": look.warnings})
    else:
        say(*map(str, look.faults), *(f"warning: {warning}" for warning in look.warnings))
        say(f"{options.config}: {_count(look.faults, 'fault')}, {_count(look.warnings, 'warning')}.")
    return 1 if look.faults else 0


class _Look:
    """Collects what is wrong; nothing that it finds ends the search."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self.lines: dict[str, int] = {}

    def configuration(self, catalogue: Catalogue) -> Configuration | None:
        """Load it, and note where its keys are; None where it has faults."""
        try:
            configuration = load(self.file, catalogue.options_of)
        except ConfigurationError as error:
            self.faults += error.faults
            return None
        with open(self.file, encoding="utf-8") as file:
            self.lines = {key_text(path): line for path, line in lines_of(file.read()).items()}
        return configuration

    def fault(self, key: str, message: str) -> None:
        self.faults.append(Fault(self.file, self.lines.get(key, 1), key, message))

    def at_components(self, configuration: Configuration, catalogue: Catalogue) -> None:
        """Build each one, as the start would; start the directory alone, to follow the aliases."""
        services = offline_services(configuration)
        tables: list[tuple[str, str, Component]] = [("accounts", "accounts", configuration.accounts)]
        tables.append(("delivery", "delivery", configuration.delivery))
        if configuration.relay.use != "none":
            tables.append(("relay", "relay", configuration.relay))
        tables += [("filter", f"filter[{n}]", table) for n, table in enumerate(configuration.filter)]
        for section, key, table in tables:
            self.at_passwords(key, table.options)
            try:
                component = build_component(catalogue.factory(section, table.use), table.options, services)
            except PluginError as error:
                self.fault(key, str(error))
                continue
            if section == "accounts":
                self.at_addresses(configuration, component)
            if section == "delivery" and configuration.filter and not getattr(component, "knows_folders", True):
                self.warnings.append(f'{key}: what a filter puts aside goes where all mail goes: "{table.use}" is told no folder')

    def at_addresses(self, configuration: Configuration, directory: Any) -> None:
        """Accounts, aliases, patterns."""
        try:
            router = make_router(configuration, directory)
        except StartError as error:
            key, colon, message = str(error).partition(": ")
            self.fault(key if colon else "", message if colon else key)
            return
        try:
            if IComponent.providedBy(directory):
                with reading(configuration):
                    finished(directory.start())
            self.warnings += finished(router.faults())
        except ConfigurationError as error:
            self.faults += error.faults
        except OSError as error:
            self.fault("accounts", f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
        except NotNow:
            self.warnings.append("the accounts can only be looked at while the server runs")

    def at_checkers(self, configuration: Configuration) -> None:
        """Of `authentication.checkers`, each one is made."""
        for description in configuration.authentication.checkers:
            try:
                make_checker(description, configuration.home_domain)
            except CheckerError as error:
                self.fault("authentication.checkers", str(error))

    def at_passwords(self, table: str, options: Options) -> None:
        """The files from which we take passwords for others must be there, and should be nobody else's to read."""
        for name in keys_of(type(options)):
            path = getattr(options, name)
            if not name.endswith("password_file") or path is None:
                continue
            key = f"{table}.{name}"
            try:
                with open(path, "rb") as file:
                    mode = os.fstat(file.fileno()).st_mode
            except PermissionError:
                self.warnings.append(f"{key}: this user may not read {path}; the server must be able to")
            except OSError as error:
                self.fault(key, f"{path}: {error.strerror or error}")
            else:
                if mode & 0o004:
                    self.warnings.append(f"{key}: {path} can be read by every user of this host")

    def at_certificates(self, configuration: Configuration) -> None:
        """Of the listeners with TLS."""
        findings = look_at_tls(configuration)
        for key, message in findings.faults:
            self.fault(key, message)
        self.warnings += findings.warnings

    def at_bare_lf(self, configuration: Configuration) -> None:
        """LF.LF may end the data of all who come from these networks: they should be the devices', and no relay's."""
        key = "limits.bare_lf_networks"
        proxies = [one for one in map(proxies_of, configuration.listen) if one is not None]
        for network in configuration.limits.bare_lf_networks:
            if network.prefixlen < BARE_LF_PREFIX[network.version]:
                self.warnings.append(f"{key}: {network} is wider than /{BARE_LF_PREFIX[network.version]}; name the devices alone")
            if any(one.overlaps(network) for one in proxies):
                self.warnings.append(f"{key}: {network} holds a proxy of a listener, through which anybody comes")

    def at_data(self, data: str) -> None:
        """It must be a folder that can be written, or one that can be made."""
        place = data
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            self.fault("data", f"{place} is no folder")
            return
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                self.warnings.append(f"data: this user may not write to {place}; the server's user must be able to")
            else:
                self.fault("data", f"{place} cannot be written: {error.strerror}")

    def at_ports(self, configuration: Configuration) -> None:
        """Whether the ports are free; not while the server holds them itself."""
        try:
            ask(os.path.join(configuration.data, "control.sock"), "status", timeout_seconds=5)
            return
        except NoServer:
            pass
        except ControlError:
            return  # a server runs that this user may not ask
        for listen in configuration.listen:
            problem = _port_problem(listen.endpoint)
            if problem:
                self.warnings.append(f"{listen.endpoint}: {problem}")

    def at_root(self) -> None:
        """What root's processes are told has to be root's word alone."""
        if not self.faults and plan_of(load(self.file))["starts"] and (why := why_not_of(self.file)):
            self.warnings.append(f"this configuration needs root at the start, which refuses it: {why}")

    def at_plugins(self, catalogue: Catalogue) -> None:
        """What is installed and cannot be used, although this configuration does not use it."""
        for source, why in plugin_faults(catalogue):
            self.warnings.append(f"plugin {source}: {why.strip().splitlines()[-1]} (mailserver plugins check)")


def _port_problem(endpoint: str) -> str:
    """Why a tcp endpoint cannot be listened on, "" where it can or where only the start can tell."""
    kind, positional, named = split_endpoint(bare_endpoint(endpoint))
    if kind not in ("tcp", "tcp6"):
        return ""
    port = int(named.get("port", positional[0] if positional else "0"))
    interface = named.get("interface", "::" if kind == "tcp6" else "")
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in interface else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
        except PermissionError:
            return "this user may not bind the port; start as root, with CAP_NET_BIND_SERVICE or by a systemd socket"
        except OSError as error:
            return f"cannot be listened on: {error.strerror or error}"
    return ""


def _count(things: list[Any], name: str) -> str:
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"
