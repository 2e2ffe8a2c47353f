.PHONY: demo test clean

.venv/ready: pyproject.toml constraints.txt
	python3 -m venv .venv && .venv/bin/pip install -q -e '.[all]' -c constraints.txt && touch .venv/ready

demo: .venv/ready
	.venv/bin/kvlock demo

test: .venv/ready
	.venv/bin/ruff check src tests && .venv/bin/ruff format --check src tests && .venv/bin/pyright && .venv/bin/lint-imports && .venv/bin/pytest

clean:
	rm -rf .venv kvlock-demo
