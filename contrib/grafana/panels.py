"""What the panels of all dashboards have in common: a data source, a unit, a legend, and a sentence that explains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as parts
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as queries

SOURCE = parts.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24

Query = tuple[str, str]
"""PromQL, and the legend of its series."""

# Of an action, from harmless to hard; the same wherever it is drawn.
COLORS = {
    "accept": "green",
    "tag": "blue",
    "defer": "yellow",
    "quarantine": "orange",
    "reject": "red",
    "discard": "dark-red",
}
STATES = {0: ("ok", "green"), 1: ("suspect", "yellow"), 2: ("suspended", "red"), 3: ("probation", "blue")}
"""The states of a list as numbers, for a time line draws numbers."""

Kind = TypeVar("Kind", timeseries.Panel, heatmap.Panel, statetimeline.Panel, stat.Panel, bargauge.Panel)


def lines(
    title: str,
    says: str,
    unit: str,
    *asked: Query,
    stacked: bool = False,
    by_action: bool = False,
    most: float | None = None,
    span: int = WIDTH // 2,
) -> timeseries.Panel:
    """Draw series over time; those of an action in its colour."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(8)
        .fill_opacity(60 if stacked else 10)
        .line_width(1)
        .show_points(shapes.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.TABLE)
            .placement(shapes.LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["mean", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    )
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    for name, color in COLORS.items() if by_action else ():
        fixed = {"mode": "fixed", "fixedColor": color}
        panel.override_by_regexp(f"/^{name}\\b/", [parts.DynamicConfigValue(id_val="color", value=fixed)])
    return _asking(panel, asked)


def number(title: str, says: str, unit: str, query: Query, thresholds: Sequence[tuple[float | None, str]], *, span: int = 4) -> stat.Panel:
    """Show the last value, in the colour of the highest threshold that it reaches."""
    panel = (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(4)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(shapes.BigValueGraphMode.AREA)
        .color_mode(shapes.BigValueColorMode.VALUE)
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(parts.ThresholdsMode.ABSOLUTE)
            .steps([parts.Threshold(value=value, color=color) for value, color in thresholds])
        )
    )
    return _asking(panel, [query])


def bars(title: str, says: str, unit: str, query: Query, *, span: int = WIDTH // 2) -> bargauge.Panel:
    """Compare totals over the time that is looked at."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(8)
        .orientation(shapes.VizOrientation.HORIZONTAL)
        .display_mode(shapes.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _asking(panel, [query], instant=True)


def heat_map(title: str, says: str, unit: str, query: Query, *, span: int = WIDTH // 2) -> heatmap.Panel:
    """Draw how a histogram's buckets fill over time."""
    panel = (
        heatmap.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .span(span)
        .height(8)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(shapes.HeatmapCellLayout.LE))
        .cell_gap(1)
        .color(heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .unit("short")
        .show_legend()
        .hide_y_histogram()
    )
    return _asking(panel, [query], form=queries.PromQueryFormat.HEATMAP)


def states(title: str, says: str, query: Query, *, span: int = WIDTH) -> statetimeline.Panel:
    """Draw a list's states as a time line."""
    options = {str(value): parts.ValueMappingResult(text=text, color=color, index=value) for value, (text, color) in STATES.items()}
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit("none")
        .span(span)
        .height(8)
        .mappings([parts.ValueMap(options=options)])
        .merge_values(True)
        .show_value(shapes.VisibilityMode.AUTO)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    return _asking(panel, [query])


def _asking(
    panel: Kind, asked: Sequence[Query], *, instant: bool = False, form: queries.PromQueryFormat = queries.PromQueryFormat.TIME_SERIES
) -> Kind:
    for place, (expression, legend) in enumerate(asked):
        query = (
            prometheus.Dataquery()
            .expr(" ".join(expression.split()))
            .legend_format(legend)
            .format(form)
            .ref_id(chr(ord("A") + place))
            .datasource(SOURCE)
        )
        panel.with_target(query.instant() if instant else query.range())
    return panel
