"""The order in which the values of a case are computed."""

import operator

import dask
import pytest

from lungmix.cluster.compute import compute_in_order, task_priorities
from lungmix.cluster.graph_optimization import fuse_and_inline


def test_task_has_the_rank_of_the_first_value_that_needs_it():
    add = dask.delayed(operator.add)
    shared = add(1, 1)
    alone = add(2, 2)
    first, second, third = add(shared, 1), add(shared, alone), add(alone, 3)
    order = task_priorities(fuse_and_inline([first, second, third]))
    assert order(shared.key) == order(first.key)
    assert order(first.key) > order(second.key) > order(third.key)
    assert order(alone.key) == order(second.key)
    assert order("a key of no one") == order(third.key)


def test_values_that_are_computed_later_have_lower_priority_than_earlier_ones():
    add = dask.delayed(operator.add)
    values = [add(index, 0) for index in range(3)]
    earlier, later = task_priorities(fuse_and_inline(values)), task_priorities(fuse_and_inline(values))
    assert earlier(values[-1].key) > later(values[0].key)


@pytest.mark.slow
def test_results_come_in_the_order_of_the_values_and_shared_ones_are_computed_once(client, tmp_path):
    folder = str(tmp_path)

    def work(index, *inputs):
        import tempfile
        from pathlib import Path

        tempfile.mkdtemp(prefix=f"{index}-", dir=folder)
        return len(list(Path(folder).glob(f"{index}-*"))), index

    step = dask.delayed(work)
    shared = [step(index) for index in range(4)]
    heard = []
    values = [step(10 + i, *shared) for i in range(5)]
    results = compute_in_order(client, values, lambda done, total: heard.append((done, total)))
    assert [index for _, index in results] == [10, 11, 12, 13, 14]
    assert len(list(tmp_path.iterdir())) == 9, "each task has run once"
    assert heard[-1] == (5, 5)
    assert heard == sorted(set(heard)), "progress increases with each call"


@pytest.mark.slow
def test_error_of_one_value_is_raised_and_the_client_still_works(client):
    def fail():
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        compute_in_order(client, [dask.delayed(fail)(), dask.delayed(operator.add)(1, 2)])
    assert compute_in_order(client, [dask.delayed(operator.add)(1, 2)]) == [3]


@pytest.mark.slow
def test_scheduler_forgets_finished_tasks(client):
    def groups(dask_scheduler):
        import gc

        from distributed.scheduler import TaskGroup

        gc.collect()
        return sum(isinstance(item, TaskGroup) for item in gc.get_objects())

    before = client.run_on_scheduler(groups)  # schedulers of earlier tests are still in this process
    for _ in range(150):
        compute_in_order(client, [dask.delayed(operator.add)(1, 2)])
    # The dashboard keeps a list of the last 100 computations.
    assert client.run_on_scheduler(groups) - before < 130
