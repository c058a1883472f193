"""The threshold of confidence from held-out answers, and what it lets expect."""

import argparse
import sys

from kebyt5_xm.commands.prompt import unescape
from kebyt5_xm.commands.select.answers import Answers, read_text
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.evaluation.selection import Judged, Selection, at_threshold, best_reachable, select
from kebyt5_xm.metrics import Answer, CharacterErrorRate, ExactMatch
from kebyt5_xm.metrics.normalization import compose_unicode


def choose_threshold(answers: Answers, args: argparse.Namespace) -> Selection:
    """Return the selection of --precision or --threshold on the rows of --held-out.

    Raises `UserError` if the answers are of another model or prompt, if a right answer is none of the labels, or if
    no threshold reaches the precision.
    """
    held_out = Answers(args.held_out, args.prefix, args.label)
    _check_same(answers, held_out)
    target = Template(unescape(args.target))
    target.check(held_out.rows.columns, ())
    judged: list[Judged] = []
    for number, line in enumerate(held_out):
        try:
            right = read_text(target.render(line.row))
        except BadSample as error:
            raise held_out.rows.error(number, error.cause) from error
        if held_out.labels and compose_unicode(right.strip()) not in held_out.labels:
            raise UserError(
                f"line {held_out.rows.line(number)} of '{args.held_out}' has the right answer '{right[:80]}', "
                f"expected one of the labels {', '.join(args.label)}{did_you_mean(right, args.label)}"
            )
        if line.is_usable:
            judged.append(Judged(line.confidence, is_right(line.answer, right, args.max_error_rate)))
    if not judged:
        raise UserError(
            f"found no whole answer in '{args.held_out}', expected some: raise --max-new-tokens of `kebyt5-xm teach`"
        )
    if args.precision is None:
        return at_threshold(judged, args.threshold)
    found = select(judged, args.precision)
    if found is None:
        best = best_reachable(judged)
        raise UserError(
            f"no threshold reaches --precision {args.precision:g} on the {len(judged)} held-out answers; the best is "
            f"{best.kept.value:.3f}, of {best.kept.total} answers at {best.threshold:.4f}; ask for less, or allow "
            "--max-error-rate"
        )
    return found


def is_right(answer: str, right: str, max_error_rate: float) -> bool:
    """Return whether an answer has at most so many edits per character of the right one; 0 means `ExactMatch`."""
    judged = Answer(answer, (right,), {})
    if not max_error_rate:
        return bool(ExactMatch().figure(judged))
    return bool(CharacterErrorRate()([judged]) <= max_error_rate)


def describe(selection: Selection) -> str:
    """Return what held-out answers let expect, in two lines."""
    kept, expected = selection.kept, selection.expected
    low, high = expected.interval
    value = f"{expected.value:.3f}" if expected.total else "unknown"
    return (
        f"held out: {kept.right} of the {kept.total} kept answers are right ({kept.value:.3f}), and "
        f"{100 * selection.share_kept:.1f} % of {selection.of_rows} are kept\n"
        f"precision to expect: {value}, 95 % interval {low:.3f} to {high:.3f}"
    )


def _check_same(answers: Answers, held_out: Answers) -> None:
    one, other = answers.settings, held_out.settings
    if one is None or other is None:
        path = answers.path if one is None else held_out.path
        print(
            f"the settings beside '{path}' are gone: make sure that both files are answers of one model and prompt",
            file=sys.stderr,
        )
        return
    changed = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    if changed:
        raise UserError(
            f"found held-out answers of another {' and '.join(changed)} in '{held_out.path}', expected those of the "
            f"command that wrote '{answers.path}' with another --manifest alone"
        )
