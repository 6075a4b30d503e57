"""The pages agree with the program: commands and options, messages, terms, links."""

import ast
import re
import runpy
import sys
from pathlib import Path

import command_line
import pytest
from generated_tables import with_code
from glossary_terms import TERMS, split_terms
from message_index import ELLIPSIS, error_classes, raised_messages, template_of
from typer.testing import CliRunner

from lungmix import errors
from lungmix.cli.app import app
from lungmix.cli.spelling import with_options
from support.labelled import labelled_store

ROOT = Path(__file__).parents[2]
PACKAGE = Path(errors.__file__).parent
DOCS = ROOT / "docs"
GENERATED = DOCS / "commands"
PAGES = [
    ROOT / "README.md",
    *(path for path in sorted(DOCS.rglob("*.md")) if not path.is_relative_to(DOCS / "_build")),
]
WRITTEN = [page for page in PAGES if not page.is_relative_to(GENERATED)]
SPELLING = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMANDS = command_line.commands()


def help_of(name: str) -> str:
    """What a user reads, in lines that are long enough not to be broken."""
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "400", "TERM": "dumb"})
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_page_of_a_command_has_the_options_that_its_help_prints(name):
    page = command_line.pages()[f"{command_line.page_name(name)}.md"]
    table = page.split("## Options")[1]
    printed = set(re.findall(r"^\W*(--[a-z-]+)", help_of(name), re.MULTILINE))
    assert printed - {"--help"} == {row.split("`")[1] for row in table.splitlines() if row.startswith("| `--")}


def test_example_of_a_command_is_on_its_page():
    assert "lungmix run cohort.zarr scans/ --preset physical" in command_line.pages()["run.md"]


def test_every_command_of_the_help_has_a_page():
    listed = re.findall(r"^\W*([a-z]+)  +[A-Z]", help_of("").split("Commands")[1], re.MULTILINE)
    groups = {name.split()[0] for name in COMMANDS}
    assert sorted(listed) == sorted(groups)


@pytest.mark.parametrize("store", ["info", "mask", "label", "measure", "fit", "report", "export"])
def test_help_of_store_promises_a_new_one_only_where_a_command_makes_it(store):
    assert "created if it does not exist" not in help_of(store)
    assert "created if it does not exist" in help_of("run")
    assert "created if it does not exist" in help_of("convert")


def test_help_of_export_names_every_image():
    from lungmix.tissue import segments_of

    line = next(line for line in help_of("export").splitlines() if "--image" in line)
    assert all(re.search(rf"\b{image}\b", line) for image in ("ct", "lung", "side", "tissue", "tissue_median"))
    assert segments_of("side")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_options_of_a_page_exist(page):
    for line in commands_in(page.read_text(encoding="utf-8")):
        words = line.split()[1:]
        name = " ".join(words[:2]) if words[0] == "validate" and len(words) > 1 else words[0]
        assert name in {*COMMANDS, "validate"}
        options = {option for p in COMMANDS[name].params for option in p.opts} if name in COMMANDS else set()
        assert set(SPELLING.findall(line)) - options <= {"--debug", "--help"}, line


def commands_in(text: str) -> list[str]:
    """Commands of lungmix in blocks for the shell and in code within sentences."""
    blocks = [
        line.partition("#")[0]
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return [code for code in [*blocks, *inline] if re.match(r"lungmix [a-z]", code)]


def test_commands_are_found_in_blocks_and_sentences():
    text = "lungmix reads\n```sh\nlungmix run a b --yes  # --no\n```\nor `lungmix info\na`, ```text\nlungmix no\n```"
    assert commands_in(text) == ["lungmix run a b --yes  ", "lungmix info a"]


def sources() -> list[str]:
    """Every string of the source code, with an ellipsis for what varies."""
    nodes = (
        node for path in (ROOT / "src").rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )
    return [template_of(node) for node in nodes if isinstance(node, (ast.Constant, ast.JoinedStr))]


def test_messages_of_the_error_page_are_those_of_the_program():
    common = (DOCS / "errors.md").read_text(encoding="utf-8").split("## Common messages")[1].split("## Classes")[0]
    quoted = [part for row in common.splitlines() if row.startswith("| `") for part in row.split("`")[1:2]]
    texts = list(map(with_options, sources()))
    patterns = {text: ".*".join(re.escape(part.strip()) for part in text.split(ELLIPSIS)) for text in quoted}
    assert len(quoted) > 25
    assert [
        text for text, pattern in patterns.items() if not any(re.search(pattern, source_text) for source_text in texts)
    ] == []


def test_index_of_messages_has_those_that_are_raised_in_pieces():
    messages = dict(reversed(pair) for pair in raised_messages())
    assert messages["… is empty: get the file again"] == "SourceError"
    assert messages["`memory_limit=…` is not a size: write it like 2GB"] == "UsageError"


def test_messages_about_sources_and_stores_say_what_to_do():
    about = [
        text
        for name, text in raised_messages()
        if issubclass(getattr(errors, name), errors.SourceError | errors.StoreError) and not text.endswith(ELLIPSIS)
    ]
    assert len(about) > 100
    assert [text for text in about if errors.LungmixError(text).remedy is None] == []


def test_table_of_errors_has_every_class():
    classes = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.LungmixError)
    }
    assert set(error_classes()) == classes


def defined_terms() -> set[str]:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", text, re.DOTALL)
    return {line for block in blocks for line in block.splitlines() if line and not line.startswith(" ")}


def test_glossary_has_the_words_that_pages_link_and_those_of_tables():
    expected = {
        "HU", "slab", "shard", "component", "stage", "case", "LI", "GGO", "MAP", "mixture", "S", "preset", "fit",
        "published model", "zone", "region", "island",
    }  # fmt: skip
    assert (expected | set(TERMS)) - defined_terms() == set()


def test_first_mention_of_a_term_is_linked_and_no_later_one():
    seen = {"HU"}
    pieces = split_terms("Slabs of HU: a slab, GGO-like, GGO; example.LI and LI.", seen)
    assert [piece for piece in pieces if piece[1]] == [("Slabs", "slab"), ("GGO", "GGO"), ("LI", "LI")]
    assert "".join(text for text, _ in pieces) == "Slabs of HU: a slab, GGO-like, GGO; example.LI and LI."
    assert seen == {"HU", "slab", "GGO", "LI"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_of_a_page_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    relative = [target for target in targets if "://" not in target and "commands/" not in target]
    assert [target for target in relative if not (page.parent / target).is_file()] == []


def broken_rows(text: str) -> list[str]:
    """Rows of tables with more or fewer cells than the head, or without a head."""
    lines = re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()
    broken, cells = [], 0
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|"):
            cells = 0
            continue
        count = len(re.findall(r"(?<!\\)\|", line))
        if not cells and following.startswith("| -") and set(following) <= set("|-: "):
            cells = count
        if count != cells:
            broken.append(line)
    return broken


def test_broken_rows_of_tables_are_found():
    head = "| a | b |\n| --- | --- |\n"
    assert broken_rows(f"{head}| `x\\|y` | 2 |\n") == []
    assert broken_rows(f"{head}| 1 | 2 | 3 |\n") == ["| 1 | 2 | 3 |"]
    assert broken_rows(f"{head}| 1 | 2 |\n\n| 3 | 4 |\n") == ["| 3 | 4 |"]


def test_tables_of_pages_are_whole():
    texts = {page.name: page.read_text(encoding="utf-8") for page in WRITTEN} | command_line.pages()
    assert {name: rows for name, text in texts.items() if (rows := broken_rows(text))} == {}


def test_commands_in_messages_are_code_in_the_index_of_messages():
    parts = with_code("run `lungmix fit` or `a`").children
    assert [(part.tagname, part.astext()) for part in parts if part.astext()] == [
        ("#text", "run "), ("literal", "lungmix fit"), ("#text", " or "), ("literal", "a"),
    ]  # fmt: skip


def test_every_page_is_in_one_table_of_contents():
    listed = []
    for page in WRITTEN:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed += [(page.parent / f"{name}.md").resolve() for name in names]
    pages = [page for page in WRITTEN if page.is_relative_to(DOCS) and page.relative_to(DOCS).parts[0] != "performance"]
    expected = {page.resolve() for page in pages} - {(DOCS / "index.md").resolve()}
    assert sorted(path for path in listed if path.parent != GENERATED.resolve()) == sorted(expected)


def test_figure_of_the_tutorial_is_drawn_from_a_measured_store(tmp_path, monkeypatch):
    labelled_store(tmp_path / "cohort.zarr", scans=2)
    monkeypatch.setattr(sys, "argv", ["figure.py", str(tmp_path / "cohort.zarr"), str(tmp_path / "figure.png")])
    drawn = runpy.run_path(str(DOCS / "tutorial_figure.py"))
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert drawn["labels"].max() > 0
    assert list(drawn["base"]) == pytest.approx([100, 100])


def test_files_and_names_of_the_recipes_for_contributors_exist():
    words = {word for word in re.findall(r"`([^`\n]+)`", (DOCS / "extending.md").read_text()) if "NAME" not in word}
    files = {word for word in words if word.endswith((".py", ".md"))}
    assert {file for file in files if not (PACKAGE / file).exists() and not (ROOT / file).exists()} == set()
    code = {*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")} - {Path(__file__)}
    source = "\n".join(file.read_text() for file in code)
    names = {name for word in words - files for name in re.findall(r"[A-Za-z_]{3,}", word.partition("(")[0])}
    missing = {name for name in names if not re.search(rf"\b{name}\b", source)}
    assert missing == {"read_name", "write_name"}, "functions that a contributor writes"


def missing_paths(text: str) -> list[str]:
    """Paths in code that the package lacks; a row of a table that begins with a folder names files of this folder."""
    missing = []
    for line in text.splitlines():
        row = re.match(r"\| `(\w+)/` \|", line)
        for path in re.findall(r"`([\w/]+(?:\.py|/)|\w+(?:/\w+)+)`", line):
            stem = path.rstrip("/")
            candidates = [PACKAGE / stem, PACKAGE / f"{stem}.py", *((PACKAGE / row[1]).rglob(stem) if row else ())]
            if not any(candidate.exists() for candidate in candidates):
                missing.append(path)
    return missing


def test_missing_paths_are_found():
    rows = "| `store/` | `lock/`, `acquire.py`, `find_scans` |\n| `store/` | `retry.py`, `lock/owners.py` |\n"
    prose = "`stages/convert`, `kernels/mask.py`, `tissue.py`, `stages/`; `stages/gone`, `mask.py`, `gone/`\n"
    assert missing_paths(rows + prose) == ["retry.py", "lock/owners.py", "stages/gone", "mask.py", "gone/"]


def test_files_of_the_architecture_page_exist():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert missing_paths(re.sub(r"```.*?```", "", text, flags=re.DOTALL)) == []
