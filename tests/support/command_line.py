"""Helpers for tests of the command line: running a command, and the numbers it should print."""

from __future__ import annotations

from typer.testing import CliRunner

from rankseg._commands import app
from rankseg.evaluation import CaseFolder, compare, standard_methods


def run(*arguments):
    try:
        runner = CliRunner(mix_stderr=False)  # with click below 8.2
    except TypeError:
        runner = CliRunner()
    return runner.invoke(app, [str(argument) for argument in arguments])


def assert_no_traceback(result):
    """An exit that was meant, not an exception on its way out."""
    assert result.exception is None or isinstance(result.exception, SystemExit)


def library(folder, prior_correction=False, predict_above=None, **options):
    """What the library says about a folder."""
    cases = CaseFolder.open(folder, prior_correction=prior_correction)
    methods = standard_methods(**options)
    return compare(
        cases,
        methods,
        classes=cases.classes,
        ignore_index=cases.ignore_index,
        predict_above=predict_above,
    )


def points(value):
    return f"{100 * value:.2f}"


def signed(value):
    return f"{100 * value:+.2f}" if round(100 * value, 2) else "0.00"
