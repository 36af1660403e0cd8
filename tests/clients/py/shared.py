"""What the scripts share: flags, the official paying transport with a record of its attempts, a report.

Every script prints one JSON object and exits 0 or 1.
"""

import argparse
import asyncio
import base64
import json
import sys
import time

import httpx
from eth_account import Account
from x402 import x402Client
from x402.extensions.payment_identifier import append_payment_identifier_to_extensions
from x402.http.clients import x402_httpx_transport
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSignerWithRPC
from x402.mechanisms.evm.upto.client import UptoEvmScheme


def flags(description: str) -> argparse.ArgumentParser:
    """The flags of every buying script."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--rpc")
    parser.add_argument("--upto", action="store_true")
    parser.add_argument("--identifier")
    return parser


def _noted(headers: httpx.Headers, *names: str):
    """What the first of the named headers says, decoded; its text where it cannot be decoded."""
    value = next((headers[name] for name in names if name in headers), None)
    if value is None:
        return None
    try:
        return json.loads(base64.b64decode(value, validate=True))
    except ValueError:
        return value


class Recording(httpx.AsyncBaseTransport):
    """Notes each attempt: what was signed, and which answers came (`status` stays None where none did)."""

    def __init__(self) -> None:
        self.attempts: list[dict] = []
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        attempt = {
            "method": request.method,
            "url": str(request.url),
            "signed": _noted(request.headers, "PAYMENT-SIGNATURE", "X-PAYMENT"),
            "status": None,
        }
        self.attempts.append(attempt)
        sent = time.perf_counter()
        response = await self._inner.handle_async_request(request)
        attempt |= {
            "status": response.status_code,
            "required": _noted(response.headers, "PAYMENT-REQUIRED"),
            "settled": _noted(response.headers, "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE"),
            "headers": dict(response.headers),
            "headersMs": elapsed_ms(sent),
        }
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def paying_client(args: argparse.Namespace, **options) -> tuple[httpx.AsyncClient, list[dict]]:
    """The official client with its default registration, as an httpx client.

    With `--rpc` it can read the chain, as it must to sign for its Permit2 allowance; with `--upto` it
    knows that scheme as well. With `--identifier`, all it pays for is one request of that name, to
    sellers that declare `payment-identifier`.
    """
    client = x402Client()
    account = Account.from_key(args.key)
    signer = account if args.rpc is None else EthAccountSignerWithRPC(account, args.rpc)
    register_exact_evm_client(client, signer)
    if args.upto:
        client.register("eip155:*", UptoEvmScheme(signer))
    if args.identifier is not None:

        async def name(context) -> None:
            declared = context.payment_required.extensions or {}
            append_payment_identifier_to_extensions(declared, args.identifier)

        client.on_before_payment_creation(name)
    recording = Recording()
    transport = x402_httpx_transport(client, recording)
    return httpx.AsyncClient(transport=transport, **options), recording.attempts


def frames(text: str) -> list[dict]:
    """Cuts an event stream into `{data}`, `{event}` or `{comment}`, in order of arrival."""
    cut = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line:
            field, _, value = line.partition(":")
            cut.append({field or "comment": value.removeprefix(" ")})
    return cut


def elapsed_ms(started: float) -> int:
    """Whole milliseconds since `started`."""
    return round((time.perf_counter() - started) * 1000)


def run(client: str, times: int, attempts: list[dict], buy) -> None:
    """Runs `buy` the wanted number of times, prints the report, exits 0 if every purchase was served."""

    async def purchases() -> list[dict]:
        made = []
        for _ in range(times):
            before, started = len(attempts), time.perf_counter()
            try:
                purchase = await buy(started)
            except Exception as error:  # whatever went wrong is what the test wants to see
                purchase = {
                    "error": {
                        "name": type(error).__name__,
                        "message": str(error),
                        "status": getattr(error, "status_code", None),
                        "body": getattr(error, "body", None),
                    }
                }
            made.append({**purchase, "attempts": attempts[before:]})
        return made

    made = asyncio.run(purchases())
    served = all("error" not in purchase and purchase["status"] < 400 for purchase in made)
    print(json.dumps({"client": client, "served": served, "purchases": made}))
    sys.exit(0 if served else 1)
