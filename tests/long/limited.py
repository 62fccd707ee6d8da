"""Train with little memory: python -m tests.long.limited MEGABYTES config.json"""

import resource
import sys
from pathlib import Path

import torch

from fer_utils.learning.models import create_model, model_cost
from fer_utils.learning.optim import make_optimizer
from fer_utils.run import train


def limited_fit(config, competition, fit=train.fit):
    """Let the address space grow by no more than so many megabytes once the data are loaded."""
    # What torch loads when it is first used must be there: Python itself fails where it cannot import.
    model = create_model("small", 7, width=0.125)
    make_optimizer(model, config)
    model_cost(model, 48)
    model(torch.rand(2, 1, 48, 48)).sum().backward()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return fit(config, competition)


if __name__ == "__main__":
    train.fit = limited_fit
    sys.exit(train.main(sys.argv[2:]))
