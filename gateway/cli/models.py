"""``kiki models``: pull and list the model files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from gateway.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that the gateway needs, and whether it is here."""

    name: str
    path: str
    present: bool
    bytes: int


@click.group("models")
def command() -> None:
    """Pull and list the model files."""


@command.command("pull")
@click.option("--with-sources", is_flag=True, help="Also the float32 weights that tests compare.")
def pull(with_sources: bool) -> None:
    """Fetch, check and build every model file; nothing is done twice."""
    from gateway.assets import ensure_models
    from gateway.cli.progress import pulling

    settings = load_settings()
    with pulling() as progress:
        files = ensure_models(settings, progress, keep_source=with_sources)
    click.echo(f"base model: {files.base}")
    click.echo(f"embedding model: {files.embedder}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """Show the model files, their size, and whether they are here."""
    rows = _rows(load_settings())
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        size = f"{row.bytes / 1e6:8.1f} MB" if row.present else "not here; run: kiki models pull"
        click.echo(f"{row.name:<24} {size}  {row.path}")


def _rows(settings: Settings) -> list[ModelFile]:
    from kiki.assets import BASE_MODEL
    from routing.model_files import MODEL_FILE, NAME

    base = settings.model_path or Path(settings.model or settings.models_dir / BASE_MODEL.file)
    embedder = settings.models_dir / NAME / MODEL_FILE
    converted = sorted((settings.models_dir / "adapters").glob("*.gguf"))
    return [
        _row("base model", base),
        _row("embedding model", embedder),
        *(_row(f"adapter {path.stem.rsplit('-', 1)[0]}", path) for path in converted),
    ]


def _row(name: str, path: Path) -> ModelFile:
    present = path.is_file()
    return ModelFile(name, str(path), present, path.stat().st_size if present else 0)
