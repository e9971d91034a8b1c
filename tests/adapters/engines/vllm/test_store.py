from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.engines.vllm.slate import Slate
from adapters.engines.vllm.store import MixStore, Recipe
from kiki.errors import AdapterError, EngineError, EngineUnavailableError
from tests.waiting import until


class Kitchen:
    """Makes files of a wanted size; notes what was unloaded."""

    def __init__(self, folder: Path, **limits) -> None:
        self.made: list[str] = []
        self.unloaded: list[str] = []
        self.offered: list[list[str]] = []
        settings = {"budget": 1000, "mixes": 10, "patience": 5.0} | limits
        self.store = MixStore(folder, unload=self._unload, **settings)

    async def _unload(self, name: str) -> None:
        self.unloaded.append(name)

    def recipe(self, key: str, size: int = 100, prints: str = "one") -> Recipe:
        def make(path: Path, slates: Sequence[Slate]) -> Slate:
            self.made.append(key)
            self.offered.append([slate.folder.name.split(".")[0] for slate in slates])
            fitting = next((slate for slate in slates if slate.fits(size)), None)
            if fitting:
                fitting.become(path, size)
            else:
                for slate in slates:
                    slate.remove()
            slate = fitting or Slate.make(path, size)
            slate.clean = False
            return slate

        return Recipe(key * 16, key, frozenset([prints]), size, make=make)

    def slow(self, key: str, go: threading.Event, size: int = 100) -> Recipe:
        """Its making waits for ``go``."""
        plain = self.recipe(key, size)

        def make(path: Path, slates: Sequence[Slate]) -> Slate:
            path.mkdir()
            go.wait(10)
            path.rmdir()
            assert plain.make
            return plain.make(path, slates)

        return replace(plain, make=make)

    async def use(self, *keys: str, size: int = 100) -> None:
        for key in keys:
            async with self.store.hold(self.recipe(key, size)) as entry:
                assert (entry.path / "adapter_model.safetensors").is_file()


async def test_a_mix_is_made_once_and_kept(tmp_path):
    kitchen = Kitchen(tmp_path)
    await kitchen.use("a", "b", "a")
    assert kitchen.made == ["a", "b"]
    assert kitchen.store.used_bytes == 200


async def test_many_who_ask_at_once_wait_for_one_making(tmp_path):
    kitchen = Kitchen(tmp_path)
    await asyncio.gather(*(kitchen.use("a") for _ in range(20)))
    assert kitchen.made == ["a"]


async def test_the_least_recently_used_go_until_there_is_room(tmp_path):
    kitchen = Kitchen(tmp_path, budget=300)
    await kitchen.use("a", "b", "c", "a", "d")
    assert [name[0] for name in kitchen.unloaded] == ["b"]
    await kitchen.use("e", size=250)
    assert [name[0] for name in kitchen.unloaded] == ["b", "c", "a", "d"]
    assert len(list(tmp_path.iterdir())) == 1
    assert kitchen.store.used_bytes == 250


async def test_a_mix_may_take_over_the_slate_of_the_one_it_replaces(tmp_path):
    kitchen = Kitchen(tmp_path, mixes=2)
    await kitchen.use("a", "b", "c", "d")
    assert kitchen.offered == [[], [], ["a" * 12], ["b" * 12]]
    assert [name[0] for name in kitchen.unloaded] == ["a", "b"]
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["c", "d"]


async def test_of_several_that_are_replaced_one_slate_is_taken_over_and_the_others_go(tmp_path):
    kitchen = Kitchen(tmp_path, budget=300)
    await kitchen.use("a", size=50)
    await kitchen.use("b", size=200)
    await kitchen.use("c", size=200)
    await kitchen.store.settled()
    assert kitchen.offered[-1] == ["a" * 12, "b" * 12]
    assert [path.name[0] for path in tmp_path.iterdir()] == ["c"]
    await kitchen.use("d", size=250)
    await kitchen.store.settled()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["d"]


async def test_nobody_is_left_with_a_folder_that_was_overwritten_in_part(tmp_path):
    kitchen = Kitchen(tmp_path, mixes=1)
    await kitchen.use("a")

    def fail(path: Path, slates: Sequence[Slate]) -> Slate:
        slates[0].become(path, 100)
        raise AdapterError("its file is gone.")

    with pytest.raises(EngineError, match="its file is gone"):
        await hold(kitchen.store, replace(kitchen.recipe("b"), make=fail))
    assert list(tmp_path.iterdir()) == []
    await kitchen.use("a", "b")
    assert kitchen.made == ["a", "a", "b"]


async def test_a_mix_in_use_is_never_taken_over(tmp_path):
    kitchen = Kitchen(tmp_path, mixes=2)
    async with kitchen.store.hold(kitchen.recipe("a")) as held:
        await kitchen.use("b", "c")
        assert held.path.is_dir()
    assert kitchen.offered == [[], [], ["b" * 12]]


async def test_a_mix_that_comes_back_has_another_name(tmp_path):
    """Servers may hold caches under the old one."""
    kitchen = Kitchen(tmp_path, mixes=1)
    names = []
    for key in ("a", "b", "a"):
        async with kitchen.store.hold(kitchen.recipe(key)) as entry:
            names.append(entry.name)
    assert len(set(names)) == 3


async def test_nothing_in_use_is_taken_away_and_who_waits_too_long_is_told(tmp_path):
    kitchen = Kitchen(tmp_path, mixes=1, patience=0.05)
    async with kitchen.store.hold(kitchen.recipe("a")) as held:
        with pytest.raises(EngineUnavailableError, match="no room for the mix b"):
            await kitchen.use("b")
        assert held.path.is_dir()
    await kitchen.use("b")
    assert not held.path.exists()


async def test_a_failure_is_told_to_all_who_waited_and_the_next_one_tries_again(tmp_path):
    kitchen = Kitchen(tmp_path)

    def fail(path: Path, slates: Sequence[Slate]) -> Slate:
        path.mkdir()
        raise AdapterError("its file is gone.")

    recipe = Recipe("a" * 16, "a", frozenset(), 100, make=fail)

    async def hold() -> None:
        async with kitchen.store.hold(recipe):
            raise AssertionError("it can't be held")

    failures = await asyncio.gather(*(hold() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(failure, EngineError) for failure in failures)
    assert "could not be composed: its file is gone" in str(failures[0])
    assert list(tmp_path.iterdir()) == []
    await kitchen.use("a")
    assert kitchen.store.used_bytes == 100


async def test_a_retired_mix_goes_when_its_last_user_does(tmp_path):
    kitchen = Kitchen(tmp_path)
    await kitchen.use("b")
    async with kitchen.store.hold(kitchen.recipe("a")) as held:
        kitchen.store.retire(frozenset(["two"]))
        async with kitchen.store.hold(kitchen.recipe("a")):
            pass
        assert held.path.is_dir()
    await kitchen.store.close()
    assert list(tmp_path.iterdir()) == []
    assert sorted(name[0] for name in kitchen.unloaded) == ["a", "b"]


async def test_an_adapters_own_folder_is_never_deleted(tmp_path):
    (tmp_path / "own").mkdir()
    kitchen = Kitchen(tmp_path)
    recipe = Recipe("a" * 16, "a", frozenset(["one"]), folder=tmp_path / "own")
    async with kitchen.store.hold(recipe) as entry:
        assert entry.path == tmp_path / "own"
    kitchen.store.retire(frozenset())
    await kitchen.store.close()
    assert kitchen.unloaded == [entry.name]
    assert (tmp_path / "own").is_dir()


async def hold(store: MixStore, recipe: Recipe) -> None:
    async with store.hold(recipe):
        pass


async def test_who_waits_for_room_gets_that_of_a_mix_that_nobody_wants_any_more(tmp_path):
    kitchen = Kitchen(tmp_path, mixes=1, patience=20.0)
    go = threading.Event()
    leaver = asyncio.create_task(hold(kitchen.store, kitchen.slow("a", go)))
    await until((tmp_path / ("a" * 12 + ".1")).is_dir)
    waiter = asyncio.create_task(kitchen.use("b"))
    await until(lambda: kitchen.store.waiting == 1)
    leaver.cancel()
    await asyncio.wait([leaver])
    await until(lambda: kitchen.store.waiting == 1)
    go.set()
    async with asyncio.timeout(10):
        await waiter
    assert kitchen.made == ["a", "b"]


async def test_a_mix_retired_while_it_is_written_leaves_nothing_behind(tmp_path):
    kitchen = Kitchen(tmp_path)
    go = threading.Event()
    leaver = asyncio.create_task(hold(kitchen.store, kitchen.slow("a", go)))
    await until(lambda: any(tmp_path.iterdir()))
    kitchen.store.retire(frozenset())
    leaver.cancel()
    await asyncio.wait([leaver])
    go.set()
    await kitchen.store.close()
    assert kitchen.made == ["a"]
    assert list(tmp_path.iterdir()) == []
    assert kitchen.store.used_bytes == 0


async def test_one_who_leaves_does_not_stop_the_making_for_the_others(tmp_path):
    kitchen = Kitchen(tmp_path)
    go = threading.Event()
    burst = [asyncio.create_task(hold(kitchen.store, kitchen.slow("a", go))) for _ in range(5)]
    await until(lambda: any(tmp_path.iterdir()))
    burst[0].cancel()
    await asyncio.wait(burst[:1])
    go.set()
    await asyncio.gather(*burst[1:])
    assert kitchen.made == ["a"]


async def test_a_fault_in_the_making_does_not_spoil_the_mix_for_good(tmp_path):
    kitchen = Kitchen(tmp_path)

    def fail(path: Path, slates: Sequence[Slate]) -> Slate:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="of ours"):
        await hold(kitchen.store, replace(kitchen.recipe("a"), make=fail))
    await kitchen.use("a")
    assert kitchen.made == ["a"]


async def test_a_spare_is_made_ahead_and_again_once_it_was_taken(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.store.keep_spare(150)
    await kitchen.store.settled()
    assert [path.name for path in tmp_path.iterdir()] == ["spare.1"]
    assert kitchen.store.used_bytes == 0
    await kitchen.use("a")
    await kitchen.store.settled()
    assert kitchen.offered == [["spare"]]
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "s"]
    kitchen.store.keep_spare(0)
    await kitchen.store.settled()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["a"]


async def test_a_spare_that_a_mix_was_too_big_for_is_made_anew(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.store.keep_spare(50)
    await kitchen.store.settled()
    await kitchen.use("a")
    await kitchen.store.settled()
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "s"]


async def test_a_spare_never_takes_the_room_of_a_mix(tmp_path):
    kitchen = Kitchen(tmp_path, budget=300)
    kitchen.store.keep_spare(100)
    await kitchen.use("a", "b", "c")
    await kitchen.store.settled()
    assert kitchen.unloaded == []
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "b", "c"]


async def test_who_needs_the_room_of_a_spare_that_is_being_made_waits_for_it(tmp_path):
    kitchen = Kitchen(tmp_path, budget=100)
    kitchen.store.keep_spare(100)
    await kitchen.use("a")
    assert kitchen.offered == [["spare"]]
    await kitchen.store.settled()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["a"]


async def test_a_spare_that_was_not_needed_stays(tmp_path):
    kitchen = Kitchen(tmp_path, mixes=1)
    kitchen.store.keep_spare(100)
    await kitchen.store.settled()
    await kitchen.use("a")
    await kitchen.store.settled()
    await kitchen.use("b")
    await kitchen.store.settled()
    assert kitchen.offered == [["spare"], ["a" * 12, "spare"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b" * 12 + ".4", "spare.3"]


async def test_a_full_disk_leaves_mixes_without_a_spare(tmp_path, monkeypatch):
    kitchen = Kitchen(tmp_path)

    def full(folder: Path, size: int) -> Slate:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Slate, "make", full)
        kitchen.store.keep_spare(100)
        await kitchen.store.settled()
    await kitchen.use("a")
    assert kitchen.offered == [[]]
