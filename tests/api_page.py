"""docs/plugins/api.md: every public name with one sentence, from the docstrings.  `python -m tests.api_page` writes it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from zope.interface.interface import InterfaceClass

from mailserver import api
from tests.documents import DOCS

__all__ = ["PAGE", "page", "sentence_of"]

PAGE = DOCS / "plugins" / "api.md"
GROUPS = {  # by the module that a name comes from: what its names are
    "mailserver.interfaces.components": "Every component",
    "mailserver.interfaces.filters": "Filters, modifiers, observers",
    "mailserver.interfaces.session": "SMTP",
    "mailserver.smtp.server.additions": "SMTP",
    "mailserver.mail.filter_notes": "Verdicts, routes, outcomes",
    "mailserver.interfaces.accounts": "Directories",
    "mailserver.interfaces.delivery": "Routers and deliveries",
    "mailserver.interfaces.outbound": "Mail on its way out",
    "mailserver.mail.outbound_answers": "Mail on its way out",
    "mailserver.mail.report": "Mail on its way out",
    "mailserver.interfaces.services": "What the core lends",
    "mailserver.plugins.threads": "What the core lends",
    "mailserver.plugins.asyncio_world": "What the core lends",
    "mailserver.plugins.versions": "The version",
    "mailserver.mail.answers": "Verdicts, routes, outcomes",
    "mailserver.mail.edits": "Edits",
    "mailserver.mail.envelope": "Peer, envelope, message",
    "mailserver.mail.address": "Peer, envelope, message",
    "mailserver.mail.content": "Peer, envelope, message",
    "mailserver.mail.headers": "Peer, envelope, message",
    "mailserver.mail.parcel": "Routers and deliveries",
    "mailserver.mail.reply": "Verdicts, routes, outcomes",
    "mailserver.mail.dns_records": "What the core lends",
    "mailserver.mail.faults": "What the core lends",
    "mailserver.mail.fetched": "What the core lends",
    "mailserver.mail.process_failure": "What the core lends",
    "mailserver.sasl.scram_keys": "Directories",
    "mailserver.sasl.steps": "Directories",
    "mailserver.config.options": "Options",
    "mailserver.config.fault": "Options",
    "mailserver.config.values": "Options",
}
VALUES = {  # names that can have no docstring
    "API_VERSION": "What this server offers.",
    "Verdict": "Any verdict.",
    "Route": "Any route.",
    "Outcome": "Any outcome.",
    "Edit": "Any edit.",
    "AttemptVerdict": "`Proceed`, `Postpone` or `GiveUp`.",
    "ReportVerdict": "`SendReport` or `SuppressReport`.",
    "Size": 'Octets: `"50M"`, `1024`.',
    "Duration": 'Seconds: `"1h30m"`, `90`.',
    "Count": "A number from 1 on.",
    "Network": 'A network: `"192.0.2.0/24"`, or one address.',
    "DomainName": "A domain; lower case, A-labels.",
    "DomainKey": 'A domain, or `"*."` and a domain: every name below it.',
    "HostName": "A name that other hosts can look up.",
    "MailAddress": "An address, as `Address`.",
    "NameServer": "The address of a name server, with or without a port.",
    "FilePath": "A path; a relative one counts from the folder of the configuration file.",
    "SocketPath": "The path of a Unix socket, as `FilePath`.",
    "Endpoint": "An endpoint of Twisted's, of the kinds that the server knows.",
}
MADE_BY = {"Address": "parse", "Content": "of", "Reply": "of"}  # what makes them from what an author has
NOT_MADE = frozenset(  # by a plugin; its tests have tools for it
    "Services Peer Envelope FilterNotes Headers HeaderField MessagePart MessageParts ConfigurationError NotMine".split()
)
HEAD = """\
# Plugin API {version}

All that a plugin imports comes from `mailserver.api`, all that its tests import from `mailserver.testing`. What is not
on this page may change with any release. `python -m tests.api_page` writes it from the source, whose docstrings say more:
they stand in `mailserver/interfaces/` (`help()` shows little of an interface). What a filter is shown has tables in
[filter.md](filter.md#what-it-is-shown).

A minor version only adds names; a major one may take some away. [changes.md](changes.md) says what a version is for.
"""


def sources() -> dict[str, str]:
    """Each public name and the module that it comes from."""
    tree = ast.parse(Path(str(api.__file__)).read_text(encoding="utf-8"))
    return {
        alias.name: module_of(node.module or "", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def module_of(module: str, name: str) -> str:
    """The module of a package that has it."""
    if module != "mailserver.interfaces":
        return module
    return str(getattr(api, name).__module__)


def sentence_of(name: str) -> str:
    """The first sentence of its docstring, or what `VALUES` says; "" where nobody says anything."""
    if name in VALUES:
        return VALUES[name]
    thing: Any = getattr(api, name)
    text = str(thing.__doc__ or "") if isinstance(thing, InterfaceClass | type) or callable(thing) else ""
    first = re.split(r"(?<=[.:])\s{2,}|\n\s*\n", " ".join(text.split("\n\n")[0].split("\n")).strip())[0]
    return re.sub(r"``", "`", re.sub(r"\s+", " ", first)).replace("|", "\\|")


def page() -> str:
    """The text of the page."""
    groups: dict[str, list[str]] = {}
    found = sources()
    for title in dict.fromkeys(GROUPS.values()):
        groups[title] = []
    for name in api.__all__:
        groups.setdefault(GROUPS.get(found[name], "Besides"), []).append(name)
    text = HEAD.format(version=api.API_VERSION)
    for title, names in groups.items():
        text += f"\n## {title}\n\n| name | meaning |\n|---|---|\n"
        text += "".join(f"| `{name}` | {sentence_of(name)} |\n" for name in names)
        interfaces = [name for name in names if isinstance(getattr(api, name), InterfaceClass)]
        blocks = "".join(map(block_of, interfaces))
        if blocks:
            text += f"\nMethods and attributes of the interfaces:\n{blocks}"
        made = "".join(f"    {line}\n" for line in filter(None, map(making_of, names)))
        if made:
            text += f"\nHow the values are made:\n\n{made}"
    return text


def making_of(name: str) -> str:
    """``Refuse(why, enhanced='5.7.1', *, findings=(), notes={}, reply=None)``; "" for what a plugin does not make."""
    thing = getattr(api, name)
    if not isinstance(thing, type) or name in NOT_MADE or getattr(thing, "_is_protocol", False):
        return ""
    if not dataclasses.is_dataclass(thing) and "__init__" not in vars(thing):
        return ""
    maker = getattr(thing, MADE_BY.get(name, ""), thing)
    plain = [
        parameter.replace(
            annotation=parameter.empty,
            default="…" if dataclasses.is_dataclass(parameter.default) else parameter.default,
        )
        for parameter in inspect.signature(maker).parameters.values()
    ]
    said = str(inspect.Signature(plain)).replace("<factory>", "…").replace("'…'", "…")
    return f"{name}.{MADE_BY[name]}{said}" if name in MADE_BY else f"{name}{said}"


def block_of(name: str) -> str:
    """An interface with what it asks for, each with its types; "" where that is nothing."""
    lines = "".join(f"        {line}\n" for line in members_of(name))
    return f"\n    {name}\n{lines}" if lines else ""


def members_of(name: str) -> list[str]:
    """``get(key: str) -> Awaitable[bytes | None]``, as the source says it.  Inherited ones stand at the base's name."""
    tree = ast.parse(Path(str(sys.modules[getattr(api, name).__module__].__file__)).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    members: list[str] = []
    for node in found.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
            members.append(f"{node.name}({ast.unparse(node.args)}){returns}")
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            members.append(node.targets[0].id)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            members.append(f"{node.target.id}: {ast.unparse(node.annotation)}")
    return members


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
