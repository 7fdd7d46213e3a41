"""Start ``several.py`` in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("several.py")


def torchrun(subject, folder):
    """What each process wrote, and how torchrun ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, SCRIPT, subject, folder], env=dict(os.environ, OMP_NUM_THREADS="1"),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    missing = [rank for rank in (0, 1) if not (folder / f"{rank}.json").is_file()]
    assert not missing, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], done


def alone(subject, folder):
    """What the first of two processes wrote that nobody watches, as on two machines; the second is
    ended then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, subject, folder],
            env=dict(os.environ, OMP_NUM_THREADS="1", RANK=rank, LOCAL_RANK=rank, **shared),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        started[0].wait(120)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return json.loads((folder / "0.json").read_text())
