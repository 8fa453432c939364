"""An answer on its way from one thread to another, or to an event loop: nothing is lost, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

from costopt.errors import EngineError, GenerationCancelledError
from costopt.local.channel import Channel, StreamHandle
from costopt.local.engine import Delta

WORDS = ["one ", "two ", "three"]


def fill(channel: Channel) -> None:
    for word in WORDS:
        channel.put(Delta(word, finish_reason="stop" if word == WORDS[-1] else None))


def read(handle: StreamHandle) -> list[str]:
    return [delta.text for delta in handle]


def aread(handle: StreamHandle) -> list[str]:
    async def main() -> list[str]:
        return [delta.text async for delta in handle]

    return asyncio.run(main())


def result(handle: StreamHandle) -> list[str]:
    return [handle.result(10).text]


def aresult(handle: StreamHandle) -> list[str]:
    async def main() -> str:
        return (await handle.aresult()).text

    return [asyncio.run(main())]


@pytest.mark.parametrize("reader", [read, aread, result, aresult])
def test_every_way_of_reading_gives_all_of_it(reader: object) -> None:
    channel = Channel()
    thread = threading.Thread(target=lambda: (time.sleep(0.05), fill(channel)))
    thread.start()
    assert "".join(reader(StreamHandle(channel))) == "one two three"  # type: ignore[operator]
    thread.join()


@pytest.mark.parametrize("reader", [read, aread, result, aresult])
def test_an_error_comes_after_the_pieces_before_it(reader: object) -> None:
    channel = Channel()
    channel.put(Delta("one"))
    channel.fail(EngineError("broken"))
    channel.put(Delta("two", finish_reason="stop"))  # too late
    handle = StreamHandle(channel)
    with pytest.raises(EngineError, match="broken"):
        reader(handle)  # type: ignore[operator]
    with pytest.raises(EngineError, match="broken"):
        handle.result()


def test_a_result_can_be_asked_for_again_and_after_reading() -> None:
    channel = Channel()
    fill(channel)
    handle = StreamHandle(channel)
    assert next(iter(handle)).text == "one "
    channel = Channel()
    fill(channel)
    handle = StreamHandle(channel)
    assert read(handle) == WORDS
    assert handle.result() == handle.result()
    assert handle.result().text == "one two three"


def test_waiting_has_an_end_and_the_request_goes_on() -> None:
    channel = Channel()
    handle = StreamHandle(channel)
    with pytest.raises(TimeoutError):
        handle.result(0.01)
    fill(channel)
    assert handle.result(1).text == "one two three"


@pytest.mark.parametrize("how", ["cancel", "drop", "break", "close the iterator", "cancel the task"])
def test_whoever_leaves_early_is_noticed_once(how: str) -> None:
    told: list[str] = []
    channel = Channel(lambda: told.append("cancelled"))
    channel.put(Delta("one"))
    handle: StreamHandle | None = StreamHandle(channel)
    assert handle is not None
    if how == "cancel":
        handle.cancel()
        handle.cancel()
    elif how == "break":
        for _ in handle:
            break
    elif how == "close the iterator":
        iterator = iter(handle)
        next(iterator)
        iterator.close()  # type: ignore[attr-defined]
    elif how == "cancel the task":

        async def main() -> None:
            assert handle is not None
            task = asyncio.create_task(handle.aresult())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
    handle = None
    gc.collect()
    assert told == ["cancelled"]
    assert channel.closed


def test_reading_on_after_cancelling_says_so() -> None:
    handle = StreamHandle(Channel())
    handle.cancel()
    with pytest.raises(GenerationCancelledError):
        handle.result()


def test_a_whole_answer_cannot_be_cancelled() -> None:
    told: list[str] = []
    channel = Channel(lambda: told.append("cancelled"))
    fill(channel)
    handle = StreamHandle(channel)
    handle.cancel()
    assert handle.result().text == "one two three"
    assert told == []


def test_a_loop_that_was_closed_does_not_disturb_the_maker() -> None:
    channel = Channel()
    handle = StreamHandle(channel)

    async def give_up() -> None:
        task = asyncio.create_task(channel.atake())  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(give_up())
    fill(channel)
    assert handle.result(1).text == "one two three"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_is_told() -> None:
    handle = StreamHandle(Channel())
    child = os.fork()
    if child == 0:
        try:
            handle.result(5)
        except EngineError as error:
            os._exit(0 if "forked" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
