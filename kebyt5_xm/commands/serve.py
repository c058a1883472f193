"""`kebyt5-xm serve`: let a run or an export answer over HTTP.

It has `/v1/answer`, OpenAI's `/v1/chat/completions` and `/v1/audio/transcriptions`, `/health` and `/metrics`. Only
this machine can ask, unless there is a token and another --host. SIGTERM finishes what runs. See docs/serving.md.
"""

import argparse
import os
import socket
from dataclasses import fields

from kebyt5_xm.commands.generate import DTYPES
from kebyt5_xm.commands.prompt import unescape
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.transcription.cutting import AUDIO, WINDOW_SECONDS, Cutting
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.trust import add_trust_argument

LIMITS = {
    "max_bytes": "bytes of a request",
    "max_pixels": "pixels of an image",
    "max_seconds": "seconds of a recording",
    "max_input_ids": "bytes of text and slots of media of an input",
    "max_new_tokens": "bytes of an answer",
    "max_answers": "answers to a request, and beams",
    "max_labels": "labels of a request",
    "max_request_seconds": "seconds that a request may take",
    "max_requests": "requests in the server at once; more get 429",
    "max_batch_size": "requests answered together",
    "gather_seconds": "seconds that a request waits for others to join it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint of one, an export, or a hub id")
    parser.add_argument("--name", help="the model's name for clients (the last part of MODEL)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0 takes a free one (8000)")
    parser.add_argument(
        "--token-file",
        metavar="PATH",
        help="a file with the token that clients must send; else KEBYT5_XM_TOKEN of the environment",
    )
    parser.add_argument(
        "--transcription-prompt",
        default=AUDIO,
        metavar="TEXT",
        help=r"prompt of transcriptions, as in training; may have {language} ('{audio}')",
    )
    parser.add_argument(
        "--window-seconds",
        type=float,
        default=WINDOW_SECONDS,
        metavar="N",
        help="longest part of a recording that is transcribed at once: the longest recordings of training "
        f"({WINDOW_SECONDS:g})",
    )
    for field in fields(ServingLimits):
        kind = int if isinstance(field.default, int) else float
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=field.default,
            metavar="N",
            help=f"{LIMITS[field.name]} ({field.default})",
        )
    parser.add_argument("--device", default="cpu", help="device to compute on, such as cuda (cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="compute in fp32 or bf16; int8 on a CPU alone")
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Raises `UserError`."""
    try:
        from kebyt5_xm.serving.server import open_socket, read_token
    except ModuleNotFoundError as error:
        raise UserError(f"found no {error.name}; install it: pip install 'kebyt5-xm[serve]'") from error
    limits = ServingLimits(**{field.name: getattr(args, field.name) for field in fields(ServingLimits)})
    prompt = unescape(args.transcription_prompt)
    if prompt.count(AUDIO) != 1:
        raise UserError(
            f"found --transcription-prompt '{prompt}', expected {AUDIO} once, such as '{AUDIO} ko: '"
        )
    if args.dtype == "int8" and args.device != "cpu":
        raise UserError("found --dtype int8 with another device, expected a CPU; use --dtype bf16")
    cutting = Cutting(args.window_seconds)
    token = read_token(args.token_file, args.host)
    with open_socket(args.host, args.port) as listening:  # before the weights are read
        _serve(args, limits, prompt, cutting, token, listening)


def _serve(
    args: argparse.Namespace,
    limits: ServingLimits,
    prompt: str,
    cutting: Cutting,
    token: str | None,
    listening: socket.socket,
) -> None:
    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.device import explain_out_of_memory, open_device
    from kebyt5_xm.model.pretrained import RunBackbone, open_pretrained
    from kebyt5_xm.serving.app import make_app
    from kebyt5_xm.serving.metrics import Metrics
    from kebyt5_xm.serving.page_content import PageContent
    from kebyt5_xm.serving.run_examples import collect_content
    from kebyt5_xm.serving.server import serve
    from kebyt5_xm.serving.service import Service
    from kebyt5_xm.serving.worker import Worker

    device = open_device(args.device)
    opened = open_pretrained(args.model)
    model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust, dtype=DTYPES.get(args.dtype))
    with explain_out_of_memory(device, "use --dtype bf16"):
        model = model.to(device)  # pyright: ignore[reportArgumentType]
    metrics = Metrics()
    name = args.name or os.path.basename(os.path.normpath(args.model))
    service = Service(name, Worker(model, limits, metrics), limits, prompt, cutting)
    content = PageContent()
    if isinstance(opened, RunBackbone):
        content = collect_content(opened.run, service.worker.processor.interfaces, args.trust)
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(
        f"{name} answers at {url} (open it in a browser); schema: {url}/openapi.json; Ctrl+C ends it",
        flush=True,
    )
    serve(make_app(service, metrics, token, content), listening, limits)
