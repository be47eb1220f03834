"""A program that invites rows over a real journal, to be killed by its parent."""

import asyncio
import sys

from gather_async.bulk import BulkInvite
from gather_async.client import GatherClient
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import RateLimit


async def main() -> int:
    """Invite the people that the arguments tell of; return how many are not invited yet."""
    base_url, api_key, interview_id, journal, number, timeout = sys.argv[1:]
    count = int(number)
    rows = (
        {
            "first_name": "Person",
            "last_name": str(number),
            "email": f"row-{number}@example.com",
            "phone": f"+1202{number:07d}",
        }
        for number in range(count)
    )
    async with GatherClient(
        api_key,
        base_url=base_url,
        rate_limits=[RateLimit(1_000_000, per=60)],
        retry=RetryPolicy(base=0.01, in_flight_timeout=0.3),
    ) as gather:
        report = await BulkInvite(
            gather,
            rows,
            interview_id=interview_id,
            journal=journal,
            in_flight_timeout=float(timeout),
        )
    return min(100, report.total - report.invited)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
