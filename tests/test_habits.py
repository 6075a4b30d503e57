"""What surrounds the code: workflows, hooks, the citation, the version."""

import json
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import lungmix

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = {
    target
    for line in (ROOT / "Makefile").read_text().splitlines()
    if (rule := re.match(r"([\w $()./-]+):(?!=)", line))
    for target in rule[1].replace("$(VENV)", ".venv").split()
}


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def jobs(workflow):
    return read(workflow)["jobs"].items()


def made(words):
    """Targets and variables of a command that calls make."""
    program, *rest = words.split()
    assert program == "make", f"{words!r} is no target of the Makefile"
    return [word for word in rest if "=" not in word], dict(word.split("=") for word in rest if "=" in word)


def commands(workflow):
    return [step["run"] for _, job in jobs(workflow) for step in job.get("steps", []) if "run" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_of_the_makefile_and_nothing_else(workflow):
    for command in commands(workflow):
        targets, variables = made(command)
        assert targets
        assert set(targets) <= TARGETS
        assert all(re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in variables)


def test_workflows_between_them_check_test_and_document():
    called = {target for workflow in WORKFLOWS for command in commands(workflow) for target in made(command)[0]}
    assert {"check", "test", "coverage", "versions", "docs", "dist"} <= called


def test_workflows_leave_out_the_tests_of_scans_that_are_not_public():
    for workflow in WORKFLOWS:
        for targets, variables in map(made, commands(workflow)):
            if {"test", "quick", "coverage", "examples", "versions"} & set(targets):
                assert variables["WITHOUT"] == "real"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_read_only_and_pin_what_they_use(workflow):
    assert read(workflow)["permissions"] == {"contents": "read"}
    for name, job in jobs(workflow):
        assert "write" not in job.get("permissions", {}).values() or name == "publish"
        for used in [job.get("uses"), *(step.get("uses") for step in job.get("steps", []))]:
            assert used is None or used.startswith("./") or re.search(r"@(v\d+|release/v\d+)$", used)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("test", ['"not real']),
        ("quick", ['"not slow and not real']),
        ("examples", ['"not slow and not real']),
        ("coverage", ['"not slow and not real']),
        ("versions", ["--without real"]),
    ],
)
def test_marks_that_are_left_out_reach_pytest(command, expected):
    # Nothing is made: what is there counts as new.
    dry = ["make", "--dry-run", "--always-make", "--no-print-directory", "-C", ROOT, command]
    plain, without = (
        subprocess.run([*dry, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["WITHOUT=real"])
    )
    assert all(part in without for part in expected)
    assert "real" not in plain.replace("realpath", "")


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("command", ["test", "quick", "coverage"])
def test_tests_of_lungmask_are_left_out_where_it_cannot_be_installed(command, is_complete, tmp_path):
    if is_complete:
        (tmp_path / "lungmask").mkdir()
        (tmp_path / "lungmask" / "complete").touch()
    dry = ["make", "--dry-run", "--always-make", "--no-print-directory", "-C", ROOT, command, f"VENV={tmp_path}"]
    done = subprocess.run(dry, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if " -m pytest " in line]
    printed = subprocess.run(
        ["sh", "-c", line.replace(f"{tmp_path}/bin/python -m pytest", "echo")], capture_output=True
    )
    assert "not lungmask" in printed.stdout.decode()
    assert ("(lungmask or not lungmask)" in printed.stdout.decode()) is is_complete


def test_tests_that_use_real_scans_are_marked(request):
    marks = {"real_ct": [], "client": []}
    items = [
        SimpleNamespace(path=ROOT, fixturenames=[name], add_marker=added.append, get_closest_marker=lambda name: None)
        for name, added in marks.items()
    ]
    request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py")).pytest_collection_modifyitems(items)
    assert marks == {"real_ct": [pytest.mark.real], "client": []}


def test_hooks_have_the_versions_of_the_constraints_and_call_what_is_installed():
    repositories = {entry["repo"]: entry for entry in read(".pre-commit-config.yaml")["repos"]}
    pinned = dict(line.split(" ")[0].split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    ruff = repositories["https://github.com/astral-sh/ruff-pre-commit"]
    assert ruff["rev"] == f"v{pinned['ruff']}"
    assert {hook["id"] for hook in ruff["hooks"]} == {"ruff-check", "ruff-format"}
    checked = {Requirement(line).name for line in PROJECT["dependency-groups"]["check"] if isinstance(line, str)}
    for hook in repositories["local"]["hooks"]:
        folder, program = hook["entry"].rsplit("/", 1)
        assert folder == ".venv/bin"
        assert program in checked


def test_workflows_test_every_python_that_the_package_names():
    named = {line.rsplit(" ", 1)[1] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line}
    matrix = read(".github/workflows/tests.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert set(matrix) == named
    (pythons,) = [
        step["with"]["python-version"].split()
        for step in read(".github/workflows/nightly.yml")["jobs"]["versions"]["steps"]
        if "python-version" in step.get("with", {})
    ]
    assert set(pythons) == named


def test_citation_names_the_paper_and_the_release_to_come():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    paper = citation["preferred-citation"]
    assert (paper["doi"], paper["year"], paper["journal"]) == ("10.3390/bioengineering8020026", 2021, "Bioengineering")
    readme = " ".join((ROOT / "README.md").read_text().split())
    authors = ", ".join(f"{who['family-names']} {who['given-names'].replace('. ', '')}" for who in paper["authors"])
    assert authors.replace(".", "") in readme
    assert f"*{paper['title']}.* {paper['journal']} {paper['year']}, {paper['volume']}({paper['issue']})" in readme
    assert citation["license"] == PROJECT["project"]["license"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    latest = re.search(r"^## \[Unreleased\]\n\nTo become (\S+)\.$", changes, re.MULTILINE)[1]
    assert str(citation["version"]) == latest
    assert Version(PROJECT["tool"]["hatch"]["version"]["fallback-version"]).base_version == latest


def test_version_has_no_part_that_changes_within_one_commit():
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    built = Version(ProjectMetadata(str(ROOT), PluginManager()).version)
    assert built.local is None
    assert built >= Version("0.1.0.dev0")


def test_sources_that_are_not_installed_have_a_version():
    # Without site-packages there is nothing of the package but its file.
    code = (
        f"import runpy; print(runpy.run_path({str(Path(lungmix.__file__).with_name('_version.py'))!r})['__version__'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0+unknown\n"


def test_dev_container_and_editors_follow_the_project():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    targets, _ = made(container["postCreateCommand"])
    assert set(targets) <= TARGETS
    parser = ConfigParser()
    parser.read_string("[all]\n" + (ROOT / ".editorconfig").read_text())
    assert parser["*"]["max_line_length"] == str(PROJECT["tool"]["ruff"]["line-length"])
    assert parser["Makefile"]["indent_style"] == "tab"


def test_coverage_has_a_floor():
    assert PROJECT["tool"]["coverage"]["report"]["fail_under"] >= 89


def test_templates_ask_for_no_patients():
    for name in ("bug.yml", "idea.yml"):
        form = read(f".github/ISSUE_TEMPLATE/{name}")
        assert {"name", "description", "body"} <= form.keys()
        assert all(part["type"] == "markdown" or part["id"] for part in form["body"])
    assert "No patient's data" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
