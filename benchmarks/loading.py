"""Loading: 2,000,000 rows, 50,000 users `u123`, 20,000 items `i45`, rating 1.0, integer time, as CSV.

    python benchmarks/loading.py [rows]

Each contender reads the file in a fresh process, imports included; CPU seconds are user + system of that process, the
peak is its resident set. The bar: at most 2.5 CPU seconds and 0.6 GB for `read`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CONTENDERS = {
    "recdistill.read": "from recdistill.data.sources import read\nlog = read(path, echo=None)\nn = len(log)",
    "pandas read_csv + factorize": (
        "import pandas as pd\nframe = pd.read_csv(path)\n"
        "user, users = pd.factorize(frame['user_id'])\nitem, items = pd.factorize(frame['item_id'])\nn = len(user)"
    ),
    "imports alone (numpy, polars, recdistill)": "import numpy, polars\nimport recdistill.data.sources\nn = 0",
}
REPEATS = 3


def write(path: Path, rows: int) -> None:
    """The file of the benchmark, in chunks."""
    draw = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("user_id,item_id,rating,timestamp\n")
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            users, items = draw.integers(0, 50_000, n).tolist(), draw.integers(0, 20_000, n).tolist()
            times = draw.integers(1_500_000_000, 1_600_000_000, n).tolist()
            file.writelines(f"u{u},i{i},1.0,{t}\n" for u, i, t in zip(users, items, times, strict=True))


def measure(code: str, path: Path) -> tuple[float, float]:
    """CPU seconds and peak MB of a fresh process."""
    child = (
        f"path = {str(path)!r}\n{code}\nimport json, resource\nr = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(json.dumps([r.ru_utime + r.ru_stime, r.ru_maxrss]))"
    )
    done = subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Write the file, measure each contender, print a table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        write(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB; median of {REPEATS} fresh processes")
        first = None
        for name, code in CONTENDERS.items():
            try:
                runs = sorted(measure(code, path) for _ in range(REPEATS))
            except subprocess.CalledProcessError as error:
                print(f"{name:45} failed: {error.stderr.strip().splitlines()[-1]}")
                continue
            seconds, peak = runs[len(runs) // 2]
            first = first or seconds
            print(f"{name:45} {seconds:6.2f} CPU s {peak:7.0f} MB   {seconds / first:5.2f}x recdistill.read")


if __name__ == "__main__":
    main()
