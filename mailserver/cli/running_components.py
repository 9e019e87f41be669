"""What ``mailserver plugins`` says of the components of the server that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mailserver.cli.asking import ask_server, data_directory
from mailserver.cli.output import plain, say, table
from mailserver.config.choice import chosen_path
from mailserver.config.fault import ConfigurationError
from mailserver.control.client import ControlError

__all__ = ["running_components", "show_running", "troubles_of"]


def running_components(config: str) -> dict[str, Any] | None:
    """What the server says; None where there is none, or one that cannot be asked: a list of plugins needs neither."""
    try:
        path = config or chosen_path(None, say=lambda _: None, environment=os.environ)
        return ask_server(data_directory(path), "components", {})
    except (ConfigurationError, ControlError, OSError):
        return None


def show_running(running: Mapping[str, Any]) -> None:
    """A table of the components and how they do, and their figures."""
    components = running["components"]
    say("", "In the server that runs:", "")
    table(
        ("KIND", "NAME", " MEDIAN ms", " 95% ms", "STATE"),
        [
            (
                str(one["kind"]),
                str(one["name"]),
                *[f"{one.get('milliseconds', {}).get(figure, '')}" for figure in ("median", "p95")],
                "; ".join(troubles_of(one)) or "runs",
            )
            for one in components
        ],
    )
    for name, threads in running.get("left_behind", {}).items():
        say(f"{plain(str(name))} has left {threads} thread(s) behind that hang")
    for what, files in running.get("newer_code", {}).items():
        say(f"The code of {plain(str(what))} on the disk is not what runs: restart the server ({plain(', '.join(files))})")
    figures = [
        (f"{one['kind']} {one['name']}", str(name), f"{value:g}" if isinstance(value, float) else str(value))
        for one in components
        for name, value in {**one.get("counts", {}), **one["metrics"]}.items()
    ]
    if figures:
        say("")
        table(("COMPONENT", "FIGURE", " VALUE"), figures)


def troubles_of(component: Mapping[str, Any]) -> list[str]:
    """What is not as it should be with a component, in words."""
    found = [
        f"circuit {stage}: {state['words']} ({state['failures']} failures)" if state["circuit"] != "closed"
        else f"{stage}: {state['failures']} failures"
        for stage, state in component["circuits"].items()
        if state["failures"]
    ]  # fmt: skip
    if hanging := component["threads"]["hanging"]:
        found.append(f"{hanging} thread(s) hang")
    if hanging := component.get("processes", {}).get("hanging"):
        found.append(f"{hanging} process(es) were killed and have not ended")
    if hanging := component.get("calls_hanging"):
        found.append(f"{hanging} call(s) run on after their deadline")
    observer = component.get("observer") or {}
    if observer.get("lost"):
        found.append(f"{observer['lost']} steps were lost to it")
    if observer.get("failures"):
        found.append(f"failed at {observer['failures']} steps")
    periodic = component.get("periodic") or {}
    if periodic.get("failures"):
        last = f", the last time: {periodic['last_error']}" if periodic["last_error"] else ""
        found.append(f"{periodic['failures']} of {periodic['runs']} periodic runs failed{last}")
    blocks = component["blocks"]
    if blocks["count"]:
        found.append(f"held the reactor {blocks['count']} time(s), for up to {blocks['longest_seconds']:g} s")
    return found
