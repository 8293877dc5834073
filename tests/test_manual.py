"""The manual builds without a warning, and everything that the product has is in it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from hypothesis import given

import app.cli
import ctxplan
from app.cli.jobs import HELP
from app.main import create_app
from app.problems import KINDS
from app.settings import Settings
from estimator import RULES, CtxplanError
from estimator.calibration.document import WIDTHS
from estimator.checkpointing import DOUBLE_BUFFER_HEADROOM_BYTES, MINIMUM_OFFLOAD_BYTES, SMART_MIN_LENGTH
from estimator.phases import PATHS
from scripts.manual import commands, errors, metrics, settings, shown, terms
from scripts.manual.pages import DOCS, REFERENCE, WHOLE, in_part
from tests.estimator.random_jobs import STEADY, architecture_of, job_data

ROOT = DOCS.parent
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
JOB = ROOT / "examples" / "llama-3.3-70b-qlora-89k.json"
MIB = 2**20


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def sphinx(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Builds a manual as `make docs` does."""
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual, built."""
    target = tmp_path_factory.mktemp("manual")
    done = sphinx(DOCS, target)
    assert done.returncode == 0, done.stderr
    return target


class TestBuilding:
    def test_every_page_becomes_one_that_the_search_knows(self, site: Path) -> None:
        index = (site / "searchindex.js").read_text(encoding="utf-8")
        for file in DOCS.rglob("*.md"):
            name = str(file.relative_to(DOCS).with_suffix(""))
            assert (site / f"{name}.html").is_file()
            assert f'"{name}"' in index

    def test_a_reader_without_internet_sees_all_of_it(self, site: Path) -> None:
        """No script, style or picture is loaded from elsewhere."""
        loads = re.compile(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)|<link[^>]* href=\"([^\"]+)")
        found = [one for file in site.rglob("*.html") for one in loads.findall(file.read_text(encoding="utf-8"))]
        assert found
        assert not [one for one in found if re.match(r"(https?:)?//", "".join(one))]
        styles = [file.read_text(encoding="utf-8") for file in (site / "_static").rglob("*.css")]
        assert not any(re.search(r"(url\(|@import )[\"']?(https?:)?//", style) for style in styles)

    def test_it_follows_dark_mode(self, site: Path) -> None:
        assert "prefers-color-scheme: dark" in (site / "index.html").read_text(encoding="utf-8")

    def test_a_dead_link_and_a_page_outside_the_navigation_fail_the_build(self, tmp_path: Path) -> None:
        source = tmp_path / "docs"
        source.mkdir()
        (tmp_path / "ctxplan").mkdir()
        (tmp_path / "ctxplan" / "__init__.py").write_text('__version__ = "1"\n')
        shutil.copy(DOCS / "conf.py", source)
        shutil.copytree(DOCS / "_static", source / "_static")
        (source / "index.md").write_text("# A manual\n\n[gone](gone.md), [here](#nowhere)\n")
        (source / "alone.md").write_text("# Alone\n")
        done = sphinx(source, tmp_path / "site")
        assert done.returncode != 0
        for said in ("'gone.md'", "'nowhere'", "alone.md: WARNING: document isn't included in any toctree"):
            assert said in done.stderr


class TestLinks:
    def test_every_page_is_in_the_navigation_once(self) -> None:
        blocks = re.findall(r"```{toctree}\n(.*?)```", INDEX, re.DOTALL)
        listed = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
        files = {str(file.relative_to(DOCS).with_suffix("")) for file in DOCS.rglob("*.md")}
        assert sorted(listed) == sorted(files - {"index"})

    @pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "evidence/README.md"])
    def test_no_link_from_outside_of_the_manual_is_dead(self, name: str) -> None:
        file = ROOT / name
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", file.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            linked = file.parent / path if path else file
            assert linked.exists(), target
            if anchor:
                assert anchor in anchors(linked), target


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the manual make them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TestTheReference:
    @pytest.mark.parametrize("name", sorted(WHOLE))
    def test_is_what_the_code_writes(self, name: str) -> None:
        assert page(f"reference/{name}") == WHOLE[name](), "run make reference"

    def test_has_no_page_that_nothing_writes(self) -> None:
        assert {file.name for file in REFERENCE.iterdir()} == set(WHOLE)

    @pytest.mark.parametrize("file", in_part(), ids=lambda file: file.name)
    def test_shows_what_commands_print(self, file: Path) -> None:
        assert file.read_text(encoding="utf-8") == shown.filled(file), "run make reference"


class TestSettings:
    def test_every_one_has_a_meaning(self) -> None:
        text = page("reference/settings.md")
        for name, field in Settings.model_fields.items():
            assert field.description, f"{name} has no docstring in app/settings.py"
            assert f"| `{settings.variable(name)}` |" in text

    def test_every_variable_of_ours_that_any_code_names_is_told(self) -> None:
        told = {settings.variable(name) for name in Settings.model_fields} | settings.OTHERS.keys()
        for file in (*ROOT.glob("app/**/*.py"), *ROOT.glob("ctxplan/**/*.py"), *ROOT.glob("probes/**/*.py")):
            named = set(re.findall(r"\bCTXPLAN_[A-Z][A-Z_]*[A-Z]\b", file.read_text(encoding="utf-8")))
            assert named <= told | settings.INTERNAL, f"{file}: scripts/manual/settings.py has not all of {named}"

    def test_no_variable_is_told_that_nothing_reads(self) -> None:
        sources = [file.read_text(encoding="utf-8") for name in ("app", "ctxplan", "probes") for file in python(name)]
        elsewhere = {"HF_TOKEN"}  # huggingface_hub's own
        for name in settings.OTHERS.keys() - elsewhere:
            prefixed = name.removeprefix(settings.PREFIX).lower() in Settings.model_fields
            assert prefixed or any(f'"{name}"' in source for source in sources), name


def python(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


class TestRoutes:
    def test_every_one_is_told_with_its_scope(self) -> None:
        text = page("reference/api.md")
        routes = [route for route in create_app(Settings()).routes if isinstance(route, APIRoute)]
        assert len(routes) > 40
        for route in routes:
            assert route.endpoint.__doc__, f"{route.path} has no docstring"
            for method in (route.methods or set()) - {"HEAD"}:
                name = f"{method} {route.path_format}"
                told = f"\n### {name}\n" if route.include_in_schema else f"\n| `{name}` |"
                assert told in text, "run scripts/openapi, then make reference"

    def test_every_shape_that_a_page_links_to_is_there(self) -> None:
        text = page("reference/shapes.md")
        for name in ("api.md", "shapes.md"):
            for anchor in re.findall(r"\]\((?:shapes\.md)?#(\w+)\)", page(f"reference/{name}")):
                assert re.search(rf"^## {anchor}$", text, re.MULTILINE | re.IGNORECASE), anchor


class TestTheCommandLine:
    @pytest.mark.parametrize("command", commands.commands(), ids=lambda command: command.words)
    def test_every_option_of_a_command_is_told(self, command: commands.Command) -> None:
        assert command.made.help, f"{command.words} has no docstring"
        section = page("reference/cli.md").partition(f"\n## {command.words}\n")[2].partition("\n## ")[0]
        assert command.made.help.split("\n")[0].split("`")[0] in section.replace("\\", "")
        for parameter in commands.options(command):
            assert parameter.help or getattr(parameter, "hidden", False), (
                f"{command.words} {parameter.name} has no help"
            )
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert not name.startswith("-") or getattr(parameter, "hidden", False) or name in section
        assert commands.takes_job(command) == ("(keys.md)" in section)

    def test_no_command_is_left_out(self) -> None:
        words = {command.words for command in commands.commands()}
        assert {"ctxplan estimate", "ctxplan tier confirm", "ctxplan calibrate start", "ctxplan keys rotate"} <= words
        groups: Any = {name for _, name in (line.split(" ")[:2] for line in words)}
        listed = {one.name for one in app.cli.application.registered_groups}
        listed |= {one.name for one in app.cli.application.registered_commands}
        assert groups == listed

    def test_every_key_of_a_job_has_a_meaning(self) -> None:
        assert HELP.keys() == RULES.keys()
        assert re.findall(r"^\| `(\w+)` \|", page("reference/keys.md"), re.MULTILINE) == list(RULES)


class TestErrors:
    def test_every_problem_type_is_told(self) -> None:
        text = page("reference/errors.md").partition("## In Python")[0]
        assert re.findall(r"^\| `([\w-]+)` \| (\d+) \|", text, re.MULTILINE) == [
            (code, str(kind.status)) for code, kind in sorted(KINDS.items())
        ]

    def test_every_exception_that_is_loaded_is_told_with_its_code(self) -> None:
        told = {(one.module, one.name): one.code for one in errors.errors()}
        assert all(one.meaning for one in errors.errors())
        found = list(below(CtxplanError))
        assert len(found) > 30
        for one in found:
            if not one.__module__.startswith("tests"):
                assert told[one.__module__, one.__name__] == one.code


def below(kind: type[CtxplanError]) -> Iterator[type[CtxplanError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from below(one)


class TestTerms:
    def test_every_row_that_the_estimator_writes_down_is_a_term_of_the_manual(self) -> None:
        told = set(re.findall(r"^### (\w+)$", page("reference/terms.md"), re.MULTILINE))
        named = {name for file in python("estimator") for name in rows_in(file)}
        assert len(named) > 80
        assert named <= told
        assert {f"calibrated_{width}" for width in WIDTHS} <= told

    @STEADY
    @given(job_data())
    def test_whatever_a_job_holds_is_told_with_formula_source_path_and_phase(self, data: dict[str, Any]) -> None:
        for path, phase, row in terms.rows_of(data, architecture_of(data["model"])):
            where = terms.observed()[terms.use_of(row)]
            assert path in where.paths
            assert phase in where.phases

    def test_the_terms_of_an_answer_are_told_in_its_own_words(self) -> None:
        text = page("reference/terms.md")
        for term in ctxplan.estimate(json.loads(JOB.read_text(encoding="utf-8"))).terms:
            section = text.partition(f"\n### {term.name}\n")[2].partition("\n#")[0]
            use = terms.use_of(term)
            assert f"`{use.formula}`" in section
            assert use.source in section


def rows_in(file: Path) -> set[str]:
    """Names of the rows that a module of the ledger writes down: tuples of name, bytes, formula and source."""
    text = file.read_text(encoding="utf-8")
    if "from estimator.ledger import" not in text:
        return set()
    names = set()
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Tuple) and len(node.elts) > 1 and isinstance(node.elts[0], ast.Constant)):
            continue
        if len(node.elts) == 4 or isinstance(node.elts[-1], ast.Starred):
            names.add(node.elts[0].value)
    return {name for name in names if isinstance(name, str) and re.fullmatch(r"[a-z0-9_]+", name)}


class TestMetrics:
    def test_every_one_has_a_meaning(self) -> None:
        found = metrics.families()
        assert len(found) > 10
        assert all(one.documentation for one in found)

    def test_the_labels_of_what_has_not_happened_yet_are_there(self) -> None:
        told = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) \|", metrics.page(), re.MULTILINE))
        assert told["ctxplan_http_shed_total"] == "`why`"
        assert told["ctxplan_observations_total"] == "`state`"
        assert told["ctxplan_http_request_seconds"] == "`method`, `route`"
        assert told["ctxplan_queue_workers"] == "`draining`, `gpu`"


class TestPages:
    def test_every_key_of_an_estimate_is_explained(self) -> None:
        table = page("estimate.md").partition("## All keys")[2].partition("\n## ")[0]
        cells = re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
        explained = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
        answer = ctxplan.estimate(json.loads(JOB.read_text(encoding="utf-8")))
        assert explained == answer.to_json().keys()

    def test_every_key_of_a_longest_context_is_named(self) -> None:
        section = page("estimate.md").partition("## The longest context")[2]
        answer = ctxplan.max_context(json.loads(JOB.read_text(encoding="utf-8"))).to_json()
        for key in answer.keys() - {"job", "assumptions"}:
            assert f"`{key}`" in section

    def test_every_path_and_phase_is_explained(self) -> None:
        for name in ("estimate.md", "model.md"):
            for path in PATHS:
                assert f"| `{path}` |" in page(name)
        phases = page("model.md").partition("| phase |")[2].partition("## ")[0]
        assert all(f"`{phase}`" in phases for phase in terms.PHASES)

    def test_the_limits_that_the_memory_model_states_are_those_of_the_code(self) -> None:
        text = " ".join(page("model.md").split())
        assert f"larger than {MINIMUM_OFFLOAD_BYTES // MIB} MiB" in text
        assert f"`max_seq_length` is {SMART_MIN_LENGTH} or more" in text
        assert f"where {DOUBLE_BUFFER_HEADROOM_BYTES // MIB} MiB are free" in text

    def test_the_python_of_the_first_page_runs(self) -> None:
        code = re.search(r"```python\n(.*?)```", page("start.md"), re.DOTALL)
        assert code
        run = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, cwd=ROOT, check=False)
        assert run.returncode == 0, run.stderr
        assert run.stdout.split()[0] == "fits"
