"""`python -m raysk.cli`, where the script is not on the path."""

import sys

from raysk.cli.main import program

sys.exit(program())
