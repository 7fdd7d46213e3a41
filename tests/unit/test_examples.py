"""The scripts and configurations of examples/, which the recipe of the book shows."""

import importlib.util
import json
import os
import shlex
import string
import subprocess

import pytest
import yaml

CONFIGURATIONS = ("accelerate_fsdp.yaml", "accelerate_deepspeed_zero3.yaml")


@pytest.fixture(autouse=True)
def without_remarks(quiet):
    """In every test here."""


@pytest.fixture
def script(root):
    """A script of examples/ as a module."""

    def load(name):
        found = importlib.util.spec_from_file_location(name, root / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def folder(tmp_path, make_tokenizer, tiny_model):
    """The folder of a tiny model that reads all of ASCII."""
    tokenizer = make_tokenizer([*string.printable.strip(), " ", "\n"])
    tokenizer.padding_side = "left"
    place = tmp_path / "model"
    tiny_model(tokenizer=tokenizer, dtype="float32", initializer_range=0.02).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.mark.parametrize(("conflict_free", "rank"), [(False, 0), (True, 2)])
def test_the_example_trains(processes, script, folder, tmp_path, conflict_free, rank, capsys):
    from safetensors.torch import load_file

    out = tmp_path / "run"
    script("train_pass_at_k").train(
        str(folder), str(out), k=2, n=4, steps=2, prompts=2, conflict_free=conflict_free,
        held_out=2, eval_every=2, rank=rank,
    )  # fmt: skip
    printed = capsys.readouterr().out
    for line in ("pass@1 of the held-out prompts: 0", "pass@2 of the held-out", "seconds a step"):
        assert line in printed
    record = json.loads((out / "passgrad.json").read_text(encoding="utf-8"))
    assert record["biased_settings"] == []
    assert record["estimator"] == "pkpo-loo1"
    assert ("pcgrad" in record["objective"]) == conflict_free
    assert "2" in record["objective"]
    assert (out / "conflict.parquet").is_file()
    assert (out / "adapter_model.safetensors").is_file() == (rank > 0)
    if not rank:
        before, after = (load_file(place / "model.safetensors") for place in (folder, out))
        assert before.keys() == after.keys()


def test_the_example_says_what_came_of_it(script, capsys):
    say = script("train_pass_at_k").what_came_of_it
    history = [
        {"eval_passk/pass@1": 0.25, "eval_passk/pass@4": 0.5},
        {"conflict/mean_inner_product": -3.0, "conflict/error_inner_product": 1.0},
        {"eval_passk/pass@1": 0.125, "eval_passk/pass@4": 0.75},
        {"train_runtime": 90.0, "step": 3},
    ]
    say(history, 4)
    assert capsys.readouterr().out.splitlines() == [
        "pass@1 of the held-out prompts: 0.250 before, 0.125 at the end",
        "pass@4 of the held-out prompts: 0.500 before, 0.750 at the end",
        "<grad J_4, grad J_1>: -3, standard error 1: a conflict",
        "30 seconds a step, evaluation included",
    ]


def test_the_command_line_of_the_example(root, tmp_path):
    from typer import Typer
    from typer.testing import CliRunner

    app = Typer()
    module = importlib.util.spec_from_file_location("e", root / "examples" / "train_pass_at_k.py")
    loaded = importlib.util.module_from_spec(module)
    module.loader.exec_module(loaded)
    app.command()(loaded.train)
    shown = CliRunner().invoke(app, ["--help"], env={"NO_COLOR": "1", "COLUMNS": "100"})
    assert shown.exit_code == 0
    for option in ("--model", "--k", "--n", "--steps", "--conflict-free"):
        assert option in shown.output


def test_the_settings_of_the_large_run_change_no_objective(script, tmp_path):
    from passgrad.trl.settings import find_biases

    on_cpu = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False}
    args = script("train_8b").settings(str(tmp_path), 32, 160, [198], **on_cpu)
    assert find_biases(args, "grpo") == []
    assert (args.use_vllm, args.vllm_mode, args.num_generations) == (True, "server", 32)
    # Six processes, as the configurations have them, fill whole groups.
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * 6 % 32 == 0
    changed = script("train_8b").settings(
        str(tmp_path), 32, 160, [198], vllm_importance_sampling_correction=False, **on_cpu
    )
    found = [one.setting for one in find_biases(changed, "grpo")]
    assert found == ["vllm_importance_sampling_correction"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_accelerate_takes_the_configurations(root, name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(root / "examples" / name))
    assert config.num_processes == 6
    assert config.mixed_precision == "bf16"
    assert config.distributed_type.value == ("FSDP" if "fsdp" in name else "DEEPSPEED")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_launcher_knows_every_key_of_the_configurations(root, name):
    """Each nested key is an option of ``accelerate launch``, which reads the section by name."""
    from accelerate.commands.launch import launch_command_parser

    options = {action.dest for action in launch_command_parser()._actions}
    read = yaml.safe_load((root / "examples" / name).read_text(encoding="utf-8"))
    section = read["fsdp_config" if "fsdp" in name else "deepspeed_config"]
    assert section
    assert set(section) <= options
    assert "no_such_key" not in options


def test_the_launch_script_is_sound(root):
    path = root / "examples" / "launch_8b.sh"
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    for name in (*CONFIGURATIONS, "train_8b.py"):
        assert f"examples/{name}" in text
        assert (root / "examples" / name).is_file()


def test_the_server_is_started_as_trl_wants_it(root):
    from trl.scripts.vllm_serve import ScriptArguments, build_command

    wanted = build_command(ScriptArguments(model="m"))
    imposed = wanted[wanted.index("--weight-transfer-config") :]
    text = (root / "examples" / "launch_8b.sh").read_text(encoding="utf-8")
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    start = words.index("--weight-transfer-config")
    assert words[start : start + len(imposed)] == imposed
    assert "VLLM_SERVER_DEV_MODE=1" in words


def test_the_recipe_shows_these_files(root):
    text = (root / "book" / "recipe.md").read_text(encoding="utf-8")
    for name in ("train_pass_at_k.py", "train_8b.py", "launch_8b.sh", *CONFIGURATIONS):
        assert f"literalinclude}} ../examples/{name}" in text, name
        assert (root / "examples" / name).is_file()


def test_the_numbers_of_the_recipe(root):
    """The table of noise, and the memory of the large run."""
    from passgrad.estimators import ESTIMATORS

    text = (root / "book" / "recipe.md").read_text(encoding="utf-8")
    start = text.index("| $p$ | $n = 8$")
    head, _, *rows = text[start : text.index("\n\n", start)].splitlines()
    sizes = [int(cell.split("=")[1].strip(" $")) for cell in head.split("|")[2:-1]]
    assert (sizes, len(rows)) == ([8, 16, 32, 64], 2)
    for row in rows:
        p, *printed = (float(cell) for cell in row.split("|")[1:-1])
        noise = [
            float(
                ESTIMATORS["pkpo-loo1"].relative_deviation(
                    p, n, 8, mean_square=(1 - p) ** 2, noise_right=1.0, noise_wrong=1.0
                )
            )
            * n**0.5
            for n in sizes
        ]
        assert [round(one / min(noise), 2) for one in noise] == printed
    assert round(8e9 * 16 / 6 / 1e9) == 21
    assert "about 21 GB each" in text
