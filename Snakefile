"""The notebooks of a profile as a workflow: `snakemake --cores 2 --config profile=demo`, or one of its studies:
`snakemake --cores 2 --config profile=paper study=baseline`.

A job is one notebook with its parameters. Its inputs are the notebook, its parameter file, the module files it uses
and what earlier notebooks wrote, so that an edit reruns what depends on it and nothing else.
"""

import ast
import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from moleclip.io import errors
from moleclip.paper import compare
from moleclip.workflow import params

PROFILE = config.get("profile", "demo")
STUDY = config.get("study")
try:
    PARAMETERS, FAN_OUT = params.read_profile(f"params/{PROFILE}", STUDY)
except params.ParameterError as error:
    raise WorkflowError(str(error))

QUICKSTART, DEPICT, CLUSTER, PRETRAIN, FINETUNE, DOMAIN, *_ = params.MODELS
EXPLORE, CLAIMS = params.EXPLORE, params.CLAIMS
PAGE = FAN_OUT.page
RUNS = f"runs/{PROFILE}"
OWN = f"{RUNS}/{STUDY}" if STUDY else RUNS  # of this fan-out
JOB = f"{OWN}/finetune/{{dataset}}/{{model}}/split_{{seed}}"
RUN = (
    "OMP_NUM_THREADS={threads} {sys.executable} -m moleclip.workflow.notebooks run {input.notebook} {output.notebook}"
    " --file {input.parameters}"
)
OVERRIDES = " --yaml {params.overrides:q}"


def modules(source):
    """Files of the module that Python source imports, and those that these import.

    params.py holds types only, which cannot change a result.
    """
    found, queue = set(), [source]
    while queue:
        imports = [node for node in ast.walk(ast.parse(queue.pop())) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        paths = {Path(*name.split(".")) for name in names if name.startswith("moleclip.")}
        # What is no file is a name in one, or in the package itself.
        files = {path.with_suffix(".py") for path in paths} | {path.parent.with_suffix(".py") for path in paths}
        files = {str(file) for file in files if file.is_file()} - {"moleclip/workflow/params.py"} - found
        found |= files
        queue += [Path(file).read_text() for file in files]
    return sorted(found)


def code(notebook):
    """Inputs that every job has."""
    path = f"notebooks/{notebook}.ipynb"
    cells = json.loads(Path(path).read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    plain = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    return {
        "notebook": path,
        "parameters": f"params/{PROFILE}/{params.parameter_file(notebook)}",
        "modules": modules(plain),
    }


def read(notebook, **overrides):
    return params.read(notebook, f"params/{PROFILE}/{params.parameter_file(notebook)}", **overrides)


def fanned_out(variants):
    """Parameters of encoders beside the profile's own, each with a folder of its own."""
    return {name: {**values, "output": f"{OWN}/encoders/{name}"} for name, values in variants.items()}


PRETRAINED, FOCUSED = fanned_out(FAN_OUT.pretrain), fanned_out(FAN_OUT.pretrain_domain)
DRAWN = FAN_OUT.draw | ({"runs": OWN} if STUDY else {})
try:  # refuse a bad fan-out before anything runs
    JOBS = params.jobs(FAN_OUT, f"{OWN}/finetune")
    for job in JOBS:
        read(FINETUNE, **job.overrides)
    for values in PRETRAINED.values():
        read(PRETRAIN, **values)
    DRAWN["jobs"] = [job.overrides["output"] for job in JOBS]
    DRAWING = read(PAGE, **DRAWN)
    MAPPED = list(getattr(DRAWING, "maps", {}).values())
    # What says that an encoder folder is whole.
    folders = [PARAMETERS[PRETRAIN].output, *(values["output"] for values in PRETRAINED.values())]
    ENCODERS = {folder: f"{folder}/{PRETRAIN}.json" for folder in folders}
    for values in FOCUSED.values():
        folder = values["output"]
        ENCODERS |= {f"{folder}/epochs_{n}": f"{folder}/{DOMAIN}.json" for n in read(DOMAIN, **values).epochs}
    named = [values.get("encoder", "") for values in (*(job.overrides for job in JOBS), *FOCUSED.values())]
    named += [read(PRETRAIN, **values).encoder for values in PRETRAINED.values()]
    for source in [*named, *MAPPED]:
        if source.startswith(f"{RUNS}/") and source not in ENCODERS:
            raise params.ParameterError(f"no notebook writes {source!r}{errors.nearest(source, list(ENCODERS))}")
except params.ParameterError as error:
    raise WorkflowError(f"params/{PROFILE}/{params.fan_out_file(STUDY)}, {error}")


rule depict:
    input:
        **code(DEPICT),
    output:
        notebook=f"{RUNS}/notebooks/{DEPICT}.ipynb",
        tables=expand("{folder}/{set}.parquet", folder=PARAMETERS[DEPICT].output, set=PARAMETERS[DEPICT].datasets),
        record=f"{PARAMETERS[DEPICT].output}/{DEPICT}.json",
    shell:
        RUN


rule cluster:
    input:
        **code(CLUSTER),
        molecules=PARAMETERS[CLUSTER].molecules,
    output:
        notebook=f"{RUNS}/notebooks/{CLUSTER}.ipynb",
        labels=f"{PARAMETERS[CLUSTER].output}/labels.parquet",
        sweep=f"{PARAMETERS[CLUSTER].output}/sweep.parquet",
        record=f"{PARAMETERS[CLUSTER].output}/{CLUSTER}.json",
    threads: workflow.cores
    shell:
        RUN


rule pretrain:
    input:
        **code(PRETRAIN),
        labels=PARAMETERS[PRETRAIN].labels,
    output:
        notebook=f"{RUNS}/notebooks/{PRETRAIN}.ipynb",
        weights=f"{PARAMETERS[PRETRAIN].output}/model.safetensors",
        card=f"{PARAMETERS[PRETRAIN].output}/config.json",
        record=f"{PARAMETERS[PRETRAIN].output}/{PRETRAIN}.json",
    params:
        overrides="{}",
    threads: workflow.cores
    shell:
        RUN + OVERRIDES


def trained(source):
    """What must be there before an encoder can be loaded, where a notebook of this workflow writes it."""
    return {"encoder": ENCODERS[source]} if source in ENCODERS else {}


def job_of(wildcards):
    return next(job for job in JOBS if (job.dataset, job.model, str(job.seed)) == tuple(wildcards))


def trained_encoder(wildcards):
    return trained(job_of(wildcards).overrides.get("encoder", ""))


def only(sets):
    """Pattern of a wildcard that is the name of one of these sets."""
    return "|".join(map(re.escape, sets)) or "(?!)"


def outputs(notebook):
    """What a finetuning job writes."""
    return {
        "notebook": f"{OWN}/notebooks/{notebook}/{{dataset}}/{{model}}/split_{{seed}}.ipynb",
        **{name: f"{JOB}/{name}.parquet" for name in ("scores", "predictions", "curves")},
        "record": f"{JOB}/{notebook}.json",
    }


def start_of(wildcards):
    """What a variant of the pretraining starts from, where it is no data set or weights by their name."""
    p = read(PRETRAIN, **PRETRAINED[wildcards.variant])
    return trained(p.encoder) | ({"labels": p.labels} if p.labels.endswith(".parquet") else {})


use rule pretrain as pretrain_another with:
    input:
        unpack(start_of),
        **code(PRETRAIN),
    output:
        notebook=f"{OWN}/notebooks/{PRETRAIN}/{{variant}}.ipynb",
        weights=f"{OWN}/encoders/{{variant}}/model.safetensors",
        card=f"{OWN}/encoders/{{variant}}/config.json",
        record=f"{OWN}/encoders/{{variant}}/{PRETRAIN}.json",
    wildcard_constraints:
        variant=only(PRETRAINED),
    params:
        overrides=lambda wildcards: json.dumps(PRETRAINED[wildcards.variant]),
    resources:
        gpu=1,


rule pretrain_domain:
    input:
        unpack(lambda wildcards: trained(read(DOMAIN, **FOCUSED[wildcards.variant]).encoder)),
        **code(DOMAIN),
    output:
        notebook=f"{OWN}/notebooks/{DOMAIN}/{{variant}}.ipynb",
        record=f"{OWN}/encoders/{{variant}}/{DOMAIN}.json",
    wildcard_constraints:
        variant=only(FOCUSED),
    params:
        overrides=lambda wildcards: json.dumps(FOCUSED[wildcards.variant]),
    threads: workflow.cores
    resources:
        gpu=1,
    shell:
        RUN + OVERRIDES


rule finetune:
    input:
        unpack(trained_encoder),
        **code(FINETUNE),
    output:
        **outputs(FINETUNE),
    resources:
        gpu=lambda wildcards: int(bool(job_of(wildcards).overrides.get("encoder", ""))),
    wildcard_constraints:
        dataset=only(FAN_OUT.finetune),
    params:
        overrides=lambda wildcards: json.dumps(job_of(wildcards).overrides),
    shell:
        RUN + OVERRIDES


# The profile's own page shows its whole walk, a study's only its jobs.
WALK = [] if STUDY else [*rules.depict.output, *rules.cluster.output, *rules.pretrain.output]
FINETUNED = [
    path.format(dataset=job.dataset, model=job.model, seed=job.seed)
    for job in JOBS
    for path in outputs(FINETUNE).values()
]

FIGURES = getattr(DRAWING, "figures", ["r_groups"])


# Our results that the paper's are set beside.
OURS = compare.read().files if FAN_OUT.claims else []


rule draw:
    input:
        **code(PAGE),
        mapped=[ENCODERS[source] for source in MAPPED if source in ENCODERS],
        walk=WALK,
        jobs=FINETUNED,
        ours=OURS,
    output:
        notebook=f"{OWN}/notebooks/{PAGE}.ipynb",
        figures=expand("{folder}/{name}.{ending}", folder=DRAWING.output, name=FIGURES, ending=["png", "pdf", "json"]),
        record=f"{DRAWING.output}/{PAGE}.json",
    params:
        overrides=json.dumps(DRAWN),
    shell:
        RUN + OVERRIDES


def quickstart_inputs(_):
    """What the quickstart loads, where a notebook of this workflow writes it."""
    chosen = PARAMETERS[QUICKSTART]
    return {**trained(chosen.encoder), "model": [path for path in FINETUNED if path.startswith(f"{chosen.model}/")]}


rule quickstart:
    input:
        unpack(quickstart_inputs),
        **code(QUICKSTART),
    output:
        notebook=f"{RUNS}/notebooks/{QUICKSTART}.ipynb",
        record=f"{PARAMETERS[QUICKSTART].output}/{QUICKSTART}.json",
    threads: workflow.cores
    shell:
        RUN


def explored(_):
    """What the exploration loads, where a notebook of this workflow writes it."""
    chosen = PARAMETERS[EXPLORE]
    model = [path for path in FINETUNED if path.startswith(f"{chosen.model}/")]
    if chosen.model.startswith(f"{RUNS}/") and not model:
        known = errors.nearest(chosen.model, [job.overrides["output"] for job in JOBS])
        raise WorkflowError(f"{params.parameter_file(EXPLORE)}: no notebook writes {chosen.model!r}{known}")
    return {"encoders": [ENCODERS[name] for name in chosen.encoders.values() if name in ENCODERS], "model": model}


rule explore:
    input:
        unpack(explored),
        **code(EXPLORE),
    output:
        notebook=f"{RUNS}/notebooks/{EXPLORE}.ipynb",
        figures=expand(
            "{folder}/{name}.{ending}",
            folder=PARAMETERS[EXPLORE].output,
            name=["embeddings", "saliency", "faithfulness", "robustness"],
            ending=["png", "pdf", "json"],
        ),
        tables=expand(
            "{folder}/{name}.csv",
            folder=PARAMETERS[EXPLORE].output,
            name=["neighbours", "faithfulness", "robustness"],
        ),
        record=f"{PARAMETERS[EXPLORE].output}/{EXPLORE}.json",
    resources:
        gpu=1,
    shell:
        RUN


rule reproduce_paper:
    input:
        **code(CLAIMS),
        ours=OURS,
    output:
        notebook=f"{OWN}/notebooks/{CLAIMS}.ipynb",
        tables=expand("{folder}/{name}.csv", folder=PARAMETERS[CLAIMS].output, name=["ledger", "slips"]),
        figure=expand("{folder}/claims.{ending}", folder=PARAMETERS[CLAIMS].output, ending=["png", "pdf", "json"]),
        record=f"{PARAMETERS[CLAIMS].output}/{CLAIMS}.json",
    shell:
        RUN


rule all:
    default_target: True
    # Every output, not only the last: one that a failure took away must be made again even where the figures remain.
    input:
        WALK,
        [ENCODERS[folder] for folder in ENCODERS if STUDY is None or folder.startswith(f"{OWN}/")],
        FINETUNED,
        rules.draw.output,
        [] if STUDY else rules.quickstart.output,
        [] if STUDY else rules.explore.output,
        rules.reproduce_paper.output if FAN_OUT.claims else [],
