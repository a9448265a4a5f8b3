"""A registered posterior as an MLflow model: image and mask in, completions and their summary out.

MLflow keeps this file beside the weights and runs it when the model is loaded ("models from code"), so
nothing is pickled. It needs the package `condvae` and nothing else of this project::

    model = mlflow.pyfunc.load_model("models:/condvae-inpainting-digits@champion")
    drawn = model.predict({"image": image, "mask": mask}, params={"completions": 8, "seed": 1})
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from numpy.typing import NDArray

from condvae.ground.configuration import ConfigurationError, check_seed
from condvae.ground.devices import resolve_device
from condvae.ground.images import check_scale
from condvae.models.folder import load_posterior
from condvae.posterior.guidance import guide_posterior
from condvae.posterior.importance import importance_bound
from condvae.tasks import task_named

__all__ = ["PosteriorModel", "make_example", "make_signature"]

# Arguments of `ImagePosterior.observe` and what the model's inputs are called.
_INPUTS = {"pixels": "image"}


class PosteriorModel(PythonModel):  # type: ignore[misc]
    """Draws completions.

    Inputs are what the task needs, by name:

    - ``image`` uint8 (B,C,H,W), and ``mask`` uint8 (B,1,H,W), 1 = observed, for inpainting; pixels that
      are not observed may hold anything as long as no bound is asked for;
    - ``image`` alone where y is computed from the whole image (super-resolution, colourisation);
    - ``labels`` int64 (B), ``attributes`` int64 (B,A) or ``paired`` uint8 (B,C,H,W) for other tasks.

    Params: ``completions`` K >= 2, ``seed``, ``temperature``, and ``bound_draws``, the number of draws
    of the importance-weighted bound, 0 for no bound.

    The result is a dict of arrays:

    - ``completions`` uint8 (B,K,C,H,W);
    - ``mean`` and ``sd`` float32 (B,C,H,W), in grey levels, over the K completions; sd has the divisor
      K - 1;
    - ``log_bound`` float64 (B), nats: the lower bound on log p(x~ | y) with `bound_draws` draws from
      q(z | x) (Burda et al. 2016). x~ are the unobserved values of the given image, which is taken
      for the truth in *every* pixel. nan without draws.

    Case number b of a batch draws its noise from (seed, b, k): the same call gives the same arrays.
    """

    def load_context(self, context: Any) -> None:
        """Open the posterior, whose weights are checked against its card."""
        trained = load_posterior(context.artifacts["posterior"], resolve_device("auto"))
        guidance = (context.model_config or {}).get("guidance", 1.0)
        self.posterior = guide_posterior(trained, guidance)

    # What arrives is a dict of arrays, which the signature checks; of the hints that say so MLflow
    # complains whenever the model is loaded.
    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Complete a batch; see the class.

        Raises:
            ConfigurationError: A param out of range, an input that is missing or does not fit the
                model, or a bound asked for where the task has no image.
            ValueError: A mask with other values than 0 and 1.
        """
        del context
        asked = dict(params or {})
        k, seed = int(asked.get("completions", 16)), int(asked.get("seed", 0))
        check_seed("seed", seed)
        if k < 2:
            raise ConfigurationError(
                f"completions = {k}: a standard deviation needs at least 2 completions"
            )
        given: dict[str, Any] = {
            name: torch.from_numpy(np.array(model_input[_INPUTS.get(name, name)]))
            for name in self.posterior.task.needs
        }
        for name in ("pixels", "paired"):
            for place, picture in enumerate(given.get(name, ())):
                check_scale(int(picture.max()), f"{_INPUTS.get(name, name)} {place}")
        observation = self.posterior.observe(**given)
        temperature = float(asked.get("temperature", 1.0))
        drawn = self.posterior.sample(observation, k, temperature=temperature, seed=seed)
        completions = drawn.transpose(0, 1).numpy()
        wide = completions.astype(np.float64)
        return {
            "completions": completions,
            "mean": wide.mean(axis=1).astype(np.float32),
            "sd": wide.std(axis=1, ddof=1).astype(np.float32),
            "log_bound": self._bound(given, observation, int(asked.get("bound_draws", 0)), seed),
        }

    def _bound(
        self, given: Mapping[str, Any], observation: Any, draws: int, seed: int
    ) -> NDArray[np.float64]:
        if draws == 0:
            return np.full(len(observation), math.nan)
        if "pixels" not in given:
            raise ConfigurationError(
                f"bound_draws = {draws}: expected 0, as task {self.posterior.task.name!r} is given no "
                "image to bound"
            )
        bound = importance_bound(self.posterior, given["pixels"], observation, [draws], seed=seed)
        # Not -bits * log 2 for bits of 0, which would be -0.
        return np.asarray(0.0 - bound.bound_bits[draws].numpy() * math.log(2))


def make_signature(card: Mapping[str, Any], temperature: float) -> ModelSignature:
    """What the model of a posterior takes and gives.

    Args:
        card: Of the posterior.
        temperature: Default of the param of this name.
    """
    contract = card["data_contract"]
    image = (contract["channels"], contract["size"], contract["size"])
    tensors = {
        "pixels": ("uint8", (-1, *image)),
        "mask": ("uint8", (-1, 1, *image[1:])),
        "labels": ("int64", (-1,)),
        "attributes": ("int64", (-1, -1)),
        "paired": ("uint8", (-1, *image)),
    }
    outputs = {
        "completions": ("uint8", (-1, -1, *image)),
        "mean": ("float32", (-1, *image)),
        "sd": ("float32", (-1, *image)),
        "log_bound": ("float64", (-1,)),
    }
    needs = _task_of(card).needs
    return ModelSignature(
        inputs=_schema({_INPUTS.get(name, name): tensors[name] for name in needs}),
        outputs=_schema(outputs),
        params=ParamSchema(
            [
                ParamSpec("completions", DataType.long, 16),
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("temperature", DataType.double, float(temperature)),
                ParamSpec("bound_draws", DataType.long, 0),
            ]
        ),
    )


def make_example(card: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Inputs and params that show the form: one grey image, its left half observed, two completions."""
    contract = card["data_contract"]
    size = contract["size"]
    image = np.full((1, contract["channels"], size, size), round(contract["mean"]), np.uint8)
    mask = np.zeros((1, 1, size, size), np.uint8)
    mask[..., : size // 2] = 1
    task = _task_of(card)
    arrays: dict[str, NDArray[Any]] = {
        "pixels": image,
        "mask": mask,
        "labels": np.zeros(1, np.int64),
        "attributes": np.zeros((1, task.options.get("count", 0)), np.int64),
        "paired": image,
    }
    inputs = {_INPUTS.get(name, name): arrays[name] for name in task.needs}
    return inputs, {"completions": 2}


def _task_of(card: Mapping[str, Any]) -> Any:
    return task_named(card["task"], card.get("task_options"), "task_options")


def _schema(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Schema:
    return Schema([TensorSpec(np.dtype(kind), shape, n) for n, (kind, shape) in tensors.items()])


mlflow.models.set_model(PosteriorModel())
