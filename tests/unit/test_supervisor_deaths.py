"""Finding the request that kills engines, simulated by the thousand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.llm_batch.generate.deaths import START_ATTEMPTS, Action, Deaths, Decision

WINDOW = 32


class Simulation:
    """Engines that answer requests in order, a window at a time, and die of `poison`."""

    def __init__(self, count: int, poison: set[int], chance: list[bool]) -> None:
        self.open = list(range(count))
        self.poison = poison
        self.chance = chance
        self.deaths = Deaths(max_restarts=20)
        self.quarantined: list[int] = []
        self.starts = 0
        self.gave_up = False

    def run(self) -> None:
        decision: Decision | None = Decision(Action.ANSWER_OPEN)
        while decision is not None:
            if decision.action is Action.GIVE_UP:
                self.gave_up = True
                return
            if decision.action is Action.QUARANTINE:
                self.quarantined.append(decision.positions[0])
                self.open.remove(decision.positions[0])
                decision = Decision(Action.ANSWER_OPEN)
                continue
            if decision.action is Action.ANSWER_OPEN:
                wanted = list(self.open)
            else:
                wanted = [p for p in decision.positions if p in self.open]
            if not wanted:
                decision = self.deaths.finished()
                continue
            decision = self.engine(wanted, decision.window or WINDOW)

    def engine(self, wanted: list[int], window: int) -> Decision | None:
        self.starts += 1
        assert self.starts < 2000
        answered = 0
        while wanted:
            held = wanted[:window]
            accident = bool(self.chance) and self.chance.pop()
            if accident or self.poison & set(held):
                return self.deaths.died(held, answered)
            self.open.remove(wanted.pop(0))
            answered += 1
        return self.deaths.finished()


@settings(max_examples=300, deadline=None)
@given(count=st.integers(1, 300), seeds=st.sets(st.integers(0, 299), max_size=4))
def test_exactly_the_poisonous_requests_are_quarantined(count: int, seeds: set[int]) -> None:
    poison = {seed for seed in seeds if seed < count}
    simulation = Simulation(count, poison, [])
    simulation.run()
    assert not simulation.gave_up
    assert set(simulation.quarantined) == poison
    assert simulation.open == []


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 200),
    gaps=st.lists(st.integers(3, 60), max_size=15),
)
def test_deaths_by_chance_blame_nobody(count: int, gaps: list[int]) -> None:
    """Kills from outside, but not four times running while one and the same request is alone."""
    chance = [step for gap in gaps for step in [True, *[False] * gap]]
    simulation = Simulation(count, set(), chance)
    simulation.run()
    assert simulation.quarantined == []
    assert simulation.open == []


def test_one_killer_costs_few_engine_starts() -> None:
    simulation = Simulation(1000, {700}, [])
    simulation.run()
    assert simulation.quarantined == [700]
    # Two deaths, √32 at once, two at once, one at a time, alone; and the rest.
    assert simulation.starts <= 7


def test_an_engine_that_does_not_start_is_tried_three_times() -> None:
    deaths = Deaths(max_restarts=20)
    actions = [deaths.failed_to_start(permanent=False).action for _ in range(START_ATTEMPTS)]
    assert actions == [Action.ANSWER_OPEN] * (START_ATTEMPTS - 1) + [Action.GIVE_UP]


def test_what_cannot_be_mended_by_a_restart_is_not_tried_again() -> None:
    assert Deaths(max_restarts=20).failed_to_start(permanent=True).action is Action.GIVE_UP


def test_engines_that_answer_nothing_are_given_up() -> None:
    deaths = Deaths(max_restarts=2)
    actions = [deaths.died(range(5), answered=0).action for _ in range(3)]
    assert actions[-1] is Action.GIVE_UP
    assert Action.GIVE_UP not in actions[:-1]


def test_an_engine_that_leaks_but_answers_may_go_on_for_ever() -> None:
    deaths = Deaths(max_restarts=2)
    for start in range(100):
        held = range(start * 50, start * 50 + 20)
        assert deaths.died(held, answered=30).action is not Action.GIVE_UP


def test_too_many_killers_point_at_the_machine() -> None:
    simulation = Simulation(100, set(range(100)), [])
    simulation.run()
    assert simulation.gave_up
    assert len(simulation.quarantined) == 20
