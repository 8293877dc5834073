"""modal run modal_train.py --config train.yaml: the check runs on this machine, before Modal starts a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import modal

GPU = "H100"
CTXPLAN_GPU = "H100-80GB"
MEMORY_MIB = 256 * 1024

app = modal.App("finetune")
image = modal.Image.debian_slim(python_version="3.12").uv_pip_install("unsloth").add_local_file("train.py", "/train.py")


@app.function(image=image, gpu=GPU, memory=MEMORY_MIB, timeout=24 * 3600)
def train(config: str) -> None:
    """Train in Modal's container, as the config says."""
    Path("/train.yaml").write_text(config, encoding="utf-8")
    subprocess.run([sys.executable, "/train.py", "--config", "/train.yaml"], check=True)


@app.local_entrypoint()
def main(config: str = "train.yaml") -> None:
    """Ask first; a config that does not fit, or may not, ends with the exit code of its verdict."""
    asked = ["ctxplan", "preflight", config, "--gpu", CTXPLAN_GPU, "--host-ram", f"{MEMORY_MIB}MiB"]
    verdict = subprocess.run(asked, check=False)
    if verdict.returncode:
        sys.exit(verdict.returncode)
    train.remote(Path(config).read_text(encoding="utf-8"))
