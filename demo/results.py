"""`runs/demo/results.json`: the demo's figures, written anew after every stage."""

import datetime
import json
from dataclasses import dataclass, field
from typing import Any

from demo.folder import RESULTS


@dataclass
class Results:
    """The figures of one demo. Keys of the file:

    date                     day on which the demo ran, ISO 8601
    seconds                  from its start until this file was written; `imports` of them went into imports
    text                     the stage of text pretraining:
      run, export            its folders
      steps                  optimizer steps trained, of `global_batch_size` chunks of `chunk_bytes` raw bytes
      parameters             of the model
      bytes_per_second       input and target ids trained on in a second
      hardware               processor and threads
      step                   the step of the exported checkpoint, whose figures these are
      bits_per_byte          of the removed spans of all held-out text; `bits_per_byte_before` at step 0
      languages.LANGUAGE     (ko, en, zh, ja) `train_documents`, `train_bytes`, `heldout_documents`,
                             `heldout_bytes`; `bits_per_byte` and `bits_per_byte_before` of its held-out
                             text; `uniform`, `unigram`, `bigram`: the entropies of the same held-out bytes
      restored[]             gaps in held-out lines that the export was asked to fill: `language`, `before`,
                             `after` (the text around the gap), `wrote` (by the model) and `was` (there)
      seconds.PART           wall-clock time of `prepare`, `train` (validations included), `export`, `restore`
    image                    the stage of digits beside text: `run`, `steps`, `seconds.PART` (`data`, `train`,
                             `export`, `evaluate`), and the held-out images as below
    joint                    the stage of spoken numbers beside both: `run`, `export`, `steps`, `seconds`;
      bits_per_byte.LANGUAGE         of held-out text after it; `bits_per_byte_before` after the text stage
      image, speech                  the held-out images and recordings:
        items                        how many
        exact_match                  share that the model wrote exactly, greedily
        character_error_rate         edits a character of the right answer
        ignoring                     the same two of the best answer to each language that ignores the medium:
                                     the most frequent one, and the one with the fewest edits
        languages.LANGUAGE           the same three of one language
        examples[]                   `language`, `file`, `wrote` (by the model), `was`
    """

    figures: dict[str, Any] = field(
        default_factory=lambda: {"date": datetime.date.today().isoformat(), "seconds": 0.0, "imports": 0.0}
    )

    def write(self, seconds: float, imports: float) -> None:
        """Write the file as far as the demo has come."""
        self.figures |= {"seconds": round(seconds, 1), "imports": round(imports, 1)}
        text = json.dumps(self.figures, indent=2, ensure_ascii=False)
        RESULTS.write_text(text + "\n", encoding="utf-8")
