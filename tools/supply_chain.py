"""What this project is made of: checks that every pin is installed as pinned, and writes an SBOM of the pins.

    python tools/supply_chain.py [build/sbom.cdx.json] [--constraints constraints.txt] [--complete]

The SBOM is CycloneDX 1.5 JSON. It ends with exit code 1 if a package is installed in another version than its pin, or
if something that tts-generate needs, extras included, is installed and has no pin; with `--complete`, also if a pin is
not installed. It asks no network: for known weaknesses feed the file to a scanner such as `osv-scanner`.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def pins(path: Path) -> dict[str, str]:
    """Name and version of each line `name==version`.

    Raises:
        ValueError: a line that pins nothing, naming it.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        specs = list(requirement.specifier)
        if len(specs) != 1 or specs[0].operator != "==" or "*" in specs[0].version:
            raise ValueError(f"{path}, line {number}: {text!r} pins nothing; expected is name==version.")
        found[canonicalize_name(requirement.name)] = specs[0].version
    return found


def hashes(path: Path) -> dict[tuple[str, str], int]:
    """Number of sha256 hashes of each pin of a lock file, by name and version.

    Raises:
        ValueError: a line that is none of such a file, naming it.
    """
    found: dict[tuple[str, str], int] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        text = line.strip().removesuffix("\\").strip()
        if text.startswith("--hash=sha256:") and len(text) == 78 and found:
            found[list(found)[-1]] += 1
        elif text and not text.startswith("#"):
            name, equals, version = text.partition(";")[0].strip().partition("==")
            if not equals or " " in version:
                raise ValueError(f"{path}, line {number}: {text!r} is neither name==version nor --hash=sha256:….")
            found[canonicalize_name(name), version] = 0
    return found


def unhashed(pinned: dict[str, str], path: Path) -> list[str]:
    """One line for each pin that the lock file has no hash of, and for each that it has in excess."""
    there = hashes(path)
    missing = [f"{name}=={version} has no hash in {path.name}" for name, version in pinned.items()
               if not there.get((name, version))]  # fmt: skip
    more = [f"{name}=={version} in {path.name} is no pin" for name, version in there if pinned.get(name) != version]
    return [*missing, *more]


def installed(name: str) -> str | None:
    """The version that is installed, without a local part such as +cpu; None if there is none."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def needed(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """The installed packages that a package needs, theirs included."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), extra) for extra in ("", *extras)]
    while waiting:
        package, extra = waiting.pop()
        if (package, extra) in seen or installed(package) is None:
            continue
        seen.add((package, extra))
        for text in metadata.requires(package) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found = canonicalize_name(requirement.name)
                waiting += [(found, "")] + [(found, more) for more in requirement.extras]
    return {package for package, _ in seen} - {canonicalize_name(name)}


def problems(pinned: dict[str, str], complete: bool) -> list[str]:
    """One line for each package that is not as pinned."""
    found = []
    for name, version in sorted(pinned.items()):
        there = installed(name)
        if there is None and complete:
            found.append(f"{name} is not installed; pinned is {version}")
        elif there is not None and there != version.partition("+")[0]:
            found.append(f"{name} is installed as {there}; pinned is {version}")
    extras = tuple(metadata.metadata("tts-generate").get_all("Provides-Extra") or ())
    found += [f"{name} is installed and has no pin" for name in sorted(needed("tts-generate", extras) - set(pinned))]
    return found


def component(name: str, version: str) -> dict[str, Any]:
    """A package as CycloneDX names it; its licence where its metadata says it as an SPDX expression."""
    row: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "purl": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
    }
    if installed(name) is not None:
        expression = metadata.metadata(name).get("License-Expression")
        if expression:
            row["licenses"] = [{"expression": expression}]
    return row


def sbom(pinned: dict[str, str]) -> dict[str, Any]:
    """The bill of materials; the same pins give the same bytes."""
    version = metadata.version("tts-generate")
    components = [component(name, pin) for name, pin in sorted(pinned.items())]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([version, components]))}",
        "version": 1,
        "metadata": {"component": {"type": "library", "name": "tts-generate", "version": version}},
        "components": components,
    }


def main(arguments: list[str]) -> int:
    """Check, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "build" / "sbom.cdx.json")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--complete", action="store_true")
    chosen = parser.parse_args(arguments)
    pinned = pins(chosen.constraints)
    found = problems(pinned, chosen.complete)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(sbom(pinned), indent=1) + "\n", "utf-8")
    print(
        "\n".join(found) or f"{len(pinned)} pins, {sum(installed(n) is not None for n in pinned)} installed as pinned"
    )
    print(f"SBOM: {chosen.out}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
