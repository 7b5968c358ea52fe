"""Send many forged webhooks at the same time: ``python -m benchmarks.webhook_flood URL COUNT``.

Prints the number of 404 responses and the seconds. Uses plain sockets, to load the machine as little as possible.
"""

from __future__ import annotations

import asyncio
import sys
import time
from urllib.parse import urlsplit

__all__ = ["flood"]


async def flood(url: str, count: int) -> int:
    """Open *count* connections, send a forged webhook on each, and return how many were rejected with 404."""
    parts = urlsplit(url)
    body = b"{" * 1000

    async def one(number: int) -> bool:
        ticket = f"b3NhaV9kZWZhdWx0.WyJ{number:06}.aaaaaa.{'A' * 43}"
        head = f"POST {parts.path}/osai/webhook/{ticket} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            answer = await reader.read()
            writer.close()
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.1 404")

    return sum(await asyncio.gather(*(one(number) for number in range(count))))


if __name__ == "__main__":
    begin = time.monotonic()
    refused = asyncio.run(flood(sys.argv[1], int(sys.argv[2])))
    sys.stdout.write(f"{refused} {time.monotonic() - begin:.2f}\n")
