"""The notebooks of a profile as a workflow: `snakemake --cores 2 --config profile=demo`.

A job is one notebook with its parameters. Its inputs are the notebook, its parameter file, the module files it uses
and what earlier notebooks wrote, so that an edit reruns what depends on it and nothing else.
"""

import ast
import itertools
import json
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from moleclip import params

PROFILE = config.get("profile", "demo")
try:
    PARAMETERS, FAN_OUT = params.read_profile(f"params/{PROFILE}")
except params.ParameterError as error:
    raise WorkflowError(str(error))

DEPICT, CLUSTER, PRETRAIN, FINETUNE, DRAW = params.MODELS
RUNS = f"runs/{PROFILE}"
EXECUTED = f"{RUNS}/notebooks"
JOB = f"{RUNS}/finetune/{{dataset}}/{{model}}/split_{{seed}}"
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


def finetuning(dataset, model, seed):
    """Parameters of one finetuning job that its place in the fan-out sets."""
    return {
        **FAN_OUT.finetune.models[model],
        "name": model,
        "dataset": dataset,
        "split_seed": int(seed),
        "output": JOB.format(dataset=dataset, model=model, seed=seed),
    }


JOBS = list(
    itertools.starmap(
        finetuning,
        itertools.product(FAN_OUT.finetune.datasets, FAN_OUT.finetune.models, FAN_OUT.finetune.split_seeds),
    )
)
for job in JOBS:  # refuse a bad fan-out before anything runs
    try:
        params.read(FINETUNE, f"params/{PROFILE}/{params.parameter_file(FINETUNE)}", **job)
    except params.ParameterError as error:
        raise WorkflowError(f"params/{PROFILE}/profile.yaml, {error}")


rule depict:
    input:
        **code(DEPICT),
    output:
        notebook=f"{EXECUTED}/{DEPICT}.ipynb",
        tables=expand("{folder}/{set}.parquet", folder=PARAMETERS[DEPICT].output, set=PARAMETERS[DEPICT].datasets),
        record=f"{PARAMETERS[DEPICT].output}/{DEPICT}.json",
    shell:
        RUN


rule cluster:
    input:
        **code(CLUSTER),
        molecules=PARAMETERS[CLUSTER].molecules,
    output:
        notebook=f"{EXECUTED}/{CLUSTER}.ipynb",
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
        notebook=f"{EXECUTED}/{PRETRAIN}.ipynb",
        weights=f"{PARAMETERS[PRETRAIN].output}/model.safetensors",
        card=f"{PARAMETERS[PRETRAIN].output}/config.json",
        record=f"{PARAMETERS[PRETRAIN].output}/{PRETRAIN}.json",
    threads: workflow.cores
    shell:
        RUN


def trained_encoder(wildcards):
    """The encoder folder as an input, where a notebook of this workflow writes it."""
    folder = PARAMETERS[PRETRAIN].output
    source = finetuning(**wildcards).get("encoder", "")
    return {"encoder": [f"{folder}/model.safetensors", f"{folder}/config.json"]} if source == folder else {}


rule finetune:
    input:
        unpack(trained_encoder),
        **code(FINETUNE),
    output:
        notebook=f"{EXECUTED}/{FINETUNE}/{{dataset}}/{{model}}/split_{{seed}}.ipynb",
        scores=f"{JOB}/scores.parquet",
        predictions=f"{JOB}/predictions.parquet",
        curves=f"{JOB}/curves.parquet",
        record=f"{JOB}/{FINETUNE}.json",
    params:
        overrides=lambda wildcards: json.dumps(finetuning(**wildcards)),
    shell:
        RUN + " --yaml {params.overrides:q}"


rule draw:
    input:
        **code(DRAW),
        tables=rules.depict.output.tables,
        sweep=rules.cluster.output.sweep,
        card=rules.pretrain.output.card,
        jobs=[f"{job['output']}/{FINETUNE}.json" for job in JOBS],
    output:
        notebook=f"{EXECUTED}/{DRAW}.ipynb",
        figures=expand(
            "{folder}/{name}.{ending}",
            folder=PARAMETERS[DRAW].output,
            name=PARAMETERS[DRAW].figures,
            ending=["png", "pdf", "json"],
        ),
        record=f"{PARAMETERS[DRAW].output}/{DRAW}.json",
    shell:
        RUN


rule all:
    default_target: True
    # Every output, not only the last: one that a failure took away must be made again even where the figures remain.
    input:
        rules.depict.output,
        rules.cluster.output,
        rules.pretrain.output,
        [
            path.format(dataset=job["dataset"], model=job["name"], seed=job["split_seed"])
            for job in JOBS
            for path in rules.finetune.output
        ],
        rules.draw.output,
