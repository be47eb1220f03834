"""Bulk invites of many tenants as taskiq jobs, each in slices of some minutes.

In one terminal, beside a Redis server:

    gather-async fake-server --port 8800 --api-key qapi_acme

In another (`pip install 'gather-async[cli,redis]' taskiq taskiq-redis`), a tenant of 20 people:

    export GATHER_BASE_URL=http://127.0.0.1:8800 REDIS_URL=redis://localhost:6379/0
    mkdir -p campaigns
    echo '{"acme": "qapi_acme"}' > keys.json
    (echo first_name,last_name,email,phone,external_id
     for n in $(seq 100 119); do echo "P,$n,p$n@example.com,+12025550$n,crm-$n"; done
    ) > campaigns/acme.csv
    taskiq worker --workers 1 --max-async-tasks 300 taskiq_invites:broker

In a third, where a campaign begins:

    export GATHER_BASE_URL=http://127.0.0.1:8800 REDIS_URL=redis://localhost:6379/0
    export GATHER_API_KEY=qapi_acme
    interview=$(gather-async create interview --title Engineer)
    python taskiq_invites.py acme $interview
    until [ $(gather-async list candidate-interviews | grep -c invite_sent) = 20 ]; do sleep 1; done
    echo 20 invited

A broker delivers a message again that no worker has confirmed in time (here 10 minutes), as its
worker may be dead. A bulk invite of thousands takes hours, so it runs in slices: after 4 minutes
it stops in good order, and sends itself the message for the next one, which any worker may get.
What is delivered twice all the same is refused by the lease; a worker that was killed loses
nothing: its message comes again, and the journal knows how far it was.

The folder must be one that every worker reaches, on a disk on which SQLite's locks work.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from taskiq import AsyncBroker, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from gather_async import GatherPool, LeaseHeldError
from gather_async.bulk import StopReason, read_candidates
from gather_async.redis import RedisLease

SLICE = 240.0  # seconds, with some to spare below the broker's 10 minutes


class Campaigns:
    """Jobs of one broker, for tenants with a key and a file of candidates each."""

    def __init__(
        self,
        broker: AsyncBroker,
        redis_url: str,
        folder: Path,
        keys: Mapping[str, str],
        pool: GatherPool | None = None,
        *,
        seconds: float = SLICE,
    ) -> None:
        """Register the job; ``keys`` are the tenants' API keys."""
        self._redis_url, self._folder, self._keys = redis_url, folder, keys
        self._pool, self._seconds = pool or GatherPool(), seconds

        async def invite(tenant: str, interview_id: str) -> str:
            return await self._invite(tenant, interview_id)  # taskiq takes functions, no methods

        self.invite = broker.register_task(invite, task_name="invite")
        broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, self._stop)

    async def _stop(self, _: TaskiqState) -> None:
        await self._pool.aclose()

    async def _invite(self, tenant: str, interview_id: str) -> str:
        """Invite for some minutes, and send the message for the next slice."""
        job = self._pool.for_key(self._keys[tenant]).bulk_invite(
            read_candidates(self._folder / f"{tenant}.csv"),
            interview_id=interview_id,
            journal=self._folder / f"{tenant}.db",
            lease=RedisLease(self._redis_url, f"invites of {tenant}"),
        )
        timer = asyncio.get_running_loop().call_later(self._seconds, job.stop)
        try:
            report = await job
        except LeaseHeldError:
            return "runs elsewhere"  # that worker sends the next message itself
        finally:
            timer.cancel()
        if report.stopped is StopReason.BREAKER:
            raise RuntimeError("The job stopped by itself: see what fails.") from report.error
        if report.stopped is None:
            return "done"
        await self.invite.kiq(tenant, interview_id)
        return "goes on"


def make_campaigns() -> tuple[AsyncBroker, Campaigns]:
    """Return the broker that the worker runs, and its jobs."""
    url = os.environ["REDIS_URL"]
    broker = RedisStreamBroker(url, idle_timeout=600_000)  # milliseconds
    keys = json.loads(Path("keys.json").read_text(encoding="utf-8"))
    return broker, Campaigns(broker, url, Path("campaigns"), keys)


async def begin(tenant: str, interview_id: str) -> None:
    """Begin a campaign, from any process."""
    broker, campaigns = make_campaigns()
    await broker.startup()
    await campaigns.invite.kiq(tenant, interview_id)
    await broker.shutdown()


def __getattr__(name: str) -> AsyncBroker:
    """Make the broker when the worker asks for it, so that tests can import this file."""
    if name == "broker":
        return make_campaigns()[0]
    raise AttributeError(name)


if __name__ == "__main__":
    asyncio.run(begin(*sys.argv[1:]))
