"""A group of commands, one of which is meant where none is named."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class FallbackGroup(TyperGroup):
    """``group WORD`` is ``group fit WORD`` where WORD names none of the group's commands and no option of its own."""

    fallback = "fit"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args[:1] and args[0] in ctx.help_option_names else self._named(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, self._named(args))

    def _named(self, args: list[str]) -> list[str]:
        return [self.fallback, *args] if args and args[0] not in self.commands else args
