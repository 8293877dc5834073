"""A model's fast tokenizer: from a ``tokenizer.json``, a model's directory, the local Hugging Face cache or the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.tokens.chat import ChatTemplate, read_template
from ctxplan import hub
from ctxplan.token_lengths import DocumentsError
from estimator.errors import UnknownModel
from estimator.rules import shorten, shown

FILE = "tokenizer.json"
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""What else of a repository is fetched, where it is there: the chat template, and the tokens that it writes."""
MAX_BYTES = 128 * 2**20
"""A larger tokenizer.json is none; the largest vocabularies take about 35 MB."""
DOWNLOAD_SECONDS = 60.0
INSTEAD = f"a {FILE}, a model's directory that holds one, or a Hub id"

_PATH_STARTS = ("./", "../", "/", "~")


class ModelTokenizer:
    """A tokenizer that gives lengths alone. May be used from several threads at once.

    Attributes:
        name: what it was asked by. chat_template: how it writes conversations, None where it has none.
    """

    def __init__(self, file: Path, name: str) -> None:
        """Raises UnknownModel: the file cannot be read, or is no tokenizer."""
        self.name = name
        self._tokenizer = _load(file)
        self.chat_template: ChatTemplate | None = read_template(file.parent)
        try:
            first = self._tokenizer.encode("").tokens
        except BaseException as error:
            raise _no_tokenizer(file, error) from None
        self._leading = first[0] if first else None

    def lengths(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[int]:
        """The length of each text in tokens, on every core. Raises DocumentsError where it cannot encode one."""
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        except BaseException as error:
            reason = _reason(error)
            raise DocumentsError(f"{self.name} cannot encode a document: {reason}", key="tokenizer") from error
        return list(map(len, encodings))

    def adds_special_tokens(self, first_text: str) -> bool:
        """Whether a trainer would have the tokenizer add its special tokens to texts of which this is the first.

        Source: unsloth_zoo 2026.10, ``dataset_utils.py`` ``sft_prepare_dataset``: not where the first text begins with
        the BOS token, nor where the chat template writes it.
        """
        if self._leading is None:
            return True
        in_template = self.chat_template is not None and self._leading in self.chat_template.source
        return not (in_template or first_text.startswith(self._leading))


def find_tokenizer(name: str, *, offline: bool = False, allow_local: bool = True) -> Path:
    """The ``tokenizer.json`` that a name stands for.

    Args:
        name: a file, a directory, or a Hub id, perhaps with ``@REVISION``. offline: never ask the Hub.
        allow_local: whether a file or a directory of this machine may be named.

    Raises:
        UnknownModel: nothing is there, or it may not be read; the message says what to pass instead.
    """
    if not name or not name.isprintable():
        raise UnknownModel(f"{shown(name)} is not a tokenizer", key="tokenizer", allowed=INSTEAD)
    if allow_local:
        found = _local(name)
        if found is not None:
            return found
    elif name.startswith(_PATH_STARTS):
        message = f"{shown(name)} is a path, and none is read here"
        raise UnknownModel(message, key="tokenizer", allowed="a Hub id")
    repository, _, revision = name.partition("@")
    try:
        hub.check_names(repository, revision or None)
    except UnknownModel as error:
        raise UnknownModel(error.message, key="tokenizer", allowed=INSTEAD) from None
    return _from_repository(repository, revision or None, offline)


def need_tokenizers() -> None:
    """Raises DocumentsError where the tokenizers library is not installed."""
    if find_spec("tokenizers") is None:
        raise DocumentsError("counting tokens needs the tokenizers library", allowed='pip install "ctxplan[tokens]"')


def _local(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        is_file, is_directory = path.is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name too long, a ~ without a home
        return None
    if is_file:
        return path
    if is_directory and (path / FILE).is_file():
        return path / FILE
    if is_directory:
        allowed = f"a directory with a {FILE}; save_pretrained of a fast tokenizer writes one"
        raise UnknownModel(f"{shown(name)} has no {FILE}", key="tokenizer", allowed=allowed)
    if name.startswith(_PATH_STARTS) or name.endswith(".json"):
        raise UnknownModel(f"{shown(name)} is not there", key="tokenizer", allowed=INSTEAD)
    return None


def _from_repository(repository: str, revision: str | None, offline: bool) -> Path:
    kept = hub.from_cache(repository, revision, FILE)
    if kept is not None:
        return kept.path
    if offline or hub.is_offline():
        message = f"the tokenizer of {shown(repository)} is not in the local cache, and the Hub is not asked"
        raise UnknownModel(message, key="tokenizer", allowed=INSTEAD)
    try:
        return hub.ask_hub(repository, lambda: _download(repository, revision), DOWNLOAD_SECONDS)
    except hub.NotFetched as error:
        message = f"the tokenizer of {shown(repository)} cannot be fetched: {error.reason}"
        raise UnknownModel(message, key="tokenizer", allowed=INSTEAD) from error


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    address = hf_hub_url(repository, FILE, revision=revision, endpoint=hub.endpoint())
    size = get_hf_file_metadata(address, timeout=hub.ETAG_SECONDS).size or 0
    if size > MAX_BYTES:
        raise OSError(f"its {FILE} has {size} bytes")
    where: dict[str, Any] = {
        "revision": revision,
        "etag_timeout": hub.ETAG_SECONDS,
        "cache_dir": hub.cache_directory(),
        "endpoint": hub.endpoint(),
    }
    for name in BESIDE:
        try:
            hf_hub_download(repository, name, **where)
        except EntryNotFoundError:
            continue
    # Last, so that a cache with the tokenizer has what belongs to it.
    return Path(hf_hub_download(repository, FILE, **where))


def _load(file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"it has {size} bytes")
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise UnknownModel(message, key="tokenizer", allowed=INSTEAD) from None
    except BaseException as error:
        raise _no_tokenizer(file, error) from None
    # A tokenizer.json may carry the limits of whoever saved it, which would cap every length.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _no_tokenizer(file: Path, error: BaseException) -> UnknownModel:
    return UnknownModel(f"{file} is no {FILE}: {_reason(error)}", key="tokenizer", allowed=INSTEAD)


def _reason(error: BaseException) -> str:
    """Why the library cannot go on, in a line. It raises nothing narrower than Exception, and where its own code gives
    up (a panic of Rust's), on a tokenizer.json that says what cannot be, not even one. Raises what is not its own.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return shorten(str(error), 200)
