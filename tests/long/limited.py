"""Train with little memory: python -m tests.long.limited MEGABYTES config.json"""

import resource
import sys
from pathlib import Path

import torch

from fer_utils import train


def limited_fit(config, competition, fit=train.fit):
    """Let the address space grow by no more than so many megabytes once the data are loaded."""
    torch.rand(512, 512) @ torch.rand(512, 512)  # OpenMP's threads must exist: they cannot say what they lack
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return fit(config, competition)


if __name__ == "__main__":
    train.fit = limited_fit
    sys.exit(train.main(sys.argv[2:]))
