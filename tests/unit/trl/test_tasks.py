from types import SimpleNamespace

import pytest

from passgrad import UserError
from passgrad.tasks.base import Prompt, Task
from passgrad.trl import end_at_stop, task_dataset, task_reward


def task(stop="\n"):
    prompts = (Prompt("a", "1+1=", "2"), Prompt("a", "2+2=", "4"))
    return Task("sums", prompts, lambda text, prompt: text == prompt.answer, stop, 4)


def test_a_task_for_trl():
    data = task_dataset(task())
    assert data["prompt"][:] == ["a1+1=", "a2+2="]
    reward = task_reward(task())
    assert reward(completions=["2\n7", "2", "4"], place=[0, 1, 1], trainer_state=None) == [1, 0, 1]
    assert task_reward(task(None))(completions=["2\n"], place=[0]) == [0]


def test_the_stop_ends_a_completion(tiny_tokenizer):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=0))
    end_at_stop(model, tiny_tokenizer, task())
    newline = tiny_tokenizer.encode("\n")[0]
    assert model.generation_config.eos_token_id == [0, newline]
    end_at_stop(model, tiny_tokenizer, task())
    assert model.generation_config.eos_token_id == [0, newline]
    end_at_stop(model, tiny_tokenizer, task(None))
    with pytest.raises(UserError, match="is 2 tokens"):
        end_at_stop(model, tiny_tokenizer, task("ab"))
