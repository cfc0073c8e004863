"""The budget of bytes that sessions share."""

from __future__ import annotations

from trio_rpc.util.unsent_budget import UnsentBudget, UnsentShare

MOST = 1_000


class Disconnected:
    """A share without a connection, which notes in a list that its session was ended."""

    def __init__(self, budget, name, kept, ended):
        self.share = UnsentShare(budget, MOST)
        self.share.keep(kept)
        self.share.disconnect(lambda: ended.append(name))


def test_a_budget_counts_the_queued_and_the_kept_bytes_of_all_shares():
    budget = UnsentBudget()
    one, other = UnsentShare(budget, MOST), UnsentShare(budget, MOST)
    one.queue(300)
    one.keep(200)
    other.queue(499)
    assert (budget.size, one.is_full, other.is_full) == (999, False, False)
    other.queue(500)
    assert one.is_full
    assert other.is_full
    one.queue(0)
    one.keep(0)
    other.queue(0)
    assert budget.size == 0


def test_a_full_budget_ends_disconnected_sessions_with_the_largest_share_first():
    budget, ended = UnsentBudget(), []
    for name, kept in (("small", 50), ("large", 450), ("middle", 400)):
        Disconnected(budget, name, kept, ended)
    connected = UnsentShare(budget, MOST)
    connected.queue(99)
    assert ended == []
    connected.queue(100)
    assert (ended, budget.size) == (["large"], 550)
    connected.queue(550)
    assert (ended, budget.size) == (["large", "middle"], 600)


def test_a_full_budget_does_not_end_a_session_whose_share_is_below_the_average():
    budget, ended = UnsentBudget(), []
    Disconnected(budget, "small", 100, ended)
    for _ in range(3):
        UnsentShare(budget, MOST).queue(300)
    assert budget.size == MOST
    assert ended == []


def test_a_session_that_loses_its_connection_while_the_budget_is_full_is_ended_at_once():
    budget, ended = UnsentBudget(), []
    UnsentShare(budget, MOST).queue(400)
    Disconnected(budget, "large", 700, ended)
    assert (ended, budget.size) == (["large"], 400)


def test_a_session_with_a_new_connection_is_not_ended():
    budget, ended = UnsentBudget(), []
    one = Disconnected(budget, "one", 700, ended)
    one.share.connect()
    UnsentShare(budget, MOST).queue(400)
    assert ended == []


def test_a_share_that_has_left_is_not_counted_and_is_full():
    budget = UnsentBudget()
    share = UnsentShare(budget, MOST)
    share.queue(10)
    share.leave()
    share.queue(500)
    share.keep(500)
    assert (budget.size, budget.shares) == (0, 0)
    assert share.is_full
