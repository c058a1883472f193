"""The model: a T5 backbone and the modalities whose vectors enter its byte embeddings."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.answer_arguments import search_arguments
from kebyt5_xm.model.answering import Answering, AnswerOptions
from kebyt5_xm.model.delete_gate import states_and_mask
from kebyt5_xm.model.infilling import Filled, Gaps
from kebyt5_xm.model.labels import LabelScorer
from kebyt5_xm.model.processor import Processed, Segments
from kebyt5_xm.model.saved_model import SavedModel
from kebyt5_xm.model.transcription.cutting import AUDIO, WINDOW_SECONDS, Cutting
from kebyt5_xm.model.transcription.transcriber import Transcriber
from kebyt5_xm.model.transcription.transcript import Transcript

if TYPE_CHECKING:
    from kebyt5_xm.metrics.metric import Metric


class CrossModalT5(SavedModel):
    """The model that people load: a `SavedModel` that answers."""

    def answer(
        self,
        segments: Segments | Sequence[Segments] | Processed,
        *,
        n: int = 1,
        temperature: float | None = None,
        num_beams: int | None = None,
        labels: Sequence[str] | None = None,
        stream: bool = False,
        choose: "Metric | None" = None,
        details: bool = False,
        valid_utf8: bool = True,
        stop_loops: bool = True,
        **generate_kwargs: Any,
    ) -> Any:
        """Return what the model writes for a list of segments, or a list of that for a batch of such lists.

        Args:
            segments: as `CrossModalProcessor` takes them, or the batch that it made of them. With `Gaps` among them
                the answer is the text whose gaps `fill` has filled.
            n: answers to each input, as a list with the best first: samples if there is a temperature, else those of
                as many beams or more.
            temperature: above 0 samples; 0 is greedy. The model's own generation config decides by default.
            num_beams: searches with so many beams.
            labels: the answer is the most probable of these (see `classify`).
            stream: returns an `AnswerStream` of pieces of text instead.
            choose: a metric of `kebyt5_xm.metrics`; of the n answers, that most like the others is returned.
            details: returns a `Hypothesis` (probabilities, words, why it ended) for each text.
            valid_utf8: nothing but valid UTF-8 can be written, in whole characters up to the longest length. False
                for a model that fills in removed spans, which begin and end inside characters.
            stop_loops: ends an answer that repeats one phrase; not with beams.
            generate_kwargs: other arguments of `generate`; `max_new_tokens` is 256 bytes by default. Those in
                `kebyt5_xm.model.decoding.arguments.DEFAULTS` are decoded here, several times as fast; any other
                leaves the whole call to transformers. `generator`, a torch.Generator, seeds sampling.

        A single greedy answer on a CPU is written several bytes at a time where these can be guessed; see
        `kebyt5_xm.model.decoding.drafting`.

        Raises `UserError` as the processor and `classify` do, and for arguments that exclude each other.
        """
        is_batch = self._is_batch(segments)
        if any(Gaps.among(row) for row in self._rows(segments)):
            if labels is not None or stream or details or choose is not None:
                raise UserError(
                    "found gaps with labels, stream, details or choose, expected gaps alone; fill(segments) gives "
                    "the spans with their probabilities"
                )
            filled = self.fill(segments, n=n, temperature=temperature, num_beams=num_beams, **generate_kwargs)
            return _texts(filled)
        arguments = search_arguments(self.generation_config, n, temperature, num_beams, generate_kwargs)
        if labels is not None:
            if n > 1 or stream or details or choose is not None or temperature or (num_beams or 1) > 1:
                raise UserError(
                    "found labels with n, temperature, num_beams, stream, choose or details, expected labels alone: "
                    "they are scored, not searched; classify(segments, labels) gives their probabilities"
                )
            found = self.classify(segments, labels)
            best = [
                max(p, key=lambda label: p[label]) for p in (found if isinstance(found, list) else [found])
            ]
            return best if is_batch else best[0]
        options = AnswerOptions(n, choose, details, valid_utf8, stop_loops, stream)
        answering = Answering(self, self._inputs(segments), arguments, options)
        if stream:
            return answering.stream(is_batch)
        answers = answering.answers()
        return answers if is_batch else answers[0]

    def fill(
        self,
        segments: Segments | Sequence[Segments] | Processed,
        *,
        n: int = 1,
        temperature: float | None = None,
        num_beams: int | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Return the `Filled` text of a `Gaps`, alone or among other segments; a list of them for a batch.

        The model must have been trained by span denoising. The arguments are those of `answer`; for n > 1 each text
        is a list, the best first. The rule of UTF-8 is off, since removed spans may begin inside characters. Raises
        `UserError` as `answer` does, for an example without gaps (also for inputs that are prepared already), and
        for more gaps than there are sentinels.
        """
        is_batch, rows = self._is_batch(segments), self._rows(segments)
        gaps = [found for row in rows if (found := Gaps.among(row))]
        if not rows or len(gaps) < len(rows):
            raise UserError(
                "found an example without gaps, expected Gaps(['before ', ' after']) in each, or answer(segments)"
            )
        arguments = search_arguments(self.generation_config, n, temperature, num_beams, generate_kwargs)
        options = AnswerOptions(n, details=True, valid_utf8=False)
        answers = Answering(self, self._inputs(segments), arguments, options).answers()
        sentinels = self.processor.sentinels
        filled = [
            [Filled.of(own, answer, sentinels) for answer in found]
            if isinstance(found, list)
            else Filled.of(own, found, sentinels)
            for own, found in zip(gaps, answers, strict=True)
        ]
        return filled if is_batch else filled[0]

    def classify(
        self, segments: Segments | Sequence[Segments] | Processed, labels: Sequence[str]
    ) -> dict[str, float] | list[dict[str, float]]:
        """Return the probability of each label for a list of segments, or for each of a batch of such lists.

        It is the probability that the model writes the label, given that it writes one of `labels`. Raises
        `UserError` for fewer than two labels, an empty one, or one given twice.
        """
        scorer = LabelScorer(labels)
        with torch.no_grad():
            inputs = self._inputs(segments)
            states, mask = states_and_mask(self.encode(**inputs), inputs["attention_mask"])
            rows = scorer.log_probabilities(self, states, mask).exp().tolist()
        probabilities = [dict(zip(scorer.labels, row, strict=True)) for row in rows]
        return probabilities if self._is_batch(segments) else probabilities[0]

    def transcribe(
        self,
        recording: Any,
        prompt: str = AUDIO,
        *,
        window_seconds: float = WINDOW_SECONDS,
        overlap_seconds: float | None = None,
        batch_size: int = 8,
        progress: Callable[[float], object] | None = None,
        **search: Any,
    ) -> Transcript:
        """Return what is said in a recording of any length, with the times of words.

        Args:
            recording: a path, a file's bytes, or (waveform, sample rate).
            prompt: as in training, with one place for the recording: "{audio} ko:" or "{audio:speech} ko:".
            window_seconds: longest window; at most the longest recordings of training, or the model is asked for
                what it has not learned.
            overlap_seconds: what two windows have in common if no silence parts them; a fifth of a window by default.
            batch_size: windows that are answered together.
            progress: is told how many seconds are done.
            search: arguments of `answer`. `max_new_tokens`, of a window, is 40 for each second by default.

        Raises `UserError`, and `MediaError` for a recording that cannot be read.
        """
        cutting = Cutting(window_seconds, overlap_seconds)
        return Transcriber(self, prompt, cutting, batch_size, search)(recording, progress)

    def _is_batch(self, segments: Segments | Sequence[Segments] | Processed) -> bool:
        return isinstance(segments, Processed) or self.processor.is_batch(segments)

    def _rows(self, segments: Segments | Sequence[Segments] | Processed) -> list[Any]:
        """Return the examples; none of inputs that are prepared already."""
        if isinstance(segments, Processed):
            return []
        return self.processor.rows(segments)

    def _inputs(self, segments: Segments | Sequence[Segments] | Processed) -> Processed:
        inputs = segments if isinstance(segments, Processed) else self.processor(segments)
        return inputs.to(self.backbone.shared.weight.device)


def _texts(filled: Any) -> Any:
    """Return the texts of `Filled`, in the same lists."""
    return [_texts(each) for each in filled] if isinstance(filled, list) else filled.text
