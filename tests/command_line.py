"""The command line, called in this process."""

from typer.testing import CliRunner

from atlas.cli import app
from atlas.errors import AtlasError


def atlas(*arguments, expect=0, stdin=None):
    """Runs a command as `main` would, and returns its output; an AtlasError is its message and its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    code, output = result.exit_code, result.stdout + result.stderr
    if isinstance(result.exception, AtlasError):
        code, output = result.exception.exit_code, output + str(result.exception)
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert code == expect, f"exit {code}: {output}"
    return output
