"""The same properties under a fuzzer that looks for inputs which take new ways through the code: Atheris, on libFuzzer.

    python -m pip install -e '.[test,fuzz]'
    python -m tests.exploration.coverage_guided NAME -max_total_time=3600

What stands behind the name goes to libFuzzer. It begins with the inputs that are kept in ``corpus``; in the end the
fewest that go all the ways that were found are kept there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from .corpus import NAMES, keep, kept

OPTIONS: Final = ["-max_len=4096", "-timeout=30", "-rss_limit_mb=1024", "-print_final_stats=1"]


def main(arguments: list[str]) -> int:
    """Fuzz, and keep what was found, in processes of their own: libFuzzer ends the one that it runs in."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python -m tests.exploration.coverage_guided {{{'|'.join(NAMES)}}} [OPTION of libFuzzer]...")
        return 2
    name, *options = arguments
    with tempfile.TemporaryDirectory() as folder:
        found, smaller = Path(folder, "found"), Path(folder, "smaller")
        found.mkdir()
        smaller.mkdir()
        for number, data in enumerate(kept(name)):
            Path(found, f"kept-{number}").write_bytes(data)
        status = subprocess.run(command(name, *OPTIONS, *options, str(found))).returncode
        # What made it stop is not among what was found: it stands in a file that libFuzzer names.
        subprocess.run(command(name, "-max_len=4096", "-merge=1", str(smaller), str(found)), check=True)
        keep(name, [path.read_bytes() for path in smaller.iterdir()])
        return status


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.exploration.instrumented", name, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
