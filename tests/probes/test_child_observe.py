"""What ran is read off the process: the path, the layers compiled, the losses, what went to the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from probes.child.losses import listen_to_the_chunked, listen_to_the_fused  # noqa: E402
from probes.child.machine import HOLDS_PINNED, check_one_device, host  # noqa: E402
from probes.child.meter import Meter  # noqa: E402
from probes.child.observe import Observer, decoder_of, execution_path, layers_compiled  # noqa: E402
from probes.child.offloading import offloading, renew_buffers  # noqa: E402
from probes.child.session import host_is_own  # noqa: E402
from probes.errors import ProbeUnavailable  # noqa: E402

Module: Any = torch.nn.Module
OWN = "unsloth.models.llama.LlamaModel_fast_forward"
STOCK = "transformers.models.gpt_oss.modeling_gpt_oss.GptOssModel.forward"


def seen(forward: str, compiled: int = 0) -> dict[str, Any]:
    return {"forward": forward, "layers_compiled": compiled}


class Layer(Module):  # type: ignore[misc]
    def forward(self, hidden: Any) -> Any:
        return hidden * 2


class Decoder(Module):  # type: ignore[misc]
    """Two layers over an embedding, as every decoder has them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(16, 4)
        self.layers = torch.nn.ModuleList([Layer(), Layer()])

    def forward(self, input_ids: Any, **_: Any) -> Any:
        hidden = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return torch.nn.functional.softmax(hidden, dim=-1)


class Model(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder()

    def forward(self, **options: Any) -> Any:
        return self.model(**options)


def on_a_card() -> Meter:
    """A meter that says there is a GPU, and counts nothing."""
    meter = Meter()
    meter.cuda = True
    return meter


class TestTheExecutionPath:
    @pytest.mark.parametrize(
        ("ran", "framework", "path"),
        [
            (seen(OWN), "unsloth", "eager"),
            (seen(OWN, 2), "unsloth", "block_compiled"),
            (seen(STOCK), "unsloth", "generated"),
            (seen(STOCK), "transformers", "transformers"),
        ],
    )
    def test_follows_from_the_forward_and_the_layers(self, ran: dict[str, Any], framework: str, path: str) -> None:
        assert execution_path(ran, framework, cuda=True) == path
        assert execution_path(ran, framework, cuda=False) == "cpu"

    def test_of_a_point_that_failed_is_eager_only_where_a_whole_forward_has_shown_it(self) -> None:
        model, observer = Model(), Observer(on_a_card())
        observer.install(model, "transformers")
        assert observer.path_so_far(seen(OWN), "unsloth") is None
        assert observer.path_so_far(seen(OWN, 1), "unsloth") == "block_compiled"
        assert observer.path_so_far(seen(STOCK), "unsloth") == "generated"
        model(input_ids=torch.ones(1, 3, dtype=torch.long))
        assert observer.path_so_far(seen(OWN), "unsloth") == "eager"


class TestTheLayers:
    def test_count_as_compiled_where_a_compiled_region_ran_and_was_not_given_up(self) -> None:
        decoder = Decoder()
        assert layers_compiled(decoder) == 0
        decoder.layers[0].__dict__.update(_unsloth_block_checked=2, _unsloth_block_mode=2)
        decoder.layers[1].__dict__.update(_unsloth_block_checked=2, _unsloth_block_mode=0)
        assert layers_compiled(decoder) == 1

    def test_are_found_however_deep_the_decoder_is(self) -> None:
        model = Model()
        assert decoder_of(model) is model.model
        assert len(decoder_of(torch.nn.ModuleDict({"base": model})).layers) == 2


class TestAWatchedStep:
    def test_tells_the_attention_and_that_no_layer_was_recomputed(self) -> None:
        model, observer = Model(), Observer(Meter())
        observer.install(model, "transformers")
        with observer.watching():
            model(input_ids=torch.ones(1, 3, dtype=torch.long)).sum().backward()
        ran = observer.ran(model)
        assert (ran["attention"], ran["checkpointing"], ran["input_shape"]) == ("eager", "none", (1, 3))
        assert ran["trainable_parameters"] == 16 * 4

    def test_tells_layers_that_were_recomputed(self) -> None:
        from torch.utils.checkpoint import checkpoint

        model, observer = Model(), Observer(Meter())
        observer.install(model, "transformers")
        first = model.model.layers[0]
        with observer.watching():
            hidden = model.model.embed_tokens(torch.ones(1, 3, dtype=torch.long))
            model(input_ids=torch.ones(1, 3, dtype=torch.long)).sum().backward()
            checkpoint(first, hidden, use_reentrant=False).sum().backward()
        assert observer.ran(model)["checkpointing"] == "torch"

    def test_that_fails_leaves_what_was_seen_until_then_and_its_error(self) -> None:
        model, observer = Model(), Observer(Meter())
        observer.install(model, "transformers")

        def fail() -> None:
            with observer.watching():
                model(input_ids=torch.ones(1, 3, dtype=torch.long))
                raise KeyError("the step")

        with pytest.raises(KeyError, match="the step"):
            fail()
        assert observer.ran(model)["attention"] == "eager"

    def test_of_a_generation_trains_nothing(self) -> None:
        model, observer = Model(), Observer(Meter())
        observer.install(model, "transformers")
        assert observer.ran(model, trains=False)["trainable_parameters"] == 0

    def test_is_forgotten_before_the_next_point(self) -> None:
        model, observer = Model(), Observer(Meter())
        observer.install(model, "transformers")
        with observer.watching():
            model(input_ids=torch.ones(1, 3, dtype=torch.long))
        observer.forget()
        ran = observer.ran(model)
        assert ran["attention"] is None
        assert "input_shape" not in ran


class TestALossTellsItsChunks:
    @staticmethod
    def fused(bounds: list[int] | None) -> dict[str, Any]:
        """What the fused loss tells of 1,000 rows in three chunks."""
        said: dict[str, Any] = {}
        module = SimpleNamespace(chunk_row_bounds=lambda n_rows, chunks: bounds)
        listen_to_the_fused(said, module)
        assert module.chunk_row_bounds(1000, 3) == bounds
        return said

    def test_the_fused_one_by_the_bounds_of_its_rows(self) -> None:
        assert self.fused([0, 320, 640, 960, 1000]) == {
            "loss": "fused_cross_entropy",
            "loss_rows": 320,
            "loss_chunk_bytes": None,
        }

    def test_the_fused_one_without_bounds_as_torch_cuts(self) -> None:
        assert self.fused(None)["loss_rows"] == max(len(part) for part in torch.arange(1000).chunk(3)) == 334

    @staticmethod
    def fused_linear() -> Any:
        class Buffers:
            def __init__(self, rows: int, columns: int) -> None:
                self.buf = torch.empty(rows, columns, dtype=torch.float32)

        return SimpleNamespace(_Buffers=Buffers, _tiled_layout=lambda rows, tile: (rows, tile))

    def test_the_chunked_one_by_its_buffer(self) -> None:
        said: dict[str, Any] = {}
        module = self.fused_linear()
        listen_to_the_chunked(said, module)
        module._Buffers(512, 1000)
        assert said == {"loss": "chunked_cross_entropy", "loss_rows": 512, "loss_chunk_bytes": 512 * 1000 * 4}

    def test_the_tiled_one_by_its_tile_and_not_by_the_buffer_that_follows(self) -> None:
        said: dict[str, Any] = {}
        module = self.fused_linear()
        listen_to_the_chunked(said, module)
        module._tiled_layout(4096, 16)
        module._Buffers(4096, 16)
        assert said == {"loss": "chunked_cross_entropy_tiled", "loss_rows": 4096, "loss_chunk_bytes": 4096 * 16 * 4}


class Smart:
    """Unsloth's state after a step of three layers: two buffers have grown, one input went in the last forward."""

    INITIAL_CPU_BUFFER_SIZE = 4

    def __init__(self) -> None:
        self.CPU_BUFFERS: list[Any] = [torch.empty(size) for size in (10, 10, 4)]
        self.GPU_BUFFERS: Any = ()
        self.GPU_BUFFER_DTYPE = torch.bfloat16
        self.USE_DOUBLE_BUFFER = True
        self.OFFLOAD_SLOT_META: list[Any] = [(1, 0), None]
        self.called: list[Any] = []

    def reset_unsloth_gradient_checkpointing_buffers(self) -> None:
        for buffer in self.CPU_BUFFERS:
            buffer.resize_(self.INITIAL_CPU_BUFFER_SIZE)
        self.called.append("reset")

    def initialize_unsloth_gradient_checkpointing(self, dtype: Any) -> None:
        self.CPU_BUFFERS = [torch.empty(self.INITIAL_CPU_BUFFER_SIZE) for _ in range(3)]
        self.called.append(dtype)


class TestInputsOnTheHost:
    def test_buffers_that_grew_and_inputs_of_the_last_forward_are_counted_apart(self) -> None:
        smart: Any = Smart()
        assert offloading(smart) == {
            "inputs_offloaded": 2,
            "inputs_offloaded_last": 1,
            "pinned_buffers": 0,
            "double_buffer": True,
        }

    def test_where_nothing_is_offloaded_nothing_is_said_of_the_second_buffer(self) -> None:
        smart: Any = Smart()
        smart.CPU_BUFFERS, smart.OFFLOAD_SLOT_META = None, []
        assert offloading(smart) == {
            "inputs_offloaded": 0,
            "inputs_offloaded_last": 0,
            "pinned_buffers": 0,
            "double_buffer": None,
        }

    def test_the_next_length_begins_with_storages_of_the_first_size(self) -> None:
        smart: Any = Smart()
        renew_buffers(smart)
        assert smart.called == ["reset", torch.bfloat16]
        assert [buffer.untyped_storage().nbytes() for buffer in smart.CPU_BUFFERS] == [16] * 3

    def test_without_smart_checkpointing_there_is_nothing_to_renew(self) -> None:
        smart: Any = Smart()
        smart.CPU_BUFFERS = None
        renew_buffers(smart)
        assert smart.called == []

    def test_pinned_blocks_of_an_earlier_length_make_the_hosts_figures_null(self) -> None:
        assert host_is_own(52_428_800, 52_428_808)
        assert host_is_own(None, None)
        assert not host_is_own(52_428_800, 589_398_024)
        mine, shared = host(), host(own=False)
        assert (mine["rss_bytes"] or 0) > 0
        assert all(shared[name] is None for name in HOLDS_PINNED)
        assert shared["anonymous_bytes"]
        assert shared["total_ram_bytes"] == mine["total_ram_bytes"]


class TestTheDevice:
    def test_a_process_that_sees_several_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(ProbeUnavailable, match="2 GPUs") as raised:
            check_one_device()
        assert raised.value.key == "CUDA_VISIBLE_DEVICES"

    @pytest.mark.parametrize("count", [0, 1])
    def test_one_or_none_is_measured(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        check_one_device()
