import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root():
    """The checkout under test."""
    return ROOT


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own for tests that write: the source and no data. The code counts as
    committed, so that results can be stored.
    """
    folder = tmp_path / "checkout"
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "requirements").mkdir()
    for name in ("pyproject.toml", "_toc.yml", "src"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "requirements" / "lock.txt").write_text("numpy==2.0\n")
    (folder / "notebooks" / "profiles" / "cpu.yml").write_text("")
    monkeypatch.setenv("PASSGRAD_ROOT", str(folder))
    monkeypatch.setattr("passgrad.provenance.git_commit", lambda: "0" * 40)
    for name in ("PROFILE", "NOTEBOOK", "RESULTS", "RESULT_LOG"):
        monkeypatch.delenv(f"PASSGRAD_{name}", raising=False)
    return folder


class Shown:
    """A :class:`passgrad.progress.Progress` that remembers: stages [name, total, done], notes."""

    def __init__(self):
        self.stages, self.notes = [], []

    def stage(self, name, total):
        self.stages.append([name, total, 0])

    def advance(self, amount=1):
        self.stages[-1][2] += amount

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture(scope="session")
def recorder():
    """The class of ``shown``."""
    return Shown


def bpe(alphabet, merges=()):
    """A fast tokenizer without a network: one token a character, and the merges given."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    words = ["<end>", *alphabet, *(a + b for a, b in merges)]
    backend = Tokenizer(BPE({word: place for place, word in enumerate(words)}, list(merges)))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.fixture(scope="session")
def make_tokenizer():
    return bpe


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Some merges cross the places where a question, an answer and a stop meet."""
    alphabet = "0123456789+=abcdefghijklmnopqrstuvwxyz :#\n"
    return bpe(alphabet, [("=", "9"), ("8", "\n"), ("\n", "\n"), ("1", "2")])


def tiny_language_model(
    tokenizer, architecture="llama", dtype="float64", tied=True, seed=0, **config
):
    """A causal LM of a few thousand random weights, large enough for its attention to matter."""
    import torch
    import transformers

    name = {
        "llama": "Llama", "gpt2": "GPT2", "qwen2": "Qwen2", "gemma": "Gemma", "gptj": "GPTJ",
        "bloom": "Bloom",
    }[architecture]  # fmt: skip
    head = "LMHeadModel" if architecture == "gpt2" else "ForCausalLM"
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }
    if architecture in ("gpt2", "gptj", "bloom"):
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    if architecture == "gptj":
        sizes["rotary_dim"] = 8
    made = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer), tie_word_embeddings=tied, eos_token_id=0, bos_token_id=0,
        pad_token_id=0, **{**sizes, **config},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}{head}")(made)
    model.to(getattr(torch, dtype)).eval()
    if architecture == "llama" and dtype == "float64":
        # transformers takes this norm in float32 whatever the dtype of the model.
        for block in (model.model, *model.model.layers):
            for part, norm in list(block.named_children()):
                if part.endswith("norm"):
                    setattr(block, part, same_norm(norm))
    return model


def same_norm(norm):
    """The RMS norm of a model, in the dtype of what it is given."""
    import torch

    made = torch.nn.RMSNorm(norm.weight.numel(), eps=norm.variance_epsilon, dtype=torch.float64)
    made.weight = norm.weight
    return made


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer):
    """Makes tiny models for the tiny tokenizer (or for another one)."""

    def make(architecture="llama", *, tokenizer=tiny_tokenizer, **options):
        return tiny_language_model(tokenizer, architecture, **options)

    return make


@pytest.fixture(scope="session")
def plain_logprob():
    """log pi(target | prefix) of one sequence, from the logits of all its positions."""
    import torch

    @torch.no_grad()
    def logprob(model, prefix, target):
        ids = torch.tensor([[*prefix, *target]])
        table = model(input_ids=ids).logits[0].double()
        table = table - torch.logsumexp(table, dim=-1, keepdim=True)
        first = len(prefix)
        return sum(float(table[first + i - 1, token]) for i, token in enumerate(target))

    return logprob


@pytest.fixture(scope="session")
def smollm2():
    """The embedded model and its tokenizer."""
    from passgrad.lm.models import load_model

    return load_model("smollm2-135m")


QUESTIONS = ["a\nb=", "aabb\na=", "ab\nab=", "b\na=", "bb\nb=", "ba\nbb="]
ANSWERS = ["a", "b", "a", "ab", "b", "a"]


@dataclass(frozen=True)
class Several:
    """What ``lm/several.py`` left in its folder, and how torchrun ended."""

    folder: Path
    returncode: int
    errors: str

    def read(self, subject):
        """What each of the two processes found."""
        files = [self.folder / subject / f"{rank}.json" for rank in (0, 1)]
        assert all(file.is_file() for file in files), self.errors
        return [json.loads(file.read_text()) for file in files]


@pytest.fixture(scope="session")
def several(processes, make_tokenizer, tiny_model, tmp_path_factory):
    """The one start of torchrun, with two processes, for all tests that need one."""
    from passgrad.lm.models import save_model

    folder = tmp_path_factory.mktemp("several")
    place = folder / "measure"
    place.mkdir()
    tokenizer = make_tokenizer("ab=\n")
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, place / "model")
    rows = [{"prompt": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    (place / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "measure", "--model", str(place / "model"), "--prompts", str(place / "prompts.jsonl"),
        "--stop", "\n", "--max-new-tokens", "4", "--engine", "transformers", "--samples", "64",
        "--ks", "1,2,4", "--reading", "fixed", "--out", str(place / "two"),
    ]  # fmt: skip
    (place / "arguments.json").write_text(json.dumps(arguments))
    again = [
        "measure", "--model", str(place / "model"), "--ks", "1,2,4", "--reading", "fixed",
        "--rollouts", str(place / "two" / "rollouts.parquet"), "--out",
    ]  # fmt: skip
    others = {
        "sharded": [*again, str(place / "sharded"), "--shard"],
        "coarse": [*again, str(place / "coarse"), "--no-parts", "--dtype", "bfloat16"],
        "both": [*again, str(place / "both"), "--shard", "--dtype", "bfloat16"],
    }
    (place / "others.json").write_text(json.dumps(others))
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
            str(ROOT / "tests" / "unit" / "lm" / "several.py"), "all", str(folder),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return Several(folder, done.returncode, done.stderr[-4000:])


@pytest.fixture
def quiet():
    """Leaves out what TRL, transformers and accelerate say about themselves."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
        yield
