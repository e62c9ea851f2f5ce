"""The engine: texts in turns, each as it is alone; a bounded queue; what is given up frees its place."""

import queue
from collections.abc import Callable
from typing import Any

import pytest
from served import WAIT, Endless

from lowrank.adapters import using_adapter
from lowrank.layers.prefix_cache import CHUNK
from lowrank.model.generate import complete
from lowrank.serve import engine as engine_module
from lowrank.serve.engine import ClosedError, Engine, Event, Failed, Finished, Piece, QueueFullError, Stopped, Text
from lowrank.serve.shelf import Shelf

Ends = Finished | Failed | Stopped


class Ear:
    """Hears of one text."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.written = ""

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def end(self) -> Ends:
        """The end, once it is there."""
        while isinstance(event := self.events.get(timeout=WAIT), Piece):
            self.written += event.text
        return event


@pytest.mark.parametrize("turn", [1, 8])
def test_texts_in_different_hats_at_once_are_what_each_is_alone(
    shelf: Shelf, engine: Engine, make_text: Callable[..., Text], monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    monkeypatch.setattr(engine_module, "TURN_TOKENS", turn)
    adapters = [None, "red", "blue", "red"]
    ears = [Ear() for _ in adapters]
    sampling = [{"temperature": 1.0, "seed": seed} for seed in range(4)]
    engine.submit([make_text(one, ear, sampling=how) for one, ear, how in zip(adapters, ears, sampling, strict=True)])
    base = shelf.bases[0]
    for adapter, ear, how in zip(adapters, ears, sampling, strict=True):
        end = ear.end()
        assert isinstance(end, Finished)
        with using_adapter(base.model, adapter):
            alone: Any = complete(base.model, base.tokenizer, "The balance sheet", max_new_tokens=20, **how)  # type: ignore[arg-type]
        assert end.completion == alone[0]
        assert ear.written == alone[0].text


def test_a_prompt_that_goes_on_with_one_before_reads_the_rest_and_is_what_it_is_alone(
    engine: Engine, make_text: Callable[..., Text]
) -> None:
    ears, long = [Ear() for _ in range(3)], list(range(3, 3 + CHUNK)) * 2
    for ear, prompt in zip(ears, (long, [*long, 5, 6], [*long, 5, 6]), strict=True):
        engine.submit([make_text("red", ear, prompt=prompt)])
        assert isinstance(ear.end(), Finished)
    (prefixes,) = engine._prefixes.values()
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
        def allows(self, token: int) -> bool:
            raise LookupError("a secret of the prompt")

    ears = [Ear(), Ear(), Ear()]
    engine.submit([make_text(None, ears[0], constraint=Broken((), 1))])
    assert ears[0].end() == Failed("the text could not be finished (LookupError)")
    assert "test_engine.py" in caplog.text and "secret" not in caplog.text
    engine.submit([make_text(None, ears[1], stop=("",))])
    assert ears[1].end() == Failed("stop: a text that ends a row must have a character")
    engine.submit([make_text(None, ears[2])])
    assert isinstance(ears[2].end(), Finished)


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
    with pytest.raises(ValueError, match="must write 1 text or more"):
        Engine(active=0)
