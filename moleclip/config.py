"""Parameters of pretraining, domain-focused pretraining and finetuning: names, types and limits."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from moleclip.io import errors

# Raise by hand when a change of code changes results: everything that is kept is then made anew. Changed comments and
# docstrings do not count, changed data, parameters and library versions count anyway.
RESULTS = 3


def cache(folder: str | Path | None) -> Path | None:
    """Folder for what is kept in a cache, if there is one: another for each `RESULTS`."""
    return Path(folder) / f"results_{RESULTS}" if folder else None


BUILT_IN = ("lite", "lite/domain")  # encoders inside this package, in folders of these names with _ for /


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def as_list(value: Any) -> Any:
    """Take a single name as a list of one: papermill's -p gives no lists."""
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(as_list)] | None
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Float, Field(gt=0)]
Share = Annotated[Float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]
# Relative to the project's folder, where `provenance.start` takes the kernel.
PathText = Annotated[str, Field(min_length=1)]
Workers = Annotated[int, Field(ge=0)]
Decay = Literal["constant", "linear", "cosine"]
Augmentation = Literal["none", "default", "intense", "intense_2024"]
Drawing = Literal[
    "plain", "r_groups", "r_groups_without_carbon", "r_groups_new_layout", "r_groups_new_layout_without_carbon"
]
Precision = Literal["no", "bf16", "fp16"]
# Format of the weights, and Adam's weight decay: the authors', the trap that it is in fp32, and the sound one.
Arithmetic = Literal["fp16_l2", "fp32_l2", "fp32_adamw"]


class Parameters(BaseModel):
    """What all notebooks' parameters share: no extra names, no silent conversions.

    A field with a default was added when there were runs already: while it has that value, it is left out of what
    identifies a run, so that those runs still count.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def identity(self, exclude: Iterable[str] = ()) -> dict[str, Any]:
        """Name what results depend on, without some fields and without those added later and left as they were."""
        return self.model_dump(exclude=set(exclude), exclude_defaults=True)

    @model_validator(mode="after")
    def _fp16_weights_need_no_autocast(self) -> Self:
        values = vars(self)
        if values.get("arithmetic") == "fp16_l2" and values["precision"] != "no":
            raise ValueError(
                f"arithmetic fp16_l2 has weights in fp16: precision must be 'no', not {values['precision']!r}"
            )
        return self


class Pretrain(Parameters):
    """Parameters of notebook 03."""

    labels: PathText
    sample: Count | None
    output: PathText
    encoder: str
    image_size: Count | None
    epochs: Count
    batch_size: Count
    group_size: Count
    lr: Positive
    head_lr: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    decay: Decay
    weight_decay: Annotated[Float, Field(ge=0)]
    logit_scale: Positive
    k: Annotated[list[Count], Field(max_length=4)]
    contrastive: bool
    augmentation: Augmentation
    validation_fraction: Share
    precision: Precision
    processes: Count
    micro_batch_size: Count | None
    workers: Workers
    cache: PathText | None
    log_every: Count
    evaluate_every: Count | None
    checkpoint_every: Count
    tensorboard: bool
    keep_moments: bool
    seed: Seed
    arithmetic: Arithmetic = "fp32_l2"
    channel_order: Literal["RGB", "BGR"] | None = None
    redraw: bool = True
    class_weight: Annotated[Float, Field(ge=0)] = 1.0
    slow_steps: Annotated[int, Field(ge=0)] = 0
    hold_out_groups: bool = False
    enantiomers: bool = False

    @model_validator(mode="after")
    def _batches_are_whole(self) -> "Pretrain":
        for name, number in (("group_size", self.group_size), ("processes", self.processes)):
            if self.batch_size % number:
                raise ValueError(f"batch_size {self.batch_size} is not a multiple of {name} {number}")
        if len(set(self.k)) < len(self.k):
            raise ValueError(f"k has a value twice: {self.k}")
        if self.checkpoint_every % self.log_every:
            raise ValueError(f"checkpoint_every {self.checkpoint_every} is no multiple of log_every {self.log_every}")
        if not self.contrastive and not (self.k and self.class_weight):
            raise ValueError("contrastive is off and k is empty, or class_weight 0: nothing to train on")
        return self


FORESTS = ("ecfp4_forest", "ecfp4_extra_trees", "descriptor_forest", "descriptor_extra_trees")


# What deserves to be compared with: every model without a network, at its usual settings or tuned.
CLASSICAL = (*FORESTS, "count_forest", "tuned_forest", "gradient_boosting", "tanimoto_gp", "mean")
GROUPS = {"forests": FORESTS, "classical": CLASSICAL}


def each_of(names: list[Any]) -> list[Any]:
    """Take the name of a group for all models of it, each once."""
    return list(dict.fromkeys(model for name in names for model in GROUPS.get(name, [name])))


Baseline = Literal[
    "frozen",
    "frozen_best",
    "fingerprint_mlp",
    "ecfp4_forest",
    "ecfp4_extra_trees",
    "descriptor_forest",
    "descriptor_extra_trees",
    "count_forest",
    "tuned_forest",
    "gradient_boosting",
    "tanimoto_gp",
    "chemprop",
    "chemeleon",
    "mean",
]


class Finetune(Parameters):
    """Parameters of notebook 04."""

    dataset: str
    smiles_column: str
    label_columns: Names
    sample: Count | None
    drawing: Drawing
    encoder: str
    image_size: Count | None
    name: Annotated[str, Field(min_length=1)]
    baselines: list[Baseline]
    frozen_layers: Literal["all", "last"]
    output: PathText
    split: Literal["random", "scaffold"] | None
    split_seed: Seed
    holdout: Annotated[Float, Field(gt=0, lt=0.5)] | None
    metric: Literal["MAE", "RMSE", "ROC-AUC"] | None
    head_lr: Annotated[list[Positive], Field(min_length=1)]
    augmentation: Annotated[list[Augmentation], Field(min_length=1)]
    epochs: Count | None
    repeats: Count
    final_epochs: Count | None
    final_repeats: Count
    lr: Positive | None
    optimizer: Literal["adam", "sgd"]
    moments: bool
    weight_decay: Annotated[Float, Field(ge=0)]
    scale_labels: bool
    batch_size: Count | None
    precision: Precision
    keep_models: bool
    workers: Workers
    seed: Seed
    arithmetic: Arithmetic = "fp32_l2"
    head_adam: Literal["pytorch", "encoder"] = "pytorch"
    head_layers: Annotated[int, Field(ge=0)] = 3
    regression_loss: Literal["l1", "mse"] = "l1"
    mlp_weight_decay: Annotated[Float, Field(ge=0)] = 0.0

    @field_validator("baselines", mode="before")
    @classmethod
    def _each_of_a_group(cls, names: Any) -> Any:
        known = [*GROUPS, *get_args(Baseline)]
        for name in names if isinstance(names, list) else ():
            if name not in known:
                raise ValueError(f"unknown baseline {name!r}{errors.nearest(str(name), known)}")
        return each_of(names) if isinstance(names, list) else names

    @model_validator(mode="after")
    def _something_to_do(self) -> "Finetune":
        if not self.encoder and not self.baselines:
            raise ValueError("encoder is empty and baselines too: nothing to train")
        if self.moments and self.optimizer != "adam":
            raise ValueError("moments are Adam's, and the optimizer is another")
        if self.arithmetic != "fp32_l2" and self.optimizer != "adam":
            raise ValueError(f"arithmetic {self.arithmetic} is Adam's, and the optimizer is another: take fp32_l2")
        if any(name.startswith("frozen") for name in self.baselines) and not self.encoder:
            raise ValueError("the baselines 'frozen' and 'frozen_best' need an encoder")
        if self.name in get_args(Baseline):
            raise ValueError(f"name is {self.name!r}, which is a baseline's: give the encoder another")
        return self


class PretrainDomain(Parameters):
    """Parameters of notebook 05."""

    dataset: str
    descriptors: list[str]
    sample: Count | None
    encoder: str
    output: PathText
    epochs: Annotated[list[Count], Field(min_length=1)]
    augmentation: Augmentation
    scale_labels: bool
    lr: Positive
    head_lr: Positive
    weight_decay: Annotated[Float, Field(ge=0)]
    batch_size: Count
    precision: Precision
    workers: Workers
    checkpoint_every: Count
    overlap: list[str]
    seed: Seed
    arithmetic: Arithmetic = "fp32_l2"
    moments: bool = False
    keep_moments: bool = False
