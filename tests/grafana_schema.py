"""Grafana's own types, from npm, and whether a dashboard has them.

`@grafana/schema` is what Grafana's front end is compiled with. A dashboard is written as a constant of its type
`Dashboard`, each panel as one of the panel's own types besides, and the TypeScript compiler judges: a field that there
is not, one that is missing, or a value that is none of an enum's is an error.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.npm import installed, tool

PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9.3")
LIMIT = 300
"""s. To compile a dashboard takes 2 s."""

TYPES = """
import type { Dashboard, Panel, RowPanel } from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeseries
    from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the value of an enum, not its name.
type Json<T> = T extends string ? `${T}` : T extends (infer E)[] ? Json<E>[]
    : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Drawn<Options, Custom> = Omit<Panel, 'options' | 'fieldConfig'> & {
    options: Options;
    fieldConfig: Omit<Panel['fieldConfig'], 'defaults'> & {
        defaults: Omit<NonNullable<Panel['fieldConfig']>['defaults'], 'custom'> & { custom?: Custom };
        overrides: [];
    };
};
type Stat = Json<Drawn<stat.Options, never>>;
type TimeSeries = Json<Drawn<timeseries.Options, timeseries.FieldConfig>>;
type Row = Json<RowPanel>;
type Whole = Json<Dashboard>;
"""

PANELS = {"stat": "Stat", "timeseries": "TimeSeries", "row": "Row"}


def faults(dashboard: Mapping[str, Any], folder: Path) -> str:
    """What the compiler says against the dashboard, empty if nothing. `folder` is for its files."""
    panels = dashboard["panels"]
    lines = [TYPES, f"export const dashboard: Whole = {json.dumps(dashboard)};"]
    lines += [f"export const p{each['id']}: {PANELS[each['type']]} = {json.dumps(each)};" for each in panels]
    (folder / "dashboard.ts").write_text("\n".join(lines))
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(installed("grafana-schema", *PACKAGES))
    compiler = modules / "typescript" / "bin" / "tsc"
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022")
    done = subprocess.run(
        [tool("node"), str(compiler), *options, "dashboard.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
