"""How inputs are drawn: so many, none of them shrunk, kept, or refused for what it costs to make."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def drawing(count: int) -> settings:
    """Hypothesis' settings for this many inputs."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
