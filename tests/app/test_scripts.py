"""The scripts: what they carry over from the job, and that nothing from outside becomes code."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.scripts import write_script
from ctxplan import Planner
from estimator import Job, parse_job
from estimator.errors import JobError
from tests.app.jobs import CONFIG, MODEL

PLANNER = Planner(offline=True)
ARCHITECTURE = PLANNER.facts(MODEL)
NASTY = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60) | st.sampled_from(
    [
        '"""',
        "'''",
        "\\",
        "\\\\'",
        '"); import os; os.system("x") #',
        "'); import os #",
        "$model",
        "${plan}",
        "{x}",
        "%s",
        "\u202e",
        "a\\nb",
    ]
)


def script_of(job: dict[str, Any]) -> str:
    parsed = parse_job({"model": MODEL, **job})
    return write_script(parsed, PLANNER.estimate(parsed, ARCHITECTURE), ARCHITECTURE.architecture).text


def calls_of(text: str, name: str) -> dict[str, Any]:
    """The literal arguments of a call in the script."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
            return {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
    raise AssertionError(f"no call of {name}")


@given(name=NASTY)
def test_a_models_name_is_only_ever_a_literal(name: str) -> None:
    try:
        job = parse_job({"model": name})
    except JobError:
        return
    text = write_script(job, PLANNER.estimate(job, ARCHITECTURE), ARCHITECTURE.architecture).text
    plain = Job(model="x")
    model = ast.parse(text)
    expected = ast.parse(write_script(plain, PLANNER.estimate(plain, ARCHITECTURE), ARCHITECTURE.architecture).text)
    names = [node for node in ast.walk(model) if isinstance(node, ast.Constant) and node.value == name]
    assert names
    for node in ast.walk(expected):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL":
            node.value = ast.Constant(name)
    assert ast.dump(model) == ast.dump(expected)


@given(name=NASTY, version=NASTY)
def test_a_gpus_name_and_a_version_are_only_ever_literals(name: str, version: str) -> None:
    job = {"gpu": {"name": name, "total_bytes": 80 * 2**30}, "versions": {"peft": version}}
    try:
        text = script_of(job)
    except JobError:
        return
    assert _shape(text) == _shape(script_of({"gpu": "H100-80GB", "versions": {"peft": "1"}}))


def _shape(text: str) -> str:
    """The program with every literal taken out."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = None
    return ast.dump(tree)


def test_the_jobs_settings_are_the_scripts() -> None:
    text = script_of({"max_seq_length": 3000, "sequence_length": 2000, "r": 8, "packing": True, "optim": "adamw_torch"})
    assert calls_of(text, "from_pretrained")["load_in_4bit"] is True
    assert calls_of(text, "get_peft_model")["r"] == 8
    config = calls_of(text, "SFTConfig")
    assert (config["packing"], config["optim"]) == (True, "adamw_torch")
    assert "MAX_SEQ_LENGTH = 3000" in text
    assert "SEQUENCE_LENGTH = 2000" in text


@pytest.mark.parametrize(
    ("job", "variable"),
    [
        ({}, "PYTORCH_ALLOC_CONF"),
        ({"padding_free": False, "block_compile": False}, "UNSLOTH_BLOCK_COMPILE"),
        ({"pin_host_memory": False}, "UNSLOTH_DISABLE_PINNED_MEMORY"),
        ({"unsloth_tiled_mlp": True}, "UNSLOTH_TILED_MLP"),
    ],
)
def test_the_environment_that_the_plan_assumes_is_set_before_torch_is_imported(
    job: dict[str, Any], variable: str
) -> None:
    text = script_of(job)
    assert text.index(f"'{variable}'") < text.index("from unsloth")
    if variable != "PYTORCH_ALLOC_CONF":
        assert variable not in script_of({})


def test_full_fine_tuning_has_no_adapters() -> None:
    assert "get_peft_model" not in script_of({"full_finetuning": True})


def test_plain_transformers_never_imports_unsloth() -> None:
    text = script_of({"framework": "transformers", "load_in_4bit": True})
    assert "unsloth" not in {alias for node in ast.walk(ast.parse(text)) for alias in _imports(node)}
    assert "prepare_model_for_kbit_training" in text


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [str(node.module)]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.parametrize("framework", ["unsloth", "transformers"])
@pytest.mark.parametrize("mode", ["train", "generate"])
@pytest.mark.parametrize("weights", ["load_in_4bit", "load_in_8bit", "load_in_16bit", "full_finetuning"])
def test_every_kind_of_job_gives_a_program(framework: str, mode: str, weights: str) -> None:
    compile(script_of({"framework": framework, "mode": mode, weights: True}), "script", "exec")


def test_a_config_object_has_no_weights_so_the_script_asks_for_them() -> None:
    text = script_of({"model": CONFIG})
    assert "MODEL = None" in text


def test_a_model_cut_to_fewer_layers_has_no_script() -> None:
    with pytest.raises(JobError, match="num_hidden_layers"):
        script_of({"num_hidden_layers": 2})
    assert script_of({"num_hidden_layers": 16}) == script_of({})
