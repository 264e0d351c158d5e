"""Verbs in an order drawn from a seed, over a tenant that is two (see twin.py); after each of them the rows of both are compared."""

from collections.abc import Awaitable, Callable
from random import Random

from db.scratch import Scratch
from db.verbs import AGENTS, Held, Row
from simulation.rows import FINAL, RunRow
from simulation.twin import Twin, compare

KINDS = ("timer", "child", "approval", "event", "retry")
ENDS = ("completed", "failed", "canceled", "needs_review", "needs_review", "needs_review")
POLICIES = ("Enqueue", "Enqueue", "Reject", "Interrupt", "Rollback")


class Walk:
    """What a tenant, its workers and its people might do, and in which order."""

    def __init__(self, scratch: Scratch, tenant: Twin, random: Random) -> None:
        self._scratch = scratch
        self._tenant = tenant
        self._model = tenant.model
        self._random = random
        self._apart = Random(str(random.getstate()[1][:8]))  # so that what is seldom done does not change the rest of a walk
        self._aside = Random(str(random.getstate()[1][8:16]))
        self._held: list[Held] = []
        self._checks = self._apart.random() < 0.6
        self._verbs: list[tuple[Callable[[], Awaitable[object]], int]] = [
            (self._start, 5),
            (self._start_many, 1),
            (self._claim, 8),
            (self._write, 4),
            (self._write_again, 2),
            (self._park, 8),
            (self._woken_before_it_waits, 3),
            (self._end, 4),
            (self._come, 8),
            (self._fall_due, 2),
            (self._send, 3),
            (self._publish, 1),
            (self._cancel, 3),
            (self._suspend, 5),
            (self._hold, 4),
            (self._resume, 8),
            (self._fork, 1),
            (self._lease, 2),
            (self._change_agent, 4),
            (self._interrupt, 2),
        ]
        if random.random() < 0.4:  # of money there is more to try than of anything else, so not on every walk
            self._verbs += [(self._budget, 4), (self._reserve, 12), (self._settle, 8), (self._hold_for_budget, 5)]
            self._verbs += [(self._dead_spender, 2), (self._nothing_left, 1), (self._short_of_money, 2)]

    async def go(self, steps: int) -> None:
        """So many verbs."""
        for _ in range(steps):
            (verb,) = self._random.choices([verb for verb, _ in self._verbs], [weight for _, weight in self._verbs])
            await verb()
            if self._apart.random() < 0.03:
                await self._suspend_tenant()
            if self._checks and self._apart.random() < 0.15:
                await self._rollout()
            real, model = await self._tenant.rows(self._scratch)
            for name, rows in real.items():
                compare(f"after {verb.__name__}, {name}", rows, model[name])

    def _run(self) -> RunRow | None:
        """One that has not ended, mostly."""
        live = [run for run in self._model.runs.values() if run.state not in FINAL]
        known = live if live and self._random.random() < 0.9 else list(self._model.runs.values())
        return self._random.choice(known) if known else None

    def _claimed(self) -> Held | None:
        """A claim that holds, mostly."""
        good = [held for held in self._held if self._model.owned(held.run, held.epoch)]
        known = good if good and self._random.random() < 0.9 else self._held
        return self._random.choice(known) if known else None

    def _wait(self) -> Row | None:
        waits = list(self._model.waits.values())
        wait = self._random.choice(waits) if waits else None
        return wait and {"run_id": str(wait.run_id), "step": wait.step, "kind": wait.kind, "look_at": wait.look_at}

    async def _start(self) -> None:
        run = self._run()
        if run is not None and self._random.random() < 0.6:
            await self._tenant.start(run.agent, session=run.session_id, within=self._within())
        else:
            agent, priority, later = self._random.choice(AGENTS), self._random.choice((-1, 0, 0, 1)), self._random.random() < 0.3
            await self._tenant.start(agent, priority=priority, later=later, within=self._within())

    def _within(self) -> list[str] | None:
        """The namespaces in which somebody has a say; mostly all. Drawn aside, so that all else goes as it went before."""
        return self._aside.choice((None, None, None, None, None, None, None, None, ["x"], ["x", "y"]))

    async def _start_many(self) -> None:
        await self._tenant.start_many(["b", "a", "b"])

    async def _claim(self) -> None:
        self._held.extend(await self._tenant.claim(self._random.randint(1, 4)))

    async def _write(self) -> None:
        held = self._claimed()
        if held is not None:
            await self._tenant.write((held, None, self._random.choice((None, "timer", "timer", "child", "approval", "event"))))

    async def _write_again(self) -> None:
        """Its answer was lost."""
        held = self._claimed()
        if held is not None and held.writes:
            number = held.writes
            held.writes -= 1
            await self._tenant.write((held, self._random.choice((None, "waiting", "completed")), None))
            held.writes = number

    async def _park(self) -> None:
        held = self._claimed()
        if held is not None:
            if self._random.random() < 0.3:  # one branch sleeps, another waits for something else
                await self._tenant.write((held, None, "timer"))
            kind = None if self._model.waits_of(held.run) and self._random.random() < 0.5 else self._random.choice(KINDS)
            await self._tenant.write((held, "waiting", kind))

    async def _woken_before_it_waits(self) -> None:
        held = self._claimed()
        if held is not None:
            await self._tenant.write((held, None, self._random.choice(("timer", "child", "event", "approval"))))
            for wait in self._model.waits_of(held.run):
                await self._tenant.come({"run_id": str(held.run), "step": wait.step, "kind": wait.kind})
            await self._tenant.write((held, "waiting", self._random.choice(KINDS)))

    async def _end(self) -> None:
        many = {held.run: held for held in (self._claimed() for _ in range(self._random.randint(1, 3))) if held is not None}
        if many:
            await self._tenant.write(*((held, self._random.choice(ENDS), None) for held in many.values()))

    async def _come(self) -> None:
        wait, run = self._wait(), self._run()
        if run is not None and self._random.random() < 0.1:
            wait = {"run_id": str(run.id), "step": "nowhere", "kind": "child"}
        if wait is not None:
            await self._tenant.come(wait)

    async def _fall_due(self) -> None:
        wait = self._wait()
        if wait is not None and wait["look_at"] is not None:
            await self._tenant.falls_due(self._scratch, wait)

    async def _send(self) -> None:
        run = self._run()
        if run is not None:
            await self._tenant.send(run.session_id)

    async def _publish(self) -> None:
        await self._tenant.publish(self._within())

    async def _cancel(self) -> None:
        run = self._run()
        if run is not None:
            await self._tenant.of_run("cancel", run.id)

    async def _suspend(self) -> None:
        run = self._run()
        if run is not None:
            await self._tenant.of_run("suspend", run.id)

    async def _hold(self) -> None:
        """Somebody wants it, or nobody does any more."""
        held = self._claimed()
        if held is not None:
            for verb in self._random.choice(([], ["agent"], ["suspend"], ["suspend", "cancel"])):
                if verb == "agent":
                    await self._tenant.agent(self._model.runs[held.run].agent, suspended=True)
                else:
                    await self._tenant.of_run(verb, held.run)
            await self._tenant.of_run("hold", held.run, held.epoch)

    async def _resume(self) -> None:
        stopped = [run for run in self._model.runs.values() if run.state in ("suspended", "needs_review") or run.suspend_requested_at]
        run = self._random.choice(stopped) if stopped and self._random.random() < 0.9 else self._run()
        if run is not None:
            usual = None if run.state != "needs_review" else self._random.choice(("done", "retry", "fail"))
            await self._tenant.resume(
                run.id, usual if self._random.random() < 0.9 else self._random.choice((None, "done", "retry", "fail"))
            )

    async def _fork(self) -> None:
        run = self._run()
        if run is not None:
            await self._tenant.fork(run.id, run.queued_seq + self._random.randint(0, 8))

    async def _lease(self) -> None:
        draw = self._random.random()
        if draw < 0.4:
            await self._tenant.leases_run_out()
        elif draw < 0.6:
            await self._tenant.release(self._held[-3:])
        else:
            await self._tenant.renew(self._held)

    async def _budget(self) -> None:
        amount, tokens = self._random.choice((None, 20, 30, 50, 1000)), self._random.choice((None, None, 60, 1000))
        on_limit = self._random.choice(("suspend", "suspend", "reject"))
        await self._tenant.budget(amount, on_limit=on_limit, charges=self._random.random() < 0.7, tokens=tokens)

    async def _reserve(self) -> None:
        """Calls of several runs at once, some of them again."""
        many = {held.run: held for held in (self._claimed() for _ in range(self._random.randint(1, 3))) if held is not None}
        asks = [
            self._tenant.ask(
                held,
                self._random.choice("12"),
                input_tokens=self._random.choice((0, 3, 10)),
                output_price=self._random.choice((0.0, 0.5, 0.5, 1.0)),
                lost_cost=self._random.choice((0, 0, 5)),
                lost_tokens=self._random.choice((0, 0, 5)),
                last=self._random.random() < 0.6,
            )
            for held in many.values()
        ]
        if asks:
            await self._tenant.reserve(*asks)

    async def _settle(self) -> None:
        """Calls have been answered, or not, or nobody had reserved anything for them; perhaps the run ends with that."""
        many = {held.run: held for held in (self._claimed() for _ in range(self._random.randint(1, 2))) if held is not None}
        spends: list[Row] = []
        for held in many.values():
            spend: Row = {
                "run": str(held.run),
                "step": self._random.choice("12"),
                "agent": "a",
                "model": self._random.choice(("p/m", "p/n")),
            }
            counts = ("calls", "input_tokens", "output_tokens", "cost", "lost_calls", "lost_tokens", "lost_cost")
            spends.append(spend | {name: self._random.choice((0, 1, 7)) for name in counts})
        if many:
            state = self._random.choice((None, None, None, "completed"))
            await self._tenant.write(*((held, state, None) for held in many.values()), spends=spends)

    async def _dead_spender(self) -> None:
        """One that has reserved sleeps through its lease, and another one wants more than there is."""
        dead, alive = self._claimed(), self._claimed()
        if dead is not None and alive is not None and dead.run != alive.run:
            await self._tenant.budget(1000)
            await self._tenant.reserve(self._tenant.ask(dead, "1"))
            await self._tenant.leases_run_out()
            await self._tenant.reserve(self._tenant.ask(alive, "1", output_tokens=10_000, least=10_000))

    async def _short_of_money(self) -> None:
        """What is left while another one's call is under way is too little for a whole answer: one waits for it, or takes less."""
        await self._tenant.start_many(["b", "a", "b"])
        await self._claim()
        owned = {held.run: held for held in self._held if self._model.owned(held.run, held.epoch)}
        if len(owned) > 1:
            first, second = self._random.sample(list(owned.values()), 2)
            budget = self._model.budget
            await self._tenant.budget(17 if budget is None else budget.spent + budget.reserved + 17)
            await self._tenant.reserve(self._tenant.ask(first, "1"))
            await self._tenant.reserve(self._tenant.ask(second, "1", last=False))
            await self._tenant.reserve(self._tenant.ask(second, "1"))

    async def _nothing_left(self) -> None:
        budget = self._model.budget
        if budget is not None:
            await self._tenant.budget(budget.spent)
            await self._start()
            await self._tenant.start_many(["b"])
            await self._budget()

    async def _hold_for_budget(self) -> None:
        """Nothing was left for it; perhaps there is by now, or somebody wants something else of it."""
        held, budget = self._claimed(), self._model.budget
        if held is not None and budget is not None:
            for verb in self._random.choice(([], [], [], ["suspend"], ["cancel"])):
                await self._tenant.of_run(verb, held.run)
            await self._tenant.hold_for_budget(held, budget.version - self._random.choice((0, 0, 1)))

    async def _change_agent(self) -> None:
        name, draw = self._random.choice(AGENTS), self._random.random()
        if draw < 0.1:
            await self._tenant.app("SELECT hansa.agent_deleted($1, $2)", name)
        bound, policy = self._random.choice((None, 1, 1, 2, 3)), self._random.choice(POLICIES)
        await self._tenant.agent(name, bound=bound, suspended=draw > 0.8, concurrency=policy)
        await self._tenant.place(name, self._aside.choice(("x", "x", "y")))

    async def _interrupt(self) -> None:
        """A session that is busy is given something newer to do, which matters more."""
        state = self._random.choice(("running", "waiting"))
        busy = [run for run in self._model.runs.values() if run.state == state]
        if busy:
            run = self._random.choice(busy)
            await self._tenant.agent(run.agent, concurrency=self._random.choice(("Interrupt", "Interrupt", "Rollback")))
            await self._tenant.start(run.agent, session=run.session_id)

    async def _revise(self, name: str, revision: int, digest: bytes) -> None:
        insert = "INSERT INTO hansa.agent_revisions (tenant_id, agent, revision, digest, manifest) VALUES ($1, $2, $3, '', '{}')"
        await self._scratch.execute(f"{insert} ON CONFLICT DO NOTHING", self._tenant.id, name, revision)
        await self._tenant.rollout(name, revision, digest, bound=self._apart.choice((None, None, 1)))

    async def _rollout(self) -> None:
        """A revision is applied, its check begins, ends, is looked at, is tried again; or somebody meddles with it."""
        name, rollouts = self._apart.choice(AGENTS), list(self._model.rollouts.values())
        begun = [each for each in rollouts if each.state == "checking"]
        ways = ("apply", "apply", "apply", "begin", "begin", "begin", "end", "end", "end", "end", "again", "due", "speak", "name", "delete")
        match self._apart.choice(ways):
            case "apply":
                revision = 2 + sum(each.agent == name for each in rollouts) - (self._apart.random() < 0.1)
                digest = self._apart.choice([b"1", b"2", *(each.digest for each in rollouts if each.state == "served")])
                await self._revise(name, revision, digest)
            case "begin" if rollouts:
                each = self._apart.choice(begun or rollouts)
                if each.smoke_run is not None:
                    await self._tenant.check(each.agent, each.revision, each.smoke_run)
            case "end":
                smoke = {each.smoke_run for each in rollouts}
                self._held.extend(await self._tenant.claim(4))
                held = [each for each in self._held if each.run in smoke and self._model.owned(each.run, each.epoch)]
                if held:
                    await self._tenant.write((self._apart.choice(held), self._apart.choice(("completed", "completed", "failed")), None))
            case "again":
                await self._tenant.check_again(name)
            case "due":
                waits = [wait for wait in self._model.waits.values() if wait.kind == "rollout"]
                if waits:
                    wait = self._apart.choice(waits)
                    await self._tenant.come({"run_id": str(wait.run_id), "step": wait.step, "kind": wait.kind})
            case "speak":
                for session in [session for session in self._model.sessions.values() if session.smoke][:1]:
                    await self._tenant.start(session.agent, session=session.id)
                    await self._tenant.fork(session.runs[0].id, 1)
            case "name" if rollouts:
                each = self._apart.choice(rollouts)
                await self._tenant.start(each.agent, revision=each.revision)
                await self._tenant.start(each.agent, revision=99)
            case "delete":
                await self._tenant.app("SELECT hansa.agent_deleted($1, $2)", name)
                await self._revise(name, 90 + len(rollouts), b"9")
                await self._tenant.start(name)
            case _:
                pass

    async def _suspend_tenant(self) -> None:
        """For a moment: a run is refused, one may be held and be let go on by nobody, and then all goes on."""
        await self._tenant.suspend(suspended=True)
        await self._tenant.start("a")
        owned = [held for held in self._held if self._model.owned(held.run, held.epoch)]
        if owned:
            held = self._apart.choice(owned)
            await self._tenant.renew([held])
            await self._tenant.of_run("hold", held.run, held.epoch)
            await self._tenant.resume(held.run, None)
        await self._tenant.suspend(suspended=False)
