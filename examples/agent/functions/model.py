"""A language model over HTTP, in the form that most servers of them speak: chat completions, as server-sent events."""

import json
from collections.abc import AsyncIterator, Sequence

import aiohttp
from headwater import ApplicationError

from .settings import Model
from .threads import Message

CONNECT_S = 10.0
SILENCE_S = 60.0  # between two tokens
ANSWER_CHARACTERS_MAX = 100_000


async def completion(model: Model, history: Sequence[Message]) -> AsyncIterator[str]:
    """Yield what the model says, as it says it.

    Raises:
        ApplicationError: `model_busy`, `model_failed`, `model_unreachable`, or `model_cut` where its answer ends
            before it is whole. The key is in none of them.
    """
    body = {
        "model": model.model_name,
        "stream": True,
        "messages": [{"role": message.role, "content": message.text} for message in history if message.text],
    }
    headers = {"Authorization": f"Bearer {model.model_key.reveal()}"}
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.post(f"{model.model_url}/chat/completions", json=body, headers=headers) as response,
        ):
            if response.status != 200:
                code = "model_busy" if response.status == 429 else "model_failed"
                raise ApplicationError({"code": code, "status": response.status})
            async for token in _tokens(response.content):
                yield token
    except aiohttp.ClientPayloadError:
        raise ApplicationError({"code": "model_cut"}) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ApplicationError({"code": "model_unreachable", "error": type(error).__name__}) from None


async def _tokens(lines: aiohttp.StreamReader) -> AsyncIterator[str]:
    characters = 0
    async for line in lines:
        kind, _, data = line.decode().strip().partition(": ")
        if kind != "data":
            continue
        if data == "[DONE]":
            return
        try:
            token = json.loads(data)["choices"][0]["delta"].get("content") or ""
        except (ValueError, LookupError, AttributeError, TypeError):
            raise ApplicationError({"code": "model_failed", "line": data[:200]}) from None
        characters += len(token)
        if characters > ANSWER_CHARACTERS_MAX:
            raise ApplicationError({"code": "model_failed", "characters_max": ANSWER_CHARACTERS_MAX})
        if token:
            yield token
    raise ApplicationError({"code": "model_cut"})
