"""One step of each trainer on two processes, with groups on both of them.

``main`` is called in each process by ``lm/several.py`` and leaves ``FOLDER/NAME-RANK.pt``.
"""

import importlib.util
import warnings
from pathlib import Path

import torch

HERE = Path(__file__).parent
#: name -> kind, and options of the trainer; 12 completions in 3 groups of 4, the second on both
CASES = {
    "grpo": ("grpo", {"k": {1: 0.5, 3: 0.5}}),
    "rloo": ("rloo", {"k": 2}),
    "lora": ("grpo", {"k": 2, "lora": True}),
    "free": ("grpo", {"k": "free"}),
    "prompts": ("rloo", {"k": "prompts"}),
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem + "_several", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(lab, tiny, folder, name, rows=6):
    from passgrad.trl import ConflictFree

    kind, options = CASES[name]
    options = dict(options)
    if options.pop("lora", False):
        options["peft_config"] = lab.lora()
    plans = {"free": ConflictFree(2, every=1), "prompts": ConflictFree(2, "mgda", per_prompt=True)}
    if isinstance(options["k"], str):
        options["k"] = plans[options["k"]]
    tokenizer = tiny.bpe("0123456789+=abcdefghijklmnopqrstuvwxyz :#\n", [("1", "2")])
    tokenizer.padding_side = "left"
    model = tiny.tiny_language_model(tokenizer, dtype="float32", seed=3)
    return lab.make_trainer(
        model, tokenizer, folder / name, kind, rewards=lab.length_reward,
        per_device_train_batch_size=rows, seed=6, **options,
    )  # fmt: skip


def main(folder):
    lab, tiny = load(HERE / "helpers.py"), load(HERE.parent / "conftest.py")
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in CASES:
            trainer = make(lab, tiny, folder, name)
            assert trainer.accelerator.num_processes == 2
            steps = lab.seen_steps(trainer)
            trainer.train()
            weights = [v.detach() for v in trainer.model.parameters() if v.requires_grad]
            torch.save(
                {
                    **steps[0],
                    "conflict": trainer.conflict.mean,
                    "weights": weights,
                    "model": trainer.model.state_dict(),
                },
                folder / f"{name}-{trainer.accelerator.process_index}.pt",
            )
