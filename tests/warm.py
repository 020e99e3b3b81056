"""Imported by the server that forks the tests' processes, before it forks."""

import gc

import pytest  # noqa: F401

import training.run  # noqa: F401

gc.freeze()  # or each process would look through all that was imported when it collects garbage: a third of a second
