"""What the drafters guess, how they are judged, and that tenants learn nothing of each other."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pipelines.messages import Sampling
from pipelines.text.prefix_index import root_key
from pipelines.text.speculation.copying import GAMMA, CopyFromContext
from pipelines.text.speculation.drafter import COPY_GRADES, Draft, Drafter, Rates
from pipelines.text.speculation.drafters import SCOPES, Experience, Experiences, JobDrafters, job_drafters
from pipelines.text.speculation.ngrams import CONTEXTS, HEAVIEST, NgramDrafter, NgramTable
from tests.text_driver import Driver

Drive = Callable[..., Driver]


def sure(grades: int) -> Rates:
    return Rates(grades, first_guess=1.0)


def copier() -> CopyFromContext:
    return CopyFromContext(1000, sure(COPY_GRADES))


@pytest.mark.parametrize(
    ("tokens", "guess"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], [4, 5, 1, 2, 3]),
        ([1, 2, 3, 4, 5, 9, 2, 3], []),
        ([1, 2, 3, 4, 1, 2, 3, 7, 1, 2, 3], [7, 1, 2, 3]),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3, 4], [5, 6, 1, 2, 3, 4]),
        ([5, 5, 5, 5], [5]),
        ([1, 2], []),
    ],
    ids=["copied", "too short a match", "the last place", "goes on", "repetition", "short"],
)
def test_copies(tokens: list[int], guess: list[int]) -> None:
    at_once, in_steps = copier(), copier()
    at_once.follow(tokens, 3)
    for end in range(1, len(tokens) + 1):
        in_steps.follow(tokens[:end], 3)
    assert list(at_once.propose(8).tokens) == list(in_steps.propose(8).tokens) == guess


def test_a_rewound_index_is_one_of_the_other_tokens() -> None:
    rng = random.Random(2)
    kept, tokens = copier(), list[int]()
    for _ in range(200):
        length = rng.randrange(len(tokens) + 1)
        tokens = tokens[:length] + rng.choices(range(3), k=rng.randrange(6))
        kept.rewind(length)
        kept.follow(tokens, 0)
        fresh = copier()
        fresh.follow(tokens, 0)
        assert (kept._after, kept._keys) == (fresh._after, fresh._keys)
        assert kept.propose(0).place == len(tokens)


def test_a_copy_is_surer_the_longer_it_has_agreed() -> None:
    drafter = copier()
    tokens = [*range(20), *range(GAMMA)]
    drafter.follow(tokens, 0)
    first = drafter.propose(4).grades
    drafter.follow([*range(20), *range(12)], 0)
    assert drafter.propose(4).grades[0] > first[0]


def test_the_table_learns_and_changes_its_mind() -> None:
    table = NgramTable()
    drafter = NgramDrafter(table)
    answer = [7, 8, 9, 10, 11, 12]
    drafter.follow([1, 2, *answer], 2)
    other = NgramDrafter(table)
    other.follow([1, 2, 7, 8], 2)
    assert list(other.propose(3).tokens) == [9, 10, 11]
    for number in range(50):
        table.saw([7, 8], 50 + number // 30)
    assert table.best([7, 8]) == (51, 4 * 2 + 3)
    for _ in range(HEAVIEST):
        table.saw([7, 8], 60)
    found = table.best([7, 8])
    assert found is not None
    assert found[0] == 60


def test_the_table_forgets_the_oldest() -> None:
    table = NgramTable()
    for number in range(CONTEXTS + 2):
        table.saw([number, number + 1], 5)
    assert table.best([0, 1]) is not None, "one generation is kept"
    for number in range(CONTEXTS, 2 * CONTEXTS + 2):
        table.saw([number, number + 1], 5)
    assert table.best([0, 1]) is None
    assert len(table._young) + len(table._old) <= 2 * CONTEXTS + 3


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.7, 1.0])
def test_rates_follow_what_happens(acceptance: float) -> None:
    shared = Rates(1)
    rng = random.Random(0)
    for _ in range(60):
        rates = Rates(1, shared)
        for _ in range(30):
            rates.saw(0, rng.random() < acceptance)
    assert shared.chance(0) == pytest.approx(acceptance, abs=0.1)
    fresh = Rates(1, shared)
    assert fresh.chance(0) == pytest.approx(shared.chance(0))


def test_offers_are_judged_up_to_the_first_wrong_token() -> None:
    rates = Rates(2)
    before = [rates.chance(grade) for grade in (0, 1)]
    rates.learn(Draft(2, [5, 6, 7], [0, 1, 1], [1.0] * 3), [1, 1, 5, 9, 9])
    assert rates.chance(0) > before[0]
    assert rates.chance(1) < before[1]
    assert rates._seen == [1, 1]


class Promising:
    """Says the same each time, sure of it."""

    def __init__(self, tokens: list[int], rates: Rates) -> None:
        self.tokens, self.rates, self.place = tokens, rates, 0

    def follow(self, tokens: object, prompt_length: int) -> None:
        self.place = len(tokens)  # type: ignore[arg-type]

    def propose(self, most: int) -> Draft:
        chances = [self.rates.chance(0)] * len(self.tokens)
        return Draft(self.place, self.tokens, [0] * len(self.tokens), chances)


def test_the_drafter_that_promises_most_is_heard_and_unheard_ones_are_judged_too() -> None:
    liar, honest = Promising([9], Rates(1, first_guess=0.9)), Promising([5], Rates(1, first_guess=0.4))
    drafters: list[Drafter] = [liar, honest]
    judged = JobDrafters(drafters)
    tokens = [1]
    assert judged.follow(tokens, 1).tokens == [9]
    for _ in range(12):
        tokens.append(5)
        judged.follow(tokens, 1)
    assert judged.offer.tokens == [5]
    assert liar.rates.chance(0) < 0.4 < honest.rates.chance(0)


def test_without_drafters_nothing_is_offered() -> None:
    assert not job_drafters((), 320, Experience(), [1, 2]).follow([1], 1).tokens


def test_what_is_learned_stays_in_the_tenants_scope(drive: Drive) -> None:
    driver = drive(eos_token_id=9999)
    first = driver.submit("one two three", Sampling(max_tokens=20))
    driver.drain()
    driver.release(first)
    experiences = driver.pipeline._drafting._experiences
    assert experiences.of("local", root_key("local")).ngrams._young
    assert not experiences.of("other", root_key("other")).ngrams._young
    assert not experiences.of("local", root_key("local", "narrow")).ngrams._young


def test_who_leaves_teaches_what_another_offer_would_have() -> None:
    asked, gone = Experience(), Experience()
    for experience in (asked, gone):
        drafters = job_drafters(("copy", "ngrams"), 320, experience, ())
        drafters.follow([1, 2, 3, 4, 1, 2, 3], 4)
        end = [1, 2, 3, 4, 1, 2, 3, 4, 9, 8, 7], 4
        if experience is asked:
            drafters.follow(*end)
        else:
            drafters.leave(*end)
    assert gone.ngrams._young == asked.ngrams._young
    assert gone.copy._chances == asked.copy._chances != Experience().copy._chances
    assert gone.ngrams.rates._chances == asked.ngrams.rates._chances


def test_experience_is_bounded() -> None:
    experiences = Experiences()
    kept = experiences.of("a", b"first")
    for number in range(SCOPES - 1):
        experiences.of("a", bytes([number]))
    assert experiences.of("a", b"first") is kept
    experiences.of("a", b"one more")
    assert len(experiences._known) == SCOPES
    assert experiences.of("a", bytes([0])).ngrams._young == {}


def test_a_tenant_with_many_scopes_forgets_its_own() -> None:
    experiences = Experiences()
    kept = [experiences.of(tenant, b"") for tenant in "bcd"]
    for number in range(2 * SCOPES):
        experiences.of("a", bytes([number]))
    assert [experiences.of(tenant, b"") for tenant in "bcd"] == kept
    assert len(experiences._known) == SCOPES
