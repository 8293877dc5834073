"""Token lengths of documents."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import json_of_body
from app.openapi import problems
from app.security import PLAN
from app.tokens.question import parse_question
from app.tokens.schemas import TOKENS_BODY, TokensAnswer
from app.tokens.service import TokenCounts

router = APIRouter(prefix="/v1/tokens", tags=["documents"], dependencies=[PLAN], responses=problems(400, 413, 415, 422))


@router.post("", openapi_extra=TOKENS_BODY, responses={200: {"model": TokensAnswer}})
async def tokens(request: Request) -> Response:
    """Say what token lengths ask of `max_seq_length`: of lengths, or of texts and the tokenizer to count them by."""
    asked = parse_question(await json_of_body(request))
    counts: TokenCounts = request.state.tokens
    return json_answer(await counts.answer(asked))
