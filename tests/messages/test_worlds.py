"""The rules of messages in thousands of worlds: relays, receivers and NATS fail in every order that a seed gives.

NATS may lose all, deliver twice, late and in any order, and swallow acknowledgements; a receiver may die in its transaction. Time
is a number. Each control breaks one rule, and must be caught by the same oracle.
"""

import random
from uuid import UUID

import pytest

from messages.post import A, faults
from messages.twin import Outbox, Row, State

SEEDS = 2000
PATIENCE = 5.0


class World:
    """One world. `control` names the rule that is broken: lazyack, nokey, noinbox or none."""

    def __init__(self, seed: int, control: str = "") -> None:
        self.chance = random.Random(seed)
        self.control = control
        self.outbox = Outbox()
        self.now = 0.0
        self.wire: list[int] = []
        self.open: list[Row] = []
        self.seen: list[int] = []
        self.sent: dict[int, str | None] = {}

    def send(self) -> None:
        name = len(self.sent) + 1
        promised = self.chance.choice([None, "a", "b"])
        key = None if self.control == "nokey" else promised
        self.outbox.put(name, key)
        self.sent[name] = promised
        if self.chance.random() < 0.1:
            self.outbox.put(name, key)  # a sender that tries again

    def relay(self) -> None:
        rows, _ = self.outbox.claim(self.now, limit=self.chance.choice([1, 10]), window=8)
        for row in rows:
            if self.chance.random() < 0.1:
                continue  # NATS is away, or this relay dies here
            self.wire.append(row.name)
            if self.chance.random() < 0.9:
                self.outbox.sent(row, self.now, PATIENCE)
                if self.control == "lazyack":
                    row.state = State.DELIVERED

    def pull(self) -> None:
        if self.wire:
            index = self.chance.randrange(len(self.wire))
            self.receive(self.wire[index] if self.chance.random() < 0.3 else self.wire.pop(index))  # some come again

    def receive(self, name: int) -> None:
        if self.control in ("lazyack", "noinbox"):  # works from what NATS brings alone
            if self.control == "noinbox" or name not in self.outbox.handled:
                self.outbox.handled.add(name)
                self.seen.append(name)
            for row in self.outbox.rows:
                if row.name == name and row.state is State.FLIGHT:
                    row.state = State.DELIVERED
            return
        row = self.outbox.begin(name)
        if not isinstance(row, str):
            self.open.append(row)

    def end(self) -> None:
        if self.open:
            row = self.open.pop(self.chance.randrange(len(self.open)))
            if self.chance.random() < 0.3:
                row.locked = False  # rolled back: it failed, or died
            elif self.outbox.commit(row):
                self.seen.append(row.name)

    def live(self) -> list[str]:
        """Thirty messages through a bad time and then a good one; what is wrong at the end."""
        while len(self.sent) < 30:
            getattr(self, self.chance.choice(["send", "send", "relay", "relay", "pull", "pull", "pull", "end", "end", "pass_time"]))()
            if self.chance.random() < 0.02:
                self.wire.clear()  # NATS has lost its disk
        for _ in range(2000):
            if not self.wire and not self.open and not [row for row in self.outbox.rows if row.state is not State.DELIVERED]:
                break
            for step in (self.relay, self.pull, self.pull, self.end, self.end, self.pass_time):
                step()
        return self.verdict()

    def pass_time(self) -> None:
        self.now += self.chance.choice([0.1, 1.0, 30.0])

    def verdict(self) -> list[str]:
        sent = {UUID(int=name): (A, key, name) for name, key in self.sent.items()}
        return faults(sent, [{"tenant_id": A, "id": UUID(int=name), "key": self.sent[name], "n": name} for name in self.seen])


@pytest.mark.timeout(60)
def test_in_every_world_each_message_is_received_once_and_in_order() -> None:
    wrong = {seed: found for seed in range(SEEDS) if (found := World(seed).live())}
    assert wrong == {}


@pytest.mark.parametrize(("control", "kind"), [("lazyack", "lost"), ("nokey", "reordered"), ("noinbox", "doubled")])
def test_a_broken_rule_is_caught(control: str, kind: str) -> None:
    found = [told.split(":")[0] for seed in range(100) for told in World(seed, control).live()]
    assert kind in found
