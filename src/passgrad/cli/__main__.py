"""``python -m passgrad.cli``."""

from passgrad.cli import main

main()
