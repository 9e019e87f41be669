"""``mailserver check``: everything that can be known to be wrong before the server starts."""

from __future__ import annotations

import argparse
import contextlib
import errno
import grp
import os
import pwd
import socket
import tempfile
import time
from dataclasses import asdict
from typing import Any

from mailserver.assembly.filters import cost_of
from mailserver.assembly.listeners import proxies_of
from mailserver.assembly.logins import lets_anybody_in, login_domain
from mailserver.assembly.root_plan import plan_of
from mailserver.assembly.routing import NO_ROUTER
from mailserver.authentication.checkers import CheckerError, make_checker
from mailserver.authentication.sealing import KEY_FILE, KeyPlace
from mailserver.cli.accounts import reading
from mailserver.cli.check_acme import acme_doubts, acme_faults
from mailserver.cli.check_tls import look_at_tls
from mailserver.cli.check_web import web_doubts, web_faults
from mailserver.cli.contacts import contact_doubts
from mailserver.cli.dkim import PUBLISHED_SECONDS
from mailserver.cli.dmarc import report_doubts
from mailserver.cli.dns_notes import dns_notes, reverse_name_notes
from mailserver.cli.last_look import last_look_words
from mailserver.cli.learn import unlearnt_moves
from mailserver.cli.lists import entries_by_claim
from mailserver.cli.output import Unable, as_json, say
from mailserver.cli.plugins import plugin_faults
from mailserver.cli.published import not_published
from mailserver.cli.smarthost import token_doubts
from mailserver.cli.srs import srs_doubts, srs_notes
from mailserver.cli.tlsrpt import tls_report_doubts
from mailserver.cli.user_locks import guard_doubts
from mailserver.cli.without_server import NotNow, finished, offline_router, offline_services
from mailserver.config import Configuration, ConfigurationError, Fault, Options, load
from mailserver.config.endpoints import bare_endpoint, place_of, split_endpoint
from mailserver.config.fault_sentences import key_text
from mailserver.config.former_keys import FORMER_TABLES
from mailserver.config.lines import lines_of
from mailserver.config.options import keys_of
from mailserver.config.ownership import why_not_of
from mailserver.config.schema import Component
from mailserver.control.client import ControlError, NoServer, ask
from mailserver.interfaces import Services
from mailserver.plugins.asked_delivery import AskedDelivery
from mailserver.plugins.asking import Asking
from mailserver.plugins.catalogue import Catalogue, PluginError, build_component, discover, former_warning
from mailserver.plugins.life import StartError
from mailserver.plugins.register import checked_offers
from mailserver.plugins.versions import is_former
from mailserver.processes.identity import as_owner_of
from mailserver.relay.client_certificate import ClientCertificate
from mailserver.trust.signing_keys import read_keys

__all__ = ["add_to"]

BARE_LF_PREFIX = {4: 24, 6: 64}


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    check = commands.add_parser("check", parents=[common], help=summary)
    check.set_defaults(run=check_configuration)


def check_configuration(options: argparse.Namespace) -> int:
    """Print all faults, warnings and notes.  Return 1 where faults were found; 0 for warnings only."""
    catalogue = discover()
    look = _Look(options.config)
    configuration = look.configuration(catalogue)
    if configuration is not None:
        look.at_former_names()
        look.at_components(configuration, catalogue)
        look.at_checkers(configuration)
        look.at_certificates(configuration)
        look.at_client_certificates(configuration)
        look.at_bare_lf(configuration)
        look.at_data(configuration.data)
        look.at_key(configuration)
        look.at_log(configuration)
        look.at_accounts_folder(configuration)
        look.at_authentication_socket(configuration)
        look.at_families(configuration)
        look.at_ports(configuration)
        look.at_root()
        look.at_lists(configuration)
        look.warnings += unlearnt_moves(configuration)
        look.warnings += contact_doubts(configuration)
        look.warnings += guard_doubts(configuration)
        look.at_signing_keys(configuration)
        look.warnings += report_doubts(configuration) + tls_report_doubts(configuration)
        look.warnings += token_doubts(configuration)
        look.warnings += srs_doubts(configuration)
        look.notes += srs_notes(configuration)
        look.at_last_look(configuration)
        look.notes += dns_notes(configuration) + reverse_name_notes(configuration)
    look.at_plugins(catalogue)
    if options.json:
        as_json({"faults": [asdict(fault) for fault in look.faults], "warnings": look.warnings, "notes": look.notes})
    else:
        say(*map(str, look.faults), *(f"warning: {warning}" for warning in look.warnings))
        say(*(f"note: {note}" for note in look.notes))
        say(f"{options.config}: {_count(look.faults, 'fault')}, {_count(look.warnings, 'warning')}.")
    return 1 if look.faults else 0


class _Look:
    """Collects all faults.  None of them ends the search."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []  # what is as it may be, and could be better
        self.lines: dict[str, int] = {}

    def configuration(self, catalogue: Catalogue) -> Configuration | None:
        """Load it, and note where its keys are; None where it has faults."""
        try:
            configuration = load(self.file, catalogue.options_of, catalogue.useless_keys)
        except ConfigurationError as error:
            self.faults += error.faults
            return None
        with open(self.file, encoding="utf-8") as file:
            self.lines = {key_text(path): line for path, line in lines_of(file.read()).items()}
        return configuration

    def at_former_names(self) -> None:
        """Warn of tables under former names, which are still understood."""
        former = [(old, now) for old, now in FORMER_TABLES.items() if old in self.lines]
        self.warnings += [f"{old}: is the former name of {now}: rename it" for old, now in former]

    def fault(self, key: str, message: str) -> None:
        self.faults.append(Fault(self.file, self.lines.get(key, 1), key, message))

    def at_components(self, configuration: Configuration, catalogue: Catalogue) -> None:
        """Build each one, as the start would; start the directory and the router alone, to follow the aliases."""
        services = offline_services(configuration)
        tables: list[tuple[str, str, Component]] = [("accounts", "accounts", configuration.accounts)]
        if configuration.router.use != NO_ROUTER:
            tables.append(("router", "router", configuration.router))
        tables.append(("delivery", "delivery", configuration.delivery))
        if configuration.relay.use != "none":
            tables.append(("relay", "relay", configuration.relay))
        for n, route in enumerate(configuration.route):
            self.at_passwords(f"route[{n}]", route, configuration.data)
        tables += [("filter", f"filter[{n}]", table) for n, table in enumerate(configuration.filter)]
        for section, key, table in tables:
            self.at_passwords(key, table.options, configuration.data)
            try:
                factory = catalogue.factory(section, table.use)
                component = build_component(factory, table.options, services)
                checked_offers(section, table.name or table.use, component, table.use)
                if section == "filter":
                    cost_of(component, factory)
                if section in ("delivery", "relay"):
                    AskedDelivery(component, Asking(key, services.clock), prepare_seconds=1)
            except PluginError as error:
                self.fault(key, str(error))
                continue
            if is_former(factory):
                self.warnings.append(f"{key}: {former_warning(table.use)}")
            if section == "accounts":
                self.at_addresses(configuration, catalogue, services, component)
            if section == "delivery" and configuration.filter and not getattr(component, "knows_folders", True):
                self.warnings.append(f'{key}: what a filter puts aside goes where all mail goes: "{table.use}" is told no folder')

    def at_addresses(
        self, configuration: Configuration, catalogue: Catalogue, services: Services, directory: Any
    ) -> None:
        """Check accounts, aliases and patterns."""
        try:
            router, parts = offline_router(configuration, catalogue, services, directory)
        except PluginError:
            return  # told with the router's own table
        except StartError as error:
            key, colon, message = str(error).partition(": ")
            self.fault(key if colon else "", message if colon else key)
            return
        try:
            for part in parts:
                with reading(configuration):
                    finished(part.start())
            self.warnings += finished(router.faults(relays=configuration.relays))
        except ConfigurationError as error:
            self.faults += error.faults
        except OSError as error:
            self.fault("accounts", f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
        except NotNow:
            self.warnings.append("the accounts can only be looked at while the server runs")

    def at_lists(self, configuration: Configuration) -> None:
        """Allow entries that anybody can make use of are worth a second look."""
        if not os.path.isdir(configuration.data):
            return
        try:
            self.warnings += entries_by_claim(configuration)
        except Unable as error:
            self.warnings.append(f"the lists cannot be looked at: {error}")

    def at_last_look(self, configuration: Configuration) -> None:
        """What the last of the daily looks at the DNS has found, and when that was."""
        notes, warnings = last_look_words(configuration)
        self.notes += notes
        self.warnings += warnings

    def at_signing_keys(self, configuration: Configuration) -> None:
        """What is signed has to verify, and what was signed until yesterday, too."""
        try:
            keys = read_keys(configuration.keys_path)
        except OSError as error:
            self.warnings.append(f"the keys of DKIM cannot be read: {error.filename or ''} {error.strerror or error}")
            return
        if keys and all(one.use != "dkim_signing" for one in configuration.filter):
            self.warnings.append(f'dkim: {" ".join(keys)}: there are keys, and no [[filter]] with use = "dkim_signing"')
            return
        oldest = time.time() - configuration.queue.expire - PUBLISHED_SECONDS
        for number, (domain, found) in enumerate(keys.items()):
            wanted = [one for one in found.keys if one.state == "active" or (one.state == "retired" and one.since > oldest)]
            try:
                missing = not_published(configuration, domain, {found.name_of(one): one.key.record for one in wanted})
            except Unable as error:
                rest = len(keys) - number - 1
                self.warnings.append(f"dkim: {error}" + (f"; {rest} more domains were not looked at" if rest else ""))
                return
            self.warnings += [f"dkim: {one} (mailserver dkim dns {domain})" for one in missing]

    def at_checkers(self, configuration: Configuration) -> None:
        """Make each checker of `authentication.checkers`."""
        for description in configuration.authentication.checkers:
            try:
                make_checker(description, login_domain(configuration))
            except CheckerError as error:
                self.fault("authentication.checkers", str(error))

    def at_passwords(self, table: str, options: Options, data: str) -> None:
        """The files from which we take passwords for others must be there, and should be nobody else's to read."""
        for name in keys_of(type(options)):
            path = getattr(options, name)
            if not name.endswith(("password_file", "secret_file")) or path is None:
                continue
            key = f"{table}.{name}"
            try:
                with as_owner_of(data), open(path, "rb") as file:
                    mode = os.fstat(file.fileno()).st_mode
            except PermissionError:
                self.not_allowed(key, "read", path, data)
            except OSError as error:
                self.fault(key, f"{path}: {error.strerror or error}")
            else:
                if mode & 0o004:
                    self.warnings.append(f"{key}: {path} can be read by every user of this host")

    def at_client_certificates(self, configuration: Configuration) -> None:
        """What the relay shows to hosts that ask for a certificate."""
        tables = [("relay", configuration.relay.options)]
        tables += [(f"route[{n}]", route) for n, route in enumerate(configuration.route)]
        for table, options in tables:
            path, key = getattr(options, "client_certificate", None), getattr(options, "client_key", None)
            if path is None or key is None:
                continue
            with as_owner_of(configuration.data):
                why = ClientCertificate(path, key).fault
            if why:
                self.fault(f"{table}.client_certificate", why)

    def at_certificates(self, configuration: Configuration) -> None:
        """Check the certificates of the listeners with TLS."""
        findings = look_at_tls(configuration)
        for key, message in findings.faults:
            self.fault(key, message)
        self.warnings += findings.warnings
        for key, message in acme_faults(configuration):
            self.fault(key, message)
        self.warnings += acme_doubts(configuration)
        for key, message in web_faults(configuration):
            self.fault(key, message)
        self.warnings += web_doubts(configuration)

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

    def at_key(self, configuration: Configuration) -> None:
        """Where former versions have put the key of readable passwords, each copy of `data` takes it along."""
        place, old = KeyPlace(configuration.keys_path, configuration.data), os.path.join(configuration.data, KEY_FILE)
        if os.path.exists(old):
            use = f"move it to {place.folder}" if place.path == old else "remove it (it is not used any more)"
            self.warnings.append(f"data: {old} opens the readable passwords, and a copy of `data` takes it along: {use}")

    def at_log(self, configuration: Configuration) -> None:
        """Its file must be one that the server's user can write; what fail2ban reads must be there."""
        log, data = configuration.log, configuration.data
        if log.level in ("warn", "error") and lets_anybody_in(configuration):
            self.warnings.append(
                f'log.level: "{log.level}" leaves out the steps, login_failed among them: fail2ban sees no login that fails'
            )
        if log.path is None:
            return
        folder = os.path.dirname(log.path)
        if os.path.isdir(log.path):
            self.fault("log.path", f"{log.path} is a folder")
        elif not os.path.isdir(folder) and folder != data:
            self.fault("log.path", f"there is no folder {folder}")
        elif os.path.isdir(folder):
            with as_owner_of(data):
                file, place = (os.access(one, os.W_OK, effective_ids=True) for one in (log.path, folder))
            if not file and not place:
                self.not_allowed("log.path", "write", log.path if os.path.exists(log.path) else folder, data)

    def at_authentication_socket(self, configuration: Configuration) -> None:
        """Check its group, and its folder, which a systemd unit may make at the start."""
        path, group = configuration.authentication.socket, configuration.authentication.socket_group
        if group is not None:
            try:
                grp.getgrnam(group)
            except KeyError:
                self.fault("authentication.socket_group", f"there is no group {group}")
        if path is not None and not os.path.isdir(os.path.dirname(path)):
            self.warnings.append(f"authentication.socket: there is no folder {os.path.dirname(path)} yet")

    def at_accounts_folder(self, configuration: Configuration) -> None:
        """The server puts a new hash for an old one into the file, which takes a new file in its folder."""
        if configuration.accounts.use != "file" or not lets_anybody_in(configuration):
            return
        folder, data = os.path.dirname(configuration.accounts.options.path), configuration.data
        if not os.path.isdir(folder) or not os.path.isdir(data) or os.geteuid() not in (0, os.stat(data).st_uid):
            return
        with as_owner_of(data):
            may_write = os.access(folder, os.W_OK, effective_ids=True)
        if not may_write:
            self.warnings.append(
                f"accounts.path: the server's user, who owns {data}, may not write to {folder}: "
                "it cannot put new hashes of passwords for old ones"
            )

    def not_allowed(self, key: str, what: str, path: str, data: str) -> None:
        """The file is closed to the server's user, who owns the data folder; or to us, who are neither he nor root."""
        owner = os.stat(data).st_uid if os.path.isdir(data) else -1
        if owner >= 0 and os.geteuid() in (0, owner):
            self.fault(key, f"the server's user, who owns {data} ({_name(owner)}), may not {what} {path}")
        else:
            self.warnings.append(f"{key}: this user may not {what} {path}; the server must be able to")

    def at_families(self, configuration: Configuration) -> None:
        """On most hosts an IPv6 port on all addresses is an IPv4 port, too, and the second of the two cannot be bound."""
        if _is_ipv6_only():
            return
        places = [place_of(listen.endpoint) for listen in configuration.listen]
        for n, place in enumerate(places):
            for m, other in enumerate(places[:n]):
                if place is not None and other is not None and place.clashes_across_families(other):
                    self.fault(
                        f"listen[{n}].endpoint",
                        f"clashes with listen[{m}], {configuration.listen[m].endpoint}: tcp6 without an interface is for IPv4, "
                        "too, on this host (net.ipv6.bindv6only is 0): leave the tcp endpoint out",
                    )

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


def _is_ipv6_only() -> bool:
    try:
        with open("/proc/sys/net/ipv6/bindv6only", encoding="ascii") as file:
            return file.read().strip() != "0"
    except OSError:  # no IPv6 here, or no Linux: the look at the ports tells more
        return True


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _count(things: list[Any], name: str) -> str:
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"
