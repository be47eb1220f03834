"""A bulk job: invite everyone in a file, once, through any interruption.

In one terminal:

    gather-async fake-server --port 8800 --api-key qapi_try --quiet

In another (`pip install 'gather-async[cli]'`), 500 people who don't exist:

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    (echo first_name,last_name,email,phone,external_id
     for n in $(seq 100 599); do echo "P,$n,p$n@example.com,+12025550$n,crm-$n"; done) > people.csv
    interview=$(gather-async create interview --title Engineer)
    python bulk_job.py people.csv $interview --dry-run
    python bulk_job.py people.csv $interview --per-minute 100000
    python bulk_job.py people.csv $interview --per-minute 100000

The last line shows that a second run sends nothing. The real API allows 100 requests a minute,
which is the default, and 500 people take an hour; Ctrl-C stops the job, and the same command
resumes it.
"""

import argparse
import asyncio
import signal
from collections.abc import Sequence

from gather_async import GatherClient, RateLimit
from gather_async.bulk import BulkInvite, InviteProgress, read_candidates


def show(progress: InviteProgress) -> None:
    """Show how far the job is; called ten times a second at most."""
    print(f"\r{progress.done} of {progress.total}", end="", flush=True)


def stop_on_signals(job: BulkInvite) -> None:
    """Let Ctrl-C and a service manager stop the job; requests on the wire end first."""
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, job.stop)


async def run(options: argparse.Namespace) -> int:
    """Invite everyone; return the exit status."""
    limits = (RateLimit(options.per_minute, per=60), RateLimit(10 * options.per_minute, per=3600))
    async with GatherClient(default_region="US", rate_limits=limits) as gather:
        job = gather.bulk_invite(
            read_candidates(options.file),
            interview_id=options.interview,
            delivery_types=["email"],
            journal=f"{options.file}.journal.db",
            on_progress=show,
            dry_run=options.dry_run,
        )
        stop_on_signals(job)
        report = await job
    if report.plan is not None:
        print(
            f"\n{report.ready} ready, {report.rejected} rejected; {report.plan.requests} requests"
        )
        return 0
    report.to_csv(f"{options.file}.outcomes.csv")
    print(f"\n{report.invited} invited, {report.rejected} rejected, {report.failed} failed,")
    print(f"{report.unfinished} unfinished; {report.requests} requests")
    for outcome in report.failures:
        print(f"{outcome.place}: {outcome.reason}")
    return 1 if report.stopped else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run the job."""
    parser = argparse.ArgumentParser(description="Invite everyone in a file, once.")
    parser.add_argument("file", help="CSV or JSON Lines")
    parser.add_argument("interview", help="its id")
    parser.add_argument("--per-minute", type=int, default=100, help="the server's rate limit")
    parser.add_argument("--dry-run", action="store_true", help="check and estimate only")
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
