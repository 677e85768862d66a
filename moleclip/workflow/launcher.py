"""Start a pretraining, on one processor or GPU or on several.

From a shell:

    python -m moleclip.workflow.launcher params/demo/pretrain.yaml
    torchrun --standalone --nproc-per-node 4 -m moleclip.workflow.launcher params/paper/pretrain.yaml --processes 4
"""

import argparse
import ctypes
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from moleclip import config, datasets, pretrain
from moleclip.io import files
from moleclip.workflow import params, provenance

# Loaded here, as little is safe between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

log = logging.getLogger("moleclip.workflow.launcher")  # as a program, it has no such name


def _record(p: config.Pretrain) -> dict[str, Any]:
    return provenance.collect("03_pretrain", p, datasets.files([p.labels, p.encoder]))


def run(p: config.Pretrain, watch: pretrain.Watch | None = None, keep_checkpoint: bool = False) -> Path:
    """Pretrain, in this process or in several.

    Several are started by torchrun, as a subprocess whose log is shown and kept in `train.log`.

    Parameters
    ----------
    p, watch, keep_checkpoint
        As of `pretrain.run`.

    Raises
    ------
    RuntimeError
        A process failed; and what `pretrain.run` raises.
    """
    if p.processes == 1:
        return pretrain.run(p, _record(p), watch, keep_checkpoint)
    output = Path(p.output)
    watched = pretrain.Watched(output, watch)
    files.write_json(output / "parameters.json", p.model_dump())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={p.processes}"]
    command += ["-m", "moleclip.workflow.launcher", str(output / "parameters.json")]
    command += ["--keep-checkpoint"] * keep_checkpoint
    with (
        open(output / "train.log", "a") as kept,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_end_with_parent
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                kept.write(line)
                kept.flush()
                log.info(line.rstrip())
                watched.look()
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise RuntimeError(f"pretraining ended with status {child.returncode}: see {output / 'train.log'}")
    watched.look(at_once=True)
    return output


def _end_with_parent() -> None:
    """Let this process be killed when the one that started it is, so that no orphan trains on."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Run, or be one of the processes of a run, from a shell."""
    if "WORLD_SIZE" in os.environ:
        _end_with_parent()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", help="parameters of notebook 03, as YAML or JSON")
    parser.add_argument("--processes", type=int, help="number of processes, instead of that in the file")
    parser.add_argument(
        "--keep-checkpoint", action="store_true", help="keep the last checkpoint when the run is finished"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("moleclip").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", ".*all_gather is deprecated", FutureWarning)  # in open_clip, for each process
    overrides = {} if arguments.processes is None else {"processes": arguments.processes}
    p = params.read("03_pretrain", arguments.file, **overrides)
    assert isinstance(p, config.Pretrain)
    if "WORLD_SIZE" in os.environ:
        pretrain.run(p, _record(p), keep_checkpoint=arguments.keep_checkpoint)
    else:
        run(p, keep_checkpoint=arguments.keep_checkpoint)


if __name__ == "__main__":
    main()
