"""What a run starts from, recorded at its start: the shape, and the licence and limits it inherits.

An export carries these although the weights it started from may by then be gone or out of reach.

    FOLDER/config.json   the backbone's config.json; under `kebyt5_xm`, the keys of `Origin`
    FOLDER/NOTICE        the weights it descends from and their terms, where it was not trained from scratch
    FOLDER/origin/       their model card and licence files, as they were
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kebyt5_xm.data.sources.source import Source
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.pretrained import HubModel, Pretrained, RunBackbone, open_pretrained
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.specs import find_class
from kebyt5_xm.model.t5 import saved_config
from kebyt5_xm.trust import somebody_elses
from kebyt5_xm.weight_files import ABOUT

TERMS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt")
"""Files of a model repository that may state terms."""


@dataclass(frozen=True)
class Origin:
    """What the backbone of a run descends from.

    Attributes:
        started_from: hub ids, or names of local folders and runs, the nearest first; empty from scratch.
        licence: as the nearest model card that states one names it.
        denoising: the settings of the denoising that the weights were trained with, if it is known.
    """

    started_from: list[str]
    licence: str | None
    denoising: dict[str, Any]

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Origin":
        """Return what the content of a config.json says under `kebyt5_xm`."""
        own = config.get(ABOUT)
        own = own if isinstance(own, dict) else {}
        return cls(own.get("started_from") or [], own.get("licence"), own.get("denoising") or {})


def record(backbone: Backbone, folder: Path) -> None:
    """Write what the backbone starts from into `folder`; a folder that is already written stays as it is.

    Training calls this at its start, on one rank, with RUN/backbone. Raises `UserError` where
    `backbone.config()` does; terms that cannot be fetched are said to be so in NOTICE.
    """
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    origin = Origin([], None, {})
    if backbone.weights is not None:
        source = open_pretrained(backbone.weights)
        theirs = Origin.read(source.config)
        card = _carry_terms(source, folder)
        name = _name(source)
        origin = Origin([name, *theirs.started_from], theirs.licence or card.get("license"), theirs.denoising)
        (folder / "NOTICE").write_text(_notice(source, name, card, folder), encoding="utf-8")
    fields = saved_config(backbone.config()) | {ABOUT: asdict(origin)}
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _name(source: Pretrained) -> str:
    """Return a hub id, the name of a folder, or the name of a run and the step of its checkpoint."""
    if isinstance(source, HubModel):
        return source.name
    if isinstance(source, RunBackbone):
        run = source.run.path.resolve().name
        step = checkpoint_step(source.run.checkpoint())
        return run if step is None else f"{run}, step {step}"
    return Path(source.name).resolve().name


def copy_terms(folder: Path, out: Path) -> None:
    """Copy NOTICE and origin/ of a recorded folder, where there are any, into an export."""
    if (folder / "NOTICE").exists():
        refuse_foreign(folder / "NOTICE", folder)
        shutil.copy(folder / "NOTICE", out / "NOTICE")
    if (folder / "origin").exists():
        for path in (folder / "origin", *(folder / "origin").rglob("*")):
            refuse_foreign(path, folder)
        shutil.copytree(folder / "origin", out / "origin")


def _carry_terms(source: Pretrained, folder: Path) -> dict[str, Any]:
    """Copy the files of terms into `folder`/origin; return the front matter of the source's own model card.

    What this project wrote keeps the files of its origin in origin/, and those are the ones to carry on.
    """
    ours = ABOUT in source.config
    for name in TERMS:
        path = _file_if_any(source, f"origin/{name}" if ours else name)
        if path is not None:
            (folder / "origin").mkdir(exist_ok=True)
            shutil.copyfile(path, folder / "origin" / name)
    return {} if ours else _front_matter(folder / "origin" / "README.md")


def refuse_foreign(path: Path, folder: Path) -> None:
    """Raise `UserError` for a link out of `folder`: a copy of it would publish another file of this machine.

    The hub's cache links to its own blobs, beside the folder of the revision.
    """
    real, root = path.resolve(), folder.resolve()
    within = root.parents[1] if root.parent.name == "snapshots" else root
    if not real.is_relative_to(within):
        raise UserError(
            f"'{path}' is a link to '{real}', out of the folder of its model, and would be copied into an export; "
            "remove it, or put the file itself there"
        )


def _file_if_any(source: Pretrained, name: str) -> Path | None:
    try:
        path = source.file(name)
    except UserError:  # the weights may be in the cache while their terms are out of reach
        return None
    if path is not None:
        refuse_foreign(path, path.parents[name.count("/")])
    return path


def _front_matter(card: Path) -> dict[str, Any]:
    """Return the YAML between the first two `---` lines of a model card; empty if there is none."""
    if not card.is_file():
        return {}
    parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    try:
        content = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _notice(source: Pretrained, name: str, card: dict[str, Any], folder: Path) -> str:
    page = f" (https://huggingface.co/{name})" if isinstance(source, HubModel) else ""
    lines = [f"These weights were trained further from those of {name}{page}."]
    if "license" in card:
        named = [str(card[key]) for key in ("license", "license_name", "license_link") if key in card]
        lines.append(f"Licence that its model card states: {', '.join(named)}.")
    conditions = [str(card[key]).strip() for key in ("extra_gated_prompt",) if key in card]
    conditions += [str(field) for field in card.get("extra_gated_fields") or {}]
    if conditions:
        lines.append("Conditions under which access to it is given: " + " | ".join(conditions))
    if (folder / "origin").exists():
        lines.append("Its model card and licence files are in origin/; their limits of use hold here too.")
    elif ABOUT not in source.config:
        lines.append(
            "Its model card and licence could not be read when training began; the limits of use they state "
            "hold here too: read them before passing these weights on."
        )
    inherited = _file_if_any(source, "NOTICE") if ABOUT in source.config else None
    text = "\n".join(lines) + "\n"
    return text + ("\n" + inherited.read_text(encoding="utf-8") if inherited else "")


def run_denoising(run: Run, trusted_modules: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of the span denoising in a run's data; of several sources, those of the largest weight.

    Empty if no source denoises. A source of a package that is not trusted is passed over and not imported.
    """
    found: list[tuple[float, SpanDenoising]] = []
    with somebody_elses(trusted_modules):
        for name, spec in (run.config.get("data", {}).get("sources") or {}).items():
            where = f"data.sources.{name}"
            try:
                source = find_class(spec, Source, trusted_modules, where)
            except UserError:
                continue
            init_args = spec.get("init_args") or {}
            denoising = source.denoising(init_args)
            if denoising is not None:
                found.append((init_args.get("weight", 1.0), denoising))
    return asdict(max(found, key=lambda pair: pair[0])[1]) if found else {}
