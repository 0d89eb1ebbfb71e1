# La porte d'entrée : « make » ou « make help » dit tout le reste.
# Chaque cible crée l'environnement virtuel qu'il lui faut ; il ne faut d'avance que Python 3.10 ou plus récent.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo check test test-full test-faults test-quick test-smoke test-story coverage lint format types contracts bench docs lowest wheel clean

PORT ?= 8000
VENV ?= .venv
BIN := $(VENV)/bin
INTERPRETER := $(shell PYTHON="$(PYTHON)" tests/support/find_python.sh)
# La moitié d'un essai est l'attente d'un serveur : deux de plus à la fois que de cœurs, mais chacun a ses serveurs.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$(( cores < 6 ? cores + 2 : 8 )))
# Compilés une fois pour toutes : chaque processus qu’un essai lance recompilerait sinon toute la bibliothèque.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
QUICK := -m "not slow" -n $(WORKERS) --dist worksteal
SLOW := -m slow -n $(WORKERS) --dist loadscope
PIP_FLAGS := --disable-pip-version-check --progress-bar off

help: ## Dit ce que chaque cible fait
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# Un environnement par usage, refait quand pyproject.toml change.
define environment
	@test -n "$(INTERPRETER)" || { echo "Aucun Python 3.10+ qui marche : installez-en un, ou donnez son chemin par PYTHON=…" >&2; exit 1; }
	@echo "→ environnement $(1) ($$($(INTERPRETER) --version)), dépendances : $(2)"
	@$(INTERPRETER) -m venv --clear $(1)
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --quiet --upgrade pip
	@$(1)/bin/python -m pip install $(PIP_FLAGS) -e '.[$(2)]' | grep -E '^(Collecting|Installing|Successfully|ERROR)'; test $${PIPESTATUS[0]} -eq 0
	@touch $@
endef

$(VENV)/.demo: pyproject.toml
	$(call environment,$(VENV),demo)

$(VENV)/.dev: pyproject.toml
	$(call environment,$(VENV),dev)
	@touch $(VENV)/.demo

$(VENV)-docs/.docs: pyproject.toml
	$(call environment,$(VENV)-docs,docs)

$(VENV)-bench/.bench: pyproject.toml
	$(call environment,$(VENV)-bench,bench)

demo: $(VENV)/.demo ## Sert l'application d'exemple sur SQLite (PORT=8000)
	@echo "→ http://127.0.0.1:$(PORT)/docs   (administrateur : admin / administrateur-de-demo ; Ctrl-C pour arrêter)"
	@$(BIN)/python -m uvicorn examples.demo:app --host 127.0.0.1 --port $(PORT)

check: lint types contracts test-story ## Ce qu'il faut avant un commit : style, types, murs, et l'essentiel des essais

test: test-quick ## Exécute toute la suite, sur de vrais serveurs
	@$(PYTEST) $(SLOW)

test-full: $(VENV)/.dev ## Exécute toute la suite, recherches longues comprises (ACL_TEST_FULL=1) ; une heure ou plus
	@tests/support/install_servers.sh "$(INTERPRETER)"
	@ACL_TEST_FULL=1 $(PYTEST) $(QUICK)
	@ACL_TEST_FULL=1 $(PYTEST) $(SLOW)

test-faults: $(VENV)/.dev ## Sème des fautes d'une ligne, et vérifie que des essais les voient (FAULTS=mot…) ; une heure ou plus
	@tests/support/install_servers.sh "$(INTERPRETER)"
	@$(BIN)/python -m tests.planted_bugs $(FAULTS)

test-quick: $(VENV)/.dev ## Exécute la partie rapide de la suite
	@tests/support/install_servers.sh "$(INTERPRETER)"
	@$(PYTEST) $(QUICK)

test-smoke: $(VENV)/.dev ## Exécute le plus sensible à la version de Python : comptes, gardes, annonces, caches, cycle de vie
	@tests/support/install_servers.sh "$(INTERPRETER)"
	@$(PYTEST) $(QUICK) tests/architecture tests/auth tests/permissions \
	  tests/e2e/test_story.py tests/e2e/test_lifespan.py tests/e2e/test_guarded_route.py \
	  tests/shared/test_watcher.py tests/shared/test_revision_gate.py tests/engine/test_models.py tests/engine/test_evaluation.py

test-story: $(VENV)/.dev ## Exécute l'essentiel : une histoire entière, les gardes, les modèles
	@tests/support/install_servers.sh "$(INTERPRETER)"
	@$(PYTEST) $(QUICK) tests/e2e/test_story.py tests/e2e/test_guarded_route.py tests/engine/test_models.py

coverage: $(VENV)/.dev ## Dit ce que la partie rapide de la suite n'exécute pas
	@tests/support/install_servers.sh "$(INTERPRETER)"
	@$(PYTEST) $(QUICK) --cov --cov-report=term:skip-covered

lint: $(VENV)/.dev ## Vérifie le style (ruff, toutes les règles)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.dev ## Met le code en forme
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.dev ## Vérifie les types (mypy strict)
	@$(BIN)/mypy fastapi_acl examples tests/typing setup.py

contracts: $(VENV)/.dev ## Vérifie les murs de l'architecture (import-linter)
	@$(BIN)/lint-imports

bench: $(VENV)-bench/.bench ## Mesure, et compare aux bibliothèques voisines dans la même exécution (10 minutes)
	@$(VENV)-bench/bin/python -m tests.bench

docs: $(VENV)-docs/.docs ## Construit les pages de docs/ dans site/
	@$(VENV)-docs/bin/mkdocs build --strict --quiet
	@echo "→ site/index.html"

lowest: ## Exécute la partie rapide sur la plus ancienne version de chaque dépendance
	@tests/support/lowest.sh "$(INTERPRETER)" "$(VENV)-lowest"

wheel: $(VENV)/.dev ## Construit le paquet dans dist/
	@$(BIN)/python -m pip wheel $(PIP_FLAGS) --no-deps -w dist .

clean: ## Supprime les environnements et ce qui se reconstruit
	@rm -rf .venv .venv-* build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
