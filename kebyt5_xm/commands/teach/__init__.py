r"""`kebyt5-xm teach`: let a model answer the rows of a manifest; its answers become training data.

MODEL is a run, a checkpoint of one or an export of this project, with images and recordings, or any text-to-text
model of transformers (encoder-decoder or causal language model): a folder or a hub id. A model that needs code of
its own is refused.

--out is a manifest in the folder of --manifest: each row of it with the columns `answer`, `confidence`,
`log_probability`, `num_tokens`, `finish_reason` and `row`. A recipe reads it with `target: "{answer}"`, and
`kebyt5-xm select` keeps the rows that are probably right. The same command goes on where it was stopped.
"""

import argparse
from pathlib import Path

from kebyt5_xm.commands.excerpts import add_excerpt_arguments
from kebyt5_xm.errors import UserError
from kebyt5_xm.trust import add_trust_argument

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
"""Names on the command line, and torch's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "model", metavar="MODEL", help="a run, a checkpoint of one, a model folder, or a hub id"
    )
    parser.add_argument("--manifest", required=True, metavar="PATH", help="the table of rows to answer")
    parser.add_argument("--out", required=True, metavar="PATH", help="the manifest to write, JSON lines")
    parser.add_argument("--prompt", metavar="TEXT", help=r"'{question}\n': names columns, as in a recipe")
    parser.add_argument(
        "--source",
        metavar="NAME",
        help="of a run: the prompt, labels and excerpts of its source, for --prompt",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD",
        help="choose among labels; give one for each label; the confidence is the label's probability",
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="of transformers: put the prompt into the tokenizer's chat template",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="most ids of an answer, which are bytes for models of this project (256)",
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows answered together (8)")
    parser.add_argument(
        "--prefix", default="", metavar="TEXT", help="put before the names of the added columns: teacher_"
    )
    parser.add_argument(
        "--allow-outside", action="store_true", help="media may lie outside the manifest's folder"
    )
    add_excerpt_arguments(parser, "")
    parser.add_argument("--device", default="cpu", help="device to compute on, such as cuda (cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="compute in this dtype instead of that of the file")
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Answer the rows and write the manifest. Raises `UserError`."""
    _check(args)
    from kebyt5_xm.commands.generate.output import AnswerFile
    from kebyt5_xm.commands.teach.manifest import ManifestInputs
    from kebyt5_xm.commands.teach.question import Question

    question = Question.of(args)
    inputs = ManifestInputs(args.manifest, question, Path(args.out), args.prefix, args.allow_outside)
    AnswerFile(Path(args.out), inputs.key, {}).check_place()  # before a model is read

    from kebyt5_xm.commands.teach.answering import answer_rows
    from kebyt5_xm.commands.teach.teachers import open_teacher
    from kebyt5_xm.model.device import explain_out_of_memory, open_device

    device = open_device(args.device)
    with explain_out_of_memory(device, "give a smaller --batch-size or --max-new-tokens"):
        teacher = open_teacher(args, question, device)
        answer_rows(teacher, inputs, args)


def _check(args: argparse.Namespace) -> None:
    if min(args.max_new_tokens, args.batch_size) < 1:
        raise UserError(
            f"found --max-new-tokens {args.max_new_tokens} and --batch-size {args.batch_size}, expected 1 or more"
        )
    if (args.prompt is None) == (args.source is None):
        found = "neither --prompt nor --source" if args.prompt is None else "--prompt with --source"
        raise UserError(f"found {found}, expected one of them: what the model is asked about each row")
    if args.source is not None:
        given = {"--label": args.label, "--offset": args.offset, "--duration": args.duration}
        for option, value in given.items():
            if value:
                raise UserError(f"found {option} with --source, expected one of them: the recipe says it")
