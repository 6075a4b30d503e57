"""Lines that a fit prints, depending on the parameters `verbose` and `verbose_interval` of `GaussianMixture`."""

from __future__ import annotations

import math
import time

from lungmix.mixture.em import Callback, Progress


class Announcer:
    """Callback of a fit that prints progress and calls another listener.

    Parameters
    ----------
    verbose : int
        0 prints nothing, 1 prints the number of the iteration, 2 and more also its likelihood, gain and time.
    interval : int
        Number of iterations between printed lines.
    listener : callable or None
        Called after each iteration.
    """

    def __init__(self, verbose: int, interval: int, listener: Callback | None):
        self.verbose, self.interval, self.listener = int(verbose), int(interval), listener
        self._best = -math.inf
        self._began = self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Print a line for every `interval`-th iteration, and call the listener."""
        best = max(progress.lower_bounds.values())
        if self.verbose and progress.iteration % self.interval == 0:
            line = f"  Iteration {progress.iteration} of at most {progress.max_iter}"
            if self.verbose > 1:
                now = time.monotonic()
                line += (
                    f": best mean log-likelihood {best:.9g}, gain {best - self._best:.3g}, "
                    f"starts running {len(progress.lower_bounds)}, time {now - self._last:.3f} s"
                )
                self._last = now
            print(line)
        self._best = best
        if self.listener is not None:
            self.listener(progress)

    def begin(self, starts: int) -> None:
        """Print the number of starts."""
        if self.verbose:
            print(f"Initialization of {starts} start{'s' if starts > 1 else ''}")

    def end(self, converged: bool, iterations: int, lower_bound: float) -> None:
        """Print the result of the best start."""
        if self.verbose:
            line = f"Initialization {'converged' if converged else 'did not converge'} after {iterations} iterations"
            if self.verbose > 1:
                line += f": mean log-likelihood {lower_bound:.9g}, time {time.monotonic() - self._began:.3f} s"
            print(line)
