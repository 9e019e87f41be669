"""What the root process may do, read from the configuration by a program of a moment.

It runs as root beside the root process (`processes.root`) and ends when it has said its word: so that process stays small, and
nothing that a configuration can do to a parser happens in it.  The options of the server's own components are checked here as in
the server; no plugin is imported.

The result is JSON: "why" it is refused, "" where it is not; "addresses", for tcp endpoints, interface and port by endpoint;
"paths", for unix endpoints, path, mode and whether a socket left behind is replaced; "unsafe", why root binds no such path;
"starts", arguments and instructions by kind.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from mailserver.accounts.system import SystemDirectoryOptions
from mailserver.accounts.system_logins import pam_start
from mailserver.assembly.web import root_starts_web, web_start
from mailserver.config import Configuration, ConfigurationError, check_options, load
from mailserver.config.acme_endpoints import own_endpoints
from mailserver.config.endpoints import bare_endpoint, place_of, unix_socket_of
from mailserver.config.ownership import why_not_of
from mailserver.delivery.courier_client import courier_start
from mailserver.delivery.maildir import MaildirOptions
from mailserver.delivery.names import PathTemplate, TemplateError
from mailserver.delivery.pipe import PipeOptions, launch_of
from mailserver.processes.spawning import STARTER_GONE, ProcessStart, name_version, outlive_signals

__all__ = ["main", "plan_of", "read"]


def read(path: str) -> dict[str, Any]:
    """The result for the configuration at `path`."""
    try:
        why = why_not_of(path)
        if why:
            return {"why": f"the configuration is not root's alone, so it cannot say what root does: {why}"}
        return {"why": "", **plan_of(load(path))}
    except (ConfigurationError, ValidationError, TemplateError, OSError) as error:
        return {"why": str(error)}


def plan_of(configuration: Configuration) -> dict[str, Any]:
    """The result's "addresses" and "starts"; `configuration` has the options of components as plain tables."""
    addresses, paths, unsafe = {}, {}, {}
    for listen in configuration.listen:
        place, path = place_of(listen.endpoint), unix_socket_of(listen.endpoint)
        if place is not None and place.kind in ("tcp", "tcp6"):
            addresses[bare_endpoint(listen.endpoint)] = (place.host, place.port)
        elif path is not None and (why := _unsafe_for_root(path[0])):
            unsafe[bare_endpoint(listen.endpoint)] = f"root binds it at a restart, not now: {why}"
        elif path is not None:
            paths[bare_endpoint(listen.endpoint)] = path
    addresses = _addresses_for_a_ca(configuration) | addresses
    starts: dict[str, ProcessStart] = {}
    if root_starts_web(configuration):
        starts["web"] = web_start(configuration, as_user=True)
    accounts = configuration.accounts
    if accounts.use == "system":
        options: Any = check_options(SystemDirectoryOptions, accounts.options, configuration.directory)
        if options.pam is not None:
            starts["accounts.pam"] = pam_start(options.pam, options.uid_min)
    for section, table in (("delivery", configuration.delivery), ("relay", configuration.relay)):
        if table.use == "maildir":
            options = check_options(MaildirOptions, table.options, configuration.directory)
            if PathTemplate(options.path, data_directory=configuration.data).needs_home:
                starts[f"{section}.courier"] = courier_start(options.path, options.uid_min)
        elif table.use == "pipe":
            options = check_options(PipeOptions, table.options, configuration.directory)
            if options.user:
                starts[f"{section}.launcher"] = launch_of(options).start()
    return {
        "addresses": addresses,
        "paths": paths,
        "unsafe": unsafe,
        "starts": {kind: (start.arguments, start.instructions.decode("ascii")) for kind, start in starts.items()},
    }


def _addresses_for_a_ca(configuration: Configuration) -> dict[str, tuple[str, int]]:
    """Where the server listens while a CA looks."""
    found = {}
    for endpoint in own_endpoints(configuration):
        place = place_of(endpoint)
        if place is not None and place.kind in ("tcp", "tcp6"):
            found[bare_endpoint(endpoint)] = (place.host, place.port)
    return found


def _unsafe_for_root(path: str) -> str:
    """Why somebody else could lead root to another folder than the path's, "" where nobody can.

    Whoever owns the folder itself, as the server does its own below /run, can do that only within it.
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        for above in (os.path.dirname(folder), os.path.dirname(os.path.realpath(folder))):
            if os.stat(above).st_mode & 0o022:  # sticky is not enough: the folder may be anybody's link then
                return f"{above} may be written by others"
            if why := why_not_of(above):
                return why
    except OSError as error:
        return str(error)
    return ""


def main(arguments: Sequence[str]) -> None:
    """Arguments: the configuration's path, the number of our end of the socket pair."""
    path, number = arguments
    outlive_signals()
    os.umask(0o077)
    with socket.socket(fileno=int(number)) as pipe:
        name_version(pipe)
        plan = json.dumps(read(path)).encode("ascii")
        try:
            pipe.sendall(plan)
        except ConnectionError:  # the root process has gone, or waits no longer
            sys.exit(STARTER_GONE)


if __name__ == "__main__":
    main(sys.argv[1:])
