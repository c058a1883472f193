"""Records, at the start of a run, the weights it starts from: their shape, licence and limits of use.

Exports copy these, even if the original weights are no longer reachable by then.

    FOLDER/config.json   the backbone's config.json; under `kebyt5_xm`, the keys of `Origin`
    FOLDER/NOTICE        the original weights and their terms; absent if trained from scratch
    FOLDER/origin/       copies of their model card and licence files
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.hub_model import HubModel
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.pretrained import RunBackbone, open_pretrained
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.t5 import saved_config
from kebyt5_xm.trust import replace_renamed_classes, without_working_folder
from kebyt5_xm.weight_files import ABOUT

TERMS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt")
"""Files of a model repository that may state terms."""


@dataclass(frozen=True)
class Origin:
    """The weights that a run's backbone descends from.

    Attributes:
        started_from: hub ids, or names of local folders and runs, the nearest first; empty from scratch.
        licence: the licence in the nearest model card that states one.
        denoising: the settings of denoising that the weights were trained with; empty if unknown.
        licence_name, licence_link: of a licence that the hub does not know, as that model card states them.
    """

    started_from: list[str]
    licence: str | None
    denoising: dict[str, Any]
    licence_name: str | None = None
    licence_link: str | None = None

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Origin":
        """Return the origin in a config.json, from its key `kebyt5_xm`."""
        about = config.get(ABOUT)
        about = about if isinstance(about, dict) else {}
        names = [about.get("licence_name"), about.get("licence_link")]
        return cls(
            about.get("started_from") or [], about.get("licence"), about.get("denoising") or {}, *names
        )

    def as_about(self) -> dict[str, Any]:
        """Return its entries for the key `kebyt5_xm` of a config.json; what is unknown is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None or key == "licence"}


def record(backbone: Backbone, folder: Path) -> None:
    """Write the backbone's origin into `folder`, unless it was written before.

    Training calls this at its start, on one rank, with RUN/backbone. Raises `UserError` as `backbone.config()` does.
    If terms cannot be fetched, NOTICE says so.
    """
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    origin = Origin([], None, {})
    if backbone.weights is not None:
        source = open_pretrained(backbone.weights)
        parent = Origin.read(source.config)
        card = _download_terms(source, folder)
        name = _name(source)
        stated = [_text(card.get(key)) for key in ("license", "license_name", "license_link")]
        inherited = [parent.licence, parent.licence_name, parent.licence_link]
        licence, *names = inherited if parent.licence else stated
        origin = Origin([name, *parent.started_from], licence, parent.denoising, *names)
        (folder / "NOTICE").write_text(_notice(source, name, card, folder), encoding="utf-8")
    fields = saved_config(backbone.config()) | {ABOUT: origin.as_about()}
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
    """Copy NOTICE and origin/, if present, from a folder of `record` into an export."""
    if (folder / "NOTICE").exists():
        refuse_outside(folder / "NOTICE", folder)
        shutil.copy(folder / "NOTICE", out / "NOTICE")
    if (folder / "origin").exists():
        for path in (folder / "origin", *(folder / "origin").rglob("*")):
            refuse_outside(path, folder)
        shutil.copytree(folder / "origin", out / "origin")


def copy_file_terms(source: Pretrained, out: Path) -> None:
    """Copy NOTICE and the files of origin/, if present, from a saved model, also on the hub, into a folder."""
    for name in ("NOTICE", *(f"origin/{term}" for term in TERMS)):
        path = own_file(source, name)
        if path is not None:
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, out / name)


def _download_terms(source: Pretrained, folder: Path) -> dict[str, Any]:
    """Copy the files of terms into `folder`/origin; return the front matter of the source's own model card.

    If the source was written by this project, its origin/ is copied and the result is empty.
    """
    is_from_here = ABOUT in source.config
    for name in TERMS:
        path = own_file(source, f"origin/{name}" if is_from_here else name)
        if path is not None:
            (folder / "origin").mkdir(exist_ok=True)
            shutil.copyfile(path, folder / "origin" / name)
    return {} if is_from_here else _front_matter(folder / "origin" / "README.md")


def refuse_outside(path: Path, folder: Path) -> None:
    """Raise `UserError` for a link out of `folder`: copying it would publish another file of this machine.

    Allowed is the hub's cache, which links to its own blobs, next to the folder of the revision.
    """
    real, root = path.resolve(), folder.resolve()
    within = root.parents[1] if root.parent.name == "snapshots" else root
    if not real.is_relative_to(within):
        raise UserError(
            f"'{path}' is a link to '{real}', outside its model's folder, and would be copied into an export; "
            "remove it, or replace it with the file itself"
        )


def own_file(source: Pretrained, name: str) -> Path | None:
    """Return the path of a file of a model, None if it is absent or cannot be reached.

    Raises `UserError` for a link out of the model's folder: the file will be published.
    """
    try:
        path = source.file(name)
    except UserError:  # the weights may be in the cache while their terms are unreachable
        return None
    if path is not None:
        refuse_outside(path, path.parents[name.count("/")])
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


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


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
    inherited = own_file(source, "NOTICE") if ABOUT in source.config else None
    text = "\n".join(lines) + "\n"
    return text + ("\n" + inherited.read_text(encoding="utf-8") if inherited else "")


def run_denoising(run: Run, trusted_modules: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of the span denoising in a run's data; of several sources, those of the largest weight
    at the end.

    Empty if no source denoises. A source of a package that is not trusted is passed over and not imported.
    """
    from kebyt5_xm.data.sources.source import Source  # imports torch, which cards and pages need not load
    from kebyt5_xm.data.sources.weights import weight_at
    from kebyt5_xm.data.text.denoising import SpanDenoising
    from kebyt5_xm.model.specs import import_class

    found: list[tuple[float, SpanDenoising]] = []
    with without_working_folder(trusted_modules):
        for name, spec in (run.config.get("data", {}).get("sources") or {}).items():
            where = f"data.sources.{name}"
            try:  # the data's code is not needed to use the model
                source = import_class(replace_renamed_classes(spec), Source, trusted_modules, where)
            except UserError:
                continue
            init_args = spec.get("init_args") or {}
            denoising = source.denoising(init_args)
            if denoising is not None:
                found.append((weight_at(init_args.get("weight", 1.0), sys.maxsize), denoising))
    return asdict(max(found, key=lambda pair: pair[0])[1]) if found else {}
