"""No block is leaked, written while shared, or lost, whatever happens in whatever order."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.kv_cache import BLOCK, BlockPool, BlockTable, blocks_for
from pipelines.text.prefix_index import PrefixIndex, root_key
from pipelines.text.state import TextState
from pipelines.text.stream import TextStream

BLOCKS = 24
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["admit", "append", "abandon", "crop", "fork", "free", "publish", "adopt", "shrink"]),
        st.integers(0, 7),
        st.integers(0, 70),
    ),
    max_size=60,
)


class Simulation:
    """Tables over one pool, with the content of every slot and of every table as it should be."""

    def __init__(self) -> None:
        from pipelines.messages import Sampling

        self.pool = BlockPool(BLOCKS)
        self.index = PrefixIndex(self.pool)
        self.memory = [-1] * (BLOCKS * BLOCK)
        self.states: list[TextState] = []
        self.sampling = Sampling()

    def copy(self, source: int, target: int) -> None:
        for i in range(BLOCK):
            self.memory[target * BLOCK + i] = self.memory[source * BLOCK + i]

    def add(self, table: BlockTable, tokens: list[int]) -> None:
        state = TextState(self.sampling, table, TextStream(()), [root_key("a")])
        state.tokens = tokens
        self.states.append(state)

    def do(self, kind: str, which: int, amount: int) -> None:
        if kind == "admit":
            self.add(BlockTable(self.pool), [])
        elif kind == "shrink":
            expected = min(amount, self.index.idle())
            assert self.index.shrink(amount) == expected
        elif self.states:
            getattr(self, kind)(self.states[which % len(self.states)], amount)

    def append(self, state: TextState, amount: int) -> None:
        before = state.table.missing(amount)
        if not state.table.reserve(amount, self.copy):
            assert before > self.pool.free
            return
        start = state.table.length
        # Few distinct texts, so that chains of different jobs meet.
        state.tokens = [*state.tokens[:start], *(place % 3 for place in range(start, start + amount))]
        for place, slot in enumerate(slots(state.table, start, start + amount), start):
            assert self.pool.count(slot // BLOCK) == 1, "a shared block is written"
            self.memory[slot] = state.tokens[place]
        state.table.append(amount)

    def abandon(self, state: TextState, amount: int) -> None:
        """A slice that was closed after it had written."""
        if state.table.reserve(amount, self.copy):
            for slot in slots(state.table, state.table.length, state.table.length + amount):
                self.memory[slot] = -2

    def crop(self, state: TextState, amount: int) -> None:
        state.table.crop(min(amount, state.table.length))
        del state.keys[1 + state.table.length // BLOCK :]
        del state.tokens[state.table.length :]

    def fork(self, state: TextState, _: int) -> None:
        self.add(state.table.fork(), list(state.tokens))

    def free(self, state: TextState, _: int) -> None:
        state.table.free()
        self.states.remove(state)

    def publish(self, state: TextState, _: int) -> None:
        state.publish(self.index, state.table.length)

    def adopt(self, state: TextState, amount: int) -> None:
        state.tokens = [
            *state.tokens,
            *(place % 3 for place in range(len(state.tokens), len(state.tokens) + amount)),
        ]
        state.adopt(self.index)
        del state.tokens[state.table.length :]

    def check(self) -> None:
        held = [0] * BLOCKS
        for state in self.states:
            table = state.table
            assert [self.memory[slot] for slot in slots(table, 0, table.length)] == state.tokens[
                : table.length
            ]
            assert len(table.blocks) >= blocks_for(table.length)
            for block in table.blocks:
                held[block] += 1
        for block in self.index._blocks.values():
            held[block] += 1
        assert self.index._held == set(self.index._blocks.values())
        assert held == [self.pool.count(block) for block in range(BLOCKS)]
        assert self.pool.free == held.count(0)
        assert self.pool.tables == {state.table for state in self.states if state.table.blocks}


def slots(table: BlockTable, start: int, end: int) -> list[int]:
    places = table.places(start, end)
    if isinstance(places, torch.Tensor):
        numbers: list[int] = places.tolist()
        return numbers
    return list(range(places.start, places.stop))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(steps)
def test_random_histories(history: list[Step]) -> None:
    simulation = Simulation()
    for step in history:
        simulation.do(*step)
        simulation.check()
    for state in list(simulation.states):
        simulation.free(state, 0)
    simulation.index.shrink(BLOCKS)
    assert simulation.pool.free == BLOCKS and not simulation.pool.tables


def test_tables_lie_in_one_piece_and_have_room_to_grow() -> None:
    pool = BlockPool(64)
    tables = [BlockTable(pool) for _ in range(4)]
    for _ in range(8):
        for table in tables:
            assert table.reserve(BLOCK, lambda source, target: None)
            table.append(BLOCK)
    assert all(isinstance(table.places(0, table.length), slice) for table in tables)


def test_reserving_is_all_or_nothing() -> None:
    pool = BlockPool(4)
    table = BlockTable(pool)
    assert not table.reserve(5 * BLOCK, lambda source, target: None)
    assert pool.free == 4
    assert table.blocks == ()


def test_prefixes_are_found_by_recency_and_never_across_tenants() -> None:
    pool = BlockPool(8)
    index = PrefixIndex(pool)
    tokens = list(range(3 * BLOCK))
    chain = [(key, block) for block, key in zip(pool.take(3), keys("a", tokens), strict=True)]
    index.publish(chain)
    assert index.match(root_key("a"), tokens) == chain
    assert index.match(root_key("a"), tokens[: 2 * BLOCK + 5]) == chain[:2]
    assert index.match(root_key("b"), tokens) == []
    assert index.match(root_key("a", "mine"), tokens) == []
    for _, block in chain:
        pool.drop(block)
    assert index.shrink(1) == 1
    assert index.match(root_key("a"), tokens) == chain[:2], "the chain's end goes first"


def test_a_full_pool_is_not_searched_again_until_somebody_lets_go() -> None:
    class Counting(BlockPool):
        asked = 0

        def count(self, block: int) -> int:
            self.asked += 1
            return BlockPool.count(self, block)

    pool = Counting(8)
    index = PrefixIndex(pool)
    blocks = pool.take(8)
    index.publish(list(zip(keys("a", list(range(8 * BLOCK))), blocks, strict=True)))
    assert index.shrink(1) == 0
    pool.drop(blocks[3])
    assert index.shrink(2) == 1 and pool.free == 1
    pool.asked = 0
    assert index.shrink(0) == index.shrink(-3) == index.shrink(1) == 0 and pool.asked == 0
    pool.drop(blocks[7])
    assert index.shrink(1) == 1 and pool.asked == 1, "nor beyond what was asked for"


def keys(tenant: str, tokens: list[int]) -> list[bytes]:
    from pipelines.text.prefix_index import next_key

    found, key = [], root_key(tenant)
    for start in range(0, len(tokens), BLOCK):
        key = next_key(key, tokens[start : start + BLOCK])
        found.append(key)
    return found
