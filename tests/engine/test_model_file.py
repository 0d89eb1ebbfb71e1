"""Un modèle fautif refuse de démarrer, et le dit : fichier, ligne, section, remède."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_acl import ACLManager, ConfigurationError, PolicyRule
from fastapi_acl.engine.casbin.models import load_model, read_packaged_model
from fastapi_acl.runtime.first_start import administrator_rules
from tests.support.app import config
from tests.support.engines import strict_enforcer

MODELS = ["rbac", "rbac_with_domains", "abac", "acl", "rest"]
RBAC = """\
# Le modèle de l'essai
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""


def refused(path: Path, text: str | bytes) -> str:
    """Rend la phrase par laquelle un modèle est refusé."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as error:
        ACLManager(config(model_path=path, sqlite_uri="sqlite://"))
    return error.value.detail


def without_section(text: str, name: str) -> str:
    return re.sub(rf"\[{name}\]\n[^\[]*", "", text)


FAULTS = {
    "requête absente": (without_section(RBAC, "request_definition"), r"la section \[request_definition\] manque"),
    "règle absente": (without_section(RBAC, "policy_definition"), r"la section \[policy_definition\] manque"),
    "effet absent": (without_section(RBAC, "policy_effect"), r"la section \[policy_effect\] manque"),
    "matcher absent": (without_section(RBAC, "matchers"), r"la section \[matchers\] manque"),
    "rôles absents": (without_section(RBAC, "role_definition"), r"section \[matchers\] : .* g\(…\).*g = _, _"),
    "section mal nommée": (
        RBAC.replace("[matchers]", "[matcher]"),
        r"ligne 14 : .*\[matcher\].*vouliez-vous \[matchers\]",
    ),
    "section en majuscules": (RBAC.replace("[matchers]", "[Matchers]"), r"ligne 14 : .*vouliez-vous \[matchers\]"),
    "section inconnue": (RBAC + "[limits]\nx = 1\n", r"ligne 16 : .*\[limits\].*request_definition"),
    "définition sans section": ("r = sub, obj, act\n" + RBAC, "ligne 1 : une définition précède toute section"),
    "ligne sans égal": (
        RBAC.replace("g = _, _", "g : _, _"),
        r"ligne 9, section \[role_definition\] : .*pas de valeur",
    ),
    "définition vide": (RBAC.replace("g = _, _", "g ="), r"ligne 9, section \[role_definition\] : « g » n’a pas"),
    "matcher vide": (RBAC.replace("m = g", "m =\n#"), r"ligne 15, section \[matchers\] : « m » n’a pas"),
    "matcher répété": (RBAC + "m = r.sub == p.sub\n", r"ligne 16, .*« m » est déjà défini ligne 15"),
    "règle répétée": (
        RBAC.replace("p = sub", "p = sub, obj\np = sub"),
        r"ligne 7, section \[policy_definition\] : « p » est déjà défini ligne 6",
    ),
    "nom en majuscule": (RBAC.replace("m = g", "M = g"), r"ligne 15, section \[matchers\] : « M » .*attendus sont m"),
    "nom sauté": (RBAC + "m3 = r.sub == p.sub\n", r"ligne 16, section \[matchers\] : « m3 » ne serait jamais lu"),
    "virgule oubliée": (RBAC.replace("r = sub, obj", "r = sub obj"), r"ligne 3, .* « sub obj » n’est pas un nom"),
    "virgule de trop": (RBAC.replace("r = sub, obj", "r = sub,, obj"), "ligne 3, .*une virgule ne suit"),
    "commentaire en bout de ligne": (RBAC.replace("obj, act, eft", "obj, act, eft # quatre"), "ligne 6, .*seul sur sa"),
    "nom répété": (RBAC.replace("obj, act, eft", "obj, obj, eft"), "ligne 6, .*deux fois « obj »"),
    "trop de valeurs": (
        RBAC.replace("obj, act, eft", "a, b, c, obj, act, eft"),
        "ligne 6, .*7 valeurs, la base en garde 6",
    ),
    "lien d'une valeur": (RBAC.replace("g = _, _", "g = _"), r"ligne 9, section \[role_definition\] : « g » s’écrit"),
    "lien de quatre valeurs": (RBAC.replace("g = _, _", "g = _, _, _, _"), "ligne 9, .*« _, _, _ »"),
    "lien commenté": (RBAC.replace("g = _, _", "g = _, _ # x_y"), "ligne 9, .*« _, _ »"),
    "lien nommé": (RBAC.replace("g = _, _", "g = user, role"), "ligne 9, .*« _, _ »"),
    "effet inconnu": (
        RBAC.replace("e = some", "e = any"),
        r"ligne 12, section \[policy_effect\] : .*some\(where \(p.eft",
    ),
    "effet d'un autre type": (RBAC.replace("[matchers]", "e2 = toujours\n[matchers]"), "ligne 14, .*l’effet « e2 »"),
    "effet que rien ne porte": (RBAC.replace(", eft", ""), "ligne 12, .*lit « p.eft », qu’aucune règle ne porte"),
    "refus que rien ne porte": (
        re.sub("e = .*", "e = !some(where (p.eft == deny))", RBAC).replace(", eft", ""),
        "ligne 12, .*toutes accorderaient",
    ),
    "priorité par rôle sans rôles": (
        re.sub("e = .*", "e = subjectPriority(p.eft) || deny", without_section(RBAC, "role_definition")),
        "range les règles par rôle",
    ),
    "second type de rôles": (RBAC.replace("r.obj == p.obj", "g2(r.obj, p.obj)"), r"ligne 15, .*g2\(…\).*« g2 = _, _ »"),
    "vide": ("", r"la section \[request_definition\] manque"),
    "autre chose": ("pas un modèle", "ligne 1 : une définition précède toute section"),
    "pas de l'UTF-8": (RBAC.encode("utf-16"), "il n’est pas en UTF-8 ; vérifiez ACL_MODEL_PATH"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_model_is_refused_with_its_file_its_line_its_section_and_the_mend(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.conf"
    text, message = FAULTS[name]

    said = refused(path, text)

    assert f"« {path} »" in said
    assert re.search(message, said), said


def test_a_model_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.conf"
    path.write_text(RBAC, "utf-8")
    settings = config(model_path=path)
    path.unlink()

    with pytest.raises(ConfigurationError, match=rf"{path}.*vérifiez ACL_MODEL_PATH"):
        load_model(settings)


def test_a_byte_order_mark_and_a_definition_on_several_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.conf"
    path.write_text("\ufeff" + RBAC.replace(" && r.act", " \\\n    && r.act"), "utf-8")

    model = load_model(config(model_path=path))

    assert model["m"]["m"].value == "g(r_sub, p_sub) && r_obj == p_obj && r_act == p_act"


def test_the_line_named_is_that_where_the_definition_begins(tmp_path: Path) -> None:
    text = RBAC.replace("g(r.sub, p.sub) && ", "g(r.sub, p.sub) && \\\n  g3(r.obj, p.obj) \\\n && ")

    assert "ligne 15, section [matchers] : le matcher emploie g3(…)" in refused(tmp_path / "model.conf", text)


async def test_under_a_model_with_priorities_the_first_administrator_comes_first(
    sqlite_uri: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.conf"
    text = RBAC.replace("p = sub", "p = priority, sub").replace("r.obj == p.obj", "aclMatch(r.obj, p.obj)")
    text = text.replace("r.act == p.act", "aclMatch(r.act, p.act)")
    path.write_text(re.sub("e = .*", "e = priority(p.eft) || deny", text), "utf-8")
    manager = ACLManager(config(model_path=path, sqlite_uri=sqlite_uri))

    await manager.initialize()

    assert PolicyRule("p", ("1", "role:admin", "*", "*", "allow")) in manager.get_policy().rules
    await manager.close()


def mutilated(text: str) -> Iterator[str]:
    """Énumère ce qu'un modèle devient privé d'une ligne, d'une section, d'un nom, d'un mot, ou d'un caractère."""
    lines = text.splitlines(keepends=True)
    yield from ("".join(lines[:at] + lines[at + 1 :]) for at in range(len(lines)))
    yield from ("".join([*lines[:at], line, *lines[at:]]) for at, line in enumerate(lines))
    yield from (without_section(text, name) for name in re.findall(r"\[(\w+)\]", text))
    head, matchers, tail = text.partition("[matchers]")
    for found in re.finditer(r"\w+|[^\w\s]", head):
        yield head[: found.start()] + head[found.end() :] + matchers + tail
    yield from (text[:at] + text[at + 1 :] for at in range(0, len(head), 3))


def fault_of(path: Path) -> str:
    """Rend la phrase par laquelle un modèle est refusé ; rien s'il est admis."""
    try:
        load_model(config(model_path=path))
    except ConfigurationError as error:
        return error.detail
    return ""


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_a_piece_missing_is_refused_by_name_or_decides(tmp_path: Path, name: str) -> None:
    path, started = tmp_path / "model.conf", 0
    for text in mutilated(read_packaged_model(name)):
        path.write_text(text, "utf-8")
        said = fault_of(path)
        if said:
            assert str(path) in said or "le modèle demande" in said, said
            continue
        if not names_its_fields(text):
            continue  # un champ que le matcher nomme manque : c'est à l'essai du matcher de le dire
        enforcer = strict_enforcer(load_model(config(model_path=path)), share_domains=True)
        enforcer.policy.install(PolicyRule(*rule) for rule in administrator_rules(enforcer.policy.schema, "user:1"))
        request = ["*" if token.startswith(("dom",)) else "user:1" for token in enforcer.policy.schema.request]
        assert enforcer.enforce(*request) is True
        assert enforcer.enforce("user:2", *request[1:]) is False
        started += 1

    assert started > 0


def names_its_fields(text: str) -> bool:
    """Dit si le matcher ne nomme que des valeurs définies."""
    defined = {
        f"{letter}.{name.strip()}"
        for letter, names in re.findall(r"^([rp]) = (.*)$", text, re.MULTILINE)
        for name in names.split(",")
    }
    return set(re.findall(r"\b[rp]\.\w+", text.partition("[matchers]")[2])) <= defined
