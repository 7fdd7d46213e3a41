"""Completions from a server: any vLLM deployment that speaks the OpenAI protocol.

Prompts go out as token ids and completions come back as token ids, so that no text is tokenized
twice. Every setting that bends the sampling law is given in each request: what a request leaves
open, vLLM takes from the model folder's generation config.

The server's weights are its own. :mod:`passgrad.rollouts.same_law` compares the law it drew from
with that of a model.

No seed is sent. A server batches what arrives, so that a seed would not bring the same completions
back, and vLLM on a CPU ends its engine when a prompt with a seed of its own is read in pieces.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from passgrad.errors import UserError
from passgrad.lm.rollouts import Completion, Request
from passgrad.progress import Progress, Silent

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: where the key is looked up, in this order
KEY_VARIABLES = ("PASSGRAD_API_KEY", "OPENAI_API_KEY")

# Transport errors, 429 and 5xx are tried again after 0.5, 1, 2, ... at most 8 seconds: about a
# quarter of a minute, enough for a proxy that changes over.
_RETRIES = 5
_CONNECT_SECONDS = 10.0
# Completions asked for at once: what a server has in its batch, and as many waiting. The server
# queues the rest, and prompts in its queue cost nothing but their connection.
_IN_FLIGHT = 2048
_MOST_CONNECTIONS = 64


def draw(request: Request, progress: Progress | None = None) -> list[list[Completion]]:
    """Completions of each prompt, token ids in, token ids out.

    :raises UserError: In one line, if the server cannot be reached, refuses, serves several models
        of other names, has too short a context, or does not answer as vLLM does.
    """
    if importlib.util.find_spec("openai") is None:
        raise UserError("engine 'server' needs the package openai; install passgrad[lm]")
    from anyio.from_thread import start_blocking_portal

    # In an event loop of its own, because a notebook has one that is running. An interrupt cancels
    # what is under way, and the server is told so.
    with start_blocking_portal() as portal:
        return portal.call(_draw, request, progress or Silent())


async def _draw(request: Request, progress: Progress) -> list[list[Completion]]:
    from openai import AsyncOpenAI, Timeout

    url = address(request.base_url)
    async with AsyncOpenAI(
        base_url=url,
        api_key=_key() or "EMPTY",
        max_retries=_RETRIES,
        # An answer may take as long as it takes: to give up on long completions and draw them
        # again would prefer short ones.
        timeout=Timeout(None, connect=_CONNECT_SECONDS),
    ) as client:
        name = await _served(client, url, request)
        gate = asyncio.Semaphore(in_flight(request.num_samples))

        async def complete(prompt: tuple[int, ...]) -> list[Completion]:
            async with gate:
                drawn = await _complete(client, url, name, request, prompt)
            progress.advance(len(drawn))
            return drawn

        tasks = [asyncio.ensure_future(complete(prompt)) for prompt in request.prompts]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise


def in_flight(num_samples: int) -> int:
    """How many prompts are asked for at once."""
    return min(max(_IN_FLIGHT // num_samples, 2), _MOST_CONNECTIONS)


def address(base_url: str | None) -> str:
    """The address with the protocol's ``/v1`` where it names a host alone.

    :raises UserError: If it is no http address, or holds a password or a query.
    """
    if set("@?#") & set(base_url or ""):
        raise UserError(
            "base_url holds a password or a query, and addresses are stored; "
            f"give the plain address, and the key in {KEY_VARIABLES[0]}"
        )
    parts = urlsplit(base_url or "")
    try:
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        whole = False
    if not whole:
        raise UserError(
            f"base_url {base_url!r} is no address; give one such as http://127.0.0.1:8000/v1"
        )
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/v1"))


def _key() -> str | None:
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


async def _served(client: AsyncOpenAI, url: str, request: Request) -> str:
    """What the server calls the model: the one of this name or folder, or the only one it has."""
    with _explained(url, "/models"):
        # Nothing is under way yet that would be worth a wait.
        listed = (await client.with_options(max_retries=1).models.list()).data
        wanted = {request.model, request.name}
        named = [one for one in listed if wanted & {one.id, (one.model_extra or {}).get("root")}]
        names = ", ".join(one.id for one in listed)
    if not names:
        raise UserError(f"the server at {url} serves no model; start it with one")
    if not named and len(listed) > 1:
        raise UserError(
            f"the server at {url} does not serve {request.name or request.model}; it serves {names}"
        )
    found = (named or listed)[0]
    context = (found.model_extra or {}).get("max_model_len")
    longest = max(map(len, request.prompts))
    # The server would cut completions short, silently.
    if isinstance(context, int) and longest + request.max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens = {request.max_new_tokens} need more "
            f"than the {context} tokens of the server's context; "
            "lower max_new_tokens, or start it with a longer --max-model-len"
        )
    return str(found.id)


async def _complete(
    client: AsyncOpenAI, url: str, name: str, request: Request, prompt: tuple[int, ...]
) -> list[Completion]:
    settings = request.settings
    with _explained(url, "/completions"):
        answer: Any = await client.completions.create(
            model=name,
            prompt=list(prompt),
            n=request.num_samples,
            max_tokens=request.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            logprobs=0,
            extra_body={
                "top_k": settings.top_k,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "min_tokens": 0,
                "watermarking": False,
                "stop_token_ids": list(request.ends),
                "ignore_eos": True,
                # Either of the two is enough; the second is understood by older servers.
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
            },
        )
        choices = sorted(answer.choices, key=lambda one: one.index)
        if len(choices) != request.num_samples:
            raise UserError(
                f"the server at {url} gave {len(choices)} completions instead of "
                f"{request.num_samples}; it must support n"
            )
        return [_completion(choice, url, request, prompt) for choice in choices]


def _completion(choice: Any, url: str, request: Request, prompt: tuple[int, ...]) -> Completion:
    extra: Mapping[str, Any] = choice.model_extra or {}
    read = extra.get("prompt_token_ids")
    if read is not None and tuple(read) != prompt:
        raise UserError(
            f"the server at {url} read other tokens than it was sent; "
            "switch off what rewrites prompts there"
        )
    ids = extra.get("token_ids")
    if ids is None:
        marks = [token.partition("token_id:")[2] for token in choice.logprobs.tokens]
        if not all(mark.isdigit() for mark in marks):
            raise UserError(
                f"the server at {url} gives no token ids; take vLLM, which has return_token_ids"
            )
        ids = [int(mark) for mark in marks]
    logprobs = choice.logprobs.token_logprobs
    if len(logprobs) != len(ids) or not ids:
        raise ValueError("token ids without log-probabilities")
    _check_end(ids, choice.finish_reason, url, request)
    return Completion(tuple(map(int, ids)), choice.finish_reason, float(sum(logprobs)))


def _check_end(ids: list[int], reason: str | None, url: str, request: Request) -> None:
    """The end tokens end a completion, and nothing else does but the length."""
    ended = ids[-1] in request.ends
    if any(token in request.ends for token in ids[:-1]):
        raise UserError(f"the server at {url} does not stop at stop_token_ids; take vLLM")
    if reason == "length" and len(ids) == request.max_new_tokens:
        return
    if reason == "length":
        raise UserError(
            f"the server at {url} cut a completion off at {len(ids)} tokens; "
            f"lower max_new_tokens ({request.max_new_tokens}), or raise its limit"
        )
    if reason != "stop" or not ended:
        raise UserError(
            f"the server at {url} ended a completion ({reason}) at token {ids[-1]}, which is not "
            "the end that was asked for; switch off its own stops"
        )


@contextmanager
def _explained(url: str, path: str) -> Iterator[None]:
    """What goes wrong, in one line that has no key in it."""
    import openai

    try:
        yield
    except openai.APIConnectionError as error:
        raise UserError(
            f"no answer from {url} ({_one_line(error.__cause__ or error)}); "
            "check that the server runs and that base_url names it"
        ) from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        held = "refuses the key in" if _key() else "wants a key: set it in"
        raise UserError(
            f"the server at {url} ({error.status_code}) {held} {' or '.join(KEY_VARIABLES)}"
        ) from None
    except openai.NotFoundError:
        raise UserError(
            f"{url}{path} does not exist (404); base_url must be that of an OpenAI-compatible "
            "server, such as http://127.0.0.1:8000/v1"
        ) from None
    except openai.APIStatusError as error:
        raise UserError(
            f"the server at {url} answers {error.status_code}: {_said(error)}"
        ) from None
    except (openai.OpenAIError, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{url}{path} does not answer as an OpenAI-compatible server does "
            f"({_one_line(error)}); check base_url"
        ) from None


def _said(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return _one_line(message or "without a reason")


def _one_line(text: object) -> str:
    short = " ".join(str(text).split())[:200].rstrip(".")
    key = _key()
    return (short.replace(key, "***") if key else short) or type(text).__name__
