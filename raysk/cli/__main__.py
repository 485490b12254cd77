"""Runs `python -m raysk.cli`, which needs no script on the path."""

import sys

from raysk.cli.main import program

sys.exit(program())
