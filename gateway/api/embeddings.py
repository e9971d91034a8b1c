"""``POST /v1/embeddings``: the vectors that the router and the memory use."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.visit import spend
from gateway.api.fields import clean_text, refuse_unknown, unserved
from gateway.api.leaving import unless_left
from gateway.api.schemas import MAX_TEXT, ErrorEnvelope
from gateway.services import Services
from kiki.errors import RequestError, UnknownModelError
from routing.embedder import MAX_CHARACTERS, MAX_TOKENS
from routing.router import DIMENSION

router = APIRouter()

MODEL = "all-mpnet-base-v2"
MAX_INPUTS = 2048
SLICE = 32
SPECIAL_TOKENS = 2  # one before a text, one after it


class EmbeddingsRequest(BaseModel):
    """`POST /v1/embeddings`. ``user`` has no effect: nothing is remembered."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"example": {"model": MODEL, "input": ["grep a folder", "sort a file"]}},
    )

    model: str = Field(min_length=1, max_length=200)
    input: str | list[str] = Field(max_length=MAX_TEXT)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = Field(None, max_length=200)


class Embedding(BaseModel):
    """``embedding`` are numbers, or their bytes (float32, little-endian) in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


@router.post(
    "/v1/embeddings",
    response_model=Embeddings,
    responses={status: {"model": ErrorEnvelope} for status in (400, 404)},
)
async def embed(request: Request, body: EmbeddingsRequest) -> Response:
    """Unit vectors of 768 numbers, for one text or each of a list."""
    return await unless_left(request, _embedded(request.app.state.services, body))


async def _embedded(services: Services, body: EmbeddingsRequest) -> JSONResponse:
    texts = _texts(body)
    tokens = await asyncio.to_thread(_count, services, texts)
    spend(tokens)
    # Slice by slice: what a caller who left would have got isn't computed.
    vectors = [
        vector
        for start in range(0, len(texts), SLICE)
        for vector in await asyncio.wrap_future(
            services.embedder.submit(texts[start : start + SLICE])
        )
    ]
    reply: dict[str, Any] = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": number,
                "embedding": _written(vector, body.encoding_format),
            }
            for number, vector in enumerate(vectors)
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return JSONResponse(reply)


def _texts(body: EmbeddingsRequest) -> list[str]:
    refuse_unknown(body.model_extra or {}, frozenset(EmbeddingsRequest.model_fields))
    if body.model != MODEL:
        raise UnknownModelError(
            f"No model {body.model!r} makes embeddings.", param="model", fix=f"Use {MODEL}."
        )
    if body.dimensions not in (None, DIMENSION):
        raise unserved("dimensions", f"The vectors have {DIMENSION} dimensions.")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or len(texts) > MAX_INPUTS:
        raise RequestError(f"input takes one to {MAX_INPUTS} texts.", param="input")
    for number, text in enumerate(texts):
        param = "input" if isinstance(body.input, str) else f"input[{number}]"
        if not text.strip():
            raise RequestError("A text is empty.", param=param)
        if len(clean_text(text, param).strip()) > MAX_CHARACTERS:
            raise _too_long(param)
    return texts


def _count(services: Services, texts: list[str]) -> int:
    """All tokens. Raises RequestError for a text of which the model would see only a part."""
    total = 0
    for number, text in enumerate(texts):
        tokens = services.embedder.count_tokens(text) + SPECIAL_TOKENS
        if tokens > MAX_TOKENS:
            raise _too_long("input" if len(texts) == 1 else f"input[{number}]")
        total += tokens
    return total


def _too_long(param: str) -> RequestError:
    return RequestError(
        f"A text has more than the {MAX_TOKENS} tokens that the model reads.",
        param=param,
        code="context_length_exceeded",
        fix="Split it.",
    )


def _written(vector: NDArray[np.float32], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]
