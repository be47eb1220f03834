"""What a call costs the client: instructions and memory, beside peers in the same run.

A ratio is to a naive loop on aiohttp: ``session.post(url, json=...)``, ``await
response.json()``. Each client has a process of its own and talks to one canned server.
Without valgrind the ratio is of CPU time: the median of rounds in which all took turns.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from benchmarks.canned_server import canned_server
from benchmarks.figure import Figure
from benchmarks.meter import CAN_COUNT, Subject
from benchmarks.peers import NAIVE, OURS, OURS_WITH_ORJSON, Peer, installed_peers

__all__ = ["figures"]

_TASKS = {
    "create": "candidates.create",
    "get": "questions.get, the same id",
    "get-new": "questions.get, a new id each time",
}
_TARGETS = {OURS: 1.03, OURS_WITH_ORJSON: 1.0}
_COUNTED_CALLS = 200
_TIMED_CALLS = 150
_ROUNDS = 21
_CALLS_FOR_MEMORY = 1000

_Costs = Mapping[str, float]
"""What a call costs each client, by its name."""


def figures() -> Iterator[Figure]:
    """Yield each client's cost of each call, then its memory; about two minutes."""
    peers = installed_peers()
    with canned_server() as url:
        yield from _counted(peers, url) if CAN_COUNT else _timed(peers, url)
        yield from _memory(peers, url)


def _subject(peer: str, url: str, *, counted: bool) -> Subject:
    return Subject(["-m", "benchmarks.peers", peer, url], counted=counted)


def _counted(peers: Mapping[str, Peer], url: str) -> Iterator[Figure]:
    """Count each client's instructions, one client after the other."""
    costs: dict[str, dict[str, float]] = {task: {} for task in _TASKS}
    for name in peers:
        with _subject(name, url, counted=True) as subject:
            for task, of_clients in costs.items():
                of_clients[name] = subject.cost(task, _COUNTED_CALLS)
    for task, of_clients in costs.items():
        for name, cost in of_clients.items():
            ratio = cost / of_clients[NAIVE]
            yield _figure(task, peers[name], ratio, f"{cost / 1000:,.0f} k instructions")


def _timed(peers: Mapping[str, Peer], url: str) -> Iterator[Figure]:
    """Let the clients take turns, and compare the CPU time of each with that of the round."""
    with ExitStack() as stack:
        subjects = {name: stack.enter_context(_subject(name, url, counted=False)) for name in peers}
        for task in _TASKS:
            rounds = [
                {name: each.cost(task, _TIMED_CALLS) for name, each in subjects.items()}
                for _ in range(_ROUNDS)
            ]
            yield from _compare(task, peers, rounds)


def _compare(task: str, peers: Mapping[str, Peer], rounds: Sequence[_Costs]) -> Iterator[Figure]:
    for name, peer in peers.items():
        ratio = statistics.median(each[name] / each[NAIVE] for each in rounds)
        seconds = statistics.median(each[name] for each in rounds)
        yield _figure(task, peer, ratio, f"{seconds * 1e6:,.0f} us of CPU")


def _figure(task: str, peer: Peer, ratio: float, detail: str) -> Figure:
    target = _TARGETS.get(peer.name)
    return Figure(
        f"{_TASKS[task]}: {peer.title}",
        f"{ratio:.2f} x naive",
        None if target is None else f"<= {target}",
        None if target is None else ratio <= target + 0.005,  # as it is shown
        detail=detail,
        group=_TASKS[task],
        size=ratio,
    )


def _memory(peers: Mapping[str, Peer], url: str) -> Iterator[Figure]:
    for name, peer in peers.items():
        with _subject(name, url, counted=False) as subject:
            subject.cost("create", _CALLS_FOR_MEMORY)
            peak = subject.peak_memory()
        yield Figure(
            f"peak memory of a process after {_CALLS_FOR_MEMORY} creates: {peer.title}",
            f"{peak:.0f} MB",
            group="memory of a process",
            size=peak,
        )
