"""Training processes: started, listened to, stopped, and their errors brought back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

from fer_utils.command_line import SPEAKING_ERRORS
from fer_utils.files import REPOSITORY
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.limits import OutOfTime


class Processes:
    """Those that one call started; `stop` ends them all, and they leave resumable runs."""

    def __init__(self):
        self.running: set[subprocess.Popen] = set()
        self.stopped = False

    def run(
        self,
        command: list[str],
        folder: Path,
        *,
        variables: dict[str, str],
        label: str = "",
    ) -> None:
        """Run `command` to its end and pass on what it prints, each line behind `label`.

        Args:
            folder: for its complaints; empty, and gone when the call ends.
            variables: of its environment, beside this process's own.

        Raises:
            TrainingError: it failed, with the traceback of the process that failed first.
        """
        environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        path = [str(REPOSITORY), os.environ.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        # Where torch's `record` leaves a traceback; torchrun gives each of its processes a file of its own.
        environment["TORCHELASTIC_ERROR_FILE"] = str(folder / "error.json")
        environment["FER_PARENT"] = "stdin"  # its end tells them that this process has died
        environment.pop("JPY_SESSION_NAME", None)  # lines, not a bar, come out of a pipe
        complaints = folder / "stderr.txt"  # torchrun's are long; the traceback says it better
        with (
            complaints.open("w", encoding="utf-8") as stderr,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            ) as process,
        ):
            self.running.add(process)
            if self.stopped:  # meanwhile, by another thread
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
        if process.returncode:
            last_words = complaints.read_text(encoding="utf-8", errors="replace")
            if process.returncode == -signal.SIGKILL or "SIGKILL" in last_words:
                raise TrainingError(
                    f"{label}a training process was killed from outside, most often because memory ran out: "
                    "try a smaller batch_size with another out, or the same call, which resumes from the "
                    "last checkpoint"
                )
            message = _first_error(folder) or _crash(last_words)
            raise (OutOfTime if message.startswith("OutOfTime: ") else TrainingError)(label + message)

    def stop(self) -> None:
        """Ask all that run to end, and those that are just being started."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()


def follow_parent() -> None:
    """In a process that `Processes` started: end when the one that started it does, however that died. Nobody
    would wait for this training any more, and the next call needs its folder."""
    if os.environ.get("FER_PARENT") == "stdin":
        threading.Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a waiting thread would hold when Python ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _crash(words: str) -> str:
    """What a process says that died without a Python error: from the cause on, else the end."""
    cause = re.search("terminate called|Fatal Python error", words)
    return words[cause.start() :][:3000] if cause else words[-3000:]


def _first_error(folder: Path) -> str:
    """What the process that failed first says; the others failed because it had gone."""
    paths = sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in paths:
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
        if isinstance(message, dict):
            if str(message.get("message")).startswith(SPEAKING_ERRORS):
                return message["message"]
            traceback = message.get("extraInfo", {}).get("py_callstack", "")
            rank = path.parent.name
            return f"process {rank} failed:\n{traceback}" if rank.isdecimal() else traceback
    return ""
