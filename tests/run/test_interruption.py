"""Signals: a step is never cut in two, the run can go on, and the process ends as signals end processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from jupyter_client.manager import start_new_kernel

from fer_utils import Config, OutputError, fit, load_competition
from fer_utils.files import REPOSITORY
from fer_utils.run import interruption, train
from fer_utils.run.checkpoint import CheckpointFile
from fer_utils.run.interruption import Interrupted, Interruption

KNOBS = {"image_size": 20, "model": "small", "width": 0.125, "batch_size": 6}
KNOBS |= {"precision": "fp32", "device": "cpu"}


def send(number):
    os.kill(os.getpid(), number)


def test_a_signal_in_a_whole_block_waits_for_its_end(capsys):
    done = []
    with pytest.raises(Interrupted, match="saved"), Interruption() as stop:
        for step in range(5):
            with stop.whole():
                if step == 2:
                    send(signal.SIGINT)
                done.append(step)
                stop.message = "saved"
    assert done == [0, 1, 2]
    assert capsys.readouterr().out == "saved\n"


def test_a_signal_elsewhere_is_answered_at_once():
    with pytest.raises(Interrupted), Interruption():
        send(signal.SIGINT)
        pytest.fail("went on")


def test_without_deferring_it_is_answered_at_once_too():
    with pytest.raises(Interrupted), Interruption(defer=False) as stop, stop.whole():
        send(signal.SIGINT)
        pytest.fail("went on")


def test_a_block_that_lasts_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(interruption, "PATIENCE_SECONDS", 0.05)
    start = time.monotonic()
    with pytest.raises(Interrupted), Interruption() as stop, stop.whole():
        send(signal.SIGINT)
        time.sleep(20)
    assert time.monotonic() - start < 10


@pytest.mark.once
def test_sigterm_does_not_wait_for_a_call_that_python_cannot_leave():
    code = """if True:
        import hashlib, os, signal, threading
        from fer_utils.run.interruption import Interruption
        with Interruption() as stop, stop.whole():
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in one call, as an operation of torch
    """
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "resumes from the last checkpoint" in done.stdout
    assert time.monotonic() - start < 20


def test_an_impatient_second_ctrl_c_does_not_wait():
    with pytest.raises(Interrupted), Interruption() as stop, stop.whole():
        send(signal.SIGINT)
        time.sleep(0.6)
        send(signal.SIGINT)
        pytest.fail("went on")


def test_the_echo_of_a_signal_does_not_cut_the_step():
    """A terminal's Ctrl-C reaches a training by itself and through the process that launched it."""
    done = []
    with pytest.raises(Interrupted), Interruption() as stop, stop.whole():
        send(signal.SIGINT)
        send(signal.SIGINT)
        done.append(1)
    assert done == [1]


def test_a_job_in_the_background_does_not_hear_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption():
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_reaches_whoever_was_there_before(capsys):
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(Interrupted), Interruption():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert seen == [signal.SIGTERM]
    assert "resumes from the last checkpoint" in capsys.readouterr().out


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_train_without_signals():
    failures = []

    def work():
        try:
            with Interruption() as stop, stop.whole():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_a_notebook_shows_one_line_and_no_traceback():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shown = []
    shell._showtraceback = lambda etype, evalue, stb: shown.extend(stb)

    def stop():
        raise Interrupted("stopped after epoch 3; the same command resumes there")

    shell.user_ns["stop"] = stop
    shell.run_cell("stop()")
    assert shown == ["Interrupted"]  # the line itself has been printed


def test_ctrl_c_in_a_training_saves_the_step_under_way(tiny, tmp_path, monkeypatch, capsys):
    config = Config(**KNOBS, out=str(tmp_path / "cut"), epochs=2)
    whole = fit(Config(**KNOBS, out=str(tmp_path / "whole"), epochs=2), tiny)

    def interrupt(limit, learner):
        if learner.epoch == 1 and learner.step == 3:
            send(signal.SIGINT)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(train.TimeLimit, "is_over", interrupt)
        with pytest.raises(Interrupted, match="stopped after epoch 1 and step 3 of the next"):
            fit(config, tiny)
    assert CheckpointFile(tmp_path / "cut").exists
    run = fit(config, tiny)
    assert "resuming after epoch 1 and step 3 of the next" in capsys.readouterr().out
    for name in ("model.safetensors", "history.csv", "submission.csv"):
        assert (run.out / name).read_bytes() == (whole.out / name).read_bytes()


# --- real processes ---


def start(folder, out, **knobs):
    """A training process, as a person starts it."""
    path = out.parent / f"{out.name}.json"
    path.write_text(json.dumps(KNOBS | {"data": str(folder), "out": str(out)} | knobs))
    command = [sys.executable, "-u", "-m", "fer_utils.run.train", str(path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe, cwd=out.parent)


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"it ended without {words!r}: {process.stderr.read()}")


def go_on(folder, out):
    """This process takes the run of `start` up, and gets as far as the first step."""
    config = Config(**KNOBS, data=str(folder), out=str(out), epochs=5000)
    competition = load_competition(config.data, **config.data_options)
    with pytest.raises(ZeroDivisionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_run_epochs", lambda *_: 1 / 0)
        fit(config, competition)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
@pytest.mark.once
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_process_told_to_stop_ends_soon_and_goes_on_later(number, status, tiny_folder, tmp_path, capsys):
    process = start(tiny_folder, tmp_path / "run", epochs=5000)
    wait_for(process, "epoch   3/")
    told = time.monotonic()
    process.send_signal(number)
    printed = process.communicate(timeout=60)[0]
    assert time.monotonic() - told < 10  # 2 s on a machine that does nothing else: tests/long measures it
    assert process.returncode in (status, 128 + number)
    assert "the same command resumes" in printed
    go_on(tiny_folder, tmp_path / "run")
    assert "resuming after epoch" in capsys.readouterr().out


@pytest.mark.once
def test_a_second_process_in_the_same_folder_stops_and_a_killed_one_gives_it_back(tiny_folder, tmp_path):
    first = start(tiny_folder, tmp_path / "run", epochs=5000)
    wait_for(first, "epoch   1/")
    with pytest.raises(OutputError, match="another process is training there"):
        go_on(tiny_folder, tmp_path / "run")
    assert first.poll() is None
    first.kill()
    first.communicate()
    go_on(tiny_folder, tmp_path / "run")


def test_the_stop_button_leaves_one_line_and_a_kernel_that_goes_on(tiny_folder, tmp_path):
    config = KNOBS | {"data": str(tiny_folder), "out": str(tmp_path / "run"), "epochs": 5000}
    code = f"from fer_utils import *\nconfig = Config(**{config!r})\n"
    code += "competition = load_competition(config.data, **config.data_options)"
    manager, client = start_new_kernel(env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    try:
        client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
        shown = []

        def show(message):
            content = message["content"]
            shown.append(content.get("text", "") + "\n".join(content.get("traceback", [])))
            if "/5000" in "".join(shown) and not told:
                told.append(os.kill(manager.provisioner.pid, signal.SIGINT))  # what interrupt_kernel does

        told = []
        # With stop_on_error the kernel aborts what it is asked in the moment after the error.
        again = {"timeout": 60, "output_hook": show, "stop_on_error": False}
        reply = client.execute_interactive("run = fit(config, competition)", **again)
        assert reply["content"]["ename"] == "Interrupted"
        printed = "".join(shown)
        assert printed.count("the same command resumes") == 1 and "Traceback" not in printed
        shown, told = [], []
        client.execute_interactive("run = fit(config, competition)", **again)
        assert "resuming after epoch" in "".join(shown)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
