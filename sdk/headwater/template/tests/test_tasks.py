import functions
from functions import tasks
from headwater.testing import Deployment


def test_a_task_is_open_until_it_is_finished() -> None:
    deployment = Deployment(functions)
    screen = deployment.watch(tasks.open_)
    task = deployment.run_mutation(tasks.add, text="Water the plants")
    deployment.run_mutation(tasks.finish, task=task)
    assert [[task.text for task in shown] for shown in screen.results] == [[], ["Water the plants"], []]
