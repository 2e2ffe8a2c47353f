.PHONY: demo test clean

PIP = .venv/bin/pip install -q -c constraints.txt

.venv/tool: pyproject.toml constraints.txt
	python3 -m venv .venv && $(PIP) -e . && touch .venv/tool

.venv/dev: .venv/tool
	$(PIP) -e '.[dev]' && touch .venv/dev

demo: .venv/tool
	.venv/bin/kvlock demo

test: .venv/dev
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/pyright && .venv/bin/lint-imports && .venv/bin/pytest

clean:
	rm -rf .venv kvlock-demo
