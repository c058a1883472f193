"""`kebyt5-xm transcribe`: what is said in recordings of any length, with times, as text, JSON or subtitles.

A recording is cut into windows at its silences, or with an overlap where there are none. Give --window-seconds the
length of the longest recordings of training: a model knows no longer ones.

With --out each recording gets a file of its own in a folder; those that are there already are not made again, so the
same command goes on where it was stopped.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.commands.generate import DTYPES
from kebyt5_xm.commands.prompt import unescape
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.transcription.cutting import AUDIO, WINDOW_SECONDS, Cutting
from kebyt5_xm.trust import add_trust_argument

if TYPE_CHECKING:
    from kebyt5_xm.commands.transcribe.folder import TranscriptFolder

SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
SUBTITLES = ("srt", "vtt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint of one, an export, or a hub id")
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings, or patterns of them")
    parser.add_argument(
        "--prompt", default=AUDIO, help=f"as in training, with one place for the recording ('{AUDIO}')"
    )
    parser.add_argument("--format", choices=SUFFIXES, default="text", help="of what is written (text)")
    parser.add_argument("--out", metavar="FOLDER", help="write a file for each recording there")
    parser.add_argument(
        "--window-seconds",
        type=float,
        default=WINDOW_SECONDS,
        metavar="N",
        help=f"longest part answered at once ({WINDOW_SECONDS:g})",
    )
    parser.add_argument(
        "--overlap-seconds",
        type=float,
        metavar="N",
        help="what parts have in common where no silence parts them (a fifth of the window, at least 1 s)",
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="parts answered together (8)")
    parser.add_argument("--num-beams", type=int, metavar="N", help="beams; without them decoding is greedy")
    parser.add_argument("--device", default="cpu", help="device to compute on, such as cuda (cpu)")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="compute in fp32 or bf16; in int8, on a CPU alone, times are coarser"
    )
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Transcribe the recordings. Raises `UserError`, for recordings that cannot be used when the others are done."""
    from kebyt5_xm.commands.generate.inputs import expand_files
    from kebyt5_xm.commands.transcribe.folder import TranscriptFolder

    recordings = list(dict.fromkeys(Path(path) for given in args.files for path in expand_files(given)))
    folder = None
    if args.out is None and args.format in SUBTITLES and len(recordings) > 1:
        raise UserError(
            f"found {len(recordings)} recordings, expected one: subtitles are a file for each; give --out FOLDER"
        )
    if args.out is not None:
        folder = TranscriptFolder(Path(args.out), SUFFIXES[args.format], recordings)
    if args.dtype == "int8" and args.device != "cpu":
        raise UserError("found --dtype int8 with another device, expected a CPU; use --dtype bf16")
    _transcribe_all(args, recordings, folder)


def _transcribe_all(
    args: argparse.Namespace, recordings: list[Path], folder: "TranscriptFolder | None"
) -> None:
    from tqdm import tqdm

    from kebyt5_xm.commands.generate.output import model_digest
    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.decoding.int8 import quantize_decoder
    from kebyt5_xm.model.device import explain_out_of_memory, open_device
    from kebyt5_xm.model.transcription.recording import open_recording
    from kebyt5_xm.model.transcription.transcriber import Transcriber

    cutting = Cutting(args.window_seconds, args.overlap_seconds)
    device = open_device(args.device)
    dtype = None if args.dtype == "int8" else DTYPES.get(args.dtype)
    model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust, dtype=dtype)
    search: dict[str, Any] = {} if args.num_beams is None else {"num_beams": args.num_beams}
    transcriber = Transcriber(model, unescape(args.prompt), cutting, args.batch_size, search)
    if folder is not None:
        names = ("prompt", "window_seconds", "overlap_seconds", "num_beams", "dtype", "format")
        settings = {name: getattr(args, name) for name in names}
        folder.check({"model": model_digest(model)} | settings)
    if args.dtype == "int8":
        quantize_decoder(model)
    waiting = [path for path in recordings if folder is None or not folder.is_done(path)]
    errors: list[UserError] = []
    with explain_out_of_memory(device, "lower --batch-size or --window-seconds"):
        model.to(device)  # pyright: ignore[reportArgumentType]
        for path in waiting:
            try:
                seconds = round(open_recording(path).seconds, 1)
                with tqdm(total=seconds, unit=" s", desc=path.name, disable=None) as bar:
                    found = transcriber(path, lambda done, bar=bar: bar.update(done - bar.n))
            except UserError as error:
                errors.append(error)
                continue
            if args.format == "json":
                text = json.dumps({"file": str(path)} | found.as_dict(), ensure_ascii=False) + "\n"
            else:
                text = found.format(args.format)
            if folder is None:
                sys.stdout.write(text)
                sys.stdout.flush()
            else:
                folder.write(path, text)
    if folder is not None:
        print(
            f"{len(recordings) - len(errors)} transcripts in {args.out}, {len(waiting) - len(errors)} of them new",
            file=sys.stderr,
        )
    if errors:
        counted = f"{len(errors)} of {len(recordings)} recordings have no transcript; the first: "
        raise UserError((counted if len(recordings) > 1 else "") + str(errors[0])) from errors[0]
