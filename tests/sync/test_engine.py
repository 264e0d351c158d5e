"""A pass: what is sent, what is not, in which order, and what is said of it. Source and control plane are in memory."""

from typing import Any

import pytest

from hansa.apply.repository.failures import Reason
from hansa.apply.sync.engine import Sync
from hansa.apply.sync.model import CONTROL_PLANE_AWAY, DELETION_REFUSED, FAILING, NO_MANIFESTS, REFUSED, SYNCED
from hansa.errors import Forbidden, Invalid, LimitExceeded, Misconfigured, Unavailable
from repository.repos import agent
from sync.plane import GONE, Files, Plane

PROVIDER = (
    "apiVersion: hansa.dev/v1alpha1\nkind: ModelProvider\nmetadata:\n  name: scripted\nspec:\n  plugin: scripted\n  models:\n  - name: m\n"
)
TENANT = "apiVersion: hansa.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: {0}\nspec: {{}}\n"


def many(count: int) -> dict[str, str]:
    return {f"f{number}": agent(f"a{number}") for number in range(count)}


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def sync(files: Files, plane: Plane) -> Sync:
    return Sync(files, plane)


async def test_kinds_are_applied_in_order_and_deleted_against_it(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a") + "---\n" + PROVIDER, keep=agent("keep"))
    report = await sync.once()
    assert (report.record.state, report.record.errors) == (SYNCED, ())
    assert plane.log == ["created modelprovider/scripted", "created agent/a", "created agent/keep"]
    plane.log.clear()
    files.put(a=None)
    assert (await sync.once()).record.state == SYNCED
    assert plane.log == ["deleted agent/a", "deleted modelprovider/scripted"]


async def test_only_what_changed_is_read_and_sent(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(**many(50))
    await sync.once()
    files.reads.clear()
    plane.sent.clear()
    files.put(f7=agent("a7", "Other."), f8=None, f9=None, g9=agent("a9"))
    report = await sync.once()
    assert (sorted(files.reads), sorted(plane.sent), report.read) == (["f7.yaml", "g9.yaml"], ["a7", "a9"], 2)
    assert plane.log[-2:] == ["configured agent/a7", "deleted agent/a8"]
    assert plane.text("a7") == "Other."
    files.reads.clear()
    plane.sent.clear()
    kept = plane.kept
    assert (await sync.once()).record.state == SYNCED
    assert (files.reads, plane.sent, plane.kept) == ([], [], kept)


async def test_a_new_process_sends_only_what_changed_since_the_commit_that_the_control_plane_knows(files: Files, plane: Plane) -> None:
    files.put(**many(30))
    await Sync(files, plane).once()
    plane.sent.clear()
    await Sync(files, plane).once()
    assert plane.sent == []
    files.put(f3=agent("a3", "Other."), f4=None)
    await Sync(files, plane).once()
    assert plane.sent == ["a3"]
    assert "agent/a4" not in plane.names
    # A commit that is known nowhere any more: all of it.
    plane.sent.clear()
    files.history.clear()
    files.put(f5=agent("a5", "Other."))
    await Sync(files, plane).once()
    assert len(plane.sent) == 29


async def test_a_move_between_files_is_no_deletion(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"), b=agent("b"))
    await sync.once()
    plane.log.clear()
    files.put(a=None, c=agent("b") + "---\n" + agent("a"), b=None)
    assert (await sync.once()).record.state == SYNCED
    assert plane.log == []


async def test_a_broken_file_stops_nothing_and_deletes_nothing(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"), b=agent("b"), c=agent("c"), d=agent("d"))
    await sync.once()
    plane.log.clear()
    files.put(a=agent("a", "Other."), b="kind: [Agent\n", d=None)
    report = await sync.once()
    assert report.record.state == FAILING
    assert [(error.file, error.line) for error in report.record.errors] == [("b.yaml", 2)]
    assert plane.log == ["configured agent/a", "deleted agent/d"]
    # Renamed and broken in one commit: what it may still name stays.
    files.put(b=None, c=None, e=agent("c").replace("kind: Agent", "kind: Agnet") + "# b was here\n")
    report = await sync.once()
    assert plane.names == {"agent/a", "agent/b", "agent/c"}
    assert len(report.waiting) == 2
    files.put(e=agent("c"))
    assert (await sync.once()).record.state == SYNCED
    assert plane.names == {"agent/a", "agent/c"}


@pytest.mark.parametrize(
    "broken",
    [
        agent("a").replace("kind: Agent", "kind: Agnet"),
        agent("a").replace("hansa.dev/v1alpha1", "hansa.dev/v1"),
        agent("a").replace("name: a", "name: 'Not A Name'"),
        agent("a").replace("metadata:\n  name: a\n", ""),
        "- a list\n",
        "a: &x [1, *x]\n",
        "a: &a [b, b]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" * 3,
        "\x00\x01binary",
        agent("a") + "---\n: : :\n",
        "%PDF-1.4",
    ],
)
async def test_whatever_breaks_a_file_keeps_what_stood_in_it(files: Files, plane: Plane, sync: Sync, broken: str) -> None:
    files.put(a=agent("a"), b=agent("b"))
    await sync.once()
    files.put(a=broken)
    assert (await sync.once(full=True)).record.state == FAILING
    assert plane.names == {"agent/a", "agent/b"}
    files.put(b=None)
    await sync.once(full=True)
    assert plane.names == {"agent/a", "agent/b"}, "nothing is left that can be understood"


async def test_a_bomb_of_aliases_costs_its_file_alone(files: Files, plane: Plane, sync: Sync) -> None:
    levels = [f"l{number}: &l{number} [{', '.join([f'*l{number - 1}'] * 9)}]" for number in range(1, 12)]
    files.put(bomb="l0: &l0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(levels) + "\n", b=agent("b"))
    report = await sync.once()
    assert [error.code for error in report.record.errors] == ["size"]
    assert plane.names == {"agent/b"}


async def test_an_object_that_is_refused_is_sent_again_at_each_pass_until_it_is_taken(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"), b=agent("b"))
    plane.broken["a"] = "there is no model"
    report = await sync.once()
    assert (report.record.state, plane.names) == (FAILING, {"agent/b"})
    (error,) = report.record.errors
    assert (error.file, error.line, error.message) == ("a.yaml", 6, "there is no model")
    plane.sent.clear()
    await sync.once()
    assert plane.sent == ["a"]
    plane.broken.clear()
    assert (await sync.once()).record.state == SYNCED
    plane.sent.clear()
    await sync.once()
    assert plane.sent == []


async def test_twins_are_told_with_both_places_and_change_nothing(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"))
    await sync.once()
    files.put(b=agent("a", "Other."))
    report = await sync.once()
    assert report.record.state == FAILING
    assert sorted((error.file, error.code) for error in report.record.errors) == [("a.yaml", "twin"), ("b.yaml", "twin")]
    assert plane.text("a") == "Be brief."
    files.put(a=None)
    assert (await sync.once()).record.state == SYNCED
    assert plane.text("a") == "Other."


async def test_what_another_owns_is_neither_changed_nor_deleted(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"), b=agent("b"))
    await sync.once()
    plane.objects["Agent", "a"] = (plane.objects["Agent", "a"][0], "rest")
    files.put(a=agent("a", "Other."))
    assert "rest owns it" in (await sync.once()).record.errors[0].message
    files.put(a=None)
    assert (await sync.once()).record.state == SYNCED
    assert plane.names == {"agent/a", "agent/b"}


async def test_when_something_was_last_applied_is_not_when_it_was_last_looked_at(files: Files, plane: Plane) -> None:
    def told() -> Any:
        assert plane.source is not None
        return plane.source.applied_at, plane.source.seen_at

    files.put(a=agent("a"))
    await Sync(files, plane).once()
    applied, seen = told()
    await Sync(files, plane).once(full=True)
    assert (told()[0], told()[1] > seen) == (applied, True)
    files.put(a=agent("a", "Other."))
    await Sync(files, plane).once()
    assert told()[0] > applied


async def test_an_empty_repository_deletes_nothing(files: Files, plane: Plane) -> None:
    files.put(**many(3))
    await Sync(files, plane).once()
    files.files.clear()
    for sync in (Sync(files, plane), Sync(files, plane, allow_mass_delete=True)):
        for full in (False, True):
            assert (await sync.once(full=full)).record.state == NO_MANIFESTS
    files.put(only="kind: [\n")
    assert (await Sync(files, plane, allow_mass_delete=True).once()).record.state == NO_MANIFESTS
    assert len(plane.names) == 3


async def test_a_repository_that_is_gone_changes_nothing_and_comes_back(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"))
    first = await sync.once()
    files.failure = GONE
    gone = await sync.once()
    assert (gone.record.state, gone.record.commit) == (Reason.GONE, first.record.commit)
    assert plane.source is not None
    assert plane.source.state == Reason.GONE
    files.failure = None
    files.put(a=agent("a", "Other."))
    assert (await sync.once()).record.state == SYNCED
    assert plane.text("a") == "Other."


async def test_whatever_keeps_a_source_from_being_read_is_told(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"))
    await sync.once()
    files.failure = Misconfigured("the password file /etc/git can't be read")
    assert (await sync.once()).record.state == FAILING
    assert plane.source is not None
    assert (plane.source.state, plane.source.message) == (FAILING, files.failure.detail)


async def test_mass_deletion_wants_a_yes_and_the_rest_is_applied(files: Files, plane: Plane) -> None:
    files.put(**many(40))
    sync = Sync(files, plane)
    await sync.once()
    for number in range(13):
        files.put(**{f"f{number}": None})
    files.put(f20=agent("a20", "Other."))
    report = await sync.once()
    assert report.record.state == DELETION_REFUSED
    assert "13 of 40" in report.record.message
    assert (len(plane.names), plane.text("a20")) == (40, "Other.")
    files.put(f0=agent("a0"))
    assert (await sync.once()).record.state == SYNCED
    assert len(plane.names) == 28
    for number in range(1, 21):
        files.put(**{f"f{number}": None})
    assert (await Sync(files, plane).once()).record.state == SYNCED
    files.put(**{f"f{number}": None for number in range(21, 40)})
    assert (await Sync(files, plane).once()).record.state == DELETION_REFUSED
    assert (await Sync(files, plane, allow_mass_delete=True).once()).record.state == SYNCED
    assert plane.names == {"agent/a0"}


async def test_a_renamed_tenant_is_made_and_the_old_one_stays_until_there_is_a_yes(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(tenant=TENANT.format("acme"), bot=agent("bot", namespace="acme"))
    await sync.once()
    files.put(tenant=TENANT.format("emca"), bot=agent("bot2", namespace="emca"))
    report = await sync.once()
    assert (report.record.state, "the Tenant acme would be deleted" in report.record.message) == (DELETION_REFUSED, True)
    assert plane.names == {"tenant/acme", "tenant/emca", "agent/bot", "agent/bot2"}
    assert (await Sync(files, plane, allow_mass_delete=True).once()).record.state == SYNCED
    assert plane.log[-2:] == ["deleted agent/bot", "deleted tenant/acme"]


async def test_an_object_whose_namespace_changed_and_that_is_refused_there_is_not_deleted_here(
    files: Files, plane: Plane, sync: Sync
) -> None:
    files.put(a=agent("a"), b=agent("b"))
    await sync.once()
    plane.broken["a"] = "there is no tenant"
    files.put(a=agent("a", namespace="acme"))
    report = await sync.once()
    assert report.record.state == FAILING
    assert plane.names == {"agent/a", "agent/b"}
    assert report.waiting


@pytest.mark.parametrize(
    ("failure", "state"),
    [(Unavailable("away"), CONTROL_PLANE_AWAY), (Forbidden("no"), REFUSED), (LimitExceeded("later"), CONTROL_PLANE_AWAY)],
)
async def test_a_control_plane_that_is_away_is_no_reason_to_forget(
    files: Files, plane: Plane, sync: Sync, failure: Any, state: str
) -> None:
    files.put(**many(5))
    await sync.once()
    files.put(f1=agent("a1", "Other."), f2=None)
    plane.failure = failure
    assert (await sync.once()).record.state == state
    plane.failure = None
    assert (await sync.once()).record.state == SYNCED
    assert (plane.text("a1"), "agent/a2" in plane.names) == ("Other.", False)


async def test_while_it_can_not_be_said_what_there_is_all_is_applied_and_nothing_deleted(files: Files) -> None:
    """As when the database of one tenant of many is away."""

    class Partly(Plane):
        away = True

        async def owned(self) -> Any:
            if self.away:
                raise Unavailable("the database of tenant 'acme' can't be used")
            return await super().owned()

    plane = Partly()
    sync = Sync(files, plane)
    files.put(a=agent("a"), b=agent("b"))
    await sync.once()
    files.put(a=agent("a", "Other."), b=None)
    report = await sync.once()
    assert (report.record.state, plane.text("a"), "agent/b" in plane.names) == (FAILING, "Other.", True)
    assert plane.source is not None
    assert "acme" in plane.source.message
    plane.away = False
    assert (await sync.once()).record.state == SYNCED
    assert plane.names == {"agent/a"}


async def test_a_request_that_is_refused_whole_is_divided_until_the_culprit_is_alone(files: Files, plane: Plane, sync: Sync) -> None:
    class Picky(Plane):
        async def apply(self, commit: str, items: Any) -> Any:
            if any(item.name.name == "a13" for item in items):
                raise Invalid("a body that nobody takes")
            return await super().apply(commit, items)

    picky = Picky()
    files.put(**many(30))
    report = await Sync(files, picky).once()
    assert (len(picky.names), [error.file for error in report.record.errors]) == (29, ["f13.yaml"])


async def test_a_full_pass_mends_what_others_changed(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"), b=agent("b"))
    await sync.once()
    item, origin = plane.objects["Agent", "a"]
    plane.objects["Agent", "a"] = (type(item)(item.name, {**item.manifest, "spec": {}}, item.file, 1, 1), origin)
    plane.objects["Agent", "stray"] = (type(item)(type(item.name)("Agent", "", "stray"), {}, "gone.yaml", 1, 1), origin)
    await sync.once()
    assert "agent/stray" in plane.names
    assert (await sync.once(full=True)).record.state == SYNCED
    assert (plane.text("a"), plane.names) == ("Be brief.", {"agent/a", "agent/b"})


async def test_what_stood_in_a_folder_that_is_a_link_now_is_kept(files: Files, plane: Plane, sync: Sync) -> None:
    files.files |= {"docs": b"../docs", "t/a.yaml": agent("a").encode(), "tb.yaml": agent("b").encode(), "tc.yaml": agent("c").encode()}
    files.links |= {"docs", "t"}
    assert (await sync.once()).record.state == SYNCED, "a link in whose place nothing stood is nobody's business"
    del files.files["t/a.yaml"], files.files["tc.yaml"]
    files.files["t"] = b"../elsewhere"
    report = await sync.once()
    assert (report.record.state, report.waiting) == (FAILING, ("agent/a is kept while t is a link",))
    assert plane.names == {"agent/a", "agent/b"}
    del files.files["t"]
    assert (await sync.once()).record.state == SYNCED
    assert plane.names == {"agent/b"}


async def test_a_link_is_told_and_holds_up_nothing(files: Files, plane: Plane, sync: Sync) -> None:
    files.put(a=agent("a"), b=agent("b"), c=agent("c"))
    await sync.once()
    files.links.add("c.yaml")
    files.put(b=None, c="somewhere")
    report = await sync.once()
    assert [(error.file, error.code) for error in report.record.errors] == [("c.yaml", "unreadable")]
    assert plane.names == {"agent/a", "agent/c"}
