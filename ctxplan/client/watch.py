"""Following a campaign by its server-sent events, over connections that break off. Nothing here waits or sends."""

from __future__ import annotations

import json

import httpx

from ctxplan.client.errors import UnreadableAnswer
from ctxplan.client.queue_answers import CampaignAnswer
from ctxplan.client.retries import Outcome, Retries
from ctxplan.client.wire import Call, answer_of

EVENTS = "text/event-stream"
QUIET_SECONDS = 60.0
"""The service says something every 15 seconds: a connection that is silent for longer than this is dead."""
MEASURING = "measuring"


class Watch:
    """What a campaign's events have told so far.

    Attributes:
        call: what is asked. ended: whether the campaign has. broken: how the last connection ended.
    """

    def __init__(self, call: Call[CampaignAnswer], retries: Retries) -> None:
        self.call = call
        self.ended = False
        self.broken: Outcome = httpx.RemoteProtocolError("the events ended before the campaign did")
        self._retries = retries
        self._tries = 0
        self._last: CampaignAnswer | None = None
        self._data: list[str] = []

    @property
    def headers(self) -> dict[str, str]:
        return {"accept": EVENTS, "cache-control": "no-store"}

    def timeout(self, usual: httpx.Timeout) -> httpx.Timeout:
        """The client's own, but for the silence that is allowed between two events."""
        return httpx.Timeout(connect=usual.connect, write=usual.write, pool=usual.pool, read=QUIET_SECONDS)

    def begin(self, response: httpx.Response) -> bool:
        """Whether a response, of which nothing was read, tells events; a problem is read and kept otherwise.

        Raises:
            UnreadableAnswer: something that answers well is no stream of events.
        """
        self._data = []
        self.broken = httpx.RemoteProtocolError("the events ended before the campaign did")
        if response.status_code != httpx.codes.OK:
            return False
        kind = response.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != EVENTS:
            raise UnreadableAnswer(f"{self._where} answered {kind or 'something undeclared'}, not {EVENTS}")
        return True

    def hear(self, line: str) -> CampaignAnswer | None:
        """Take a line without its end; the campaign, where the line ends an event that tells something new.

        Raises:
            UnreadableAnswer: an event that is no campaign.
        """
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            return None
        if not self._data:
            return None
        told, self._data = self._campaign("\n".join(self._data)), []
        self._tries = 0  # a connection that told something has served its turn, however it ends
        self.ended = told["state"] != MEASURING
        is_new, self._last = told != self._last, told
        return told if is_new else None

    def wait_seconds(self) -> float:
        """Seconds until it is asked for again. Raises what became of the last connection where it is not."""
        self._tries += 1
        outcome = self.broken
        if isinstance(outcome, httpx.ReadTimeout):
            # Silence is no busy service here, but a connection that has died.
            outcome = httpx.ReadError(str(outcome))
        wait = self._retries.wait_seconds(outcome, sent=self._tries, repeatable=True)
        if wait is None:
            answer_of(self.call, outcome)
            raise UnreadableAnswer(f"{self._where} told no events")
        return wait

    @property
    def _where(self) -> str:
        return f"{self.call.method} {self.call.path}"

    def _campaign(self, data: str) -> CampaignAnswer:
        try:
            document: CampaignAnswer = json.loads(data)
            _ = document["state"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnreadableAnswer(f"{self._where} told what is no campaign: {type(error).__name__}") from error
        return document
