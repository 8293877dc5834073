"""What the README shows and claims is what the product does."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from tests.estimator.measured import measured_rows, off_by

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
COMMAND = f"ctxplan estimate --model {MODEL} --gpu H100-80GB --max-seq-length 89389 --r 32"


def printed() -> str:
    """What the README's command prints for a person on an 80-column terminal."""
    run = subprocess.run(
        [sys.executable, "-m", "app", *COMMAND.split()[1:]],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return "\n".join(line.rstrip() for line in (run.stdout + run.stderr).strip().splitlines())


def test_the_estimate_that_the_readme_shows_is_what_the_command_prints() -> None:
    shown = re.search(r"<!-- estimate -->\n```\n(.*?)\n```\n<!-- /estimate -->", README, re.DOTALL)
    assert shown, "the README lost its estimate"
    assert COMMAND in README
    assert shown.group(1) == printed(), "run scripts/readme"


def test_the_errors_that_the_readme_claims_are_what_the_evidence_gives() -> None:
    errors: dict[str, list[float]] = {"eager": [], "transformers": []}
    for row in measured_rows():
        if row.path in errors and row.is_training and not row.double_buffer_off:
            expected = row.estimate.peak_allocated_bytes.expected
            errors[row.path].append(abs(off_by(expected, row.data["peak_allocated_bytes"])))
    assert f"two paths that it models line by line, {' and '.join(f'`{path}`' for path in errors)}," in README
    assert all(len(found) > 30 for found in errors.values())
    assert all(statistics.median(found) < 0.001 for found in errors.values()), errors
    assert all(max(found) < 0.02 for found in errors.values()), errors


def test_the_python_that_the_readme_shows_runs() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    run = subprocess.run([sys.executable, "-c", code.group(1)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    verdict, peak, longest = run.stdout.split()
    assert verdict in ("fits", "does_not_fit", "uncertain")
    assert int(peak) > 0
    assert int(longest) > 0


def test_every_file_and_folder_that_the_readme_names_exists() -> None:
    for name in re.findall(r"`((?:estimator|ctxplan|app|evidence|tests|examples)/[\w./-]*|[A-Z]+\.md)`", README):
        assert (ROOT / name).exists(), name
