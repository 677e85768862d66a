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

from moleclip import params

PROFILE = config.get("profile", "demo")
STUDY = config.get("study")
try:
    PARAMETERS, FAN_OUT = params.read_profile(f"params/{PROFILE}", STUDY)
except params.ParameterError as error:
    raise WorkflowError(str(error))

DEPICT, CLUSTER, PRETRAIN, CATALYSIS, MOLECULENET, DRAW = params.MODELS
RUNS = f"runs/{PROFILE}"
OWN = f"{RUNS}/{STUDY}" if STUDY else RUNS  # of this fan-out
JOB = f"{OWN}/finetune/{{dataset}}/{{model}}/split_{{seed}}"
JOBS = params.jobs(FAN_OUT, f"{OWN}/finetune")
RUN = (
    "OMP_NUM_THREADS={threads} {sys.executable} -m moleclip.notebooks run {input.notebook} {output.notebook}"
    " --file {input.parameters}"
)


def modules(source):
    """Files of the module that Python source imports, and those that these import.

    params.py holds types only, which cannot change a result.
    """
    found, queue = set(), [source]
    while queue:
        imports = [node for node in ast.walk(ast.parse(queue.pop())) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        names = {name.split(".")[1] for name in names if name.startswith("moleclip.")} - {"params"} - found
        found |= names
        queue += [Path(f"moleclip/{name}.py").read_text() for name in names]
    return [f"moleclip/{name}.py" for name in sorted(found)]


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


DRAWN = FAN_OUT.draw | ({"runs": OWN} if STUDY else {})
try:  # refuse a bad fan-out before anything runs
    for job in JOBS:
        params.read(job.notebook, f"params/{PROFILE}/{params.parameter_file(job.notebook)}", **job.overrides)
    DRAWING = params.read(DRAW, f"params/{PROFILE}/{params.parameter_file(DRAW)}", **DRAWN)
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
    threads: workflow.cores
    shell:
        RUN


def job_of(wildcards):
    return next(job for job in JOBS if (job.dataset, job.model, str(job.seed)) == tuple(wildcards))


def trained_encoder(wildcards):
    """The encoder folder as an input, where a notebook of this workflow writes it."""
    folder = PARAMETERS[PRETRAIN].output
    source = job_of(wildcards).overrides.get("encoder", "")
    return {"encoder": [f"{folder}/model.safetensors", f"{folder}/config.json"]} if source == folder else {}


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


rule catalysis:
    input:
        unpack(trained_encoder),
        **code(CATALYSIS),
    output:
        **outputs(CATALYSIS),
    wildcard_constraints:
        dataset=only(FAN_OUT.finetune_catalysis),
    params:
        overrides=lambda wildcards: json.dumps(job_of(wildcards).overrides),
    shell:
        RUN + " --yaml {params.overrides:q}"


rule moleculenet:
    input:
        unpack(trained_encoder),
        **code(MOLECULENET),
    output:
        **outputs(MOLECULENET),
    wildcard_constraints:
        dataset=only(FAN_OUT.finetune_moleculenet),
    params:
        overrides=lambda wildcards: json.dumps(job_of(wildcards).overrides),
    shell:
        RUN + " --yaml {params.overrides:q}"


# The profile's own page shows its whole walk, a study's only its jobs.
WALK = [] if STUDY else [*rules.depict.output, *rules.cluster.output, *rules.pretrain.output]
FINETUNED = [
    path.format(dataset=job.dataset, model=job.model, seed=job.seed)
    for job in JOBS
    for path in outputs(job.notebook).values()
]


rule draw:
    input:
        **code(DRAW),
        walk=WALK,
        jobs=FINETUNED,
    output:
        notebook=f"{OWN}/notebooks/{DRAW}.ipynb",
        figures=expand(
            "{folder}/{name}.{ending}", folder=DRAWING.output, name=DRAWING.figures, ending=["png", "pdf", "json"]
        ),
        record=f"{DRAWING.output}/{DRAW}.json",
    params:
        overrides=json.dumps(DRAWN),
    shell:
        RUN + " --yaml {params.overrides:q}"


rule all:
    default_target: True
    # Every output, not only the last: one that a failure took away must be made again even where the figures remain.
    input:
        WALK,
        FINETUNED,
        rules.draw.output,
