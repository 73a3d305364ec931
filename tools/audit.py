"""Asks for known weaknesses of every pin, through pip-audit; what could not be asked about is a failure, not a pass.

    python tools/audit.py [--service pypi|osv] [--constraints constraints.txt]

pip-audit itself ends well where it could ask about nothing. This ends with exit code 1 if there is a weakness, and with
2 if a package was skipped or the service cannot be reached: then nothing was shown. It needs the network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Print one line for each weakness, and one for what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    chosen = parser.parse_args(arguments)
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(chosen.constraints), "--no-deps"]
    command += ["--disable-pip", "--vulnerability-service", chosen.service, "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    try:
        rows = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        print(f"no scan was made: {chosen.service} cannot be asked ({last[:300]})")
        return 2
    weak = [f"{row['name']} {row['version']}: {known['id']}" for row in rows for known in row.get("vulns", [])]
    skipped = [f"{row['name']}: {row['skip_reason']}" for row in rows if "skip_reason" in row]
    for line in [*weak, *skipped]:
        print(line)
    print(f"{len(rows) - len(skipped)} of {len(rows)} pins asked about at {chosen.service}: {len(weak)} weaknesses")
    return 1 if weak else 2 * bool(skipped)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
