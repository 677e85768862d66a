"""The notebooks of a profile as a workflow: `snakemake --cores 2 --config profile=demo`, or one of its studies:
`snakemake --cores 2 --config profile=paper study=baseline`.

A job is one notebook with its parameters. It runs again when its data change (what earlier notebooks wrote, or a file
of your own), the value of a parameter, the version of a library, or `moleclip.config.RESULTS`, a number raised by hand.
"""

import json
import os
import re
import sys

from moleclip import datasets
from moleclip.config import RESULTS
from moleclip.io import downloads, errors, molecule_files
from moleclip.paper import compare
from moleclip.workflow import params, provenance

PROFILE = config.get("profile", "demo")
STUDY = config.get("study")
try:
    PARAMETERS, FAN_OUT = params.read_profile(f"params/{PROFILE}", STUDY)
except params.ParameterError as error:
    sys.exit(str(error))

QUICKSTART, DEPICT, CLUSTER = "00_quickstart", "01_depict_molecules", "02_cluster_structures"
PRETRAIN, FINETUNE, DOMAIN, EXPLORE = "03_pretrain", params.FINETUNE, "05_pretrain_domain", "07_explore_encoder"
TRAIN = "08_train_model"
PAGE = FAN_OUT.page
RUNS = params.runs_folder(PROFILE)
OWN = params.runs_folder(PROFILE, STUDY)  # of this fan-out
JOB = f"{OWN}/finetune/{{dataset}}/{{model}}/split_{{seed}}"
RUN = (
    "OMP_NUM_THREADS={threads} {sys.executable} -m moleclip.workflow.notebooks run notebooks/{params.notebook}.ipynb"
    " {output.notebook} --yaml {params.values:q}"
)


def changes(notebook, values):
    """What makes a job run again, besides its inputs; Snakemake compares the texts.

    `values` are all parameters of the notebook, or a function of the job's wildcards that gives them.
    """
    return {
        "notebook": notebook,
        "values": (lambda wildcards: dump(values(wildcards))) if callable(values) else dump(values),
        "version": f"results {RESULTS}",
        "libraries": json.dumps(provenance.versions(notebook)),
    }


def dump(values):
    return json.dumps(values.identity())


def read(notebook, **overrides):
    return params.read(notebook, f"params/{PROFILE}/{params.parameter_file(notebook)}", **overrides)


def further(notebook, variants):
    """Parameters of the encoders besides the profile's, each with a folder of its own."""
    return {
        name: read(notebook, **{**values, "output": f"{OWN}/encoders/{name}"}) for name, values in variants.items()
    }


try:  # refuse a bad fan-out before anything runs
    JOBS = {
        (job.dataset, job.model, str(job.seed)): read(FINETUNE, **job.overrides)
        for job in params.jobs(FAN_OUT, f"{OWN}/finetune")
    }
    PRETRAINED = further(PRETRAIN, FAN_OUT.pretrain)
    FOCUSED = further(DOMAIN, FAN_OUT.pretrain_domain)
    drawn = {"runs": OWN, "jobs": [p.output for p in JOBS.values()], "output": f"{OWN}/figures"}
    DRAWING = read(PAGE, **FAN_OUT.draw, **{name: drawn[name] for name in drawn if name in params.defaults(PAGE)})
    MAPPED = list(getattr(DRAWING, "maps", {}).values())
    # What says that an encoder folder is whole.
    ENCODERS = {p.output: f"{p.output}/{PRETRAIN}.json" for p in (PARAMETERS[PRETRAIN], *PRETRAINED.values())}
    ENCODERS |= {f"{p.output}/epochs_{n}": f"{p.output}/{DOMAIN}.json" for p in FOCUSED.values() for n in p.epochs}
except params.ParameterError as error:
    sys.exit(f"params/{PROFILE}/{params.fan_out_file(STUDY)}, {error}")
# What no notebook would find, each with the first file that says it.
wrong = {}
for notebook, p in () if STUDY else PARAMETERS.items():
    for problem in params.mistakes(p, RUNS, ENCODERS):
        wrong.setdefault(problem, params.parameter_file(notebook))
for p in (*JOBS.values(), *FOCUSED.values(), *PRETRAINED.values(), DRAWING):
    for problem in params.mistakes(p, RUNS, ENCODERS):
        wrong.setdefault(problem, params.fan_out_file(STUDY))
for notebook in () if STUDY or wrong else (QUICKSTART, EXPLORE):
    model, known = PARAMETERS[notebook].model, [p.output for p in JOBS.values()]
    if model not in known and (model.startswith(f"{RUNS}/") or not os.path.isdir(model or ".")):
        wrong[f"no notebook writes {model!r}{errors.nearest(model, known)}"] = params.parameter_file(notebook)
if wrong:
    sys.exit("\n".join(f"params/{PROFILE}/{file}: {problem}" for problem, file in wrong.items()))


def trained(*sources):
    """What must be there before encoders can be loaded: what a notebook of this workflow writes, or files of your own."""
    foreign = [source for source in sources if source not in (*ENCODERS, *downloads.table(), "")]
    return [ENCODERS[source] for source in sources if source in ENCODERS] + list(map(str, datasets.files(foreign)))


def place(source):
    """Where a file is, or where it is said to be: then it is missing, but only for who needs it."""
    try:
        return str(datasets.find(source))
    except FileNotFoundError:
        return source


def data(*sources):
    """Places of those of the sources that are files, and not data sets by their names."""
    return [place(source) for source in sources if molecule_files.kind(source)]


def as_list(sources):
    return [sources] if isinstance(sources, str) else sources


def outputs(notebook):
    """What a finetuning job writes."""
    return {
        "notebook": f"{OWN}/notebooks/{notebook}/{{dataset}}/{{model}}/split_{{seed}}.ipynb",
        **{name: f"{JOB}/{name}.parquet" for name in ("scores", "predictions", "curves")},
        "record": f"{JOB}/{notebook}.json",
    }


FINETUNED = {
    p.output: [path.format(dataset=dataset, model=model, seed=seed) for path in outputs(FINETUNE).values()]
    for (dataset, model, seed), p in JOBS.items()
}


def only(names):
    """Pattern of a wildcard that is one of these names."""
    return "|".join(map(re.escape, names)) or "(?!)"


rule depict:
    input:
        data(*PARAMETERS[DEPICT].datasets),
    output:
        notebook=f"{RUNS}/notebooks/{DEPICT}.ipynb",
        tables=[f"{PARAMETERS[DEPICT].output}/{datasets.short_name(source)}.parquet" for source in PARAMETERS[DEPICT].datasets],
        record=f"{PARAMETERS[DEPICT].output}/{DEPICT}.json",
    params:
        **changes(DEPICT, PARAMETERS[DEPICT]),
    shell:
        RUN


rule cluster:
    input:
        data(*as_list(PARAMETERS[CLUSTER].molecules)),
    output:
        notebook=f"{RUNS}/notebooks/{CLUSTER}.ipynb",
        labels=f"{PARAMETERS[CLUSTER].output}/labels.parquet",
        sweep=f"{PARAMETERS[CLUSTER].output}/sweep.parquet",
        record=f"{PARAMETERS[CLUSTER].output}/{CLUSTER}.json",
    params:
        **changes(CLUSTER, PARAMETERS[CLUSTER]),
    threads: workflow.cores
    shell:
        RUN


rule pretrain:
    input:
        data(PARAMETERS[PRETRAIN].labels),
        trained(PARAMETERS[PRETRAIN].encoder),
    output:
        notebook=f"{RUNS}/notebooks/{PRETRAIN}.ipynb",
        weights=f"{PARAMETERS[PRETRAIN].output}/model.safetensors",
        card=f"{PARAMETERS[PRETRAIN].output}/config.json",
        record=f"{PARAMETERS[PRETRAIN].output}/{PRETRAIN}.json",
    params:
        **changes(PRETRAIN, PARAMETERS[PRETRAIN]),
    threads: workflow.cores
    shell:
        RUN


use rule pretrain as pretrain_another with:
    input:
        lambda wildcards: data(PRETRAINED[wildcards.variant].labels),
        lambda wildcards: trained(PRETRAINED[wildcards.variant].encoder),
    output:
        notebook=f"{OWN}/notebooks/{PRETRAIN}/{{variant}}.ipynb",
        weights=f"{OWN}/encoders/{{variant}}/model.safetensors",
        card=f"{OWN}/encoders/{{variant}}/config.json",
        record=f"{OWN}/encoders/{{variant}}/{PRETRAIN}.json",
    wildcard_constraints:
        variant=only(PRETRAINED),
    params:
        **changes(PRETRAIN, lambda wildcards: PRETRAINED[wildcards.variant]),
    resources:
        gpu=1,


rule pretrain_domain:
    input:
        lambda wildcards: data(FOCUSED[wildcards.variant].dataset),
        lambda wildcards: trained(FOCUSED[wildcards.variant].encoder),
    output:
        notebook=f"{OWN}/notebooks/{DOMAIN}/{{variant}}.ipynb",
        tables=expand(f"{OWN}/encoders/{{{{variant}}}}/{{table}}.parquet", table=["curves", "predictions"]),
        record=f"{OWN}/encoders/{{variant}}/{DOMAIN}.json",
    wildcard_constraints:
        variant=only(FOCUSED),
    params:
        **changes(DOMAIN, lambda wildcards: FOCUSED[wildcards.variant]),
    threads: workflow.cores
    resources:
        gpu=1,
    shell:
        RUN


rule finetune:
    input:
        lambda wildcards: data(JOBS[tuple(wildcards)].dataset),
        lambda wildcards: trained(JOBS[tuple(wildcards)].encoder),
    output:
        **outputs(FINETUNE),
    wildcard_constraints:
        dataset=only(FAN_OUT.finetune),
    params:
        **changes(FINETUNE, lambda wildcards: JOBS[tuple(wildcards)]),
    resources:
        gpu=lambda wildcards: int(bool(JOBS[tuple(wildcards)].encoder)),
    shell:
        RUN


# The profile's own page shows its whole walk, a study's only its jobs.
WALK = [] if STUDY else [*rules.depict.output, *rules.cluster.output, *rules.pretrain.output]
# Notebook 09 draws what it is told to, the others what they always draw.
FIGURES = getattr(DRAWING, "figures", ["r_groups"])
TABLES, OURS = [], []
if PAGE == "10_reproduce_paper":
    TABLES = ["fig_2", "fig_3a", "fig_3b", "fig_4a", "fig_4b", "fig_s2", "ablations"]
    TABLES += ["table_2", "table_s4", "table_s5", "table_s6", "table_ablations"]
    FIGURES = [*TABLES, "claims"]
    TABLES += ["ledger", "slips"]
    OURS = compare.read().files  # published results of this project, which are set beside the paper's


rule draw:
    input:
        trained(*MAPPED),
        WALK,
        FINETUNED.values(),
        OURS,
    output:
        notebook=f"{OWN}/notebooks/{PAGE}.ipynb",
        figures=expand("{folder}/{name}.{ending}", folder=DRAWING.output, name=FIGURES, ending=["png", "pdf", "json"]),
        tables=expand("{folder}/{name}.csv", folder=DRAWING.output, name=TABLES),
        record=f"{DRAWING.output}/{PAGE}.json",
    params:
        **changes(PAGE, DRAWING),
    shell:
        RUN


rule quickstart:
    input:
        data(PARAMETERS[QUICKSTART].table),
        trained(PARAMETERS[QUICKSTART].encoder),
        FINETUNED.get(PARAMETERS[QUICKSTART].model, []),
    output:
        notebook=f"{RUNS}/notebooks/{QUICKSTART}.ipynb",
        record=f"{PARAMETERS[QUICKSTART].output}/{QUICKSTART}.json",
    params:
        **changes(QUICKSTART, PARAMETERS[QUICKSTART]),
    threads: workflow.cores
    shell:
        RUN


rule explore:
    input:
        data(PARAMETERS[EXPLORE].dataset, PARAMETERS[EXPLORE].chiral),
        trained(*PARAMETERS[EXPLORE].encoders.values()),
        FINETUNED.get(PARAMETERS[EXPLORE].model, []),
    output:
        notebook=f"{RUNS}/notebooks/{EXPLORE}.ipynb",
        figures=expand(
            "{folder}/{name}.{ending}",
            folder=PARAMETERS[EXPLORE].output,
            name=["embeddings", "saliency", "gradients", "faithfulness", "robustness"],
            ending=["png", "pdf", "json"],
        ),
        tables=expand(
            "{folder}/{name}.csv",
            folder=PARAMETERS[EXPLORE].output,
            name=["neighbours", "faithfulness", "robustness"],
        ),
        record=f"{PARAMETERS[EXPLORE].output}/{EXPLORE}.json",
    params:
        **changes(EXPLORE, PARAMETERS[EXPLORE]),
    resources:
        gpu=1,
    shell:
        RUN


rule train:
    input:
        data(PARAMETERS[TRAIN].table, *as_list(PARAMETERS[TRAIN].molecules)),
        trained(PARAMETERS[TRAIN].encoder),
    output:
        notebook=f"{RUNS}/notebooks/{TRAIN}.ipynb",
        card=f"{PARAMETERS[TRAIN].output}/model/config.json",
        predictions=f"{PARAMETERS[TRAIN].output}/predictions.csv",
        record=f"{PARAMETERS[TRAIN].output}/{TRAIN}.json",
    params:
        **changes(TRAIN, PARAMETERS[TRAIN]),
    resources:
        gpu=1,
    shell:
        RUN


rule all:
    default_target: True
    # Every output, not only the last: one that a failure took away must be made again even where the figures remain.
    input:
        WALK,
        [record for folder, record in ENCODERS.items() if STUDY is None or folder.startswith(f"{OWN}/")],
        FINETUNED.values(),
        rules.draw.output,
        [] if STUDY else [*rules.quickstart.output, *rules.explore.output, *rules.train.output],
