"""Ce que vaut le domaine `*` : le modèle et le réglage le disent, jamais l'endroit d'où vient le modèle."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastapi_acl import ACLManager, ConfigurationError, PolicyChange, PolicyEnforcer, PolicyRule, Principal
from fastapi_acl.cli import app
from fastapi_acl.engine.casbin.domains import describe, shares_domains
from fastapi_acl.engine.casbin.models import read_model, read_packaged_model
from fastapi_acl.shared.exceptions import InvalidImportError, InvalidRuleError, PolicyUnreadableError
from tests.support.app import config, protected, started
from tests.support.byhand import write_row
from tests.support.effort import effort
from tests.support.engines import strict_enforcer

MODELS = ["rbac", "rbac_with_domains", "abac", "acl", "rest"]
CHOICE = r"ACL_SHARED_DOMAIN sur « \* ».*ou sur le vide"
PLACES = ["*", "un", "deux"]
SUBJECTS = ["user:1", "user:2", "role:a", "role:b"]


def custom(
    matcher: str = "g(r.sub, p.sub, r.dom) && r.dom == p.dom && aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)",
    *,
    request: str = "sub, dom, obj, act",
    fields: str = "sub, dom, obj, act, eft",
    links: str = "_, _, _",
    effect: str = "some(where (p.eft == allow)) && !some(where (p.eft == deny))",
) -> str:
    return (
        f"[request_definition]\nr = {request}\n[policy_definition]\np = {fields}\n[role_definition]\ng = {links}\n"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def model_file(tmp_path: Path, text: str | None = None) -> Path:
    return written(tmp_path / "model.conf", custom() if text is None else text)


def enforcer_of(text: str, shared: str | None, rules: Sequence[PolicyRule] = ()) -> PolicyEnforcer:
    model = read_model(text, "essai")
    enforcer = strict_enforcer(model, share_domains=shares_domains(shared, model))
    enforcer.policy.install(rules)
    return enforcer


# --- une copie décide comme l'original ---------------------------------------------------------------------------


def copies(text: str) -> Iterator[str]:
    """Énumère des écritures d'un même modèle : octet pour octet, remise en page, sections retournées."""
    yield text
    yield text.replace(", ", " ,  ").replace(" && ", " \\\n\t&& ").replace("\n\n", "\n; rien\n\n") + "\n# fin\n"
    first, *sections = text.split("\n[")
    yield "\n[".join(["# " + first.removeprefix("# "), *reversed([part.rstrip() + "\n" for part in sections])])


def drawn(enforcer: PolicyEnforcer, draw: random.Random) -> list[PolicyRule]:
    """Tire des règles et des liens, refus et domaine `*` compris."""
    known = {
        "sub": SUBJECTS,
        "dom": [*PLACES, "un:*"],
        "eft": ["allow", "allow", "deny"],
        "scope": ["*", "own"],
        "act": ["read", "*"],
        "method": ["GET", "*"],
        "obj": ["doc", "doc:*", "*"],
        "path": ["/doc", "*"],
    }
    names = enforcer.policy.schema.fields["p"]
    rules = [PolicyRule("p", tuple(draw.choice(known[name]) for name in names)) for _ in range(6)]
    pairs = [("user:1", "role:a"), ("user:1", "role:b"), ("user:2", "role:b"), ("role:a", "role:b")]
    width = enforcer.policy.schema.links.get("g", 0)
    links = [
        PolicyRule("g", (*draw.choice(pairs), *draw.choices(PLACES, k=width - 2))) for _ in range(4 if width else 0)
    ]
    return list(dict.fromkeys([*rules, *links]))


def asked(enforcer: PolicyEnforcer, draw: random.Random) -> tuple[str, ...]:
    known = {"sub": SUBJECTS, "dom": [*PLACES, "trois", "un:x"], "obj": ["doc", "doc:1"], "act": ["read"]}
    known |= {"path": ["/doc"], "method": ["GET", "PUT"]}
    return tuple(draw.choice(known[name]) for name in enforcer.policy.schema.request)


@pytest.mark.parametrize("model", MODELS)
def test_a_copy_of_a_packaged_model_decides_as_the_model_itself(tmp_path: Path, model: str) -> None:
    draw, answers = random.Random(model), set[bool]()
    original = ACLManager(config(model=model)).get_enforcer()
    others = [
        ACLManager(config(model_path=written(tmp_path / f"{number}.conf", text))).get_enforcer()
        for number, text in enumerate(copies(read_packaged_model(model)))
    ]
    for _ in range(120):
        rules = drawn(original, draw)
        for enforcer in (original, *others):
            enforcer.policy.install(rules)
        for _ in range(12):
            request = asked(original, draw)
            expected = original.enforce(*request)
            answers.add(expected)
            assert [enforcer.enforce(*request) for enforcer in others] == [expected] * len(others), (request, rules)

    assert answers == {True, False}


@pytest.mark.parametrize("name", ["original", "copie"])
def test_a_deny_linked_in_every_domain_holds_wherever_the_model_comes_from(tmp_path: Path, name: str) -> None:
    copy = {"model_path": model_file(tmp_path, read_packaged_model("rbac_with_domains"))}
    settings = {"model": "rbac_with_domains"} if name == "original" else copy
    enforcer = ACLManager(config(**settings)).get_enforcer()
    enforcer.policy.install(
        [
            PolicyRule("p", ("user:1", "un", "doc", "read", "allow")),
            PolicyRule("p", ("role:banned", "*", "*", "*", "deny")),
            PolicyRule("g", ("user:1", "role:banned", "*")),
        ]
    )

    assert not enforcer.enforce("user:1", "un", "doc", "read")


@pytest.mark.parametrize(
    ("old", "new"),
    [("aclMatch(r.act, p.act)", "r.act == p.act"), ("sub, dom, obj", "sub, obj, dom"), ("_, _, _", "_, _")],
)
def test_a_packaged_model_changed_by_a_term_is_another_model(old: str, new: str) -> None:
    text = read_packaged_model("rbac_with_domains")
    assert old in text

    assert shares_domains(None, read_model(text, "essai")) is True
    assert shares_domains(None, read_model(text.replace(old, new), "essai")) is None


# --- ce que `*` veut dire ----------------------------------------------------------------------------------------

MATCHERS = {
    "égalité": "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj && r.act == p.act",
    "égalité retournée": "p.act == r.act && p.dom == r.dom && g(r.sub, p.sub, r.dom) && aclMatch(r.obj, p.obj)",
    "le rôle dans le domaine de la règle": "g(r.sub, p.sub, p.dom) && r.dom == p.dom && aclMatch(r.obj, p.obj)",
    "aclMatch": "g(r.sub, p.sub, r.dom) && aclMatch(r.dom, p.dom) && r.obj == p.obj",
    "keyMatch": "g(r.sub, p.sub, r.dom) && keyMatch(r.dom, p.dom) && r.obj == p.obj",
    "keyMatch2": "g(r.sub, p.sub, r.dom) && keyMatch2(r.dom, p.dom) && r.obj == p.obj",
    "regexMatch": "g(r.sub, p.sub, r.dom) && regexMatch(r.dom, p.dom) && r.obj == p.obj",
    "regexMatch d'abord": "regexMatch(r.dom, p.dom) && r.obj == p.obj && g(r.sub, p.sub, p.dom)",
    "regexMatch, et déjà écrit": 'g(r.sub, p.sub, r.dom) && (regexMatch(r.dom, p.dom) || p.dom == "*")',
    "regexMatch ou rien": 'r.sub == "user:2" && r.obj == p.obj || g(r.sub, p.sub, r.dom) && regexMatch(r.dom, p.dom)',
    "déjà écrit": 'g(r.sub, p.sub, r.dom) && (r.dom == p.dom || p.dom == "*") && r.obj == p.obj',
    "déjà écrit, en liste": 'g(r.sub, p.sub, r.dom) && p.dom in (r.dom, "*") && r.obj == p.obj',
    "un compte à part": 'r.sub == "user:2" && r.obj == p.obj || g(r.sub, p.sub, r.dom) && r.dom == p.dom',
    "sans domaine dans la règle": "g(r.sub, p.sub, r.dom) && r.obj == p.obj",
    "un domaine nommé": '(p.dom == "un" || r.dom == p.dom) && g(r.sub, p.sub, r.dom) && r.obj != p.obj',
}


def spelled_out(rules: Sequence[PolicyRule], places: Sequence[str], schema: Any) -> list[PolicyRule]:
    """Écrit chaque règle et chaque lien de `*` une fois par domaine."""
    found: dict[PolicyRule, None] = {}
    for rule in rules:
        names = schema.columns(rule.ptype)
        at = next((place for place, name in enumerate(names) if name in {"dom", "domain"}), None)
        if at is None or rule.values[at] != "*":
            found[rule] = None
            continue
        values = ((*rule.values[:at], place, *rule.values[at + 1 :]) for place in places)
        found |= dict.fromkeys(PolicyRule(rule.ptype, one) for one in values)
    return list(found)


@pytest.mark.parametrize("name", MATCHERS)
@pytest.mark.parametrize(
    "effect", ["some(where (p.eft == allow)) && !some(where (p.eft == deny))", "some(where (p.eft == allow))"]
)
def test_a_rule_in_every_domain_counts_in_each_as_if_it_named_it(name: str, effect: str) -> None:
    draw, answers = random.Random(name), set[bool]()
    fields = "sub, obj, act, eft" if name.startswith("sans") else "sub, dom, obj, act, eft"
    text = custom(MATCHERS[name], fields=fields, effect=effect)
    shared, plain = enforcer_of(text, "*"), enforcer_of(text, "")
    for _ in range(effort(50, 150)):
        rules = [rule for rule in drawn(shared, draw) if "un:*" not in rule.values]
        places = ["un", "deux", "trois"]
        shared.policy.install(rules)
        plain.policy.install(spelled_out(rules, places, shared.policy.schema))
        for _ in range(10):
            subject, place = draw.choice(SUBJECTS), draw.choice(places)
            request = (subject, place, draw.choice(["doc", "doc:1"]), "read")
            answers.add(expected := plain.enforce(*request))
            assert shared.enforce(*request) is expected, (request, rules)

    assert answers == {True, False}


@pytest.mark.parametrize("name", ["égalité", "égalité retournée", "le rôle dans le domaine de la règle", "aclMatch"])
def test_a_matcher_whose_domain_is_shared_stays_in_the_index(name: str) -> None:
    plan = enforcer_of(custom(MATCHERS[name]), "*").plan

    assert plan.is_indexed
    assert plan.expression is None
    assert all(branch.keys for branch in plan.branches)


@pytest.mark.parametrize(
    ("matcher", "reason"),
    [
        ("g(r.sub, p.sub, r.dom) && sameGroup(r.dom, p.dom)", r"« sameGroup\(r.dom, p.dom\) » fait du domaine"),
        ("g(r.sub, p.sub, r.dom) && r.dom != p.dom", "n’accepte jamais une règle du domaine demandé"),
        ("g(r.sub, p.sub, r.dom) && !(r.dom == p.dom)", "n’accepte jamais"),
        ("g(r.sub, p.sub, r.dom) && r.dom.root == p.dom", "fait du domaine"),
        ("g(r.sub, p.sub, r.dom) && r.obj == p.dom", "fait du domaine"),
        ("g(r.sub, p.sub, r.dom) && r.dom in tenants(p.dom)", "fait du domaine"),
        ('g(r.sub, p.sub, r.dom) && regexMatch("un", p.dom)', "comme une expression rationnelle"),
    ],
)
def test_a_matcher_under_which_a_rule_cannot_hold_everywhere_refuses_to_share(
    tmp_path: Path, matcher: str, reason: str
) -> None:
    settings = config(model_path=model_file(tmp_path, custom(matcher)), shared_domain="*")

    with pytest.raises(ConfigurationError, match=f"{reason}.*ACL_SHARED_DOMAIN"):
        ACLManager(settings)
    assert ACLManager(config(model_path=tmp_path / "model.conf", shared_domain=""))


def test_without_sharing_every_domain_is_a_domain_like_another() -> None:
    rules = [
        PolicyRule("p", ("role:a", "*", "doc", "read", "allow")),
        PolicyRule("p", ("role:a", "un", "doc", "read", "allow")),
        PolicyRule("g", ("user:1", "role:a", "*")),
    ]
    enforcer = enforcer_of(custom(), "", rules)

    assert [enforcer.enforce("user:1", place, "doc", "read") for place in ("*", "un")] == [True, False]


async def test_without_sharing_roles_of_two_domains_make_no_cycle_written_or_read_again(
    sqlite_uri: str, tmp_path: Path
) -> None:
    settings = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path), "shared_domain": ""}
    links = (PolicyRule("g", ("role:a", "role:b", "*")), PolicyRule("g", ("role:b", "role:a", "un")))
    async with started(**settings) as manager:
        await manager.get_policy_store().change(PolicyChange(added=links))
    async with started(**settings) as manager:
        assert set(links) <= set(manager.get_policy().rules)
    settings["shared_domain"] = "*"
    manager = ACLManager(config(**settings))
    with pytest.raises(PolicyUnreadableError):
        await manager.load()
    await manager.close()


# --- quand rien ne le dit ----------------------------------------------------------------------------------------


async def test_the_rules_of_the_first_start_ask_for_the_choice_by_name(sqlite_uri: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path)}

    with pytest.raises(ConfigurationError, match=rf"« p, role:admin, \*, \*, \*, allow ».*{CHOICE}"):
        async with started(**settings):
            pass
    for choice in ("*", ""):
        async with started(**settings, shared_domain=choice) as manager:
            account = await manager.get_auth_repository().get_by_username("admin")
            admin = Principal(id=str(account.id))
            assert manager.authorizer.decide(admin, "acl.rules", "write")
            assert manager.authorizer.decide(admin, "doc", "read", "un") is (choice == "*")


async def test_a_line_of_the_policy_file_asks_for_the_choice_by_name(sqlite_uri: str, tmp_path: Path) -> None:
    seed = written(tmp_path / "policy.csv", "p, role:a, un, doc, read, allow\ng, user:1, role:a, *\n")
    settings: dict[str, Any] = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path), "policy_path": seed}

    with pytest.raises(ConfigurationError, match=rf"policy.csv, ligne 2.*{CHOICE}"):
        async with started(**settings, create_default_admin=False):
            pass
    async with started(**settings, create_default_admin=False, shared_domain="*") as manager:
        assert manager.get_enforcer().enforce("user:1", "un", "doc", "read")


@pytest.mark.parametrize("row", [("p", "user:1", "*", "doc", "read", "allow"), ("g", "user:1", "role:a", "*")])
async def test_a_row_of_the_database_asks_for_the_choice_at_start(
    sqlite_uri: str, tmp_path: Path, row: tuple[str, ...]
) -> None:
    settings: dict[str, Any] = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path)}
    async with started(**settings, create_default_admin=False) as manager:
        number = await write_row(manager._parts.storage, row[0], row[1:])

    with pytest.raises(ConfigurationError, match=rf"ligne {number} de casbin_rule \(« {row[0]}, user:1.*{CHOICE}"):
        async with started(**settings, create_default_admin=False):
            pass
    async with started(**settings, create_default_admin=False, shared_domain="") as manager:
        assert len(manager.get_policy().rules) == 1


async def test_a_row_written_by_hand_under_a_running_process_never_opens_anything(
    sqlite_uri: str, tmp_path: Path
) -> None:
    settings = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path), "create_default_admin": False}
    async with started(**settings) as manager:
        enforcer = manager.get_enforcer()
        await enforcer.add_policy("role:a", "un", "doc", "read", "allow")
        await write_row(manager._parts.storage, "p", ("user:1", "*", "doc", "read", "allow"), "p" * 64)
        await enforcer.load_policy()
        skipped = manager.health().quarantined_rows
        await write_row(manager._parts.storage, "g", ("user:1", "role:a", "*"), "g" * 64)
        with pytest.raises(PolicyUnreadableError):
            await enforcer.load_policy()

        assert skipped == 1
        assert len(enforcer.policy.rules) == 1
        assert not enforcer.enforce("user:1", "un", "doc", "read")


async def test_a_later_write_without_the_choice_is_refused_in_the_same_words(sqlite_uri: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path)}
    async with started(**settings, create_default_admin=False) as manager:
        for values in [("user:1", "*", "doc", "read", "allow"), ("role:a", "*", "*", "*", "deny")]:
            with pytest.raises(InvalidRuleError, match=CHOICE):
                await manager.get_enforcer().add_policy(*values)
        with pytest.raises(InvalidRuleError, match=CHOICE):
            await manager.get_enforcer().add_grouping_policy("user:1", "role:a", "*")
        with pytest.raises(InvalidImportError, match=rf"^Ligne 2 : .*{CHOICE}"):
            await imported(manager, "p, role:a, un, *, *, allow\ng, user:1, role:a, *\n")
        assert manager.get_policy().rules == ()
        assert await manager.get_enforcer().add_policy("role:a", "un", "*", "*", "allow")


async def imported(manager: ACLManager, text: str) -> None:
    await manager.get_policy_transfer().import_rules(io.StringIO(text), "csv")


async def test_over_http_a_rule_in_every_domain_without_the_choice_is_422(sqlite_uri: str, tmp_path: Path) -> None:
    matcher = 'r.sub == p.sub && (r.dom == p.dom || r.dom == "*") && aclMatch(r.obj, p.obj) && aclMatch(r.act, p.act)'
    settings = {"sqlite_uri": sqlite_uri, "model_path": model_file(tmp_path, custom(matcher))}
    async with protected(**settings, create_default_admin=False) as visitor:
        ada = await visitor.newcomer("ada")
        await visitor.manager.get_enforcer().add_policy(f"user:{ada.id}", "un", "*", "*", "allow")

        refused = [
            await ada.add_rules(("p", f"user:{ada.id}", "*", "doc", "read", "allow")),
            await ada.add_rules(("g", f"user:{ada.id}", "role:a", "*")),
        ]

    assert [answer.status_code for answer in refused] == [422, 422]
    assert all(re.search(CHOICE, answer.json()["detail"]) for answer in refused)


def test_a_model_without_domains_never_asks() -> None:
    for shared in (None, "*", ""):
        enforcer = enforcer_of(
            custom(
                "g(r.sub, p.sub) && r.obj == p.obj", request="sub, obj, act", fields="sub, obj, act, eft", links="_, _"
            ),
            shared,
        )
        enforcer.policy.install([PolicyRule("p", ("user:1", "*", "*", "allow"))])

        assert enforcer.enforce("user:1", "*", "x")
        assert describe(enforcer.policy.schema, shared) == ""


def test_the_command_shows_the_plan_and_what_every_domain_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = [
        CliRunner().invoke(app, ["policy", "plan"], env=environment).stdout.splitlines()
        for environment in (
            {"ACL_MODEL": "rbac_with_domains"},
            {"ACL_MODEL_PATH": str(model_file(tmp_path)), "ACL_SHARED_DOMAIN": "*"},
            {"ACL_MODEL_PATH": str(model_file(tmp_path)), "ACL_SHARED_DOMAIN": ""},
            {"ACL_MODEL": "rbac"},
        )
    ]

    assert [lines[-1].partition(" : ")[0].strip() for lines in shown] == ["domaine", "domaine", "domaine", "clé"]
    assert [line for line in shown[1] if line.startswith("branche")] == ["branche  : 1 sur 2", "branche  : 2 sur 2"]
    assert "clé      : '*' == p.dom" in shown[1]
    assert not any(line.startswith("branche") for line in shown[2])


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        (None, "est refusé, tant que"),
        ("*", r"vaut dans tous \(ACL_SHARED_DOMAIN=\*\)"),
        ("", "un domaine comme un autre"),
    ],
)
def test_the_plan_says_what_every_domain_means_and_why(shared: str | None, said: str) -> None:
    enforcer = enforcer_of(custom(), shared)
    packaged = enforcer_of(read_packaged_model("rbac_with_domains"), None)

    assert re.search(said, describe(enforcer.policy.schema, shared))
    assert describe(packaged.policy.schema, None).endswith("vaut dans tous (modèle fourni)")
