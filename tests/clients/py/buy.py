"""Buys an HTTP resource with the official Python x402 client over httpx.

python buy.py --url URL --key 0x… [--method POST] [--body JSON] [--header "Name: value"]… [--stream] [--times N]
              [--rpc URL] [--upto] [--identifier ID]
"""

import shared


def main() -> None:
    parser = shared.flags(__doc__)
    parser.add_argument("--method")
    parser.add_argument("--body")
    parser.add_argument("--header", action="append", default=[])
    args = parser.parse_args()

    headers = dict(line.split(": ", 1) for line in args.header)
    if args.body is not None:
        headers["content-type"] = "application/json"
    if args.stream:
        headers["accept"] = "text/event-stream"
    method = args.method or ("GET" if args.body is None else "POST")
    paying, attempts = shared.paying_client(args)

    async def buy(started: float) -> dict:
        request = paying.stream(method, args.url, headers=headers, content=args.body)
        async with request as response:
            chunks_ms, body = [], b""
            async for chunk in response.aiter_bytes():
                chunks_ms.append(shared.elapsed_ms(started))
                body += chunk
            text = body.decode()
            is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
            return {
                "status": response.status_code,
                "body": text,
                "firstChunkMs": chunks_ms[0] if chunks_ms else None,
                "chunks": len(chunks_ms),
                "totalMs": shared.elapsed_ms(started),
                "frames": shared.frames(text) if is_stream else None,
            }

    shared.run("x402 (PyPI) over httpx", args.times, attempts, buy)


if __name__ == "__main__":
    main()
