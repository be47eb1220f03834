"""When a run of failures means that going on is no use: pure."""

from attrs import evolve, frozen

from gather_async.errors import GatherError

__all__ = ["Breaker"]


@frozen
class Breaker:
    """Counts failures without a success in between."""

    threshold: int
    failures: int = 0
    last: GatherError | None = None
    """The last of them."""

    @property
    def is_open(self) -> bool:
        """Whether to stop."""
        return self.failures >= self.threshold

    def failed(self, error: GatherError) -> "Breaker":
        """Return the breaker after one more failure; once open, it stays so."""
        return evolve(self, failures=self.failures + 1, last=error)

    def succeeded(self) -> "Breaker":
        """Return the breaker after a success."""
        return self if self.is_open else evolve(self, failures=0, last=None)
