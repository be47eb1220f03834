"""Bulk invites of many tenants as arq jobs, each in slices of some minutes.

In one terminal, beside a Redis server:

    gather-async fake-server --port 8800 --api-key qapi_acme

In another (`pip install 'gather-async[cli,redis]' arq`), a tenant of 20 people:

    export GATHER_BASE_URL=http://127.0.0.1:8800 REDIS_URL=redis://localhost:6379/0
    mkdir -p campaigns
    echo '{"acme": "qapi_acme"}' > keys.json
    (echo first_name,last_name,email,phone,external_id
     for n in $(seq 100 119); do echo "P,$n,p$n@example.com,+12025550$n,crm-$n"; done
    ) > campaigns/acme.csv
    arq arq_invites.WorkerSettings

In a third, where a campaign begins:

    export GATHER_BASE_URL=http://127.0.0.1:8800 REDIS_URL=redis://localhost:6379/0
    export GATHER_API_KEY=qapi_acme
    interview=$(gather-async create interview --title Engineer)
    python arq_invites.py acme $interview
    until [ $(gather-async list candidate-interviews | grep -c invite_sent) = 20 ]; do sleep 1; done
    echo 20 invited

arq cancels a job after its timeout, and runs a job of a dead worker again after it. A bulk invite
of thousands takes hours, so it runs in slices: after 4 minutes it stops in good order, and
enqueues the next one, which any worker may get. What runs twice all the same is refused by the
lease; a worker that was stopped or killed loses nothing: arq runs the job again, and the journal
knows how far it was.

The folder must be one that every worker reaches, on a disk on which SQLite's locks work.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from arq.connections import RedisSettings, create_pool
from arq.worker import func

from gather_async import GatherPool, LeaseHeldError
from gather_async.bulk import StopReason, read_candidates
from gather_async.redis import RedisLease

SLICE = 240.0  # seconds
TIMEOUT = 600.0  # seconds: arq's, far above a slice and the time in which it stops


async def invite(ctx: dict[str, Any], tenant: str, interview_id: str) -> str:
    """Invite for some minutes, and enqueue the next slice."""
    folder: Path = ctx["folder"]
    job = (
        ctx["pool"]
        .for_key(ctx["keys"][tenant])
        .bulk_invite(
            read_candidates(folder / f"{tenant}.csv"),
            interview_id=interview_id,
            journal=folder / f"{tenant}.db",
            lease=RedisLease(ctx["url"], f"invites of {tenant}"),
        )
    )
    timer = asyncio.get_running_loop().call_later(ctx.get("slice", SLICE), job.stop)
    try:
        report = await job
    except LeaseHeldError:
        return "runs elsewhere"  # that worker enqueues the next slice itself
    finally:
        timer.cancel()
    if report.stopped is StopReason.BREAKER:
        raise RuntimeError("The job stopped by itself: see what fails.") from report.error
    if report.stopped is None:
        return "done"
    await ctx["redis"].enqueue_job("invite", tenant, interview_id)
    return "goes on"


def keys() -> dict[str, str]:
    """Return the API key of each tenant."""
    text = Path("keys.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


async def startup(ctx: dict[str, Any]) -> None:
    """Make what the jobs of a worker share, unless its ``ctx`` has it."""
    ctx.setdefault("url", os.environ.get("REDIS_URL"))
    ctx.setdefault("folder", Path("campaigns"))
    ctx.setdefault("pool", GatherPool())
    if "keys" not in ctx:
        ctx["keys"] = keys()


async def shutdown(ctx: dict[str, Any]) -> None:
    """Close it."""
    await ctx["pool"].aclose()


class WorkerSettings:
    """What ``arq`` runs."""

    functions = (func(invite, timeout=TIMEOUT, keep_result=0, max_tries=1_000),)
    on_startup = startup
    on_shutdown = shutdown
    max_jobs = 300
    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://localhost"))


async def begin(tenant: str, interview_id: str) -> None:
    """Begin a campaign, from any process."""
    redis = await create_pool(WorkerSettings.redis_settings)
    await redis.enqueue_job("invite", tenant, interview_id)
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(begin(*sys.argv[1:]))
