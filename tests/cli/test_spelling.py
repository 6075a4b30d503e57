"""Messages of the library name parameters and methods; the command line replaces them by options and commands."""

from __future__ import annotations

import ast
import inspect
import json
import operator
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from rich.console import Console

import lungmix
from lungmix import export, publish, serve
from lungmix.analysis import group_comparison, strata
from lungmix.callbacks import with_log_file
from lungmix.callbacks.progress_bars import ProgressBars
from lungmix.cli.app import app, main
from lungmix.cli.progress import Lines, Warnings
from lungmix.cli.redaction import command_line, own_store, printable
from lungmix.cli.show import result_values
from lungmix.cli.show_export import exported_values
from lungmix.cli.show_fits import to_json
from lungmix.cli.show_scan import findings_values
from lungmix.cli.spelling import COMMANDS, OPTIONS, with_options
from lungmix.errors import UsageError, mark_path
from lungmix.export import Exported
from lungmix.formats import RejectedSource
from lungmix.intake.discovery import DiscoveredScan
from lungmix.pipeline import RunResult

PACKAGE = Path(lungmix.__file__).parent
CALLABLES = [
    lungmix.connect,
    lungmix.export_case,
    export.options_for,
    serve.serve,
    lungmix.Pipeline,
    *(operator.attrgetter(name.removeprefix("lungmix."))(lungmix) for name in COMMANDS),
    lungmix.MaskParameters,
    lungmix.FitParameters,
    lungmix.IntakeParameters,
    lungmix.SeriesFilter,
    lungmix.GaussianMixture,
    strata.study,
    group_comparison.compare_groups,
    publish.publish,
    publish.About,
    publish.SplitRule,
]
PARAMETERS = {name for function in CALLABLES for name in inspect.signature(function).parameters}
OTHER_CODE = {"dcmdjpeg", "gdcmconv --raw", "failed", "to_json", "X"}
"""Text in backticks in messages that is neither a parameter nor a method: other programs, and parts that vary (X)."""

CLICK = typer.main.get_command(app)
COMMANDS_OF_CLICK = {
    **CLICK.commands,
    **{f"validate {name}": command for name, command in CLICK.commands["validate"].commands.items()},
}


def options_of(command: str) -> set[str]:
    parameters = COMMANDS_OF_CLICK[command].params
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def messages(tree: ast.AST) -> list[str]:
    """Return all string literals of a module except docstrings; in an f-string, each replaced part becomes ``X``."""
    bodies = [node.body for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)]
    docstrings = {id(part.value) for body in bodies for part in body if isinstance(part, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)]
    parts = {id(part) for node in strings if isinstance(node, ast.JoinedStr) for part in node.values}
    return [text_of(node) for node in strings if id(node) not in docstrings | parts]


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "X"


def code_in_messages() -> set[str]:
    files = (file for file in PACKAGE.rglob("*.py") if "cli" not in file.relative_to(PACKAGE).parts)
    texts = [text for file in files for text in messages(ast.parse(file.read_text(encoding="utf-8")))]
    return {code.replace("[X]", "[AIRWAY]") for text in texts for code in re.findall("(?<!`)`([^`]+)`(?!`)", text)}


def is_call(code: str) -> bool:
    try:
        ast.parse(f"_({code})")
    except SyntaxError:
        return False
    return True


CODE = sorted(filter(is_call, code_in_messages()))


@pytest.mark.parametrize("code", CODE)
def test_parameters_and_methods_of_a_message_have_an_option_or_a_command(code):
    assert code in OTHER_CODE or with_options(f"`{code}`") != f"`{code}`"


def test_parameters_of_messages_are_found():
    assert {"allow_gaps=True", "accept_hu=True", "memory_limit", "port"} <= set(CODE)
    assert set(CODE) >= OTHER_CODE
    assert messages(ast.parse('def f():\n    "doc"\n    raise E(f"a {b} c" "d")')) == ["a X cd"]


def test_every_option_is_one_of_a_command_and_every_parameter_one_of_the_library():
    options = set().union(*map(options_of, COMMANDS_OF_CLICK))
    assert set(OPTIONS.values()) - options == set()
    assert {name.partition("=")[0] for name in OPTIONS} - PARAMETERS == set()


@pytest.mark.parametrize("code", [code for code in CODE if code.partition("(")[0] in COMMANDS])
def test_command_of_a_method_has_the_options_of_its_arguments(code):
    _, command, *words = with_options(f"`{code}`").strip("`").split()
    assert {word for word in words if word.startswith("--")} <= options_of(command)


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ("give `accept_hu=True`", "give --accept-hu"),
        ("`scheduler` or `scheduler_file`", "--scheduler or --scheduler-file"),
        ("`workers=-1` is not possible", "--workers -1 is not possible"),
        ("`filter='slices<9'` is", "--series-filter 'slices<9' is"),
        ('try `MaskParameters(preset="physical")`', "try --preset physical"),
        ("pool them with `exclude_flagged=False`", "pool them with --pool-flagged"),
        ("set `exclude_flagged=True` or `quality`", "set --exclude-flagged or --qc-threshold"),
        ("needs `key=FILE`", "needs --key-table FILE"),
        ("`Pipeline.measure(exclude_regions=[AIRWAY])`", "`lungmix measure STORE --exclude-airways`"),
        ("run `Pipeline.mask(MaskParameters(preset=NAME))`", "run `lungmix mask STORE --preset NAME`"),
        ("run `Pipeline.run(sources)` again", "run `lungmix run STORE SOURCE` again"),
        ("make it with `lungmix.run(store, sources)`", "make it with `lungmix run STORE SOURCE`"),
        ("`Pipeline.fit()` or `Pipeline.nothing()`", "`lungmix fit STORE` or `Pipeline.nothing()`"),
        ("run `lungmix fit s.zarr`, `dcmdjpeg` or `x=1`", "run `lungmix fit s.zarr`, `dcmdjpeg` or `x=1`"),
        ("no code ` at all", "no code ` at all"),
    ],
)  # fmt: skip
def test_command_line_spells_parameters_as_options(message, spelled):
    assert with_options(message) == spelled


@pytest.mark.parametrize(
    ("store", "argument"),
    [
        ("cohort.zarr", "cohort.zarr"),
        ("s3://bucket/cohort", "s3://bucket/cohort"),
        ("my cohort's", "'my cohort'\"'\"'s'"),
        ("two\nlines", "STORE"),
        ("\x1b[2J", "STORE"),
    ],
)
def test_commands_name_the_store_as_a_shell_reads_it(store, argument):
    assert with_options("run `Pipeline.mask(MaskParameters(preset='paper'))`", store) == (
        f"run `lungmix mask {argument} --preset paper`"
    )


@pytest.mark.parametrize(
    ("options", "argument"), [([], "'the cohort'"), (["--json"], "STORE"), (["--debug"], "STORE")], ids=str
)
def test_printed_remedy_names_the_store_where_names_may_be_shown(tmp_path, monkeypatch, capsys, options, argument):
    monkeypatch.chdir(tmp_path)
    with own_store():  # Tests that call a command without `main` leave the store of that command set.
        with pytest.raises(SystemExit):
            main(["fit", "the cohort", *options])
        assert f"`lungmix run {argument} SOURCE`" in capsys.readouterr().err.splitlines()[-1]
        assert printable("`Pipeline.fit()`") == "`lungmix fit STORE`"


@pytest.mark.parametrize(("words", "shown"), [([], "Rossi.nrrd"), (["--json"], "the file"), (["--debug"], "the file")])
def test_message_of_a_thread_shows_names_only_where_the_command_may(words, shown):
    with command_line(words), ThreadPoolExecutor() as pool:
        assert pool.submit(printable, f"{mark_path('in/Rossi.nrrd')} is cut").result() == f"{shown} is cut"


def test_what_the_command_line_prints_and_logs_names_options(tmp_path, capsys):
    message = "give `accept_hu=True`"
    console = Console(width=200)
    for callback in (Lines(console), ProgressBars(console, printable), Warnings(console)):
        callback.on_warning(message)
    with with_log_file(Lines(console), tmp_path / "run.log", with_options) as callback:
        callback.on_info(message)
    assert capsys.readouterr().out.splitlines() == ["give --accept-hu"] * 4
    assert "give --accept-hu" in (tmp_path / "run.log").read_text()


def test_messages_in_json_name_options_and_paths_are_unchanged():
    message, option = "give `accept_hu=True`", "give --accept-hu"
    run = RunResult(failed={"case-001": message}, skipped={"source 2": message}, notes={"case-001": (message,)})
    values = json.loads(to_json(result_values(message, run)))
    assert (values["failed"], values["skipped"]) == ({"case-001": option}, {"source 2": option})
    assert (values["notes"], values["store"]) == ({"case-001": [option]}, message)
    exported = Exported(files={"case-001": [Path(message)]}, failed={"case-002": message}, tables=[Path(message)])
    values = json.loads(to_json(exported_values(message, exported)))
    assert (values["store"], values["files"], values["tables"]) == (message, {"case-001": [message]}, [message])
    assert values["failed"] == {"case-002": option}
    rejected = DiscoveredScan("source 1", RejectedSource("scan.nrrd", "nrrd", message))
    assert json.loads(to_json(findings_values([rejected])))["found"][0]["reason"] == option


def test_error_of_a_command_names_its_option(capsys):
    with pytest.raises(SystemExit):
        main(["scan", "none", "--series-filter", "kernel<5"])
    assert "lungmix: --series-filter 'kernel<5' compares a text" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"^`filter='kernel<5'` compares a text"):
        lungmix.SeriesFilter("kernel<5")
