"""python -m fer_utils config.json [--out FOLDER]      trains as the notebook 03_training does."""

import sys

from fer_utils.learning.distributed import end_process
from fer_utils.run.launch import main

if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
