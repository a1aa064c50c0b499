"""Real containers on a restricted machine: root without CAP_SYS_RESOURCE, cgroups mounted in the hybrid way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atlas.executors import ContainerExecutor

IMAGE = "atlas-test:1"
"""An empty root; programs are this machine's own, mounted to be read only."""
_ULIMITS = {"nofile": 1024, "nproc": 4096}
"""Without them the engine would raise its own, which is refused."""
_WRAPPER = """#!/bin/sh
# crun refuses hybrid cgroups, so they are out of sight: in a mount namespace of this call.
cgroups=/sys/fs/cgroup/unified
exec unshare -m sh -c "mountpoint -q $cgroups && umount $cgroups; exec \\"\\$0\\" \\"\\$@\\"" {podman} "$@"
"""
_CONTAINERS = """[containers]
cgroups = "disabled"
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
_STORAGE = """[storage]
driver = "vfs"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""


def working_podman(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ContainerExecutor:
    """Sets podman up in `folder` and in the environment. Skips the test where podman cannot run."""
    programs = {name: shutil.which(name) for name in ("podman", "crun", "catatonit", "unshare")}
    lacking = [name for name, path in programs.items() if path is None] or (["root"] if os.getuid() else [])
    if not programs["catatonit"] and Path("/usr/libexec/podman/catatonit").exists():
        lacking.remove("catatonit")
    if lacking:
        pytest.skip(f"no containers here: {', '.join(lacking)} missing (apt-get install podman crun catatonit)")
    (folder / "bin").mkdir()
    wrapper = folder / "bin/podman"
    wrapper.write_text(_WRAPPER.format(podman=programs["podman"]))
    wrapper.chmod(0o755)
    (folder / "containers.conf").write_text(_CONTAINERS)
    (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
    _make_image(folder)
    return ContainerExecutor(
        image=IMAGE,
        engine="podman",
        network="none",
        mounts=list(dict.fromkeys([sys.prefix, sys.base_prefix, "/usr"])),
        ulimits=_ULIMITS,
    )


def _make_image(folder: Path) -> None:
    root = folder / "root"
    for name in ("tmp", "proc", "dev", "sys", "etc", "usr"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    archive = subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout
    path = f"ENV PATH={sys.prefix}/bin:/usr/bin:/bin"
    done = subprocess.run(["podman", "import", "--change", path, "-", IMAGE], input=archive, capture_output=True)
    if done.returncode:
        pytest.skip(f"no containers here: {done.stderr.decode()[-500:]}")
    limits = [f"--ulimit={name}={limit}:{limit}" for name, limit in _ULIMITS.items()]
    trial = ["podman", "run", "--rm", "--network=none", *limits, "--volume=/usr:/usr:ro", IMAGE, "true"]
    done = subprocess.run(trial, capture_output=True)
    if done.returncode:
        pytest.skip(f"no containers here: {done.stderr.decode()[-500:]}")
