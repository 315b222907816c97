"""Phase E: images a second of both networks, against the published TensorFlow code; and how a step grows with the patterns in it."""
from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
from case import Case, scaling

import fly64_nb.core.networks as networks  # noqa: F401  it settles the order of heavy imports
from fly64_nb.contract import Dataset
from fly64_nb.datasets import make_datasets
from fly64_nb.design import get_study_design, make_base
from fly64_nb.training import Examples, TrainingSettings, best_precision, make_network, validation_rows

# the published code on one core: fixed numbers that this project was given, not measured here
PUBLISHED_TRAINING, PUBLISHED_INFERENCE = 34.0, 46.0


def network(data: Dataset, method: str, settings: TrainingSettings):
    """A compiled network."""
    import keras

    made = make_network(method, data.probe, settings, data.dose, {})
    made.compile(keras.optimizers.Adam(settings.learning_rate), jit_compile=False)
    return made


def training(data: Dataset, method: str, settings: TrainingSettings, gridsize: int, images: int) -> Callable[[], None]:
    """Steps of training as a study does them, photons dealt anew for each; the first call compiles."""
    members = gridsize**2
    made, size = network(data, method, settings), max(1, settings.batch // members)
    rows, _ = validation_rows(data.x, settings.validation_share, members)
    batches = Examples(data, rows, members, method == "Baseline", made.support, settings, 7).batches(size)
    return lambda: made.fit(batches, steps_per_epoch=images // (size * members), epochs=1, verbose=0, shuffle=False)


def step(data: Dataset, settings: TrainingSettings, count: int) -> Callable[[], None]:
    """One step of the physics-informed network with so many patterns at once."""
    made = network(data, "PtychoPINN", settings)
    examples = Examples(data, np.arange(len(data)), 1, False, made.support, settings, 7)
    inputs, target = next(islice(examples.batches(count), 1))
    return lambda: [made.train_on_batch(inputs, target) for _ in range(4)]


def cases(full: bool, gpu: bool) -> list[Case]:
    design = get_study_design("full" if full else "quick")
    base, _ = make_base(design)
    data = make_datasets(base, design, 1e4)["train"]
    settings = TrainingSettings(filters=design.filters, stages=design.stages, precision=best_precision())
    images = 1600 if full else 320
    about = f"{images} of {data.window}², {settings.filters} filters, {settings.precision}"
    published = lambda rate, n: {"bound": n / rate, "peer_name": f"published TensorFlow code, {rate:g} images/s on one core (fixed number)",
                                 "items": n, "item": "images"}
    made = [Case(f"training, {name}", training(data, method, settings, gridsize, images), about, **published(PUBLISHED_TRAINING, images), repeats=5)
            for name, method, gridsize in (("physics-informed, gs1", "PtychoPINN", 1), ("physics-informed, gs2", "PtychoPINN", 2),
                                           ("supervised", "Baseline", 1))]
    for name, method in (("physics-informed", "PtychoPINN"), ("supervised", "Baseline")):
        trained = network(data, method, settings)
        made.append(Case(f"inference, {name}", lambda n=trained: n.predict_patches(data.diffraction[:images]), about,
                         **published(PUBLISHED_INFERENCE, images), repeats=5))
    sizes = (8, 16, 32, 64, 128) if full else (8, 16, 32)
    return [*made, scaling("scaling of a training step (E)", sizes, lambda count: step(data, settings, count), "patterns a batch")]
