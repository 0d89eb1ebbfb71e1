"""Sème des fautes d'une ligne dans une copie du moteur, et vérifie que ses essais rapides les voient.

Un essai qui passe ne prouve rien s'il passe aussi sur un moteur faux. `python -m tests.planted_bugs` copie l'arbre,
y met une faute à la fois et lance `pytest -x -m "not slow" tests/engine` ; il sort en erreur si une faute passe
inaperçue, ou si son texte n'est plus, une fois exactement, dans le fichier. `python -m tests.planted_bugs mot` ne sème
que les fautes dont le nom contient ce mot.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("fastapi_acl", "tests", "docs", "examples", "pyproject.toml")
WORKERS = 2
TIMEOUT = 240
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "tests/engine")


class Fault(NamedTuple):
    """Une faute : ce qu'elle casse, le fichier, le texte d'origine, le texte fautif."""

    name: str
    path: str
    old: str
    new: str


FAULTS = [
    # --- matcher et plan
    Fault(
        "un second terme sur le même champ remplace le premier",
        "engine/kernel/plan.py",
        "and key.field not in keys:",
        ":",
    ),
    Fault(
        "le terme d'un champ déjà pris n'est plus évalué",
        "engine/kernel/plan.py",
        "known = key is not None and key.field not in seen",
        "known = key is not None",
    ),
    Fault(
        "une branche d'une disjonction est oubliée",
        "engine/kernel/plan.py",
        "return parts if len(parts) <= MAX_BRANCHES else [[tree]]",
        "return parts[:1] if len(parts) <= MAX_BRANCHES else [[tree]]",
    ),
    Fault("« && » devient « or »", "engine/kernel/plan.py", '2: " and "', '2: " or "'),
    Fault(
        "le domaine d'une règle n'est plus celui de la requête",
        "engine/kernel/plan.py",
        "domain = bound.get(given.id)",
        "domain = 0",
    ),
    # --- questions sur la requête seule
    Fault(
        "une question peut être posée avant ce que Casbin évalue d'abord",
        "engine/kernel/gates.py",
        "return (found, True) if found is not None or not asked else (asked[0][0], False)",
        "return (found or (asked[0][0] if asked else None), True)",
    ),
    Fault(
        "ce qui peut échouer avant une question vraie n'est plus évalué",
        "engine/kernel/gates.py",
        "            if all(map(is_sure, kept)):\n",
        "            if kept is not None:\n",
    ),
    Fault(
        "la réponse à une question est renversée",
        "engine/kernel/forks.py",
        "return self._then if self._gate.accepts(request, ()) else self._otherwise",
        "return self._otherwise if self._gate.accepts(request, ()) else self._then",
    ),
    Fault(
        "une règle retirée compte encore parmi toutes",
        "engine/kernel/forks.py",
        "        self._count(row, -1)\n",
        "        self._count(row, 0)\n",
    ),
    Fault(
        "une grande case oublie qu'une règle en part",
        "engine/kernel/crowd.py",
        "        self.said[mask] -= 1\n",
        "        self.said[mask] -= 0\n",
    ),
    Fault(
        "une disjonction sur deux champs est prise pour une clé",
        "engine/kernel/plan.py",
        "or len({choice.field for choice in choices}) > 1:",
        "or not choices:",
    ),
    # --- index
    Fault(
        "un objet qui redéfinit l'égalité se cherche comme un texte",
        "engine/kernel/index.py",
        "f'r{place}.__class__ not in TEXTS'",
        "f'not isinstance(r{place}, str)'",
    ),
    Fault(
        "un motif n'est plus rangé",
        "engine/kernel/index.py",
        "group.add(row[motif.field])",
        "group.matching(row[motif.field])",
    ),
    Fault(
        "les formes de motifs ne sont plus comptées",
        "engine/kernel/index.py",
        "self._count(row, 1)",
        "self._count(row, 0)",
    ),
    Fault(
        "le joker n'est cherché que s'il y a un préfixe",
        "engine/kernel/index.py",
        "few = f\"(({value}, '*') if {known}.anys",
        "few = f\"(({value}, '*') if {known}.lengths",
    ),
    Fault(
        "une règle retirée reste rangée",
        "engine/kernel/decider.py",
        "            index.remove(row)\n",
        "            del index\n",
    ),
    Fault(
        "un rôle rangé se cherche hors de son domaine",
        "engine/casbin/compiler.py",
        "links={name: manager.has_domains for",
        "links={name: False for",
    ),
    # --- effets et décision
    Fault(
        "un refus est ignoré",
        "engine/kernel/decider.py",
        "ALLOW_AND_DENY_EFFECT: Effect(stops=DENY, needs=ALLOW, forbids=DENY)",
        "ALLOW_AND_DENY_EFFECT: Effect(stops=DENY, needs=ALLOW, forbids=0)",
    ),
    Fault(
        "sans refus, il faut un accord de plus",
        "engine/kernel/decider.py",
        "Effect(stops=DENY, needs=0, forbids=DENY)",
        "Effect(stops=DENY, needs=ALLOW, forbids=DENY)",
    ),
    Fault(
        "sous priorité, un refus n'arrête plus la lecture",
        "engine/kernel/decider.py",
        "_FIRST_WINS: Final = Effect(stops=ALLOW | DENY, needs=ALLOW, forbids=DENY)",
        "_FIRST_WINS: Final = Effect(stops=ALLOW, needs=ALLOW, forbids=DENY)",
    ),
    Fault(
        "les règles trouvées se lisent à l'envers",
        "engine/kernel/decider.py",
        "key=self._order)",
        "key=self._order, reverse=True)",
    ),
    Fault(
        "la règle expliquée est la première acceptée",
        "engine/kernel/decider.py",
        "shown = row\n",
        "shown = shown or row\n",
    ),
    Fault("un effet inconnu accorde", "engine/kernel/decider.py", "row[self.eft], OTHER)", "row[self.eft], ALLOW)"),
    Fault(
        "le compte des refus se perd",
        "engine/kernel/decider.py",
        "self._denials += mask == DENY",
        "self._denials = mask == DENY",
    ),
    Fault(
        "une règle trop courte est rangée comme une autre",
        "engine/kernel/decider.py",
        "if len(row) != len(self.fields) or ",
        "if ",
    ),
    Fault(
        "une règle que l'index ne sait pas comparer n'est plus vue",
        "engine/kernel/decider.py",
        "if masks is None or self._foreign or not self._size:",
        "if masks is None or not self._size:",
    ),
    Fault(
        "une politique vide refuse, même nue",
        "engine/kernel/decider.py",
        "return None if cells is None or self._foreign or not self._size else allowed",
        "return None if cells is None or self._foreign else allowed",
    ),
    # --- rôles
    Fault(
        "un lien de moins dans une chaîne",
        "engine/kernel/role_graph.py",
        "MAX_LINKS: Final = 9",
        "MAX_LINKS: Final = 8",
    ),
    Fault(
        "un lien de plus dans une chaîne",
        "engine/kernel/role_graph.py",
        "MAX_LINKS: Final = 9",
        "MAX_LINKS: Final = 10",
    ),
    Fault(
        "un lien retiré laisse sa fermeture",
        "engine/kernel/role_graph.py",
        "            self._sweep(member, role, domain)\n            self._forget(member, domain)",
        "            self._sweep(member, role, domain)",
    ),
    Fault(
        "les fermetures de qui est sous le membre restent",
        "engine/kernel/role_graph.py",
        "if self._held.get(member) or len(touched) > MANY_DOMAINS:",
        "if len(touched) > MANY_DOMAINS:",
    ),
    Fault(
        "un lien d'un domaine à motif n'oublie que ce domaine",
        "engine/kernel/role_graph.py",
        "if self._matches is None and not (self._shares_domains and domain == EVERY_DOMAIN):",
        "if not (self._shares_domains and domain == EVERY_DOMAIN):",
    ),
    Fault(
        "le domaine et son motif sont pris l'un pour l'autre",
        "engine/kernel/role_graph.py",
        "bool(self._matches(domain, place))",
        "bool(self._matches(place, domain))",
    ),
    Fault(
        "un lien n'est retiré que dans un sens",
        "engine/kernel/role_graph.py",
        "            del self._members[domain][role][member]\n",
        "",
    ),
    Fault(
        "un lien retiré reste dans ceux que rejoue la comparaison de noms",
        "engine/casbin/role_manager.py",
        "        self._links.pop((name1, name2, place), None)\n",
        "",
    ),
    # --- listes de règles
    Fault(
        "les priorités sont renversées",
        "engine/kernel/rows.py",
        "else (_priority(row[self.priority]), self.last)",
        "else (-_priority(row[self.priority]), self.last)",
    ),
    Fault(
        "une règle remplacée passe à la fin",
        "engine/kernel/rows.py",
        "self._insert(new, rank)",
        "self._insert(new, self._new_rank(new))",
    ),
    Fault("un double retiré perd la mauvaise place", "engine/kernel/rows.py", "copies.pop(0)", "copies.pop()"),
    Fault("un filtre vide filtre", "engine/kernel/rows.py", 'enumerate(values) if value != ""}', "enumerate(values)}"),
    # --- motifs
    Fault(
        "« doc:* » couvre « doc: »",
        "engine/kernel/acl_match.py",
        " and str.startswith(value, pattern[:-1]) and len(value) >= len(pattern)",
        " and str.startswith(value, pattern[:-1])",
    ),
    Fault(
        "« doc:* » couvre « docteur »",
        "engine/kernel/acl_match.py",
        "str.startswith(value, pattern[:-1])",
        "str.startswith(value, pattern[:-2])",
    ),
    # --- évaluation et compilation
    Fault("un flottant nul accorde", "engine/kernel/evaluation.py", "return answer != 0", "return True"),
    Fault(
        "un attribut absent vaut rien",
        "engine/kernel/answers.py",
        "            raise AttributeError(name) from error",
        "            return error is None",
    ),
    # --- ce qu'un matcher strict répond
    Fault(
        "ce qui n'est pas faux est vrai",
        "engine/kernel/answers.py",
        "    if value is True or value is False:\n        return value",
        "    if value is not None:\n        return bool(value)",
    ),
    Fault(
        "un texte est différent d'un nombre",
        "engine/kernel/answers.py",
        "        return kind is against",
        "        return True",
    ),
    Fault(
        "un élément d'une autre sorte passe inaperçu",
        "engine/kernel/answers.py",
        "if known is not type(None) and not is_alike",
        "if known is None and not is_alike",
    ),
    Fault("la méthode d'un texte est un attribut", "engine/kernel/answers.py", "return _held", "return attribute"),
    Fault(
        "un attribut illisible vaut ce qu'il est",
        "engine/kernel/answers.py",
        "if isinstance(found, UnreadableAttribute)",
        "if found is NOTHING",
    ),
    Fault(
        "une porte n'a pas à répondre vrai ou faux",
        "engine/kernel/checked.py",
        "return visited if is_boolean(node)",
        "return visited if node",
    ),
    Fault(
        "les sortes supposées d'une part ne sont pas éprouvées",
        "engine/kernel/checked.py",
        "if not self._proofs:",
        "if self._is_supposed:",
    ),
    Fault(
        "une fonction de textes compare n'importe quoi",
        "engine/kernel/strict_evaluation.py",
        "if is_textual:",
        "if name == '':",
    ),
    Fault("un booléen est un propriétaire", "engine/kernel/acl_match.py", " and not isinstance(value, bool)", ""),
    Fault("un UUID se compare avec sa casse", "engine/kernel/acl_match.py", "return text.lower()", "return text"),
    Fault(
        "un objet qui s'appelle comme une coroutine passe pour ordinaire",
        "engine/casbin/functions.py",
        "for one in (function, called))",
        "for one in (function,))",
    ),
    Fault(
        "le second matcher n'est pas essayé",
        "engine/casbin/trial.py",
        'enforcer.model["m"].items():',
        '[("m", enforcer.model["m"]["m"])]:',
    ),
    Fault(
        "une fonction remplacée garde l'index de l'ancienne",
        "engine/casbin/compiler.py",
        "if self.functions.get(name) is function}",
        "if name in self.functions and function}",
    ),
    Fault(
        "l'effet du contexte est ignoré",
        "engine/casbin/compiler.py",
        'effects[context[2] if context[2] in effects else "e"].value',
        'effects["e"].value',
    ),
    # --- exécuteur
    Fault(
        "changer une fonction laisse ce qui en a été compilé",
        "engine/casbin/enforcer.py",
        "if self.get(name) is not function:",
        "if name not in self:",
    ),
    Fault(
        "couper l'exécution laisse la décision rapide",
        "engine/casbin/enforcer.py",
        "        self._enabled = enabled\n        self._forget_compiled()",
        "        self._enabled = enabled",
    ),
    Fault(
        "en mode strict, une politique vide se joue comme celle de Casbin",
        "engine/casbin/enforcer.py",
        "if self.schema.names_rules and not self.model.rows(context[1]):",
        "if not self.schema.names_rules and not self.model.rows(context[1]):",
    ),
    Fault(
        "un changement appliqué n'ajoute pas ses règles",
        "engine/casbin/enforcer.py",
        "                rows.place(rule.values, numbers.get(rule, rows.last + 1))\n",
        "",
    ),
    # --- base et réplique
    Fault(
        "deux règles différentes ont la même empreinte",
        "engine/adapters/base.py",
        '        state.update(len(encoded).to_bytes(4, "big"))\n',
        "",
    ),
    Fault(
        "retirer une règle absente ne se dit pas",
        "engine/adapters/sql.py",
        "return [] if found == len(rules) else [",
        "return [] if found <= len(rules) else [",
    ),
    Fault(
        "la dernière valeur d'une règle n'est pas écrite",
        "engine/adapters/base.py",
        "padded = (*rule.values, *[None] * (len(COLUMNS) - len(rule.values)))",
        "padded = (*rule.values[:-1], *[None] * (len(COLUMNS) - len(rule.values) + 1))",
    ),
    Fault(
        "la réplique ne met pas en service ce qu'elle écrit",
        "shared/sync/replica.py",
        "is_next = change.revision == self.revision + 1",
        "is_next = change.revision == self.revision",
    ),
    Fault(
        "une réplique en retard se croit à jour",
        "shared/sync/replica.py",
        "missing = head.revision - known.revision",
        "missing = 0",
    ),
]


def main(wanted: str = "") -> int:
    """Sème chaque faute ; rend 1 si l'une passe inaperçue."""
    chosen = [fault for fault in FAULTS if wanted in fault.name]
    say(f"{len(chosen)} fautes, {WORKERS} à la fois ; d'abord, sans faute :")
    with tempfile.TemporaryDirectory(prefix="planted-bugs-") as folder:
        clean = tested(Path(folder) / "sans-faute", None)
        say(f"  {clean}")
        if not clean.startswith("manquée"):
            say("les essais échouent déjà : rien à mesurer.")
            return 1
        with ThreadPoolExecutor(WORKERS) as pool:
            places = [Path(folder) / str(number) for number in range(len(chosen))]
            verdicts = list(pool.map(reported, places, chosen))
    missed = [fault.name for fault, verdict in zip(chosen, verdicts, strict=True) if not verdict.startswith("vue")]
    say(f"{len(chosen) - len(missed)} vues sur {len(chosen)}" + "".join(f"\n  manquée : {name}" for name in missed))
    return 1 if missed else 0


def reported(place: Path, fault: Fault) -> str:
    """Sème une faute, et dit aussitôt ce qu'il en est."""
    verdict = tested(place, fault)
    say(f"  {fault.name} → {verdict}")
    return verdict


def tested(place: Path, fault: Fault | None) -> str:
    """Copie l'arbre, y met la faute s'il y en a une, et dit quel essai la voit."""
    copy_tree(place)
    if fault is not None:
        path = place / "fastapi_acl" / fault.path
        text = path.read_text("utf-8")
        if text.count(fault.old) != 1:
            return f"introuvable : le texte paraît {text.count(fault.old)} fois dans {fault.path}"
        path.write_text(text.replace(fault.old, fault.new), "utf-8")
    verdict = seen(place)
    shutil.rmtree(place)
    return verdict


def copy_tree(place: Path) -> None:
    """Copie ce que les essais lisent."""
    place.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, place / name)


def seen(place: Path) -> str:
    """Lance les essais rapides du moteur, et dit lequel échoue."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            [sys.executable, *PYTEST],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"vue : les essais ne finissent pas en {TIMEOUT} s"
    took = f"{time.monotonic() - started:.0f} s"
    if run.returncode == 0:
        return f"manquée ({took})"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return (
        f"vue par {failed[1]} ({took})"
        if failed
        else f"échec sans essai ({took}) : {run.stdout[-300:]}{run.stderr[-300:]}"
    )


def say(text: str) -> None:
    """Montre l'avancement, sans attendre."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
