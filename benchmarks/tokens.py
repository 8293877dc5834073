"""Token lengths of a file beside the bare tokenizers library, and the memory that the size of the file takes.

``python -m benchmarks.tokens --size-mb 1000`` measures a file of that size; ``python -m benchmarks`` one of 100 MB. The
file and its tokenizer are made here, by a seed. The bare library is given the same documents in memory, in batches of
the same size, and only its own ``encode_batch_fast`` and the lengths of what it gives are timed. The command is timed
from its start to its end. The two run in turns of seconds, the command stopped while it is not its turn, so that what
else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from app.tokens.counting import BATCH_PER_CORE, LEAST_BATCH, cores
from benchmarks.results import Result

DEFAULT_MB = 100
LEAST_SHARE = 0.8
MOST_GROWTH_MIB = 32
TURN_SECONDS = 2.0
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
WORDS, POOL_WORDS = 50_000, 1_000_000
VOCABULARY = 16_000
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# A fresh process reads its own peak: the one that getrusage gives may be that of the process that started it.
COMMAND = """
import sys
from app.cli import application
try:
    application(sys.argv[1:], standalone_mode=False)
finally:
    status = open('/proc/self/status').read()
    print('peak', [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')][0], file=sys.stderr)
"""


class Run(NamedTuple):
    """One run of the command; ``answer`` is its JSON."""

    seconds: float
    peak_mib: float
    answer: dict[str, Any]


def tokens_results(size_mb: int = DEFAULT_MB) -> list[Result]:
    """Measure at this size, and the memory at a quarter of it as well."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        large, small = Path(folder) / "large.jsonl", Path(folder) / "small.jsonl"
        text = make_text(random.Random(0))
        train(text).save(str(tokenizer))
        characters = write_documents(large, text, size_mb * 10**6)
        write_documents(small, text, size_mb * 10**6 // 4)
        bare, ours = run_in_turns(large, tokenizer)
        quarter = Command(small, tokenizer)
        quarter.run(math.inf)
        growth = ours.peak_mib - quarter.result().peak_mib
    return [
        Result(what=f"tokenizers alone, {size_mb} MB of text", measured=characters / bare / 1e6, unit="MB/s"),
        Result(what="ctxplan tokens, the process", measured=characters / ours.seconds / 1e6, unit="MB/s"),
        Result(
            what="the second over the first",
            measured=bare / ours.seconds,
            unit="",
            limit=LEAST_SHARE,
            better="above",
        ),
        Result(what="its peak memory", measured=ours.peak_mib, unit="MiB"),
        Result(what="more than for a quarter of the file", measured=growth, unit="MiB", limit=MOST_GROWTH_MIB),
    ]


def make_text(rng: random.Random) -> str:
    """Made-up words, as unevenly common as those of a language."""
    weights = range(len(LETTERS), 0, -1)
    words = ["".join(rng.choices(LETTERS, weights, k=rng.randint(1, 10))) for _ in range(WORDS)]
    cumulative = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))
    return " ".join(rng.choices(words, cum_weights=cumulative, k=POOL_WORDS))


def train(text: str) -> Any:
    """A byte-level BPE tokenizer of the text, which adds a token at the start."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), bytes_of])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text[:3_000_000]], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def write_documents(file: Path, text: str, size_bytes: int) -> int:
    """Write JSON Lines of pieces of the text, most short and a few long; returns their characters."""
    rng, written, characters = random.Random(1), 0, 0
    with file.open("w", encoding="utf-8") as out:
        while written < size_bytes:
            length = min(int(rng.lognormvariate(7.5, 1.0)), len(text))
            start = rng.randrange(len(text) - length + 1)
            written += out.write(json.dumps({"text": text[start : start + length]}) + "\n")
            characters += length
    return characters


def run_in_turns(file: Path, tokenizer_file: Path) -> tuple[float, Run]:
    """The seconds that the library takes for all documents, and the run of the command over them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batches = _batches(file, max(LEAST_BATCH, BATCH_PER_CORE * cores()))
    bare = 0.0
    command = Command(file, tokenizer_file)
    while command.run(TURN_SECONDS):
        bare += _encode(tokenizer, batches, TURN_SECONDS)
    bare += _encode(tokenizer, batches, math.inf)
    return bare, command.result()


def _encode(tokenizer: Any, batches: Iterator[list[str]], most_seconds: float) -> float:
    """Encode for about so long; returns the seconds that the library itself took."""
    seconds = 0.0
    while seconds < most_seconds and (texts := next(batches, None)):
        start = perf_counter()
        tokens = sum(map(len, tokenizer.encode_batch_fast(texts)))
        seconds += perf_counter() - start
        assert tokens
    return seconds


class Command:
    """``ctxplan tokens --json`` in a process of its own, which runs only while it is told to."""

    def __init__(self, file: Path, tokenizer: Path) -> None:
        arguments = ["tokens", str(file), "--tokenizer", str(tokenizer), "--json"]
        self._seconds = 0.0
        start = perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._seconds += perf_counter() - start

    def run(self, most_seconds: float) -> bool:
        """Let it run for so long; returns whether there is more to do. Its few lines of output fit into a pipe."""
        self._process.send_signal(signal.SIGCONT)
        start = perf_counter()
        try:
            self._process.wait(None if most_seconds == math.inf else most_seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGSTOP)
            return True
        finally:
            self._seconds += perf_counter() - start
        return False

    def result(self) -> Run:
        """What it gave, once it has ended."""
        out, log = self._process.communicate()
        peak = re.search(r"^peak (\d+)$", log, re.MULTILINE)
        if self._process.returncode or not peak:
            raise SystemExit(f"ctxplan tokens failed: {log}")
        return Run(self._seconds, int(peak[1]) / 1024, json.loads(out))


def _batches(file: Path, most: int) -> Iterator[list[str]]:
    texts: list[str] = []
    held = 0
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            held += len(texts[-1])
            if held >= most:
                yield texts
                texts, held = [], 0
    if texts:
        yield texts


def main() -> int:
    """Measure at the asked size, print, and say by the exit code whether the promises held."""
    from benchmarks.__main__ import table

    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens")
    parser.add_argument("--size-mb", type=int, default=DEFAULT_MB)
    results = tokens_results(parser.parse_args().size_mb)
    print(table(results))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
