# make            the environment in .venv, and .hqrc to be sourced (PATH, HQPATH)
# make demo       a whole hq on this machine, shown as a user sees it
# make check      style, types, import rules
# make test       all tests; as root it installs Debian packages that they need
# make explore    the properties of the cores with new random questions, ten rounds
# make test-mysql the database tests on MySQL 8, in Docker by testcontainers
# make chaos      faults of all kinds under load, then every task is accounted for: make chaos SEED=1 FAULTS=100 TASKS=5000 (as root)
# make chaos-standby  two machines with hq-server, killed, stopped and cut off in turn: make chaos-standby SEED=1 FAULTS=12 (as root)
# make bench      how fast hq is on this machine, beside its references (HyperQueue is installed for it once); ROWS=array,latency chooses
# make clean      remove what make made

PYTHON ?= python3
WORKERS ?= 2
SEED ?= 1
FAULTS ?= 100
TASKS ?= 5000
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip --disable-pip-version-check
# a plain line in a .pth file: the other way of editable installs costs every command twice its start
INSTALL := install --config-settings editable_mode=compat
PYTEST := $(BIN)/python -m pytest

.PHONY: all demo bench explore check test test-tools test-mysql chaos chaos-standby clean
.DELETE_ON_ERROR:

all: $(VENV)/installed .hqrc
	@echo "hq is installed. Now:  . ./.hqrc  and  hq-admin init DIR"

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "hq needs Python 3.11 or newer; make PYTHON=/path/to/python3.11 chooses one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv; \
	    else echo "python3 has no venv here: ask for the package python3-venv" >&2; exit 1; fi
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/python setup.cfg pyproject.toml bin
	$(PIP) $(INSTALL) -e .
	@# its hook in site-packages would run at the start of every command; Python 3.12 has done without it since
	@$(PIP) uninstall -q -y setuptools >/dev/null 2>&1 || true
	@# users who may not write here would compile every module at every command
	@$(BIN)/python -m compileall -q hq
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) $(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/installed-mysql: $(VENV)/installed-test
	$(PIP) $(INSTALL) -e '.[test,mysql]'
	@touch $@

.hqrc: Makefile
	@{ echo '# made by make; to be sourced:  . ./.hqrc'; \
	   echo 'export HQPATH="$(CURDIR)"'; \
	   echo 'case ":$$PATH:" in *":$(CURDIR)/$(BIN):"*) ;; *) export PATH="$(CURDIR)/$(BIN):$$PATH" ;; esac'; } > $@

demo: all
	$(BIN)/python -m tests.demo.run

check: $(VENV)/installed-test
	$(BIN)/ruff check hq tests
	$(BIN)/mypy
	$(PYTEST) -q tests/unit/test_house.py

test: $(VENV)/installed-test test-tools
	$(PYTEST) -n $(WORKERS) --dist loadfile --ignore=tests/e2e --ignore=tests/mysql tests
	$(PYTEST) tests/e2e

# what the tests need of the system; an ordinary user is told by name which tests cannot run
test-tools:
	@missing=; \
	command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || missing="$$missing mariadb-server"; \
	[ -x /usr/sbin/sshd ] || missing="$$missing openssh-server"; \
	command -v ssh >/dev/null || missing="$$missing openssh-client"; \
	command -v ip >/dev/null || [ -x /usr/sbin/ip ] || [ -x /sbin/ip ] || missing="$$missing iproute2"; \
	command -v iptables >/dev/null || [ -x /usr/sbin/iptables ] || missing="$$missing iptables"; \
	command -v cron >/dev/null || [ -x /usr/sbin/cron ] || missing="$$missing cron"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	command -v zsh >/dev/null || missing="$$missing zsh"; \
	command -v fish >/dev/null || missing="$$missing fish"; \
	command -v slurmctld >/dev/null || [ -x /usr/sbin/slurmctld ] || missing="$$missing slurmctld slurmd slurm-client munge"; \
	command -v slurmdbd >/dev/null || [ -x /usr/sbin/slurmdbd ] || missing="$$missing slurmdbd"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing$$missing for the tests"; \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	else echo "not here, so some tests cannot run:$$missing"; fi

explore: $(VENV)/installed-test
	for round in 1 2 3 4 5 6 7 8 9 10; do HQ_TEST_PROFILE=explore $(PYTEST) -q tests/property || exit 1; done

test-mysql: $(VENV)/installed-mysql
	$(PYTEST) tests/mysql

chaos: $(VENV)/installed-test test-tools
	$(BIN)/python -m tests.chaos.run --seed $(SEED) --faults $(FAULTS) --tasks $(TASKS)

chaos-standby: $(VENV)/installed-test test-tools
	$(BIN)/python -m tests.chaos.standby --seed $(SEED) --faults $(FAULTS)

ROWS ?= array,separate,cli,latency,many,big,restart,fanin,idle,output
REPEATS ?= 3
COUNT ?= 10000

bench: $(VENV)/installed-test test-tools
	$(BIN)/python -m tests.bench --rows $(ROWS) --repeats $(REPEATS) --count $(COUNT)

clean:
	rm -rf $(VENV) .hqrc build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find hq tests -name __pycache__ -type d -prune -exec rm -rf {} +
