"""What a worker's death means, decided without any worker."""

import pytest

from pyrepl3_client import DeathCertificate, RecoveryPolicy
from pyrepl3_client._session.death_policy import (
    IN_A_ROW,
    MAX_IDLE_DEATHS,
    Backoff,
    DeathPolicy,
    InterruptedFate,
    SessionFate,
    interrupted_fates,
)

IDLE = DeathCertificate(cause="killed by SIGKILL", signal=9)
BUSY = DeathCertificate(cause="killed by SIGKILL", signal=9, running=("cell",))
OWN_DOING = DeathCertificate(cause="segmentation fault", signal=11, running=("cell",), own_doing=True)


def policy(recovery: RecoveryPolicy = "auto", max_attempts: int = 3) -> DeathPolicy:
    return DeathPolicy(recovery, max_attempts)


# --- the session --------------------------------------------------------------------------------------


@pytest.mark.parametrize("recovery", ["auto", "replay", "checkpoint"])
def test_a_death_leads_to_a_recovery(recovery: RecoveryPolicy) -> None:
    decides = policy(recovery)
    assert decides.session_fate(BUSY, 1, 0.0) is SessionFate.RECOVER
    assert decides.session_fate(IDLE, 1, 0.0) is SessionFate.RECOVER


def test_without_recovery_the_session_stays_dead_however_often() -> None:
    decides = policy("none")
    fates = {decides.session_fate(each, 1, 0.0) for each in [BUSY, IDLE] * MAX_IDLE_DEATHS}
    assert fates == {SessionFate.STAY_DEAD}


def idle_deaths(
    decides: DeathPolicy, count: int, *, last_seq: int = 1, now: float = 0.0
) -> list[SessionFate]:
    return [decides.session_fate(IDLE, last_seq, now) for _ in range(count)]


def test_too_many_deaths_with_nothing_to_do_are_enough() -> None:
    decides = policy()
    assert set(idle_deaths(decides, MAX_IDLE_DEATHS - 1)) == {SessionFate.RECOVER}
    assert idle_deaths(decides, 1) == [SessionFate.GIVE_UP]
    # A restart begins anew.
    assert idle_deaths(decides, 1) == [SessionFate.RECOVER]


def test_a_worker_that_was_of_use_begins_the_count_anew() -> None:
    decides = policy()
    idle_deaths(decides, MAX_IDLE_DEATHS - 1, last_seq=1)
    assert set(idle_deaths(decides, MAX_IDLE_DEATHS - 1, last_seq=2)) == {SessionFate.RECOVER}


def test_a_death_under_a_cell_begins_the_count_anew() -> None:
    decides = policy()
    idle_deaths(decides, MAX_IDLE_DEATHS - 1)
    assert decides.session_fate(BUSY, 1, 0.0) is SessionFate.RECOVER
    assert set(idle_deaths(decides, MAX_IDLE_DEATHS - 1)) == {SessionFate.RECOVER}


def test_deaths_far_apart_have_nothing_to_do_with_each_other() -> None:
    decides = policy()
    for number in range(3 * MAX_IDLE_DEATHS):
        assert decides.session_fate(IDLE, 1, number * (IN_A_ROW + 1)) is SessionFate.RECOVER


# --- what was interrupted -----------------------------------------------------------------------------


def test_nothing_ran() -> None:
    assert interrupted_fates(None, (), ()) == {}


def test_what_ran_is_decided_by_its_deaths() -> None:
    assert interrupted_fates("cell", (), ()) == {"cell": InterruptedFate.COUNT_DEATH}


def test_what_was_being_stopped_ends_and_costs_the_one_that_ran_no_less() -> None:
    fates = interrupted_fates("cell", ["queued"], ())
    assert fates == {"queued": InterruptedFate.END_STOPPED, "cell": InterruptedFate.COUNT_DEATH}


def test_what_ran_and_was_being_stopped_ends_as_stopped_whatever_else() -> None:
    assert interrupted_fates("cell", ["cell"], ["cell"]) == {"cell": InterruptedFate.END_STOPPED}


def test_what_asked_for_something_that_could_not_be_recorded_ends_with_that() -> None:
    assert interrupted_fates("cell", (), ["cell"]) == {"cell": InterruptedFate.END_UNRECORDED}
    assert interrupted_fates("cell", (), ["other"]) == {"cell": InterruptedFate.COUNT_DEATH}


@pytest.mark.parametrize(("most", "again"), [(1, [False]), (2, [True, False]), (3, [True, True, False])])
def test_an_execution_costs_so_many_workers(most: int, again: list[bool]) -> None:
    decides = policy(max_attempts=most)
    assert [decides.may_run_again(BUSY, deaths) for deaths in range(1, most + 1)] == again


@pytest.mark.parametrize("most", [1, 5])
def test_what_has_ended_its_worker_itself_does_not_run_again(most: int) -> None:
    assert policy(max_attempts=most).may_run_again(OWN_DOING, 1) is False


# --- the wait -----------------------------------------------------------------------------------------


def test_a_series_of_deaths_waits_longer_each_time() -> None:
    backoff = Backoff()
    waits = [backoff.next(0.0) for _ in range(12)]
    assert waits == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_a_death_now_and_then_waits_not_at_all() -> None:
    backoff = Backoff()
    assert {backoff.next(20.0 * number) for number in range(12)} == {0.0}
