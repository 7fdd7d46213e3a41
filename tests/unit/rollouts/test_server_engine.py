"""Completions from a server: a stand-in that answers as told, and vLLM itself on loopback."""

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from passgrad.errors import UserError
from passgrad.lm.models import resolve, save_model
from passgrad.lm.rollouts import Completion, Request, Sampling
from passgrad.lm.tokens import encode
from passgrad.rollouts import server_engine
from passgrad.rollouts.same_law import compare_laws
from passgrad.rollouts.sampling import sample
from passgrad.rollouts.server_engine import address, draw, in_flight
from passgrad.rollouts.vllm_engine import _small_machine
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.conventions import conventions

STOP = 4


@pytest.fixture(autouse=True)
def no_key_and_no_patience(monkeypatch):
    for name in server_engine.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)


def choice(index, ids, reason="stop", prompt=None):
    """As vLLM writes it."""
    return {
        "index": index,
        "text": "",
        "finish_reason": reason,
        "logprobs": {
            "tokens": [f"token_id:{one}" for one in ids],
            "token_logprobs": [-0.5] * len(ids),
            "text_offset": [0] * len(ids),
            "top_logprobs": [None] * len(ids),
        },
        "token_ids": ids,
        "prompt_token_ids": prompt,
    }


class StandIn:
    """A server in this process. ``answer(body, number)`` gives (status, object or text) for the
    completions; ``number`` counts the requests.
    """

    def __init__(self, answer=None, models=(("tiny", "/models/tiny", 64),), key=None):
        self.answer = answer or self.echo
        self.models = models
        self.key = key
        self.bodies, self.headers = [], []
        self.running = self.most = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def reply(self, status, content):
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
                kind = "text/html" if isinstance(content, str) else "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def refused(self):
                outer.headers.append(dict(self.headers))
                if outer.key and self.headers["Authorization"] != f"Bearer {outer.key}":
                    self.reply(401, {"error": {"message": f"not {self.headers['Authorization']}"}})
                    return True
                return False

            def do_GET(self):
                if self.refused():
                    return
                if self.path != "/v1/models":
                    self.reply(404, {"detail": "Not Found"})
                    return
                rows = [
                    {"id": name, "object": "model", "root": root, "max_model_len": context}
                    for name, root, context in outer.models
                ]
                self.reply(200, {"object": "list", "data": rows})

            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"]))
                if not text:  # the client has gone
                    self.close_connection = True
                    return
                body = json.loads(text)
                if self.refused():
                    return
                with outer.lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.running += 1
                    outer.most = max(outer.most, outer.running)
                status, content = outer.answer(body, number)
                with outer.lock:
                    outer.running -= 1
                if status is None:  # the line goes dead
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.reply(status, content)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @staticmethod
    def echo(body, _):
        """Completion i of a prompt: its first token, then i % 3, then the stop."""
        first = body["prompt"][0]
        rows = [choice(i, [first, i % 3, STOP], prompt=body["prompt"]) for i in range(body["n"])]
        return 200, {"choices": rows[::-1]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def request(url, prompts=((1, 2), (3,)), n=2, **changes):
    options = {"settings": Sampling(), "name": "tiny"} | changes
    return Request("/models/tiny", tuple(prompts), n, (STOP,), 8, base_url=url, **options)


def fails(stand_in, pattern, **changes):
    with pytest.raises(UserError, match=pattern) as caught:
        draw(request(stand_in.url, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is asked, and what comes back


def test_the_law_is_written_out(monkeypatch):
    """vLLM takes what is left open from the model folder."""
    with StandIn() as server:
        law = Sampling(seed=3, temperature=0.7, top_p=0.9, top_k=5)
        draw(request(server.url, [(1, 2)], settings=law))
    [body] = server.bodies
    asked = {
        "model": "tiny", "prompt": [1, 2], "n": 2, "max_tokens": 8, "temperature": 0.7,
        "top_p": 0.9, "top_k": 5, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "min_tokens": 0, "watermarking": False, "logprobs": 0,
        "stop_token_ids": [STOP], "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    assert asked.items() <= body.items()
    assert "seed" not in body


def test_tokens_and_log_probabilities_come_back_in_order():
    """Prompts are answered out of order, choices too."""

    def slow_first(body, number):
        time.sleep(0.2 if body["prompt"] == [1, 2] else 0)
        return StandIn.echo(body, number)

    with StandIn(slow_first) as server:
        drawn = draw(request(server.url, n=3))
    assert drawn == [
        [Completion((first, i, STOP), "stop", -1.5) for i in range(3)] for first in (1, 3)
    ]


def test_servers_that_give_tokens_by_name_alone():
    def older(body, number):
        status, content = StandIn.echo(body, number)
        for row in content["choices"]:
            del row["token_ids"], row["prompt_token_ids"]
        return status, content

    with StandIn(older) as server:
        assert draw(request(server.url, [(1,)]))[0][1].token_ids == (1, 1, STOP)


def test_many_prompts_at_once_but_not_all(monkeypatch):
    monkeypatch.setattr(server_engine, "_MOST_CONNECTIONS", 4)

    def slow(body, number):
        time.sleep(0.05)
        return StandIn.echo(body, number)

    with StandIn(slow) as server:
        drawn = draw(request(server.url, [(i,) for i in range(10, 22)], n=1))
    assert [row[0].token_ids[0] for row in drawn] == list(range(10, 22))
    assert 2 <= server.most <= 4


def test_how_many_at_once():
    assert [in_flight(n) for n in (1, 32, 64, 256, 10**6)] == [64, 64, 32, 8, 2]


def test_it_draws_inside_a_running_event_loop():
    """As in a notebook."""
    import asyncio

    async def cell(url):
        return draw(request(url))

    with StandIn() as server:
        assert len(asyncio.run(cell(server.url))) == 2


# --- which model


@pytest.mark.parametrize(
    ("models", "asked"),
    [
        ((("other", "/x", 64),), "other"),
        ((("other", "/x", 64), ("tiny", "/y", 64)), "tiny"),
        ((("a", "/x", 64), ("b", "/models/tiny", 64)), "b"),
    ],
)
def test_the_model_of_this_name_or_folder_or_the_only_one(models, asked):
    with StandIn(models=models) as server:
        draw(request(server.url))
    assert {body["model"] for body in server.bodies} == {asked}


def test_several_models_of_other_names_are_listed():
    with StandIn(models=(("a", "/x", 64), ("b", "/y", 64))) as server:
        fails(server, "does not serve tiny; it serves a, b")
    with StandIn(models=()) as server:
        fails(server, "serves no model")


def test_a_context_that_is_too_short_is_seen_before_anything_is_drawn():
    with StandIn(models=(("tiny", "", 9),)) as server:
        fails(server, "a prompt of 2 tokens and max_new_tokens = 8 need more than the 9 tokens")
        assert not server.bodies
        draw(request(server.url, [(1,)]))


# --- keys


def test_the_key_is_sent_and_never_shown(monkeypatch):
    with StandIn(key="hidden-123") as server:
        fails(server, r"\(401\) wants a key: set it in PASSGRAD_API_KEY or OPENAI_API_KEY")
        monkeypatch.setenv("OPENAI_API_KEY", "wrong-456")
        text = fails(server, "refuses the key in PASSGRAD_API_KEY or OPENAI_API_KEY")
        assert "456" not in text
        monkeypatch.setenv("PASSGRAD_API_KEY", "hidden-123")
        assert len(draw(request(server.url))) == 2


def test_a_key_in_a_servers_message_is_struck_out(monkeypatch):
    monkeypatch.setenv("PASSGRAD_API_KEY", "hidden-123")
    said = {"error": {"message": "bad\nrequest of hidden-123"}}
    with StandIn(lambda body, number: (400, said)) as server:
        assert "hidden" not in fails(server, r"answers 400: bad request of \*\*\*")


# --- what goes wrong


@pytest.mark.parametrize("trouble", [None, 429, 503, 500])
def test_passing_trouble_is_sat_out(trouble):
    def bad_twice(body, number):
        return (trouble, {}) if number < 2 else StandIn.echo(body, number)

    with StandIn(bad_twice) as server:
        assert len(draw(request(server.url))) == 2
        assert len(server.bodies) == 4


@pytest.mark.parametrize(
    ("trouble", "pattern"), [(None, "no answer from http://127"), (503, "answers 503: busy")]
)
def test_lasting_trouble_ends_in_one_line(trouble, pattern):
    with StandIn(lambda body, number: (trouble, {"error": {"message": "busy"}})) as server:
        fails(server, pattern, prompts=[(1,)])
        assert len(server.bodies) == 1 + server_engine._RETRIES


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=f"no answer from {url}/v1 .*; check that the server runs"):
        draw(request(url))


def test_one_failure_ends_the_others():
    """Nothing goes on in the background, and nobody waits for the slow ones."""
    released = threading.Event()

    def answer(body, number):
        if body["prompt"] == [3]:
            return 400, {"error": {"message": "no"}}
        released.wait(10)
        return StandIn.echo(body, number)

    with StandIn(answer) as server:
        begun = time.monotonic()
        fails(server, "answers 400: no")
        assert time.monotonic() - begun < 5
        released.set()


def edited(**changes):
    def answer(body, number):
        status, content = StandIn.echo(body, number)
        content["choices"][0].update(changes)
        return status, content

    return answer


@pytest.mark.parametrize(
    ("answer", "pattern"),
    [
        (lambda body, number: (404, {}), r"/v1/completions does not exist \(404\); base_url must"),
        (lambda body, number: (200, "<html>hello"), "does not answer as an OpenAI-compatible"),
        (lambda body, number: (200, {}), "does not answer as an OpenAI-compatible"),
        (lambda body, number: (200, {"choices": []}), "gave 0 completions instead of 2"),
        (edited(logprobs=None), "does not answer as an OpenAI-compatible"),
        (edited(token_ids=[1]), "does not answer as an OpenAI-compatible"),
        (edited(prompt_token_ids=[9]), "read other tokens than it was sent"),
        (edited(finish_reason="length"), "cut a completion off at 3 tokens"),
        (edited(finish_reason="abort"), r"ended a completion \(abort\)"),
        (edited(token_ids=[1, 2, 3]), r"ended a completion \(stop\) at token 3"),
        (edited(token_ids=[STOP, 2, STOP]), "does not stop at stop_token_ids"),
        (
            edited(token_ids=None, logprobs={"tokens": ["a"], "token_logprobs": [-1.0]}),
            "gives no token ids; take vLLM",
        ),
    ],
)
def test_answers_that_cannot_be_used(answer, pattern):
    with StandIn(answer) as server:
        fails(server, pattern)


def test_an_address_of_something_else():
    with StandIn() as server:
        server.url += "/elsewhere"
        fails(server, r"/v1/elsewhere/models does not exist \(404\); base_url must be that of")


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("https://host/", "https://host/v1"),
        ("http://host/proxy/v1/", "http://host/proxy/v1"),
    ],
)
def test_addresses(given, whole):
    assert address(given) == whole


@pytest.mark.parametrize("given", [None, "", "host:8000", "ftp://host", "http://", "http://h:x"])
def test_no_addresses(given):
    with pytest.raises(UserError, match="is no address; give one such as http://127"):
        address(given)


@pytest.mark.parametrize("given", ["http://me:secret@host/v1", "http://host/v1?key=secret"])
def test_addresses_with_a_secret_are_refused_without_showing_it(given):
    with pytest.raises(UserError, match="the key in PASSGRAD_API_KEY") as caught:
        address(given)
    assert "secret" not in str(caught.value)


# --- through sample


@pytest.fixture(scope="module")
def small(make_tokenizer, tiny_model, tmp_path_factory):
    tokenizer = make_tokenizer("ab=\n")
    model = tiny_model(tokenizer=tokenizer, dtype="float32")
    return save_model(model, tokenizer, tmp_path_factory.mktemp("served") / "model")


def tiny_task():
    return Task("tiny", (Prompt("a\n", "b=", "a", "", "one"),), exact_match, "\n", 8)


@pytest.mark.parametrize("engine", ["server", "auto"])
def test_the_table(small, engine):
    with StandIn() as server:
        drawn = sample(small, tiny_task(), num_samples=3, engine=engine, base_url=server.url)
    rows = drawn.table.to_pylist()
    assert {row["engine"] for row in rows} == {"server"}
    assert {row["seed"] for row in rows} == {None}
    assert [row["completion_ids"] for row in rows] == [[1, i, STOP] for i in range(3)]
    assert [row["logprob"] for row in rows] == [-1.5] * 3


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"engine": "server"}, "engine 'server' without base_url"),
        ({"engine": "transformers", "base_url": "http://h"}, "engine 'transformers' with base_url"),
        ({"engine": "vllm", "base_url": "http://h"}, "engine 'vllm' with base_url"),
    ],
)
def test_the_address_belongs_to_the_server(small, options, pattern):
    with pytest.raises(UserError, match=pattern):
        sample(small, tiny_task(), num_samples=1, **options)


# --- vLLM itself

N = 100
MODEL = "smollm2-135m"


# Ends with its command, and takes all of a server's processes along when this one has gone, however
# it went.
WATCH = """
import os, signal, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
end = lambda wait: (wait(), os.killpg(0, signal.SIGKILL))
threading.Thread(target=end, args=(server.wait,), daemon=True).start()
end(sys.stdin.buffer.read)
"""


class Served:
    """``vllm serve`` in a session of its own, as another user would run it."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        command = [sys.executable, "-c", WATCH]
        command += [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", resolve(MODEL), "--dtype", "float32", "--enforce-eager"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"]
        command += ["--block-size", "32", "--max-num-batched-tokens", "512"]
        # Defaults that bend the law, as a model folder may have them.
        bent = {"temperature": 0.2, "top_k": 2, "repetition_penalty": 1.5, "max_new_tokens": 64}
        command += ["--override-generation-config", json.dumps(bent)]
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_small_machine() | settings | dict(os.environ),
            )

    def wait(self, seconds=240):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-2000:])

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="module")
def served(vllm, tmp_path_factory):
    server = Served(tmp_path_factory.mktemp("vllm"))
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def task():
    return conventions(num_prompts=(3, 1), seed=1)


@pytest.fixture(scope="module")
def drawn(served, task):
    return sample(MODEL, task, num_samples=N, engine="server", base_url=served.url)


class TestVllm:
    """In this order: the last one ends the server."""

    def test_rewards_and_reasons_follow_from_the_tokens(self, drawn, task, smollm2):
        _, tokenizer = smollm2
        [stop] = tokenizer("\n")["input_ids"]
        answers = {prompt.id: prompt.answer for prompt in task.prompts}
        assert drawn.num_samples == N
        assert drawn.prompt_ids == list(answers)
        for row in drawn.table.to_pylist():
            *body, last = row["completion_ids"]
            assert stop not in body
            assert (row["finish_reason"] == "stop") == (last == stop)
            assert row["reward"] == (
                last == stop and tokenizer.decode(body) == answers[row["prompt_id"]]
            )
        assert 0 < drawn.rewards.mean() < 1

    def test_log_probabilities_are_those_of_the_model(self, drawn, smollm2, plain_logprob):
        model, tokenizer = smollm2
        for row in drawn.table.to_pylist()[:: N // 4]:
            prefix = encode(tokenizer, row["prompt"])
            exact = plain_logprob(model, prefix, row["completion_ids"])
            assert row["logprob"] == pytest.approx(exact, abs=1e-3)
        found = compare_laws(model, drawn, tokenizer)
        assert found.gap < 1e-4
        assert not found.differs

    def test_first_tokens_have_the_frequencies_of_the_model(self, drawn, task, smollm2):
        """The server's own temperature, 0.2, and top-k do not enter."""
        model, tokenizer = smollm2
        statistic = {"its": 0.0, "colder": 0.0}
        classes = 0
        for prompt in task.prompts:
            with torch.no_grad():
                ids = torch.tensor([encode(tokenizer, prompt.text)])
                logits = model(ids).logits[0, -1].double()
            rows = drawn.table.to_pylist()
            first = [r["completion_ids"][0] for r in rows if r["prompt_id"] == prompt.id]
            common = (N * logits.softmax(0) >= 5).nonzero()[:, 0].tolist()
            counts = np.array([*map(first.count, common), 0])
            counts[-1] = N - counts.sum()
            for name, law in (("its", logits), ("colder", logits / 0.7)):
                chances = law.softmax(0)[common].numpy()
                expected = N * np.append(chances, 1 - chances.sum())
                statistic[name] += ((counts - expected) ** 2 / expected).sum()
            classes += len(common)
        assert classes >= 6
        assert chi2.sf(statistic["its"], classes) > 1e-5
        # The test has the power to notice a temperature of 0.7.
        assert chi2.sf(statistic["colder"], classes) < 1e-5

    def test_refusals_of_the_server(self, served, task):
        long = Task("long", task.prompts, exact_match, "\n", 600)
        with pytest.raises(UserError, match="than the 512 tokens of the server's context"):
            sample(MODEL, long, num_samples=1, base_url=served.url)
        with pytest.raises(UserError, match=r"v1/v1/models does not exist \(404\)"):
            sample(MODEL, task, num_samples=1, base_url=f"{served.url}/v1/v1")
        wrong = Request(MODEL, ((10**6,),), 1, (198,), 8, base_url=served.url)
        with pytest.raises(UserError, match="answers 400: .*out of vocabulary"):
            draw(wrong)
        # Cut off by a setting of the server, which is not the cut that was asked for.
        endless = Request(MODEL, ((198,),), 4, (10,), 200, base_url=served.url)
        with pytest.raises(UserError, match="cut a completion off at 64 tokens; lower max_new"):
            draw(endless)

    def test_a_server_that_dies_ends_in_one_line(self, served, monkeypatch):
        monkeypatch.setattr(server_engine, "_RETRIES", 2)
        threading.Timer(0.5, served.kill).start()
        endless = Request(MODEL, ((198,), (198, 198)), 64, (10,), 60, base_url=served.url)

        def go_on():
            while True:
                draw(endless)

        with pytest.raises(UserError, match=re.escape(f"no answer from {served.url}/v1 (")):
            go_on()
