"""The picture ahead of the commit: first steps are taken early and shown only if they hold."""

from __future__ import annotations

from pipelines.errors import Exhausted
from pipelines.messages import Cancel, FinishReason, ImageRequest, Promote, TextRequest
from tests.fakes import IMAGE, STOP, picture, tokens
from tests.server.session_bench import DONE, answering, last, said, typed


def test_an_image_begun_ahead_goes_on_at_the_commit() -> None:
    on = answering("completeness", image=IMAGE)
    typed(on, "A red ball.")
    (early,) = on.link.submitted(ImageRequest)
    assert (early.committed, early.credits) == (False, 1)
    on.link.emit(early.job_id, picture(False, 4), picture(True))
    assert on.events() == []
    on.session.commit(None)
    assert Promote(early.job_id) in on.link.sent
    assert len(on.events()) == 2
    assert len(on.link.submitted(ImageRequest)) == 1


def test_an_image_begun_ahead_of_other_words_is_thrown_away() -> None:
    on = answering("completeness", image=IMAGE)
    typed(on, "A red ball.")
    (early,) = on.link.submitted(ImageRequest)
    on.link.emit(early.job_id, picture(False, 4))
    on.session.append(" And a box.")
    on.session.commit(None)
    assert on.events() == []
    assert Cancel(early.job_id) in on.link.sent
    assert on.link.submitted(ImageRequest)[1].request == ImageRequest("A red ball. And a box.")


def test_the_models_caption_is_drawn_ahead() -> None:
    on = answering(image=IMAGE, draw_on_request=True)
    typed(on, "Please draw ")
    text = on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("Here: <draw>a ball</draw>", 1))
    on.events()
    (early,) = on.link.submitted(ImageRequest)
    assert (early.request, early.committed) == (ImageRequest("a ball"), False)
    on.session.append("it")
    on.session.commit(None)
    on.link.emit(text, *tokens("Here: <draw>a ball</draw>", 2), DONE)
    assert said(on.events()) == "Here: "
    assert Promote(early.job_id) in on.link.sent


def test_a_caption_that_is_not_asked_for_after_all_is_not_drawn() -> None:
    on = answering(image=IMAGE, draw_on_request=True)
    typed(on, "Please draw ")
    text = on.link.submitted(TextRequest)[0].job_id
    on.link.emit(text, *tokens("<draw>a ball</draw>", 1))
    on.events()
    on.session.append("no more")
    on.session.commit(None)
    on.link.emit(text, *tokens("Fine.", 2), DONE)
    assert last(on.events()).reason is STOP
    assert Cancel(on.link.submitted(ImageRequest)[0].job_id) in on.link.sent


def test_an_image_begun_ahead_that_finds_no_place_at_the_commit_ends_the_turn() -> None:
    on = answering("completeness", jobs=1, image=IMAGE)
    typed(on, "A red ball.")
    text, early = on.link.submitted(TextRequest)[0].job_id, on.link.submitted(ImageRequest)[0].job_id
    on.admission.job(IMAGE.name, "local")
    on.session.commit(None)
    on.link.emit(text, *tokens("Here.", 1), DONE)
    done = last(on.events())
    assert (done.reason, type(done.error)) == (FinishReason.FAILED, Exhausted)
    assert Cancel(early) in on.link.sent
