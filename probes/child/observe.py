"""What really ran: read off the process while and after it trains, never off what was asked.

The operators that one step called come from torch's profiler (host side only: it takes no device memory); what Unsloth
decided comes from its own state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from probes.child.meter import Meter

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
    """Watches one step, and reads the model and Unsloth's state afterwards."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._operators: Counter[str] = Counter()
        self._loss: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}
        self._offloading: dict[str, Any] = {}
        self._calls: Counter[str] = Counter()

    def install(self, model: Any, framework: str) -> None:
        """Listen to what the model is given and, in Unsloth, to its loss."""
        decoder = _decoder(model)
        decoder.register_forward_pre_hook(self._note_inputs, with_kwargs=True)
        # A decoder's first layer runs once for each forward, and once more for each that is recomputed.
        decoder.layers[0].register_forward_pre_hook(lambda *_: self._calls.update(["layer"]))
        if framework == "unsloth" and self._meter.cuda:
            _listen_to_loss(self._loss)

    def forget(self) -> None:
        """Before the next point."""
        for seen in (self._operators, self._loss, self._inputs, self._offloading, self._calls):
            seen.clear()

    def step_ended(self, framework: str) -> None:
        """Note what Unsloth keeps on the host; it lets go of it when a trainer is done."""
        if framework == "unsloth" and self._meter.cuda:
            self._offloading = _offloading()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the operators that are called inside."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], acc_events=False) as profiler:
            yield
        self._operators.update(event.name for event in profiler.events())

    def ran(self, model: Any) -> dict[str, Any]:
        """The fields of `probes.measurement.Ran`."""
        backend, kernel = self._attention()
        decoder = _decoder(model)
        facts: dict[str, Any] = {
            "forward": _forward_of(decoder),
            "attention": backend,
            "attention_kernel": kernel,
            "layers_compiled": layers_compiled(decoder),
            "checkpointing": self._checkpointing(),
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "weight_dtypes": _weight_dtypes(model),
            **self._inputs,
            **self._loss_facts(),
            **self._offloading,
        }
        if self._meter.cuda:
            facts["embedding_offloaded"] = model.get_input_embeddings().weight.device.type == "cpu"
        return facts

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

    def _note_inputs(self, _: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        self._calls.update(["decoder"])
        ids = options.get("input_ids", arguments[0] if arguments else None)
        if ids is not None:
            self._inputs.setdefault("input_shape", tuple(ids.shape))
        packed = options.get("packed_seq_lengths")
        if packed is not None:
            self._inputs["packed_lengths"] = tuple(int(length) for length in packed.tolist())


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


def _decoder(model: Any) -> Any:
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


def _offloading() -> dict[str, Any]:
    """What smart checkpointing has on the host (unsloth_zoo/gradient_checkpointing.py)."""
    from unsloth_zoo import gradient_checkpointing as smart

    buffers = [b for b in smart.CPU_BUFFERS or () if b is not None and b.numel() > smart.INITIAL_CPU_BUFFER_SIZE]
    return {
        "inputs_offloaded": len(buffers),
        "pinned_buffers": sum(1 for buffer in buffers if buffer.is_pinned()),
        "double_buffer": bool(getattr(smart, "USE_DOUBLE_BUFFER", False)) if buffers else None,
    }


def _listen_to_loss(seen: dict[str, Any]) -> None:
    """Note which loss is called, and the rows of its chunks."""
    from unsloth_zoo.fused_losses import cross_entropy_loss, fused_linear

    layout, buffers = fused_linear._tiled_layout, fused_linear._Buffers.__init__
    chunk_size = cross_entropy_loss.get_chunk_size

    def tiled(*arguments: Any, **options: Any) -> Any:
        rows, tile = layout(*arguments, **options)
        seen.update(loss="chunked_cross_entropy_tiled", loss_rows=int(rows), loss_chunk_bytes=int(rows * tile * 4))
        return rows, tile

    def chunked(self: Any, rows: int, *arguments: Any, **options: Any) -> None:
        buffers(self, rows, *arguments, **options)
        if seen.get("loss") != "chunked_cross_entropy_tiled":
            seen.update(loss="chunked_cross_entropy", loss_rows=int(rows), loss_chunk_bytes=int(self.buf.nbytes))

    def fused(*arguments: Any, **options: Any) -> Any:
        chunks = chunk_size(*arguments, **options)
        seen.update(loss="fused_cross_entropy", loss_rows=None, loss_chunk_bytes=None)
        return chunks

    fused_linear._tiled_layout = tiled
    fused_linear._Buffers.__init__ = chunked
    cross_entropy_loss.get_chunk_size = fused
