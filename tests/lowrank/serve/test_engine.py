"""The engine: texts at once, each as it is alone; a bounded queue; what is given up frees its place."""

import queue
from collections.abc import Callable
from typing import Any

import pytest
from served import WAIT, Endless

from lowrank.adapters import using_adapter
from lowrank.kernels.cpu import library
from lowrank.layers.cpu_decode import FusedBlocks
from lowrank.layers.prefix_cache import CHUNK, PrefixCache
from lowrank.model.continuous_batch import bytes_a_position
from lowrank.model.generate import complete
from lowrank.model.llama import Llama
from lowrank.serve import engine as engine_module
from lowrank.serve.engine import ClosedError, Engine, Event, Failed, Finished, Piece, QueueFullError, Stopped, Text
from lowrank.serve.shelf import Shelf

Ends = Finished | Failed | Stopped


class Ear:
    """Hears of one text."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.written, self.pieces = "", 0

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def end(self) -> Ends:
        """The end, once it is there."""
        while isinstance(event := self.events.get(timeout=WAIT), Piece):
            self.written += event.text
            self.pieces += 1
        return event


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_texts_in_different_hats_at_once_are_what_each_is_alone(
    shelf: Shelf, make_text: Callable[..., Text], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(engine_module, "PIECE_SECONDS", seconds)
    together: list[int] = []
    joined = FusedBlocks.logits_of_rows
    monkeypatch.setattr(
        FusedBlocks,
        "logits_of_rows",
        lambda blocks, model, texts: (together.append(len(texts)), joined(blocks, model, texts))[1],
    )
    adapters = [None, "red", "blue", "red", "blue", None]
    ears = [Ear() for _ in adapters]
    sampling = [{"temperature": 1.0, "seed": seed} for seed in range(6)]
    asked = list(zip(adapters, ears, sampling, strict=True))
    engine = Engine(active=4, waiting=2)
    engine.submit([make_text(one, ear, sampling=how, logprobs=1) for one, ear, how in asked])
    base = shelf.bases[0]
    for adapter, ear, how in asked:
        end = ear.end()
        assert isinstance(end, Finished)
        with using_adapter(base.model, adapter):
            alone: Any = complete(
                base.model,
                base.tokenizer,
                "The balance sheet",
                max_new_tokens=20,
                prefixes=PrefixCache(),
                logprobs=1,
                **how,  # type: ignore[arg-type]
            )
        assert end.completion == alone[0]
        assert ear.written == alone[0].text
        assert seconds == 0.0 or ear.pieces <= 2  # the first, and the rest of it
    engine.close()
    assert library.unavailable_reason() or max(together) == 4


@pytest.mark.slow
def test_a_prompt_that_goes_on_with_one_before_reads_the_rest_and_is_what_it_is_alone(
    engine: Engine, make_text: Callable[..., Text]
) -> None:
    ears, long = [Ear() for _ in range(3)], list(range(3, 3 + CHUNK)) * 2
    for ear, prompt in zip(ears, (long, [*long, 5, 6], [*long, 5, 6]), strict=True):
        engine.submit([make_text("red", ear, prompt=prompt)])
        assert isinstance(ear.end(), Finished)
    (batch,) = engine._batches.values()
    prefixes = batch.prefixes
    assert isinstance(prefixes, PrefixCache)
    assert (prefixes.tokens_read, prefixes.tokens_taken) == (2 * CHUNK + 2 + 2, 4 * CHUNK)
    fresh, ear = Engine(), Ear()
    fresh.submit([make_text("red", ear, prompt=[*long, 5, 6])])
    assert isinstance(ear.end(), Finished) and ear.written == ears[1].written == ears[2].written
    fresh.close()


def test_the_queue_takes_all_of_a_request_or_nothing(
    engine: Engine, make_text: Callable[..., Text], endless: Endless
) -> None:
    ears = [Ear() for _ in range(4)]
    texts = [make_text(None, ear, constraint=endless) for ear in ears]
    engine.submit(texts[:3])
    with pytest.raises(QueueFullError, match=r"^too many texts are waiting: try again in \d+ s$") as full:
        engine.submit([make_text(None, Ear()), make_text(None, Ear())])
    assert 1 <= full.value.retry_after <= 60
    engine.submit(texts[3:])
    with pytest.raises(QueueFullError):
        engine.submit([make_text(None, Ear())])
    engine.cancel([texts[3]])
    assert ears[3].end() == Stopped()
    late = Ear()
    engine.submit([make_text(None, late)])
    engine.cancel(texts)
    endless.may_go_on.set()
    assert isinstance(late.end(), Finished)
    assert [ear.end() for ear in ears[:3]] == [Stopped()] * 3
    assert endless.tokens <= 4  # what is given up is not written to its end


def test_a_text_that_fails_is_told_and_the_next_is_written(
    engine: Engine, make_text: Callable[..., Text], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Endless):
        def is_allowed(self, token: int) -> bool:
            raise LookupError("a secret of the prompt")

    ears = [Ear(), Ear(), Ear()]
    engine.submit([make_text(None, ears[0], constraint=Broken((), 1))])
    assert ears[0].end() == Failed("the text could not be finished (LookupError)")
    assert "test_engine.py" in caplog.text and "secret" not in caplog.text
    engine.submit([make_text(None, ears[1], stop=("",))])
    assert ears[1].end() == Failed("stop: a text that ends a row must have a character", is_mistake=True)
    engine.submit([make_text(None, ears[2])])
    assert isinstance(ears[2].end(), Finished)


def test_a_text_that_fails_ends_none_of_those_beside_it(engine: Engine, make_text: Callable[..., Text]) -> None:
    class Broken(Endless):
        def take(self, token: int) -> None:
            raise KeyError("a secret of the prompt")

    broken = Broken((), 1)
    broken.may_go_on.set()
    ears = [Ear(), Ear()]
    engine.submit([make_text("red", ears[0]), make_text("blue", ears[1], constraint=broken)])
    assert ears[1].end() == Failed("the text could not be finished (KeyError)")
    assert isinstance(ears[0].end(), Finished)


@pytest.mark.skipif(bool(library.unavailable_reason()), reason="the library was not built")
def test_an_error_of_a_step_fails_its_texts_and_the_next_are_written(
    engine: Engine, make_text: Callable[..., Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(blocks: FusedBlocks, model: Llama, texts: Any) -> Any:
        raise MemoryError

    ears = [Ear(), Ear(), Ear()]
    with monkeypatch.context() as patch:
        patch.setattr(FusedBlocks, "logits_of_rows", broken)
        engine.submit([make_text("red", ear) for ear in ears[:2]])
        assert [ear.end() for ear in ears[:2]] == [Failed("the text could not be finished (MemoryError)")] * 2
    engine.submit([make_text("red", ears[2])])
    assert isinstance(ears[2].end(), Finished)


def test_a_text_that_needs_more_memory_than_there_is_is_refused_and_others_wait_for_it(
    shelf: Shelf, make_text: Callable[..., Text]
) -> None:
    model = shelf.bases[0].model
    ears = [Ear() for _ in range(4)]
    text = make_text(None, ears[0])
    positions = len(text.request.prompt) + text.request.max_new_tokens
    engine = Engine(active=4, waiting=0, cache_bytes=positions * bytes_a_position(model))
    engine.submit([text, *(make_text("red", ear) for ear in ears[1:3]), make_text("red", ears[3], max_new_tokens=21)])
    assert all(isinstance(ear.end(), Finished) for ear in ears[:3])
    refused = ears[3].end()
    assert isinstance(refused, Failed) and refused.is_mistake and "of keys and values" in refused.reason
    engine.close()


def test_an_engine_that_is_closed_gives_everything_up_and_takes_nothing(
    make_text: Callable[..., Text], endless: Endless
) -> None:
    engine = Engine(active=1, waiting=1)
    ears = [Ear(), Ear()]
    engine.submit([make_text(None, ear, constraint=endless) for ear in ears])
    endless.may_go_on.set()
    engine.close()
    assert [ear.end() for ear in ears] == [Stopped(), Stopped()]
    with pytest.raises(ClosedError):
        engine.submit([make_text(None, Ear())])


def test_an_engine_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="must write 1 to 64 texts"):
        Engine(active=0)
