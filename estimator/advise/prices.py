"""What a change costs, as numbers that rank and words that explain.

Four scales, from what is missed most to what is missed least: another card, another result, work on the training
code, time. The points order changes of one scale among each other; they forecast nothing. Prices add up, so a
combination is never cheaper than a part of it.
"""

from __future__ import annotations

from typing import NamedTuple

SCALE = 1000
"""No sum of points reaches it, so that ``Price.order`` compares scale by scale."""


class Price(NamedTuple):
    """Points on each scale; 0 is nothing.

    Attributes:
        hardware: how many kinds of the catalogue, by size, lie up to the other card. quality: what is learned, or how
            exactly. effort: code to write, beyond a setting. speed: about the per cent that a step takes longer.
    """

    hardware: int = 0
    quality: int = 0
    effort: int = 0
    speed: int = 0

    @property
    def order(self) -> int:
        """One number that ranks: hardware before quality before effort before speed."""
        return ((self.hardware * SCALE + self.quality) * SCALE + self.effort) * SCALE + self.speed

    def plus(self, other: Price) -> Price:
        """Both together."""
        return Price(*(one + another for one, another in zip(self, other, strict=True)))

    def covers(self, other: Price) -> bool:
        """Whether it is no dearer than the other on any scale."""
        return all(one <= another for one, another in zip(self, other, strict=True))


FREE = Price()


class Paid(NamedTuple):
    """A price with what it stands for, in a sentence."""

    price: Price
    words: str


PADDING_FREE = Paid(
    Price(speed=1), "speed: nothing on long rows and no time spent on padding; short rows lose the compiled layer"
)
PADDING_FREE_IN_A_LOOP = Paid(
    Price(effort=2, speed=1), "effort: the loop itself must flatten each micro-batch and pass packed_seq_lengths"
)
PACKING = Paid(
    Price(quality=1), "quality: several documents to a row, so fewer and larger steps; speed: none or a gain"
)
PACKING_IN_A_LOOP = Paid(
    Price(quality=1, effort=2), "quality: fewer and larger steps; effort: the loop itself must pack its rows"
)
BLOCK_COMPILE_OFF = Paid(
    Price(speed=2), "speed: nothing on long rows (70B layers at 89,389 tokens, H100: 0.3 %), more on short ones"
)
TILED_MLP = Paid(Price(speed=11), "speed: the MLP runs three times (measured: 11 % of a step at 89,389 tokens, H100)")
SWITCH_TO_UNSLOTH = Paid(Price(effort=3), "effort: the script moves to FastLanguageModel; speed: usually a gain")
RECOMPUTE = Paid(
    Price(speed=40), "speed: every layer's forward runs twice (measured: 48 % of a step of 2,048 tokens, 8B, H100)"
)
RECOMPUTE_AND_OFFLOAD = Paid(
    Price(speed=41), "speed: every layer's forward runs twice; host RAM: layer inputs move there"
)
OFFLOAD_INPUTS = Paid(
    Price(speed=1), "speed: none measured (8B at 8,192 tokens, H100); host RAM: layer inputs move there"
)
KEEP_INPUTS = Paid(
    Price(speed=1), "speed: none measured (8B at 8,192 tokens, H100); GPU memory: layer inputs stay there"
)
UNPINNED = Paid(Price(speed=5), "speed: copies to the host wait; host RAM: saves what pinned buffers are rounded up by")
EMBEDDING_ON_HOST = Paid(
    Price(speed=3), "speed: embedding rows are copied in every step; host RAM: holds the embedding"
)
EVALUATE_ONE_BY_ONE = Paid(Price(speed=1), "speed: evaluation alone, one sequence at a time")
EIGHT_BIT_STATES = Paid(Price(quality=1), "quality: the same algorithm with its moments in 8 bit")
ONE_MOMENT = Paid(
    Price(quality=5), "quality: another algorithm, which wants a lower learning rate (a third to a tenth)"
)
FACTORED = Paid(Price(quality=5, speed=2), "quality: another algorithm, with a factored second moment")
EIGHT_TO_FOUR_BIT = Paid(Price(quality=2), "quality: base weights in 4 bit instead of 8")
FP8_TO_FOUR_BIT = Paid(
    Price(quality=3, speed=5), "quality: base weights in 4 bit instead of fp8; speed: dequantisation"
)
FOUR_BIT = Paid(
    Price(quality=4, speed=10), "quality: base weights in 4 bit, adapters as they are; speed: dequantisation"
)
ADAPTERS_ALONE = Paid(Price(quality=20), "quality: LoRA on frozen 16-bit weights instead of all weights")
FOUR_BIT_ADAPTERS_ALONE = Paid(
    Price(quality=24, speed=10), "quality: LoRA on frozen 4-bit weights instead of all weights; speed: dequantisation"
)
EMBEDDINGS_FROZEN = Paid(Price(quality=6), "quality: embeddings and head keep their base weights")
ATTENTION_ALONE = Paid(Price(quality=8), "quality: the MLP keeps its base weights")
QUERY_AND_VALUE_ALONE = Paid(Price(quality=12), "quality: only queries and values are adapted")
LARGER_BATCH = Paid(FREE, "uses the card's room: more prompts are answered at once")


def folded(*, effective: int) -> Paid:
    """Accumulated micro-batches that run as one."""
    return Paid(FREE, f"uses the card's room: fewer and larger micro-batches, the effective batch stays {effective:,}")


def longer_context(tokens: int, *, native: int, factor: float) -> Paid:
    """A longer context, which is another result beyond the positions that the model was trained on.

    Args:
        factor: by which RoPE is scaled to reach them; 1 where it is not.
    """
    if tokens <= native:
        return Paid(FREE, f"context: {tokens:,} tokens, in the card's room")
    how = f"RoPE is scaled by {factor:.2f}" if factor > 1 else "with RoPE as configured"
    words = f"context: {tokens:,} tokens; quality: the model's own context is {native:,}, beyond it {how}"
    return Paid(Price(quality=1), words)


def other_batch(before: int, now: int) -> Paid:
    """As many sequences as fit, whatever a step saw before."""
    words = f"quality: an effective batch of {now:,} in place of {before:,}, which wants another learning rate"
    return Paid(Price(quality=1), words)


def smaller_rank(halvings: int) -> Paid:
    """LoRA with fewer directions."""
    return Paid(Price(quality=2 * halvings), "quality: adapters of a lower rank hold less")


def accumulated(factor: int, *, effective: int) -> Paid:
    """A batch cut into ``factor`` parts whose gradients are summed."""
    words = f"speed: {factor} smaller micro-batches where one ran; quality: the effective batch stays {effective}"
    return Paid(Price(speed=2 * max(factor - 1, 1).bit_length()), words)


def generated_in_parts(factor: int) -> Paid:
    """Prompts that are answered in ``factor`` rounds."""
    return Paid(Price(speed=2 * max(factor - 1, 1).bit_length()), f"speed: prompts are answered in {factor} rounds")


def larger_card(place: int, name: str, total_bytes: int) -> Paid:
    """Another card: what it costs is the provider's to say."""
    return Paid(Price(hardware=place), f"hardware: one {name}, {total_bytes / 2**30:,.0f} GiB")
