"""Training processes: start and stop them, print their output, report their errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from fer_utils.command_line import SPEAKING_ERRORS
from fer_utils.config import Config
from fer_utils.files import REPOSITORY, write_json
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.time_and_memory import OutOfTime


class Processes:
    """The processes of one call; `stop` ends them all, and their runs can resume."""

    def __init__(self):
        self.running: set[subprocess.Popen] = set()
        self.stopped = False

    def run(self, config: Config, variables: dict[str, str], n_processes: int = 1, label: str = "") -> None:
        """Train in a process of its own, or in several with torchrun; print their output, `label` before each
        line. `variables` are added to the environment of this process.

        Raises:
            TrainingError: it failed; the message has the traceback of the process that failed first.
            OutOfTime: `max_hours` ended before its first epoch.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            path = write_json(folder / "config.json", config.to_dict())
            command = [sys.executable, "-m"]
            if n_processes > 1:
                command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
                command += [f"--log-dir={folder}", "-m"]
            command += ["fer_utils.run.train", str(path)]
            if status := self._wait_for(command, _environment(folder) | variables, folder, label):
                message = _message(folder, status)
                raise (OutOfTime if message.startswith("OutOfTime: ") else TrainingError)(label + message)

    def _wait_for(self, command: list[str], environment: dict[str, str], folder: Path, label: str) -> int:
        """Run `command` to its end and print its output; returns its exit status."""
        pipe, options = subprocess.PIPE, {"text": True, "env": environment}
        with (
            (folder / "stderr.txt").open("w", encoding="utf-8") as stderr,
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, **options) as process,
        ):
            self.running.add(process)
            if self.stopped:  # by another thread
                process.terminate()
            try:
                for line in process.stdout:
                    print(label + line, end="", flush=True)
            except BaseException:  # Ctrl-C or JupyterLab's stop button: no process stays behind
                process.terminate()
                raise
            finally:
                process.wait()
                self.running.discard(process)
        return process.returncode

    def stop(self) -> None:
        """End all running processes, and those that are just being started."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()


def follow_parent() -> None:
    """In a process that `Processes` started: end when the parent process ends, however it died. Nobody would
    wait for this training, and the next call needs its folder."""
    if os.environ.get("FER_PARENT") == "stdin":
        threading.Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: a waiting thread would hold its lock when Python ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _environment(folder: Path) -> dict[str, str]:
    path = [str(REPOSITORY), os.environ.get("PYTHONPATH")]
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        # Where torch's `record` writes a traceback; torchrun gives each of its processes its own file.
        "TORCHELASTIC_ERROR_FILE": str(folder / "error.json"),
        "FER_PARENT": "stdin",  # which is closed when this process dies
    }
    environment.pop("JPY_SESSION_NAME", None)  # lines, not a bar, come out of a pipe
    return environment


def _message(folder: Path, status: int) -> str:
    """Why a process failed; torchrun's own errors are long and say less than those of its processes."""
    printed = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
    if status == -signal.SIGKILL or "SIGKILL" in printed:
        return (
            "a training process was killed from outside, most often because memory ran out: try a smaller "
            "batch_size with another out, or run the same call again, which resumes from the last checkpoint"
        )
    return _first_error(folder) or _crash(printed)


def _crash(printed: str) -> str:
    """The message of a process that died without a Python error: from the cause on, else the end."""
    cause = re.search("terminate called|Fatal Python error", printed)
    return printed[cause.start() :][:3000] if cause else printed[-3000:]


def _first_error(folder: Path) -> str:
    """The error of the process that failed first; the others failed because it had ended."""
    for path in sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns):
        error = json.loads(path.read_text(encoding="utf-8"))["message"]
        if isinstance(error, dict):
            if str(error.get("message")).startswith(SPEAKING_ERRORS):
                return error["message"]
            traceback, rank = error.get("extraInfo", {}).get("py_callstack", ""), path.parent.name
            return f"process {rank} failed:\n{traceback}" if rank.isdecimal() else traceback
    return ""
