"""What is wrong with the nameservers, and how to put it right: one small function a check.

Floor 3: standard library only.
"""

import os
from collections.abc import Iterator

from dnsbl_milter.patient import Finding, Patient
from dnsbl_milter.wire import NXDOMAIN, REFUSED, SERVFAIL

NEAR_SECONDS = 0.02
"""A resolver on this host or beside it answers from its cache in a fraction of that."""
OWN = 'install a caching resolver such as unbound on this host, and name it: dns.nameservers = ["127.0.0.1"]'

PUBLIC = {
    # Resolvers that all the world may use, and that list operators refuse for that reason.
    "8.8.8.8": "Google", "8.8.4.4": "Google", "2001:4860:4860::8888": "Google", "2001:4860:4860::8844": "Google",
    "1.1.1.1": "Cloudflare", "1.0.0.1": "Cloudflare", "2606:4700:4700::1111": "Cloudflare", "2606:4700:4700::1001": "Cloudflare",
    "9.9.9.9": "Quad9", "149.112.112.112": "Quad9", "2620:fe::fe": "Quad9", "2620:fe::9": "Quad9",
    "208.67.222.222": "OpenDNS", "208.67.220.220": "OpenDNS", "2620:119:35::35": "OpenDNS", "2620:119:53::53": "OpenDNS",
    "94.140.14.14": "AdGuard", "94.140.15.15": "AdGuard", "76.76.2.0": "Control D", "76.76.10.0": "Control D",
    "4.2.2.1": "Level 3", "4.2.2.2": "Level 3", "64.6.64.6": "Verisign", "64.6.65.6": "Verisign",
    "185.228.168.9": "CleanBrowsing", "185.228.169.9": "CleanBrowsing", "77.88.8.8": "Yandex", "77.88.8.1": "Yandex",
}  # fmt: skip


def nameserver_answers(patient: Patient) -> Iterator[Finding]:
    """Tell which nameservers answer us."""
    for each, spoken in patient.spoken.items():
        if not spoken:
            fix = f"start it, or name another under dns.nameservers; {OWN}"
            yield Finding("nameserver", str(each), False, "does not answer", fix)
        elif spoken[0].rcode == REFUSED:
            fix = "allow this host to ask it (unbound: access-control; BIND: allow-recursion), or name another"
            yield Finding("nameserver", str(each), False, "refuses to answer this host", fix)
        else:
            yield Finding("nameserver", str(each), True, "answers")


def nameserver_is_our_own(patient: Patient) -> Iterator[Finding]:
    """Tell which nameservers all the world shares."""
    for each in patient.configuration.nameservers:
        operator = PUBLIC.get(str(each.address))
        if operator:
            says = f"is {operator}'s public resolver, which list operators refuse"
            yield Finding("public resolver", str(each), False, says, OWN)
        else:
            yield Finding("public resolver", str(each), True, "is no public resolver that we know")


def nameserver_does_not_rewrite(patient: Patient) -> Iterator[Finding]:
    """Tell whether names that do not exist are answered."""
    for each in patient.answering:
        if patient.spoken[each][0].answered or patient.survey["resolver"] == "rewrites":
            yield Finding("rewriting", str(each), False, "answers for names that do not exist", f"turn that off there, or {OWN}")
        else:
            yield Finding("rewriting", str(each), True, "says so where a name does not exist")


def nameserver_is_near(patient: Patient) -> Iterator[Finding]:
    """Tell how long a nameserver takes for what it knows."""
    for each in patient.answering:
        best = min(spoken.seconds for spoken in patient.spoken[each])
        says = f"answers in {best * 1000:.1f} ms"
        yield Finding("latency", str(each), best <= NEAR_SECONDS, says, "" if best <= NEAR_SECONDS else OWN)


def tcp_works(patient: Patient) -> Iterator[Finding]:
    """Tell whether long answers can be had."""
    for each in patient.answering:
        spoken = each.ask(f"{os.urandom(8).hex()}.invalid.", "A", patient.configuration.settings.dns.deadline, tcp=True)
        if spoken is None:
            fix = "open port 53 for TCP between this host and it"
            yield Finding("TCP", str(each), False, "does not answer over TCP: what is too long for a packet is lost", fix)
        else:
            yield Finding("TCP", str(each), True, "answers over TCP")


def dnssec_works(patient: Patient) -> Iterator[Finding]:
    """Tell whether a nameserver validates what is signed."""
    for each, spoken in patient.root.items():
        if spoken is None or spoken.rcode in (REFUSED, NXDOMAIN):
            yield Finding("DNSSEC", str(each), None, "says nothing about the root")
        elif spoken.rcode == SERVFAIL:
            unchecked = each.ask(".", "SOA", patient.configuration.settings.dns.deadline, unchecked=True)
            if unchecked is None or unchecked.rcode == SERVFAIL:
                yield Finding("DNSSEC", str(each), None, "says nothing about the root")
            else:
                fix = "set the clock, and renew its trust anchor (unbound-anchor)"
                yield Finding("DNSSEC", str(each), False, "cannot validate what is signed right", fix)
        elif spoken.authentic:
            yield Finding("DNSSEC", str(each), True, "validates")
        else:
            fix = "turn validation on (unbound: auto-trust-anchor-file; BIND: dnssec-validation auto)"
            yield Finding("DNSSEC", str(each), False, "does not validate, so forged answers pass", fix)
