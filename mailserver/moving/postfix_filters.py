"""What Postfix refuses, and who else judges its mail: restrictions, DNS lists, policy services, milters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mailserver.config.values import host_name, mail_address, network
from mailserver.moving.house import House, Inline
from mailserver.moving.postfix_files import words
from mailserver.moving.postfix_source import PostfixSource

__all__ = ["Filters"]

LISTS = tuple(
    f"smtpd_{stage}_restrictions" for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)
SAME = {
    "permit_mynetworks": "[relay] networks may relay",
    "permit_sasl_authenticated": "who has logged in may relay",
    "permit_auth_destination": "mail for our domains is taken",
    "reject_unauth_destination": "nobody else may relay",
    "defer_unauth_destination": "nobody else may relay",
    "reject_unauth_pipelining": "commands that come before their turn are refused",
    "reject_unlisted_recipient": "recipients that do not exist are refused at RCPT",
    "reject_multi_recipient_bounce": "a report to several is no harm",
    "permit": "the end of the list",
    "reject_non_fqdn_recipient": "an address has a domain; postmaster alone has none",
    "reject_non_fqdn_sender": "an address has a domain",
    "reject_sender_login_mismatch": '[submission] senders = "own"',
    "reject_authenticated_sender_login_mismatch": '[submission] senders = "own"',
    "reject_known_sender_login_mismatch": '[submission] senders = "own"',
}
PEER_RULES = {
    "reject_invalid_helo_hostname": "hello_syntax",
    "reject_non_fqdn_helo_hostname": "hello_short",
    "reject_unknown_helo_hostname": "hello_unknown",
    "reject_unknown_client_hostname": "reverse_name",
    "reject_invalid_hostname": "hello_syntax",
    "reject_non_fqdn_hostname": "hello_short",
    "reject_unknown_hostname": "hello_unknown",
    "reject_unknown_client": "reverse_name",
}
RBL = {
    "reject_rbl_client": ("ipv4", "ipv6"), "reject_rhsbl_helo": ("hello",), "reject_rhsbl_sender": ("sender",),
    "reject_maps_rbl": ("ipv4", "ipv6"),
}  # fmt: skip
ACCESS = {"check_client_access": "networks", "check_sender_access": "senders", "check_helo_access": "hello_names"}
TAKES_ARGUMENT = re.compile(r"(check_.*|reject_r(hs)?bl_.*|permit_r?dnswl_.*|permit_rhswl_.*|sleep)")
ON_ERROR = {"accept": "skip", "tempfail": "defer", "reject": "refuse"}


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    argument: str
    where: str
    is_warning: bool

    @property
    def words(self) -> str:
        return f"{self.name} {self.argument}".strip()


class Filters:
    """Reads them out of `source` into `house`."""

    def __init__(self, source: PostfixSource, house: House) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self.checks_senders = False
        self._peer_rules: dict[bool, list[str]] = {}
        self._denied: dict[tuple[str, bool], dict[str, list[str]]] = {}
        self._zones: dict[bool, dict[str, dict[str, Any]]] = {}

    def carry(self) -> None:
        """Write the filters."""
        policies = []
        for rule in self._rules():
            name = f"{rule.where}: {rule.words}"
            if rule.name in SAME:
                self.checks_senders |= "sender_login" in rule.name
                self._reckoning.same(name, rule.words, SAME[rule.name])
            elif rule.name in PEER_RULES:
                self._peer_rules.setdefault(rule.is_warning, []).append(PEER_RULES[rule.name])
                self._reckoning.carried(name, rule.words, f'filter peer_rules, refuse = ["{PEER_RULES[rule.name]}"]')
            elif rule.name in RBL:
                self._dns_list(name, rule)
            elif rule.name == "check_policy_service":
                policies.append((name, rule))
            elif rule.name in ACCESS:
                self._access(name, rule)
            elif rule.name == "reject_unknown_sender_domain":
                if not any(one["use"] == "null_mx" for one in self._house.tables.get("filter", [])):
                    self._filter("null_mx", rule.is_warning, {})
                self._reckoning.left(
                    name,
                    rule.words,
                    "the filter null_mx refuses domains that send no mail; those that the DNS does not know get by",
                    "spf and dmarc judge them (docs/filters.md)",
                )
            else:
                self._reckoning.left(
                    name,
                    rule.words,
                    "a rule that has no equal",
                    "look for a filter in docs/filters.md, or ask a policy service",
                )
        self._write()
        for name, rule in policies:
            self._policy(name, rule)
        self._milters()

    def _rules(self) -> Iterator[_Rule]:
        for where in LISTS:
            found = words(self._source[where])
            at, is_warning = 0, False
            while at < len(found):
                name, at = found[at], at + 1
                if name == "warn_if_reject":
                    is_warning = True
                    continue
                argument = ""
                if TAKES_ARGUMENT.fullmatch(name) and at < len(found):
                    argument, at = found[at], at + 1
                if name == "reject" and at == len(found):
                    self._reckoning.left(
                        f"{where}: reject",
                        name,
                        "nobody else is let in there",
                        "a listener on loopback, or a submission listener",
                    )
                elif re.fullmatch(r"[a-z]+:.*", name):
                    yield _Rule(f"check_{where.split('_')[1]}_access", name, where, is_warning)
                else:
                    yield _Rule(name, argument, where, is_warning)
                is_warning = False
            if self._source.is_set(where) and not self._reckoning.knows(where):
                self._reckoning.carried(where, self._source.raw(where), "each of its rules, as listed")

    # --- DNS lists ---

    def _dns_list(self, name: str, rule: _Rule) -> None:
        zone, _, codes = rule.argument.partition("=")
        try:
            host_name(zone)
            answers = _codes(codes)
        except ValueError as error:
            self._reckoning.left(
                name, rule.words, str(error), "a [[filter.list]] of dnsbl with codes (docs/filters.md)"
            )
            return
        lists = self._zones.setdefault(rule.is_warning, {})
        about = RBL[rule.name]
        key = f"{zone} {' '.join(about)}"
        if key in lists and "codes" in lists[key] and answers:
            lists[key]["codes"][answers] = 1
        elif key not in lists:
            lists[key] = {"zone": zone, "about": list(about)} | (
                {"codes": Inline({answers: 1})} if answers else {"score": 1}
            )
            if any(one["zone"] == zone for other, one in lists.items() if other != key):
                lists[key]["name"] = f"{zone}-{about[0]}"
        self._reckoning.carried(name, rule.words, 'filter dnsbl, verdict = "refuse"')

    # --- tables of who may ---

    def _access(self, name: str, rule: _Rule) -> None:
        kind, _, path = rule.argument.partition(":")
        if kind == "cidr":
            lines = self._cidr(name, path)
        else:
            lines = [(line.key, line.value, line.where) for line in self._source.lines(rule.where, rule.argument)]
        key = ACCESS[rule.name]
        for what, action, where in lines:
            verb = (action.split() or [""])[0].upper()
            refuses = verb == "REJECT" or re.fullmatch(r"5\d\d", verb) is not None
            kind_of = _denied_key(key, what)
            if refuses and kind_of:
                denied = self._denied.setdefault(("refuse", rule.is_warning), {})
                denied.setdefault(kind_of, []).append(what.strip("[]"))
                self._reckoning.carried(f"{rule.where}: {where}", f"{what} {action}", f"filter denylist, {kind_of}")
            elif verb == "DUNNO":
                self._reckoning.same(f"{rule.where}: {where}", f"{what} {action}", "nothing is said")
            else:
                todo = f"mailserver list add {'white' if verb in ('OK', 'PERMIT') else 'black'} {what} (filter lists)"
                self._reckoning.left(
                    f"{rule.where}: {where}", f"{what} {action}", "the filter denylist has refusals alone", todo
                )

    def _cidr(self, name: str, path: str) -> list[tuple[str, str, str]]:
        try:
            with open(self._source.path(path), encoding="utf-8") as file:
                rows = [
                    (n, line.split(None, 1))
                    for n, line in enumerate(file, 1)
                    if line.strip() and not line.startswith("#")
                ]
        except (OSError, UnicodeError) as error:
            self._reckoning.left(name, path, f"cannot be read: {error}", "filter denylist, networks")
            return []
        return [(row[0], (row[1:] or [""])[0].strip(), f"{path}:{n}") for n, row in rows]

    # --- what the rules have come to ---

    def _write(self) -> None:
        for (_, warning), lists in self._denied.items():
            self._filter("denylist", warning, {key: list(dict.fromkeys(values)) for key, values in lists.items()})
        for warning, rules in self._peer_rules.items():
            self._filter("peer_rules", warning, {"refuse": list(dict.fromkeys(rules))})
        for warning, zones in self._zones.items():
            self._filter("dnsbl", warning, {"verdict": "refuse", "threshold": 1, "list": list(zones.values())})

    def _filter(self, use: str, warning: bool, keys: dict[str, Any], services: list[str] | None = None) -> None:
        table: dict[str, Any] = {"use": use}
        if any(one["use"] == use for one in self._house.tables.get("filter", [])):
            number = sum(one["use"] == use for one in self._house.tables["filter"]) + 1
            table["name"] = f"{use}-{number}"
        table |= {"services": services or ["mx"]} | ({"mode": "shadow"} if warning else {})
        self._house.add("filter", table | keys)

    def _policy(self, name: str, rule: _Rule) -> None:
        text = rule.argument.strip("{} ").split(",")[0].split()[0] if rule.argument.strip("{} ") else ""
        endpoint = self._endpoint(text)
        if not endpoint:
            self._reckoning.left(name, rule.words, "no endpoint that is known here", "filter policy_delegation")
            return
        stages = {"smtpd_data_restrictions": ["DATA"], "smtpd_end_of_data_restrictions": ["END-OF-MESSAGE"]}.get(
            rule.where, ["RCPT"]
        )
        self._filter("policy_delegation", rule.is_warning, {"endpoint": endpoint, "stages": stages})
        self._reckoning.carried(name, rule.words, "filter policy_delegation")

    def _milters(self) -> None:
        smtpd, others = self._source.words("smtpd_milters"), self._source.words("non_smtpd_milters")
        for word in dict.fromkeys([*smtpd, *others]):
            inner = words(word.strip("{} "))
            if not inner:
                continue
            action = self._source["milter_default_action"]
            for one in inner[1:]:
                option, _, value = one.partition("=")
                if option == "default_action":
                    action = value
                else:
                    self._reckoning.left(
                        f"smtpd_milters: {inner[0]}",
                        one,
                        "an option of one milter",
                        "see the filter milter in docs/filters.md",
                    )
            endpoint = self._endpoint(inner[0])
            where = "smtpd_milters" if word in smtpd else "non_smtpd_milters"
            if not endpoint:
                self._reckoning.left(f"{where}: {inner[0]}", word, "no endpoint that is known here", "filter milter")
                continue
            if word not in smtpd:
                self._reckoning.left(
                    f"{where}: {inner[0]}",
                    word,
                    "filters see the mail of listeners, and of local programs by those of mx",
                    'add a [[filter]] use = "milter" where it is wanted',
                )
                continue
            keys: dict[str, Any] = {"endpoint": endpoint, "on_error": ON_ERROR.get(action, "defer")}
            self._filter("milter", False, keys, ["mx", "submission"])
            self._reckoning.carried(f"{where}: {inner[0]}", word, "filter milter")
        for name in ("smtpd_milters", "non_smtpd_milters", "milter_default_action"):
            if self._source.is_set(name) and not self._reckoning.knows(name):
                self._reckoning.carried(name, self._source.raw(name), "filter milter")

    def _endpoint(self, text: str) -> str:
        """``inet:host:port`` or ``unix:path`` as Twisted has it, "" for neither; paths count from the queue's folder."""
        kind, _, rest = text.partition(":")
        if kind == "inet" and re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]+", rest):
            host, _, port = rest.rpartition(":")
            return "tcp:" + host.strip("[]").replace(":", "\\:") + f":{port}"
        if kind in ("unix", "local") and rest:
            return f"unix:{rest}" if rest.startswith("/") else f"unix:{self._source['queue_directory']}/{rest}"
        return ""


def _codes(text: str) -> str:
    """``127.0.0.[2..11]`` as ``127.0.0.2-127.0.0.11``.  Raises ValueError for other patterns."""
    if not text:
        return ""
    match = re.fullmatch(r"(\d+\.\d+\.\d+)\.(?:(\d+)|\[([\d.;]+)\])", text)
    if match is None:
        raise ValueError(f"a pattern of answers, {text}")
    if match[2]:
        return text
    parts = []
    for one in match[3].split(";"):
        first, _, last = one.partition("..")
        parts.append(f"{match[1]}.{first}-{match[1]}.{last}" if last else f"{match[1]}.{first}")
    return ",".join(parts)


def _denied_key(key: str, what: str) -> str:
    """The key of denylist under which this one stands, "" for none."""
    try:
        if key == "networks":
            network(what.strip("[]"))
        elif key == "senders" and "@" in what:
            mail_address(what)
        else:
            host_name(what)
            return "sender_domains" if key == "senders" else key
        return key
    except ValueError:
        return ""
