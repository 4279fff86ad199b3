"""Records each test as it starts and ends, for the process that waits for it: a plug-in of pytest and a runner of Django's.

Runs inside the suites' processes, so it needs nothing of ours.
"""

import json
import os
import unittest


def write(name, outcome, why=""):
    with open(os.environ["POINTSMAN_RECORD"], "a") as file:
        file.write(json.dumps([name, outcome, why]) + "\n")


def done():
    with open(os.environ["POINTSMAN_DONE"]) as file:
        return set(file.read().splitlines())


def last_line(text):
    """Of a traceback, the error."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors[0] if errors else lines[-1] if lines else "")[:300]


# pytest

outcomes = {}


def pytest_collection_modifyitems(items):
    before = done()
    items[:] = [item for item in items if item.nodeid not in before]


def pytest_runtest_logstart(nodeid):
    outcomes[nodeid] = ("passed", "")
    write(nodeid, "starts")


def pytest_runtest_logreport(report):
    # A test has failed if any of its phases has; one that is expected to fail and does is skipped in pytest's terms.
    if report.failed:
        outcomes[report.nodeid] = ("failed", last_line(report.longrepr))
    elif report.skipped and outcomes[report.nodeid][0] == "passed":
        outcomes[report.nodeid] = ("skipped", str(report.longrepr)[-200:])


def pytest_runtest_logfinish(nodeid):
    write(nodeid, *outcomes.pop(nodeid))


# Django


class Result(unittest.TextTestResult):
    """unittest's, in which one test may fail in several subtests."""

    def startTest(self, test):
        super().startTest(test)
        self.outcome = ("passed", "")
        write(test.id(), "starts")

    def stopTest(self, test):
        super().stopTest(test)
        write(test.id(), *self.outcome)

    def failed(self, error):
        self.outcome = ("failed", f"{error[0].__name__}: {error[1]}".splitlines()[0][:300])

    def addError(self, test, error):
        super().addError(test, error)
        if test.id().startswith(("setUpClass", "tearDownClass", "setUpModule")):
            write(test.id(), "failed", f"{error[0].__name__}: {error[1]}".splitlines()[0][:300])
        self.failed(error)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.failed(error)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.failed(error)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if getattr(self, "outcome", None):
            self.outcome = ("skipped", reason)

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.outcome = ("skipped", "expected to fail")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.outcome = ("failed", "unexpected success")


def django_runner():
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):
        def get_resultclass(self):
            return Result

        def build_suite(self, *arguments, **options):
            suite = super().build_suite(*arguments, **options)
            before = done()
            suite._tests = [test for test in suite if test.id() not in before]
            return suite

    return Runner
