"""The entry point of `hios`: finds the verb, and turns every mistake into one line.

The verbs are modules of this package with a `command` each, imported when first asked for.
"""

import contextlib
import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

import hios
from hios.errors import HiosError, HiosWarning

__all__ = ["EXIT_BROKEN_PIPE", "EXIT_INTERRUPTED", "EXIT_MISTAKE", "VERBS", "main"]

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

VERBS: dict[str, str] = {
    "compile": "hios_tvm.cli.compile",
    "tune": "hios_tvm.cli.tune",
    "run": "hios_tvm.cli.run",
    "bench": "hios_tvm.cli.bench",
    "schedule": "hios_tvm.cli.schedule",
    "simulate": "hios_tvm.cli.simulate",
    "compare": "hios_tvm.cli.compare",
    "train": "hios_tvm.cli.train",
    "inspect": "hios_tvm.cli.inspect",
    "trace": "hios_tvm.cli.trace",
    "report": "hios_tvm.cli.report",
    "models": "hios_tvm.cli.models",
    "collect": "hios_tvm.cli.collect",
    "serve-measure": "hios_tvm.cli.serve_measure",
    "doctor": "hios_tvm.cli.doctor",
    "completion": "hios_tvm.cli.completion",
}
"""Module of each verb, in the order of the help page."""

# Set by the script of `hios completion` when the Tab key is pressed.
_COMPLETE = "_HIOS_COMPLETE"

# Packages that a broken installation may lack, by the name under which they are imported.
_PACKAGES = {
    "google": "protobuf",
    "matplotlib": "matplotlib",
    "ml_dtypes": "ml-dtypes",
    "msgspec": "msgspec",
    "networkx": "networkx",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "cloudpickle": "cloudpickle",
    "ortools": "ortools",
    "psutil": "psutil",
    "rich": "rich",
    "safetensors": "safetensors",
    "torch": "torch",
    "tornado": "tornado",
    "tvm": "apache-tvm",
    "tvm_ffi": "apache-tvm-ffi",
    "xgboost": "xgboost",
}


class _Verbs(click.Group):
    """A group whose commands are imported when first asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = VERBS.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.command is no click command")
        return command


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(hios.__version__, prog_name="hios")
@click.pass_context
def cli(context: click.Context) -> None:
    """Compile a network, decide on which device and when each operator runs, and run it so.

    \b
    Examples:
      hios compile model.onnx --devices cpu:0,cpu:1 -o model.hios
      hios run model.hios
      hios schedule graph.json --devices 4 --scheduler hios-lp --json

    `hios VERB --help` explains a verb and `hios doctor` this machine. Results go to standard
    output, progress and errors to standard error.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        Without the program's name; None for those of this process.

    Returns
    -------
    int
        As the package's docstring lists them. An exception that is no user's mistake comes
        through with its traceback.
    """
    _prepare_streams()
    try:
        if (asked := os.environ.get(_COMPLETE)) is not None:
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "hios", _COMPLETE, asked)
        # Not cli.main(), which turns a broken pipe into exit code 1 by itself.
        given = sys.argv[1:] if arguments is None else list(arguments)
        with _notes(), cli.make_context("hios", list(given), obj=tuple(given)) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except HiosError as problem:
        return _mistake(str(problem))
    except click.UsageError as problem:
        verb = problem.ctx.command_path if problem.ctx is not None else "hios"
        return _mistake(f"{problem.format_message().rstrip('.')}; see `{verb} --help`")
    except click.ClickException as problem:
        return _mistake(problem.format_message())
    except (click.Abort, KeyboardInterrupt):
        print("hios: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return EXIT_BROKEN_PIPE
    except ImportError as problem:
        package = _PACKAGES.get((problem.name or "").partition(".")[0])
        if package is None:
            raise
        return _mistake(
            f"package {package} cannot be imported ({problem}); install it with "
            f"`python -m pip install {package}`, or see `hios doctor`"
        )
    except OSError as problem:
        # Only what goes to standard output is written outside of hios.ir.serial.
        if problem.errno not in (errno.ENOSPC, errno.EIO) or problem.filename is not None:
            raise
        _drop_output()
        return _mistake(f"cannot write the results to standard output: {problem.strerror}")
    return 0


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Tell what our own parts warn of in one line each, not as a place in a source file."""
    with warnings.catch_warnings():
        # What runs with warnings as errors still gets it as one.
        show = warnings.showwarning

        def note(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, HiosWarning):
                print(f"hios: note: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = note
        yield


def _prepare_streams() -> None:
    """Make any text printable, whatever the locale, and a closed stream a silent one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _mistake(message: str) -> int:
    """Print one line, whatever the message holds, and return its exit code."""
    print(f"hios: error: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_MISTAKE


def _drop_output() -> None:
    """Send what is still buffered nowhere, or the interpreter would complain at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
