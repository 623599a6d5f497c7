"""What servers and leaves print at /metrics: every sample's name and its labels."""

import re
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.leaves.leaf_metrics import HostMetrics, SenderMetrics
from lookup_api.leaves.process_memory import ProcessMemory
from lookup_api.metrics import Metrics
from lookup_api.root.root_metrics import RootMetrics
from lookup_api.shadow_metrics import ShadowMetrics

SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds."""


def printed_names() -> set[str]:
    """Names of metrics, but for when each was made."""
    printed = re.findall(r"^# TYPE (\w+)", _everything()[0].exposition().decode(), re.MULTILINE)
    return {name for name in printed if not name.endswith("_created")}


def printed_samples() -> dict[str, set[str]]:
    """Name of a sample -> its labels, Prometheus' own among them, as the text that is printed has them."""
    own, *more = _everything()
    for metric in (one for holder in (own, *more) for one in vars(holder).values()):
        if isinstance(metric, MetricWrapperBase):
            _touch(metric)
    return _parsed(own.registry)


def _everything() -> tuple[Any, ...]:
    """All that holds metrics, in the registry of the first."""
    own = Metrics()
    own.registry.register(ProcessMemory())
    return own, *(
        more(own.registry) for more in (LadderMetrics, RootMetrics, HostMetrics, SenderMetrics, ShadowMetrics)
    )


def _touch(metric: MetricWrapperBase) -> None:
    """Has a metric with labels print a sample of each name."""
    child = metric.labels(*("x" for _ in metric._labelnames)) if metric._labelnames else metric
    if isinstance(child, Histogram):
        child.observe(0)


def _parsed(registry: CollectorRegistry) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set(SCRAPED)).update(sample.labels)
    return found
