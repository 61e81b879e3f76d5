"""A list is left alone after three different clients in a row got nothing, and tried by one at a time."""

import threading
from ipaddress import ip_address

import pytest

from dnsbl_milter.breaker import CLIENTS, TRIAL, Breaker

A, B, C, D = (ip_address(f"192.0.2.{last}") for last in range(1, 5))
SIX = ip_address("2001:db8::1")
ANSWERED = None

HISTORIES = {
    "nothing has happened": ([], False),
    "two clients got nothing": ([A, B], False),
    "three clients got nothing": ([A, B, C], True),
    "families count alike": ([A, SIX, C], True),
    "one client three times": ([A, A, A], False),
    "two clients, again and again": ([A, B, A, B, A, B], False),
    "an answer in between": ([A, B, ANSWERED, C], False),
    "an answer, and then three": ([A, ANSWERED, B, C, D], True),
    "an answer in between, and the same three": ([A, B, ANSWERED, A, B, C], True),
    "back with the first answer": ([A, B, C, ANSWERED], False),
    "back, and two more": ([A, B, C, ANSWERED, A, B], False),
    "four clients got nothing": ([A, B, C, D], True),
}


@pytest.mark.parametrize(("history", "left_alone"), HISTORIES.values(), ids=HISTORIES.keys())
def test_a_list_is_left_alone(history, left_alone):
    breaker = Breaker()
    for client in history:
        if client is ANSWERED:
            breaker.answered()
        else:
            breaker.failed(client)
    assert breaker.open is left_alone


def test_a_list_left_alone_does_not_remember_ever_more_clients():
    breaker = Breaker()
    for last in range(1, 200):
        breaker.failed(ip_address(f"192.0.2.{last}"))
    assert len(breaker._disappointed) == CLIENTS


def test_one_client_at_a_time_tries():
    breaker = Breaker()
    assert breaker.may_try(A, 0.0)
    assert not breaker.may_try(B, 0.1)
    assert not breaker.may_try(A, 0.2), "a second connection of the same client is one more"
    breaker.release(A)
    assert breaker.may_try(B, 0.3)
    assert not breaker.may_try(A, 0.4)


def test_who_does_not_hold_the_trial_cannot_end_it():
    breaker = Breaker()
    assert breaker.may_try(A, 0.0)
    breaker.release(B)
    assert not breaker.may_try(C, 0.1)


def test_a_client_that_dawdles_does_not_keep_a_list_out():
    breaker = Breaker()
    assert breaker.may_try(A, 100.0)
    assert not breaker.may_try(B, 100.0 + TRIAL - 0.01)
    assert breaker.may_try(B, 100.0 + TRIAL)
    breaker.release(A)
    assert not breaker.may_try(C, 100.0 + TRIAL + 0.01), "the trial is B's now"


def test_threads_agree_on_who_tries():
    breaker = Breaker()
    start = threading.Barrier(10)
    trying = []

    def try_it(client):
        start.wait()
        for _ in range(200):
            if breaker.may_try(client, 0.0):
                trying.append(client)
                assert trying == [client]
                trying.remove(client)
                breaker.release(client)
            breaker.failed(client)
            breaker.answered()

    faults = []

    def guarded(client):
        try:
            try_it(client)
        except BaseException as fault:  # noqa: BLE001  raised below
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(ip_address(f"192.0.2.{last}"),)) for last in range(1, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert not breaker.open
