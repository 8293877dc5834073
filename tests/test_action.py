"""The GitHub Action and the pre-commit hook, run as their hosts run them: real steps in bash, the real ``ctxplan``.

Most take a second or more, for each asks ``ctxplan`` twice. The rules of the two formats are written down here, with
where they are from: neither host is installed for the tests.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.launching import CONFIGS, EXIT_CODES, ROOT, Place, prepare

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"]}
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
MANUAL = (ROOT / "docs" / "launchers.md").read_text(encoding="utf-8")

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
STEP_KEYS = {"run", "shell", "if", "name", "id", "env", "working-directory", "uses", "with", "continue-on-error"}
"""GitHub's metadata syntax reference: ``inputs``, ``outputs`` and ``runs`` of composite actions."""
HOOK_REQUIRED = {"id", "name", "entry", "language"}
HOOK_KEYS = HOOK_REQUIRED | {
    "alias", "files", "exclude", "types", "types_or", "exclude_types", "additional_dependencies", "args", "always_run",
    "fail_fast", "pass_filenames", "description", "language_version", "log_file", "minimum_pre_commit_version",
    "require_serial", "stages", "verbose",
}  # fmt: skip
"""pre-commit's clientlib.py, ``MANIFEST_HOOK_DICT``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step of the action did."""

    code: int
    out: str
    err: str
    outputs: dict[str, str]
    summary: str


def run_step(place: Place, name: str, inputs: dict[str, str], outputs: dict[str, str]) -> Step:
    """Run a step as a runner does: its expressions replaced, its script in a file, in ``bash -eo pipefail``.

    Args:
        inputs: of the action, in place of their defaults.
        outputs: of the install step.
    """
    given = {key: value.get("default", "") for key, value in ACTION["inputs"].items()} | inputs
    known = {f"inputs.{key}": value for key, value in given.items()}
    known |= {f"steps.install.outputs.{key}": value for key, value in outputs.items()}
    step, temporary = STEPS[name], place.directory.parent
    environment = {
        key: re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known[found[1]], value)
        for key, value in step["env"].items()
    }
    script, output, summary = (temporary / file for file in ("step.sh", "output", "summary.md"))
    script.write_text(step["run"])
    output.write_text("")
    summary.write_text("")
    done = place.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        GITHUB_OUTPUT=str(output),
        GITHUB_STEP_SUMMARY=str(summary),
        GITHUB_ACTION_PATH=str(ROOT),
        RUNNER_TEMP=str(temporary),
        **environment,
    )
    written = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return Step(code=done.returncode, out=done.stdout, err=done.stderr, outputs=written, summary=summary.read_text())


def check(place: Place, configs: str, **inputs: str) -> Step:
    """The step that checks, after an install of which the tests' own ctxplan is the outcome."""
    directory = place.directory.parent / "installed"
    directory.mkdir(exist_ok=True)
    installed = {"command": str(place.bin / "ctxplan"), "directory": str(directory)}
    asked = {"gpu": "H100-80GB", "host-ram": "256GiB"} | {key.replace("_", "-"): value for key, value in inputs.items()}
    return run_step(place, "preflight", {"configs": configs, **asked}, installed)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A workspace with a config of each verdict in ``configs``."""
    made = prepare(tmp_path, "fits", [])
    configs = made.directory / "configs"
    configs.mkdir()
    for verdict, text in CONFIGS.items():
        (configs / f"a {verdict} run.yaml").write_text(text)
    return made


class TestMetadata:
    def test_inputs_and_outputs_are_what_github_takes(self) -> None:
        assert {"name", "description", "inputs", "outputs", "runs"} <= ACTION.keys()
        assert ACTION["runs"].keys() == {"using", "steps"}
        assert ACTION["runs"]["using"] == "composite"
        for key, value in (*ACTION["inputs"].items(), *ACTION["outputs"].items()):
            assert IDENTIFIER.fullmatch(key)
            assert value["description"]
        for value in ACTION["inputs"].values():
            assert value.keys() <= {"description", "required", "default", "deprecationMessage"}
            assert isinstance(value["required"], bool)
            assert value["required"] != ("default" in value)
            assert isinstance(value.get("default", ""), str)

    def test_steps_run_in_bash_and_use_no_other_action(self) -> None:
        for step in ACTION["runs"]["steps"]:
            assert step.keys() <= STEP_KEYS - {"uses", "with"}
            assert step["shell"] == "bash"
            assert step["run"].startswith("set -euo pipefail\n")

    def test_no_expression_is_pasted_into_a_script(self) -> None:
        for step in ACTION["runs"]["steps"]:
            assert "${{" not in step["run"]

    def test_every_expression_names_what_there_is(self) -> None:
        text = (ROOT / "action.yml").read_text()
        written = {name: set(re.findall(r'echo "([\w-]+)=', step["run"])) for name, step in STEPS.items()}
        found = re.findall(r"\$\{\{ ([\w.-]+) \}\}", text)
        assert len(found) == text.count("${{")
        for expression in found:
            match expression.split("."):
                case ["inputs", name]:
                    assert name in ACTION["inputs"]
                case ["steps", step, "outputs", name]:
                    assert name in written[step]
                case _:
                    pytest.fail(expression)

    def test_the_manual_explains_every_input_and_output(self) -> None:
        section = MANUAL.split("## On a commit")[0]
        explained = {name for cell in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in cell.split(", ")}
        assert explained == {f"`{name}`" for name in (*ACTION["inputs"], *ACTION["outputs"])}

    def test_the_manuals_workflow_gives_inputs_that_there_are(self) -> None:
        shown = yaml.safe_load(MANUAL.split("```yaml\n")[1].split("```")[0])
        own, ctxplan, action = shown["jobs"]["memory"]["steps"]
        assert action["with"].keys() <= ACTION["inputs"].keys()
        assert "configs" in action["with"]
        # The action is used from where its repository was checked out, which the reader's variables name.
        assert action["uses"] == f"./{ctxplan['with']['path']}"
        assert ctxplan["uses"] == own["uses"]
        named = re.findall(r"\$\{\{ vars\.(\w+) \}\}", " ".join(ctxplan["with"].values()))
        assert named == ["CTXPLAN_REPOSITORY", "CTXPLAN_REF"]
        assert f"gh variable set {named[0]}" in MANUAL


class TestInstall:
    @pytest.fixture
    def stubbed(self, tmp_path: Path) -> Place:
        """A runner whose Python makes an environment of stand-ins."""
        place = prepare(tmp_path, "fits", ["pip"])
        place.write_command(
            "python3",
            f"""if [ "$1" = -c ]; then exec "{sys.executable}" "$@"; fi
            [ "$1 $2" = "-m venv" ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && exit
            [ "$1 $2" = "-m pip" ] && shift 2 && exec "{place.bin}/pip" "$@" """,
        )
        return place

    def test_it_is_the_actions_own_commit_in_an_environment_of_its_own(self, stubbed: Place) -> None:
        step = run_step(stubbed, "install", {"configs": "x"}, {})
        assert step.code == 0, step.err
        assert stubbed.called() == [f"pip install --quiet --disable-pip-version-check {ROOT}"]
        command = Path(step.outputs["command"])
        assert command.name == "ctxplan"
        assert command.parent.joinpath("python").exists()
        assert Path(step.outputs["directory"]).parent == stubbed.directory.parent

    def test_a_release_may_be_named(self, stubbed: Place) -> None:
        assert run_step(stubbed, "install", {"configs": "x", "version": "0.1.0"}, {}).code == 0
        assert stubbed.called() == ["pip install --quiet --disable-pip-version-check ctxplan==0.1.0"]

    @pytest.mark.parametrize("version", ["--index-url=x", "0.1 evil", "0.1;x", "@ file:///x", "$(x)"])
    def test_nothing_but_a_release_goes_to_pip(self, stubbed: Place, version: str) -> None:
        step = run_step(stubbed, "install", {"configs": "x", "version": version}, {})
        assert (step.code, step.out) == (2, "::error title=ctxplan::version: not a release\n")
        assert stubbed.called() == []

    def test_a_runner_without_a_fitting_python_is_told_what_it_needs(self, tmp_path: Path) -> None:
        place = prepare(tmp_path, "fits", [])
        for name in ("python3", "python", "python3.13", "python3.12", "python3.11"):
            place.write_command(name, "exit 1")
        step = run_step(place, "install", {"configs": "x"}, {})
        assert step.code == 2
        assert step.out.startswith("::error title=ctxplan::no Python 3.11 to 3.13")

    def test_a_failed_install_fails_the_step(self, stubbed: Place) -> None:
        stubbed.write_command("pip", "exit 1")
        step = run_step(stubbed, "install", {"configs": "x"}, {})
        assert (step.code, step.outputs) == (1, {})


class TestPreflight:
    @pytest.mark.parametrize(("verdict", "code"), EXIT_CODES.items())
    def test_the_step_ends_with_the_verdicts_code_and_tells_it(self, place: Place, verdict: str, code: int) -> None:
        step = check(place, f"configs/a {verdict} run.yaml")
        assert step.code == code
        assert (step.outputs["verdict"], step.outputs["exit-code"]) == (verdict, str(code))
        kind = {0: "notice", 3: "warning"}.get(code, "error")
        assert step.out.startswith(f"::{kind} file=configs/a {verdict} run.yaml,")
        assert (f"`configs/a {verdict} run.yaml`" in step.summary) == (verdict != "unreadable")

    def test_a_glob_takes_every_file_once_and_the_worst_decides(self, place: Place) -> None:
        (place.directory / "configs" / "a unreadable run.yaml").unlink()
        step = check(place, "configs/*.yaml\n\n  configs/a fits run.yaml  \r\n./train.yaml")
        assert (step.code, step.outputs["verdict"]) == (1, "does_not_fit")
        report = json.loads(Path(step.outputs["report"]).read_text())
        names = [f"configs/a {verdict} run.yaml" for verdict in ("does_not_fit", "fits", "uncertain")]
        assert [item["config"]["file"] for item in report["items"]] == [*names, "./train.yaml"]
        assert step.summary.count("\n### ") + step.summary.startswith("### ") == 4

    def test_a_glob_may_have_spaces(self, place: Place) -> None:
        step = check(place, "configs/a f* run.yaml")
        assert step.code == 0
        assert step.out.startswith("::notice file=configs/a fits run.yaml,")

    def test_two_stars_reach_every_depth(self, place: Place) -> None:
        deep = place.directory / "runs" / "of may" / "1"
        deep.mkdir(parents=True)
        (deep / "train.yaml").write_text(CONFIGS["does_not_fit"])
        step = check(place, "runs/**/*.yaml")
        assert step.out.startswith("::error file=runs/of may/1/train.yaml,")

    @pytest.mark.parametrize(
        "name",
        [
            "--help.yaml",
            "a; touch owned.yaml",
            "$(touch owned).yaml",
            "`touch owned`.yaml",
            "[ab]*?.yaml",
            "%0A'\".yaml",
        ],
    )
    def test_a_file_may_have_any_name(self, place: Place, name: str) -> None:
        (place.directory / name).write_text(CONFIGS["fits"])
        (place.directory / "ab.yaml").write_text(CONFIGS["does_not_fit"])
        step = check(place, name)
        assert step.code == 0, step.err
        assert json.loads(Path(step.outputs["report"]).read_text())["config"]["file"] == name
        assert not any("owned" in file.name and file.name != name for file in place.directory.iterdir())

    def test_a_files_name_cannot_speak_to_the_runner(self, place: Place) -> None:
        (place.directory / "configs" / "x\n::add-mask::y\n.yaml").write_text(CONFIGS["unreadable"])
        step = check(place, "configs/*.yaml")
        assert step.code == 2
        for line in (step.out + step.err).splitlines():
            assert not line.lstrip().startswith("::add-mask")
        assert "| ::add-mask::y" in step.err.splitlines()

    def test_only_what_is_asked_for_fails_the_step_and_the_verdict_is_told_nevertheless(self, place: Place) -> None:
        step = check(place, "configs/a uncertain run.yaml", fail_on="does_not_fit")
        assert (step.code, step.outputs["verdict"], step.outputs["exit-code"]) == (0, "uncertain", "0")

    def test_the_card_and_the_hosts_ram_are_asked_about(self, place: Place) -> None:
        assert check(place, "train.yaml", gpu="RTX-4090-24GB").code == 1
        assert check(place, "train.yaml", host_ram="64GiB").code == 1
        assert check(place, "train.yaml", gpu='{"name": "x", "total_bytes": 17179869184}').code == 1
        assert check(place, "train.yaml", gpu="", host_ram="").code == 0

    def test_a_finding_fails_the_step_where_that_is_asked_for(self, place: Place) -> None:
        text = "model: unsloth/Llama-3.2-1B-Instruct\n"
        text += "training: {max_seq_length: 40000, batch_size: 1, gradient_checkpointing: true}\n"
        (place.directory / "train.yaml").write_text(text)
        assert check(place, "train.yaml").code == 0
        assert check(place, "train.yaml", strict="true").code == 1

    @pytest.mark.parametrize(
        ("configs", "inputs", "message"),
        [
            ("", {}, "configs: no file is named"),
            ("train.yaml\nabsent.yaml", {}, "configs: no file is absent.yaml"),
            ("nowhere/*.yaml", {}, "configs: no file is nowhere/*.yaml"),
            ("configs", {}, "configs: no file is configs"),
            ("100%.yaml", {}, "configs: no file is 100%25.yaml"),
            ("train.yaml", {"strict": "yes\n::x"}, "strict: true or false, not yes%0A::x"),
        ],
    )
    def test_a_wrong_input_is_an_error_that_names_it(
        self, place: Place, configs: str, inputs: dict[str, str], message: str
    ) -> None:
        step = check(place, configs, **inputs)
        assert (step.code, step.out) == (2, f"::error title=ctxplan::{message}\n")
        assert step.outputs["verdict"] == "unreadable"

    def test_a_wrong_option_is_told_and_fails_the_step(self, place: Place) -> None:
        step = check(place, "train.yaml", fail_on="never")
        assert (step.code, step.outputs["exit-code"]) == (2, "2")
        assert "--fail-on" in step.err

    def test_a_ctxplan_that_cannot_run_is_no_verdict(self, place: Place) -> None:
        place.write_command("ctxplan", "exit 70")
        step = check(place, "train.yaml")
        assert (step.code, step.outputs["verdict"]) == (70, "failed")


class TestHook:
    @staticmethod
    def run(place: Place, *files: str, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """As pre-commit does: the entry's words, the arguments, then the files."""
        (hook,) = HOOKS
        return place.run([*shlex.split(hook["entry"]), *hook.get("args", []), *arguments, *files])

    def test_it_has_the_keys_that_a_hook_may_have(self) -> None:
        (hook,) = HOOKS
        assert hook.keys() >= HOOK_REQUIRED
        assert hook.keys() <= HOOK_KEYS
        assert (hook["id"], hook["language"]) == ("ctxplan-preflight", "python")
        # Its first word is the console script that installing this project gives.
        assert (
            f"\n{shlex.split(hook['entry'])[0]} = "
            in (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[1]
        )

    def test_it_takes_several_files_and_fails_for_the_worst(self, place: Place) -> None:
        fits, too_large = "configs/a fits run.yaml", "configs/a does_not_fit run.yaml"
        assert self.run(place, fits, "train.yaml").returncode == 0
        done = self.run(place, fits, too_large, "train.yaml", arguments=("--gpu", "H100-80GB"))
        assert done.returncode == 1
        assert f"Does not fit: {too_large}" in " ".join(done.stderr.split())

    @pytest.mark.parametrize("number", [2, 3], ids=["installed by hand", "installed by pre-commit"])
    def test_its_arguments_are_those_of_the_manual(self, place: Place, number: int) -> None:
        shown = yaml.safe_load(MANUAL.split("```yaml\n")[number].split("```")[0])
        (repository,) = shown["repos"]
        (hook,) = repository["hooks"]
        assert hook.keys() <= HOOK_KEYS
        assert hook["id"] == HOOKS[0]["id"]
        assert re.search(hook["files"], "configs/train.yaml")
        if repository["repo"] == "local":
            assert hook.keys() >= HOOK_REQUIRED
            assert (hook["entry"], hook["require_serial"]) == (HOOKS[0]["entry"], HOOKS[0]["require_serial"])
        else:
            assert repository["rev"]
        assert self.run(place, "train.yaml", arguments=tuple(hook["args"])).returncode == 0

    def test_no_line_of_the_manual_is_to_be_filled_in_by_guessing(self) -> None:
        assert not re.search(r"OWNER|\bREF\b|<your", MANUAL)

    @pytest.mark.parametrize(
        ("file", "taken"),
        [
            ("train.yaml", True),
            ("configs/qlora-70b.yml", True),
            ("examples/configs/axolotl.yaml", True),
            ("examples/configs/llamafactory-v1.yaml", True),
            ("constrain.yaml", False),
            ("docker-compose.yaml", False),
            ("train.yaml.j2", False),
            (".github/workflows/ci.yml", False),
        ],
    )
    def test_it_looks_at_what_is_named_like_a_launchers_config(self, file: str, taken: bool) -> None:
        assert bool(re.search(HOOKS[0]["files"], file)) == taken

    def test_the_manual_names_the_names_that_it_looks_for(self) -> None:
        section = MANUAL.split("Without `files`")[1].split("\n\n")[0]
        named = re.findall(r"`([a-z-]+)`", section)
        assert set(named) == set(re.findall(r"[a-z-]+(?=[|)])", HOOKS[0]["files"].split(")(")[1]))

    def test_every_example_config_passes_on_the_card_that_it_names(self, place: Place) -> None:
        for file in sorted((ROOT / "examples" / "configs").glob("*.yaml")):
            shutil.copy(file, place.directory)
            first = file.read_text().splitlines()[0]
            words = shlex.split(first.removeprefix("# "))
            assert words[:3] == ["ctxplan", "preflight", f"examples/configs/{file.name}"]
            assert self.run(place, file.name, arguments=tuple(words[3:])).returncode == 0, file.name
