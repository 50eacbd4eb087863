"""pocketsphinx behind a small face: one utterance at a time, the same words whatever it heard before."""

from __future__ import annotations

from pocketsphinx import Decoder, set_loglevel

SAMPLE_RATE = 16_000
ACTIVE_STATES_PER_FRAME = 2500


class Recogniser:
    """General English by pocketsphinx's own acoustic and language model (BSD). Owner: one thread.

    The second and third passes are off and the beam is bounded, so that 30 ms of audio cost at most about
    15 ms of CPU time, whatever is said; the bound also made fewer errors on the clips it was tried on.
    Loading takes a second and 90 MB.
    """

    def __init__(self) -> None:
        set_loglevel("FATAL")
        self._decoder = Decoder(
            samprate=SAMPLE_RATE, fwdflat=False, bestpath=False, maxhmmpf=ACTIVE_STATES_PER_FRAME
        )
        self._fresh_means: str = self._decoder.get_cmn(False)
        self._open = False

    def start(self) -> None:
        """A new utterance."""
        self._decoder.start_utt()
        self._open = True

    def feed(self, pcm16: bytes) -> None:
        """More of the utterance, 16 kHz; about 30 ms at a time keep the promised delay."""
        if pcm16:
            self._decoder.process_raw(pcm16)

    def text(self) -> str:
        """The best words so far."""
        hypothesis = self._decoder.hyp()
        return str(hypothesis.hypstr) if hypothesis is not None else ""

    def finish(self) -> str:
        """The utterance has ended; returns its words."""
        self._decoder.end_utt()
        self._open = False
        return self.text()

    def reset(self) -> None:
        """Forget the speaker and the room: the next utterance is heard as if it were the first."""
        if self._open:
            self.finish()
        self._decoder.reinit_feat()
        self._decoder.set_cmn(self._fresh_means)
