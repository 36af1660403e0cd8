"""Buys chat completions with the official `openai` package whose HTTP client is the paying httpx client.

python openai_buy.py --url http://host/v1 --key 0x… [--model M] [--prompt P] [--max-tokens N] [--include-usage]
                     [--stream] [--times N]
                     [--rpc URL] [--upto]
"""

import shared
from openai import AsyncOpenAI


def main() -> None:
    parser = shared.flags(__doc__)
    parser.add_argument("--model", default="test")
    parser.add_argument("--prompt", default="hello")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--include-usage", action="store_true")
    args = parser.parse_args()

    paying, attempts = shared.paying_client(args)
    openai = AsyncOpenAI(base_url=args.url, api_key="not-a-key", http_client=paying)
    request = {"model": args.model, "messages": [{"role": "user", "content": args.prompt}]}
    if args.max_tokens is not None:
        request["max_tokens"] = args.max_tokens
    if args.include_usage:
        request["stream_options"] = {"include_usage": True}

    async def whole(started: float) -> dict:
        """One JSON completion."""
        raw = await openai.chat.completions.with_raw_response.create(**request)
        completion = raw.parse()
        return {
            "status": raw.status_code,
            "content": completion.choices[0].message.content,
            "finishReason": completion.choices[0].finish_reason,
            "usage": completion.usage.model_dump() if completion.usage else None,
            "totalMs": shared.elapsed_ms(started),
        }

    async def streamed(started: float) -> dict:
        """One streamed completion, every chunk noted."""
        answer = {"content": "", "finishReason": None, "usage": None, "chunks": 0, "firstChunkMs": None}
        stream = await openai.chat.completions.create(**request, stream=True)
        async for chunk in stream:
            if answer["firstChunkMs"] is None:
                answer["firstChunkMs"] = shared.elapsed_ms(started)
            answer["chunks"] += 1
            if chunk.choices:
                answer["content"] += chunk.choices[0].delta.content or ""
                answer["finishReason"] = chunk.choices[0].finish_reason or answer["finishReason"]
            if chunk.usage:
                answer["usage"] = chunk.usage.model_dump()
        return {**answer, "status": stream.response.status_code, "totalMs": shared.elapsed_ms(started)}

    buy = streamed if args.stream else whole
    shared.run("openai (PyPI) over x402 and httpx", args.times, attempts, buy)


if __name__ == "__main__":
    main()
