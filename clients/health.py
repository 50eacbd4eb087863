"""`python -m clients.health [ADDR] [SERVICE]`: exit code 0 if the gateway serves, 1 if not."""

from __future__ import annotations

import asyncio
import sys

from clients.client import DEFAULT_TARGET, Upbeat
from clients.errors import ClientError


async def check(target: str, service: str) -> str:
    """The status that grpc.health.v1 reports, or why there is none."""
    async with Upbeat(target) as upbeat:
        try:
            return await upbeat.health(service)
        except ClientError as error:
            return str(error)


def main(arguments: list[str]) -> int:
    """Prints the status; returns the exit code."""
    target, service = (*arguments, *(DEFAULT_TARGET, "")[len(arguments) :])[:2]
    status = asyncio.run(check(target, service))
    print(status)
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
