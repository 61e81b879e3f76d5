"""The dashboards: a fleet at a glance, and one list in depth.

    python contrib/grafana/dashboards.py            # writes dashboards/*.json anew
    python contrib/grafana/dashboards.py --check    # tells whether they are what this file makes

Written with grafana-foundation-sdk; what is committed beside this file is what Grafana is given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as parts

sys.path.insert(0, str(Path(__file__).parents[1]))

from grafana.panels import SOURCE, WIDTH, bars, heat_map, lines, number, states

FOLDER = Path(__file__).parent / "dashboards"

HOSTS = 'instance=~"$instance"'
LIST = f'{HOSTS}, list="$list"'
LISTS = f'{HOSTS}, list=~"$list"'
DROPS = 'action=~"defer|quarantine|reject|discard"'
FAILED = 'outcome!~"listed|clear"'
EVERY = "[$__rate_interval]"


def state_of(labels: str) -> str:
    """Return the state of lists as one number each, for a state's own series is 1 while it is the current one."""
    numbered = (f'{place} * dnsbl_list_state{{{labels}, state="{state}"}}' for place, state in enumerate(("ok", "suspect", "suspended", "probation")))
    return f"sum by (instance, list, family) ({' or '.join(numbered)})"


def quantiles(histogram: str, labels: str, by: str = "") -> list[tuple[str, str]]:
    """Return the median and two tails of a histogram."""
    return [
        (
            f"histogram_quantile({quantile}, sum by (le{by}) (rate({histogram}_bucket{{{labels}}}{EVERY})))",
            f"{quantile:.0%}" + (" {{list}}" if by else ""),
        )
        for quantile in (0.5, 0.95, 0.99)
    ]


def variables(*, many: bool) -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """Return the variables: the data source, the hosts, and the lists or the one list."""

    def values(name: str, label: str, query: str, *, multi: bool) -> dashboard.QueryVariable:
        variable = (
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(query)
            .refresh(parts.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(parts.VariableSort.ALPHABETICAL_ASC)
            .multi(multi)
            .include_all(multi)
        )
        return variable.all_value(".*").current(parts.VariableOption(text="All", value="$__all")) if multi else variable

    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        values("instance", "Instance", "label_values(dnsbl_build_info, instance)", multi=True),
        values("list", "List", f"label_values(dnsbl_lookups_total{{{HOSTS}}}, list)", multi=many),
    ]


def reloads() -> dashboard.AnnotationQuery:
    """Mark the moments at which another policy came into force."""
    return (
        dashboard.AnnotationQuery()
        .name("Reloads")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("blue")
        .expr(f"changes(dnsbl_config_last_reload_success_timestamp_seconds{{{HOSTS}}}[1m]) > 0")
    )


def begin(uid: str, title: str, says: str, *, many: bool) -> dashboard.Dashboard:
    """Begin a dashboard with what both have."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["dnsbl-milter", "mail"])
        .editable()
        .tooltip(parts.DashboardCursorSync.CROSSHAIR)
        .refresh("1m")
        .time("now-24h", "now")
        .timezone("browser")
        .annotation(reloads())
        .link(dashboard.DashboardLink("dnsbl-milter").type(parts.DashboardLinkType.DASHBOARDS).tags(["dnsbl-milter"]).keep_time(True).include_vars(True))
    )
    for variable in variables(many=many):
        made.with_variable(variable)
    return made


def fleet() -> dashboard.Dashboard:
    """Show all hosts: what happens to mail, what lists do, and how the daemons are."""
    return (
        begin("dnsbl-milter-fleet", "dnsbl-milter: fleet", "What happens to mail on all hosts, which lists decide about it, and how the daemons are.", many=True)
        .with_row(dashboard.Row("Now"))
        .with_panel(number("Hosts without a worker", "Hosts on which no worker serves: mail flows unjudged there.", "short", (f'sum(dnsbl_workers{{{HOSTS}, state="serving"}} == bool 0)', "hosts"), [(None, "green"), (1, "red")]))
        .with_panel(number("Connections", "SMTP connections that Sendmail told of.", "cps", (f"sum(rate(dnsbl_connections_total{{{HOSTS}}}{EVERY}))", "connections"), [(None, "text")]))
        .with_panel(number("Kept out", "The share of recipients that were deferred, quarantined, rejected or discarded.", "percentunit", (f"sum(rate(dnsbl_recipients_total{{{HOSTS}, {DROPS}}}{EVERY})) / sum(rate(dnsbl_recipients_total{{{HOSTS}}}{EVERY}))", "kept out"), [(None, "green"), (0.5, "yellow"), (0.8, "red")]))
        .with_panel(number("Lookups that fail", "The share of questions that a list answered neither yes nor no.", "percentunit", (f"sum(rate(dnsbl_lookups_total{{{LISTS}, {FAILED}}}{EVERY})) / sum(rate(dnsbl_lookups_total{{{LISTS}}}{EVERY}))", "failed"), [(None, "green"), (0.05, "yellow"), (0.2, "red")]))
        .with_panel(number("Refused reloads", "Hosts whose last reload was refused: an older policy is in force there than on disk.", "short", (f"sum(1 - dnsbl_config_last_reload_successful{{{HOSTS}}})", "hosts"), [(None, "green"), (1, "red")]))
        .with_panel(number("Paused", "Lists, or everything (*), put on observation by hand.", "short", (f"sum(dnsbl_paused{{{HOSTS}}})", "paused"), [(None, "green"), (1, "yellow")]))
        .with_row(dashboard.Row("Mail"))
        .with_panel(lines("Recipients by action", "What was done about each recipient. From defer on the mail was kept out.", "reqps", (f"sum by (action) (rate(dnsbl_recipients_total{{{HOSTS}}}{EVERY}))", "{{action}}"), stacked=True, by_action=True))
        .with_panel(lines("Drops by action and list", "Recipients kept out, counted for each list that added points: one recipient counts for several lists.", "reqps", (f"sum by (action, list) (rate(dnsbl_drops_total{{{LISTS}}}{EVERY}))", "{{action}} {{list}}")))
        .with_panel(bars("Decisive lists", "Recipients that were kept out and would have been treated more mildly without this one list: what would have passed without it.", "short", (f"sum by (list, action) (increase(dnsbl_decisive_total{{{LISTS}, {DROPS}}}[$__range]))", "{{list}} {{action}}")))
        .with_panel(heat_map("Scores", "How the scores of recipients are distributed; below zero an allow-list spoke for the sender.", "none", (f"sum by (le) (increase(dnsbl_score_bucket{{{HOSTS}}}{EVERY}))", "{{le}}")))
        .with_panel(lines("Messages by action", "Messages that were seen to their end.", "reqps", (f"sum by (action) (rate(dnsbl_messages_total{{{HOSTS}}}{EVERY}))", "{{action}}"), stacked=True, by_action=True))
        .with_panel(lines("Not judged", "Clients, messages and recipients that were exempt, by the reason.", "reqps", (f"sum by (reason) (rate(dnsbl_exempt_total{{{HOSTS}}}{EVERY}))", "{{reason}}"), stacked=True))
        .with_panel(lines("On observation", "What observe mode, a pause, or lists on observation would have done.", "reqps", (f"sum by (action) (rate(dnsbl_observed_total{{{HOSTS}}}{EVERY}))", "{{action}}"), by_action=True))
        .with_panel(lines("Softened", "Actions that were made milder because a list that matters did not answer.", "reqps", (f"sum by (from, to) (rate(dnsbl_softened_total{{{HOSTS}}}{EVERY}))", "{{from}} to {{to}}")))
        .with_panel(lines("Memory of deferrals", "What the memory said of what was to be deferred: deferred for the first time, back too early, passed, known.", "reqps", (f"sum by (result) (rate(dnsbl_memory_total{{{HOSTS}}}{EVERY}))", "{{result}}"), stacked=True))
        .with_panel(lines("What recipients waited", "How long the first recipient of a connection waited for lists, beyond what SMTP took anyway.", "s", *quantiles("dnsbl_wait_seconds", HOSTS)))
        .with_row(dashboard.Row("Lists"))
        .with_panel(states("States of lists", "What the health checks make of each list. A suspended list is not asked and adds nothing.", (state_of(LISTS), "{{list}} {{family}} {{instance}}")))
        .with_panel(lines("The resolver", "What is wrong with a host's resolver, if anything: it rewrites answers, refuses, or is down. Every list suffers alike.", "short", (f"sum by (instance, fault) (dnsbl_resolver_fault{{{HOSTS}}})", "{{instance}} {{fault}}"), span=WIDTH))
        .with_panel(lines("Lookups by outcome", "Questions to lists, by what became of them.", "reqps", (f"sum by (outcome) (rate(dnsbl_lookups_total{{{LISTS}}}{EVERY}))", "{{outcome}}"), stacked=True))
        .with_panel(lines("Lookups that fail, by list", "The share of a list's questions that it answered neither yes nor no.", "percentunit", (f"sum by (list) (rate(dnsbl_lookups_total{{{LISTS}, {FAILED}}}{EVERY})) / sum by (list) (rate(dnsbl_lookups_total{{{LISTS}}}{EVERY}))", "{{list}}"), most=1))
        .with_panel(lines("Hits by list", "Clients that a list lists, whether or not it decided anything.", "reqps", (f"sum by (list) (rate(dnsbl_list_hits_total{{{LISTS}}}{EVERY}))", "{{list}}")))
        .with_panel(lines("Slow answers by list", "95 of 100 answers of a list came within this time.", "s", (f"histogram_quantile(0.95, sum by (le, list) (rate(dnsbl_lookup_seconds_bucket{{{LISTS}}}{EVERY})))", "{{list}}")))
        .with_panel(lines("Cache hit ratio", "The share of clients about whom every list's answer was known already.", "percentunit", (f'sum by (instance) (rate(dnsbl_cache_lookups_total{{{HOSTS}, result="hit"}}{EVERY})) / sum by (instance) (rate(dnsbl_cache_lookups_total{{{HOSTS}}}{EVERY}))', "{{instance}}"), most=1))
        .with_panel(lines("Proofs", "Before mail is kept out, each list that speaks against it is asked about an address that it cannot list.", "reqps", (f"sum by (list, result) (rate(dnsbl_proofs_total{{{LISTS}}}{EVERY}))", "{{list}} {{result}}")))
        .with_row(dashboard.Row("Daemons"))
        .with_panel(lines("Workers", "Worker processes: those that serve, and those that let their last sessions end after a reload.", "short", (f"sum by (instance, state) (dnsbl_workers{{{HOSTS}}})", "{{instance}} {{state}}"), span=8))
        .with_panel(lines("Workers that died", "Each is replaced at once; its sessions went on unjudged.", "short", (f"increase(dnsbl_worker_restarts_total{{{HOSTS}}}{EVERY})", "{{instance}}"), span=8))
        .with_panel(lines("Faults of ours", "Exceptions that let mail pass unjudged; the log has the traceback.", "short", (f"sum by (instance, callback) (increase(dnsbl_callback_errors_total{{{HOSTS}}}{EVERY}))", "{{instance}} {{callback}}"), span=8))
        .with_panel(number("Since the last reload", "How long the oldest policy has been in force.", "s", (f"time() - min(dnsbl_config_last_reload_success_timestamp_seconds{{{HOSTS}}})", "age"), [(None, "text")], span=8))
        .with_panel(bars("Versions", "What runs, and on how many hosts.", "short", (f"count by (version, python, libmilter) (dnsbl_build_info{{{HOSTS}}})", "{{version}}, Python {{python}}, libmilter {{libmilter}}"), span=16))
    )


def one_list() -> dashboard.Dashboard:
    """Show all that there is to know about one list."""
    return (
        begin("dnsbl-milter-list", "dnsbl-milter: one list", "One list in depth: what it says, what its saying so does, how well it answers.", many=False)
        .with_row(dashboard.Row("$list"))
        .with_panel(states("State", "What the health checks make of it. A suspended list is not asked and adds nothing.", (state_of(LIST), "{{instance}} {{family}}"), span=16))
        .with_panel(number("Listed", "The share of clients, of those it was asked about, that it lists. A list that lists the world comes near 100%, an emptied one 0%.", "percentunit", (f'sum(rate(dnsbl_lookups_total{{{LIST}, outcome="listed"}}{EVERY})) / sum(rate(dnsbl_lookups_total{{{LIST}}}{EVERY}))', "listed"), [(None, "text")]))
        .with_panel(number("Paused", "Hosts on which it is on observation by hand.", "short", (f"sum(dnsbl_paused{{{LIST}}})", "hosts"), [(None, "green"), (1, "yellow")]))
        .with_row(dashboard.Row("What it does to mail"))
        .with_panel(lines("Hits by label", "Clients that it lists, by the meaning of its answer.", "reqps", (f"sum by (label) (rate(dnsbl_list_hits_total{{{LIST}}}{EVERY}))", "{{label}}"), stacked=True))
        .with_panel(lines("Drops with it", "Recipients kept out to which it added points, alone or with others.", "reqps", (f"sum by (action) (rate(dnsbl_drops_total{{{LIST}}}{EVERY}))", "{{action}}"), stacked=True, by_action=True))
        .with_panel(lines("Decided by it", "Actions that would have been milder without it: what would have passed, or not been tagged.", "reqps", (f"sum by (action) (rate(dnsbl_decisive_total{{{LIST}}}{EVERY}))", "{{action}}"), stacked=True, by_action=True))
        .with_panel(lines("Its part in all drops", "Of all recipients that were kept out: those to which it added points, and those that would have passed without it.", "percentunit", (f"sum(rate(dnsbl_drops_total{{{LIST}}}{EVERY})) / sum(rate(dnsbl_recipients_total{{{HOSTS}, {DROPS}}}{EVERY}))", "added points"), (f"sum(rate(dnsbl_decisive_total{{{LIST}, {DROPS}}}{EVERY})) / sum(rate(dnsbl_recipients_total{{{HOSTS}, {DROPS}}}{EVERY}))", "decided"), most=1))
        .with_row(dashboard.Row("How well it answers"))
        .with_panel(lines("Lookups by outcome", "Questions to it, by what became of them.", "reqps", (f"sum by (outcome) (rate(dnsbl_lookups_total{{{LIST}}}{EVERY}))", "{{outcome}}"), stacked=True))
        .with_panel(lines("Lookups that fail, by host", "The share of questions that it answered neither yes nor no. One host alone: its resolver. All: the list.", "percentunit", (f"sum by (instance) (rate(dnsbl_lookups_total{{{LIST}, {FAILED}}}{EVERY})) / sum by (instance) (rate(dnsbl_lookups_total{{{LIST}}}{EVERY}))", "{{instance}}"), most=1))
        .with_panel(lines("Time to answer", "From the question to the kernel's receipt of the answer.", "s", *quantiles("dnsbl_lookup_seconds", LIST)))
        .with_panel(heat_map("Time to answer, in full", "How the times to answer are distributed.", "s", (f"sum by (le) (increase(dnsbl_lookup_seconds_bucket{{{LIST}}}{EVERY}))", "{{le}}")))
        .with_panel(lines("Proofs", "Asked about an address that it cannot list: sane if it did not, failed if it did.", "reqps", (f"sum by (result) (rate(dnsbl_proofs_total{{{LIST}}}{EVERY}))", "{{result}}"), stacked=True, span=WIDTH))
    )


DASHBOARDS = {"fleet.json": fleet, "list.json": one_list}


def texts() -> dict[str, str]:
    """Return each file's text by its name."""
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(_numbered(made())) + "\n" for name, made in DASHBOARDS.items()}


def _numbered(made: dashboard.Dashboard) -> parts.Dashboard:
    built = made.build()
    # The builder leaves every number at 0, and Grafana wants each once.
    for number_, panel in enumerate(built.panels or (), 1):
        panel.id_val = number_
    return built


def main(arguments: Sequence[str]) -> int:
    """Write the files, or compare them; return the exit status."""
    made = texts()
    if "--check" in arguments:
        stale = [name for name, text in made.items() if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text]
        sys.stderr.writelines(f"{name} is not what dashboards.py makes: run it\n" for name in stale)
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
