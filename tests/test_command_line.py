"""Exit codes and messages of every command."""

import pytest

from fer_utils.command_line import SPEAKING_ERRORS, exit_status
from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.files import OutputError
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.interruption import Interrupted
from fer_utils.run.time_and_memory import OutOfTime

pytestmark = pytest.mark.once


def failing(error):
    def work():
        raise error

    return work


def test_what_work_returns_is_the_status():
    assert exit_status(lambda: None) == 0 and exit_status(lambda: 3) == 3


@pytest.mark.parametrize("error", [ConfigError, DataError, OutputError, TrainingError, OutOfTime])
def test_errors_that_speak_are_one_line(error, capsys):
    assert exit_status(failing(error("say what to do"))) == 1
    assert capsys.readouterr().err == f"{error.__name__}: say what to do\n"
    assert error.__name__ in SPEAKING_ERRORS


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 / 0)


def test_an_interruption_is_130_and_said_once(capsys):
    assert exit_status(failing(KeyboardInterrupt())) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert exit_status(failing(Interrupted("said already"))) == 130
    assert capsys.readouterr().err == ""
