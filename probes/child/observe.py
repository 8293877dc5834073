"""What really ran: read off the process while and after it trains, never off what was asked.

The operators that one step called come from torch's profiler (host side only: it takes no device memory); what Unsloth
decided comes from its own state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from probes.child.batches import Batches
from probes.child.losses import listen_to_losses
from probes.child.meter import Meter
from probes.child.offloading import offloading

ATTENTION_OPERATORS = {
    "_scaled_dot_product_cudnn_attention": ("sdpa", "cudnn"),
    "_scaled_dot_product_flash_attention_for_cpu": ("sdpa", "flash_cpu"),
    "_scaled_dot_product_flash_attention": ("sdpa", "flash"),
    "_scaled_dot_product_efficient_attention": ("sdpa", "efficient"),
    "_scaled_dot_product_attention_math": ("sdpa", "math"),
    "flex_attention": ("flex_attention", "flex"),
    "flash_attn": ("flash_attention_2", "flash"),
    "xformers": ("xformers", "efficient"),
}
"""Part of an operator's or kernel's name, first match first, with the back end and kernel it means."""

FULL_LOGITS_OPERATORS = ("cross_entropy_loss", "nll_loss_forward", "Fast_CrossEntropyLoss")
OWN_FORWARDS = "unsloth.models."
BLOCK_OFF = 0
"""unsloth/models/_block_compile.py ``_OFF``: the layer fell back to its stock forward."""


class Observer:
    """Watches one step, and reads the model and Unsloth's state afterwards.

    Attributes:
        batches: the micro-batches that reached the model.
    """

    def __init__(self, meter: Meter) -> None:
        self.batches = Batches()
        self._meter = meter
        self._operators: Counter[str] = Counter()
        self._loss: dict[str, Any] = {}
        self._offloading: dict[str, Any] = {}
        self._calls: Counter[str] = Counter()

    def install(self, model: Any, framework: str) -> None:
        """Listen to what the model is given and, in Unsloth, to its loss."""
        decoder = decoder_of(model)
        decoder.register_forward_pre_hook(self._note_inputs, with_kwargs=True)
        decoder.register_forward_hook(lambda *_: self._calls.update(["whole"]))
        # A decoder's first layer runs once for each forward, and once more for each that is recomputed.
        decoder.layers[0].register_forward_pre_hook(lambda *_: self._calls.update(["layer"]))
        if framework == "unsloth" and self._meter.cuda:
            listen_to_losses(self._loss)

    def forget(self) -> None:
        """Before the next point."""
        self.batches.clear()
        for seen in (self._operators, self._loss, self._offloading, self._calls):
            seen.clear()

    def step_ended(self, framework: str) -> None:
        """Note what Unsloth keeps on the host; it lets go of it when a trainer is done."""
        if framework == "unsloth" and self._meter.cuda:
            self._offloading = offloading()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the operators that are called inside; of a step that fails, those until then."""
        from torch.profiler import ProfilerActivity, profile

        profiler = profile(activities=[ProfilerActivity.CPU], acc_events=False)
        try:
            with profiler:
                yield
        except BaseException:
            with suppress(Exception):  # what ended the step is worth more than its operators
                self._operators.update(event.name for event in profiler.events())
            raise
        self._operators.update(event.name for event in profiler.events())

    def ran(self, model: Any, *, trains: bool = True) -> dict[str, Any]:
        """The fields of `probes.measurement.Ran`, as far as they were seen.

        Args:
            trains: whether anything is trained; a model that generates has parameters that could be.
        """
        backend, kernel = self._attention()
        decoder = decoder_of(model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad) if trains else 0
        facts: dict[str, Any] = {
            "forward": _forward_of(decoder),
            "attention": backend,
            "attention_kernel": kernel,
            "layers_compiled": layers_compiled(decoder),
            "checkpointing": self._checkpointing(),
            "trainable_parameters": trained,
            "weight_dtypes": _weight_dtypes(model),
            **self.batches.facts(),
            **self._loss_facts(),
            **self._offloading,
        }
        if self._meter.cuda:
            facts["embedding_offloaded"] = model.get_input_embeddings().weight.device.type == "cpu"
        return facts

    def path_so_far(self, ran: Mapping[str, Any], framework: str) -> str | None:
        """The execution path of a point that failed; None where no layer had run that would show it."""
        path = execution_path(ran, framework, cuda=self._meter.cuda)
        # Layers are compiled as they first run: until all of them did, none compiled does not mean eager.
        return None if path == "eager" and not self._calls["whole"] else path

    def _attention(self) -> tuple[str | None, str | None]:
        for part, meaning in ATTENTION_OPERATORS.items():
            if any(part in name for name in self._operators):
                return meaning
        return ("eager", None) if any("softmax" in name for name in self._operators) else (None, None)

    def _checkpointing(self) -> str | None:
        """``unsloth`` or ``torch``, by which layers were recomputed; ``none`` where they were not."""
        if not self._calls["decoder"] or not any("ackward" in name for name in self._operators):
            return None
        if any("UnslothCheckpointFunction" in name for name in self._operators):
            return "unsloth"
        return "torch" if self._calls["layer"] > self._calls["decoder"] else "none"

    def _loss_facts(self) -> dict[str, Any]:
        if self._loss:
            return dict(self._loss)
        full = any(part in name for part in FULL_LOGITS_OPERATORS for name in self._operators)
        return {"loss": "full_logits"} if full else {}

    def _note_inputs(self, decoder: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        self._calls.update(["decoder"])
        ids = options.get("input_ids", arguments[0] if arguments else None)
        if ids is not None:
            self.batches.note(ids, options, training=bool(decoder.training))


def execution_path(ran: Mapping[str, Any], framework: str, *, cuda: bool) -> str:
    """Which of the paths ran, from what was seen."""
    if not cuda:
        return "cpu"
    if framework == "transformers":
        return "transformers"
    if not ran["forward"].startswith(OWN_FORWARDS):
        return "generated"
    return "block_compiled" if ran["layers_compiled"] else "eager"


def layers_compiled(decoder: Any) -> int:
    """Decoder layers of which a compiled region has run (unsloth/models/_block_compile.py ``_wrap``)."""
    return sum(
        1
        for layer in decoder.layers
        if layer.__dict__.get("_unsloth_block_checked", 0) and layer.__dict__.get("_unsloth_block_mode") != BLOCK_OFF
    )


def decoder_of(model: Any) -> Any:
    """The module that holds the list of decoder layers."""
    return next(
        module for _, module in model.named_modules() if hasattr(module, "layers") and hasattr(module, "embed_tokens")
    )


def _forward_of(decoder: Any) -> str:
    """The function that computes the decoder.

    unsloth/models/llama.py ``_gated_method`` runs Unsloth's only on modules that it has marked, and transformers' on
    any other.
    """
    function = getattr(decoder.forward, "__func__", decoder.forward)
    if getattr(function, "_unsloth_gated", False) and not getattr(decoder, "_unsloth_fast_path", False):
        return f"{type(decoder).__module__}.{type(decoder).__qualname__}.forward"
    return f"{function.__module__}.{function.__qualname__}"


def _weight_dtypes(model: Any) -> dict[str, int]:
    """Elements of the model's tensors by type, as they are stored."""
    counts: Counter[str] = Counter()
    for parameter in model.parameters():
        counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return dict(sorted(counts.items()))
