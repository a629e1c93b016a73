"""Record the answers that `pasture demo` ships, from a finished run of the loop.

pasture run recipes/meadow/loop.toml --out runs/loop
python recipes/meadow/record_answers.py runs/loop
"""

import sys
from pathlib import Path

from pasture.data.recorded import SHIPPED, record

if __name__ == "__main__":
    systems = record(Path(sys.argv[1]), SHIPPED)
    sys.stdout.write(f"{SHIPPED}: {systems} systems, {SHIPPED.stat().st_size:,} bytes\n")
