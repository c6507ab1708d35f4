"""A small Ray cluster in a process of its own, as a test's stranger."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOST = """
import ray, sys
ray.init("local", num_cpus=2, num_gpus=int(sys.argv[2]), include_dashboard=False, object_store_memory=80 * 2**20,
         _temp_dir=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@dataclass(frozen=True)
class Host:
    """A cluster: its address, the environment of its drivers, and the process that it hangs on."""

    address: str
    environment: dict[str, str]
    pid: int


@contextlib.contextmanager
def ray_host(home: Path, *, gpus: int = 0) -> Iterator[Host]:
    """A cluster of two CPUs and of GPUs in name, for the length of the block; `home`: the home folder of all."""
    scratch = tempfile.mkdtemp(prefix="r-", dir="/tmp")  # sockets lie in it: their paths may not be long
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment |= {
        "HOME": str(home), "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_worker_niceness": "0",  # Ray's workers give way to others, and here others wait for them
    }  # fmt: skip
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, scratch, str(gpus)], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    try:
        assert host.stdout is not None
        address = host.stdout.readline().strip()
        assert address, "Ray did not start"
        yield Host(address, environment, host.pid)
    finally:
        try:
            host.communicate("", timeout=30)
        except subprocess.TimeoutExpired:
            host.kill()
        shutil.rmtree(scratch, ignore_errors=True)
