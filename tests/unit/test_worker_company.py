"""worker/company.py: who runs beside whom (architecture 4: "A job that lost a worker runs alone")."""

import pytest

from worker.company import Company, Place


class Watched(Company):
    """Counts how often it said that it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.freed = 0
        self.call_when_free(self._count)

    def _count(self) -> None:
        self.freed += 1


@pytest.fixture
def company() -> Watched:
    return Watched()


def entered(company: Company, job_id: str, alone_until: int | None = None) -> Place:
    place = company.enter(job_id, alone_until)
    assert place is not None
    return place


def test_jobs_run_beside_each_other_and_know_whom_they_join(company: Watched) -> None:
    first = entered(company, "a")
    assert (first.solitude, first.beside) == ("alone", None)
    second, third = entered(company, "b"), entered(company, "c")
    assert (first.solitude, second.solitude, second.beside) == (None, None, "a")
    assert third.beside is None, "nobody was alone any more"
    second.leave()
    third.leave()
    assert (first.solitude, company.wanted, company.freed) == ("alone", False, 0)


def test_a_suspect_runs_at_once_where_nobody_else_does(company: Watched) -> None:
    suspect = entered(company, "s", 3)
    assert (suspect.turn.is_set(), suspect.solitude, company.wanted) == (True, "alone", True)
    assert company.enter("b") is None, "nobody joins it"


def test_else_it_waits_until_the_others_have_left(company: Watched) -> None:
    others = [entered(company, "a"), entered(company, "b")]
    suspect = entered(company, "s", 0)
    for other in others:
        assert (suspect.turn.is_set(), suspect.solitude, company.wanted) == (False, "waits", True)
        other.leave()
    assert (suspect.turn.is_set(), suspect.solitude, suspect.beside) == (True, "alone", None)


def test_one_that_was_taken_before_does_not_wait_for_suspects_that_wait(company: Watched) -> None:
    entered(company, "a")
    entered(company, "s", 0)
    assert entered(company, "b").turn.is_set()


def test_past_where_it_was_lost_it_is_like_any_other(company: Watched) -> None:
    suspect = entered(company, "s", 2)
    for kept in (1, 2):
        suspect.made(kept)
        assert company.wanted
    suspect.made(3)
    assert (company.wanted, company.freed, suspect.solitude) == (False, 1, "alone")
    assert entered(company, "b").beside == "s"
    suspect.made(4)
    suspect.leave()
    assert company.freed == 1, "said once"


def test_suspects_take_turns_and_the_next_waits_for_the_end_of_the_one_before(company: Watched) -> None:
    first, second, third = (entered(company, name, 0) for name in "xyz")
    first.made(1)
    assert (second.turn.is_set(), company.wanted, company.freed) == (False, True, 0)
    first.leave()
    assert (second.turn.is_set(), third.turn.is_set()) == (True, False)
    second.leave()
    assert third.turn.is_set()
    third.leave()
    assert (company.wanted, company.freed) == (False, 1)


def test_one_that_gives_up_waiting_is_forgotten(company: Watched) -> None:
    other = entered(company, "a")
    suspect = entered(company, "s", 0)
    suspect.leave()
    assert (company.wanted, company.freed) == (False, 1)
    other.leave()
    assert entered(company, "b").solitude == "alone"
