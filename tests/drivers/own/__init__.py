"""The drivers' own test suites: where they come from, how each is run, what is read of their results."""

from . import javascript, python, rust

SUITES = {suite.name: suite for suite in (*python.SUITES, *javascript.SUITES, *rust.SUITES)}
