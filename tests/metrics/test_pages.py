"""What is published about monitoring: the page, the dashboard and the alert rules name what there is, and all that there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.metrics.catalogue import METRICS, PREFIX
from tests.metrics.dashboard import DASHBOARD, dashboard
from tests.metrics.page import PAGE, page
from tests.requires import require_tool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "contrib" / "prometheus" / "mailserver.rules.yml"
NAME = re.compile(r"\bmailserver_[a-z_]+")


class Published(SynchronousTestCase):
    def test_the_page_and_the_dashboard_are_up_to_date(self) -> None:
        self.assertEqual(PAGE.read_text(), page(), "run `python -m tests.metrics.page`")
        self.assertEqual(DASHBOARD.read_text(), dashboard(), "run `python -m tests.metrics.dashboard`")

    def test_every_name_that_is_asked_for_is_given_out(self) -> None:
        there = {PREFIX + one.name for one in METRICS.values()}
        there |= {f"{PREFIX}{one.name}_{end}" for one in METRICS.values() if one.kind == "histogram" for end in ("bucket", "sum", "count")}
        for path in (RULES, DASHBOARD):
            self.assertEqual(set(NAME.findall(path.read_text())) - there, set(), path)

    def test_each_alert_fires_for_its_cause_and_none_where_all_is_well(self) -> None:
        promtool = require_tool("promtool")
        for words in (["check", "rules", str(RULES)], ["test", "rules", str(Path(__file__).with_name("rules.test.yml"))]):
            done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
