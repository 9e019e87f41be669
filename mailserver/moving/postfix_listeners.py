"""The services of master.cf, and how they listen: ports, TLS, log-ins."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from mailserver.config.values import domain_key
from mailserver.moving.house import House
from mailserver.moving.postfix_files import Service, words
from mailserver.moving.postfix_source import PostfixSource

__all__ = ["Listeners"]

PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
# Programs that are parts of Postfix and mean nothing outside of it.
INNER = frozenset(
    "pickup cleanup qmgr nqmgr tlsmgr trivial-rewrite bounce verify flush proxymap showq error discard local virtual anvil "
    "scache postlogd tlsproxy dnsblog postscreen".split()
)
# The pipes of Debian's master.cf, which nothing uses until a table names them.
DEBIAN_PIPES = frozenset({"maildrop", "uucp", "ifmail", "bsmtp", "scalemail-backend", "mailman"})
# What a submission service says and what is so here by itself.
SUBMISSION_OPTIONS = frozenset(
    "syslog_name milter_macro_daemon_name smtpd_tls_wrappermode smtpd_sasl_auth_enable smtpd_tls_security_level "
    "smtpd_tls_auth_only smtpd_tls_loglevel smtpd_tls_received_header "
    "smtpd_relay_restrictions smtpd_recipient_restrictions smtpd_client_restrictions smtpd_helo_restrictions "
    "smtpd_sender_restrictions smtpd_reject_unlisted_recipient smtpd_sasl_type smtpd_sasl_path smtpd_sasl_security_options "
    "smtpd_sasl_local_domain smtpd_sasl_authenticated_header smtpd_delay_reject smtpd_data_restrictions".split()
)
USUAL_RULES = frozenset(
    "permit permit_mynetworks permit_sasl_authenticated permit_auth_destination reject reject_unauth_destination "
    "defer_unauth_destination reject_unlisted_recipient reject_unauth_pipelining".split()
)
LISTENING = {
    "smtpd_tls_security_level": "tls and require_tls of [[listen]]",
    "smtpd_use_tls": "tls of [[listen]]",
    "smtpd_enforce_tls": "require_tls of [[listen]]",
    "smtpd_tls_wrappermode": 'tls = "implicit" of [[listen]]',
    "smtpd_sasl_auth_enable": "authentication of [[listen]]",
    "smtpd_tls_ask_ccert": "client_certificate of [[listen]]",
    "smtpd_tls_req_ccert": "client_certificate of [[listen]]",
}
SNAKEOIL = "ssl-cert-snakeoil"


class Listeners:
    """Reads them out of `source` into `house`."""

    def __init__(self, source: PostfixSource, house: House) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self.submits = self.checks_senders = False

    def carry(self) -> None:
        """Write [[listen]] and [tls]."""
        has_postscreen = any(one.program == "postscreen" and one.type == "inet" for one in self._source.services)
        for service in self._source.services:
            name = f"master.cf {service.key}"
            if service.type == "inet" and service.program in ("smtpd", "postscreen"):
                self._listener(name, service)
            elif (
                service.program in INNER
                or service.program in ("smtp", "lmtp")
                or (service.program == "smtpd" and has_postscreen)
            ):
                self._inner(name, service)
            elif service.name in DEBIAN_PIPES and service.program == "pipe":
                self._reckoning.same(
                    name, " ".join(service.command), "Debian's own line; nothing was said of mail that uses it"
                )
            else:
                self._reckoning.left(
                    name,
                    " ".join(service.command),
                    "a program of its own",
                    '[delivery] use = "pipe", a filter, or nothing',
                )
        if not self._house.tables.get("listen"):
            self._house.add("listen", {"service": "mx", "endpoint": "tcp:25:interface=127.0.0.1"})
            self._reckoning.carried("master.cf", "no smtp service", "a listener on loopback: at least one is needed")
        self._tls()
        for name, where in LISTENING.items():
            if self._source.is_set(name):
                self._reckoning.carried(name, self._source.raw(name), where)

    def _inner(self, name: str, service: Service) -> None:
        known = {"syslog_name", "smtp_bind_address", "smtp_bind_address6"}
        for option, value in service.options.items():
            if option not in known and not option.startswith("smtp_tls") and service.program not in ("smtp", "lmtp"):
                self._reckoning.left(
                    f"{name}: {option}",
                    value,
                    "a part of Postfix has an option of its own",
                    "see docs/configuration.md",
                )

    def _listener(self, name: str, service: Service) -> None:
        address, _, port_name = service.name.rpartition(":")
        try:
            port = PORTS.get(port_name) or int(port_name)
        except ValueError:
            self._reckoning.left(name, service.name, "no port", "write a [[listen]] for it")
            return
        table, kind = self._table(service, port)
        for option, value in service.options.items():
            if not self._is_carried(service, option):
                self._reckoning.left(
                    f"{name}: {option}", value, "not for one listener alone", "see docs/configuration.md"
                )
        for endpoint in self._endpoints(address.strip("[]"), port):
            if any(one["endpoint"] == endpoint for one in self._house.tables.get("listen", ())):
                self._reckoning.left(
                    name, endpoint, "another service listens there already", "write a [[listen]] for one of them"
                )
                continue
            self._house.add("listen", {"service": kind, "endpoint": endpoint} | table)
        self._reckoning.carried(name, " ".join(service.command), f"[[listen]] service = {kind!r}".replace("'", '"'))

    def _is_carried(self, service: Service, option: str) -> bool:
        """Whether an option of one listener is carried over, is so here anyway, or says what main.cf says."""
        value = self._source.value_for(service, option)
        if option.endswith("_restrictions"):
            rules = words(value)
            self.checks_senders |= any("sender_login" in one for one in rules)
            return all(one in USUAL_RULES or "sender_login" in one for one in rules) or value == self._source[option]
        return option in SUBMISSION_OPTIONS or option in LISTENING or value == self._source[option]

    def _table(self, service: Service, port: int) -> tuple[dict[str, Any], str]:
        """The keys of [[listen]], and its service."""
        value = self._source.value_for
        level = value(service, "smtpd_tls_security_level").lower()
        level = level or ("may" if value(service, "smtpd_use_tls").lower() == "yes" else "")
        level = "encrypt" if value(service, "smtpd_enforce_tls").lower() == "yes" else level
        logs_in = value(service, "smtpd_sasl_auth_enable").lower() == "yes"
        wrapped = value(service, "smtpd_tls_wrappermode").lower() == "yes"
        rules = words(
            f"{value(service, 'smtpd_relay_restrictions')} {value(service, 'smtpd_recipient_restrictions')} "
            f"{value(service, 'smtpd_client_restrictions')}"
        )
        kind = "submission" if port != 25 and (logs_in or wrapped or port in (465, 587)) and "reject" in rules else "mx"
        table: dict[str, Any] = {}
        if wrapped:
            table["tls"] = "implicit"
        elif level in ("may", "encrypt") or (kind == "submission" and level != "none"):
            table["tls"] = "starttls"
        if level == "encrypt" and not wrapped:
            table["require_tls"] = True
        if kind == "submission":
            self.submits = True
        elif logs_in:
            self.submits = True
            table["authentication"] = True
            table.setdefault("tls", "starttls")
        if value(service, "smtpd_tls_ask_ccert").lower() == "yes":
            table["client_certificate"] = "request"
        if value(service, "smtpd_tls_req_ccert").lower() == "yes":
            table["client_certificate"] = "require"
        if "tls" not in table:
            table.pop("client_certificate", None)
        if service.program == "postscreen" or value(service, "smtpd_upstream_proxy_protocol"):
            self._proxy(table, service)
        return table, kind

    def _proxy(self, table: dict[str, Any], service: Service) -> None:
        for name in ("smtpd_upstream_proxy_protocol", "postscreen_upstream_proxy_protocol"):
            if self._source.value_for(service, name):
                todo = 'endpoint = "haproxy:tcp:25" and proxies = […]'
                self._reckoning.left(
                    name, self._source.value_for(service, name), "who the proxies are is not said", todo
                )

    def _endpoints(self, address: str, port: int) -> list[str]:
        protocols = self._source["inet_protocols"].lower()
        if address:
            return [_endpoint(address, port)] if address != "localhost" else _loopback(port, protocols)
        found: list[str] = []
        for one in self._source.words("inet_interfaces"):
            bare = one.strip("[]").lower()
            if bare == "all":
                found.append(f"tcp:{port}" if protocols == "ipv4" else f"tcp6:{port}")
            elif bare in ("loopback-only", "localhost"):
                found += _loopback(port, protocols)
            elif _is_ip(bare):
                found.append(_endpoint(bare, port))
            else:
                self._reckoning.left(
                    "inet_interfaces",
                    one,
                    "names of hosts are not looked up",
                    f'endpoint = "tcp:{port}:interface=ADDRESS"',
                )
        if self._source.is_set("inet_interfaces") and not self._reckoning.knows("inet_interfaces"):
            self._reckoning.carried("inet_interfaces", self._source.raw("inet_interfaces"), "endpoint of [[listen]]")
        return list(dict.fromkeys(found)) or _loopback(port, protocols)

    # --- certificates ---

    def _tls(self) -> None:
        source = self._source
        chains = source.words("smtpd_tls_chain_files")
        certificate = chains[0] if chains else source["smtpd_tls_cert_file"]
        key = (
            (chains[1:] or chains)[0]
            if len(chains) == 1 or (chains and "key" in chains[0])
            else source["smtpd_tls_key_file"] or certificate
        )
        if chains and "key" in os.path.basename(chains[0]) and len(chains) > 1:
            certificate, key = chains[1], chains[0]
        name = "smtpd_tls_chain_files" if chains else "smtpd_tls_cert_file"
        if certificate and self._is_readable(name, certificate, key):
            table = self._house.table("tls")
            table["certificate"], table["key"] = source.path(certificate), source.path(key)
            for one in ("smtpd_tls_chain_files", "smtpd_tls_cert_file", "smtpd_tls_key_file"):
                if source.is_set(one):
                    self._reckoning.carried(one, source.raw(one), "[tls]")
        elif source.is_set("smtpd_tls_key_file"):
            self._reckoning.same("smtpd_tls_key_file", source.raw("smtpd_tls_key_file"), "goes with its certificate")
        for line in source.maps("tls_server_sni_maps"):
            files = words(line.value)
            where = f"tls_server_sni_maps: {line.where}"
            host = "*" + line.key if line.key.startswith(".") else line.key
            try:
                domain_key(host)
            except ValueError as error:
                self._reckoning.left(where, line.key, str(error), '[tls.name."…"]')
                continue
            if files and self._is_readable(where, files[-1], files[0]):
                names = self._house.table("tls").setdefault("name", {})
                names[host] = {"certificate": source.path(files[-1]), "key": source.path(files[0])}
                self._reckoning.carried(where, line.key, "[tls.name]")
        if "TLSv1.3" in source["smtpd_tls_mandatory_protocols"] and ">=" in source["smtpd_tls_mandatory_protocols"]:
            self._house.table("tls")["minimum_version"] = "1.3"

    def _is_readable(self, name: str, certificate: str, key: str) -> bool:
        if SNAKEOIL in certificate:
            self._reckoning.same(name, certificate, "nobody vouches for it; the server makes one of its own")
            return False
        for path in (certificate, key):
            try:
                with open(self._source.path(path), "rb"):
                    pass
            except OSError as error:
                self._reckoning.left(
                    name, path, f"cannot be read: {error.strerror}", "[tls] certificate and key, or acme"
                )
                return False
        return True


def _endpoint(address: str, port: int) -> str:
    if ":" in address:
        return f"tcp6:{port}:interface={address.replace(':', chr(92) + ':')}"
    return f"tcp:{port}:interface={address}"


def _loopback(port: int, protocols: str) -> list[str]:
    four, six = [_endpoint("127.0.0.1", port)], [_endpoint("::1", port)]
    return {"ipv4": four, "ipv6": six}.get(protocols, four + six)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
