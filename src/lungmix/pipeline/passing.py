"""One pass over cases: who hears of progress, where time and memory went, what failed and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import prod

from distributed import Client

from lungmix import errors
from lungmix.bucket import is_remote
from lungmix.care import Care, ended_reason, remade
from lungmix.engine import Ledger, Listener
from lungmix.engine.room import Room, room_on
from lungmix.engine.trouble import has_ended_workers, is_closed, missing
from lungmix.errors import DamageError, LockedError, LungmixError, StoreError
from lungmix.geometry import Geometry
from lungmix.pipeline.report import Report
from lungmix.stages import fit
from lungmix.store import Cohort
from lungmix.store.files import LOCK_FILE

Step = tuple[str, Callable[[str], str]]
"""A stage and its work on a case, which answers "done" or "kept"."""


@dataclass(frozen=True)
class Passing:
    """Takes cases through steps, as many at a time as there are workers, and watches them.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        Opened for writing.
    listener : Listener
        Hears of progress.
    """

    client: Client
    cohort: Cohort
    listener: Listener
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)
    _rooms: list[Room] = field(default_factory=list, repr=False)

    @property
    def room(self) -> Room:
        """Memory of the workers at the beginning of the last pass."""
        return self._rooms[0] if self._rooms else Room()

    def know(self, geometries: Mapping[str, Geometry]) -> None:
        """Take note of how large cases are, for progress."""
        self._sizes.update({name: 2 * prod(one.size) for name, one in geometries.items()})

    def _sizes_of(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of HU by case, for progress; opens only cases that were not seen before."""
        for name in names:
            if name not in self._sizes:
                # What cannot be opened is told by its stages.
                with suppress(LungmixError, KeyError):
                    self.know({name: self.cohort[name].geometry})
        return {name: self._sizes.get(name, 0) for name in names}

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Progress of work that no case owns."""
        self.listener.begin(fit.STAGE, [what])
        try:
            yield self.watch(what, fit.STAGE)
        finally:
            self.listener.end()

    def watch(self, name: str, stage: str) -> Callable[[int, int], None]:
        """What a stage of a case tells its progress to."""
        return lambda done, total: self.listener.advance(name, stage, done, total)

    def through(self, title: str, names: Sequence[str], steps: Sequence[Step], report: Report) -> None:
        """Take cases through steps.

        Parameters
        ----------
        title : str
            What the pass is called.
        names : sequence of str
            Cases.
        steps : sequence of Step
            In their order; a case that fails at one does not come to the next.
        report : Report
            Is told which cases are done, which failed, and where time went.
        """
        ledger = Ledger(report.spent)
        self._rooms[:] = [room_on(self.client)]

        def work(name: str) -> None:
            watched = {}
            try:
                for stage, step in steps:
                    status, spent = ledger.watch(name, stage, partial(step, name))
                    if status == "done":
                        watched[stage] = spent
                        self.listener.spent(name, stage, spent)
            finally:
                with suppress(OSError):
                    if watched and name in self.cohort:
                        self.cohort[name].note({stage: spent.to_dict() for stage, spent in watched.items()})

        renew = partial(ledger.listen, self.client, self.listener.say)
        care = Care(self.client, self.cohort, self.listener, renew)
        self.listener.begin(title, names, self._sizes_of(names))
        try:
            with ledger.listening(self.client, self.listener.say), missing(self.client, self.listener.say) as check:
                for outcome in care.through(names, work, self._window()):
                    if outcome.error is not None:
                        check()  # no case is to blame
                    if isinstance(outcome.error, LockedError):
                        raise outcome.error  # no case is this run's any more
                    if isinstance(outcome.error, StoreError):
                        self._check_store()
                    if outcome.error is None:
                        self.listener.finish(outcome.item)
                    else:
                        reason = reason_of(outcome.error)
                        care.note(outcome.item, title, outcome.error)
                        report.fail(outcome.item, reason, outcome.error)
                        self.listener.finish(outcome.item, reason)
        finally:
            self.listener.end()
        report.done = [name for name in names if name not in report.failed]

    def _check_store(self) -> None:
        """Raise `StoreError` where a bucket does not answer: each of the other cases would wait for it in vain."""
        if is_remote(self.cohort.url):
            self.cohort.read_bytes(LOCK_FILE)

    def of_all(self, what: str, work: Callable[[], None], steps: Sequence[Step], report: Report) -> None:
        """Do what reads all cases at once.

        Parameters
        ----------
        what : str
            How it is called.
        work : callable
            Changes nothing before its end, and leaves cases out that have failed.
        steps : sequence of Step
            Make a case again that turns out to be damaged; where there are none it has failed.
        report : Report
            Is told of it.
        """

        def mend(error: DamageError) -> None:
            done = report.done
            if steps:
                self.listener.say(remade(error))
                self.through("again", [error.case], steps, report)
            else:
                report.fail(error.case, error.marked, error)
            report.done = [name for name in done if name not in report.failed]

        with missing(self.client, self.listener.say):
            Care(self.client, self.cohort, self.listener).of_all(what, work, mend)

    def _window(self) -> int:
        # One case more than workers: while one ends, the next has begun.
        if is_closed(self.client):
            return 1
        return max(2, len(self.client.scheduler_info(n_workers=-1)["workers"]) + 1)


def reason_of(error: BaseException) -> str:
    """Return one sentence for people; a run meets errors of workers too."""
    return ended_reason(error) if has_ended_workers(error) else errors.reason_of(error)
