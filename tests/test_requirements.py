"""The lock files: they meet the requirements, name a hash for every file, and are what `make` installed."""

import os
import re
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fer_utils.files import REPOSITORY

# Each lock file and what it was made from.
LOCKS = {
    "requirements.lock": ("requirements.txt", "benchmarks/requirements.txt"),
    "requirements-kaggle.lock": ("requirements.txt", "requirements-kaggle.txt"),
}


# Kaggle's image lacks them: the error analysis goes on without the first two, the tests skip the browser, and
# only `make` uses the last.
NOT_ON_KAGGLE = {"captum", "cleanlab", "playwright", "uv"}


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def requirements(name: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in read(name).splitlines()]
    return [Requirement(line) for line in lines if line and line != "-e ."]


@cache
def pins(lock: str) -> list[tuple[Requirement, list[str]]]:
    """What the lock pins, each with its hashes; one package may be pinned again for a newer Python."""
    text = re.sub(r"^#.*\n", "", read(lock), flags=re.M).replace("\\\n", " ")
    entries = (line.split("--hash=") for line in text.splitlines())
    return [(Requirement(head.strip()), [word.strip() for word in hashes]) for head, *hashes in entries]


def pinned(lock: str, name: str) -> list[Requirement]:
    wanted = canonicalize_name(name)
    return [requirement for requirement, _ in pins(lock) if canonicalize_name(requirement.name) == wanted]


def release(pin: Requirement) -> str:
    (clause,) = pin.specifier
    assert clause.operator == "==" and "*" not in clause.version, f"{pin} is no pin"
    return clause.version


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_meets_every_requirement(lock):
    for source in LOCKS[lock]:
        for requirement in requirements(source):
            if lock == "requirements-kaggle.lock" and requirement.name in NOT_ON_KAGGLE:
                continue
            found = pinned(lock, requirement.name)
            assert found, f"{requirement} of {source} is not in {lock}: make lock"
            for pin in found:
                assert requirement.specifier.contains(release(pin)), f"{pin} is not {requirement}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock):
    assert len(pins(lock)) > 50
    for pin, hashes in pins(lock):
        assert release(pin)
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", word) for word in hashes), pin


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_place(lock):
    assert read(lock).splitlines()[1] == "#    make lock"
    for line in read(lock).splitlines():
        assert line.startswith(("#", "    --hash=sha256:")) or re.match(r"[a-z0-9]", line), line
        assert not re.search(r"://|\s[/~.]|[A-Za-z]:\\|@", line), line


def lock_installed() -> str | None:
    """The lock file that make built the running environment from: it keeps a copy there."""
    copy = Path(sys.prefix) / ".ready"
    content = copy.read_text(encoding="utf-8") if copy.is_file() else None
    return next((lock for lock in LOCKS if read(lock) == content), None)


def test_what_runs_is_what_the_lock_says():
    lock = lock_installed()
    if lock is None and not os.environ.get("CI"):
        pytest.skip("this environment was not made by make from the present lock files")
    assert lock, "CI installs with make, from a lock file"
    for requirement in requirements("requirements.txt"):
        if lock == "requirements-kaggle.lock" and requirement.name in NOT_ON_KAGGLE:
            continue
        here = [pin for pin in pinned(lock, requirement.name) if not pin.marker or pin.marker.evaluate()]
        assert [release(pin) for pin in here] == [version(requirement.name)], requirement.name


@pytest.mark.parametrize("name", sorted(NOT_ON_KAGGLE))
def test_what_kaggle_lacks_is_not_needed(name):
    assert not pinned("requirements-kaggle.lock", name)
