"""Logs of other programs, a file a layout; :mod:`passgrad.rollouts.foreign_logs` lists them."""
