"""What expressions come to, as promtool evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from tests import promtool


def refuted(
    expected: Mapping[tuple[str, str], float],
    series: Mapping[str, str],
    interval: str,
    folder: Path,
    rules: Path | None = None,
) -> str:
    """What promtool says against these values of expressions at these times, empty if nothing; `series` are samples at
    this interval."""
    tests = [
        {"expr": expr, "eval_time": time, "exp_samples": [{"labels": "{}", "value": value}]}
        for (expr, time), value in expected.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    test = {
        "rule_files": [str(rules)] if rules else [],
        "evaluation_interval": interval,
        # Else promtool takes them in any order, and the alerts may see figures of the step before.
        "group_eval_order": ["sessions-objectives", "sessions-alerts"],
        "tests": [{"interval": interval, "input_series": given, "promql_expr_test": tests}],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = promtool.run("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr
