"""Train nnU-Net v2 for minutes on some folds of a data set: run by nnU-Net's own Python.

It imports nothing of this project. Each step is skipped where its result exists:

NNUNET_PYTHON benchmarks/other_models/nnunet_folds.py --data DATASET_FOLDER --work WORK --folds 0,1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NUMBER = 4
"""Number of the data set in nnU-Net."""
PLANS = "nnUNetSmallPlans"
PREPROCESSED = "nnUNet_preprocessed"
"""Name of nnU-Net's own environment variable."""
CONFIGURATION = "3d_fullres"
FEATURES = 4
"""Divisor of the features of each stage, so that a CPU trains in minutes."""
BATCH = 2
LEARNING_RATE = 2e-3


def main() -> None:
    """The command."""
    asked = _parse()
    name = f"Dataset{NUMBER:03d}_{asked.name}"
    for folder in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{folder}"] = str((asked.work / folder).resolve())
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    write_raw(asked.data, asked.work / "raw" / name)
    planned = asked.work / "preprocessed" / name / f"{PLANS}.json"
    if not planned.is_file():
        plan(planned)
    for fold in asked.folds:
        train(name, fold, asked.epochs, asked.iterations)


def write_raw(data: Path, raw: Path) -> None:
    """Links of a Decathlon folder's labelled cases under nnU-Net's names, and its dataset.json."""
    described = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    for entry in described["training"]:
        image, label = (data / entry[key] for key in ("image", "label"))
        stem = image.name.removesuffix(".nii.gz")
        for place, file in (
            (f"imagesTr/{stem}_0000.nii.gz", image),
            (f"labelsTr/{stem}.nii.gz", label),
        ):
            (raw / place).parent.mkdir(parents=True, exist_ok=True)
            if not (raw / place).exists():
                (raw / place).symlink_to(file.resolve())
    labels = {title: int(value) for value, title in described["labels"].items()}
    content = {
        "channel_names": described["modality"],
        "labels": labels,
        "numTraining": len(described["training"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def plan(planned: Path) -> None:
    """nnU-Net's own plan and preprocessing, with fewer features and a smaller batch."""
    command = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    options = ["-d", str(NUMBER), "-c", CONFIGURATION, "-np", "1", "-npfp", "1"]
    one_process = os.environ | {"nnUNet_n_proc_DA": "1"}
    subprocess.run([command, *options], check=True, env=one_process)
    plans = json.loads(planned.with_name("nnUNetPlans.json").read_text(encoding="utf-8"))
    chosen = plans["configurations"][CONFIGURATION]
    network = chosen["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [n // FEATURES for n in network["features_per_stage"]]
    chosen["batch_size"] = BATCH
    plans["plans_name"] = PLANS
    planned.write_text(json.dumps(plans, indent=2), encoding="utf-8")


def train(name: str, fold: int, epochs: int, iterations: int) -> None:
    """Train a fold, and predict its held-out cases with probabilities."""
    import torch
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import (
        nnUNetTrainerNoDA,
    )

    class ShortTrainer(nnUNetTrainerNoDA):
        """nnU-Net's trainer without augmentation, for fewer and shorter epochs, with Adam.

        Its own optimiser (momentum 0.99) needs far more steps than a CPU has minutes for.
        """

        def __init__(
            self,
            plans: dict[str, Any],
            configuration: str,
            fold: int,
            dataset_json: dict[str, Any],
            device: torch.device,
        ) -> None:  # nnU-Net looks at these names
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs, self.num_iterations_per_epoch = epochs, iterations
            self.num_val_iterations_per_epoch, self.save_every = 1, 5
            self.initial_lr = LEARNING_RATE

        def configure_optimizers(self) -> tuple[Any, Any]:
            adam = torch.optim.Adam(self.network.parameters(), lr=self.initial_lr)
            return adam, PolyLRScheduler(adam, self.initial_lr, self.num_epochs)

    torch.set_num_threads(1)
    root = Path(os.environ[PREPROCESSED]) / name
    plans = json.loads((root / f"{PLANS}.json").read_text(encoding="utf-8"))
    described = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    trainer = ShortTrainer(
        plans | {"continue_training": False}, CONFIGURATION, fold, described, torch.device("cpu")
    )
    output = Path(trainer.output_folder)
    if (output / "validation" / "summary.json").is_file():
        return
    trainer.initialize()
    for left in ("checkpoint_final.pth", "checkpoint_latest.pth"):
        if (output / left).is_file():
            trainer.load_checkpoint(str(output / left))
            break
    if not (output / "checkpoint_final.pth").is_file():
        trainer.run_training()
    trainer.perform_actual_validation(save_probabilities=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nnunet_folds.py", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with a Decathlon dataset.json")
    add("--work", type=Path, required=True, help="folder of nnU-Net's raw data and results")
    add("--name", default="Hippocampus", help="name of the data set")
    add("--folds", type=lambda text: [int(k) for k in text.split(",")], default=[0, 1, 2])
    add("--epochs", type=int, default=6)
    add("--iterations", type=int, default=25, help="steps of an epoch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
