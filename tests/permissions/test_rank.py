"""Qui est au-dessus de qui : ce qu'un moindre administrateur ne fait à aucun plus haut que lui, par aucun chemin."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from fastapi_acl import ACLConfig, ACLManager, PolicyChange, PolicyRule
from fastapi_acl.shared.exceptions import ConflictError, EscalationRefusedError
from fastapi_acl.shared.identity import SYSTEM, Principal
from tests.support.app import Client, config, protected, serve

RULES = "/api/v1/admin/permissions/rules"
USERS = "/api/v1/admin/auth/users"
EVERYTHING = ("p", "role:admin", "*", "*", "allow")


async def rules_of(client: Client) -> set[PolicyRule]:
    return set(client.manager.get_policy().rules)


async def system(client: Client, *added: tuple[str, ...], removed: tuple[tuple[str, ...], ...] = ()) -> None:
    """Écrit comme la ligne de commande le ferait."""
    change = PolicyChange(*(tuple(PolicyRule(rule[0], rule[1:]) for rule in rules) for rules in (added, removed)))
    await client.manager.get_policy_store().change(change, SYSTEM)


async def replace(client: Client, old: tuple[str, ...], new: tuple[str, ...]) -> httpx.Response:
    shown = [{"ptype": rule[0], "values": list(rule[1:])} for rule in (old, new)]
    return await client.put(RULES, json={"old": shown[0], "new": shown[1]})


def outcome(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "") if answer.content else ""


REFUSED = (403, "escalation_refused")
Attack = Callable[[Client, str], Awaitable[httpx.Response]]

ATTACKS: dict[str, Attack] = {
    "son accord": lambda ada, _: ada.remove_rules(EVERYTHING),
    "son lien": lambda ada, root: ada.remove_rules(("g", root, "role:admin")),
    "son accord, remplacé": lambda ada, _: replace(ada, EVERYTHING, ("p", "role:admin", "acl.rules", "write", "allow")),
    "un refus sur lui": lambda ada, root: ada.add_rules(("p", root, "acl.rules", "write", "deny")),
    "un refus sur son rôle": lambda ada, _: ada.add_rules(("p", "role:admin", "acl.rules", "write", "deny")),
    "un refus d'autre chose": lambda ada, _: ada.add_rules(("p", "role:admin", "document", "read", "deny")),
    "un refus de tout": lambda ada, root: ada.add_rules(("p", root, "*", "*", "deny")),
    "un rôle qui refuse": lambda ada, root: ada.add_rules(("g", root, "role:banned")),
    "un rôle qui refuse, au-dessus du sien": lambda ada, _: ada.add_rules(("g", "role:admin", "role:banned")),
    "un refus sur un rôle qu'il tient aussi": lambda ada, _: ada.add_rules(("p", "role:staff", "*", "*", "deny")),
    "la désactivation": lambda ada, root: ada.put(f"{USERS}/{root[5:]}/deactivate"),
    "la suppression": lambda ada, root: ada.delete(f"{USERS}/{root[5:]}"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_no_lesser_administrator_lowers_the_highest(sqlite_uri: str, attack: Attack) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        mine = [(resource, action) for resource in ("acl.rules", "acl.users") for action in ("read", "write")]
        await admin.add_rules(
            *[("p", f"user:{ada.id}", *pair, "allow") for pair in mine],
            ("p", "role:banned", "acl.rules", "write", "deny"),
            ("p", "role:staff", "document", "read", "allow"),
            ("g", f"user:{admin.id}", "role:staff"),
        )
        before = await rules_of(visitor)

        answer = await attack(ada, f"user:{admin.id}")

        assert outcome(answer) == REFUSED
        assert await rules_of(visitor) == before
        assert (await admin.get(RULES)).status_code == 200


class Given:
    """Un Authenticator de l'application : le jeton est l'identifiant de qui appelle."""

    async def authenticate(self, token: str) -> Principal:
        return Principal(id=token)


async def test_the_last_administrator_of_foreign_accounts_is_sought_among_them(sqlite_uri: str) -> None:
    app = FastAPI()
    settings = config(sqlite_uri=sqlite_uri, create_default_admin=False)
    manager = ACLManager(settings, app=app, authenticator=Given())
    async with serve(app, manager) as visitor:
        links = [("g", f"user:{name}", "role:admin") for name in ("ada", "bob")]
        await system(visitor, EVERYTHING, *links)
        ada = Client(visitor.http, manager, "ada")

        removed = [outcome(await ada.remove_rules(link)) for link in reversed(links)]

    assert removed == [(200, ""), (409, "last_administrator")]


async def test_a_lesser_administrator_serves_those_below(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, bob, admin = await visitor.newcomer("ada"), await visitor.newcomer("bob"), await visitor.admin()
        await admin.add_rules(
            ("p", f"user:{ada.id}", "acl.rules", "write", "allow"),
            ("p", f"user:{ada.id}", "acl.users", "write", "allow"),
            ("p", "role:staff", "document", "read", "allow"),
            ("g", f"user:{bob.id}", "role:staff"),
            ("g", f"user:{admin.id}", "role:staff"),
        )

        answers = [
            await ada.remove_rules(("g", f"user:{bob.id}", "role:staff")),
            await ada.add_rules(("p", f"user:{bob.id}", "document", "read", "deny")),
            await ada.remove_rules(
                ("p", "role:staff", "document", "read", "allow"), ("g", f"user:{admin.id}", "role:staff")
            ),
            await ada.put(f"{USERS}/{bob.id}/deactivate"),
            await ada.delete(f"{USERS}/{bob.id}"),
        ]

    assert [answer.status_code for answer in answers] == [200, 201, 200, 200, 204]


async def test_an_equal_does_not_deny_an_equal_the_means_to_administer(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        peer, admin = await visitor.newcomer("peer"), await visitor.admin()
        await admin.add_rules(("g", f"user:{peer.id}", "role:admin"))

        answers = [
            await peer.add_rules(("p", f"user:{admin.id}", "acl.users", "write", "deny")),
            await peer.add_rules(("p", f"user:{admin.id}", "*", "read", "deny")),
            await peer.add_rules(("p", f"user:{peer.id}", "acl.rules", "write", "deny")),
            await peer.add_rules(("p", "role:x", "acl.rules", "*", "deny"), ("g", f"user:{admin.id}", "role:x")),
        ]
        await system(visitor, ("p", f"user:{admin.id}", "acl.users", "write", "deny"))

    assert set(map(outcome, answers)) == {REFUSED}


async def test_a_whole_policy_does_not_deny_an_equal_the_means_to_administer(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        peer, admin = await visitor.newcomer("peer"), await visitor.admin()
        await admin.add_rules(("g", f"user:{peer.id}", "role:admin"))
        transfer, actor = visitor.manager.get_policy_transfer(), Principal(id=str(peer.id))
        kept = "".join([part async for part in transfer.export_rules("csv")])
        denied = f"{kept}p,user:{admin.id},acl.users,write,deny\n"

        with pytest.raises(EscalationRefusedError):
            await transfer.import_rules(io.StringIO(denied, newline=""), "csv", replaces=True, actor=actor)
        again = await transfer.import_rules(io.StringIO(kept, newline=""), "csv", replaces=True, actor=actor)

    assert again.read == len(kept.splitlines())


async def test_who_holds_everything_lifts_a_deny_laid_on_him(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        peer, admin = await visitor.newcomer("peer"), await visitor.admin()
        await admin.add_rules(("g", f"user:{peer.id}", "role:admin"))
        laid = ("p", "role:admin", "document", "read", "deny")
        assert (await peer.add_rules(laid)).status_code == 201
        assert (await admin.get("/documents")).status_code == 403

        lifted = await admin.remove_rules(laid)

        assert lifted.status_code == 200
        assert (await admin.get("/documents")).status_code == 200


async def test_a_higher_administrator_denies_a_lower_one(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        await admin.add_rules(("p", f"user:{ada.id}", "acl.users", "write", "allow"))

        laid = await admin.add_rules(("p", f"user:{ada.id}", "acl.users", "write", "deny"))

        assert laid.status_code == 201
        assert (await ada.delete(f"{USERS}/{ada.id}")).status_code == 403


async def test_the_last_to_hold_everything_does_not_leave_to_a_lesser_one(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        await admin.add_rules(("p", f"user:{ada.id}", "acl.rules", "write", "allow"))

        answers = [
            await admin.remove_rules(("g", f"user:{admin.id}", "role:admin")),
            await admin.remove_rules(EVERYTHING),
            await admin.put(f"{USERS}/{admin.id}/deactivate"),
            await admin.delete(f"{USERS}/{admin.id}"),
        ]

    assert set(map(outcome, answers)) == {(409, "last_administrator")}


async def test_without_anyone_who_holds_everything_the_last_writer_of_rules_stays(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        mine = ("p", f"user:{ada.id}", "acl.rules", "write", "allow")
        await system(visitor, mine, ("p", f"user:{ada.id}", "acl.users", "write", "allow"), removed=(EVERYTHING,))

        answers = [await ada.remove_rules(mine), await ada.delete(f"{USERS}/{ada.id}")]
        other = await ada.delete(f"{USERS}/{admin.id}")

    assert set(map(outcome, answers)) == {(409, "last_administrator")}
    assert other.status_code == 204


async def test_the_command_line_is_above_everyone(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        admin = await visitor.admin()
        deny = ("p", "role:admin", "acl.rules", "write", "deny")

        await system(visitor, deny)
        refused = await admin.add_rules(("p", "role:x", "document", "read", "allow"))
        await system(visitor, removed=(deny,))

        assert refused.status_code == 403
        assert (await admin.add_rules(("p", "role:x", "document", "read", "allow"))).status_code == 201


# --- modèle de routes ---


async def test_a_manager_of_accounts_by_routes_does_not_touch_the_highest(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rest") as visitor:
        desk, plain, admin = [await visitor.newcomer(name) for name in ("desk", "plain")] + [await visitor.admin()]
        for template, method in ((f"{USERS}/{{user_id}}", "DELETE"), (f"{USERS}/{{user_id}}/deactivate", "PUT")):
            assert (await admin.add_rules(("p", f"user:{desk.id}", template, method, "allow"))).status_code == 201

        high = [await desk.put(f"{USERS}/{admin.id}/deactivate"), await desk.delete(f"{USERS}/{admin.id}")]
        low = [await desk.put(f"{USERS}/{plain.id}/deactivate"), await desk.delete(f"{USERS}/{plain.id}")]

    assert set(map(outcome, high)) == {REFUSED}
    assert [answer.status_code for answer in low] == [200, 204]


async def test_a_writer_by_routes_does_not_deny_the_highest_his_routes(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rest") as visitor:
        ada, peer, admin = [await visitor.newcomer(name) for name in ("ada", "peer")] + [await visitor.admin()]
        await admin.add_rules(
            ("p", f"user:{ada.id}", RULES, "POST", "allow"),
            ("p", f"user:{ada.id}", RULES, "DELETE", "allow"),
            ("g", f"user:{peer.id}", "role:admin"),
        )

        answers = [
            await ada.remove_rules(EVERYTHING),
            await ada.add_rules(("p", f"user:{admin.id}", RULES, "POST", "deny")),
            await peer.add_rules(("p", f"user:{admin.id}", RULES, "DELETE", "deny")),
        ]

    assert set(map(outcome, answers)) == {REFUSED}


async def test_a_writer_by_routes_whose_right_left_on_another_process_writes_no_more(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rest") as visitor:
        ada, store = await visitor.newcomer("ada"), visitor.manager.get_policy_store()
        actor = Principal(id=ada.id, asked=(RULES, "POST"))
        mine = ("p", f"user:{ada.id}", RULES, "POST", "allow")
        await system(visitor, mine)
        wanted = PolicyChange(added=(PolicyRule("p", ("role:x", RULES, "POST", "allow")),))
        await store.change(wanted, actor)

        await system(visitor, removed=(mine,))

        with pytest.raises(Exception, match="permission"):
            await store.change(PolicyChange(removed=wanted.added), actor)


async def test_a_route_asks_again_for_itself_under_the_lock(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rest") as visitor:
        ada = await visitor.newcomer("ada")
        await system(visitor, ("p", f"user:{ada.id}", RULES, "POST", "allow"), ("p", "role:x", RULES, "POST", "allow"))

        added = await ada.add_rules(("p", "role:y", RULES, "POST", "allow"))
        removed = await ada.remove_rules(("p", "role:x", RULES, "POST", "allow"))

    assert (added.status_code, removed.status_code) == (201, 403)


async def test_administrators_who_hold_only_routes_remove_rules(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri, model="rest") as visitor:
        ada = await visitor.newcomer("ada")
        routes = [("p", f"user:{ada.id}", RULES, method, "allow") for method in ("POST", "PUT", "DELETE")]
        await system(visitor, *routes, ("p", "role:x", RULES, "POST", "allow"), removed=(EVERYTHING,))

        removed = await ada.remove_rules(("p", "role:x", RULES, "POST", "allow"))
        last = await ada.remove_rules(routes[0])

    assert removed.status_code == 200
    assert outcome(last) == (409, "last_administrator")


# --- modèles qui ne se comparent pas ---

HEAD = """[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = {fields}
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = {matcher} && aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)
"""
NOT_COMPARED = {
    "un domaine constant": ("sub, dom, obj, act, eft", 'g(r.sub, p.sub, "*") && aclMatch(r.dom, p.dom)'),
    "l'objet pour domaine": ("sub, dom, obj, act, eft", "g(r.sub, p.sub, r.obj) && aclMatch(r.dom, p.dom)"),
    "une règle sans domaine": ("sub, obj, act, eft", "g(r.sub, p.sub, r.dom)"),
    "une règle de tout domaine, des liens d'un seul": (
        "sub, dom, obj, act, eft",
        "g(r.sub, p.sub, r.dom) && aclMatch(r.dom, p.dom)",
    ),
}


def custom(path: Path, text: str, uri: str) -> AbstractAsyncContextManager[Client]:
    """Sert une application sous un modèle à elle, sans administrateur par défaut."""
    path.write_text(text, encoding="utf-8")
    settings = {"shared_domain": ""} if "shared_domain" in ACLConfig.model_fields else {}
    return protected(sqlite_uri=uri, model_path=path, create_default_admin=False, **settings)


@pytest.mark.parametrize("name", NOT_COMPARED)
async def test_where_permissions_do_not_compare_a_writer_of_rules_changes_none(
    sqlite_uri: str, tmp_path: Path, name: str
) -> None:
    fields, matcher = NOT_COMPARED[name]
    everywhere = ("*",) if "dom" in fields else ()
    async with custom(tmp_path / "m.conf", HEAD.format(fields=fields, matcher=matcher), sqlite_uri) as visitor:
        ada, root = await visitor.newcomer("ada"), await visitor.newcomer("root")
        await system(
            visitor,
            ("p", f"user:{ada.id}", *everywhere, "acl.rules", "write", "allow"),
            ("p", f"user:{ada.id}", *everywhere, "document", "read", "allow"),
            ("p", f"user:{root.id}", *everywhere, "*", "*", "allow"),
        )
        given = ("p", "role:x", *everywhere, "document", "read", "allow")

        lesser = [await ada.add_rules(given), await ada.add_rules(("p", "role:y", *everywhere, "*", "*", "deny"))]
        higher = await root.add_rules(given)

    assert set(map(outcome, lesser)) == {REFUSED}
    assert higher.status_code == 201


async def test_under_priorities_nobody_shuts_out_a_peer(sqlite_uri: str, tmp_path: Path) -> None:
    text = """[request_definition]
r = sub, obj, act
[policy_definition]
p = priority, sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = g(r.sub, p.sub) && aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)
"""
    async with custom(tmp_path / "m.conf", text, sqlite_uri) as visitor:
        one, two = await visitor.newcomer("one"), await visitor.newcomer("two")
        await system(
            visitor,
            ("p", "10", "role:admin", "*", "*", "allow"),
            ("g", f"user:{one.id}", "role:admin"),
            ("g", f"user:{two.id}", "role:admin"),
        )

        shut = [
            await one.add_rules(("p", "1", f"user:{two.id}", "acl.rules", "write", "deny")),
            await one.add_rules(("p", "1", "role:x", "*", "*", "deny"), ("g", f"user:{two.id}", "role:x")),
        ]
        later = await one.add_rules(("p", "20", f"user:{two.id}", "acl.rules", "write", "deny"))
        other = await one.add_rules(("p", "1", f"user:{two.id}", "document", "read", "deny"))
        uncovered = await one.remove_rules(("p", "10", "role:admin", "*", "*", "allow"))

    assert set(map(outcome, shut)) == {REFUSED}
    assert [later.status_code, other.status_code] == [201, 201]
    assert outcome(uncovered) == (409, "last_administrator")


# --- ce qu'une erreur ne dit pas ---


async def test_an_account_that_administers_something_else_is_not_touched(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, bob = await visitor.newcomer("ada"), await visitor.newcomer("bob")
        await system(
            visitor,
            ("p", f"user:{ada.id}", "acl.users", "write", "allow"),
            ("p", f"user:{bob.id}", "acl.rules", "write", "allow"),
        )

        answers = [await ada.put(f"{USERS}/{bob.id}/deactivate"), await ada.delete(f"{USERS}/{bob.id}")]

        assert [outcome(answer) for answer in answers] == [REFUSED] * 2
        assert (await bob.get("/api/v1/auth/me")).status_code == 200


async def test_lifting_a_denial_is_granting_what_it_kept(sqlite_uri: str) -> None:
    denial = ("p", "role:staff", "secret", "read", "deny")
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada = await visitor.newcomer("ada")
        await system(
            visitor,
            ("p", f"user:{ada.id}", "acl.rules", "write", "allow"),
            ("p", "role:staff", "*", "read", "allow"),
            denial,
        )

        lifted = await ada.remove_rules(denial)
        await system(visitor, ("p", f"user:{ada.id}", "secret", "read", "allow"))
        once_held = await ada.remove_rules(denial)

    assert [outcome(lifted), once_held.status_code] == [REFUSED, 200]


async def test_an_empty_role_is_not_joined_in_advance(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, admin = await visitor.newcomer("ada"), await visitor.admin()
        link = ("g", f"user:{ada.id}", "role:future")

        alone = await admin.add_rules(link)
        nested = await admin.add_rules(("p", "role:low", "document", "read", "allow"), ("g", "role:low", "role:future"))
        together = await admin.add_rules(link, ("p", "role:future", "document", "read", "allow"))

    assert [outcome(alone), outcome(nested)] == [(404, "role_not_found")] * 2
    assert together.status_code == 201


@pytest.mark.parametrize("effect", ["allow", "deny"])
async def test_a_role_is_not_emptied_under_its_members(sqlite_uri: str, effect: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, pal, admin = await visitor.newcomer("ada"), await visitor.newcomer("pal"), await visitor.admin()
        only, link = ("p", "role:boss", "document", "read", effect), ("g", f"user:{pal.id}", "role:boss")
        other = ("p", "role:boss", "document", "write", "allow")
        held = [("p", f"user:{ada.id}", *pair, "allow") for pair in (("acl.rules", "*"), ("document", "*"))]
        await system(visitor, only, link, *held)

        emptied = await ada.remove_rules(only)
        replaced = await replace(ada, only, other)
        left = await ada.remove_rules(other)
        with_links = await ada.remove_rules(other, link)
        await system(visitor, only, link)
        by_the_highest = await admin.remove_rules(only)

    assert [outcome(emptied), outcome(left)] == [(409, "conflict")] * 2
    assert emptied.json()["members_count"] == 1
    assert "liens" in emptied.json()["detail"]
    assert [replaced.status_code, with_links.status_code, by_the_highest.status_code] == [200] * 3


ONLY, OTHER = (PolicyRule("p", ("role:boss", "document", act, "allow")) for act in ("read", "write"))


@pytest.mark.parametrize(
    ("present", "changes"),
    [
        ([ONLY], [PolicyChange((OTHER,), (ONLY,)), PolicyChange(removed=(OTHER,))]),
        ([ONLY, OTHER], [PolicyChange(removed=(ONLY,)), PolicyChange(removed=(OTHER,))]),
    ],
    ids=["remplacée puis retirée", "retirées l'une après l'autre"],
)
async def test_a_role_is_not_emptied_in_two_writes_of_one_transaction(
    sqlite_uri: str, present: list[PolicyRule], changes: list[PolicyChange]
) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, pal = await visitor.newcomer("ada"), await visitor.newcomer("pal")
        held = [("p", f"user:{ada.id}", *pair, "allow") for pair in (("acl.rules", "write"), ("document", "*"))]
        links = ("g", f"user:{pal.id}", "role:boss"), *held
        await system(visitor, *(("p", *one.values) for one in present), *links)
        store, actor = visitor.manager.get_policy_store(), Principal(id=ada.id)

        with pytest.raises(ConflictError) as refused:
            async with visitor.manager.get_replica().writing():
                for change in changes:
                    await store.change(change, actor)

    assert not refused.value.evidence, "qui ne lit pas les règles n'apprend pas combien tiennent un rôle"


async def test_who_may_not_read_rules_learns_none_from_an_error(sqlite_uri: str) -> None:
    async with protected(sqlite_uri=sqlite_uri) as visitor:
        ada, reader, admin = [await visitor.newcomer(name) for name in ("ada", "reader")] + [await visitor.admin()]
        present = ("p", "role:x", "document", "read", "allow")
        await admin.add_rules(
            present,
            ("p", "role:y", "document", "read", "allow"),
            ("g", "role:x", "role:y"),
            ("p", "role:writer", "acl.rules", "write", "allow"),
            ("p", "role:writer", "document", "read", "allow"),
            ("g", f"user:{ada.id}", "role:writer"),
            ("g", f"user:{reader.id}", "role:writer"),
            ("p", f"user:{reader.id}", "acl.rules", "read", "allow"),
        )
        asked = [
            lambda who: who.add_rules(present),
            lambda who: who.add_rules(("g", "role:y", "role:x")),
            lambda who: who.add_rules(("p", "role:z", "secret", "read", "allow")),
            lambda who: who.add_rules(EVERYTHING),
        ]

        blind = [(await ask(ada)).json() for ask in asked]
        seen = [(await ask(reader)).json() for ask in asked]

    assert [body["code"] for body in blind] == ["conflict", "invalid_rule", *["escalation_refused"] * 2]
    assert [body["code"] for body in seen] == ["rule_already_exists", "invalid_rule", *["escalation_refused"] * 2]
    assert not [body for body in blind if {"rule", "needed", "cycle"} & body.keys() or "role:" in str(body)]
    assert [("rule" in seen[0]), ("cycle" in seen[1]), ("needed" in seen[2])] == [True] * 3
