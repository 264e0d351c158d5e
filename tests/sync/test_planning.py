"""A plan says what a pass would do, also where that takes two passes."""

from collections.abc import Sequence

import pytest

from hansa.apply.model import Applied
from hansa.apply.sync.engine import Sync
from hansa.apply.sync.model import NO_MANIFESTS, Item, Name
from hansa.apply.sync.planning import plan
from hansa.errors import FieldError
from repository.repos import agent
from sync.plane import Files, Plane


class Asked(Plane):
    """Implements `Planner` too. What another namespace has is refused, for the reason given."""

    refusal = FieldError("metadata.namespace", "conflict", "stands in another namespace")

    def _apply(self, item: Item) -> Applied:
        key = (item.name.kind, item.name.name)
        known = self.objects.get(key)
        if known is not None and known[0].name.namespace != item.name.namespace:
            return Applied(*key, "failed", errors=(self.refusal,))
        return super()._apply(item)

    async def plan(self, commit: str, items: Sequence[Item], deleted: Sequence[Name]) -> list[Applied]:
        before = dict(self.objects)
        outcomes = [*map(self._apply, items), *map(self._delete, deleted)]
        self.objects = before
        return outcomes


@pytest.mark.parametrize("code", ["conflict", "reference"])
async def test_an_object_that_moves_to_another_namespace_is_planned_as_it_is_done(code: str) -> None:
    files, plane = Files(), Asked()
    plane.refusal = FieldError("metadata.namespace", code, "not there")
    files.put(a=agent("a"), b=agent("b"))
    await Sync(files, plane).once()
    files.put(a=agent("a", namespace="acme"))
    planned = await plan(files, plane)
    done = await Sync(files, plane).once()
    assert [(each.name, each.action) for each in planned.outcomes if each.action != "unchanged"] == [
        (each.name, each.action) for each in done.outcomes if each.action != "unchanged"
    ]
    assert ("deleted" in {each.action for each in planned.outcomes}) == (code == "conflict")
    assert planned.waiting == done.waiting


async def test_a_plan_that_keeps_what_stood_in_a_link_fails_as_the_pass_does() -> None:
    files, plane = Files(), Asked()
    files.files |= {"t/a.yaml": agent("a").encode(), "b.yaml": agent("b").encode()}
    await Sync(files, plane).once()
    assert not (await plan(files, plane)).failed
    del files.files["t/a.yaml"]
    files.files["t"] = b"../elsewhere"
    files.links.add("t")
    planned = await plan(files, plane)
    assert (planned.changes, planned.waiting, planned.failed) == ([], ("agent/a is kept while t is a link",), True)


async def test_a_plan_of_files_without_any_object_fails_as_the_pass_does() -> None:
    files, plane = Files(), Asked()
    files.put(a=agent("a"))
    await Sync(files, plane).once()
    files.put(a=None)
    planned, done = await plan(files, plane), await Sync(files, plane).once()
    assert (planned.changes, planned.failed, done.record.state) == ([], True, NO_MANIFESTS)
    assert planned.waiting == (done.record.message,)
