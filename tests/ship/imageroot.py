"""Follows the Dockerfile's steps in a clean root, without Docker: `python -m tests.ship.imageroot DIR`.

What stands in for the base image is a Debian root made by debootstrap with Python and pip in it; everything after FROM is
what the Dockerfile says: its ARGs, ENVs, COPYs and RUNs, stage by stage, each RUN in a chroot of its stage's root.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
SUITE: Final = "trixie"
PACKAGES: Final = "python3,python3-pip,python-is-python3,ca-certificates"
CERTIFICATES: Final = Path("etc/ssl/certs/ca-certificates.crt")
DEVICES: Final = ("null", "random", "urandom")


@dataclass
class Stage:
    """`steps` are (instruction, rest) in order; `name` is what COPY --from calls it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Image:
    """What a built stage leaves: its root and how a container of it starts."""

    root: Path
    environment: dict[str, str]
    user: str = "0:0"
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(instruction, rest) of each, with continued lines joined and comments left out."""
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        pending += line.removesuffix("\\")
        if not line.endswith("\\") and pending.strip():
            word, _, rest = pending.strip().partition(" ")
            yield word.upper(), rest.strip()
            pending = ""


def stages(text: str) -> list[Stage]:
    found: list[Stage] = []
    for word, rest in instructions(text):
        if word == "FROM":
            base, *name = rest.split()
            found.append(Stage(base, name[1] if name else str(len(found))))
        else:
            found[-1].steps.append((word, rest))
    return found


def pairs(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    """NAME=value … with quotes taken off and ${VARIABLES} put in."""
    split = (word.partition("=") for word in shlex.split(rest))
    return {name: Template(value).safe_substitute(known) for name, _, value in split}


def base_root(into: Path) -> None:
    """A minimal Debian with Python and pip, as in the base image; from the mirror that this machine uses."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(into), *mirror()],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for name in ("etc/resolv.conf", "etc/hosts", str(CERTIFICATES)):
        if (Path("/") / name).exists():
            shutil.copy(Path("/") / name, into / name)


def mirror() -> list[str]:
    for path in (*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")):
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            words = line.replace("deb ", "URIs: ").split() if line.startswith(("deb http", "URIs:")) else []
            if words and "security" not in words[1]:
                return [words[1]]
    return []


def build(base: Path, out: Path, text: str) -> Image:
    """Every stage's root below `out`, each from a copy of `base`; the last one's image."""
    built: dict[str, Image] = {}
    for stage in stages(text):
        root = out / stage.name
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        image = built[stage.name] = Image(root, {})
        arguments: dict[str, str] = {}
        for word, rest in stage.steps:
            follow(image, arguments, built, word, rest)
    return image


def follow(image: Image, arguments: dict[str, str], built: Mapping[str, Image], word: str, rest: str) -> None:
    known = arguments | image.environment
    if word == "RUN":
        run_step(image, known, rest)
    elif word == "COPY":
        copy_step(image, built, rest)
    elif word == "WORKDIR":
        image.directory = rest
        (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "ARG":
        arguments |= pairs(rest, known)
    elif word == "ENV":
        image.environment |= pairs(rest, known)
    elif word == "LABEL":
        image.labels |= pairs(rest, known)
    else:
        remember(image, word, rest)


def remember(image: Image, word: str, rest: str) -> None:
    """What only says how a container starts. Raises KeyError for an instruction that is not followed here."""
    if word == "HEALTHCHECK":
        image.health = json.loads(rest[rest.index("[") :])
        return
    if word in ("EXPOSE", "STOPSIGNAL"):
        return
    name = {"USER": "user", "ENTRYPOINT": "entrypoint", "CMD": "command", "VOLUME": "volumes"}[word]
    value = json.loads(rest) if rest.startswith("[") else [rest] if word == "VOLUME" else rest
    setattr(image, name, value)


def copy_step(image: Image, built: Mapping[str, Image], rest: str) -> None:
    options = [part for part in rest.split() if part.startswith("--")]
    *sources, target = [part for part in rest.split() if not part.startswith("--")]
    origin = built[options[0].removeprefix("--from=")].root if options else ROOT
    place = image.root / image.directory.lstrip("/") / target.removeprefix("./")
    for source in sources:
        copy(origin / source.lstrip("/"), place, into=target.endswith("/"))


def copy(source: Path, place: Path, *, into: bool) -> None:
    """As COPY does: a directory's contents, a file into a directory or as the name given."""
    if source.is_dir():
        skipped = shutil.ignore_patterns("__pycache__") if source.is_relative_to(ROOT) else None
        shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=skipped)
        return
    shutil.copy(source, place / source.name if into else place)


def run_step(image: Image, environment: Mapping[str, str], script: str) -> None:
    """One RUN, as root in the stage's root, with the network and package settings of this machine and nothing else."""
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    machine = {
        name: value for name, value in os.environ.items() if name.upper().startswith(("PIP_", "HTTP", "NO_PROXY"))
    }
    machine |= {"PIP_CERT": f"/{CERTIFICATES}"} if "PIP_CERT" in machine else {}
    # The base image's Python is upstream's; Debian's wants to be told that its own packages are left alone.
    given = path | machine | {"PIP_BREAK_SYSTEM_PACKAGES": "1"} | dict(environment)
    subprocess.run(
        inside(image, ["/bin/sh", "-c", script], given, writable=True),
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=1500,
    )


def inside(
    image: Image,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    writable: bool = False,
    volumes: Mapping[str, Path] | None = None,
) -> list[str]:
    """The command line that runs `command` in the image's root: as root while building; else as the image's user, root
    read-only, /tmp empty, no capability and no way to get one."""
    root = shlex.quote(str(image.root))
    mounts = [f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc", f"mkdir -p {root}/dev/shm"]
    mounts += [f"touch {root}/dev/{name}" for name in DEVICES]
    mounts += [f"mount --bind /dev/{name} {root}/dev/{name}" for name in DEVICES]
    mounts += [f"mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm"]
    chroot = ["chroot", str(image.root)]
    if not writable:
        mounts += [f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"]
        mounts += [f"mount --bind {shlex.quote(str(place))} {root}{name}" for name, place in (volumes or {}).items()]
        mounts += [f"mount -o remount,bind,ro {root}"]
        user, group = image.user.split(":")
        locked = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        chroot += ["setpriv", f"--reuid={user}", f"--regid={group}", *locked]
    settings = [f"{name}={value}" for name, value in environment.items()]
    wanted = shlex.join([*chroot, "env", "-i", "-C", image.directory, *settings, *command])
    script = " && ".join(["mount --make-rprivate /", *mounts, f"exec {wanted}"])
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


def started(image: Image, command: Sequence[str], volumes: Mapping[str, Path], **extra: str) -> list[str]:
    """The command line of a container of the image: its entry point, its environment, its user."""
    return inside(image, [*image.entrypoint, *command], image.environment | extra, volumes=volumes)


def size(path: Path) -> int:
    """Bytes on disk."""
    return int(subprocess.check_output(["du", "-sxB1", str(path)], text=True).split()[0])


def missing() -> str:
    """Why it cannot be done here; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can make a root file system"
    absent = [name for name in ("debootstrap", "unshare", "setpriv") if shutil.which(name) is None]
    return f"{', '.join(absent)} is not installed; on Debian: apt-get install debootstrap util-linux" if absent else ""


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"imageroot: {reason}")
    target = Path(sys.argv[1]).resolve()
    if not (target / "base").exists():
        base_root(target / "base")
    made = build(target / "base", target, (ROOT / "Dockerfile").read_text("utf-8"))
    mega = 1e6
    print(
        f"{size(made.root) / mega:.0f} MB, {size(made.root / 'opt') / mega:.0f} MB of it above the base, in {made.root}"
    )
