"""Runs `hostile_runner.py` as whoever this is, as an ordinary user, and with namespaces refused; what each one told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import tts_generate

HERE = Path(__file__).resolve().parent
RUNNER = HERE / "hostile_runner.py"
NOBODY = 65534
AS_NOBODY = """
set -e
cd {aside}
n=0; for folder in {folders}; do n=$((n + 1)); mkdir $n; mount --bind "$folder" $n; done
for folder in {closed}; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
n=0; for folder in {folders}; do n=$((n + 1)); mkdir -p "$folder"; mount --bind $n "$folder"; done
exec setpriv --reuid {user} --regid {user} --clear-groups {python} {runner} "$@"
"""


class NotHere(Exception):
    """Circumstances that cannot be had on this machine, and why."""


def run(name: str, *arguments: str) -> dict[str, Any]:
    """What the runner told: `name` is "as it is", "ordinary user" or "namespaces refused".

    Raises:
        NotHere: this machine does not let us make these circumstances.
    """
    site = sysconfig.get_path("purelib")
    source = str(Path(tts_generate.__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{source}:{site}",
    }
    command = [sys.executable, str(RUNNER), *arguments]
    if name == "namespaces refused":
        command.append("--no-namespaces")
    with tempfile.TemporaryDirectory() as aside:
        if name == "ordinary user" and os.getuid() == 0:
            script = _as_nobody([sys.base_prefix, site, source, str(HERE)], aside)
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *arguments]
            if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
                raise NotHere("a mount namespace, in which another user may read the interpreter, is refused here")
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _as_nobody(folders: list[str], aside: str) -> str:
    """A script that opens `folders` to another user, in a mount namespace of its own, and becomes that user."""
    closed = {str(up) for folder in folders for up in Path(folder).parents if not up.stat().st_mode & 1}
    topmost = [folder for folder in sorted(closed) if not any(str(up) in closed for up in Path(folder).parents)]
    os.chmod(aside, 0o755)
    return AS_NOBODY.format(
        aside=aside, folders=" ".join(folders), closed=" ".join(topmost), user=NOBODY,
        python=os.path.realpath(sys.executable), runner=RUNNER,
    )  # fmt: skip
