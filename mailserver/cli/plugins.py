"""``mailserver plugins``: which components there are, what is wrong with some, and a new one to start from."""

from __future__ import annotations

import argparse
import os
from typing import Any

from mailserver.cli.output import Unable, as_json, say, table
from mailserver.cli.running_components import running_components, show_running
from mailserver.cli.skeletons.writing import KINDS, STAGES, SkeletonError, write_skeleton
from mailserver.plugins.catalogue import Catalogue, FoundPlugin, PluginError, discover, former_warning, options_class
from mailserver.plugins.versions import is_former

__all__ = ["add_to"]


def add_to(commands: Any, common: argparse.ArgumentParser, summary: str) -> None:
    """Declare the command."""
    plugins = commands.add_parser("plugins", parents=[common], help=summary)
    plugins.set_defaults(run=list_plugins, needs_configuration=False)
    actions = plugins.add_subparsers(title="actions", metavar="ACTION")
    checking = actions.add_parser("check", parents=[common], help="import every component and say what is wrong")
    checking.set_defaults(run=check_plugins, needs_configuration=False)
    new = actions.add_parser("new", parents=[common], help="write a package with a component and its tests")
    new.add_argument(
        "name", metavar="NAME", help="what the configuration will call it: lower-case letters, digits, hyphens"
    )
    new.add_argument("--kind", choices=KINDS, default="filter", help="what it is (default: %(default)s)")
    new.add_argument("--stage", choices=STAGES, default="", help="where a filter judges (default: content)")
    new.add_argument("--directory", default=".", metavar="DIR", help="where the package's folder goes (default: here)")
    new.set_defaults(run=new_plugin, needs_configuration=False)


def list_plugins(options: argparse.Namespace) -> int:
    """Print every component, and how those of the server that runs do.  Return 1 where a plugin is broken."""
    catalogue = discover()
    running = running_components(options.config)
    if options.json:
        as_json(_described(catalogue) | {"running": running})
    else:
        rows = [
            (found.name, found.api_version, _kinds(found), found.source, str(found.factory.summary))
            for found in _sorted(catalogue)
        ]
        table(("NAME", "API", "PROVIDES", "FROM", "SUMMARY"), rows)
        if catalogue.broken:
            say("", f"{len(catalogue.broken)} plugin(s) could not be used; `mailserver plugins check` says why.")
        if running is not None:
            show_running(running)
    return 1 if catalogue.broken else 0


def check_plugins(options: argparse.Namespace) -> int:
    """Import every component and print all faults.  Return 1 where some were found."""
    catalogue = discover()
    faults = plugin_faults(catalogue)
    if options.json:
        as_json(_described(catalogue) | {"faults": [{"source": source, "why": why} for source, why in faults]})
    else:
        bad = {source for source, _ in faults}
        for found in _sorted(catalogue):
            say(f"{'faulty' if found.source in bad else 'ok':<7} {found.name}: {_kinds(found)}, from {found.source}")
        for found in _sorted(catalogue):
            if is_former(found.factory):
                say("", f"{found.source}:", former_warning(found.name))
        for source, why in faults:
            say("", f"{source}:", why.rstrip())
    return 1 if faults else 0


def plugin_faults(catalogue: Catalogue) -> list[tuple[str, str]]:
    """Where and what: plugins that cannot be imported, names claimed twice, invalid options."""
    faults = [(broken.source, broken.why) for broken in catalogue.broken]
    for found in catalogue.found:
        try:
            options_class(found.factory)
        except PluginError as error:
            faults.append((found.source, str(error)))
    for name, founds in catalogue.clashes():
        sources = " and ".join(found.source for found in founds)
        faults.append((founds[-1].source, f"the name {name!r} is used twice, by {sources}: it can be used by neither"))
    return faults


def new_plugin(options: argparse.Namespace) -> int:
    """Write the skeleton and say what to do with it."""
    try:
        folder, files = write_skeleton(options.name, options.directory, options.kind, options.stage)
    except (SkeletonError, OSError) as error:
        raise Unable(str(error)) from error
    if options.json:
        as_json({"directory": folder, "files": files})
        return 0
    say(*(os.path.join(folder, file) for file in files), "")
    say("Test it:     " + f"cd {folder} && python -m twisted.trial tests")
    say("Install it:  " + f"pip install {folder}")
    say("Use it:      " + f"{folder}/README.md shows the table; docs/plugins/ explains the rest")
    return 0


def _described(catalogue: Catalogue) -> dict[str, Any]:
    return {
        "components": [
            {
                "name": found.name,
                "api_version": found.api_version,
                "provides": [interface.__name__ for interface in found.provides],
                "source": found.source,
                "summary": str(found.factory.summary),
            }
            for found in _sorted(catalogue)
        ],
        "broken": [{"source": broken.source, "why": broken.why} for broken in catalogue.broken],
    }


def _sorted(catalogue: Catalogue) -> list[FoundPlugin]:
    return sorted(catalogue.found, key=lambda found: (found.provides[0].__name__, found.name))


def _kinds(found: FoundPlugin) -> str:
    return ", ".join(interface.__name__ for interface in found.provides)
