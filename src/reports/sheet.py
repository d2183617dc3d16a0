"""The report as comma-separated values: full precision, every setting that differs, every run accounted for.

`kind` says what a line is: `runs` (a group), `baseline`, or `not counted` (a single run; then `status`, `why` and
`folder` are filled, and `so_far` is how far it came).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from src.reports import cells
from src.reports.settings import Value
from src.reports.table import Row, Table

FIGURES = ["metric", "mean", "sd", "n", "low", "high", "best", "parameters", "seconds"]


def render(table: Table) -> str:
    """The table as CSV (RFC 4180 quoting, lines end with a newline)."""
    keys = list(dict.fromkeys([*table.columns, *table.with_others, *table.label_keys]))
    heads = ["place", "kind", "name", *keys, *FIGURES, "seeds", "status", "so_far", "why", "folder"]
    out = io.StringIO()
    writer = csv.DictWriter(out, heads, restval="", lineterminator="\n")
    writer.writeheader()
    for place, row in zip(cells.places(table), table.rows, strict=True):
        writer.writerow({"place": place, **_settings(row.settings, keys), **_figures(table, row)})
    for one in table.left_out:
        writer.writerow(
            {
                "kind": "not counted",
                **_settings(one.run.settings, keys),
                "metric": table.metric.name,
                "seeds": "" if one.run.seed is None else one.run.seed,
                "status": one.reason,
                "so_far": "" if one.so_far is None else repr(one.so_far),
                "why": one.why,
                "folder": str(one.run.folder),
            }
        )
    return out.getvalue()


def _settings(settings: Mapping[str, Value], keys: list[str]) -> dict[str, Value]:
    return {key: settings[key] for key in keys if key in settings}


def _figures(table: Table, row: Row) -> dict[str, object]:
    summary = row.summary
    numbers = {
        "mean": summary.mean, "sd": summary.sd, "low": summary.low, "high": summary.high,
        "best": row.best, "parameters": row.parameters, "seconds": row.seconds,
    }  # fmt: skip
    written: dict[str, object] = {key: "" if value is None else repr(value) for key, value in numbers.items()}
    seeds = [] if row.group is None else [str(run.seed) for run, _ in row.group.counted if run.seed is not None]
    return {
        **written,
        "kind": "baseline" if row.group is None else "runs",
        "name": row.name,
        "metric": table.metric.name,
        "n": "" if row.group is None else summary.n,
        "seeds": " ".join(seeds),
    }
