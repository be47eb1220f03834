"""The part of `FakeGather` that makes things go wrong."""

from collections.abc import Mapping

from gather_async.errors import ConfigurationError
from gather_async.testing.fake.faults import Fault, FaultKind, shares_of
from gather_async.testing.fake.server import Exchanges

__all__ = ["FaultMethods"]


class FaultMethods:
    """Faults on demand. Each counts as a request and uses quota.

    ``times`` may be ``math.inf``. ``path`` is a whole path without the query, and
    may hold ``*``: ``/qsi/gather/questions/*``; None is any path. Faults are met
    in the order in which they were asked for.
    """

    _exchanges: Exchanges

    def fail_next(
        self,
        status: int = 500,
        *,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
        after_processing: bool = False,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        """Answer the next requests with an error envelope.

        Args:
            status: 300 to 599.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.
            after_processing: Whether the request is carried out nonetheless.
            headers: Sent along, such as ``{"Retry-After": "2"}``.
            code: The error code; None takes the documented one.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        if not 300 <= status <= 599:
            raise ConfigurationError(f"status must be 300 to 599, not {status!r}.")
        fault = Fault(
            kind=FaultKind.STATUS,
            status=status,
            after_processing=after_processing,
            headers=headers or {},
            code=code,
        )
        self._exchanges.faults.add(fault, times=times, path=path, method=method)

    def drop_next(
        self,
        *,
        after_processing: bool = True,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        """Cut the connection of the next requests instead of answering.

        aiohttp's client sends a GET, PUT or DELETE whose connection was cut once
        more by itself, so a lost answer to a read takes ``times=2`` to be noticed.

        Args:
            after_processing: True: the request is carried out and its answer is
                lost; False: nothing is carried out.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        fault = Fault(kind=FaultKind.CUT, after_processing=after_processing)
        self._exchanges.faults.add(fault, times=times, path=path, method=method)

    def slow_next(
        self,
        seconds: float,
        *,
        after_processing: bool = True,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        """Answer the next requests rightly, but late.

        Args:
            seconds: How late, on the server's clock, from 0; ``math.inf``: never.
            after_processing: True: carried out at once and answered late; False:
                carried out late.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        if not seconds >= 0:
            raise ConfigurationError(f"seconds must be at least 0, not {seconds!r}.")
        fault = Fault(kind=FaultKind.SLOW, seconds=seconds, after_processing=after_processing)
        self._exchanges.faults.add(fault, times=times, path=path, method=method)

    def truncate_next(
        self, *, times: float = 1, path: str | None = None, method: str | None = None
    ) -> None:
        """Carry the next requests out, send half of each answer's body, then cut.

        Args:
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        fault = Fault(kind=FaultKind.TRUNCATE)
        self._exchanges.faults.add(fault, times=times, path=path, method=method)

    def html_next(
        self,
        status: int = 503,
        *,
        after_processing: bool = False,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        """Answer the next requests with a proxy's HTML page.

        Args:
            status: 200 to 599.
            after_processing: Whether the request is carried out nonetheless.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        if not 200 <= status <= 599:
            raise ConfigurationError(f"status must be 200 to 599, not {status!r}.")
        fault = Fault(kind=FaultKind.HTML, status=status, after_processing=after_processing)
        self._exchanges.faults.add(fault, times=times, path=path, method=method)

    def chaos(
        self,
        *,
        errors_500: float = 0.0,
        errors_500_after: float = 0.0,
        html_503: float = 0.0,
        cut_before: float = 0.0,
        cut_after: float = 0.0,
        truncated: float = 0.0,
    ) -> None:
        """Let each request go wrong by chance, repeatable by ``seed``; no argument ends it.

        Args:
            errors_500: Share answered 500 and not carried out, 0 to 1.
            errors_500_after: Share carried out and answered 500.
            html_503: Share answered with a proxy's page and not carried out.
            cut_before: Share cut and not carried out.
            cut_after: Share carried out and cut.
            truncated: Share carried out and answered by half.

        Raises:
            ConfigurationError: A share is negative, or they exceed 1 in sum.
        """
        self._exchanges.faults.mix(
            shares_of(
                errors_500=errors_500,
                errors_500_after=errors_500_after,
                html_503=html_503,
                cut_before=cut_before,
                cut_after=cut_after,
                truncated=truncated,
            )
        )

    def set_latency(self, low: float, high: float) -> None:
        """Let every exchange take a random time, seeded; the quota counts somewhere within.

        Args:
            low: Seconds on the server's clock, from 0.
            high: Seconds, at least ``low``; 0 ends it.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        if not 0 <= low <= high:
            raise ConfigurationError(f"Latency goes from 0 up, not from {low!r} to {high!r}.")
        self._exchanges.latency = (low, high)

    def clear_faults(self) -> None:
        """Forget all faults that were asked for, the mix and the latency included."""
        self._exchanges.faults.clear()
        self._exchanges.latency = (0.0, 0.0)
