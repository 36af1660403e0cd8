"""Buys from the other APIs than chat with the official `openai` and `anthropic` packages whose HTTP client is
the paying httpx client.

python api_buy.py --api completions|embeddings|responses|messages --url http://host/v1 --key 0x… [--model M]
                  [--prompt P] [--max-tokens N] [--stream] [--times N] [--rpc URL] [--upto]
"""

import inspect
import json

import httpx
import httpx2
import shared
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI


class Body(httpx2.AsyncByteStream):
    """A body of the paying client, as the other package has it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aiter__(self):
        async for chunk in self._response.aiter_raw():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class Paying(httpx2.AsyncBaseTransport):
    """The paying httpx client for a package that is built on httpx2: `anthropic` takes no other."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = self._client.build_request(
            request.method, str(request.url), headers=request.headers.raw, content=await request.aread(), timeout=600
        )
        response = await self._client.send(sent, stream=True)
        return httpx2.Response(response.status_code, headers=response.headers.raw, stream=Body(response))


def completions(openai: AsyncOpenAI, _, args):
    request = {"model": args.model, "prompt": args.prompt, "max_tokens": args.max_tokens}

    def whole(answer) -> tuple:
        choice = answer.choices[0]
        return choice.text, choice.finish_reason, answer.usage

    def part(chunk) -> tuple:
        choice = chunk.choices[0] if chunk.choices else None
        return (choice.text, choice.finish_reason, chunk.usage) if choice else ("", None, chunk.usage)

    return openai.completions, request, whole, part


def embeddings(openai: AsyncOpenAI, _, args):
    def whole(answer) -> tuple:
        return json.dumps([it.embedding for it in answer.data]), None, answer.usage

    return openai.embeddings, {"model": args.model, "input": args.prompt.split(" ")}, whole, None


def responses(openai: AsyncOpenAI, _, args):
    request = {"model": args.model, "input": args.prompt, "max_output_tokens": args.max_tokens}

    def whole(answer) -> tuple:
        return answer.output_text, answer.status, answer.usage

    def part(event) -> tuple:
        text = event.delta if event.type == "response.output_text.delta" else ""
        response = getattr(event, "response", None)
        return (text, response.status, response.usage) if response else (text, None, None)

    return openai.responses, request, whole, part


def messages(_, anthropic: AsyncAnthropic, args):
    message = {"role": "user", "content": args.prompt}
    request = {"model": args.model, "max_tokens": args.max_tokens, "messages": [message]}

    def whole(answer) -> tuple:
        return answer.content[0].text, answer.stop_reason, answer.usage

    def part(event) -> tuple:
        delta = getattr(event, "delta", None)
        usage = getattr(event, "usage", None)
        return getattr(delta, "text", ""), getattr(delta, "stop_reason", None), usage

    return anthropic.messages, request, whole, part


APIS = {"completions": completions, "embeddings": embeddings, "responses": responses, "messages": messages}


def main() -> None:
    parser = shared.flags(__doc__)
    parser.add_argument("--api", required=True, choices=APIS)
    parser.add_argument("--model", default="test")
    parser.add_argument("--prompt", default="hello")
    parser.add_argument("--max-tokens", type=int, default=50)
    args = parser.parse_args()

    paying, attempts = shared.paying_client(args)
    openai = AsyncOpenAI(base_url=args.url, api_key="not-a-key", http_client=paying)
    transport = httpx2.AsyncClient(transport=Paying(paying))
    base_url = args.url.removesuffix("/v1")
    anthropic = AsyncAnthropic(base_url=base_url, api_key="not-a-key", http_client=transport)
    resource, request, whole, part = APIS[args.api](openai, anthropic, args)

    async def buy(started: float) -> dict:
        """One answer in one piece."""
        raw = await resource.with_raw_response.create(**request)
        parsed = raw.parse()
        content, finish_reason, usage = whole(await parsed if inspect.isawaitable(parsed) else parsed)
        return {
            "status": raw.status_code,
            "content": content,
            "finishReason": finish_reason,
            "usage": usage.model_dump() if usage else None,
            "totalMs": shared.elapsed_ms(started),
        }

    async def streamed(started: float) -> dict:
        """One streamed answer, every event noted."""
        answer = {"content": "", "finishReason": None, "usage": None, "chunks": 0, "firstChunkMs": None}
        stream = await resource.create(**request, stream=True)
        async for event in stream:
            text, finish_reason, usage = part(event)
            if text and answer["firstChunkMs"] is None:
                answer["firstChunkMs"] = shared.elapsed_ms(started)
            answer["chunks"] += 1
            answer["content"] += text or ""
            answer["finishReason"] = finish_reason or answer["finishReason"]
            answer["usage"] = usage.model_dump() if usage else answer["usage"]
        return {**answer, "status": stream.response.status_code, "totalMs": shared.elapsed_ms(started)}

    sdk = "anthropic" if args.api == "messages" else "openai"
    shared.run(f"{sdk} (PyPI) over x402 and httpx", args.times, attempts, streamed if args.stream else buy)


if __name__ == "__main__":
    main()
