"""Write `docs/reference/metrics.md` from the daemon's metrics.

`python -m tools.metrics_reference`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_server.observe.metrics import Metrics

from tools.checkout import ROOT

if TYPE_CHECKING:
    from prometheus_client import Metric

PAGE = ROOT / "docs" / "reference" / "metrics.md"

_SUFFIXES = {"counter": "_total", "histogram": "_bucket, …_sum, …_count"}
_INTRODUCTION = """\
# Metrics

Generated from `server/headwater_server/observe/metrics.py`; do not edit.

`GET /metrics` gives them in the text format of Prometheus. Each answers a question; counters rise from the start of the daemon.

| metric | kind | by | question |
| --- | --- | --- | --- |
"""


def page() -> str:
    """Return the reference page."""
    registry = Metrics().registry
    labels = {
        collector._name: collector._labelnames  # type: ignore[attr-defined]
        for collector in registry._collector_to_names
        if hasattr(collector, "_labelnames")
    }
    found = sorted(registry.collect(), key=lambda metric: metric.name)
    return _INTRODUCTION + "".join(_row(metric, ", ".join(labels.get(metric.name, ()))) for metric in found)


def _row(metric: Metric, by: str) -> str:
    name = f"{metric.name}{_SUFFIXES.get(metric.type, '')}"
    return f"| `{name}` | {metric.type} | {by} | {metric.documentation} |\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
