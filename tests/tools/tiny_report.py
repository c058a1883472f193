"""A made-up run directory with every file that a report reads, including images and recordings."""

import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

STEPS, EVERY = 1200, 10
RATE = 16_000
DIGITS = 371
SPOKEN = 401
START = {"text/ko": 2.903, "text/en": 3.251, "text/zh": 3.297, "text/ja": 2.631}
END = {"text/ko": 3.012, "text/en": 3.288, "text/zh": 3.371, "text/ja": 2.618}


def write_run(folder: Path, lr: float = 0.003, accuracy: float = 0.978, seed: int = 0) -> Path:
    """Write the files of a run into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    write_media(folder / "data", draw)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(recipe(folder, lr), allow_unicode=True, sort_keys=False)
    )
    write_json(folder / "results.json", results())
    (folder / "backbone").mkdir(exist_ok=True)
    write_json(folder / "backbone/config.json", backbone())
    write_metrics(folder / "metrics.csv", draw)
    write_lines(folder / "skipped.jsonl", skips(folder))
    write_json(folder / "evaluation.json", evaluation(accuracy))
    write_lines(folder / "predictions.jsonl", predictions(folder, accuracy))
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_media(folder: Path, draw: np.random.Generator) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for n in range(5):
        picture = Image.new("RGB", (8, 8) if n < 3 else (640, 420), (244, 241, 232))
        pencil = ImageDraw.Draw(picture)
        if n < 3:
            picture = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        else:
            pencil.rectangle((0, 260, 640, 420), fill=(104, 142, 96))
            pencil.ellipse((430, 40, 520, 130), fill=(236, 190, 80))
            pencil.polygon(((100, 260), (260, 90), (420, 260)), fill=(110, 120, 150))
        picture.save(folder / f"images/{n}.png")
    for n in range(3):
        seconds = np.arange(int(RATE * (0.9 + 0.37 * n))) / RATE
        tone = np.sin(2 * math.pi * (300 + 260 * n) * seconds * (1 + 0.3 * seconds)) * np.hanning(
            len(seconds)
        )
        tone += 0.02 * draw.standard_normal(len(seconds))
        with wave.open(str(folder / f"{n}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((tone * 12000).astype("<i2").tobytes())


def recipe(folder: Path, lr: float) -> dict[str, Any]:
    stem = {"image_size": 8, "patch_size": 2, "out_dim": 64}

    def manifest(name: str, prompt: str, target: str, weight: float) -> dict[str, Any]:
        return {
            "class_path": "kebyt5_xm.data.Manifest",
            "init_args": {
                "path": str(folder / f"data/{name}.jsonl"),
                "validation": str(folder / f"data/{name}-heldout.jsonl"),
                "prompt": prompt,
                "target": target,
                "weight": weight,
            },
        }

    return {
        "run_dir": str(folder),
        "seed_everything": 5,
        "model": {
            "backbone": {"weights": "runs/demo-text", "dropout": 0.1},
            "modalities": {
                "image": {
                    "encoder": {"class_path": "encoders.stems.PatchEncoder", "init_args": stem},
                    "adapter": {"class_path": "kebyt5_xm.adapters.MLP", "init_args": {"hidden": 256}},
                },
                "speech": {
                    "encoder": {
                        "class_path": "encoders.transformers.TransformersEncoder",
                        "init_args": {"model": "openai/whisper-small", "pretrained": True, "frozen": True},
                    },
                    "adapter": {"class_path": "kebyt5_xm.adapters.FrameStacking", "init_args": {"stack": 4}},
                },
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr}},
            "schedule": {"class_path": "kebyt5_xm.schedules.Cosine", "init_args": {"warmup_steps": 50}},
        },
        "data": {
            "global_batch_size": 32,
            "sources": {
                "text": {
                    "class_path": "kebyt5_xm.data.Denoising",
                    "init_args": {
                        "stores": {part[5:]: f"stores/{part[5:]}" for part in START},
                        "validation": 0.05,
                        "weight": 2.0,
                    },
                },
                "digits": manifest("digits", "{image:image}\n숫자: ", "{digit}", 1.0),
                "captions": manifest("captions", "{image:image}\n설명: ", "{caption}", 1.0),
                "spoken": manifest("spoken", "{recording:speech}\n받아쓰기: ", "{transcript}", 1.5),
            },
        },
        "trainer": {"max_steps": STEPS, "precision": "32-true", "gradient_clip_val": 1.0},
    }


def backbone() -> dict[str, Any]:
    shape = {"d_model": 128, "num_layers": 4, "num_decoder_layers": 2, "num_heads": 4}
    return {**shape, "kebyt5_xm": {"started_from": ["runs/demo-text"], "licence": "apache-2.0"}}


def results() -> dict[str, Any]:
    return {
        "date": "2026-11-24",
        "steps": STEPS,
        "global_batch_size": 32,
        "parameters": 1_103_872,
        "trainable_parameters": 1_098_304,
        "train_seconds": 412.7,
        "bytes_per_second": 41_237,
        "hardware": "1 x x86_64 CPU, 2 cores, 2 threads",
        "precision": "32-true",
        "strategy": "SingleDeviceStrategy",
        "loss": 2.131,
        "bits_per_byte": 3.074,
        "parts": {p: {"bits_per_byte": END[p], "uniform": 8.0, "unigram": 5.1, "bigram": 3.4} for p in START},
        "peak_memory_gb": 1.837,
        "device_hours": 0.1146,
        "epochs": {"digits": 11.37, "captions": 4.02, "spoken": 7.9},
        "forgetting": {p: {"start": START[p], "end": END[p], "worst": END[p] + 0.24} for p in START},
        "skipped": {"captions": {"skipped": 19, "drawn": 9612}},
    }


def write_metrics(path: Path, draw: np.random.Generator) -> None:
    rows = []
    for step in range(EVERY, STEPS + 1, EVERY):
        fall = math.exp(-step / 260)
        rows.append((step, "train/loss", 1.9 + 3.6 * fall + 0.12 * draw.standard_normal()))
        rows.append((step, "lr/all", 0.003 * min(1, step / 50) * (0.5 + 0.5 * math.cos(step / STEPS * 3.1))))
        rows += [(step, f"padding/{name}", 0.2 + 0.05 * draw.random()) for name in ("text", "image")]
        rows.append((step, "scale_ratio/image", 1 + 0.4 * (1 - fall)))
        rows.append((step, "train/bytes_per_second", 41_000 + 900 * draw.standard_normal()))
    for step in range(100, STEPS + 1, 100):
        fall = math.exp(-step / 260)
        rows.append((step, "val/loss", 1.95 + 3.5 * fall))
        rows.append((step, "val/bits_per_byte", 3.05 + 0.3 * fall))
        for part in START:
            bump = 0.3 * (step / 300) * math.exp(1 - step / 300)
            value = END[part] + (START[part] - END[part]) * fall + bump
            rows.append((step, f"val/bits_per_byte/{part}", value))
            rows.append((step, f"forgetting/{part}", value - START[part]))
        rows.append((step, "val/accuracy/digits", 0.98 - 0.85 * fall))
        rows.append((step, "val/character_error_rate/spoken", 0.04 + 0.7 * fall))
    lines = [f"{step},{metric},{value!r}" for step, metric, value in rows]
    path.write_text("\n".join(["step,metric,value", *lines]) + "\n", encoding="utf-8")


def skips(folder: Path) -> list[dict[str, Any]]:
    causes = ["there is no such file"] * 13 + ["OSError: image file is truncated"] * 5
    causes.append("found 9000 x 9000 pixels, expected at most 64000000; raise max_pixels to permit it")
    return [
        {
            "step": 7 * n,
            "source": "captions",
            "line": 31 + n,
            "path": str(folder / "data/captions.jsonl"),
            "cause": c,
        }
        for n, c in enumerate(causes)
    ]


def score(value: float, margin: float = 0.016) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - margin), "high": value + 0.9 * margin}


def gain(value: float, margin: float) -> dict[str, float]:
    return {"value": value, "low": value - margin, "high": value + margin}


def evaluation(accuracy: float) -> dict[str, Any]:
    def measured(value: float, higher: bool = True, margin: float = 0.016) -> dict[str, Any]:
        return {**score(value, margin), "higher_is_better": higher}

    def used(real: float, shuffled: float, none: float, higher: bool = True) -> dict[str, Any]:
        scores = {"real": score(real), "shuffled": score(shuffled, 0.03), "none": score(none, 0.03)}
        gains = {
            "real_minus_shuffled": gain(real - shuffled, 0.035),
            "real_minus_none": gain(real - none, 0.037),
        }
        return {**scores, **gains, "higher_is_better": higher}

    def falling(metric: str, clean: float, strengths: list[float], slope: float) -> list[dict[str, Any]]:
        return [
            {"strength": x, "metrics": {metric: score(max(0.01, clean + slope * n), 0.03)}}
            for n, x in enumerate(strengths)
        ]

    def baseline(method: str, features: list[str], prompts: int, **values: float) -> dict[str, Any]:
        metrics = {metric: score(value) for metric, value in values.items()}
        return {"method": method, "features": features, "prompts": prompts, "metrics": metrics}

    return {
        "date": "2026-11-25",
        "checkpoint": "best.ckpt",
        "step": STEPS,
        "seconds": 231.4,
        "generated_bytes_per_second": 213.7,
        "hardware": "x86_64 CPU, 2 cores, 2 threads",
        "confidence": 0.95,
        "resamples": 1000,
        "sources": {
            "digits": {
                "examples": DIGITS,
                "skipped": 0,
                "labels": [str(n) for n in range(10)],
                "modalities": ["image"],
                "metrics": {"accuracy": measured(accuracy), "macro_f1": measured(accuracy - 0.004)},
                "baselines": {
                    "training_rows": 1426,
                    "of_rows": 1427,
                    "measured": [
                        baseline("constant", [], 1, accuracy=0.113, macro_f1=0.02),
                        baseline("linear", ["pixels"], 1, accuracy=0.985, macro_f1=0.951),
                    ],
                },
                "modality_use": {
                    "examples": 200,
                    "modalities": {"image": {"accuracy": used(accuracy, 0.17, 0.101)}},
                },
                "robustness": {
                    "examples": 200,
                    "clean": {"accuracy": score(accuracy)},
                    "curves": [
                        {
                            "perturbation": "JPEG",
                            "kind": "image",
                            "unit": "quality",
                            "points": falling("accuracy", 0.62, [5, 20, 50, 80], 0.11),
                        },
                        {
                            "perturbation": "Gaussian noise",
                            "kind": "image",
                            "unit": "standard deviation",
                            "points": falling("accuracy", 0.95, [0.05, 0.1, 0.2, 0.4], -0.19),
                        },
                    ],
                },
            },
            "captions": {
                "examples": 97,
                "skipped": 2,
                "labels": None,
                "modalities": ["image"],
                "metrics": {"chrf": measured(38.4, True, 2.7), "exact_match": measured(0.06, True, 0.04)},
                "modality_use": {
                    "examples": 97,
                    "modalities": {
                        "image": {
                            "chrf": {
                                "real": score(38.4, 2.7),
                                "shuffled": score(37.9, 2.6),
                                "none": {"value": None, "low": None, "high": None},
                                "real_minus_shuffled": gain(0.5, 1.7),
                                "real_minus_none": {"value": None, "low": None, "high": None},
                                "higher_is_better": True,
                            }
                        }
                    },
                },
            },
            "spoken": {
                "examples": SPOKEN,
                "skipped": 0,
                "labels": None,
                "modalities": ["speech"],
                "metrics": {
                    "character_error_rate": measured(0.041, False, 0.012),
                    "exact_match": measured(0.902, True, 0.028),
                },
                "baselines": {
                    "training_rows": 2400,
                    "of_rows": 2400,
                    "measured": [
                        baseline("constant", [], 4, character_error_rate=0.64, exact_match=0.01),
                        baseline("linear", ["log-mel"], 4, character_error_rate=0.027, exact_match=0.941),
                        baseline("nearest", ["log-mel"], 4, character_error_rate=0.058, exact_match=0.913),
                    ],
                },
                "modality_use": {
                    "examples": 200,
                    "modalities": {"speech": {"character_error_rate": used(0.041, 0.63, 0.71, False)}},
                },
            },
        },
        "bits_per_byte": END,
    }


def predictions(folder: Path, accuracy: float) -> list[dict[str, Any]]:
    rows = []
    wrong = round((1 - accuracy) * DIGITS)
    for n in range(DIGITS):
        digit = str(n % 10)
        written = str((n + 3) % 10) if n % (DIGITS // max(1, wrong)) == 4 else digit
        chances = {str(d): 0.82 if str(d) == written else 0.02 for d in range(10)}
        rows.append(line(folder, "digits", n, f"images/{n % 3}.png", "숫자: ", [digit], written, chances))
    captions = [
        ("초록 들판 위의 회색 산과 해", "초록 들판 위에 회색 산이 있다"),
        ("a grey mountain over a green field", "a gray mountain over a green fjeld"),
        ("각진 산", "갂진 산"),
        ("산과 해", b"\xec\x82\xb0\xea\xb3\xbc \xed\x95".decode("utf-8", "surrogateescape")),
        ("جبل رمادي فوق حقل أخضر", "جبل رمادي تحت حقل أصفر"),
        ("山の上の太陽", ""),
        ("해", "해해해해해해해해해해해해해해해" * 60),
        ("산", "산"),
    ]
    for n, (reference, written) in enumerate(captions):
        row = line(folder, "captions", n, f"images/{3 + n % 2}.png", "설명: ", [reference], written, None)
        rows.append({**row, "right": None})
    words = ["스물셋", "forty-two", "八十一", "ごじゅうろく"]
    for n in range(SPOKEN):
        said = words[n % 4]
        written = said[:-1] + "돗" if n % 11 == 3 else said
        rows.append(line(folder, "spoken", n, f"{n % 3}.wav", "받아쓰기: ", [said], written, None))
    return rows


def line(
    folder: Path,
    source: str,
    row: int,
    reference: str,
    question: str,
    references: list[str],
    written: str,
    chances: dict[str, float] | None,
) -> dict[str, Any]:
    heard = reference.endswith(".wav")
    medium = {
        "modality": "speech" if heard else "image",
        "media": "audio" if heard else "image",
        "reference": reference,
    }
    return {
        "source": source,
        "row": row,
        "path": str(folder / f"data/{source}-heldout.jsonl"),
        "line": row + 1,
        "prompt": [medium, "\n" + question],
        "references": references,
        "prediction": written,
        "probabilities": chances,
        "right": written in references,
    }
