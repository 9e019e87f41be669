"""Mutants of one module: does any test see that it is wrong?

A mutant differs in one place of the syntax tree: a comparison, an operator, a constant, a condition, a statement that is gone.  It lives in
the memory of the process that runs the tests, and of the Python processes that these start (`FOR_ALL`), the servers of the scenarios among them; no
file of ours changes.
"""

from __future__ import annotations

import ast
import marshal
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.side_by_side import ROOT

__all__ = ["IN_SERVERS", "TESTS", "changes", "path_of", "put_in_place"]

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
}  # fmt: skip
RECEIVING = (
    "tests.receive.test_protocol", "tests.receive.test_connection", "tests.receive.test_encryption", "tests.receive.test_states",
    "tests.receive.test_login", "tests.receive.test_transaction", "tests.receive.test_reload", "tests.receive.test_behind_proxy",
    "tests.receive.test_absence", "tests.receive.test_ends", "tests.receive.test_fates", "tests.receive.test_filter_stage", "tests.receive.test_findings", "tests.receive.test_service_extensions", "tests.receive.test_thrown_out",
)  # fmt: skip
TESTS = {
    "accounts/system_logins": ("tests.authentication.test_pam", "tests.accounts.test_system"),
    "assembly/daemon": ("tests.assembly.test_daemon",),
    "authentication/pam": ("tests.authentication.test_pam",),
    "cli/without_server": ("tests.cli.test_route",),
    "delivery/watched_writer": ("tests.delivery.test_courier",),
    "delivery/courier": ("tests.delivery.test_courier",),
    "delivery/writer_process": ("tests.delivery.test_writer_process",),
    "delivery/launcher": ("tests.delivery.test_pipe",),
    "filters/aiosmtpd_handler": ("tests.filters.test_aiosmtpd_handler", "tests.scenarios.test_aiosmtpd"),
    "processes/privileged": ("tests.processes.test_privileged", "tests.processes.test_root"),
    "processes/root": ("tests.processes.test_root_answers", "tests.processes.test_root"),
    "processes/root_client": ("tests.processes.test_root_client", "tests.processes.test_root"),
    "queue/outcome_writer": ("tests.queue.test_outcome_writer", "tests.queue.test_outcomes", "tests.queue.test_reading_back", "tests.queue.test_reports", "tests.queue.admin.test_orders"),
    "pickup/pickup": ("tests.pickup.test_pickup", "tests.pickup.test_waiting", "tests.pickup.test_hostile_files", "tests.pickup.test_watch"),
    "receive/connection": RECEIVING,
    "receive/protocol": RECEIVING,
    "sasl/cram_md5": ("tests.sasl.test_exchanges", "tests.sasl.test_client"),
    "sasl/scram": ("tests.sasl.test_exchanges", "tests.sasl.test_scram_keys", "tests.sasl.test_scram_peers"),
    "transport/verified": ("tests.relay.test_security",),
    "smtp/server/data": (
        "tests.smtp.server.test_content", "tests.smtp.test_header_section", "tests.smtp.server.test_bdat", "tests.smtp.server.test_smuggling", "tests.smtp.server.test_splits",
    ),
}  # fmt: skip  # the quick ones that mean the module; for others, all of its package
OPERATING, ORDERED = "tests.scenarios.test_operation", "tests.scenarios.test_queue_verbs.Verbs"
STARTING = ("tests.scenarios.test_recipients", f"{OPERATING}.Reload", f"{OPERATING}.Signals", "tests.scenarios.test_daemon")
IN_SERVERS = {
    "assembly/": STARTING,
    "assembly/certificates": ("tests.scenarios.test_tls.Faults", "tests.scenarios.test_tls.Renewal.test_a_renewed_pair_is_found_without_a_signal"),
    "assembly/daemon": ("tests.scenarios.test_daemon",),
    "assembly/listeners": ("tests.scenarios.test_tls.Faults", "tests.scenarios.test_proxy", "tests.scenarios.test_root_process.Ports"),
    "assembly/logins": ("tests.scenarios.test_login.FirstListener", "tests.scenarios.test_login.Strangers", "tests.scenarios.test_other_accounts"),
    "assembly/policy": (*STARTING, "tests.scenarios.test_filters", f"{OPERATING}.ReloadThatTakesTime"),
    "assembly/reload": (f"{OPERATING}.Reload", f"{OPERATING}.ReloadThatTakesTime", "tests.assembly.test_systemd.Life"),
    "assembly/retirement": (f"{OPERATING}.ReloadThatTakesTime", f"{OPERATING}.Signals"),
    "assembly/root_plan": ("tests.processes.test_root.Reading", "tests.scenarios.test_root_process.Ports", "tests.scenarios.test_root_process.UnixSockets", "tests.scenarios.test_root_process.Homes"),
    "assembly/routing": ("tests.scenarios.test_recipients", f"{OPERATING}.DeadEnds", "tests.scenarios.test_other_deliveries"),
    "assembly/sandbox": ("tests.scenarios.test_sandbox",),
    "assembly/submission": ("tests.scenarios.test_submission",),
    "control/": (
        f"{ORDERED}.test_hold_release_redirect_drop_while_the_server_runs", "tests.scenarios.test_queue_verbs.Route",
        f"{ORDERED}.test_a_message_is_read_while_the_server_runs_and_bounced_to_its_sender", f"{ORDERED}.test_retry_tries_at_once",
        "tests.scenarios.test_login.Strangers",
    ),
    "plugins/": STARTING,
    "service": (*STARTING, f"{OPERATING}.ReloadThatTakesTime", "tests.scenarios.test_unprivileged", "tests.scenarios.test_root_process.Ports"),
    "state_store/": ("tests.scenarios.test_login.Strangers",),
}  # fmt: skip  # what servers of the scenarios execute, where no other test of the package has seen it
# Python runs it at its start, where it finds it.
FOR_ALL = """
import importlib.machinery
import importlib.util
import marshal
import sys


class Mutant(importlib.machinery.SourceFileLoader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_code(self, fullname):
        with open({code!r}, "rb") as file:
            return marshal.load(file)


sys.meta_path.insert(0, Mutant({name!r}, {path!r}))
"""

Change = Callable[[], None]


def changes(tree: ast.Module) -> Iterator[tuple[int, str, Change]]:
    """Line, what it is in words, and what makes the change in the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for place, one in enumerate(node.ops):
                if type(one) in OPERATORS:
                    yield node.lineno, words(one), lambda n=node, p=place, o=one: n.ops.__setitem__(p, OPERATORS[type(o)]())
        elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
            yield node.lineno, words(node.op), lambda n=node: setattr(n, "op", OPERATORS[type(n.op)]())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.lineno, "not is gone", lambda n=node: setattr(n, "op", ast.UAdd()) or setattr(
                n, "operand", ast.Call(ast.Name("bool", ast.Load()), [n.operand], [])
            )
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            yield node.lineno, f"{node.value} → {not node.value}", lambda n=node: setattr(n, "value", not n.value)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield node.lineno, f"{node.value} → {node.value + 1}", lambda n=node: setattr(n, "value", n.value + 1)
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            for value in (True, False) if isinstance(node, ast.If) else (False,):
                yield node.lineno, f"the condition is {value}", lambda n=node, v=value: setattr(n, "test", ast.Constant(v))
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            for place, one in enumerate(block if isinstance(block, list) else ()):
                if isinstance(one, ast.Raise) or (isinstance(one, ast.Expr) and not isinstance(one.value, ast.Constant)):
                    yield one.lineno, f"without {ast.unparse(one)[:60]}", lambda b=block, p=place: b.__setitem__(p, ast.Pass())


def words(operator: ast.AST) -> str:
    return f"{type(operator).__name__} → {OPERATORS[type(operator)].__name__}"


def path_of(module: str) -> Path:
    return ROOT / "mailserver" / f"{module}.py"


def put_in_place(module: str, number: int, folder: Path) -> None:
    """From now on the module is this mutant where it is imported or run, here and in Python processes that are started here.

    A number below 0 changes nothing.  `folder` has to stay for as long as they run.
    """
    tree = ast.parse(path_of(module).read_text(), str(path_of(module)))
    if number >= 0:
        list(changes(tree))[number][2]()
    code, program = folder / "mutant", folder / "sitecustomize.py"
    code.write_bytes(marshal.dumps(compile(ast.fix_missing_locations(tree), str(path_of(module)), "exec")))
    program.write_text(FOR_ALL.format(name="mailserver." + module.replace("/", "."), path=str(path_of(module)), code=str(code)))
    folder.chmod(0o755)  # for those that run as somebody else
    sys.path.insert(0, str(folder))  # `mailserver.processes.spawning` hands it on
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    runpy.run_path(str(program))
