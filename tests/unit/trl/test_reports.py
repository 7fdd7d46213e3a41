"""What the callback measures reaches the places that ``report_to`` names."""

import pytest


def test_tensorboard_receives_the_conflict(lab, tiny, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from passgrad.trl import ConflictCallback

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    watch = ConflictCallback(every=1, plot=False)
    trainer = lab.make_trainer(
        *tiny, tmp_path, k=2, callbacks=[watch], report_to="tensorboard", max_steps=2, seed=2
    )
    trainer.train()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    found = {
        tag.rsplit("conflict/", 1)[1]: tag for tag in events.Tags()["scalars"] if "conflict/" in tag
    }
    assert {"pass@1", "pass@k", "inner_product", "predicted_change"} <= set(found)
    history = watch.to_frame()
    for name in ("pass@1", "inner_product"):
        values = [one.value for one in events.Scalars(found[name])]
        assert values == pytest.approx(history[name].tolist(), rel=1e-5, abs=1e-8)


def test_any_other_logger_receives_it(lab, tiny, tmp_path):
    """The way of trackio, wandb and the rest: on_log of a callback."""
    from transformers import TrainerCallback

    from passgrad.trl import ConflictCallback

    seen = []

    class Keep(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **rest):
            seen.append(dict(logs))

    watch = ConflictCallback(every=1, plot=False)
    lab.make_trainer(*tiny, tmp_path, k=2, callbacks=[watch, Keep()], max_steps=2, seed=2).train()
    products = [logs["conflict/inner_product"] for logs in seen if "conflict/inner_product" in logs]
    assert products == pytest.approx(watch.to_frame()["inner_product"].tolist())
