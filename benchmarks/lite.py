"""Judge encoders by what they are for, without finetuning them: the numbers in the model card of `lite`.

    python benchmarks/lite.py judge NAME ENCODER [--size 96]     # two lines of results/lite.csv; minutes
    python benchmarks/lite.py errors NAME ENCODER                # the errors alone, for which no corpus is needed
    python benchmarks/lite.py fingerprints                       # the same models on count fingerprints
    python benchmarks/lite.py bakeoff NAME "{lr: 4e-4}"          # pretrain briefly (10 minutes of a core), and judge

Molecules of both corpora that are in no training sample are searched for: retrieval is the share of drawings whose
nearest of 256 in another style is of the same molecule. `handedness` is the share of drawings that are nearer to
another one of the same molecule than to one of its mirror image (chance: .5). Errors are those of ridge regression,
or for classes of logistic regression, on features as they are, on the paper's splits: the penalty is chosen on
validation, and the test error is only reported. `<set>_r2` is R squared in five-fold cross-validation of ridge
regression, of classes as numbers too, for up to 1,500 molecules: it depends less on one split.
An encoder has two lines: one for the features of all layers, one for the embedding alone ("..., last layer").
"""

import argparse
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import FunctionTransformer

from moleclip import baselines, datasets, drawing, encoder, metrics, molecules, pretrain, splits
from moleclip.io import seeds
from moleclip.workflow import params

RESULTS = Path(__file__).parent / "results"
CORPORA = {"moses": "moses", "mixed": "corpora/mixed_chembl_pubchem_znp.smi.gz"}
TABLES = {"moses": "moses", "mixed": "mixed_chembl_pubchem_znp"}
POOL, POOLS, MOST = 256, 4, 1500
SPLITS = {"esol": 1, "freesolv": 1, "bace": 1, "bbbp": 1, "Phosphines_yield": 5, "Phosphines_selectivity": 5, "NHCs": 5}


@cache
def unseen(name: str, count: int) -> list[str]:
    """Molecules of a corpus that the profile `laptop` did not sample."""
    seen = set(pd.read_parquet(f"runs/laptop/molecules/{TABLES[name]}.parquet")["canonical_smiles"])
    corpus = datasets.load(CORPORA[name])
    found, _ = datasets.clean(corpus, rows=seeds.sample(len(corpus), 4 * count if name == "moses" else 12 * count, 7))
    found = found[(found["duplicate_of"] < 0) & ~found["canonical_smiles"].isin(seen)]
    assert len(found) >= count, f"{name}: {len(found)} molecules are unseen"
    return list(found["canonical_smiles"].head(count))


def embed(
    model: encoder.Encoder, smiles: list[str], seed: int | None = None, layers: encoder.Layers = "last"
) -> NDArray[np.float32]:
    """Embeddings [N, D] of length 1, of plain drawings, or in random styles."""
    styles = [
        drawing.PLAIN if seed is None else drawing.random_style(np.random.default_rng([seed, i]))
        for i in range(len(smiles))
    ]
    images = [drawing.draw(text, style, model.preprocess.size) for text, style in zip(smiles, styles, strict=True)]
    found = model.embed(np.stack(images), layers=layers)
    return torch.nn.functional.normalize(found, dim=-1).numpy()


def retrieval(model: encoder.Encoder, smiles: list[str], layers: encoder.Layers) -> float:
    """Top-1 accuracy among 256, both ways, mean over pools."""
    pools = [smiles[start : start + POOL] for start in range(0, len(smiles), POOL)]
    plain, randomised = ([torch.from_numpy(embed(model, pool, seed, layers)) for pool in pools] for seed in (None, 1))
    return pretrain.retrieval(plain, randomised)["held_out_top1"]


def handedness(model: encoder.Encoder, smiles: list[str]) -> dict[str, float]:
    """Share of drawings nearer to the same molecule than to its mirror image."""
    own = [text for text in smiles if molecules.chiral(text)]
    others = [molecules.mirror(text) for text in own]
    query = embed(model, own, seed=1)
    nearer = (query * embed(model, own)).sum(1) > (query * embed(model, others)).sum(1)
    return {"handedness": float(nearer.mean()), "mirrored": len(own)}


def scores(inputs: Any) -> dict[str, float]:
    """Test and validation score of each set, mean over its splits; `inputs` embeds SMILES."""
    found = {}
    for name, count in SPLITS.items():
        dataset = datasets.load(name)
        given, task = inputs(list(dataset.smiles)), dataset.task
        found[f"{name}_r2"] = r_squared(given, dataset.labels[:, 0])
        by_split = []
        for seed in range(1, count + 1):
            split = splits.split(dataset.split, dataset.smiles, seed, dataset.holdout)
            model = baselines.FrozenEncoder("", task=task)
            model._embeddings = lambda some, given=given: given[some.rows]  # type: ignore[method-assign]
            some = baselines.Molecules(dataset.smiles)
            model.fit(some[split.train], dataset.labels[split.train], (some[split.val], dataset.labels[split.val]))
            values = model.predict_values(some)
            parts = (split.val, split.test)
            by_split.append([metrics.score(dataset.metric, dataset.labels[part], values[part]) for part in parts])
        found[f"{name}_val"], found[f"{name}_test"] = np.mean(by_split, axis=0).tolist()
    return found


def r_squared(given: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """R squared of ridge regression in five-fold cross-validation, mean over three ways to divide."""
    rows = seeds.sample(len(values), MOST, 0)
    penalties = RidgeCV(10.0 ** np.arange(-5, 6))  # chosen by leave-one-out on the training molecules
    folds = (KFold(5, shuffle=True, random_state=seed) for seed in range(3))
    return float(
        np.mean([r2_score(values[rows], cross_val_predict(penalties, given[rows], values[rows], cv=k)) for k in folds])
    )


def judge(model: encoder.Encoder, layers: encoder.Layers) -> dict[str, Any]:
    """All of it, for one encoder by its last layer or by all."""
    pools = {name: unseen(name, POOL * POOLS) for name in CORPORA}
    found: dict[str, Any] = {f"retrieval_{name}": retrieval(model, some, layers) for name, some in pools.items()}
    if layers == "last":
        found |= handedness(model, pools["mixed"])
    return found | errors(model, layers)


def errors(model: encoder.Encoder, layers: encoder.Layers) -> dict[str, float]:
    """Scores of an encoder by its last layer or by all."""

    def inputs(smiles: Sequence[str]) -> NDArray[np.float64]:
        return model.embed(drawn(tuple(smiles), model.preprocess.size), layers=layers).double().numpy()

    return scores(inputs)


@cache
def drawn(smiles: tuple[str, ...], size: int) -> NDArray[np.uint8]:
    """Plain drawings, made once for both choices of layers."""
    return drawing.draw_all(list(smiles), size, "plain", 0)


def bakeoff(name: str, values: dict[str, Any], sample: int = 8712) -> encoder.Encoder:
    """Pretrain on few molecules (512 of them held out), with parameters of the profile but for `values`."""
    few = {"sample": sample, "validation_fraction": 512 / sample, "warmup_steps": 5, "cache": None, "workers": 0}
    few |= {"output": f"runs/laptop/bakeoff/{name}", "evaluate_every": None, "log_every": 4, "checkpoint_every": 20}
    p: Any = params.read("03_pretrain", "params/laptop/pretrain.yaml", **{**few, **values})
    return encoder.load(pretrain.run(p))


def record(file: str, row: dict[str, Any]) -> None:
    """Put a line into a table of results, in place of the one of the same name."""
    path = RESULTS / file
    before = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["name"])
    table = pd.concat([before[before["name"] != row["name"]], pd.DataFrame([row])], ignore_index=True)
    table.to_csv(path, index=False, float_format="%.4g")
    print(pd.Series(row).to_string())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("judge", "errors"):
        judged = commands.add_parser(name)
        judged.add_argument("name")
        judged.add_argument("encoder")
        judged.add_argument("--size", type=int)
    commands.add_parser("fingerprints")
    tried = commands.add_parser("bakeoff")
    tried.add_argument("name")
    tried.add_argument("changes", nargs="?", default="{}")
    a = parser.parse_args()
    started = time.monotonic()
    if a.command in ("judge", "errors"):
        model = encoder.load(a.encoder, size=a.size)
        for layers in get_args(encoder.Layers):
            found = (judge if a.command == "judge" else errors)(model, layers)
            record("lite.csv", {"name": a.name + ", last layer" * (layers == "last"), **found})
    elif a.command == "fingerprints":
        baselines._scaler = lambda _: FunctionTransformer()  # counts are on one scale
        record(
            "lite.csv",
            {
                "name": "count Morgan fingerprints",
                **scores(lambda smiles: molecules.morgan(smiles, counts=True).astype(float)),
            },
        )
    else:
        model = bakeoff(a.name, yaml.safe_load(a.changes))
        row = {"name": a.name, "changed": a.changes, "seconds": time.monotonic() - started}
        record("lite_bakeoff.csv", row | judge(model, "last"))


if __name__ == "__main__":
    main()
