"""`python -m kvlock.cli`."""

from kvlock.cli import run_and_exit

run_and_exit()
